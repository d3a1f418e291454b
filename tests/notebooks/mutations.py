"""Start-up file of a kernel: breaks the package on purpose, in the way that RLHEALS_MUTATION names.

The tests copy it into a kernel's IPython profile, so it runs before the notebook imports anything.
"""

import os


def swapped_rule():
    """J and K change places under the OOD rule."""
    from rlheals.tasks.general_points import cards

    cards._NAMED["ood"] = (13, 12, 11)
    cards.OOD_RULE = cards.Rule(13, 12, 11)


def dropped_feedback():
    """A failed attempt is followed by the next opening, without the verifier's words."""
    from rlheals.tasks.general_points.compact import Compact

    Compact.retry = lambda self, attempt, verdict: [*attempt, *self.encode("answer")]


def negated_reward():
    """What was rewarded is punished."""
    from rlheals.tasks.general_points import verifier

    verifier.REWARDS.update({category: -reward for category, reward in verifier.REWARDS.items()})


def no_baseline():
    """Every attempt is paid for itself, compared with nothing."""
    from rlheals.training.rl import advantages

    advantages._baseline = lambda values, kind: 0 * values


if "RLHEALS_MUTATION" in os.environ:
    globals()[os.environ["RLHEALS_MUTATION"]]()
