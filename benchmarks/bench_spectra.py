"""Decompositions and comparisons at the shapes of Qwen2.5-0.5B: `python benchmarks/bench_spectra.py [--rounds N]`.

Matrices with power-law spectra. The peer is `torch.linalg.svd` (thin, float64, and float32 for orientation) in the same
thread; rounds alternate, ratios are taken within a round. Subspaces are held against the peer's. A comparison is
everything that is measured of one changed version of a matrix: decomposition, overlaps, all angles. Memory is the peak
of a process of its own less what it had before, in multiples of the matrix in float64. JSON comes last; exit status 1
when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlheals.weights.architectures import Piece
from rlheals.weights.linalg import SIDES, Overlap, decompose
from rlheals.weights.nulls import haar
from rlheals.weights.spectra import Matrix, measure

LAYER = {"q": (896, 896), "k": (128, 896), "v": (128, 896), "o": (896, 896), "gate": (4864, 896),
         "up": (4864, 896), "down": (896, 4864)}  # fmt: skip
LAYERS = 24
LEAST_RATIO, MOST_ANGLE = 2.5, 1e-6


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--memory", nargs=2, type=int, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(memory(*options.memory)))
        return 0
    shapes = {shape: one_shape(shape, options.rounds) for shape in sorted(set(LAYER.values()))}
    whole = {
        name: LAYERS * sum(shapes[shape][name] for shape in LAYER.values())
        for name in ("ours_seconds", "svd_seconds", "svd_float32_seconds", "comparison_seconds")
    }
    report: dict[str, Any] = {
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": 1,
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 1),
        },
        "shapes": {f"{m} x {n}": found for (m, n), found in shapes.items()},
        "checkpoint": {name: round(seconds, 1) for name, seconds in whole.items()},
    }
    report["checkpoint"]["svd_to_ours"] = round(whole["svd_seconds"] / whole["ours_seconds"], 2)
    report["passed"] = bool(
        report["checkpoint"]["svd_to_ours"] >= LEAST_RATIO
        and max(found["largest_angle"] for found in shapes.values()) < MOST_ANGLE
    )
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def made(m: int, n: int) -> torch.Tensor:
    """A matrix whose singular values fall as i^(-1/2)."""
    r = min(m, n)
    s = torch.arange(1, r + 1, dtype=torch.float64) ** -0.5
    return ((haar(m, r, 1, "left")[0] * s) @ haar(n, r, 1, "right")[0].T).float()


def one_shape(shape: tuple[int, int], rounds: int) -> dict[str, Any]:
    w = made(*shape)
    other = w + 0.01 * w.norm() / w.numel() ** 0.5 * torch.randn(shape)
    ways: dict[str, Callable[[], Any]] = {
        "ours_seconds": lambda: decompose(w),
        "svd_seconds": lambda: torch.linalg.svd(w.double(), full_matrices=False),
        "svd_float32_seconds": lambda: torch.linalg.svd(w, full_matrices=False),
        "comparison_seconds": lambda: compared(w, other),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
            began = time.process_time()
            ways[name]()
            times[name].append(time.process_time() - began)
    ratios = [theirs / ours for ours, theirs in zip(times["ours_seconds"], times["svd_seconds"], strict=True)]
    mine, theirs = decompose(w), decompose(w, "svd")
    ks = [k for k in (1, 16, 64, min(shape) // 2, min(shape) - 1) if k < min(shape)]
    overlaps = [Overlap.of(theirs.side(side), mine.side(side)) for side in SIDES]
    return {
        **{name: round(statistics.median(taken), 4) for name, taken in times.items()},
        "svd_to_ours": round(statistics.median(ratios), 2),
        "largest_angle": max(float(overlap.angles(k).max()) for overlap in overlaps for k in ks),
        "memory_in_matrices": peak(shape),
    }


def compared(w: torch.Tensor, other: torch.Tensor) -> None:
    """Everything measured of one change, its base included, without nulls."""
    matrix = Matrix(Piece("w", "w", "q", tuple(w.shape)), -1, w.double(), other.double())
    measure(matrix)


def peak(shape: tuple[int, int]) -> float:
    command = [sys.executable, __file__, "--memory", *map(str, shape)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(json.loads(said))


def memory(m: int, n: int) -> float:
    """Linux keeps a process's peak memory and lets it be reset."""
    decompose(torch.randn(64, 64))
    w = torch.randn(m, n, dtype=torch.float64)
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    decompose(w)
    return round((_kilobytes("VmHWM") - before) * 1024 / (8 * m * n), 1)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    sys.exit(main())
