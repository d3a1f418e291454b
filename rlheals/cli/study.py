"""Commands about studies: `study`, `fresh`, `replay`, `report`, `claims`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from rlheals.cli.options import (
    RESULTS,
    Json,
    OptionalProfile,
    ProfileName,
    Results,
    Seed,
    Seeds,
    Set,
    Workers,
    chosen_profile,
    parse_seeds,
    parse_settings,
    the_store,
)
from rlheals.cli.terminal import show
from rlheals.errors import BadInput
from rlheals.project import project_root

app = Typer()


@app.command(epilog="Example: rlheals study --profile smoke --seeds 1-3 --workers 2 --record results")
def study(
    profile: OptionalProfile = None,
    variant: Annotated[list[str] | None, Option(help="A variant of the lab, or all.")] = None,
    seeds: Seeds = None,
    workers: Workers = 1,
    scheduler: Annotated[
        str | None, Option(help="Address of a Dask scheduler, whose workers compute.")
    ] = None,
    slurm: Annotated[Path | None, Option(help="A file that describes the Slurm jobs that compute.")] = None,
    record: Annotated[Path | None, Option(help="Write the tables into this folder.")] = None,
    missing: Annotated[bool, Option("--missing", help="Only what --record's folder lacks.")] = False,
    recovery: Annotated[bool, Option("--recovery", help="RL and its controls (chapter 02).")] = False,
    rotation: Annotated[bool, Option("--rotation", help="Spectra and trajectories (chapter 03).")] = False,
    edits: Annotated[bool, Option("--edits", help="Edited checkpoints (chapter 04).")] = False,
    protection: Annotated[bool, Option("--protection", help="Protected SFT (chapter 04).")] = False,
    healing: Annotated[bool, Option("--healing", help="Second stages compared (chapter 05).")] = False,
    bases: Annotated[
        bool, Option("--bases", help="Pretraining alone; later studies take these bases.")
    ] = False,
    attempts: Annotated[bool, Option("--attempts", help="Every attempt of one evaluation each.")] = False,
    dry: Annotated[bool, Option("--dry-run", help="Only say what would run, and what that takes.")] = False,
    set_: Set = None,
    json: Json = False,
) -> int:
    """Run a profile or variants over several base seeds. Without either: the study that decides the claims."""
    asked = {
        "recovery": recovery, "rotation": rotation, "edits": edits, "protection": protection, "healing": healing,
        "bases": bases, "attempts": attempts,
    }  # fmt: skip
    given = [name for name, wanted in asked.items() if wanted]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(f'--{name}' for name in given)}: only one of them is accepted")
    if dry:
        if given:
            raise BadInput(f"--dry-run is about the whole profile; leave --{given[0]} out")
        return without_running(profile or "lab", set_, json)
    from rlheals.chapters import studies
    from rlheals.chapters.registry import CHAPTERS
    from rlheals.study import jobs
    from rlheals.study.slurm import read_slurm_file

    keys = {entry.option.removeprefix("--"): key for key, entry in CHAPTERS.items()}
    parts = [keys.get(name, name) for name in given] or [next(iter(CHAPTERS))]
    if scheduler is not None and slurm is not None:
        raise BadInput("--scheduler and --slurm: only one of the two is accepted")
    if missing and record is None:
        raise BadInput("--missing leaves out what a folder has recorded; it needs --record FOLDER")
    own = parse_seeds(seeds)
    crew = jobs.Workers(workers, scheduler, None if slurm is None else read_slurm_file(slurm))
    profiles = studies.chosen(parts[0], profile, variant or (), parse_settings(set_ or ()))
    done = studies.run(parts[0], profiles, own, crew, record, missing)
    show(done, [f"{one['profile']}: seeds {one['seeds']}" for one in done], json)
    return 0


def without_running(name: str, changes: list[str] | None, json: bool) -> int:
    """What a profile would run and take, and whether it can run here: exit code 1 if it cannot."""
    from rlheals.planning import dry_run

    found = dry_run.examine(chosen_profile(name, changes), the_store())
    show(found, dry_run.lines(found), json)
    return 1 if found["problems"] else 0


@app.command(epilog="Example: rlheals fresh --profile lab --workers 2")
def fresh(
    profile: ProfileName = "lab",
    seeds: Seeds = None,
    workers: Workers = 1,
    results: Results = RESULTS,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Load or compute the fresh runs of all chapters, so that notebooks find them: what `make book` does first."""
    own = parse_seeds(seeds)
    from rlheals.chapters.base import core
    from rlheals.chapters.registry import CHAPTERS

    chosen = chosen_profile(profile, set_)
    chapters = [one.chapter for one in CHAPTERS.values() if one.in_book]
    runs = {run.id: run.manifest.seconds for run in core(chapters, chosen, own, workers, results)}
    done = {"profile": chosen.name, "runs": len(runs), "core_minutes": sum(runs.values()) / 60}
    show(done, [f"{done['runs']} runs, {done['core_minutes']:.1f} core-minutes"], json)


@app.command(epilog="Example: rlheals replay results/lab --seed 1")
def replay(
    study: Annotated[Path, Argument(exists=True, file_okay=False, help="The folder of a recorded study.")],
    seed: Seed,
    workers: Workers = 1,
    tables: Annotated[Path | None, Option(help="Only write the slice's tables, into this folder.")] = None,
    against: Annotated[Path | None, Option(help="Compare with the tables of other code.")] = None,
    json: Json = False,
) -> None:
    """Compute a slice of a recorded seed with today's code; when every value agrees, the study is not stale."""
    from rlheals.chapters import replay as again

    if tables is not None and against is not None:
        raise BadInput("--tables and --against: only one of the two is accepted")
    if tables is not None:
        made = again.write_tables(study, seed, the_store(), tables, workers)
        show(made.model_dump(mode="json"), [f"tables: {tables}"], json)
        return
    done = again.replay(study, seed, the_store(), workers, against)
    show(done.model_dump(mode="json"), [f"{done.compared:,} values agree"], json)


@app.command(epilog="Example: rlheals report --profile smoke --out report")
def report(
    profile: ProfileName = "lab",
    seeds: Seeds = None,
    workers: Workers = 1,
    results: Results = RESULTS,
    out: Annotated[Path, Option(help="Folder for figures, snippets, index.html.")] = Path("report"),
    readme: Annotated[Path | None, Option(help="Only renew this README's finding.")] = None,
    compare: Annotated[Path | None, Option(help="Only say whether the fresh runs agree with these.")] = None,
    set_: Set = None,
    json: Json = False,
) -> int:
    """Compute or load a chapter's runs; write figures, the book's generated snippets and one self-contained page."""
    own = parse_seeds(seeds)
    if readme is not None:
        from rlheals.book.report import update_readme

        changed = update_readme(readme, results)
        said = f"{readme}: the finding is {'renewed' if changed else 'up to date'}"
        show({"readme": str(readme), "changed": changed}, [said], json)
        return 0
    if compare is not None:
        from rlheals.chapters.compare import compare as compared

        chosen = chosen_profile(profile, set_)
        numbers = [{**asdict(one), "agrees": one.agrees} for one in compared(chosen, own, workers, compare)]
        agrees = all(one["agrees"] for one in numbers)
        found = {"profile": chosen.name, "agrees": agrees, "numbers": numbers}
        show(found, _compared_lines(found), json)
        return 0 if agrees else 1
    from rlheals.book.report import report as written

    made = written(chosen_profile(profile, set_), own, workers, results, out, quiet=False)
    data = {"index": str(made.index), "files": list(made.files), "not_drawn": list(made.absent)}
    show({**data, "core_minutes": made.minutes}, [*made.absent, f"report: {made.index}"], json)
    return 0


def _compared_lines(found: dict[str, Any]) -> Iterable[str]:
    """One line per number, then what follows."""
    for row in found["numbers"]:
        where = "inside " if row["agrees"] else "OUTSIDE"
        yield f"{where} {row['name']:13} {row['value']:7.3f} in [{row['low']:.3f}, {row['high']:.3f}]  {row['about']}"
    if found["agrees"]:
        counts = sorted({len(row["recorded"]) for row in found["numbers"]})
        yield f"the fresh run agrees with {' to '.join(map(str, counts))} recorded base seeds"
    else:
        yield "the fresh run does not agree with the recorded study: something in code, settings or machine differs"


@app.command(epilog="Example: rlheals claims --json")
def claims(
    results: Results = RESULTS,
    page: Annotated[Path | None, Option(help="Write the book's page, with fresh runs, here.")] = None,
    profile: Annotated[str, Option(help="Profile of the fresh runs for --page.")] = "lab",
    registration: Annotated[
        bool, Option("--registration", help="Only list the versions in git again.")
    ] = False,
    json: Json = False,
) -> None:
    """Every claim with interval and verdict, from the recorded study alone."""
    from rlheals.chapters.verdicts import as_json

    if registration:
        from rlheals.study.registration import DATA, write_data

        listed = [one.model_dump(mode="json") for one in write_data()]
        show(listed, [f"{DATA.name}: {len(listed)} versions of the claims"], json)
        return
    if page is not None:
        from rlheals.book import claims as claims_page

        claims_page.write(chosen_profile(profile, None), project_root() / results, page)
    found = as_json(project_root() / results)
    show(found, _claim_lines(found), json)


def _claim_lines(found: dict[str, Any]) -> Iterable[str]:
    """Two lines per claim, chapter by chapter."""
    for part in found.values():
        yield f"{part['title']}:"
        if part["missing"]:
            yield f"no verdict yet: not everything that decides is recorded ({part['missing'][0]}, ...)"
        for claim in part["claims"]:
            yield f"{claim['verdict'] or 'no verdict':14} {claim['sentence']}"
            if claim["no_data"]:
                yield f"{'':14} {claim['no_data']}"
            if (at := claim["interval"]) is not None:
                interval = f"{at['estimate']:.3f} [{at['low']:.3f}, {at['high']:.3f}]"
                said = f"{claim['family']}; margin {claim['margin']:g}; Holm-adjusted p {claim['holm_p']:.3f}"
                yield f"{'':14} {interval} {claim['unit']}; {said}"
        yield ""
