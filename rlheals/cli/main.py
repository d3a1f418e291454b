"""The command line. Each command parses, calls one function, and prints; nothing heavy is imported before it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperCommand

from rlheals.cli import checkpoints, publish, serve, study
from rlheals.cli.options import (
    LARGEST_SEED,
    RESULTS,
    Json,
    OptionalProfile,
    Out,
    ProfileName,
    Results,
    Seed,
    Set,
    chosen_profile,
    parse_settings,
    the_store,
)
from rlheals.cli.terminal import guarded, show, show_facts
from rlheals.errors import BadInput
from rlheals.project import project_root

MAX_ANSWER = 1_000_000

app = typer.Typer(
    name="rlheals",
    help="RL fine-tuning heals OOD forgetting in SFT: a reproducible paper.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. RLHEALS_STORE names the folder of runs.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"rlheals {installed('rlheals')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: rlheals doctor --json")
def doctor(
    profiles: Annotated[bool, Option("--profiles", help="List every setting of every profile.")] = False,
    store: Annotated[bool, Option("--store", help="Check every run that was kept.")] = False,
    repair: Annotated[
        bool, Option("--repair", help="With --store: remove what is damaged or left over.")
    ] = False,
    profile: Annotated[
        str | None, Option(help="What this profile needs, whether it runs here, what would be cut.")
    ] = None,
    results: Results = RESULTS,
    set_: Set = None,
    json: Json = False,
) -> int:
    """What this machine has, what is missing, and what the profiles would run. Exit code 1 if something is missing."""
    from rlheals.planning import doctor as examined

    if repair and not store:
        raise BadInput("--repair: accepted together with --store only")
    if profile is not None:
        return study.without_running(profile, set_, json)
    if profiles:
        from rlheals.profiles import PROFILES

        data = {name: one.model_dump(mode="json") for name, one in PROFILES.items()}
        show(data, examined.profile_lines, json)
        return 0
    found = examined.examine_runs(repair) if store else examined.examine(results)
    lines = examined.run_lines if store else examined.report_lines
    show(found, lambda: lines(found), json)
    return 0 if found["ok"] else 1


@app.command(epilog="Example: rlheals speed --profile lab")
def speed(profile: ProfileName = "lab", set_: Set = None, json: Json = False) -> None:
    """Tokens per second of a profile's runs in the store, beside the machine's peak; nothing is computed."""
    from rlheals.planning import speed as measured

    found = measured.of_profile(chosen_profile(profile, set_), the_store())
    data = measured.as_json(found)
    show(data, lambda: measured.shown(found).to_string(index=False).splitlines(), json)


@app.command(epilog='Example: rlheals grade "A 5 J K" "(13-1)*(11-5-9)" --rule ood --json')
def grade(
    hand: Annotated[str, Argument(help='Four card labels, e.g. "3 3 8 8".')],
    answer: Annotated[str, Argument(help='A reply or a bare formula; "-" reads it from stdin.')],
    rule: Annotated[str, Option(help="id, ood or the values of J, Q, K such as 5,7,2.")] = "id",
    compat: Annotated[str | None, Option(help="reference: its summed penalties.")] = None,
    json: Json = False,
) -> None:
    """The verifier's verdict on one answer. Put -- before an answer that begins with a minus sign."""
    from rlheals.tasks.general_points.task import graded

    found = graded(hand, _read_answer(answer), rule, compat)
    lines = [f"{found['category']}, reward {found['reward']:+g}", found["feedback"]]
    if not found["solvable"]:
        lines.append(f"No formula makes 24 from this hand under the rule {found['rule']}.")
    show(found, lambda: lines, json)


def _read_answer(text: str) -> str:
    """The answer as typed, or from stdin for "-"; BadInput when it is not UTF-8 text or too long."""
    try:
        data = sys.stdin.buffer.read(MAX_ANSWER + 1) if text == "-" else text.encode("utf-8")
        if len(data) > MAX_ANSWER:
            raise BadInput(f"answer: more than {MAX_ANSWER:,} bytes")
        return data.decode("utf-8").removesuffix("\n") if text == "-" else text
    except UnicodeError as error:
        raise BadInput(f"answer: is not UTF-8 text ({error.reason})") from None  # type: ignore[attr-defined]


@app.command(epilog="Example: rlheals census --rule ood")
def census(
    rule: Annotated[str | None, Option(help="id, ood, both or values such as 5,7,2.")] = None,
    json: Json = False,
) -> None:
    """The hands that can make 24: their numbers, or with --rule each of them with its values and one solution."""
    from rlheals.tasks.general_points.task import census_counts, census_hands

    if rule is None:
        counts = census_counts()
        show(counts, lambda: [f"{name:10} {count:6,}" for name, count in counts.items()], json)
        return
    hands = census_hands(rule)
    show(hands, lambda: [f"{' '.join(h['hand']):12} {h['solution']}" for h in hands["hands"]], json)


@app.command(epilog="Example: rlheals pretrain --seed 1 --out base-1")
def pretrain(
    seed: Seed, profile: ProfileName = "lab", set_: Set = None, out: Out = None, json: Json = False
) -> None:
    """Pretrain a lab base from scratch; with --out write its files and its model card."""
    from rlheals.publish.base_card import copy_base
    from rlheals.store.files import refuse_used
    from rlheals.study.single import pretrained

    if out is not None:
        refuse_used(out)
    chosen = chosen_profile(profile, set_)
    run, facts = pretrained(chosen, seed, the_store())
    if out is not None:
        copy_base(run, out, chosen.pretrain, seed)
    show_facts({**facts, "out": None if out is None else str(out)}, json)


@app.command(epilog="Example: rlheals sft --seed 0 --set sft.learning_rate=1e-3")
def sft(seed: Seed, profile: ProfileName = "lab", set_: Set = None, json: Json = False) -> None:
    """Fine-tune a base on expert answers, with checkpoints; makes the base first when it is not there."""
    from rlheals.study.single import fine_tuned

    show_facts(fine_tuned(chosen_profile(profile, set_), seed, the_store()), json)


@app.command(epilog="Example: rlheals rl --seed 0 --start 160 --set rl_starts.rl.algorithm=ppo")
def rl(
    seed: Seed,
    start: Annotated[int, Option(min=0, help="SFT step from which RL starts.")],
    run: Annotated[int, Option(min=0, max=99, help="RL seed.")] = 0,
    profile: ProfileName = "lab",
    set_: Set = None,
    json: Json = False,
) -> None:
    """RL from one SFT checkpoint; makes base and SFT first when they are not there."""
    from rlheals.chapters.rl.single import reinforced

    show_facts(reinforced(chosen_profile(profile, set_), seed, start, run, the_store()), json)


@app.command(epilog="Example: rlheals evaluate --seed 0 --step 40 --split ood --hands 100")
def evaluate(
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Base seed; of --folder: its sampling.")] = 0,
    step: Annotated[int | None, Option(min=0, help="SFT step of the checkpoint.")] = None,
    folder: Annotated[
        Path | None, Option(exists=True, file_okay=False, help="A model folder of your own instead.")
    ] = None,
    split: Annotated[list[str] | None, Option(help="sft, rl, held_out, ood, rules.")] = None,
    hands: Annotated[int | None, Option(min=1, help="Only so many hands per split.")] = None,
    attempts: Annotated[int | None, Option(min=1, help="Attempts per hand.")] = None,
    temperature: Annotated[float | None, Option(help="0 is greedy.")] = None,
    max_new_tokens: Annotated[int | None, Option(min=1, help="Cut an answer here.")] = None,
    profile: ProfileName = "lab",
    set_: Set = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """A full evaluation of one checkpoint (--seed and --step), or of any model in a local folder (--folder)."""
    if (step is None) == (folder is None):
        raise typer.BadParameter("give either --step or --folder.")
    from rlheals.study.evaluate_folder import evaluate_folder
    from rlheals.study.single import evaluated

    changes = {
        "splits": split,
        "hands": hands,
        "attempts": attempts,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
    }
    chosen = chosen_profile(profile, set_)
    if folder is not None:
        found = evaluate_folder(folder, chosen, seed, changes, out)
    else:
        assert step is not None
        found = evaluated(chosen, seed, step, changes, the_store(), out)
    show(found, lambda: _summary_lines(found["summary"]), json)


def _summary_lines(summary: dict[str, Any]) -> Iterable[str]:
    yield f"{'split':12} {'hands':>6} {'pass@1':>8} {'success@5':>10} {'format-agnostic':>16}"
    for name, row in summary.items():
        shares = f"{row['first_try']:8.3f} {row['within_five']:10.3f} {row['within_five_either']:16.3f}"
        yield f"{name:12} {row['hands']:6} {shares}"


@app.command(epilog="Example: rlheals run sft settings.json")
def run(
    stage: Annotated[str, Argument(help="That of the settings file, e.g. sft.")],
    settings: Annotated[Path, Argument(help='JSON: {"stage", "settings", "inputs", "seed"}.')],
    json: Json = False,
) -> None:
    """One unit of work, as a scheduler calls it: loads the run when it is there, else computes it."""
    from rlheals.study.single import unit

    show_facts(unit(stage, settings, the_store()), json)


class _Pairs(TyperCommand):
    """A command whose -p takes a name and a value, as papermill's does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined, left = [], iter(args)
        for argument in left:
            if argument in ("-p", "--parameter"):
                name, value = next(left, ""), next(left, None)
                if value is None:
                    raise BadInput(
                        f'-p {name}: a value is missing; accepted is NAME VALUE, as in -p seeds "[7]"'
                    )
                joined += ["-p", f"{name}={value}"]
            else:
                joined.append(argument)
        return super().parse_args(ctx, joined)


@app.command(cls=_Pairs, epilog='Example: rlheals notebook 01_sft_forgets --profile smoke -p seeds "[7]"')
def notebook(
    name: Annotated[str, Argument(help="A notebook's name or path.")],
    profile: OptionalProfile = None,
    parameter: Annotated[
        list[str] | None, Option("-p", metavar="NAME VALUE", help="A parameter (YAML value).")
    ] = None,
    out: Annotated[Path | None, Option(help="Executed copy; default: NAME.out.ipynb here.")] = None,
    json: Json = False,
) -> None:
    """Execute a chapter notebook with other parameters; the executed copy is written as a whole or not at all."""
    given = parse_settings(parameter or (), "-p")
    if profile is not None:
        given["profile"] = profile
    source = _notebook(name)
    from rlheals.book.notebooks import execute

    written = execute(source, out or Path(f"{source.stem}.out.ipynb"), given, json)
    show({"notebook": str(source), "out": str(written)}, lambda: [str(written)], json)


def _notebook(name: str) -> Path:
    """The notebook of that path, or of that name in the project's `notebooks/`."""
    folder = project_root() / "notebooks"
    for path in (Path(name), Path(f"{name}.ipynb"), folder / f"{name}.ipynb"):
        if path.is_file():
            return path
    there = ", ".join(sorted(path.stem for path in folder.glob("*.ipynb")))
    raise BadInput(
        f"notebook {name!r:.80}: no such file; accepted: {there or 'a path; no notebooks/ folder is here'}"
    )


for part in (study, checkpoints, publish, serve):
    app.add_typer(part.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guarded(app, arguments)
