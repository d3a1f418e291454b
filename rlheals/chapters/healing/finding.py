"""The answer to the title: a sentence, a table and a paragraph that follow from the verdicts on a few claims alone.

It says what holds, what does not, what is open and what has no data; every outcome of these claims reads as English,
which a test enumerates. Each sentence depends on the claims of its own group alone, so that it contradicts no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlheals.chapters.healing.runs import HEALED, IMITATED, MIDDLE, HealingTables
from rlheals.display.markup import Block, Table
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
RULES = (ID, FAMILIAR, VARIED)
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
"""The claims that the finding follows from."""

SHOWN = ("{} heals where", "{} does not heal where")
UNTRIED = "no test"

Found = Mapping[str, Judged]
"""By claim; one without data is missing."""
NOTE = (
    "**Heals**: the whole interval of the share of lost OOD pass@4 that is regained lies above a quarter; **does not "
    f"heal**: it ends below; else **open**; **{UNTRIED}**: none was registered (the map in chapter 5 shows these "
    "losses as well). A loss is the share of the peak that SFT has lost before RL starts. With "
    "other rules, half of the questions follow them; none follows the OOD rule. Under it J, Q and K count "
    f"{NEW}, numbers that no answer in SFT contains. Intervals: 95 % over base seeds. Chapter 2 asks the same of RL on "
    "the trained rule, with other start checkpoints and fewer runs, so its numbers differ."
)


def found(outcome: Outcome) -> Found:
    """Of what is judged, the claims of the finding."""
    return {one.claim.id: one for one in outcome.judged if one.claim.id in CLAIMS}


def regained(tables: HealingTables) -> dict[str, float]:
    """Shares of a loss of half, by second stage: RL and imitation on the same questions."""
    from rlheals.chapters.healing.estimates import shares

    found = {arm: shares(tables, arm, MIDDLE)["value"] for arm in (IMITATED, HEALED)}
    return {arm: float(share.iloc[0]) for arm, share in found.items() if len(share)}


def blocks(known: Found, halves: Mapping[str, float] | None = None) -> list[Block]:
    """The finding: its first sentence, what RL regains of every loss, and three sentences on causes.

    halves: shares of a loss of half, see `regained`; they say which side of a difference is the larger one.

    >>> blocks({})
    ['When RL heals is not known yet: nothing that decides it is recorded.']
    """
    if not known:
        return ["When RL heals is not known yet: nothing that decides it is recorded."]
    causes = [_numbers(known), _imitation(known, halves or {}), _weights(known)]
    return [f"**{headline(known)}**", shares(known), " ".join(causes)]


def headline(known: Found) -> str:
    """With which questions RL heals, in sentences. Rules heal that heal one loss or more and are shown to fail at none.

    In brackets, where something is shown: at which losses.
    """
    clauses: list[str] = []
    for said, rules in _rules(known).items():
        if rules:
            whose = "its questions" if not clauses else "they"
            shown = [f"{one}{_at(known, one) if said in SHOWN else ''}" for one in rules]
            clauses.append(
                f"{said.format('RL' if not clauses else 'it')} {whose} follow {_joined(shown, 'or')}"
            )
    return " ".join(f"{clause[0].upper()}{clause[1:]}." for clause in clauses)


def _at(known: Found, rules: str) -> str:
    """The losses at which a verdict shows something for these rules."""
    of = [case for case in CASES if case.rules == rules and case.claim in known]
    decided = [case.loss for case in of if known[case.claim].verdict != "open"]
    return f" (after a loss of {_joined(decided, 'or')})"


def _rules(known: Found) -> dict[str, list[str]]:
    """By what a clause says, the rules of which it says so."""
    some, undecided = "{} heals some losses and not others where", "whether {} heals is open where"
    without = "there are no data on whether {} heals where"
    said: dict[str, list[str]] = {clause: [] for clause in (*SHOWN, some, undecided, without)}
    heals, fails = SHOWN
    for rules in RULES:
        found = {known[case.claim].verdict for case in CASES if case.rules == rules and case.claim in known}
        if {"holds", "not here"} <= found:
            said[some].append(rules)
        elif found & {"holds", "not here"}:
            said[heals if "holds" in found else fails].append(rules)
        else:
            said[undecided if found else without].append(rules)
    return said


def _joined(parts: Sequence[str], last: str = "and") -> str:
    """
    >>> _joined(["a"]), _joined(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    first, tail = ", ".join(parts[:-1]), parts[-1]
    return f"{first} {last} {tail}" if first else tail


def shares(known: Found) -> Table:
    """What RL regains, by the questions of RL and by the loss before it."""
    losses = tuple(dict.fromkeys(case.loss for case in CASES))
    cells = {(case.rules, case.loss): _cell(known.get(case.claim)) for case in CASES}
    rows = [(rules, *(cells.get((rules, loss), UNTRIED) for loss in losses)) for rules in RULES]
    return Table(
        ("share regained by RL whose questions follow", *(f"of a loss of {loss}" for loss in losses)),
        tuple(rows),
    )


def _cell(one: Judged | None) -> str:
    words = {"holds": "**heals**", "not here": "does not heal", "open": "open"}
    return "no data yet" if one is None else f"{per_cent(one.interval)}: {words[one.verdict]}"


def per_cent(one: Interval) -> str:
    """Without decimals, unless an end would become zero: whether an interval holds zero can be seen.

    >>> per_cent(Interval(0.123, -0.02, 0.25)), per_cent(Interval(0.001, -0.004, 0.006))
    ('12 % [-2, 25]', '0.1 % [-0.4, 0.6]')
    """
    decimals = int(any(abs(end) < 0.005 for end in (one.low, one.high)))
    value, low, high = (round(100 * part, decimals or None) for part in (one.estimate, one.low, one.high))
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


def _imitation(known: Found, halves: Mapping[str, float]) -> str:
    """Whether imitation of experts on the same questions does as much as RL."""
    asked = "imitation of experts on the same questions regains as much as RL"
    if IMITATION not in known:
        return f"There are no data yet on whether {asked}."
    one = known[IMITATION]
    share, at = one.claim.options["share"], one.interval
    apart = Interval(share - at.estimate, share - at.high, share - at.low, at.level)
    by = f"they differ by {per_cent(apart)}"
    if len(halves) > 1:
        imitation, rl = (f"{100 * halves[arm]:.0f} %" for arm in (IMITATED, HEALED))
        by += f": imitation regains {imitation}, RL {rl}"
    by = f"({by})"
    within = f"within {round(100 * share)} % of the loss"
    if one.verdict == "open":
        return f"Whether {asked}, {within}, is open {by}."
    if one.verdict == "not here":
        return f"Imitation of experts on the same questions does not regain the same as RL, {within} {by}."
    return f"{asked[0].upper()}{asked[1:]}, {within} {by}."


def _weights(known: Found) -> str:
    """Whether singular vectors turn back and restore, as the paper's explanation says."""
    if TURNS not in known and VECTORS not in known:
        return "There are no data yet on the weights."
    return f"In the weights, {_turns(known)}, and {_vectors(known)}."


def _turns(known: Found) -> str:
    first, than = (
        f"RL with {NEW} in its questions ends",
        "to the peak's singular vectors than RL with familiar numbers",
    )
    if TURNS not in known:
        return f"there are no data yet on whether {first} nearer {than}"
    one, at = known[TURNS], known[TURNS].interval
    by = f"(difference: {at.estimate:.2f} [{at.low:.2f}, {at.high:.2f}] degrees)"
    if one.verdict == "open":
        return f"it is open whether {first} nearer {than} {by}"
    return f"{first} {'no ' if one.verdict == 'not here' else ''}nearer {than} {by}"


def _vectors(known: Found) -> str:
    asked = "its singular vectors, put into the run with familiar numbers, raise accuracy"
    than = "than an equal step toward it does"
    if VECTORS not in known:
        return f"there are no data yet on whether {asked} more {than}"
    one = known[VECTORS]
    by = f"(difference: {per_cent(one.interval)} of OOD hands)"
    if one.verdict == "open":
        return f"it is open whether {asked} more {than} {by}"
    more = {"holds": "more", "holds in part": "a little more", "not here": "no more"}[one.verdict]
    return f"{asked} {more} {than} {by}"
