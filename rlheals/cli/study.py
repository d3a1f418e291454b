"""Commands about studies: `study`, `replay`, `report`, `claims`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlheals.cli.options import (
    Json,
    ProfileName,
    Results,
    Seed,
    Seeds,
    Set,
    Workers,
    chosen_profile,
    without_running,
)
from rlheals.cli.printed import claim_lines, compared_lines
from rlheals.cli.terminal import parse_seeds, parse_settings, show
from rlheals.errors import BadInput

app = typer.Typer()


@app.command(epilog="Example: rlheals study --profile smoke --seeds 1-3 --workers 2 --record results")
def study(
    profile: Annotated[
        str | None, typer.Option("--profile", help="A name such as lab, or a .yaml file.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="A variant of the lab, or all.")
    ] = None,
    seeds: Seeds = None,
    workers: Workers = 1,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="Workers of this Dask scheduler compute."),
    ] = None,
    slurm: Annotated[
        Path | None,
        typer.Option("--slurm", metavar="FILE", help="Slurm jobs compute; the file says of what kind."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="Write the tables into this folder.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only what the folder of --record does not have yet.")
    ] = False,
    recovery: Annotated[
        bool, typer.Option("--recovery", help="RL from the ladder of starts, and its controls (chapter 02).")
    ] = False,
    rotation: Annotated[
        bool, typer.Option("--rotation", help="Spectra and trajectories (chapter 03).")
    ] = False,
    edits: Annotated[bool, typer.Option("--edits", help="Edited checkpoints (chapter 04).")] = False,
    protection: Annotated[bool, typer.Option("--protection", help="Protected SFT (chapter 04).")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Only say what --profile would run, and what that takes.")
    ] = False,
    set_: Set = None,
    json: Json = False,
) -> int:
    """Run a profile or variants over several base seeds. Without either: the claims' study, then all variants."""
    from rlheals.cli import study_commands as commands

    if dry:
        return without_running(profile or "lab", set_, json)

    own = None if seeds is None else parse_seeds(seeds)
    later = {
        "recovery": ("--recovery", recovery),
        "rotation": ("--rotation", rotation),
        "swaps": ("--edits", edits),
        "protection": ("--protection", protection),
    }
    asked = [key for key, (_, given) in later.items() if given]
    options = [*(later[key][0] for key in asked), *(["--variant"] if variant else [])]
    if len(options) > 1:
        raise BadInput(f"{' and '.join(options)}: only one of them is accepted")
    crew, target = commands.crew(workers, scheduler, slurm), commands.target(record, missing)
    if asked:
        done = commands.run_later(asked[0], profile, parse_settings(set_ or ()), own, crew, target)
    else:
        chosen = commands.studies(profile, variant or (), parse_settings(set_ or ()))
        done = commands.run_studies(chosen, own, crew, target)
    show(done, lambda: [f"{one['profile']}: seeds {one['seeds']}" for one in done], json)
    return 0


@app.command(epilog="Example: rlheals fresh --profile lab --workers 2")
def fresh(
    profile: ProfileName = "lab",
    seeds: Seeds = None,
    workers: Workers = 1,
    results: Results = Path("results"),
    set_: Set = None,
    json: Json = False,
) -> None:
    """Load or compute the fresh runs of all chapters, so that notebooks find them: what `make book` does first."""
    from rlheals.cli import study_commands as commands

    own = None if seeds is None else parse_seeds(seeds)
    done = commands.fresh(chosen_profile(profile, set_), own, workers, results)
    show(done, lambda: [f"{done['runs']} runs, {done['core_minutes']:.1f} core-minutes"], json)


@app.command(epilog="Example: rlheals replay results/lab --seed 1")
def replay(
    study: Annotated[Path, typer.Argument(help="The folder of a recorded study.")],
    seed: Seed,
    workers: Workers = 1,
    tables: Annotated[
        Path | None,
        typer.Option("--tables", metavar="FOLDER", help="Write the slice's tables here and compare nothing."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FOLDER",
            help="Compare with these tables, which other code gave with --tables, not with the recorded ones.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compute a slice of a recorded seed with today's code; when every value agrees, the study is not stale."""
    from rlheals.chapters import replay as again
    from rlheals.cli.commands import the_store

    if tables is not None and against is not None:
        raise BadInput("--tables and --against: only one of the two is accepted")
    if tables is not None:
        made = again.write_tables(study, seed, the_store(), tables, workers)
        show(made.model_dump(mode="json"), lambda: [f"tables: {tables}"], json)
        return
    done = again.replay(study, seed, the_store(), workers, lambda line: None, against)
    show(done.model_dump(mode="json"), lambda: [f"{done.compared:,} values agree"], json)


@app.command(epilog="Example: rlheals report --profile smoke --out report")
def report(
    profile: ProfileName = "lab",
    seeds: Seeds = None,
    workers: Workers = 1,
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option("--out", help="Folder for figures, snippets, index.html.")] = Path(
        "report"
    ),
    readme: Annotated[
        Path | None, typer.Option("--readme", help="Only renew this README's claims table; computes nothing.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="RESULTS",
            help="Only say whether the fresh runs agree with this recorded study.",
        ),
    ] = None,
    set_: Set = None,
    json: Json = False,
) -> int:
    """Compute or load a chapter's runs; write figures, the book's generated snippets and one self-contained page."""
    from rlheals.book import report as pages

    if readme is not None:
        changed = pages.update_readme(readme, results)
        show({"readme": str(readme), "changed": changed}, lambda: [f"{readme}: {_changed(changed)}"], json)
        return 0
    own = None if seeds is None else parse_seeds(seeds)
    if compare is not None:
        from rlheals.cli.study_commands import compared

        found = compared(chosen_profile(profile, set_), own, workers, compare)
        show(found, lambda: compared_lines(found), json)
        return 0 if found["agrees"] else 1
    made = pages.report(chosen_profile(profile, set_), own, workers, results, out, quiet=False)
    data = {"index": str(made.index), "files": list(made.files), "not_drawn": list(made.absent)}
    show({**data, "core_minutes": made.minutes}, lambda: [*made.absent, f"report: {made.index}"], json)
    return 0


@app.command(epilog="Example: rlheals claims --json")
def claims(
    results: Results = Path("results"),
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", help="Write the book's claims page, with the fresh runs beside, into this folder."
        ),
    ] = None,
    profile: Annotated[str, typer.Option("--profile", help="Of the fresh runs for --page.")] = "lab",
    json: Json = False,
) -> None:
    """Every claim with interval and verdict, from the recorded study alone."""
    from rlheals.chapters.verdicts import as_json
    from rlheals.project import project_root

    if page is not None:
        from rlheals.cli import commands

        commands.claims_page(chosen_profile(profile, None), results, page)
    found = as_json(project_root() / results)
    show(found, lambda: claim_lines(found), json)


def _changed(changed: bool) -> str:
    return "claims table renewed" if changed else "claims table is up to date"
