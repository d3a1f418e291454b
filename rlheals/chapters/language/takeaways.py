"""What the figures of chapter 07 show, in one sentence each; about the first language model that has rows."""

from __future__ import annotations

import pandas as pd

from rlheals.chapters import sentences as say
from rlheals.chapters.healing.runs import BEFORE, HEALED
from rlheals.chapters.language.runs import STUDIES

PAIR = "peak-end"


def _is(series: str) -> str:
    return f"{STUDIES[0]}, {series}"


def curves(frame: pd.DataFrame) -> str:
    return f"OOD success@5 {say.course(say.curve(frame, series=_is('ood, success@5')))}"


def healed(frame: pd.DataFrame) -> str:
    mine = say.pick(frame, series=_is(f"pass4, {BEFORE}"))
    severe = mine["state"].max()
    start, by_id, by_other = (
        say.estimate(frame, series=_is(f"pass4, {arm}"), state=severe) for arm in (BEFORE, "rl", HEALED)
    )
    other = f"{say.moved(start, by_other)} with other rules, too"
    return f"from the later start OOD pass@4 {say.moved(start, by_id)} with RL on the ID rule and {other}"


def spectra(frame: pd.DataFrame) -> str:
    change, null = (
        say.estimate(frame, series=_is("angle"), pair=PAIR, what=what) for what in ("change", "gaussian")
    )
    moved = say.estimate(frame, series=_is("values"), pair=PAIR, what="change")
    beside = f"{say.BESIDE[say.compare(null, change)]} the {say.number(null.value)} of Gaussian changes of equal norm"
    turned = f"leading vectors turn by {say.number(change.value)} degrees, {beside}"
    return (
        f"from the OOD peak to the end of SFT {turned}; singular values change by {say.percent(moved.value)}"
    )


def edits(frame: pd.DataFrame) -> str:
    vectors, noise = (
        say.estimate(frame, series=STUDIES[0], edit=f"restore: {edit}")
        for edit in ("directions(all)", "noise() like directions(all)")
    )
    beside = f"{say.BESIDE[say.compare(noise, vectors)]} the {say.points(noise.value)} of noise of equal norm"
    return (
        f"restoring the peak's singular vectors changes OOD success by {say.points(vectors.value)}, {beside}"
    )


def lora(frame: pd.DataFrame) -> str:
    whole, low = (say.curve(frame, series=_is(f"ood, {branch}"))[-1] for branch in ("sft", "lora-16"))
    beside = f"{say.BESIDE[say.compare(whole, low)]} the {say.percent(whole.value)} of all weights"
    return f"SFT with LoRA ends at {say.percent(low.value)} OOD success, {beside}"


TAKEAWAYS = say.named("language", curves, healed, spectra, edits, lora)
