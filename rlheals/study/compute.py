"""Computing runs that are not in the store yet, by this process or by several workers, with progress."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from rlheals.errors import BadInput
from rlheals.stage import Tick
from rlheals.store.cleanup import sweep
from rlheals.store.runs import Run, RunSpec
from rlheals.store.store import Store
from rlheals.study.jobs import GONE, Workers, run_unit

if TYPE_CHECKING:
    from rlheals.study.dask import Pool


Finished = Callable[[str], object]
SECONDS_BETWEEN_LOOKS = 2.0


def compute(
    specs: Iterable[RunSpec],
    store: Store,
    workers: int | Workers = 1,
    quiet: bool = False,
    finished: Finished = lambda run_id: None,
) -> list[Run]:
    """Make sure that all runs are in the store (inputs before their users), with progress; returns them in order.

    With several workers each computes one unit at a time, always the first one whose inputs are there. `finished(id)`
    is called after each unit. Whatever ends it early leaves what is finished; the same call goes on.
    """
    crew = Workers(workers) if isinstance(workers, int) else workers
    elsewhere = crew.scheduler is not None or crew.slurm is not None
    wanted = {store.key(spec): spec for spec in specs}
    echo: Callable[[str], None] = (lambda line: None) if quiet else _say
    runs, missing = dict[str, Run](), dict[str, RunSpec]()
    for key, spec in wanted.items():
        if (run := store.find(spec, echo)) is None:
            missing[key] = spec
        else:
            runs[key] = run
            finished(key)
    if missing and (elsewhere or (crew.count > 1 and len(missing) > 1)):
        _by_workers(missing, store, crew, quiet, echo, finished)
        runs |= {key: store.load(key) for key in missing}
    else:
        for key, spec in missing.items():
            with bar(spec.stage, quiet) as tick:
                runs[key] = run_unit(spec, store, echo, tick)
            finished(key)
    return [runs[key] for key in wanted]


def _by_workers(
    missing: dict[str, RunSpec],
    store: Store,
    workers: Workers,
    quiet: bool,
    echo: Callable[[str], None],
    finished: Finished,
) -> None:
    from rlheals.study.dask import PROGRESS, pools, unit

    ended: SimpleQueue[Any] = SimpleQueue()
    waiting, running = dict(missing), dict[str, Any]()
    with ExitStack() as stack:
        stack.callback(sweep, store.root)  # of workers that were ended in the middle of a unit
        stages = tuple(dict.fromkeys(spec.stage for spec in missing.values()))
        of = stack.enter_context(pools(workers, stages, store.root, echo))
        crews = set(of.values())
        bars = stack.enter_context(closing(Bars(missing, quiet, echo)))
        for pool in crews:
            pool.client.subscribe_topic(PROGRESS, bars.told)
        try:
            while waiting or running:
                # no more than can be computed at once, so that the first ones always come first
                free = Counter({pool: pool.slots() for pool in crews})
                free.subtract(of[missing[key].stage] for key in running)
                unfinished = waiting.keys() | running.keys()
                for key, spec in list(waiting.items()):
                    ready = unfinished.isdisjoint(spec.inputs.values())
                    if ready and free[of[spec.stage]] > 0:
                        free[of[spec.stage]] -= 1
                        del waiting[key]
                        future = of[spec.stage].client.submit(
                            unit, spec.model_dump(mode="json"), key, str(store.root), key=key
                        )
                        future.add_done_callback(ended.put)
                        running[key] = future
                future = _next(ended, crews)
                if future.status == "finished" or store.has(future.key):
                    pass  # its result is in the store; what its worker remembers of it may have died with it
                elif future.status in ("error", "cancelled"):
                    future.result()
                else:  # lost with its worker, and waiting for another one
                    future.add_done_callback(ended.put)
                    continue
                del running[future.key]
                bars.set(future.key, 1.0)
                finished(future.key)
        except BaseException:
            for future in running.values():
                future.cancel()
            raise


def _next(ended: SimpleQueue[Any], used: Collection[Pool]) -> Any:
    """The next unit that has ended; BadInput when there is nobody left who could end one."""
    while True:
        try:
            return ended.get(timeout=SECONDS_BETWEEN_LOOKS)
        except Empty:
            if any(pool.gone() for pool in used):
                raise BadInput(GONE) from None


class Bars:
    """A bar for every stage, with the time left; a unit that is being computed counts by the share that is done."""

    def __init__(self, units: Mapping[str, RunSpec], quiet: bool, echo: Callable[[str], None]) -> None:
        self.echo = echo
        self.stages = {key: spec.stage for key, spec in units.items()}
        self.shares: dict[str, float] = {}
        self.bars = {
            stage: tqdm(
                desc=stage, total=count, position=index, unit="run", disable=_no_bar(quiet), dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n:.1f}/{total} [{elapsed}, {remaining} left]",
            )
            for index, (stage, count) in enumerate(Counter(self.stages.values()).items())
        }  # fmt: skip

    def close(self) -> None:
        """Leave them as they are."""
        for drawn in self.bars.values():
            drawn.close()

    def told(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """What a worker says of a run: a line, or the share that is done. Others may use the same workers."""
        said = event[1]
        if said["run"] not in self.stages:
            return
        if "line" in said:
            self.echo(said["line"])
        else:
            self.set(said["run"], min(said["share"], 0.999))

    def set(self, run_id: str, share: float) -> None:
        """So much of a unit is done; 1: it has ended, and late news of it are none."""
        stage = self.stages[run_id]
        drawn, mine = self.bars[stage], [key for key in self.shares if self.stages[key] == stage]
        if not mine:
            drawn.reset()  # its time began now
        self.shares[run_id] = max(share, self.shares.get(run_id, 0.0))
        drawn.n = sum(self.shares[key] for key in {*mine, run_id})
        drawn.refresh()


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


@contextmanager
def bar(stage: str, quiet: bool = False) -> Iterator[Tick]:
    """A bar for one run, and what moves it."""
    with tqdm(desc=stage, disable=_no_bar(quiet), leave=False, dynamic_ncols=True) as drawn:

        def tick(done: int, total: int, unit: str) -> None:
            drawn.total, drawn.unit = total, unit
            drawn.update(done - drawn.n)

        yield tick


def _no_bar(quiet: bool) -> bool | None:
    """tqdm's `disable`: None means: only on a terminal; inside a notebook bars are shown as well."""
    return True if quiet or os.environ.get("CI") else None
