"""The checks at the end of a chapter: each returns text that is the same wherever nothing has changed.

`exact` prints counts and verdicts themselves. `shipped` and `trained` compare what floating point decides with the
recorded study or with `references.py`, and print inside or outside. The executed reference notebooks hold these texts,
and nbval compares them. `make references` is the only way by which references change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from rlheals.tasks import load_task
from rlheals.weights.edit_parser import parse
from rlheals.weights.edits import edit_matrix
from rlheals.weights.linalg import decompose, principal_angles
from rlheals.weights.nulls import haar

if TYPE_CHECKING:
    from rlheals.chapters.edits.runs import SwapTables
    from rlheals.chapters.rl.runs import RecoveryTables
    from rlheals.chapters.spectra.runs import RotationTables
    from rlheals.profiles.profile import Profile
    from rlheals.study.tables import Tables


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


class HasFreshRuns(Protocol):
    """A chapter: its profile and the tables of the runs that were just computed or loaded."""

    @property
    def profile(self) -> Profile: ...

    @property
    def fresh(self) -> Tables: ...

    @property
    def recorded(self) -> Tables | None: ...


class HasFreshRL(Protocol):
    """A chapter with RL runs."""

    @property
    def profile(self) -> Profile: ...

    @property
    def fresh(self) -> RecoveryTables: ...


def exact() -> Report:
    """Counts of the task's items, and graded replies with the digest of their verdicts."""
    return Report(load_task("general_points").facts(), True)


def shipped() -> Report:
    """The weights that ship with the package, decoded greedily, against what they gave before: within 2 hands."""
    from rlheals.chapters import references

    known = references.read().shipped
    accepted = {name: references.shipped_interval(name, value) for name, value in known.items()}
    return compared("shipped weights", references.shipped_values(), accepted)


def trained(chapter: HasFreshRuns) -> Report:
    """The last losses and solved hands of a fresh run against where the recorded base seeds expect them.

    Under `smoke` nothing is recorded, and a run from the shipped base (seed 0) is compared with stored ones. Anything
    else is not compared, and the text says so.
    """
    from rlheals.chapters import references
    from rlheals.chapters.compare import FEWEST_SEEDS
    from rlheals.profiles import load_profile

    recorded, fresh, lines = chapter.recorded, chapter.fresh, []
    if recorded is not None and len(recorded.seeds) >= FEWEST_SEEDS:
        last = int(fresh.episodes["step"].max())
        rows = {seed: references.trained_values(recorded.of_seed(seed), last) for seed in recorded.seeds}
        known = references.by_seed(list(rows.values()))
        mine = references.by_seed(
            [references.trained_values(fresh.of_seed(seed), last) for seed in fresh.seeds]
        )
        got = {name: sum(values) / len(values) for name, values in mine.items() if name in known}
        known = {name: known[name] for name in got}
        numbers = len(known)
        lines.append(
            f"fresh run, step {last:,}: compared with {len(rows)} recorded base seeds, 95 % prediction intervals for "
            f"{numbers} numbers at once"
        )
    elif chapter.profile == load_profile("smoke") and 0 in fresh.seeds:
        known, numbers = references.read().trained, 1
        got = references.trained_values(fresh.of_seed(0))
    else:
        why = f"fewer than {FEWEST_SEEDS} base seeds of profile {chapter.profile.name} are recorded"
        return Report((f"fresh run: not compared; {why}",), True)
    seeds = len(fresh.seeds) if lines else 1
    accepted = {
        name: references.trained_interval(name, values, numbers, seeds) for name, values in known.items()
    }
    found = compared("fresh run", got, accepted)
    return Report((*lines, *found.lines), found.ok)


def credit() -> Report:
    """Weights of attempts in a worked example: four episodes of one hand, by every kind of credit and baseline."""
    from rlheals.training.rl.advantages import weights

    rewards = [[5.0], [-2.0, 5.0], [-1.0, -2.0, -3.0], [-4.0, -1.0]]
    lines = []
    for kind in ("episode", "attempt"):
        for baseline in ("mean", "leave_one_out"):
            made = weights(rewards, 4, 0.9, kind, baseline)
            said = "; ".join(" ".join(f"{value:+.3f}" for value in one) for one in made)
            lines.append(f"{kind}, {baseline.replace('_', ' ')}: {said}")
    return Report(tuple(lines), True)


def recovery(chapter: HasFreshRL) -> Report:
    """Laws that every RL run obeys, whatever the processor: what was compared is said, with the value if outside."""
    log, advantages = chapter.fresh.log, chapter.fresh.advantages
    first = log[log["update"] == log["update"].min()]
    sizes = advantages.groupby(["seed", "control", "start", "run", "update"])["advantage"]
    rl_starts = chapter.profile.rl_starts
    mean = "mean advantage of an update" if rl_starts.rl.algorithm in ("grpo", "rloo") else "advantages"
    kl = "KL to the start before the first step"
    found = {kl: float(first["kl_start"].abs().max())} if rl_starts.rl.log_kl else {}
    found |= {
        mean: float(sizes.mean().abs().max()),
        "shares that are no shares": float(
            sum((~log[name].between(0, 1)).sum() for name in ("solved", "first_try", "zero_variance"))
        ),
        "first tries solved more often than episodes": float((log["first_try"] > log["solved"]).sum()),
        "attempts beyond the limit": float((~log["attempts"].between(1, rl_starts.rl.attempts)).sum()),
        "gradients that are not finite": float((~log["gradient_norm"].between(0, 1e6)).sum()),
    }
    accepted = dict.fromkeys(found, (0.0, 0.0)) | {name: (0.0, 1e-4) for name in (kl, mean) if name in found}
    report = compared("fresh run", found, accepted)
    runs = log.drop_duplicates(["seed", "start", "run"])
    line = f"RL runs: {len(runs)}, updates each: {int(log['update'].max())}, starts: {sorted(set(runs['start']))}"
    return Report((line, *report.lines), report.ok)


def compared(what: str, got: dict[str, float], accepted: dict[str, tuple[float, float]]) -> Report:
    """A line per value: inside what is accepted, or outside with the value."""
    if set(got) != set(accepted):
        odd = sorted(set(got) ^ set(accepted))[0]
        return Report((f"{what}: outside (only one side has {odd!r})",), False)
    lines, ok = [], True
    for name, value in got.items():
        low, high = accepted[name]
        inside = low <= value <= high
        ok = ok and inside
        told = "inside" if inside else f"outside (got {value:.4g}, accepted {low:.4g} to {high:.4g})"
        lines.append(f"{what}, {name}: {told}")
    return Report(tuple(lines), ok)


class HasFreshSpectra(Protocol):
    """A chapter with spectra."""

    @property
    def fresh(self) -> RotationTables: ...


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
    found["Gram against svd, values"] = float((by_gram.s - by_svd.s).abs().max())
    found["Gram against svd, angle of the leading 8"] = float(
        principal_angles(by_gram.v[:, :8], by_svd.v[:, :8]).max()
    )
    accepted = dict.fromkeys(found, (0.0, 1e-9)) | {"angle of a subspace and itself": (0.0, 0.0)}
    return compared("radians", found, accepted)


def rotation(chapter: HasFreshSpectra) -> Report:
    """Laws that every comparison of two checkpoints obeys: what was compared is said, with the value if outside."""
    tables = chapter.fresh
    sizes, path = tables.changes, tables.path[tables.path["step"] == tables.path["step"].min()]
    by_what = sizes.astype({"what": object}).pivot_table(
        index=["seed", "pair", "tensor", "head"], columns="what", values="change_norm", observed=True
    )
    equal = (by_what[["gaussian", "permuted", "turned"]].div(by_what["change"], axis=0) - 1).abs()
    norms = sizes[sizes["what"] == "change"].set_index(["seed", "pair", "tensor", "head"])["change_norm"]
    moved = tables.values.assign(by=(tables.values["after"] - tables.values["before"]).abs())
    furthest = moved.groupby(["seed", "pair", "tensor", "head"], observed=True)["by"].max()
    known = tables.behaviour
    found = {
        "norms of nulls against that of the change": float(equal.max().max()),
        "singular values that moved by more than the change's norm (Weyl)": float(
            (furthest > norms.reindex(furthest.index) * 1.0001 + 1e-6).sum()
        ),
        "angles below 0 or above 90 degrees": float(
            (~tables.angles["mean"].dropna().between(0, 90.001)).sum()
        ),
        "means beyond the largest angle": float(
            (tables.angles["mean"] > tables.angles["largest"] * 1.0001).sum()
        ),
        "shares of energy above 1": float(
            (sizes["stretch_energy"] + sizes["rotation_energy"] > 1.0001).sum()
        ),
        "negative divergences": float((known["kl"] < -1e-6).sum()),
        "divergence of the base from itself": float(known.loc[known["step"] == 0, "kl"].abs().max()),
        "change of the base against itself": float(path["change_norm"].abs().max()),
    }
    accepted = dict.fromkeys(found, (0.0, 0.0)) | {
        "norms of nulls against that of the change": (0.0, 1e-4),
        "divergence of the base from itself": (0.0, 1e-6),
    }
    report = compared("fresh run", found, accepted)
    whole = sizes[sizes["head"] == -1]
    line = f"pairs: {whole['pair'].nunique()}, matrices in each: {whole['tensor'].nunique()}"
    return Report((line, *report.lines), report.ok)


EDITS = (
    "values(all)", "left(all)", "right(all)", "directions(all)", "triples(all)", "directions(top=3)",
    "subspace(top=3)", "random(top=3)", "rollback()", "partial(top=3)", "interpolate(0.5, along=rotation)",
    "noise() like directions(top=3)", "released(top=8)",
)  # fmt: skip


class HasFreshEdits(Protocol):
    """A chapter with edited checkpoints."""

    @property
    def fresh(self) -> SwapTables: ...


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


def swaps(chapter: HasFreshEdits) -> Report:
    """Laws that every edited checkpoint obeys: what was compared is said, with the value if outside."""
    sizes, effects = chapter.fresh.sizes, chapter.fresh.effects
    controls = sizes[sizes["edit"].astype(str).str.startswith("noise() like directions(all)")]
    wanted = sizes[sizes["edit"].astype(str) == "directions(all)"].set_index(["seed", "kind", "where"])[
        "edit_norm"
    ]
    keys = [controls["seed"], controls["kind"], controls["where"]]
    gaps = controls.groupby(keys, observed=True)["edit_norm"].first().div(wanted).dropna() - 1
    triangle = (sizes["left"] - sizes["distance"]).abs() - sizes["edit_norm"] * 1.0001
    found = {
        "size of noise against that of the directions it controls": float(gaps.abs().max()),
        "distances that changed by more than the edit": float((triangle > 1e-6).sum()),
        "negative divergences": float((sizes[["kl_origin", "kl_target"]] < -1e-6).sum().sum()),
        "more first tries than solved": float((effects["first"] > effects["solved"]).sum()),
        "more solved than hands": float((effects["solved"] > effects["hands"]).sum()),
        "edits without a census": float(len(set(sizes["edit"]) - set(effects["edit"]))),
    }
    accepted = dict.fromkeys(found, (0.0, 0.0)) | {
        "size of noise against that of the directions it controls": (0.0, 1e-4)
    }
    report = compared("fresh run", found, accepted)
    return Report((f"edited checkpoints: {len(sizes)}", *report.lines), report.ok)
