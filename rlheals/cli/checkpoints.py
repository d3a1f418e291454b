"""`rlheals spectra`, `rlheals edit` and `rlheals select`: commands for checkpoints of anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from rlheals.cli.options import RESULTS, Json, Out, Results, parse_numbers
from rlheals.cli.terminal import rows_of, show, table
from rlheals.errors import BadInput

app = Typer()


@app.command(
    epilog="Example: rlheals spectra base.safetensors tuned/ --matrices q,k,v,down --null 20 --out spectra"
)
def spectra(
    before: Annotated[str, Argument(help="A .safetensors or .gguf file, a folder with shards, or a hub id.")],
    after: Annotated[str, Argument(help="Another checkpoint of the same model, or a LoRA adapter of it.")],
    reference: Annotated[
        str | None, Option(help="A third checkpoint, from which angles are measured.")
    ] = None,
    k: Annotated[str | None, Option(help="Sizes of subspaces, e.g. 8,64,256.")] = None,
    matrices: Annotated[
        str | None, Option(help="Kinds such as q,gate,router,cross_q,expert_up or 64x32; else all.")
    ] = None,
    null: Annotated[int, Option(min=0, max=10_000, help="Draws of every null model; 0: none.")] = 20,
    nulls: Annotated[str | None, Option(help="Some of gaussian,permuted,turned,ulp,independent.")] = None,
    heads: Annotated[int, Option(min=0, help="Measure every attention head as well.")] = 0,
    key_value_heads: Annotated[int, Option(min=0, help="Heads of k and v where they are fewer.")] = 0,
    cache: Annotated[Path | None, Option(help="Keep the decompositions of the first one here.")] = None,
    unrelated: Annotated[bool, Option("--unrelated", help="Accept matrices with nothing in common.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Singular values and vectors of two checkpoints beside null models; with --out tables, figures and a page."""
    from rlheals.store.files import refuse_used
    from rlheals.weights.architectures import NAMED, known
    from rlheals.weights.two_checkpoints import NULLS, compare_checkpoints

    if out is not None:
        from rlheals.weights import report  # noqa: F401 - its libraries are there, or nothing is computed

        refuse_used(out)
    found = compare_checkpoints(
        before,
        after,
        reference=reference,
        kinds=_listed("--matrices", matrices, known, NAMED),
        ks=None if k is None else parse_numbers("--k", k, 1),
        nulls=_listed("--nulls", nulls, NULLS.__contains__, NULLS),
        draws=null,
        heads=heads,
        key_value_heads=key_value_heads,
        unrelated=unrelated,
        cache=cache,
    )
    page = None if out is None else str(found.report(out))
    facts = found.facts() | {"out": None if out is None else str(out), "page": page}
    show(facts, _spectra_lines(facts), json)


def _listed(
    option: str, text: str | None, known: Callable[[str], bool], accepted: Iterable[str]
) -> list[str] | None:
    if text is None:
        return None
    names = text.split(",")
    if not all(map(known, names)) or len({*names}) < len(names):
        raise BadInput(f"{option} {text!r:.60}; accepted, each once: {', '.join(accepted)}")
    return names


def _spectra_lines(found: dict[str, Any]) -> Iterable[str]:
    """Mean angles by kind, side and k; where the files are."""
    if found["reference"] is not None:
        yield f"angles to {found['reference']}"
    columns = {"kind": "kind", "side": "side", "k": "k", "start": "start", "change": "degrees"}
    yield from table(found["angles"], {**columns, "gaussian": "Gaussian null", "excess": "excess"})
    for kind, size in found["relative_change"].items():
        said = {name: "-" if value is None else f"{value:.3g}" for name, value in size.items()}
        null = found["intruders_null"].get(kind)
        intruders = f"{found['intruders'][kind]:.2g}" + ("" if null is None else f" (null {null:.2g})")
        yield (
            f"{kind:11} |dW|/|W| {said['size']}, singular values change by {said['values']} on average, "
            f"intruder dimensions {intruders}"
        )
    yield from found["notes"]
    if found["out"] is not None:
        yield f"page: {found['page']}"


@app.command(
    epilog="Example: rlheals edit peak/ end/ --edit 'directions(top=20%)' --where 'layers=0-3' --out back"
)
def edit(
    base: Annotated[str, Argument(help="What is put back: a .safetensors file, a folder or a hub id.")],
    target: Annotated[str, Argument(help="What is edited: another checkpoint of the same model.")],
    edit: Annotated[str, Option(help="E.g. 'values(all)', 'triples(top=8)', 'noise() like rollback()'.")],
    out: Annotated[Path, Option(help="A new folder for the edited checkpoint.")],
    where: Annotated[str, Option(help="E.g. 'attention layers=0-3', 'everything'.")] = "blocks",
    json: Json = False,
) -> None:
    """Put singular values, vectors or subspaces of one checkpoint back into another, and say what that changed."""
    from rlheals.weights.two_checkpoints import edit_checkpoint

    made = edit_checkpoint(base, target, edit, where, out)
    show(made, _edit_lines(made), json)


def _edit_lines(found: dict[str, Any]) -> Iterable[str]:
    """One line per edited tensor."""
    columns = {
        "tensor": "tensor",
        "change": "change",
        "distance_before": "to base",
        "distance_after": "after",
        "angle_before": "degrees",
        "angle_after": "degrees after",
    }
    yield f"{found['edit']} of {found['where']}"
    yield from table(found["tensors"], columns)
    yield from found["notes"]
    yield f"sizes are in units of the tensor before; written: {found['out']}"


@app.command(epilog="Example: rlheals select base/ out/checkpoint-* --task navigation")
def select(
    base: Annotated[str, Argument(help="The checkpoint that SFT began with.")],
    checkpoints: Annotated[list[str], Argument(help="Of one SFT run; names end in their step.")],
    task: Annotated[str | None, Option(help="Also ask them this task's ID questions.")] = None,
    hands: Annotated[int, Option(min=2, help="With --task: so many questions.")] = 64,
    draws: Annotated[int, Option(min=1, max=1000, help="Of the null of rotation.")] = 5,
    study: Annotated[str, Option(help="The recorded study that rules are judged by.")] = "lab",
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Which SFT checkpoint to ship, or to start RL from, without OOD labels: rules with what each has cost."""
    from rlheals.chapters import selectors
    from rlheals.project import project_root

    seen = selectors.observed(base, checkpoints, task, hands, draws)
    chosen = selectors.chosen(seen, selectors.recorded(study, project_root() / results))
    data = {"checkpoints": rows_of(seen), "rules": rows_of(chosen), "study": study}
    show(data, _select_lines(data), json)


def _select_lines(found: dict[str, Any]) -> Iterable[str]:
    """What was seen of every checkpoint; by rule the checkpoint it chooses and what it cost in the study."""
    columns = {
        "checkpoint": "checkpoint",
        "step": "step",
        "size": "|dW|/|W|",
        "angle": "rotation",
        "excess": "beyond null",
        "test": "held-out loss",
        "held_out": "held-out ID",
        "entropy": "entropy",
        "kl": "KL",
    }
    yield from table(found["checkpoints"], columns)
    yield ""
    rows = [{**rule, **{name: _cost(rule, name) for name in ("ship", "start")}} for rule in found["rules"]]
    ship, start = "points lost: shipped", "as a start of RL"
    yield from table(
        rows, {"rule": "rule", "step": "chooses step", "at_peak": "at peak", "ship": ship, "start": start}
    )
    if any(row["ship"] for row in rows):
        yield (
            f"lost: OOD accuracy below that of the best checkpoint in the recorded study {found['study']}, mean and "
            f"95 % t interval over its base seeds; at peak: the mean there, which may not be that of other models"
        )
    else:
        yield f"no study of SFT and spectra named {found['study']} is recorded here, so no rule's regret is known"


def _cost(rule: dict[str, Any], question: str) -> str | None:
    value, low, high = (rule.get(f"{question}{end}") for end in ("", "_low", "_high"))
    return None if value is None else f"{value:.1f} [{low:.1f}, {high:.1f}]"
