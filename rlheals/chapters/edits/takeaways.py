"""What the figures of chapter 04 about edits show, in one sentence each."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.edits.figures import PLACES, where_label
from rlheals.chapters.edits.measures import FAMILIES
from rlheals.chapters.sentences import Estimate

ALL = "directions(all)"


def _beside(one: Estimate, other: Estimate) -> str:
    return f"{say.BESIDE[say.compare(other, one)]} the"


def size(frame: pd.DataFrame) -> str:
    rows = say.pick(frame, kind="restore", split="ood")
    names = [f"{FAMILIES[one.family]} in {where_label(one.where)}" for one in rows.itertuples()]
    found = sorted(say.curve(rows.assign(at=names), "at"))
    best = f"{say.points(found[-1].value)}{say.effect(found[-1])}, {found[-1].at}"
    worst = f"; the worst by {say.points(found[0].value)}" if len(found) > 1 else ""
    return f"of {len(found)} edits of the late checkpoint, the best changes OOD success@5 by {best}{worst}"


def dose(frame: pd.DataFrame) -> str:
    ones, others = (
        {one.at: one for one in say.curve(frame, "share", series=f"success@5 with feedback, ood, {name}")}
        for name in ("directions", "partial")
    )
    share = sorted(ones.keys() & others.keys())[-1]
    one, other = ones[share], others[share]
    given = (
        f"{say.percent(one.value)}, {_beside(one, other)} {say.percent(other.value)} of a partial rollback"
    )
    return f"restoring {share:g} % of the singular vectors gives OOD success@5 of {given} of equal size"


def controls(frame: pd.DataFrame) -> str:
    edits = (ALL, "rollback()", f"noise() like {ALL}")
    one, other, noise = (say.estimate(frame, kind="restore", quantity="effect", edit=edit) for edit in edits)
    rolled = f"{say.BESIDE[say.compare(other, one)]} a rollback's {say.points(other.value)}"
    gained = f"{say.points(one.value)}{say.effect(one)}"
    changed = f"restoring all singular vectors changes OOD accuracy by {gained}, {rolled}"
    return f"{changed}; equal noise: {say.points(noise.value)}"


def layers(frame: pd.DataFrame) -> str:
    places = (PLACES[where] for where in ("ends", "blocks", "matrices"))
    ends, blocks, both = (say.estimate(frame, edit=ALL, quantity="value", where=place) for place in places)
    given = f"{say.percent(ends.value)}, {_beside(ends, blocks)} {say.percent(blocks.value)} from all blocks"
    said = f"singular vectors restored in {PLACES['ends']} give OOD success@5 of {given}"
    return f"{said}; in both, {say.percent(both.value)}"


def behaviour(frame: pd.DataFrame) -> str:
    scales = {scale: say.pick(frame, kind="restore", scale=scale) for scale in ("left", "kl_target")}
    left, kl = (
        say.number(round(rows["at"].rank().corr(rows["value"].rank()), 2)) for rows in scales.values()
    )
    said = f"{left} with distance left to the peak and {kl} with KL from the late checkpoint"
    return f"over {len(scales['left'])} edits, the OOD change has rank correlation {said}"


TAKEAWAYS = say.named("swaps", size, dose, controls, layers, behaviour)
