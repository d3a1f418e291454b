"""`rlheals edit` at the shapes of Qwen2.5-0.5B: `python benchmarks/bench_edit.py [--layers N]`.

Two checkpoints of a few layers with embeddings are written, one is edited with the other in a process of its own. The
peer is decomposing the matrices that the command decomposes: those of both checkpoints, and as many for the angles of
the result. Times are processor times of one thread; a whole checkpoint has 24 such layers, over which writing the
embedding is spread. Memory is the peak of the editing process less what it had before, beside three times the largest
matrix as it is stored (the embedding) plus one shard. JSON comes last; exit status 1 when a bound is passed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_spectra import LAYER, made
from safetensors.torch import load_file, save_file

from rlheals.weights import checkpoint as shards
from rlheals.weights.linalg import decompose
from rlheals.weights.two_checkpoints import edit_checkpoint

EDITS = ("directions(top=20%)", "subspace(top=20%)", "rollback()", "noise() like directions(top=20%)")
VOCABULARY, WIDTH = 151_936, 896
MOST_RATIO = 2.0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--layers", type=int, default=1)
    arguments.add_argument("--edit", nargs=2, metavar=("FOLDER", "EDIT"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.edit:
        print(json.dumps(edited(Path(options.edit[0]), options.edit[1])))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = write(folder, options.layers)
        peer = decompositions(folder)
        found = {edit: measured(folder, edit) for edit in EDITS}
    bound = 3 * 2 * VOCABULARY * WIDTH + min(size, shards.SHARD_BYTES)
    for one in found.values():
        one["to_decompositions"] = round(one["seconds"] / peer, 2)
        one["memory_to_bound"] = round(one.pop("memory") / bound, 2)
    report: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "torch": torch.__version__, "threads": 1,
                    "load_before": round(os.getloadavg()[0], 1)},
        "layers": options.layers,
        "decompositions_seconds": round(peer, 1),
        "edits": found,
        "passed": all(one["to_decompositions"] <= MOST_RATIO and one["memory_to_bound"] <= 1 for one in found.values()),
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def write(folder: Path, layers: int) -> int:
    """Two checkpoints in bfloat16; bytes of one."""
    random = torch.Generator().manual_seed(0)
    base = {"model.embed_tokens.weight": torch.randn(VOCABULARY, WIDTH, generator=random)}
    for layer in range(layers):
        for kind, shape in LAYER.items():
            part = "self_attn" if kind in "qkvo" else "mlp"
            base[f"model.layers.{layer}.{part}.{kind}_proj.weight"] = made(*shape)
    for name, size in (("b", 0.0), ("t", 0.01)):
        (folder / name).mkdir()
        noisy = {
            key: (w + size * w.norm() / w.numel() ** 0.5 * torch.randn(w.shape, generator=random)).bfloat16()
            for key, w in base.items()
        }
        save_file(noisy, folder / name / "model.safetensors")
    return (folder / "b/model.safetensors").stat().st_size


def decompositions(folder: Path) -> float:
    """Seconds of processor time for every block matrix: of both, and of something like the result."""
    taken = 0.0
    for name in ("b", "t", "t"):
        for key, w in load_file(folder / name / "model.safetensors").items():
            if "layers" in key:
                began = time.process_time()
                decompose(w)
                taken += time.process_time() - began
    return taken


def measured(folder: Path, edit: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--edit", str(folder), edit]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return json.loads(
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    )


def edited(folder: Path, edit: str) -> dict[str, float]:
    """Processor seconds and peak of memory of one edit, in this process."""
    decompose(torch.randn(64, 64))
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _kilobytes("VmRSS"), time.process_time()
    out = Path(tempfile.mkdtemp(dir=folder)) / "out"
    edit_checkpoint(str(folder / "b"), str(folder / "t"), edit, "blocks", out)
    return {
        "seconds": round(time.process_time() - began, 2),
        "memory": (_kilobytes("VmHWM") - before) * 1024,
    }


def _kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key)))


if __name__ == "__main__":
    sys.exit(main())
