"""What stands at the top of every notebook and is not written by hand: badge, what it takes on Colab, installation.

`python -m rlheals.book.colab`, run in the repository, writes these cells anew: the address is that of `_config.yml`,
the version that of the package, times and gigabytes are those of the recorded runs and of `rlheals.planning.budget`.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlheals import __version__
from rlheals.book.references import CHAPTERS as NOTEBOOKS
from rlheals.book.references import COPIES, SOURCES
from rlheals.chapters.registry import CHAPTERS
from rlheals.display.markup import Block, Table
from rlheals.errors import BadInput
from rlheals.planning.budget import GB, budget
from rlheals.planning.doctor import NEEDED_DISK_GB
from rlheals.profiles import load_profile
from rlheals.profiles.profile import Profile
from rlheals.store.files import atomic_write
from rlheals.store.store import Store
from rlheals.study import plan as study

BADGE, INSTALL = "colab", "install"
"""Ids of the two cells."""

PARTS: dict[str, tuple[str, ...]] = {
    Path(name).stem: tuple(key for key, one in CHAPTERS.items() if one.notebook == Path(name).stem)
    for name in NOTEBOOKS
}
"""The parts of `claims.yaml` whose runs a notebook computes."""

CPU, GPU = "lab", "colab"
"""The profiles for Colab's free machines without and with a GPU."""


class Takes(NamedTuple):
    """What a notebook takes on a T4, by arithmetic."""

    gpu: str
    minutes: float
    memory: float
    available: float
    disk: float
    spectra: bool


@dataclass(frozen=True)
class Costs:
    """core_minutes: of the CPU profile, None where a stage is not recorded; gpu: or why that profile is not for it."""

    core_minutes: float | None
    gpu: Takes | str


def costs(name: str, results: Path) -> Costs:
    """What the runs of a notebook take that starts from an empty store."""
    lab, seconds = load_profile(CPU), recorded_seconds(results)
    stages = _stages(lab, PARTS[name], results)
    known = set(stages) <= seconds.keys()
    minutes = sum(count * seconds[stage] for stage, count in stages.items()) / 60 if known else None
    return Costs(minutes, _on_gpu(load_profile(GPU), PARTS[name]))


def _on_gpu(profile: Profile, parts: tuple[str, ...]) -> Takes | str:
    if not parts:
        return "nothing is trained"
    for part in parts:
        if reason := CHAPTERS[part].part.lacking(profile):
            return reason
    if parts == ("sft",):
        profile = profile.model_copy(update={"ladder": profile.ladder.model_copy(update={"starts": ()})})
    assert profile.hardware is not None
    needed = budget(profile)
    return Takes(
        profile.hardware.gpu,
        60 * needed.hours,
        needed.memory / GB,
        profile.hardware.card.memory,
        needed.disk / GB,
        "rotation" in parts,
    )


def recorded_seconds(results: Path) -> dict[str, float]:
    """By stage, the median time of a recorded run of the CPU profile; taking over the shipped base takes none."""
    seconds = defaultdict[str, list[float]](list)
    for one in CHAPTERS.values():
        for file in sorted((results / f"{CPU}{one.part.suffix}").glob("seed-*/manifest.json")):
            for run in json.loads(file.read_text(encoding="utf-8"))["runs"]:
                seconds[run["stage"]].append(run["seconds"])
    return {"adopt": 0.0} | {stage: statistics.median(times) for stage, times in seconds.items()}


def _stages(profile: Profile, parts: tuple[str, ...], results: Path) -> dict[str, int]:
    """How many runs of each stage a reader's notebook computes."""
    store = Store(results / "no-store")
    specs: dict[str, str] = {}
    for name in parts:
        part = CHAPTERS[name].part
        mine = profile.for_reader(recorded=True)
        some_step = mine.census_steps[len(mine.census_steps) // 2]
        for seed in profile.seeds:
            plans: list[Any] = [study.plan(mine, seed, store)] if part.from_peaks else []
            plans.append((part.at({seed: some_step}) if part.from_peaks else part).plan(mine, seed, store))
            specs |= {store.key(spec): spec.stage for one in plans for spec in one.specs()}
    counted = defaultdict[str, int](int)
    for stage in specs.values():
        counted[stage] += 1
    return dict(counted)


def costs_table(results: Path) -> list[Block]:
    """Of every notebook with runs: what it takes on Colab without and with a GPU."""
    rows = []
    for name in PARTS:
        if not PARTS[name]:
            continue
        found = costs(name, results)
        lab = "not recorded" if found.core_minutes is None else f"{about(found.core_minutes)}"
        gpu = found.gpu
        if isinstance(gpu, str):
            rows.append((f"`{name}`", lab, gpu, "", ""))
        else:
            minutes = f"{about(gpu.minutes)}{' and spectra' if gpu.spectra else ''}"
            memory = f"{gpu.memory:.0f} of {gpu.available:.0f}"
            rows.append((f"`{name}`", lab, minutes, memory, f"{gpu.disk:.0f}"))
    head = (f"`{CPU}`: core-minutes", f"`{GPU}`: minutes of a GPU", "GB of GPU memory", "GB of disk")
    return [Table(("notebook", *head), tuple(rows))]


def about(minutes: float) -> int:
    """A time as one says it: in steps of 1 below ten minutes, of 5 below an hour, of 10 above.

    >>> about(6.4), about(23.4), about(147.7), about(0.2)
    (6, 25, 150, 1)
    """
    step = 1 if minutes < 10 else 5 if minutes < 60 else 10
    return max(1, step * round(minutes / step))


def badge(name: str, address: str, found: Costs) -> str:
    """The first cell: opens the notebook in Colab, and says what it takes there."""
    page = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    said = [f"On Colab, `{CPU}` needs no GPU" + _on_cpu(found.core_minutes)] if PARTS[name] else []
    gpu = found.gpu
    if not PARTS[name]:
        said.append("On Colab, this notebook needs no GPU: nothing is trained.")
    elif isinstance(gpu, str):
        said.append(f"`{GPU}` is not for this notebook: {gpu}.")
    else:
        also = ", not counting the spectra" if gpu.spectra else ""
        said.append(
            f"`{GPU}` needs a {gpu.gpu} and one worker: about {about(gpu.minutes)} minutes{also}, {gpu.memory:.0f} of "
            f"its {gpu.available:.0f} GB and {gpu.disk:.0f} GB of disk, by arithmetic; nobody has run it there."
        )
    said.append(f"Step by step: [On Colab]({address}/blob/v{__version__}/book/colab.md).")
    return "\n".join(
        [f"[![Open in Colab]({image})]({page}/blob/v{__version__}/notebooks/{name}.ipynb)", "", *said]
    )


def _on_cpu(core_minutes: float | None) -> str:
    if core_minutes is None:
        return "; how long it takes is not recorded."
    return (
        f": about {about(core_minutes)} core-minutes, shared by its workers, as such runs took elsewhere, and less "
        f"than {NEEDED_DISK_GB} GB of disk."
    )


def install(address: str) -> str:
    """The set-up cell: where the package is missing, installs the notebook's own version and keeps torch."""
    here = f"{address.rpartition('/')[2]}-v{__version__}"
    return f"""\
# Where rlheals is missing, as on Colab, this installs the version that the notebook belongs to, and keeps torch.
from importlib import metadata, util

if util.find_spec("rlheals") is None:
    _torch = "torch==" + metadata.version("torch")
    _source = "--branch v{__version__} {address}"
    !git clone --quiet --config advice.detachedHead=false --depth 1 {{_source}} {here}
    %pip install --quiet --constraint {here}/colab.txt {{_torch}} ./{here}

from rlheals.book import kernel

kernel.ready()  # says so if the session has to be restarted before it goes on"""


def address_of(config: Path) -> str:
    """The repository's address, from the book's configuration."""
    try:
        return str(yaml.safe_load(config.read_text(encoding="utf-8"))["repository"]["url"]).rstrip("/")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput(f"{config}: has no repository.url ({type(error).__name__})") from None


def written(notebook: dict[str, Any], name: str, address: str, results: Path) -> dict[str, Any]:
    """A notebook with the two cells as they have to be; BadInput when it lacks one."""
    made = {BADGE: badge(name, address, costs(name, results)), INSTALL: install(address)}
    for cell_id, source in made.items():
        cells = [cell for cell in notebook["cells"] if cell.get("id") == cell_id]
        if len(cells) != 1:
            raise BadInput(f"notebook {name}: a cell with id {cell_id!r} has to be there, once")
        cells[0]["source"] = source
    return notebook


def main() -> int:
    """Write the cells into the notebooks and their executed copies."""
    import nbformat

    try:
        if not (SOURCES / NOTEBOOKS[0]).is_file():
            raise BadInput(f"this is done in the repository: {SOURCES} has to be here")
        address = address_of(Path("_config.yml"))
        for folder in (SOURCES, COPIES):
            for file in (folder / name for name in NOTEBOOKS):
                book = nbformat.read(file, as_version=4)
                written(book, file.stem, address, Path("results"))
                atomic_write(file, nbformat.writes(book) + "\n")
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
