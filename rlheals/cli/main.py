"""The command line. Each command parses, calls one function, and prints; nothing heavy is imported before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rlheals.cli import checkpoints as checkpoint_cli
from rlheals.cli import publish as publish_cli
from rlheals.cli import serve as serve_cli
from rlheals.cli import study as study_cli
from rlheals.cli.options import Json, Out, ProfileName, Results, Seed, Set, chosen_profile, without_running
from rlheals.cli.printed import show_facts, show_summary
from rlheals.cli.terminal import guarded, parse_settings, read_answer, show
from rlheals.errors import BadInput

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
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"rlheals {installed('rlheals')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: rlheals doctor --json")
def doctor(
    profiles: Annotated[
        bool, typer.Option("--profiles", help="List every setting of every profile.")
    ] = False,
    store: Annotated[bool, typer.Option("--store", help="Check every run that was kept.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="With --store: remove what is damaged or left over.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="What this profile needs, whether it runs here, what would be cut."),
    ] = None,
    results: Results = Path("results"),
    set_: Set = None,
    json: Json = False,
) -> int:
    """What this machine has, what is missing, and what the profiles would run. Exit code 1 if something is missing."""
    from rlheals.planning.doctor import examine, examine_runs, profile_lines, report_lines, run_lines

    if repair and not store:
        raise BadInput("--repair: accepted together with --store only")
    if store:
        found = examine_runs(repair)
        show(found, lambda: run_lines(found), json)
        return 0 if found["ok"] else 1
    if profile is not None:
        return without_running(profile, set_, json)
    if profiles:
        from rlheals.profiles import PROFILES

        show({name: one.model_dump(mode="json") for name, one in PROFILES.items()}, profile_lines, json)
        return 0
    found = examine(results)
    show(found, lambda: report_lines(found), json)
    return 0 if found["ok"] else 1


@app.command(epilog="Example: rlheals speed --profile lab")
def speed(profile: ProfileName = "lab", set_: Set = None, json: Json = False) -> None:
    """Tokens per second of a profile's runs in the store, beside the machine's peak; nothing is computed."""
    from rlheals.cli import commands
    from rlheals.cli.printed import table_lines

    found, head = commands.speed(chosen_profile(profile, set_))
    show(found, lambda: table_lines(head), json)


@app.command(epilog='Example: rlheals grade "A 5 J K" "(13-1)*(11-5-9)" --rule ood --json')
def grade(
    hand: Annotated[str, typer.Argument(help='Four card labels, e.g. "3 3 8 8".')],
    answer: Annotated[str, typer.Argument(help='A reply or a bare formula; "-" reads it from stdin.')],
    rule: Annotated[
        str, typer.Option("--rule", help="id, ood or the values of J, Q, K such as 5,7,2.")
    ] = "id",
    compat: Annotated[str | None, typer.Option("--compat", help="reference: its summed penalties.")] = None,
    json: Json = False,
) -> None:
    """The verifier's verdict on one answer. Put -- before an answer that begins with a minus sign."""
    from rlheals.tasks.general_points.census import graded

    found = graded(hand, read_answer(answer), rule, compat)
    lines = [f"{found['category']}, reward {found['reward']:+g}", found["feedback"]]
    if not found["solvable"]:
        lines.append(f"No formula makes 24 from this hand under the rule {found['rule']}.")
    show(found, lambda: lines, json)


@app.command(epilog="Example: rlheals census --rule ood")
def census(
    rule: Annotated[str | None, typer.Option("--rule", help="id, ood, both or values such as 5,7,2.")] = None,
    json: Json = False,
) -> None:
    """The hands that can make 24: their numbers, or with --rule each of them with its values and one solution."""
    from rlheals.tasks.general_points.census import census_counts, census_hands

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
    from rlheals.cli import commands

    show_facts(commands.pretrain(chosen_profile(profile, set_), seed, out), json)


@app.command(epilog="Example: rlheals sft --seed 0 --set sft.learning_rate=1e-3")
def sft(seed: Seed, profile: ProfileName = "lab", set_: Set = None, json: Json = False) -> None:
    """Fine-tune a base on expert answers, with checkpoints; makes the base first when it is not there."""
    from rlheals.cli import commands

    show_facts(commands.fine_tune(chosen_profile(profile, set_), seed), json)


@app.command(epilog="Example: rlheals rl --seed 0 --start 160 --set rl_starts.rl.algorithm=ppo")
def rl(
    seed: Seed,
    start: Annotated[int, typer.Option("--start", min=0, help="SFT step from which RL starts.")],
    run: Annotated[int, typer.Option("--run", min=0, max=99, help="RL seed.")] = 0,
    profile: ProfileName = "lab",
    set_: Set = None,
    json: Json = False,
) -> None:
    """RL from one SFT checkpoint; makes base and SFT first when they are not there."""
    from rlheals.cli import commands

    show_facts(commands.reinforce(chosen_profile(profile, set_), seed, start, run), json)


@app.command(epilog="Example: rlheals evaluate --seed 0 --step 40 --split ood --hands 100")
def evaluate(
    seed: Seed = 0,
    step: Annotated[int | None, typer.Option("--step", min=0, help="SFT step of the checkpoint.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="A model folder of your own instead.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="sft, rl, held_out, ood, rules.")] = None,
    hands: Annotated[int | None, typer.Option("--hands", min=1, help="Only so many hands per split.")] = None,
    attempts: Annotated[int | None, typer.Option("--attempts", min=1, help="Attempts per hand.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0 is greedy.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Cut an answer here.")
    ] = None,
    profile: ProfileName = "lab",
    set_: Set = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """A census of one checkpoint (--seed and --step), or of any model in a local folder (--folder)."""
    from rlheals.cli import commands
    from rlheals.study.evaluate_folder import evaluate_folder

    changes = {
        "splits": split,
        "hands": hands,
        "attempts": attempts,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
    }
    if (step is None) == (folder is None):
        raise typer.BadParameter("give either --step or --folder.")
    if folder is not None:
        show_summary(evaluate_folder(folder, chosen_profile(profile, set_), seed, changes, out), json)
    elif step is not None:
        show_summary(commands.evaluate_step(chosen_profile(profile, set_), seed, step, changes, out), json)


@app.command(epilog="Example: rlheals run sft settings.json")
def run(
    stage: Annotated[str, typer.Argument(help="That of the settings file, e.g. sft.")],
    settings: Annotated[Path, typer.Argument(help='JSON: {"stage", "settings", "inputs", "seed"}.')],
    json: Json = False,
) -> None:
    """One unit of work, as a scheduler calls it: loads the run when it is there, else computes it."""
    from rlheals.cli import commands

    show_facts(commands.run_unit(stage, settings), json)


class _Pairs(TyperCommand):
    """A command whose -p takes a name and a value, as papermill's does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined, left = [], iter(args)
        for argument in left:
            if argument in ("-p", "--parameter"):
                name, value = next(left, ""), next(left, None)
                joined += ["-p", name if value is None else f"{name}={value}"]
            else:
                joined.append(argument)
        return super().parse_args(ctx, joined)


@app.command(cls=_Pairs, epilog='Example: rlheals notebook 01_sft_forgets --profile smoke -p seeds "[7]"')
def notebook(
    name: Annotated[str, typer.Argument(help="A notebook's name or path.")],
    profile: Annotated[str | None, typer.Option("--profile", help="smoke, lab or a .yaml file.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME VALUE", help="A parameter (YAML value).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Executed copy; default: NAME.out.ipynb here.")
    ] = None,
    json: Json = False,
) -> None:
    """Execute a chapter notebook with other parameters; the executed copy is written as a whole or not at all."""
    from rlheals.book.notebooks import execute
    from rlheals.cli.commands import find_notebook

    given = parse_settings(parameter or (), "-p")
    if profile is not None:
        given["profile"] = profile
    source = find_notebook(name)
    written = execute(source, out or Path(f"{source.stem}.out.ipynb"), given, json)
    show({"notebook": str(source), "out": str(written)}, lambda: [str(written)], json)


app.add_typer(study_cli.app)
app.add_typer(checkpoint_cli.app)
app.add_typer(publish_cli.app)
app.add_typer(serve_cli.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guarded(app, arguments)
