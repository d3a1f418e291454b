"""What the page "Play" loads: a few checkpoints of the fresh runs as scripts, and what their evaluations say of them.

Weights are base64 in a script: a page that was opened from a disk may load scripts, and nothing else.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save

from rlheals.book import mosaic
from rlheals.chapters.base import MEANS_NOTHING, PLUMBING
from rlheals.chapters.rl import runs as rl
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.engines.models import tensor_shapes
from rlheals.engines.weight_files import CONFIG, WEIGHTS
from rlheals.errors import BadInput
from rlheals.store.files import read_json
from rlheals.store.store import Store
from rlheals.study import tables
from rlheals.study.peaks import peaks_of
from rlheals.study.plan import plan
from rlheals.training.rl.settings import checkpoint_name as rl_checkpoint
from rlheals.training.sft import checkpoint_name

TASK = "general_points"
INDEX = "checkpoints.js"
MAX_WEIGHTS = 1_500_000
"""Of a checkpoint: four megabytes of a page."""
MAX_TOKENIZER = 10_000_000
PROTOCOLS = {"either": "solved_at_either", "target": "solved_at"}
SETS = {"ID": ("sft", "rl", "held_out"), "OOD": ("ood",)}


class Unplayable(BadInput):
    """Why the page has no checkpoints to play with."""


@dataclass(frozen=True)
class Chosen:
    """One checkpoint: key, part of its file's name; title; SFT step, for RL that of its start; the folder of its
    weights; the evaluation's episodes."""

    key: str
    title: str
    step: int
    folder: Path
    episodes: pd.DataFrame


def files(chapter: SFTChapter, store: Store) -> dict[str, str]:
    """By name the page's scripts: one for each checkpoint, and the index of them.

    Without a checkpoint that the page can play, the index has a sentence that says why.
    """
    profile, seed = chapter.profile, chapter.fresh.seeds[0]
    about: dict[str, Any] = {"profile": profile.name, "seed": seed, "note": "", "checkpoints": []}
    settings, made = profile.evaluate, dict[str, str]()
    about |= {"temperature": settings.sampling.temperature, "attempts": settings.attempts}
    if profile.name == PLUMBING:
        about["note"] = MEANS_NOTHING
    try:
        for chosen in checkpoints(chapter, store):
            name = f"{chosen.key}.js"
            made[name] = f"Play.arrived({json.dumps(chosen.key)}, {json.dumps(packed(chosen.folder))});\n"
            said = {"key": chosen.key, "title": chosen.title, "step": chosen.step, "file": name}
            said["bytes"] = len(made[name])
            about["checkpoints"].append({**said, "solved": shares(chosen.episodes)})
    except Unplayable as error:
        about |= {
            "note": f"The checkpoints of profile {profile.name} cannot be played here: {error}.",
            "checkpoints": [],
        }
        made = {}
    of_lab = profile.task == TASK and profile.model is None
    hands = mosaic.files(chapter, store) if of_lab else {mosaic.INDEX: ""}
    return made | hands | {INDEX: f"Play.index = {json.dumps(about, indent=1)};\n"}


def checkpoints(chapter: SFTChapter, store: Store) -> Iterator[Chosen]:
    """Base, OOD peak and end of SFT, and RL from its first and last start as far as the store has these runs.

    Raises Unplayable where no model of the lab plays cards.
    """
    profile, fresh = chapter.profile.for_reader(recorded=True), chapter.fresh
    if profile.task != TASK or profile.model is not None:
        raise Unplayable("they are not models of the lab that play cards")
    seed = fresh.seeds[0]
    weights = store.load(store.key(plan(profile, seed, store).sft)).path
    try:
        peak = peaks_of(fresh).get(seed)
    except BadInput:  # too few evaluations for one
        peak = None
    named = {
        0: ("base", "Base"),
        peak: ("sft-peak", "SFT, OOD peak"),
        fresh.steps[-1]: ("sft-end", "SFT, end"),
    }
    for step, (key, title) in named.items():
        if step is not None and step in fresh.steps:
            rows = fresh.episodes
            rows = rows[(rows["seed"] == seed) & (rows["step"] == step) & (rows["decode"] == 0)]
            about = title if step == 0 else f"{title} (step {step:,})"
            yield Chosen(key, about, step, weights / checkpoint_name(step), rows)
    starts, whole = sorted(profile.rl_starts.starts), rl.plan(profile, seed, store)
    for start in dict.fromkeys((*starts[:1], *starts[-1:])):
        cell = rl.Cell(rl.MAIN, start, 0)
        run, census = (store.key(spec) for spec in (whole.runs[cell], whole.censuses[cell, 0]))
        if store.has(run) and store.has(census):
            episodes = tables.census(store.load(census).path)[0]
            folder = store.load(run).path / rl_checkpoint(profile.rl_starts.iterations)
            yield Chosen(f"rl-{start}", f"RL from SFT step {start:,}", start, folder, episodes)


def packed(folder: Path) -> dict[str, Any]:
    """A checkpoint as the page opens it: config.json, the vocabulary, and its weights in float16, as base64.

    Raises Unplayable where they are too many, or leave float16's range.
    """
    count = sum(math.prod(shape) for shape in tensor_shapes(folder).values())
    if count > MAX_WEIGHTS:
        raise Unplayable(f"{folder.name} has {count:,} weights, a page loads at most {MAX_WEIGHTS:,}")
    halves = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    if bad := [name for name, tensor in halves.items() if not bool(torch.isfinite(tensor).all())]:
        raise Unplayable(f"{bad[0]} of {folder.name} leaves the range of float16")
    return {
        "config": read_json(folder / CONFIG, MAX_TOKENIZER),
        "vocabulary": read_json(folder / "tokenizer.json", MAX_TOKENIZER)["model"]["vocab"],
        "weights": b64encode(save(halves)).decode("ascii"),
    }


def shares(episodes: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """By protocol and set of hands: how many there are, which share is solved at once, and within the attempts."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for protocol, column in PROTOCOLS.items():
        found[protocol] = {}
        for name, splits in SETS.items():
            at = episodes.loc[episodes["split"].isin(splits), column]
            if len(at):
                first, within = float((at == 1).mean()), float((at > 0).mean())
                found[protocol][name] = {
                    "hands": len(at),
                    "first": round(first, 4),
                    "within": round(within, 4),
                }
    return found
