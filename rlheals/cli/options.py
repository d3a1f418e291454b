"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlheals.cli.terminal import parse_settings, show

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]
ProfileName = Annotated[str, typer.Option("--profile", help="A name such as lab, or a .yaml file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Change a setting, e.g. sft.learning_rate=1e-3 (YAML value)."
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=9999, help="Base seed; 0 is the base in the package.")
]
Seeds = Annotated[str | None, typer.Option("--seeds", help='Base seeds, e.g. "1-3,7".')]
Workers = Annotated[
    int, typer.Option("--workers", min=1, max=256, help="Processes (or Slurm jobs) that compute.")
]
Results = Annotated[Path, typer.Option("--results", help="Folder of the recorded study.")]
Out = Annotated[Path | None, typer.Option("--out", help="Also write the files into this new folder.")]


def without_running(name: str, changes: Sequence[str] | None, json: bool) -> int:
    """What a profile would run and take, and whether it can run here: exit code 1 if it cannot."""
    from rlheals.cli.commands import the_store
    from rlheals.planning import dry_run

    found = dry_run.examine(chosen_profile(name, changes), the_store())
    show(found, lambda: dry_run.lines(found), json)
    return 1 if found["problems"] else 0


def chosen_profile(name: str, changes: Sequence[str] | None) -> Any:
    """The profile of `--profile` with the changes of `--set`."""
    from rlheals.profiles import load_profile

    return load_profile(name, parse_settings(changes or ()))
