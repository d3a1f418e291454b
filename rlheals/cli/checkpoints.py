"""`rlheals spectra` and `rlheals edit`: commands for two checkpoints of anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from rlheals.cli.options import Json, Out
from rlheals.cli.terminal import show
from rlheals.errors import BadInput

app = Typer()


@app.command(
    epilog="Example: rlheals spectra base.safetensors tuned/ --matrices q,k,v,down --null 20 --out spectra"
)
def spectra(
    before: Annotated[str, Argument(help="A .safetensors file, a folder with shards, or a hub id.")],
    after: Annotated[str, Argument(help="Another checkpoint of the same model, or a LoRA adapter of it.")],
    reference: Annotated[
        str | None, Option(help="A third checkpoint: does the change lead toward its singular vectors?")
    ] = None,
    k: Annotated[str | None, Option(help="Sizes of subspaces, e.g. 8,64,256.")] = None,
    matrices: Annotated[
        str | None, Option(help="Kinds such as q,k,gate,router,cross_q,expert_up or 64x32; all by default.")
    ] = None,
    null: Annotated[int, Option(min=0, max=10_000, help="Draws of every null model; 0: none.")] = 20,
    nulls: Annotated[str | None, Option(help="Of gaussian,permuted,turned,ulp,independent.")] = None,
    heads: Annotated[int, Option(min=0, help="Measure every attention head as well.")] = 0,
    key_value_heads: Annotated[int, Option(min=0, help="Heads of k and v where they are fewer.")] = 0,
    cache: Annotated[
        Path | None, Option(help="Keep the first checkpoint's decompositions in this folder.")
    ] = None,
    unrelated: Annotated[
        bool, Option("--unrelated", help="Accept matrices that have nothing in common.")
    ] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Singular values and vectors of two checkpoints beside null models; with --out tables, figures and a page."""
    from rlheals.weights.architectures import NAMED, known
    from rlheals.weights.two_checkpoints import NULLS, compare_checkpoints

    asked = {
        "ks": _sizes(k),
        "kinds": _listed("--matrices", matrices, known, NAMED),
        "nulls": _listed("--nulls", nulls, NULLS.__contains__, NULLS),
        "draws": null,
        "heads": heads,
        "key_value_heads": key_value_heads,
        "unrelated": unrelated,
    }
    found = compare_checkpoints(before, after, asked, out, cache, reference)
    show(found, lambda: _spectra_lines(found), json)


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    sizes = [int(part) if part.isascii() and part.isdecimal() else 0 for part in text.split(",")]
    if min(sizes) < 1 or sizes != sorted(set(sizes)):
        raise BadInput(f"--k {text!r:.60}: accepted are rising numbers from 1, such as 8,64,256")
    return sizes


def _listed(
    option: str, text: str | None, known: Callable[[str], bool], accepted: Iterable[str]
) -> list[str] | None:
    if text is None:
        return None
    names = text.split(",")
    if not all(map(known, names)) or len({*names}) < len(names):
        raise BadInput(f"{option} {text!r:.60}: accepted are, each once, {', '.join(accepted)}")
    return names


def _spectra_lines(found: dict[str, Any]) -> Iterable[str]:
    """Mean angles by kind, side and k; where the files are."""
    columns = {"start": "start"} if found["reference"] is not None else {}
    columns |= {"change": "degrees", "gaussian": "Gaussian null", "excess": "excess"}
    if found["reference"] is not None:
        yield f"angles to {found['reference']}"
    wide = max(6, *map(len, found["relative_change"]), 0)
    yield f"{'kind':{wide}} {'side':6} {'k':>6}" + "".join(f" {name:>14}" for name in columns.values())
    for row in found["angles"]:
        cells = ("-" if row.get(key) is None else f"{row[key]:.3f}" for key in columns)
        yield f"{row['kind']:{wide}} {row['side']:6} {row['k']:6}" + "".join(f" {cell:>14}" for cell in cells)
    for kind, size in found["relative_change"].items():
        said = {name: "-" if value is None else f"{value:.3g}" for name, value in size.items()}
        null = found["intruders_null"].get(kind)
        intruders = f"{found['intruders'][kind]:.2g}" + ("" if null is None else f" (null {null:.2g})")
        yield (
            f"{kind:{wide}} |dW|/|W| {said['size']}, singular values change by {said['values']} on average, "
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
    where: Annotated[
        str, Option(help="E.g. 'attention layers=0-3', 'everything'; the blocks by default.")
    ] = "blocks",
    json: Json = False,
) -> None:
    """Put singular values, vectors or subspaces of one checkpoint back into another, and say what that changed."""
    from rlheals.weights.two_checkpoints import edit_checkpoint

    made = edit_checkpoint(base, target, edit, where, out)
    show(made, lambda: _edit_lines(made), json)


def _edit_lines(found: dict[str, Any]) -> Iterable[str]:
    """One line per edited tensor."""
    yield f"{found['edit']} of {found['where']}"
    yield f"{'change':>9} {'to base':>9} {'after':>9} {'degrees':>9} {'after':>9}  tensor"
    for row in found["tensors"]:
        formats = {"change": ".4g", "distance_before": ".4g", "distance_after": ".4g"}
        formats |= {"angle_before": ".3f", "angle_after": ".3f"}
        cells = ["-" if row[key] is None else f"{row[key]:{form}}" for key, form in formats.items()]
        yield " ".join(f"{cell:>9}" for cell in cells) + f"  {row['tensor']}"
    yield from found["notes"]
    yield f"sizes are in units of the tensor before; written: {found['out']}"
