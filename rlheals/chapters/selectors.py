"""Which SFT checkpoint to ship, and which to start RL from, when no OOD answer is known: rules, and their regret.

A rule sees what training shows without OOD questions. Some need the run alone (the lowest held-out loss). Others take
the checkpoint at which a quantity, such as the rotation, is nearest to what it was at the OOD peak of *other* base
seeds. The regret on a recorded study is the OOD accuracy (success@5) that a rule costs against the best checkpoint: of
the checkpoint itself ("ship"), or after RL from it ("start"). The best is chosen on one half of the hands and measured
on the other, both ways, so a regret may be below zero by chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.rl.measures import by_seed as rl_by_seed
from rlheals.chapters.rl.runs import RLTables
from rlheals.chapters.rows import only
from rlheals.chapters.sft.measures import Curves
from rlheals.chapters.sft.measures import by_seed as sft_by_seed
from rlheals.chapters.spectra.measures import BLOCKS, moved, points
from rlheals.chapters.spectra.runs import SFT, SpectraTables
from rlheals.display import panels, style
from rlheals.display.looks import AFTER_RL, PLAIN_SFT
from rlheals.display.markup import spans
from rlheals.display.style import Drawn, with_intervals
from rlheals.errors import BadInput
from rlheals.evaluation.census import census
from rlheals.evaluation.kl import Behaviour, DivergenceSettings
from rlheals.project import project_root
from rlheals.store.files import read_json
from rlheals.study import record
from rlheals.study.tables import Tables
from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.trajectory import distances

WITHIN = 0.01
"""A held-out loss this near to the lowest, as a share of it, is as low."""
QUESTIONS = {"ship": "the checkpoint itself", "start": "after RL from it"}
ANY = "any checkpoint, at random"
MAX_STATE = 100_000_000
"""Bytes of a trainer's log."""


@dataclass(frozen=True)
class Rule:
    """How a checkpoint is chosen by a column of signals.

    by: "first" is the first that is about as low as the lowest, "peak" the nearest to the OOD peak of other runs.
    """

    words: str
    column: str
    by: Literal["lowest", "highest", "first", "peak"]

    def choose(self, signals: pd.DataFrame, at_peak: float = np.nan) -> int | None:
        """The chosen row of one run's signals, by its label; None where the rule has nothing to go by.

        at_peak: what `level` gave of other runs. Ties: the earliest.
        """
        values = signals[self.column].dropna()
        if values.empty or (self.by == "peak" and not np.isfinite(at_peak)):
            return None
        if self.by == "highest":
            return int(values.idxmax())
        if self.by == "first":
            return int((values <= values.min() + WITHIN * abs(values.min())).idxmax())
        return int(values.idxmin() if self.by == "lowest" else (self.scaled(values) - at_peak).abs().idxmin())

    def scaled(self, values: pd.Series) -> pd.Series:
        """Quantities that grow over decades in logarithms, so that nearest means the nearest ratio."""
        return np.log(values.clip(lower=1e-12)) if self.column in ("size", "kl") else values


RULES = (
    Rule("the last checkpoint", "step", "highest"),
    Rule("lowest training loss", "train", "lowest"),
    Rule("lowest held-out loss", "test", "lowest"),
    Rule("first within 1 % of the lowest held-out loss", "test", "first"),
    Rule("highest held-out ID accuracy", "held_out", "highest"),
    Rule("ID entropy as at the peak", "entropy", "peak"),
    Rule("|dW| / |W| as at the peak", "size", "peak"),
    Rule("rotation as at the peak", "angle", "peak"),
    Rule("rotation beyond its null as at the peak", "excess", "peak"),
    Rule("forward KL from the base as at the peak", "kl", "peak"),
)


def signals(sft: Tables, spectra: SpectraTables | None) -> pd.DataFrame:
    """What the rules see of recorded plain SFT, by (seed, step), where weights were measured; the base is left out.
    Where no weights are recorded (yet), every checkpoint has a row, without them.

    Columns train, test: losses; held_out: success@5 on held-out ID hands; entropy: nats per token of first attempts at
    them; size, angle, excess, kl: of the weights, as in `spectra.measures.points`.
    """
    keys = ["seed", "step"]
    losses = only(sft.losses, set=("train", "test")).pivot_table(index=keys, columns="set", values="loss")
    weights = pd.DataFrame(np.nan, index=losses.index, columns=["size", "angle", "excess", "kl"])
    if spectra is not None:
        weights = only(spectra.once(points), branch=SFT).set_index(keys)[list(weights)]
    first = only(sft.categories, split="held_out", protocol="target", attempt=1)
    sums = first.groupby(keys)[["entropy", "attempts"]].sum(min_count=1)
    held_out = pd.concat(
        {seed: curves.accuracy("held_out") for seed, curves in sft.once(sft_by_seed).items()}, names=keys
    )
    found = weights.join(losses.reindex(columns=["train", "test"]), how="inner")
    found = found.assign(entropy=sums["entropy"] / sums["attempts"], held_out=held_out).reset_index()
    return found[found["step"] > 0].reset_index(drop=True)


def levels(seen: pd.DataFrame, sft: Tables) -> dict[int, pd.Series]:
    """By base seed, the signals at the step of highest OOD accuracy among those seen."""
    found = {}
    for seed, curves in sft.once(sft_by_seed).items():
        mine = only(seen, seed=seed).set_index("step")
        if len(mine):
            found[seed] = mine.loc[curves.accuracy("ood").reindex(mine.index).idxmax()]
    return found


def at_peak(rule: Rule, others: Sequence[pd.Series]) -> float:
    """What the rule compares with: the mean over other runs of its quantity at their OOD peaks."""
    if rule.by != "peak" or not others:
        return np.nan
    return float(rule.scaled(pd.Series([one[rule.column] for one in others])).mean())


def regrets(sft: Tables, spectra: SpectraTables | None, rl: RLTables | None = None) -> pd.DataFrame:
    """One row per (question, rule, seed): the step that it chooses, and value, the OOD accuracy that this costs.

    Without RL tables only "ship". A rule that has nothing to go by has no row. `ANY`: the mean over all checkpoints.
    """
    seen = signals(sft, spectra)
    peaks = levels(seen, sft)
    rows = list(_regrets("ship", seen, peaks, _of_checkpoints(sft)))
    if rl is not None:
        rows += _regrets("start", seen, peaks, _of_starts(rl))
    return pd.DataFrame(rows, columns=["question", "rule", "seed", "step", "value"])


Accuracies = dict[int, tuple[pd.Series, pd.Series]]
"""By base seed, OOD accuracy by step on either half of the hands."""


def _of_checkpoints(sft: Tables) -> Accuracies:
    def halves(curves: Curves) -> tuple[pd.Series, pd.Series]:
        return curves.accuracy("ood", half=0), curves.accuracy("ood", half=1)

    return {seed: halves(curves) for seed, curves in sft.once(sft_by_seed).items()}


def _of_starts(rl: RLTables) -> Accuracies:
    found = {}
    for seed, one in rl.once(rl_by_seed).items():
        steps = one.starts
        first, second = (
            pd.Series({step: one.accuracy(step, True, half=half) for step in steps}) for half in (0, 1)
        )
        found[seed] = first, second
    return found


def _regrets(
    question: str, seen: pd.DataFrame, peaks: dict[int, pd.Series], accuracies: Accuracies
) -> Iterator[dict[str, Any]]:
    for seed, halves in accuracies.items():
        mine = only(seen, seed=seed)
        mine = mine[mine["step"].isin(halves[0].index)].set_index("step", drop=False)
        if len(mine) < 2:
            continue
        known = [half.reindex(mine.index) for half in halves]
        cost = sum(half[other.idxmax()] - half for half, other in (known, known[::-1])) / 2
        here = {"question": question, "seed": seed}
        others = [peak for at, peak in peaks.items() if at != seed]
        for rule in RULES:
            step = rule.choose(mine, at_peak(rule, others))
            if step is not None:
                yield {**here, "rule": rule.words, "step": step, "value": float(cost[step])}
        yield {**here, "rule": ANY, "step": -1, "value": float(cost.mean())}


Study = tuple[Tables, SpectraTables | None, RLTables | None]
"""What regrets are of."""


def recorded(name: str, results: Path) -> Study | None:
    """The studies of a profile that regrets need; None where SFT is not recorded."""
    parts = [CHAPTERS[key].part for key in ("sft", "rotation", "recovery")]
    sft, spectra, rl = (record.find(name, part, results)[0] for part in parts)
    return None if sft is None else (sft, spectra, rl)


def observed(
    base: str, folders: Sequence[str], task: str | None = None, hands: int = 64, draws: int = 5
) -> pd.DataFrame:
    """The signals of anybody's checkpoints, in the order of their steps: one row per checkpoint, as `signals`.

    base: the checkpoint that SFT began with; size, angle, excess: of the blocks' matrices, experts included; step: the
    number at the end of a folder's name; test: its evaluation loss, where the trainer of transformers wrote
    `trainer_state.json` beside it. With a task the models are asked so many of its ID questions, for held_out, entropy
    and kl. BadInput for fewer than two checkpoints, or two of one step.
    """
    if len(folders) < 2:
        raise BadInput("select: two checkpoints or more are needed to choose between")
    steps = [_step(folder) for folder in folders]
    if len(set(steps)) < len(steps):
        raise BadInput(f"select: two checkpoints are of step {max(steps, key=steps.count)}")
    before = Checkpoint(base)
    asked = None if task is None else DivergenceSettings(task=task, questions=hands)
    behaviour = None if asked is None else Behaviour(asked, Path(base), 0)
    rows = []
    for step, folder in sorted(zip(steps, folders, strict=True)):
        weights = distances(before, Checkpoint(folder), BLOCKS, draws, "select").assign(step=step)
        row = {"checkpoint": folder, "step": step, **moved(weights, ["step"]).iloc[0]}
        row |= {"train": np.nan, "test": _evaluation_loss(Path(folder), step)}
        row |= {"held_out": np.nan, "entropy": np.nan, "kl": np.nan}
        if task is not None and behaviour is not None:
            answered = census(folder, task, ["held_out"], hands=hands)
            first = answered.attempts[answered.attempts["attempt"] == 1]
            solved = float((answered.episodes["solved_at"] > 0).mean())
            row |= {"held_out": solved, "entropy": float(first["entropy"].mean())}
            row["kl"] = behaviour.of(Path(folder))["kl"]
        rows.append(row)
    return pd.DataFrame(rows)


def chosen(seen: pd.DataFrame, study: Study | None) -> pd.DataFrame:
    """One row per rule that has something to go by: rule, checkpoint, step, at_peak (what it compares with), and by
    question the mean regret on the recorded study, in points of OOD accuracy, with its 95 % t interval."""
    costs, others = pd.DataFrame(), list[pd.Series]()
    if study is not None:
        costs = with_intervals(regrets(*study), ["question", "rule"]).set_index(["question", "rule"])
        others = list(levels(signals(*study[:2]), study[0]).values())
    rows = []
    for rule in RULES:
        level = at_peak(rule, others)
        place = rule.choose(seen, level)
        if place is None:
            continue
        row = {"rule": rule.words, **seen.loc[place, ["checkpoint", "step"]], "at_peak": level}
        if rule.column in ("size", "kl"):
            row["at_peak"] = float(np.exp(level))
        for question in QUESTIONS:
            if (question, rule.words) in costs.index:
                cost = 100 * costs.loc[(question, rule.words), ["value", "low", "high"]].astype(float)
                row |= {
                    question: cost["value"],
                    f"{question}_low": cost["low"],
                    f"{question}_high": cost["high"],
                }
        rows.append(row)
    return pd.DataFrame(rows)


def figure(profile: str, results: Path) -> Drawn:
    """What every rule has cost on the recorded study of a profile; "no data here" where it is not recorded."""
    study = recorded(profile, project_root() / results)
    costs = pd.DataFrame(columns=["question", "rule"])
    if study is not None:
        costs = with_intervals(regrets(*study), ["question", "rule"])
        costs = costs.assign(**{end: 100 * costs[end] for end in ("value", "low", "high")}, study="recorded")
    names = [name for name in (*(rule.words for rule in RULES), ANY) if name in set(costs["rule"])]
    sheet = panels.Panels(len(QUESTIONS), height=3.2)
    sheet.keep(costs)
    for axis, (question, title), look in zip(
        sheet.axes, QUESTIONS.items(), (PLAIN_SFT, AFTER_RL), strict=True
    ):
        mine = only(costs, question=question)
        if mine.empty:
            axis.text(0.5, 0.5, "no data here", transform=axis.transAxes, ha="center", fontsize=8)
        else:
            panels.estimates(axis, [-names.index(rule) for rule in mine["rule"]], mine, look, upright=False)
            panels.level(axis, 0, upright=False)
        sheet.names(axis, names if question == "ship" else [""] * len(names))
        sheet.label(axis, title, "OOD accuracy lost, points")
    note = (
        "OOD success@5 of the best checkpoint minus that of the one which a rule chooses, in points. The best one is "
        "chosen on one half of the hands and both are measured on the other. Rules see no OOD answer of the run that "
        'they choose from; "as at the peak" compares with other base seeds.'
    )
    origin = said = ""
    if study is not None:
        if study[1] is None:
            note += " Rules that look at the weights have no data yet."
        origin = f"Recorded study of profile {profile}: base seeds {spans(study[0].seeds)}."
        said = takeaway(costs)
    return style.finish(sheet.figure, "selectors", "Who could have told?", sheet.frame, note, origin, said)


def takeaway(costs: pd.DataFrame) -> str:
    """Which rule cost least, beside the last checkpoint; how many others cost as much to a tenth of a point."""
    said = list[str]()
    for question, words in (("ship", "To ship one"), ("start", "To start RL from one")):
        mine = only(costs, question=question).set_index("rule")
        if mine.empty:
            continue
        rules = mine.drop(ANY, errors="ignore")
        least, last = rules.loc[rules["value"].idxmin()], RULES[0].words
        alike = int((rules["value"].round(1) == round(least["value"], 1)).sum()) - 1
        others = f" (and {alike} other{'s' * (alike > 1)})" if alike else ""
        unit = " points" if said else " points of OOD accuracy"
        beside = f"; {last}, {_points(rules.loc[last])}" if least.name != last else ""
        said.append(f"{words}, '{least.name}'{others} costs least: {_points(least, unit)}{beside}.")
    return " ".join(said)


def _points(row: pd.Series, unit: str = "") -> str:
    return f"{row['value']:.1f}{unit} [{row['low']:.1f}, {row['high']:.1f}]"


def _step(folder: str) -> int:
    """The number at the end of a checkpoint's name, such as checkpoint-500 or step-00080."""
    found = re.search(r"(\d+)$", Path(folder).resolve().name)
    if found is None:
        raise BadInput(f"checkpoint {folder!r:.80}: its name has to end in its step, as in checkpoint-500")
    return int(found[1])


def _evaluation_loss(folder: Path, step: int) -> float:
    """The evaluation loss at this step by the trainer's own log; not a number where it says nothing."""
    file = folder / "trainer_state.json"
    if not file.is_file():
        return np.nan
    log = read_json(file, MAX_STATE).get("log_history")
    rows = [one for one in log if isinstance(one, dict)] if isinstance(log, list) else []
    losses = [one.get("eval_loss") for one in rows if one.get("step") == step]
    known = [loss for loss in losses if isinstance(loss, (int, float)) and np.isfinite(loss)]
    return float(known[-1]) if known else np.nan
