"""The package broken on purpose, in a process of its own: what the checks that need no runs say then.

Nothing of the package is imported before it is broken.
"""

from __future__ import annotations

from collections.abc import Sequence


def swapped_rule() -> None:
    """J and K change places under the OOD rule."""
    from rlheals.tasks.general_points import cards

    cards._NAMED["ood"] = (13, 12, 11)
    cards.OOD_RULE = cards.Rule(13, 12, 11)


def dropped_feedback() -> None:
    """A failed attempt is followed by the next opening, without the verifier's words."""
    from rlheals.tasks.general_points.compact import Compact

    Compact.retry = lambda self, attempt, verdict: [*attempt, *self.encode("answer")]


def negated_reward() -> None:
    """What was rewarded is punished."""
    from rlheals.tasks.general_points import verifier

    verifier.REWARDS.update({category: -reward for category, reward in verifier.REWARDS.items()})


def no_baseline() -> None:
    """Every attempt is paid for itself, compared with nothing."""
    from rlheals.training.rl import episodes

    episodes._baseline = lambda values, kind: 0 * values


def shown(mutation: str, cells: Sequence[str]) -> dict[str, str]:
    """What cells of these names show when this is broken."""
    globals()[mutation]()
    from rlheals.chapters import checks

    found = {"exact": checks.exact, "shipped": checks.shipped, "credit": checks.advantages}
    return {cell: repr(found[cell]()) for cell in cells}
