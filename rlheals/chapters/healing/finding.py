"""The answer to the title: a paragraph that follows from the verdicts on a few registered claims alone.

It says what holds, what does not, what is open and what has no data; every outcome of these claims reads as English,
which a test enumerates. Each sentence depends on the claims of its own group alone, so that it contradicts no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlheals.stats.intervals import Interval
from rlheals.study.claims import Judged, Outcome


@dataclass(frozen=True)
class Case:
    """RL with some questions from a start that has lost some of its OOD ability; claim: that it heals."""

    claim: str
    rules: str
    loss: str


NEW = "11, 12 and 13"
ID, VARIED, FAMILIAR = "the trained rule alone", f"other rules that use {NEW}", f"other rules without {NEW}"
CASES = (
    Case("healing-rl-mild", ID, "a tenth"),
    Case("healing-rl-half", ID, "half"),
    Case("healing-rl-severe", ID, "nine tenths"),
    Case("healing-familiar-half", FAMILIAR, "half"),
    Case("healing-varied-half", VARIED, "half"),
    Case("healing-varied-severe", VARIED, "nine tenths"),
)
NUMBERS, IMITATION = "healing-needs-the-numbers", "healing-imitation-alike"
TURNS, VECTORS = "healing-turns-back", "healing-vectors-restore"
CLAIMS = (*(case.claim for case in CASES), NUMBERS, IMITATION, TURNS, VECTORS)
"""The claims that the paragraph follows from."""

Found = Mapping[str, Judged]
"""By claim; one without data is missing."""
NOTE = (
    "*Heals*: the whole interval of the share of lost OOD pass@4 that is regained lies above a quarter; *does not*: it "
    "ends below; else it is *open*. A loss is the share of the peak that SFT has lost before RL starts. With other "
    f"rules, half of the questions follow them; none follows the OOD rule. It makes J, Q, K {NEW}, which no answer in "
    "SFT contains. Intervals: 95 % over base seeds."
)


def found(outcome: Outcome) -> Found:
    """Of what is judged, the claims of the paragraph."""
    return {one.claim.id: one for one in outcome.judged if one.claim.id in CLAIMS}


def paragraph(known: Found) -> str:
    """The finding, in five sentences; in one where no claim has data.

    >>> paragraph({})
    'When RL heals is not known yet: nothing that decides it is recorded.'
    """
    if not known:
        return "When RL heals is not known yet: nothing that decides it is recorded."
    return " ".join([_when(known), _shares(known), _numbers(known), _imitation(known), _weights(known)])


def _when(known: Found) -> str:
    """In which of the cases RL heals; "exactly" once each of them is decided."""
    verdicts = {case: known[case.claim].verdict if case.claim in known else None for case in CASES}
    healed, not_healed, open_, without = (
        [case for case, verdict in verdicts.items() if verdict == one]
        for one in ("holds", "not here", "open", None)
    )
    if len(healed) == len(CASES):
        return "RL heals in every case tried."
    if len(not_healed) == len(CASES):
        return "RL heals in none of the cases tried."
    undecided = open_ or without
    they, said = "its questions", "RL is not shown to heal yet"
    if healed:
        said = (
            f"RL heals {'at least' if undecided else 'exactly'} when its questions follow {_listed(healed)}"
        )
        they = "they"
    if not undecided:
        return f"{said}."
    parts = [said]
    parts += [f"it does not when {they} follow {_listed(not_healed)}"] if not_healed else []
    parts += [f"it is open whether it does when {they} follow {_listed(open_)}"] if open_ else []
    parts += (
        [f"there are no data on whether it does when {they} follow {_listed(without)}"] if without else []
    )
    return f"{'; '.join(parts)}."


def _listed(cases: Sequence[Case]) -> str:
    """Cases by rules, with the losses of each unless it is all that were tried."""
    named = []
    for rules in dict.fromkeys(case.rules for case in cases):
        losses, tried = ([case.loss for case in some if case.rules == rules] for some in (cases, CASES))
        after = "" if losses == tried else f" after a loss of {_joined(losses, 'or')}"
        named.append(f"{rules}{after}")
    return ", or ".join(named)


def _joined(parts: Sequence[str], last: str = "and") -> str:
    """
    >>> _joined(["a"]), _joined(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    head, tail = ", ".join(parts[:-1]), parts[-1]
    return f"{head} {last} {tail}" if head else tail


def _shares(known: Found) -> str:
    """What RL regains in every case that has data."""
    by: dict[str, list[str]] = {}
    for case in CASES:
        if case.claim in known:
            share = per_cent(known[case.claim].interval)
            by.setdefault(case.rules, []).append(f"{share} after a loss of {case.loss}")
    if not by:
        return "There are no data yet on how much it regains."
    return f"The share regained is, under {'; under '.join(f'{one}, {_joined(all_)}' for one, all_ in by.items())}."


def per_cent(one: Interval) -> str:
    """
    >>> per_cent(Interval(0.123, -0.004, 0.25))
    '12 % [0, 25]'
    """
    value, low, high = (round(100 * part) for part in (one.estimate, one.low, one.high))
    return f"{value} % [{low}, {high}]"


def _numbers(known: Found) -> str:
    """Whether the numbers that the OOD rule adds have to occur in the questions."""
    asked = f"RL regains more of a loss of half with {NEW} in its questions than without them"
    if NUMBERS not in known:
        return f"There are no data yet on whether {asked}."
    one = known[NUMBERS]
    by = f"(difference: {per_cent(one.interval)} of the loss)"
    if one.verdict == "open":
        return f"Whether {asked} is open {by}."
    if one.verdict == "not here":
        return f"RL does not regain much more of a loss of half with {NEW} in its questions than without them {by}."
    return f"{asked} {by}."


def _imitation(known: Found) -> str:
    """Whether imitation of experts on the same questions does as much as RL."""
    asked = "imitation of experts on the same questions does as much as RL"
    if IMITATION not in known:
        return f"There are no data yet on whether {asked}."
    one = known[IMITATION]
    share, at = one.claim.options["share"], one.interval
    apart = Interval(share - at.estimate, share - at.high, share - at.low, at.level)
    by = f"(difference: {per_cent(apart)} of the loss)"
    if one.verdict == "open":
        return f"Whether {asked} is open {by}."
    if one.verdict == "not here":
        return f"Imitation of experts on the same questions does not do the same as RL {by}."
    return f"{asked[0].upper()}{asked[1:]} {by}."


def _weights(known: Found) -> str:
    """Whether singular vectors turn back and restore, as the paper's explanation says."""
    if TURNS not in known and VECTORS not in known:
        return "There are no data yet on the weights."
    return f"In the weights, {_turns(known)}, and {_vectors(known)}."


def _turns(known: Found) -> str:
    first, than = (
        f"RL with {NEW} in its questions ends",
        "to the peak's singular vectors than RL without them",
    )
    if TURNS not in known:
        return f"there are no data yet on whether {first} nearer {than}"
    one, at = known[TURNS], known[TURNS].interval
    by = f"(difference: {at.estimate:.1f} [{at.low:.1f}, {at.high:.1f}] degrees)"
    if one.verdict == "open":
        return f"it is open whether {first} nearer {than} {by}"
    return f"{first} {'no ' if one.verdict == 'not here' else ''}nearer {than} {by}"


def _vectors(known: Found) -> str:
    asked = "its singular vectors, put into the other run, raise accuracy"
    than = "than an equal step toward it does"
    if VECTORS not in known:
        return f"there are no data yet on whether {asked} more {than}"
    one = known[VECTORS]
    by = f"(difference: {per_cent(one.interval)} of OOD hands)"
    if one.verdict == "open":
        return f"it is open whether {asked} more {than} {by}"
    more = {"holds": "more", "holds in part": "a little more", "not here": "no more"}[one.verdict]
    return f"{asked} {more} {than} {by}"
