"""The graph of a profile's runs, and how they get computed: in this process or by several workers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tqdm.auto import tqdm

from rlheals.adopt import weights_hash
from rlheals.errors import BadInput
from rlheals.profiles import Profile, validated
from rlheals.stage import Tick, Work, no_tick
from rlheals.store import Run, RunSpec, Store, Workspace

STAGES = (
    "adopt",
    "pretrain",
    "sft",
    "evaluate",
    "rl",
    "evaluate_vllm",
    "rl_vllm",
    "spectra",
    "trajectory",
    "edited",
    "protected",
)


@dataclass(frozen=True)
class Plan:
    """All runs of one base seed, and what each census is for."""

    seed: int
    base: RunSpec
    sft: RunSpec
    censuses: dict[tuple[int, int], RunSpec]
    rules: dict[int, RunSpec]

    @property
    def name(self) -> str:
        """Of the folder in which it is recorded."""
        return f"seed-{self.seed}"

    def specs(self) -> list[RunSpec]:
        """Every run, inputs before those that use them."""
        return [self.base, self.sft, *self.censuses.values(), *self.rules.values()]


def plan(profile: Profile, seed: int, store: Store) -> Plan:
    """The runs of a profile for one base seed: base -> SFT -> censuses of (step, decode), trials of other rules.

    SFT and decodes get seeds of their own that follow from the base seed, so that two base seeds share no noise.
    """
    base = base_spec(profile, seed)
    sft = RunSpec(
        stage="sft", settings=profile.sft.model_dump(mode="json"), inputs={"base": store.key(base)}, seed=seed
    )

    def census(step: int, decode: int, **changes: object) -> RunSpec:
        return census_spec(profile, store.key(sft), f"step-{step:05d}", seed, decode, changes)

    return Plan(
        seed,
        base,
        sft,
        {
            (step, decode): census(step, decode)
            for decode in range(profile.decodes)
            for step in profile.census_steps
        },
        {step: census(step, 0, splits=("rules",), hands=profile.rule_hands) for step in profile.rule_steps},
    )


def census_spec(
    profile: Profile,
    model: str,
    folder: str,
    seed: int,
    decode: int,
    changes: Mapping[str, object] | None = None,
) -> RunSpec:
    """A census of one checkpoint (run id, folder inside it); decodes of one base seed share their sampling noise."""
    settings = profile.evaluate.model_copy(update={"folder": folder, **(changes or {})})
    return RunSpec(
        stage=profile.stage("evaluate"),
        settings=settings.model_dump(mode="json"),
        inputs={"model": model},
        seed=100 * seed + decode,
    )


def base_spec(profile: Profile, seed: int) -> RunSpec:
    """The base of a seed: seed 0 is the one shipped with the package if the profile says so; others are pretrained."""
    if seed == 0 and profile.shipped_base:
        return RunSpec(stage="adopt", settings={"sha256": weights_hash()})
    return RunSpec(stage="pretrain", settings=profile.pretrain.model_dump(mode="json"), seed=seed)


def run_unit(spec: RunSpec, store: Store, echo: Callable[[str], None], tick: Tick = no_tick) -> Run:
    """One unit of work: load the run of a spec or compute it; its inputs have to be in the store."""
    if spec.stage not in STAGES:
        raise BadInput(f"stage {spec.stage!r} is not known; accepted: {', '.join(STAGES)}")
    stage = import_module(f"rlheals.{spec.stage}")

    def compute(space: Workspace) -> None:
        inputs = {name: run.path for name, run in space.inputs.items()}
        stage.run(Work(space.out, space.scratch, space.settings, space.seed, inputs, tick))

    return store.ensure(spec, compute, echo)


def compute(
    specs: Iterable[RunSpec],
    store: Store,
    workers: int = 1,
    quiet: bool = False,
    finished: Callable[[str], object] = lambda run_id: None,
) -> list[Run]:
    """Make sure that all runs are in the store (inputs before their users), with progress; returns them in order.

    With several workers, each is a process of its own that computes one unit at a time, always the first one whose
    inputs are there. `finished(id)` is called after each unit. Ctrl-C leaves what is finished; the same call goes on.
    """
    wanted = list(specs)
    keys = [store.key(spec) for spec in wanted]
    echo: Callable[[str], None] = (lambda line: None) if quiet else _say
    if workers <= 1 or len(wanted) == 1:
        runs = []
        for key, spec in zip(keys, wanted, strict=True):
            runs.append(_with_bar(spec, store, echo, quiet))
            finished(key)
        return runs
    waiting = dict(zip(keys, wanted, strict=True))
    running: dict[Future[list[str]], str] = {}
    with (
        ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker
        ) as pool,
        tqdm(total=len(waiting), unit="run", disable=_no_bar(quiet), dynamic_ncols=True) as bar,
    ):
        try:
            while waiting or running:
                for key in _ready(waiting, set(running.values()))[: workers - len(running)]:
                    running[pool.submit(_in_worker, waiting.pop(key), str(store.root))] = key
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    for line in future.result():
                        echo(line)
                    bar.update()
                    finished(key)
        except BaseException:
            _stop(pool)
            raise
    return [store.load(key) for key in keys]


def _ready(waiting: dict[str, RunSpec], running: set[str]) -> list[str]:
    """The units whose inputs are neither waiting nor running, in order."""
    unfinished = running | set(waiting)
    return [key for key, spec in waiting.items() if not set(spec.inputs.values()) & unfinished]


def _stop(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _with_bar(spec: RunSpec, store: Store, echo: Callable[[str], None], quiet: bool) -> Run:
    with tqdm(desc=spec.stage, disable=_no_bar(quiet), leave=False, dynamic_ncols=True) as bar:

        def tick(done: int, total: int, unit: str) -> None:
            bar.total, bar.unit = total, unit
            bar.update(done - bar.n)

        return run_unit(spec, store, echo, tick)


def _no_bar(quiet: bool) -> bool | None:
    """tqdm's `disable`: None means: only on a terminal; inside a notebook bars are shown as well."""
    return True if quiet or os.environ.get("CI") else None


def _prepare_worker() -> None:
    """One thread per process; a polite kill unwinds, so that no temporary folder is left."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _in_worker(spec: RunSpec, root: str) -> list[str]:
    lines: list[str] = []
    run_unit(spec, Store(root), lines.append)
    return lines


def settings_file(path: Path) -> RunSpec:
    """A unit of work read from a JSON file: {"stage": ..., "settings": {...}, "inputs": {...}, "seed": 0}."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"settings file {str(path)!r}: {getattr(error, 'strerror', None) or 'is not UTF-8'}"
        ) from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"settings file {str(path)!r} is not JSON: {str(error).splitlines()[0]}") from None
    return validated(RunSpec, data, f"settings file {path.name}")
