"""The picture on the front page: what SFT learns and loses, and what RL with either kind of questions brings back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from rlheals.chapters.healing.estimates import NOTHING, accuracy, over_seeds
from rlheals.chapters.healing.finding import NEW
from rlheals.chapters.healing.measures import MEASURING, Healing
from rlheals.chapters.healing.runs import BEFORE, HEALED, STUDY, HealingTables
from rlheals.chapters.rows import only
from rlheals.chapters.sft.measures import Curves, by_seed
from rlheals.display import style
from rlheals.display.looks import AFTER_RL, BLUE, PLAIN_SFT, Look
from rlheals.display.markup import spans
from rlheals.display.panels import Panels, estimates
from rlheals.display.style import Drawn, with_intervals
from rlheals.project import project_root
from rlheals.settings import STATES
from rlheals.study import record, tables
from rlheals.study.peaks import PEAK
from rlheals.study.tables import Tables

PLACES = ("base", "peak", *(f"{state} % lost" for state in STATES), "end")
LOOKS = {
    "sft": PLAIN_SFT.named("SFT"),
    "rl": AFTER_RL.named("then RL, trained rule"),
    HEALED: Look("then RL, rules up to 13", BLUE, "^", "-"),
}
"""Points of SFT, and what RL makes of them: questions under the rule that SFT trains, or under others (never the OOD
rule)."""
PANELS = {"ood": "another rule (OOD)", "held_out": "the trained rule, unseen hands (ID)"}


def picture(profile: str, results: Path) -> Drawn:
    """Drawn from the recorded study of a profile alone; "no data here" where chapter 1 or 5 is not recorded."""
    folder = project_root() / results
    sft, healing = record.find(profile, tables.SFT, folder)[0], record.find(profile, STUDY, folder)[0]
    sheet = Panels(len(PANELS), height=3.0)
    for axis, (split, title) in zip(sheet.axes, PANELS.items(), strict=True):
        rows = points(sft, healing, split) if sft is not None and healing is not None else pd.DataFrame()
        for shift, (arm, look) in enumerate(LOOKS.items()):
            mine = only(rows, arm=arm).sort_values("place") if len(rows) else rows
            if len(mine):
                at = mine["place"] + 0.14 * shift
                estimates(
                    axis, at, mine, look, "line" if arm == "sft" else "dots", clip=(0, 1), label=look.label
                )
        if rows.empty:
            axis.text(0.5, 0.5, NOTHING, transform=axis.transAxes, ha="center", fontsize=8)
        sheet.keep(rows.assign(study="recorded"))
        axis.set_xticks(
            range(len(PLACES)), [place.replace(" lost", "\nlost") for place in PLACES], fontsize=7
        )
        axis.set_xlim(-0.3, len(PLACES) - 0.5)
        sheet.label(axis, title, share=True)
    sheet.axes[0].set_ylabel("solved by one of 4 first attempts")
    sheet.legend(below=len(LOOKS))
    note = (
        "Accuracy (pass@4, format-agnostic) of checkpoints along SFT: the base, the OOD peak, the first that have lost "
        "a tenth, half and nine tenths of it, and the last; and of RL from the three between. With rules up to 13, "
        "half of RL's questions follow other rules that use 11, 12 and 13, none the OOD rule. Means with 95 % t "
        "intervals over base seeds, on hands that did not choose the checkpoints."
    )
    origin = ""
    if sft is not None and healing is not None:
        seeds = spans(sorted({*sft.seeds} & {*healing.seeds}))
        origin = f"Recorded study of profile {profile}: base seeds {seeds}; chapters 1 and 5."
    return style.finish(
        sheet.figure,
        "front",
        "What SFT loses and RL brings back",
        sheet.frame,
        note,
        origin,
        said(sheet.frame),
    )


def points(sft: Tables, healing: HealingTables, split: str) -> pd.DataFrame:
    """Columns arm, place (of `PLACES`), value, low, high, seeds, split: of the ablest bases."""
    able = healing.steps["ability"].max()
    ends = {seed: curves for seed, curves in sft.once(by_seed).items() if seed in healing.seeds}
    rows = [
        _along(ends, "base", lambda curves: 0, split),
        _along(ends, "end", lambda curves: curves.end, split),
    ]
    for place, state in enumerate((PEAK, *STATES), start=1):
        for arm, name in (("sft", BEFORE), ("rl", "rl"), (HEALED, HEALED)):
            measure: Callable[[Healing], float] = partial(
                accuracy, arm=name, state=state, split=split, ability=able
            )
            rows.append(over_seeds(healing, measure).assign(arm=arm, place=place))
    return pd.concat([row for row in rows if len(row)], ignore_index=True).assign(split=split)


def _along(
    curves: Mapping[int, Curves], place: str, step: Callable[[Curves], int], split: str
) -> pd.DataFrame:
    """Of SFT's first or last checkpoint."""
    values = [
        {
            "seed": seed,
            "place": PLACES.index(place),
            "value": one.accuracy(split, "pass@4 either", MEASURING)[step(one)],
        }
        for seed, one in curves.items()
    ]
    return with_intervals(pd.DataFrame(values, columns=["seed", "place", "value"]), ["place"]).assign(
        arm="sft"
    )


def said(rows: pd.DataFrame) -> str:
    """The picture in a sentence of numbers; "" without data."""
    if rows.empty:
        return ""
    found = only(rows, split="ood").set_index(["arm", "place"])["value"]
    half = PLACES.index("50 % lost")
    if ("rl", half) not in found or (HEALED, half) not in found:
        return ""
    sft = [f"{100 * found['sft', PLACES.index(place)]:.0f} %" for place in ("base", "peak", "end")]
    after = [f"{100 * found[arm, half]:.0f} %" for arm in ("sft", "rl", HEALED)]
    return (
        f"During SFT, OOD accuracy goes from {sft[0]} (base) to {sft[1]} (peak) and {sft[2]} (end); where half is lost "
        f"({after[0]}), RL on the trained rule makes it {after[1]}, RL with other rules that use "
        f"{NEW} makes it {after[2]}."
    )
