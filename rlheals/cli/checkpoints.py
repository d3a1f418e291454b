"""`rlheals spectra` and `rlheals edit`: commands for two checkpoints of anybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlheals.cli.options import Json, Out
from rlheals.cli.printed import edit_lines, spectra_lines
from rlheals.cli.terminal import show

app = typer.Typer()


@app.command(
    epilog="Example: rlheals spectra base.safetensors tuned/ --matrices q,k,v,down --null 20 --out spectra"
)
def spectra(
    before: Annotated[str, typer.Argument(help="A .safetensors file, a folder with shards, or a hub id.")],
    after: Annotated[str, typer.Argument(help="Another checkpoint of the same model.")],
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="A third checkpoint: does the change lead toward its directions?"),
    ] = None,
    k: Annotated[str | None, typer.Option("--k", help="Sizes of subspaces, e.g. 8,64,256.")] = None,
    matrices: Annotated[
        str | None, typer.Option("--matrices", help="Of q,k,v,o,gate,up,down,embed,head; all by default.")
    ] = None,
    null: Annotated[int, typer.Option("--null", min=0, help="Draws of every null model; 0: none.")] = 20,
    nulls: Annotated[
        str | None, typer.Option("--nulls", help="Of gaussian,permuted,turned,ulp,independent.")
    ] = None,
    heads: Annotated[int, typer.Option("--heads", min=0, help="Measure every attention head as well.")] = 0,
    key_value_heads: Annotated[
        int, typer.Option("--key-value-heads", min=0, help="Heads of k and v where they are fewer.")
    ] = 0,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Keep the first checkpoint's decompositions in this folder."),
    ] = None,
    unrelated: Annotated[
        bool, typer.Option("--unrelated", help="Accept matrices that have nothing in common.")
    ] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Singular values and directions of two checkpoints beside null models; with --out tables, figures and a page."""
    from rlheals.cli import checkpoint_commands

    asked = {
        "ks": None if k is None else k.split(","),
        "kinds": None if matrices is None else matrices.split(","),
        "nulls": None if nulls is None else nulls.split(","),
        "draws": null,
        "heads": heads,
        "key_value_heads": key_value_heads,
        "unrelated": unrelated,
    }
    found = checkpoint_commands.compare_checkpoints(before, after, asked, out, cache, reference)
    show(found, lambda: spectra_lines(found), json)


@app.command(
    epilog="Example: rlheals edit peak/ end/ --edit 'directions(top=20%)' --where 'layers=0-3' --out back"
)
def edit(
    base: Annotated[str, typer.Argument(help="What is put back: a .safetensors file, a folder or a hub id.")],
    target: Annotated[str, typer.Argument(help="What is edited: another checkpoint of the same model.")],
    edit: Annotated[
        str, typer.Option("--edit", help="E.g. 'values(all)', 'triples(top=8)', 'noise() like rollback()'.")
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the edited checkpoint.")],
    where: Annotated[
        str, typer.Option("--where", help="E.g. 'attention layers=0-3', 'everything'; the blocks by default.")
    ] = "blocks",
    json: Json = False,
) -> None:
    """Put singular values, directions or subspaces of one checkpoint back into another, and say what that changed."""
    from rlheals.cli import checkpoint_commands

    made = checkpoint_commands.edit_checkpoint(base, target, edit, where, out)
    show(made, lambda: edit_lines(made), json)
