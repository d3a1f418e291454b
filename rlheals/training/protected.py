"""SFT with a regulariser: the stage. Training is that of `sft.py`; the gradient of a penalty is added to its own.

"subspace"  strength * sum over weight matrices of |U^T (W - W0) V|^2, U and V the base's leading singular directions:
            the form of RPSFT (arXiv 2605.10973)
"random"    the same with random subspaces (Haar) of equal dimension: the control
"kl"        strength * forward KL from the base on the answers' tokens, nats per token
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from transformers import PreTrainedModel

from rlheals.engines import models
from rlheals.engines.models import Unscaled
from rlheals.errors import BadInput
from rlheals.evaluation.dialects import dialect_for
from rlheals.settings import Float, Rate
from rlheals.stage import Work
from rlheals.tasks import load_task
from rlheals.training.expert import IGNORED
from rlheals.training.sft import SFTSettings, checkpoint_name, fitting, train
from rlheals.weights.linalg import decompose
from rlheals.weights.nulls import haar

Kind = Literal["subspace", "random", "kl"]


class ProtectedSettings(SFTSettings):
    """SFT with a regulariser."""

    kind: Kind = Field("subspace", description="the regulariser, see `protected.py`")
    strength: Float = Field(0.1, ge=0, description="of the penalty; 0: plain SFT")
    share: Rate = Field(0.25, le=1, description="dimension of the subspaces / smaller side of a matrix")
    precision: Unscaled = Field("own", description="as of SFT; a scaled loss would outweigh the penalty")

    @field_validator("lora_rank")
    @classmethod
    def _whole(cls, rank: int | None) -> int | None:
        if rank is not None:
            raise ValueError(f"lora_rank={rank}: a regulariser is about whole weights")
        return rank

    @field_validator("processes")
    @classmethod
    def _alone(cls, processes: int) -> int:
        if processes > 1:
            raise ValueError(f"processes={processes}: SFT with a regulariser is done by one process")
        return processes


def run(work: Work) -> None:
    """The stage: as `sft.run`; `penalties.json` has the penalty, without its strength, at every checkpoint."""
    settings = ProtectedSettings.model_validate(work.settings)
    base = work.inputs["base"] / settings.folder
    model = models.load(base)
    dialect = dialect_for(models.load_tokenizer(base), load_task(settings.task), settings.prompts)
    settings = fitting(settings, model, dialect)
    penalties: list[dict[str, float]] = []
    with penalised(model, settings, work.seed) as penalty:

        def keep(step: int) -> None:
            models.save(work.out / checkpoint_name(step), model, dialect.tokenizer)
            penalties.append({"step": step, "penalty": penalty()})

        losses = train(model, dialect, settings, work.seed, keep, work.tick)
    (work.out / "losses.json").write_text(json.dumps(losses, indent=1) + "\n")
    (work.out / "penalties.json").write_text(json.dumps(penalties, indent=1) + "\n")


@contextmanager
def subspaces(
    model: torch.nn.Module,
    share: float = 0.25,
    strength: float = 0.1,
    *,
    random: bool = False,
    seed: int = 0,
    accumulation: int = 1,
) -> Iterator[Callable[[], float]]:
    """A context for any training that adds the penalty's gradient to every weight's; yields a function for its value.

    The penalty is strength times the sum, over weight matrices, of what they have moved inside the leading subspaces
    that they have on entering. share: dimension of the subspaces / smaller side of a matrix; random: subspaces drawn at
    random (with `seed`) instead, the control; accumulation: backward passes per optimiser step. Gradients that are
    scaled (fp16) would outweigh the penalty. BadInput for invalid numbers.

    >>> import torch
    >>> layer = torch.nn.Linear(4, 4, bias=False)
    >>> with subspaces(layer, share=0.5, strength=1.0) as moved:
    ...     moved()
    0.0

    The gradient of `|U^T (W - W0) V|^2` is `2 U U^T (W - W0) V V^T`. It is added where a loss would add it, before
    gradients are clipped. Matrices that are shared (embedding and output head) count once.
    """
    if not (0 < share <= 1 and 0 <= strength < math.inf and accumulation >= 1):
        raise BadInput(
            f"subspaces: share={share}, strength={strength}, accumulation={accumulation}; accepted: a share in (0, 1], "
            "a strength from 0 up, 1 or more backward passes"
        )
    anchored: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor, torch.Tensor]] = []
    hooks = []
    for name, weight in model.named_parameters():
        if weight.ndim != 2 or not weight.requires_grad:
            continue
        origin = weight.detach().clone()
        u, v = _frames(origin, share, random, f"{seed} {name}")
        anchored.append((weight, origin, u, v))

        def add(w: torch.Tensor, origin=origin, u=u, v=v) -> None:
            inside = u.T @ (w.detach() - origin) @ v
            assert w.grad is not None
            w.grad.add_(u @ inside @ v.T, alpha=2 * strength / accumulation)

        if strength:
            hooks.append(weight.register_post_accumulate_grad_hook(add))
    try:
        yield lambda: float(sum((u.T @ (w.detach() - w0) @ v).square().sum() for w, w0, u, v in anchored))
    finally:
        for hook in hooks:
            hook.remove()


def _frames(w: torch.Tensor, share: float, random: bool, key: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Left and right orthonormal frames of the subspaces of one matrix, in its type; of all dimensions: everything."""
    k = max(1, round(share * min(w.shape)))
    if k == min(w.shape):
        sides = [torch.eye(size) for size in w.shape]
    elif random:
        named = zip(w.shape, ("left", "right"), strict=True)
        sides = [haar(size, k, 1, f"protected {key} {name}")[0] for size, name in named]
    else:
        found = decompose(w.double())
        sides = [found.u[:, :k], found.v[:, :k]]
    left, right = (side.to(w.device, w.dtype) for side in sides)
    return left, right


@contextmanager
def kl_from_base(
    model: PreTrainedModel, settings: ProtectedSettings, seed: int
) -> Iterator[Callable[[], float]]:
    """A context that adds the KL from the base to the training loss, as a mean over the answers' tokens of a batch.

    TRL's loss is minus the mean of the tokens' log-probabilities, which its forward gives without logits; these are
    computed once more, and the divergence is subtracted from the log-probabilities. Gives the mean KL of the
    latest batch (0 before the first).
    """
    base = type(model)(copy.deepcopy(model.config))
    base.load_state_dict(model.state_dict())
    torch.nn.Module.to(base, model.device, model.dtype).eval().requires_grad_(False)
    models.shorten_products(base, settings.precision)
    latest = [0.0]

    def add(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        if not module.training or kwargs.get("labels") is None:
            return out
        here = kwargs["labels"][:, 1:] != IGNORED
        given = {
            name: kwargs[name] for name in ("input_ids", "attention_mask", "position_ids") if name in kwargs
        }

        def answers(one: torch.nn.Module) -> torch.Tensor:
            return one(**given, use_cache=False).logits[:, :-1][here].float().log_softmax(-1)

        with torch.no_grad():
            known = answers(base)
        each = (known.exp() * (known - answers(module))).sum(-1)
        latest[0] = float(each.detach().mean())
        lowered = out.log_probs[out.label_mask] - settings.strength * each
        out.log_probs = out.log_probs.masked_scatter(out.label_mask, lowered)
        return out

    hook = model.register_forward_hook(add, with_kwargs=True)
    try:
        yield lambda: latest[0]
    finally:
        hook.remove()


def penalised(
    model: PreTrainedModel, settings: ProtectedSettings, seed: int
) -> AbstractContextManager[Callable[[], float]]:
    """The regulariser that the settings name; every slice of a batch has a gradient of its own."""
    if settings.kind == "kl":
        return kl_from_base(model, settings, seed)
    is_random, slices = settings.kind == "random", settings.batch // settings.rows
    return subspaces(
        model, settings.share, settings.strength, random=is_random, seed=seed, accumulation=slices
    )
