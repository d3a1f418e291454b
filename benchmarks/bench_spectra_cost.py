"""What a comparison costs against size, k and checkpoints: `python benchmarks/bench_spectra_cost.py [--plot FILE.svg]`.

Processor time in one thread, as a multiple of one `torch.linalg.svd` (thin, float64) of the same matrix measured in the
same round, so that the figure is of ratios. Size: square and 1:4 matrices, 8 values of k, no nulls. k: one size, one to
many k. Checkpoints: the base decomposed for each, or once and kept. JSON comes last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_spectra import made

from rlheals.display import style as drawing
from rlheals.display.looks import BLUE, GREEN, RED
from rlheals.weights.architectures import Piece
from rlheals.weights.linalg import Bases
from rlheals.weights.spectra import Matrix, measure

SIZES = (64, 128, 256, 512, 1024)
KS = (1, 2, 4, 8, 16, 32)
CHECKPOINTS = (1, 2, 4, 8)
AT = 512


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--plot", type=Path)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for shape in ((1, 1), (1, 4)):
        for size in SIZES:
            w, other = pair(size * shape[0], size * shape[1])
            rows.append(
                {
                    "what": f"size, {shape[0]}:{shape[1]}",
                    "x": size,
                    **cost(w, comparison(w, [other], 8), options.rounds),
                }
            )
    w, other = pair(AT, AT)
    for count in KS:
        rows.append({"what": "k", "x": count, **cost(w, comparison(w, [other], count), options.rounds)})
    for count in CHECKPOINTS:
        changed = [other + 0.001 * number for number in range(count)]
        rows.append({"what": "checkpoints", "x": count, **cost(w, comparison(w, changed, 8), options.rounds)})
        with tempfile.TemporaryDirectory() as folder:
            kept = comparison(w, changed, 8, Bases(Path(folder)))
            kept()  # the base is decomposed here
            rows.append({"what": "checkpoints, base kept", "x": count, **cost(w, kept, options.rounds)})
    if options.plot is not None:
        plot(rows, options.plot)
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return 0


def pair(m: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    w = made(m, n).double()
    return w, w + 0.01 * w.norm() / w.numel() ** 0.5 * torch.randn(m, n, dtype=torch.float64)


def comparison(
    w: torch.Tensor, others: list[torch.Tensor], count: int, bases: Bases | None = None
) -> Callable[[], None]:
    """A change measured at `count` values of k, for every other matrix."""
    small = min(w.shape)
    ks = tuple(sorted({max(1, small * (number + 1) // (2 * count)) for number in range(count)}))
    place = Piece("w", "w", "q", tuple(w.shape))

    def run() -> None:
        for other in others:
            measure(Matrix(place, -1, w, other), ks, bases=bases)

    return run


def cost(w: torch.Tensor, ours: Callable[[], None], rounds: int) -> dict[str, float]:
    """Median ratio to the peer over alternating rounds, and the extremes."""
    ratios = []
    for number in range(rounds):
        taken = {}
        ways = {"peer": lambda: torch.linalg.svd(w, full_matrices=False), "ours": ours}
        for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
            began = time.process_time()
            ways[name]()
            taken[name] = time.process_time() - began
        ratios.append(taken["ours"] / taken["peer"])
    return {
        "ratio": round(statistics.median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
    }


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows)
    figure, axes = drawing.canvas(columns=3, height=2.6)
    panels = {
        "smaller side of the matrix": {"size, 1:1": BLUE, "size, 1:4": GREEN},
        f"values of k ({AT} x {AT})": {"k": BLUE},
        f"checkpoints ({AT} x {AT})": {"checkpoints": RED, "checkpoints, base kept": BLUE},
    }
    for axis, (title, series) in zip(axes, panels.items(), strict=True):
        for what, color in series.items():
            mine = frame[frame["what"] == what]
            axis.fill_between(mine["x"], mine["low"], mine["high"], color=color, alpha=0.2, linewidth=0)
            axis.plot(mine["x"], mine["ratio"], "o-", color=color, markersize=3, label=what)
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(title, fontsize=8)
        axis.legend(fontsize=6)
    axes[0].set_ylabel("time / one SVD of the matrix", fontsize=8)
    file.write_bytes(drawing.finish(figure, "spectra-cost", "Cost of a comparison", frame, "").svg)


if __name__ == "__main__":
    sys.exit(main())
