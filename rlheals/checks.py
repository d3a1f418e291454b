"""The checks at the end of a chapter: each returns text that is the same wherever nothing has changed.

`exact` prints counts and verdicts themselves. `shipped` and `trained` compare what floating point decides with the
recorded study or with `rlheals.references`, and print inside or outside. The executed reference notebooks hold these
texts, and nbval compares them. `python -m rlheals.checks`, run in the repository, is the only way by which references
change.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlheals.cards import ID_RULE, OOD_RULE, Hand, Rule, all_hands, census
from rlheals.solver import canonical_solution
from rlheals.tasks import load_task

if TYPE_CHECKING:
    from rlheals.profile import Profile
    from rlheals.recovery import RecoveryTables
    from rlheals.tables import Tables
from rlheals.book.references import main

GRADED_HANDS = 25


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
    """Counts of hands and items, and 200 graded replies with the digest of their verdicts."""
    task = load_task("general_points")
    counts = {name: len(census(name)) for name in ("id", "ood", "both")}
    splits = {name: len(task.items(name)) for name in ("sft", "rl", "held_out")}
    lines = [
        f"hands: {len(all_hands())}; solvable under the ID rule {counts['id']}, with a face card under the OOD rule "
        f"{counts['ood']}, with a face card under both {counts['both']}",
        "splits: " + ", ".join(f"{name.replace('_', '-')} {size}" for name, size in splits.items()),
    ]
    digest = hashlib.sha256()
    for name, rule in (("ID", ID_RULE), ("OOD", OOD_RULE)):
        verdicts = []
        for hand in census("both")[::21][:GRADED_HANDS]:
            for reply in _replies(hand):
                verdict = task.grade(task.item(hand, rule), reply)
                verdicts.append(verdict)
                row = (name, *hand, reply, verdict.category, f"{verdict.reward:+.1f}", verdict.read_as or "")
                digest.update(("\t".join(row) + "\n").encode())
        categories = sorted(Counter(verdict.category for verdict in verdicts).items())
        lines.append(
            f"{len(verdicts)} replies graded under the {name} rule: "
            + ", ".join(f"{category} {count}" for category, count in categories)
            + f"; sum of rewards {sum(verdict.reward for verdict in verdicts):+.0f}"
        )
    return Report((*lines, f"digest of these verdicts: {digest.hexdigest()[:16]}"), True)


def _replies(hand: Hand) -> list[str]:
    """Right under the ID rule, right under the OOD rule, the latter with an operator changed, and cut short."""
    under_id, under_ood = (_solution(hand, rule) for rule in (ID_RULE, OOD_RULE))
    swapped = under_ood.translate(str.maketrans("+-*/", "-+/*"))
    return [f"{under_id}=24", f'{{"formula": "{under_ood}=24"}}', swapped, under_ood[:-1]]


def _solution(hand: Hand, rule: Rule) -> str:
    return canonical_solution(rule.values(hand))


def shipped() -> Report:
    """The weights that ship with the package, decoded greedily, against what they gave before: within 2 hands."""
    from rlheals import references

    known = references.read().shipped
    accepted = {name: references.shipped_interval(name, value) for name, value in known.items()}
    return compared("shipped weights", references.shipped_values(), accepted)


def trained(chapter: HasFreshRuns) -> Report:
    """The last losses and solved hands of a fresh run against where the recorded base seeds expect them.

    Under `smoke` nothing is recorded, and a run from the shipped base (seed 0) is compared with stored ones. Anything
    else is not compared, and the text says so.
    """
    from rlheals import references
    from rlheals.compare import FEWEST_SEEDS
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
    from rlheals.credit import weights

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
    ladder = chapter.profile.ladder
    mean = "mean advantage of an update" if ladder.rl.algorithm in ("grpo", "rloo") else "advantages"
    kl = "KL to the start before the first step"
    found = {kl: float(first["kl_start"].abs().max())} if ladder.rl.log_kl else {}
    found |= {
        mean: float(sizes.mean().abs().max()),
        "shares that are no shares": float(
            sum((~log[name].between(0, 1)).sum() for name in ("solved", "first_try", "zero_variance"))
        ),
        "first tries solved more often than episodes": float((log["first_try"] > log["solved"]).sum()),
        "attempts beyond the limit": float((~log["attempts"].between(1, ladder.rl.attempts)).sum()),
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


if __name__ == "__main__":
    sys.exit(main())
