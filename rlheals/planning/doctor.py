"""What a machine has, what is missing, and what the profiles would run: the facts behind `rlheals doctor`.

Nothing of ours or of the large libraries is imported before it is known to be there, so that a broken installation
can be examined too.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from rlheals.store.store import Store

NEEDED_DISK_GB = 0.5
VARIABLES = (
    "RLHEALS_STORE", "RLHEALS_DEBUG", "RLHEALS_VLLM_SERVER", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY", "HF_HOME", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "HF_TOKEN",
)  # fmt: skip
SECRET = "HF_TOKEN"


def examine(results: Path, open_store: Callable[[], Store]) -> dict[str, Any]:
    """Everything that doctor knows, as JSON; `ok` is whether nothing needed is missing.

    results: folder of the recorded study; open_store: gives the store, asked when no package is missing.
    """
    packages = examine_packages()
    problems = [f"{name}: {package['problem']}" for name, package in packages.items() if package["problem"]]
    environment = {name: os.environ.get(name) for name in VARIABLES}
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": packages,
        "machine": examine_machine(),
        "environment": environment | {SECRET: environment[SECRET] and "set"},
    }
    if not problems:
        store = open_store()
        found["store"], problems = examine_store(store)
        found["profiles"] = examine_profiles(results, store) if importlib.util.find_spec("torch") else []
    return {"ok": not problems, "problems": problems, **found}


def examine_packages() -> dict[str, dict[str, Any]]:
    """Every package that ours declares: installed version, whether it is in an extra, what is wrong with it.

    What an extra names and is not installed is not wrong; a version of it that does not fit is.
    """
    packages: dict[str, dict[str, Any]] = {}
    for requirement in map(Requirement, importlib.metadata.requires("rlheals") or []):
        optional = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        version, problem = None, "" if optional else "is not installed"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(requirement.name)
            fits = requirement.specifier.contains(version, prereleases=True)
            problem = "" if fits else f"version {version} does not fit {requirement.specifier}"
        if requirement.name != "rlheals":  # extras that hold others
            packages[requirement.name] = {
                "version": version,
                "optional": optional,
                "problem": problem or None,
            }
    return packages


def examine_machine() -> dict[str, Any]:
    """Processor, cores, threads, memory and GPUs; what torch says only if it can be imported."""
    facts: dict[str, Any] = {"system": platform.system(), "memory_gb": None, "gpus": []}
    facts["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(AttributeError, ValueError, OSError):
        facts["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    if importlib.util.find_spec("torch") is None:
        return facts
    try:
        import torch

        from rlheals.store.machine import multiplies_bfloat16, this_machine

        machine = this_machine()
        facts |= {"processor": machine.model, "vectors": machine.isa, "threads": machine.threads}
        facts["bfloat16"] = multiplies_bfloat16()
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except Exception as error:  # whatever is wrong with the installation, it is to be said
        facts["torch_problem"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    return facts


def examine_store(store: Store) -> tuple[dict[str, Any], list[str]]:
    """State of the store and of the disk it lies on; what would stop a run."""
    from rlheals.store.files import StoreError

    problems = []
    existing = next(path for path in (store.root, *store.root.parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    facts: dict[str, Any] = {"folder": str(store.root), "free_gb": round(free_gb, 1)}
    if free_gb < NEEDED_DISK_GB:
        problems.append(f"disk of {store.root}: {free_gb:.2f} GB free, {NEEDED_DISK_GB} GB are needed")
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return facts, [*problems, f"store {store.root}: {existing} cannot be written"]
    try:
        state = store.check()
    except StoreError as error:
        return facts, [*problems, str(error)]
    facts |= {"runs": len(state.intact), "damaged": list(state.damaged), "leftovers": list(state.leftovers)}
    return facts, problems + [f"store {store.root}: {line}" for line in state.unreadable]


def examine_runs(store: Store, repair: bool) -> dict[str, Any]:
    """Every run of the store read and checked, runs and megabytes by stage; with `repair` after it was repaired."""
    removed, state = store.repair() if repair else ([], store.check())
    stages = dict[str, dict[str, float]]()
    for run in state.intact:
        stage = stages.setdefault(run.manifest.stage, {"runs": 0, "mb": 0.0, "core_minutes": 0.0})
        stage["runs"] += 1
        stage["mb"] += sum(file.bytes for file in run.manifest.files.values()) / 1e6
        stage["core_minutes"] += run.manifest.seconds / 60
    lists: dict[str, Any] = {
        name: list(getattr(state, name)) for name in ("damaged", "unreadable", "leftovers")
    }
    ok = not (state.damaged or state.unreadable)
    facts = {"ok": ok, "folder": str(store.root), "runs": len(state.intact), "stages": stages}
    return {**facts, **lists, "removed": removed}


def examine_profiles(results: Path, store: Store) -> list[dict[str, Any]]:
    """What each profile runs for one fresh seed, how much of it is in the store, and what it took when recorded."""
    from rlheals.profiles import PROFILES
    from rlheals.study.plan import plan
    from rlheals.study.record import recorded_manifests

    recorded, there, rows = recorded_manifests(results), set(store.ids()), []
    for name, profile in PROFILES.items():
        specs = [spec for seed in profile.seeds for spec in plan(profile, seed, store).specs()]
        minutes = [one.minutes / one.profile["decodes"] for one in recorded.get(name, [])]
        rows.append(
            {
                "name": name,
                "about": profile.about,
                "seeds": list(profile.seeds),
                "runs": len(specs),
                "in_store": sum(store.key(spec) in there for spec in specs),
                "recorded_core_minutes": round(sum(minutes) / len(minutes), 1) if minutes else None,
            }
        )
    return rows


def report_lines(found: dict[str, Any]) -> Iterator[str]:
    """The facts for people."""
    machine, store = found["machine"], found.get("store")
    yield f"python      {found['python']}"
    for name, package in found["packages"].items():
        if package["version"] or not package["optional"] or name in ("torch", "vllm"):
            problem = f"  <- {package['problem']}" if package["problem"] else ""
            yield f"package     {name} {package['version'] or 'not installed'}{problem}"
    bfloat16 = "multiplies bfloat16" if machine.get("bfloat16") else "no bfloat16: precision=bf16 is slow"
    yield f"processor   {machine.get('processor', 'unknown')} ({machine.get('vectors', 'unknown')}); {bfloat16}"
    yield f"cores       {machine['cores']}, threads per process {machine.get('threads', 'unknown')}"
    yield f"memory      {machine['memory_gb']} GB"
    yield f"gpu         {', '.join(machine['gpus']) or 'none (not needed)'}"
    if "torch_problem" in machine:
        yield f"torch       {machine['torch_problem']}"
    yield from (f"variable    {name}={value}" for name, value in found["environment"].items() if value)
    if store is not None:
        yield f"store       {store['folder']}: {store.get('runs', 0)} runs, {store['free_gb']} GB free"
        for kind in ("damaged", "leftovers"):
            yield from (f"store       {line}" for line in store.get(kind, ()))
    for profile in found.get("profiles", ()):
        took = profile["recorded_core_minutes"]
        time = "not recorded" if took is None else f"about {took:.0f} core-minutes per seed when recorded"
        yield f"profile     {profile['name']}: {profile['runs']} runs, {profile['in_store']} in the store; {time}"
    yield from (f"MISSING     {problem}" for problem in found["problems"])
    if found["ok"]:
        yield "nothing is missing"


def run_lines(found: dict[str, Any]) -> Iterator[str]:
    """What `examine_runs` found, for people."""
    yield f"store       {found['folder']}: {found['runs']} runs are as they were written"
    for name, stage in sorted(found["stages"].items()):
        yield f"{name:11} {stage['runs']:5} runs {stage['mb']:9.1f} MB {stage['core_minutes']:9.1f} core-minutes"
    for name in ("removed", "damaged", "unreadable", "leftovers"):
        yield from (f"{name:11} {line}" for line in found[name])
    if found["damaged"]:
        yield "damaged runs are never used; --repair removes them, and the next study computes them again"
