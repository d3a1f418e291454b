"""`rlheals publish`: hand on what a study has made, and check what somebody else hands on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlheals.cli.options import Json, Results, Set, chosen_profile
from rlheals.cli.terminal import show
from rlheals.errors import BadInput

app = typer.Typer()


@app.command(epilog="Example: rlheals publish --profile lab --seed 1 --out lab-seed-1")
def publish(
    profile: Annotated[
        str | None, typer.Option("--profile", help="A name such as lab (the default), or a .yaml file.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=9999, help="Base seed.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder: a new or an empty one, or one that this command wrote."),
    ] = None,
    hub: Annotated[
        str | None, typer.Option("--hub", metavar="OWNER/NAME", help="Also, or only, to this repository.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --hub: nobody else can see the repository.")
    ] = False,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps", help="SFT steps whose weights go in, e.g. 0,40,1280; those evaluated by default."
        ),
    ] = None,
    recovery: Annotated[bool, typer.Option("--recovery", help="RL has to be in the store.")] = False,
    rotation: Annotated[bool, typer.Option("--rotation", help="Spectra have to be in the store.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", metavar="FOLDER", help="Only say whether a published folder is as it was written."
        ),
    ] = None,
    again: Annotated[
        str | None,
        typer.Option(
            "--again",
            metavar="CHECKPOINT",
            help="With --check: let it play its episodes anew and compare them.",
        ),
    ] = None,
    results: Results = Path("results"),
    set_: Set = None,
    json: Json = False,
) -> int:
    """Write checkpoints, spectra, tables and a model card of one base seed to a folder or a hub. Computes nothing.

    What the store has of RL, spectra, edits and protected SFT goes in too. Exit code 1 if --again finds a difference.
    """
    if check is not None:
        if out or hub or private or steps or recovery or rotation or set_ or profile or seed is not None:
            raise BadInput("--check: accepted together with --again and --json only")
        from rlheals.cli import publish_commands as commands

        found = commands.look(check, again)
        show(found, lambda: commands.looked_lines(found), json)
        return 0 if found["ok"] else 1
    if again is not None:
        raise BadInput("--again: accepted together with --check only")
    if seed is None or (out is None and hub is None):
        raise BadInput("publish: --seed, and --out FOLDER or --hub OWNER/NAME (or both), are needed")
    if private and hub is None:
        raise BadInput("--private: accepted together with --hub only")
    from rlheals.cli import publish_commands as commands

    needed = [key for key, given in (("recovery", recovery), ("rotation", rotation)) if given]
    name, changes = profile or "lab", set_ or []
    wanted = commands.asked(chosen_profile(name, changes), name, changes, seed, steps, needed)
    done = commands.write(wanted, results, out, hub, private)
    show(done, lambda: commands.written_lines(done), json)
    return 0
