"""The command line. Each command parses, calls one function, and prints; nothing heavy is imported before it runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperCommand

from rlheals.cli import checkpoints, publish, study, tasks
from rlheals.cli.options import (
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
from rlheals.cli.terminal import guarded, plain, rows_of, show, show_facts, table
from rlheals.errors import BadInput
from rlheals.project import project_root

SUMMARY = {
    "split": "split",
    "hands": "hands",
    "first_try": "pass@1",
    "within_five": "success@5",
    "within_five_either": "format-agnostic",
}

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
    repair: Annotated[bool, Option("--repair", help="With --store: remove what is damaged.")] = False,
    profile: Annotated[str | None, Option(help="What this profile needs, and whether it runs here.")] = None,
    results: Results = RESULTS,
    set_: Set = None,
    json: Json = False,
) -> int:
    """What this machine has, what is missing, and what the profiles would run. Exit code 1 if something is missing."""
    from rlheals.planning import doctor as examined

    if repair and not store:
        raise BadInput("--repair: only with --store")
    if profile is not None:
        return study.without_running(profile, set_, json)
    if profiles:
        from rlheals.display.markup import to_markdown
        from rlheals.profiles import PROFILES
        from rlheals.profiles.describe import profiles_table

        data = {name: one.model_dump(mode="json") for name, one in PROFILES.items()}
        show(data, to_markdown(profiles_table()).splitlines(), json)
        return 0
    if store:
        found, lines = examined.examine_runs(the_store(), repair), examined.run_lines
    else:
        found, lines = examined.examine(project_root() / results, the_store), examined.report_lines
    show(found, lines(found), json)
    return 0 if found["ok"] else 1


@app.command(epilog="Example: rlheals speed --profile lab")
def speed(profile: ProfileName = "lab", set_: Set = None, json: Json = False) -> None:
    """Tokens per second of a profile's runs in the store, for GPUs beside their peak; nothing is computed."""
    from rlheals.planning import speed as measured

    found = measured.of_profile(chosen_profile(profile, set_), the_store())
    show(rows_of(found), measured.shown(found).to_string(index=False).splitlines(), json)


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
    """Fine-tune a base on expert answers, with checkpoints; makes the base first if it is missing."""
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
    """RL from one SFT checkpoint; makes base and SFT first if they are missing."""
    from rlheals.chapters.rl.single import reinforced

    show_facts(reinforced(chosen_profile(profile, set_), seed, start, run, the_store()), json)


@app.command(epilog="Example: rlheals evaluate --seed 0 --step 40 --split ood --hands 100")
def evaluate(
    seed: Annotated[int, Option(min=0, help="Base seed; with --folder: sampling seed.")] = 0,
    step: Annotated[int | None, Option(min=0, help="SFT step of the checkpoint.")] = None,
    folder: Annotated[Path | None, Option(exists=True, file_okay=False, help="Your own model.")] = None,
    split: Annotated[list[str] | None, Option(help="sft, rl, held_out, ood, rules; repeatable.")] = None,
    hands: Annotated[int | None, Option(min=1, help="At most this many hands per split.")] = None,
    attempts: Annotated[int | None, Option(min=1, help="Attempts per hand.")] = None,
    temperature: Annotated[float | None, Option(help="0 is greedy.")] = None,
    max_new_tokens: Annotated[int | None, Option(min=1, help="Longest answer, in tokens.")] = None,
    profile: ProfileName = "lab",
    set_: Set = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """A full evaluation of one checkpoint (--seed and --step), or of any model in a local folder (--folder)."""
    if (step is None) == (folder is None):
        raise typer.BadParameter("give either --step or --folder.")
    from rlheals.study.single import evaluate_folder, evaluated

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
    rows = [{"split": name, **row} for name, row in found["summary"].items()]
    show(found, table(rows, SUMMARY), json)


@app.command(epilog="Example: rlheals run sft settings.json")
def run(
    stage: Annotated[str, Argument(help="Stage of the settings file, e.g. sft.")],
    settings: Annotated[Path, Argument(help='JSON: {"stage", "settings", "inputs", "seed"}.')],
    json: Json = False,
) -> None:
    """One unit of work, as a scheduler calls it: loads the run if it exists, else computes it."""
    from rlheals.study.single import unit

    show_facts(unit(stage, settings, the_store()), json)


class _Pairs(TyperCommand):
    """A command whose -p takes a name and a value, as papermill's does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined, left = [], iter(args)
        for argument in left:
            joined.append(argument)
            if argument in ("-p", "--parameter"):
                name, value = next(left, ""), next(left, None)
                if value is None:
                    raise BadInput(f'-p {name}; accepted: NAME VALUE, as in -p seeds "[7]"')
                joined.append(f"{name}={value}")
        return super().parse_args(ctx, joined)


@app.command(cls=_Pairs, epilog='Example: rlheals notebook 01_sft_forgets --profile smoke -p seeds "[7]"')
def notebook(
    name: Annotated[str, Argument(help="A notebook's name or path.")],
    profile: OptionalProfile = None,
    parameter: Annotated[
        list[str] | None, Option("-p", "--parameter", metavar="NAME VALUE", help="YAML value.")
    ] = None,
    out: Annotated[Path | None, Option(help="Executed copy; default: NAME.out.ipynb here.")] = None,
    json: Json = False,
) -> None:
    """Execute a chapter notebook with other parameters; the executed copy is written as a whole or not at all."""
    # papermill's own -p reads None as Python does
    pairs = [re.sub(r"^(\w+)=None$", r"\1=null", one) for one in parameter or ()]
    given = parse_settings(pairs, "-p", ("store", "results", "profile"))
    if profile is not None:
        given["profile"] = profile
    source = _notebook(name)
    from rlheals.book.notebooks import execute

    written = execute(source, out or Path(f"{source.stem}.out.ipynb"), given, json)
    show({"notebook": str(source), "out": str(written)}, [str(written)], json)


def _notebook(name: str) -> Path:
    """The notebook of that path, or of that name in the project's `notebooks/`."""
    folder = project_root() / "notebooks"
    for path in (Path(name), Path(f"{name}.ipynb"), folder / f"{name}.ipynb"):
        if path.is_file():
            return path
    there = ", ".join(["a path", *sorted(path.stem for path in folder.glob("*.ipynb"))])
    raise BadInput(f"notebook {name!r:.80}: no such file; accepted: {there}")


@app.command(epilog="Example: rlheals serve ./model --gpus 2 -- --gpu-memory-utilization 0.8")
def serve(
    model: Annotated[str, Argument(help="A folder or hub id; any weights of the right shape.")],
    host: Annotated[str | None, Option(help="Listen on a port of this address, with a token.")] = None,
    port: Annotated[int | None, Option(min=1, max=65535, help="The port, by default 8000.")] = None,
    rows: Annotated[int, Option(min=1, help="Sequences generated at a time.")] = 256,
    positions: Annotated[int | None, Option(min=1, help="Longest episode; by default the model's.")] = None,
    cache_gb: Annotated[float | None, Option(min=0.01, help="Memory for the KV cache, in GiB.")] = None,
    gpus: Annotated[int, Option(min=1, help="GPUs that share one copy of the weights.")] = 1,
    json: Json = False,
    more: Annotated[list[str] | None, Argument(help="After --: vLLM's own options.")] = None,
) -> None:
    """Run a vLLM server until Ctrl-C. Runs with `engine: vllm` use it if what it prints is in their environment."""
    from rlheals.engines import vllm_serve as server

    at = server.place(host, port)
    started = server.command(model, at, rows, positions, cache_gb, gpus, more or ())
    server.check()
    if at.warning:
        print(f"rlheals: {plain(at.warning)}", file=sys.stderr)
    said = [f"export {name}={value}" for name, value in at.environment.items()]
    show({"address": at.address, "environment": at.environment, "command": started}, said, json)
    server.become(started, at)


for part in (study, checkpoints, publish, tasks):
    app.add_typer(part.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guarded(app, arguments)
