"""Create, load and save causal language models: transformers' own classes, safetensors only, every key checked."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from rlheals.errors import BadInput
from rlheals.settings import Int, Settings

logging.disable_progress_bar()  # loading shows nothing worth a bar; long work has bars of its own

SHIPPED_BASE = Path(__file__).parent / "base"


class ModelSettings(Settings):
    """Shape of a lab model (Llama architecture, untied head).

    >>> ModelSettings().head_dim
    32
    """

    hidden: Int = Field(64, ge=8, description="width of the residual stream")
    layers: Int = Field(4, ge=1, description="number of decoder layers")
    heads: Int = Field(2, ge=1, description="attention heads; hidden / heads is the head dimension")
    mlp: Int = Field(160, ge=8, description="width of the SwiGLU block")
    max_tokens: Int = Field(256, ge=64, description="longest episode in tokens")

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @model_validator(mode="after")
    def _divides(self) -> ModelSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} is not a multiple of heads={self.heads}")
        if self.head_dim % 2:
            raise ValueError(f"hidden / heads is {self.head_dim}; rotary embeddings need an even number")
        return self


def create(settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A freshly initialised model in float32; the same seed gives the same weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.mlp,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.max_tokens,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
    """Write config.json, model.safetensors and, if given, the tokenizer into `folder`."""
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def load(folder: str | Path, device: str | torch.device = "cpu") -> PreTrainedModel:
    """The model in a local folder, or of a hub id such as "Qwen/Qwen2.5-0.5B-Instruct".

    Only safetensors are read and no code from the model is run. For a local folder every tensor the architecture
    needs must be there with its shape, and no other. Raises BadInput with one line otherwise.
    """
    path = Path(folder)
    try:
        if not path.is_dir():
            _refuse_missing_path(str(folder))
            return _placed(AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True), device)
        config = AutoConfig.from_pretrained(path)
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise BadInput(f"model {str(folder)!r}: {_first_line(error)}") from error
    shapes = _tensor_shapes(path)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    _check_keys(str(folder), skeleton, shapes)
    return _placed(AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, dtype="auto"), device)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved beside a model."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise BadInput(f"tokenizer of {str(folder)!r}: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BadInput(f"tokenizer of {str(folder)!r}: is a {type(tokenizer).__name__}, not a fast tokenizer")
    return tokenizer


def load_weights(model: PreTrainedModel, file: Path) -> None:
    """Replace the weights of `model` in place by those of a safetensors file; names and shapes must agree exactly."""
    try:
        state = load_file(file, device=str(model.device))
    except (OSError, SafetensorError) as error:
        raise BadInput(f"weights {file.name!r}: {_first_line(error)}") from error
    _check_keys(file.name, model, {name: tuple(tensor.shape) for name, tensor in state.items()})
    model.load_state_dict(state, strict=False)  # checked above; a tied head is not in the file


def _placed(model: PreTrainedModel, device: str | torch.device) -> PreTrainedModel:
    torch.nn.Module.to(model, device)
    return model.eval()


def _refuse_missing_path(folder: str) -> None:
    if folder.count("/") != 1 or folder.startswith((".", "/", "~")):
        raise BadInput(f"model {folder!r}: no such folder, and not a hub id of the form owner/name")


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise BadInput(
            f"model {str(path)!r}: holds no *.safetensors file (other weight formats are not read)"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                shapes.update({name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()})  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            raise BadInput(f"weights {str(file)!r}: {_first_line(error)}") from error
    return shapes


def _check_keys(where: str, model: PreTrainedModel, found: dict[str, tuple[int, ...]]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in getattr(model, "_tied_weights_keys", None) or {}:
        if getattr(model.config, "tie_word_embeddings", False) and name not in found:
            wanted.pop(name, None)
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unknown {name}" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {found[name]}, not {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise BadInput(f"weights of {where!r} do not fit the architecture: {'; '.join(problems[:3])}{more}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
