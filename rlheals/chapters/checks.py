"""The checks at the end of a chapter: each returns text that is the same wherever nothing has changed.

`exact`, `advantages` and `laws` print counts, weights and verdicts themselves. What floating point decides is compared
with `references.py`, with the recorded study, or with laws that hold on every processor: inside or outside. nbval
compares these texts with those in the executed reference notebooks; only `make references` changes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlheals.chapters import references
from rlheals.chapters.base import Chapter
from rlheals.chapters.beyond.measures import rates
from rlheals.chapters.expected import FEWEST_SEEDS
from rlheals.profiles import load_profile
from rlheals.study.peaks import PEAK
from rlheals.tasks import load_task
from rlheals.training.rl.episodes import weights
from rlheals.weights.edit_parser import parse
from rlheals.weights.edits import edit_matrix
from rlheals.weights.linalg import decompose, principal_angles
from rlheals.weights.nulls import haar

GRADED_HANDS = 25
EDITS = (
    "values(all)", "left(all)", "right(all)", "directions(all)", "triples(all)", "directions(top=3)",
    "subspace(top=3)", "random(top=3)", "rollback()", "partial(top=3)", "interpolate(0.5, along=rotation)",
    "noise() like directions(top=3)", "released(top=8)",
)  # fmt: skip
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Report:
    """What a check has to say, and whether all is as it should be.

    >>> Report(("24 hands: inside",), True)
    24 hands: inside
    """

    lines: tuple[str, ...]
    ok: bool

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__


def compared(what: str, got: Mapping[str, float], accepted: Mapping[str, Bounds], *about: str) -> Report:
    """A line per value: inside what is accepted, or outside with the value. about: lines above these."""
    if odd := sorted(set(got) ^ set(accepted)):
        return Report((f"{what}: outside (only one side has {odd[0]!r})",), False)
    said = {}
    for name, value in got.items():
        low, high = accepted[name]
        inside = low <= value <= high
        said[name] = "inside" if inside else f"outside (got {value:.4g}, accepted {low:.4g} to {high:.4g})"
    lines = (f"{what}, {name}: {one}" for name, one in said.items())
    return Report((*about, *lines), all(one == "inside" for one in said.values()))


def _obeyed(about: str, found: Mapping[str, tuple[float, float] | float]) -> Report:
    """Laws that a fresh run obeys on every processor: each value is 0, or at most its slack where it has one."""
    each = {name: value if isinstance(value, tuple) else (value, 0.0) for name, value in found.items()}
    values = {name: float(value) for name, (value, _) in each.items()}
    return compared("fresh run", values, {name: (0.0, slack) for name, (_, slack) in each.items()}, about)


def exact() -> Report:
    """Counts of the task's items, and graded replies with the digest of their verdicts."""
    return Report(load_task("general_points").facts(), True)


def shipped() -> Report:
    """The weights that ship with the package under greedy sampling, against what they gave before: within 2 hands."""
    known = references.read().shipped
    accepted = {name: references.shipped_interval(name, value) for name, value in known.items()}
    return compared("shipped weights", references.shipped_values(), accepted)


def trained(chapter: Chapter[Any]) -> Report:
    """The last losses and solved hands of a fresh run against where the recorded base seeds expect them.

    Under `smoke` nothing is recorded, and a run from the shipped base (seed 0) is compared with stored ones. Anything
    else is not compared, and the text says so.
    """
    recorded, fresh = chapter.recorded, chapter.fresh
    if recorded is not None and len(recorded.seeds) >= FEWEST_SEEDS:
        last, seeds = int(fresh.episodes["step"].max()), len(fresh.seeds)
        known, mine = (
            references.by_seed([references.trained_values(one.of_seed(seed), last) for seed in one.seeds])
            for one in (recorded, fresh)
        )
        got = {name: sum(found) / seeds for name, found in mine.items() if name in known}
        about = (
            f"fresh run, step {last:,}: compared with {len(recorded.seeds)} recorded base seeds, 95 % prediction "
            f"intervals for {len(got)} numbers at once"
        )
        accepted = {name: references.trained_interval(name, known[name], len(got), seeds) for name in got}
        return compared("fresh run", got, accepted, about)
    if chapter.profile == load_profile("smoke") and 0 in fresh.seeds:
        known = references.read().trained
        accepted = {name: references.trained_interval(name, of) for name, of in known.items()}
        return compared("fresh run", references.trained_values(fresh.of_seed(0)), accepted)
    why = f"fewer than {FEWEST_SEEDS} base seeds of profile {chapter.profile.name} are recorded"
    return Report((f"fresh run: not compared; {why}",), True)


def advantages() -> Report:
    """Weights of attempts in a worked example: four episodes of one hand, by advantage estimator and baseline."""
    rewards = [[5.0], [-2.0, 5.0], [-1.0, -2.0, -3.0], [-4.0, -1.0]]
    lines = []
    for kind in ("episode", "attempt"):
        for baseline in ("mean", "leave_one_out"):
            made = weights(rewards, 4, 0.9, kind, baseline)
            said = "; ".join(" ".join(f"{value:+.3f}" for value in one) for one in made)
            lines.append(f"{kind}, {baseline.replace('_', ' ')}: {said}")
    return Report(tuple(lines), True)


def recovery(chapter: Chapter[Any]) -> Report:
    """Laws of every RL run."""
    log, rl = chapter.fresh.log, chapter.profile.rl_starts.rl
    sizes = chapter.fresh.advantages.groupby(["seed", "control", "start", "run", "update"])["advantage"]
    mean = "mean advantage of an iteration" if rl.algorithm in ("grpo", "rloo") else "advantages"
    first = log[log["update"] == log["update"].min()]
    shares = log[["solved", "first_try", "zero_variance"]]
    kl = {}
    if rl.log_kl:
        kl = {"KL to the RL start checkpoint before the first step": (first["kl_start"].abs().max(), 1e-4)}
    runs = log.drop_duplicates(["seed", "start", "run"])
    return _obeyed(
        f"RL runs: {len(runs)}, iterations each: {log['update'].max()}, starts: {sorted(set(runs['start']))}",
        {
            **kl,
            mean: (sizes.mean().abs().max(), 1e-4),
            "shares below 0 or above 1": (~((shares >= 0) & (shares <= 1))).sum().sum(),
            "pass@1 above the share that is solved": (log["first_try"] > log["solved"]).sum(),
            "attempts beyond the limit": (~log["attempts"].between(1, rl.attempts)).sum(),
            "gradients that are not finite": (~log["gradient_norm"].between(0, 1e6)).sum(),
        },
    )


def angles() -> Report:
    """Principal angles of subspaces that were built with known ones, and of decompositions with themselves."""
    found = {}
    for size in (1e-7, 1e-3, 0.1, 1.0, math.pi / 2):
        frame = haar(40, 6, 1, f"check {size}")[0]
        turned = frame[:, :3] * math.cos(size) + frame[:, 3:] * math.sin(size)
        errors = principal_angles(frame[:, :3], turned) - size
        found[f"error of three angles of {size:.4g}"] = float(errors.abs().max())
    matrix = torch.randn((24, 40), generator=torch.Generator().manual_seed(24), dtype=torch.float64)
    by_gram, by_svd = decompose(matrix, "gram"), decompose(matrix, "svd")
    found["angle of a subspace and itself"] = float(principal_angles(frame, frame).abs().max())
    found["Gram against svd, singular values"] = float((by_gram.s - by_svd.s).abs().max())
    found["Gram against svd, angle of the leading 8"] = float(
        principal_angles(by_gram.v[:, :8], by_svd.v[:, :8]).max()
    )
    accepted = dict.fromkeys(found, (0.0, 1e-9)) | {"angle of a subspace and itself": (0.0, 0.0)}
    return compared("radians", found, accepted)


def rotation(chapter: Chapter[Any]) -> Report:
    """Laws of every comparison of two checkpoints."""
    tables = chapter.fresh
    sizes, angles, known = tables.changes, tables.angles, tables.behaviour
    first = tables.path[tables.path["step"] == tables.path["step"].min()]
    matrix = ["seed", "pair", "tensor", "head"]
    by_what = sizes.astype({"what": object}).pivot_table(
        index=matrix, columns="what", values="change_norm", observed=True
    )
    equal = (by_what[["gaussian", "permuted", "turned"]].div(by_what["change"], axis=0) - 1).abs()
    norms = sizes[sizes["what"] == "change"].set_index(matrix)["change_norm"]
    moved = tables.values.assign(by=(tables.values["after"] - tables.values["before"]).abs())
    furthest = moved.groupby(matrix, observed=True)["by"].max()
    beyond = furthest > norms.reindex(furthest.index) * 1.0001 + 1e-6
    whole = sizes[sizes["head"] == -1]
    return _obeyed(
        f"pairs: {whole['pair'].nunique()}, matrices in each: {whole['tensor'].nunique()}",
        {
            "norms of nulls against that of the change": (equal.max().max(), 1e-4),
            "singular values that moved by more than the change's norm (Weyl)": beyond.sum(),
            "angles below 0 or above 90 degrees": (~angles["mean"].dropna().between(0, 90.001)).sum(),
            "means beyond the largest angle": (angles["mean"] > angles["largest"] * 1.0001).sum(),
            "shares of energy above 1": (sizes["stretch_energy"] + sizes["rotation_energy"] > 1.0001).sum(),
            "negative divergences": (known["kl"] < -1e-6).sum(),
            "divergence of the base from itself": (known.loc[known["step"] == 0, "kl"].abs().max(), 1e-6),
            "change of the base against itself": first["change_norm"].abs().max(),
        },
    )


def laws() -> Report:
    """Every edit of one constructed pair of matrices: does it keep singular values, is it the base, is it nothing?"""
    values = torch.linspace(4, 0.5, 8, dtype=torch.float64)
    t = (haar(12, 8, 1, "check left")[0] * values) @ haar(8, 8, 1, "check right")[0].T
    b = t + 0.02 * haar(12, 8, 1, "check change")[0]
    lines = []
    for text in EDITS:
        made = edit_matrix(b, t, parse(text))
        said = {
            "keeps singular values": torch.linalg.svdvals(made) - torch.linalg.svdvals(t),
            "is the base": made - b,
            "has the size of directions(top=3)": (made - t).norm()
            - (edit_matrix(b, t, parse("directions(top=3)")) - t).norm(),
        }
        true = [name for name, gap in said.items() if float(gap.abs().max()) < 1e-10]
        lines.append(f"{text}: {', '.join(true) or 'none of these'}")
    return Report(tuple(lines), True)


def swaps(chapter: Chapter[Any]) -> Report:
    """Laws of every edited checkpoint."""
    sizes, effects = chapter.fresh.sizes, chapter.fresh.effects
    names, keys = sizes["edit"].astype(str), ["seed", "kind", "where"]
    noise = sizes[names.str.startswith("noise() like directions(all)")].groupby(keys, observed=True)
    wanted = sizes[names == "directions(all)"].set_index(keys)["edit_norm"]
    gaps = noise["edit_norm"].first().div(wanted).dropna() - 1
    triangle = (sizes["left"] - sizes["distance"]).abs() - sizes["edit_norm"] * 1.0001
    return _obeyed(
        f"edited checkpoints: {len(sizes)}",
        {
            "norm of noise against that of the edit it is a control of": (gaps.abs().max(), 1e-4),
            "distances that changed by more than the edit": (triangle > 1e-6).sum(),
            "negative divergences": (sizes[["kl_origin", "kl_target"]] < -1e-6).sum().sum(),
            "pass@1 above success@5": (effects["first"] > effects["solved"]).sum(),
            "more solved than hands": (effects["solved"] > effects["hands"]).sum(),
            "edits without an evaluation": len(set(sizes["edit"]) - set(effects["edit"])),
        },
    )


def beyond(chapter: Chapter[Any]) -> Report:
    """Laws of routes: what their rates can be beside each other."""
    episodes = chapter.fresh.by_task["navigation"]["sft"].episodes
    ood = episodes[episodes["split"].isin(["ood", "ood_way"])]
    place = ["seed", "step", "decode"]
    nodes = {key: set(rows["item"].unique()) for key, rows in ood.groupby(place, observed=True)}
    share = {
        rate: rows.set_index(["seed", "step"])["value"] for rate, rows in rates(chapter.fresh).groupby("rate")
    }
    turn = ood["split"] == "ood"
    return _obeyed(
        f"OOD nodes: {len(ood['item'].unique())}, turns: {len(ood[turn]['item'].unique())}; evaluations: {len(nodes)}",
        {
            "evaluations of other nodes": sum(of != next(iter(nodes.values())) for of in nodes.values()),
            "turns that are called something else": (turn != (ood["kind"] == "turn")).sum(),
            "nodes without a turn's number, or with one too many": (turn != (ood["turn"] > 0)).sum(),
            "whole routes beyond nodes": (share["routes"] > share["nodes"] + 1e-12).sum(),
            "rates that are none": sum(~rate.between(0, 1).to_numpy().all() for rate in share.values()),
        },
    )


def healing(chapter: Chapter[Any]) -> Report:
    """Laws of states and of second stages."""
    episodes, steps = chapter.fresh.episodes, chapter.fresh.steps
    base, place = ["seed", "ability"], ["seed", "ability", "start"]
    order = steps.sort_values([*base, "state"]).groupby(base)["step"]
    known = set(steps.set_index([*base, "state"]).index)
    first = episodes[["solved_at", "solved_at_either"]] == 1
    before, after = (episodes[(episodes["run"] >= 0) == done] for done in (False, True))
    hands = {key: set(rows["item"].unique()) for key, rows in before.groupby(place, observed=True)}
    results = {
        key: set(rows["item"].unique()) for key, rows in after.groupby([*place, "control"], observed=True)
    }
    listed = ", ".join(map(str, sorted(steps["state"].unique())))
    return _obeyed(
        f"states that SFT reached: {listed}; second stages: {len(results)}",
        {
            "states reached before a smaller loss": (order.diff() < 0).sum(),
            "starts before the peak": (order.transform("min") < order.transform("first")).sum(),
            "peaks without an evaluation": len({key for key in known if key[2] == PEAK} - set(hands)),
            "evaluations of what is no state": len(set(hands) - known),
            "results of a start that is not evaluated": len({key[:3] for key in results} - set(hands)),
            "results on other hands than their start": sum(
                of != hands.get(key[:3], of) for key, of in results.items()
            ),
            "solved at once in the taught format, but not in either": (
                first["solved_at"] & ~first["solved_at_either"]
            ).sum(),
        },
    )
