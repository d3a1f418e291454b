"""`rlheals publish`: hand on what a study has made, and check what somebody else hands on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer

from rlheals.cli.options import (
    LARGEST_SEED,
    RESULTS,
    Json,
    OptionalProfile,
    Results,
    Set,
    chosen_profile,
    parse_numbers,
    the_store,
)
from rlheals.cli.terminal import show
from rlheals.errors import BadInput
from rlheals.project import project_root

app = Typer()


@app.command(epilog="Example: rlheals publish --profile lab --seed 1 --out lab-seed-1")
def publish(
    profile: OptionalProfile = None,
    seed: Annotated[int | None, Option(min=0, max=LARGEST_SEED, help="Base seed.")] = None,
    out: Annotated[Path | None, Option(help="A new or empty folder, or one that this command wrote.")] = None,
    hub: Annotated[str | None, Option(help="OWNER/NAME: print the command that uploads it.")] = None,
    private: Annotated[bool, Option("--private", help="With --hub: make it private.")] = False,
    steps: Annotated[str | None, Option(help="SFT steps, e.g. 0,40,1280; else those evaluated.")] = None,
    recovery: Annotated[bool, Option("--recovery", help="RL has to be in the store.")] = False,
    rotation: Annotated[bool, Option("--rotation", help="Spectra have to be in the store.")] = False,
    check: Annotated[Path | None, Option(help="Only say whether this folder is as it was written.")] = None,
    again: Annotated[str | None, Option(help="With --check: evaluate this checkpoint again.")] = None,
    dataset: Annotated[
        bool, Option("--dataset", help="The recorded study (--results) as a dataset, not one base seed.")
    ] = False,
    checkpoints: Annotated[
        Path | None, Option(help="With --dataset: also write its recorded models to this new folder.")
    ] = None,
    results: Results = RESULTS,
    set_: Set = None,
    json: Json = False,
) -> int:
    """Write checkpoints, spectra, tables and a model card of one base seed to a folder. Computes nothing.

    What the store has of the later chapters goes in too. Exit code 1 if --again finds a difference.

    With --dataset instead of --seed: the tables of all profiles and base seeds below --results, and the claims with
    their verdicts, as parquet with a dataset card, for `datasets.load_dataset(FOLDER, CONFIG)` or DuckDB. Needs a new
    folder.
    """
    of_a_seed = steps or recovery or rotation or set_ or profile or seed is not None
    if check is not None:
        if out or hub or private or of_a_seed or dataset or checkpoints:
            raise BadInput("--check: only with --again and --json")
        from rlheals.publish import folder as published

        found = published.look(check, again)
        show(found, _looked_lines(found), json)
        return 0 if found["ok"] else 1
    if again is not None:
        raise BadInput("--again: only with --check")
    if out is None or (seed is None and not dataset):
        raise BadInput("publish: --out FOLDER and --seed (or --dataset) are needed")
    if private and hub is None:
        raise BadInput("--private: only with --hub")
    if dataset and of_a_seed:
        raise BadInput(
            "--dataset: covers all profiles and base seeds; accepted: --checkpoints, --results, --hub"
        )
    if checkpoints and not dataset:
        raise BadInput("--checkpoints: only with --dataset")
    from rlheals.publish import write

    kind = "dataset" if dataset else "model"
    upload = None if hub is None else write.upload_command(hub, out, private, kind)
    if seed is None:
        from rlheals.publish import dataset as study

        found = {"out": str(out), "hub": upload, **study.publish(project_root() / results, out, checkpoints)}
        show(found, _dataset_lines(found, checkpoints), json)
        return 0
    name, changes = profile or "lab", set_ or []
    wanted = write.Asked(
        chosen_profile(name, changes),
        seed,
        shlex.join(["--profile", name, *(word for change in changes for word in ("--set", change))]),
        None if steps is None else tuple(parse_numbers("--steps", steps, 0)),
        tuple(key for key, given in (("recovery", recovery), ("rotation", rotation)) if given),
    )
    made, absent = write.publish(wanted, the_store(), project_root() / results, out)
    done = {
        "profile": made.name,
        "seed": made.seed,
        "out": str(out),
        "hub": upload,
        "checkpoints": list(made.checkpoints),
        "files": len(made.files) + 1,
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "absent": absent,
    }
    show(done, _written_lines(done), json)
    return 0


def _written_lines(done: dict[str, Any]) -> Iterator[str]:
    yield f"{done['profile']}, base seed {done['seed']}: {done['files']} files, {done['bytes'] / 1e6:,.1f} MB"
    yield f"checkpoints: {', '.join(done['checkpoints'])}"
    for words, why in done["absent"].items():
        yield f"not in it: {words} ({why})"
    yield f"written: {done['out']}"
    if done["hub"] is not None:
        yield f"to upload it: {done['hub']}"


def _dataset_lines(done: dict[str, Any], checkpoints: Path | None) -> Iterator[str]:
    for name, rows in done["tables"].items():
        yield f"{name}: {rows:,} rows"
    yield f"written: {done['out']}"
    if checkpoints is not None:
        yield f"written: {checkpoints} ({len(done['checkpoints'])} models)"
    if done["hub"] is not None:
        yield f"to upload it: {done['hub']}"


def _looked_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['folder']}: {found['files']} files, each as it was written"
    if found["not_read"]:
        yield f"not looked at, as hubs add them: {', '.join(found['not_read'])}"
    for one in found["again"]:
        counts = f"{one['different']} of {one['episodes']}"
        yield f"sampling seed {one['decode']}: {counts} episodes differ from the recorded ones"
