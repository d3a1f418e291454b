"""The finding reads as English in every outcome of the claims that it follows from, and says what they say."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator

import pytest

from rlheals.chapters.healing import finding
from rlheals.chapters.healing.claims import CLAIMS as REGISTERED
from rlheals.chapters.healing.finding import CASES, CLAIMS, IMITATION, NUMBERS, TURNS, VECTORS, paragraph
from rlheals.profiles.healing import ARMS
from rlheals.stats.intervals import Interval
from rlheals.stats.verdicts import verdict
from rlheals.study.claims import Judged

KNOWN = {claim.id: claim for claim in REGISTERED.read().claims}
EFFECTS = [(-0.9, -0.5), (-0.2, 0.01), (0.001, 0.015), (-0.3, 0.6), (0.18, 0.9), (0.4, 1.2)]
"""Intervals that give every verdict at every margin in use."""


def judged(claim: str, low: float, high: float) -> Judged:
    interval, one = Interval((low + high) / 2, low, high), KNOWN[claim]
    return Judged(one, {}, interval, verdict(interval, one.margin, one.partly), 0.01)


def outcomes(claim: str) -> list[Judged | None]:
    """One for each verdict that a claim can get, and no data."""
    found = {one.verdict: one for one in (judged(claim, *ends) for ends in EFFECTS)}
    return [*found.values(), None]


def every(claims: tuple[str, ...]) -> Iterator[dict[str, Judged]]:
    for each in itertools.product(*map(outcomes, claims)):
        yield {claim: one for claim, one in zip(claims, each, strict=True) if one is not None}


GROUPS = (tuple(case.claim for case in CASES), (NUMBERS,), (IMITATION,), (TURNS, VECTORS))


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=\.) (?=[A-Z])", text)


def test_a_claim_can_get_every_verdict_that_its_margin_allows() -> None:
    for claim in CLAIMS:
        partly = KNOWN[claim].partly and KNOWN[claim].margin > 0
        assert len(outcomes(claim)) == (5 if partly else 4), claim


def test_every_outcome_reads_as_english() -> None:
    """All outcomes of a group, whatever the other groups say: no sentence depends on the claims of two groups."""
    other = random.Random(5)
    full = [list(every(group)) for group in GROUPS]
    assert [len(some) for some in full] == [4**6, 4, 4, 4 * 5]
    for place, some in enumerate(full):
        for mine in some:
            rest = {}
            for at, others in enumerate(full):
                if at != place:
                    rest |= other.choice(others)
            english(paragraph({**mine, **rest}), {**mine, **rest})


def english(text: str, known: dict[str, Judged]) -> None:
    said = sentences(text)
    assert len(said) == (5 if known else 1), text
    assert "  " not in text, text
    assert not re.search(
        r" [,.;:]|[,;:]{2}|\.\.|\b(\w+) \1\b|\(\)|None|nan| and [,.;]| or [,.;]|, and\b.*, and\b.*, and", text
    ), text
    assert text.count("(") == text.count(")"), text
    assert text.count("[") == text.count("]") == len(known), "one interval for each claim with data: " + text
    for one in said:
        assert one[0].isupper(), one
        assert one.endswith("."), one
        assert not re.search(r"^(It|They|Its|Them)\b", one) or "regain" in one, one


def test_no_sentence_depends_on_the_claims_of_another_group() -> None:
    """So that all outcomes together are those of the groups."""
    first = [next(every(group)) for group in GROUPS]
    for place, group in enumerate(GROUPS):
        texts = []
        for mine in every(group):
            known = {
                claim: one for at, some in enumerate(first) if at != place for claim, one in some.items()
            }
            texts.append(sentences(paragraph({**known, **mine})))
        own = {0: {0, 1}, 1: {2}, 2: {3}, 3: {4}}[place]
        for at in set(range(5)) - own:
            assert len({text[at] for text in texts}) == 1, (group, at)


@pytest.mark.parametrize("known", list(every(GROUPS[0]))[:: 4**6 // 200])
def test_the_first_sentence_says_of_every_case_what_its_claim_says(known: dict[str, Judged]) -> None:
    assert cases_said(sentences(paragraph(known or {NUMBERS: judged(NUMBERS, 0.4, 1.2)}))[0]) == {
        case.claim: known[case.claim].verdict if case.claim in known else "no data" for case in CASES
    }


def cases_said(sentence: str) -> dict[str, str]:
    """A reader of the sentence: the verdict on every case, from its words alone."""
    if "every case" in sentence or "none of the cases" in sentence:
        return {case.claim: "holds" if "every" in sentence else "not here" for case in CASES}
    said, rest = dict[str, str](), "not here" if "exactly" in sentence else ""
    for part in sentence.rstrip(".").split("; "):
        words = ("no data", "open", "does not", "heals ")
        kind = next((word for word in words if word in part), None)
        if kind is None:
            assert part == "RL is not shown to heal yet"
            continue
        given = {"no data": "no data", "open": "open", "does not": "not here", "heals ": "holds"}[kind]
        listed = part.split(" follow ")[1]
        for rules, *loss in (one.split(" after a loss of ") for one in listed.split(", or ")):
            losses = (
                re.split(", | or ", loss[0]) if loss else [case.loss for case in CASES if case.rules == rules]
            )
            for one in losses:
                (claim,) = [case.claim for case in CASES if (case.rules, case.loss) == (rules, one)]
                assert claim not in said, sentence
                said[claim] = given
    missing = {case.claim for case in CASES} - said.keys()
    assert not missing or rest, sentence
    return said | dict.fromkeys(missing, rest)


def test_the_other_sentences_tell_the_verdicts_apart() -> None:
    for group in GROUPS[1:]:
        texts = {paragraph(known) for known in every(group)}
        assert len(texts) == len(list(every(group)))


def test_cases_are_what_their_claims_are_about() -> None:
    losses = {10: "a tenth", 50: "half", 90: "nine tenths"}
    rules = {"rl": finding.ID, "rl-varied": finding.VARIED, "rl-familiar": finding.FAMILIAR}
    for case in CASES:
        claim = KNOWN[case.claim]
        assert (claim.estimator, claim.margin, claim.partly) == ("regained", 0.25, False)
        assert case.loss == losses[claim.options["state"]]
        assert case.rules == rules[claim.options["arm"]]
        assert claim.options["arm"] in ARMS
    assert {KNOWN[claim].options["state"] for claim in (NUMBERS, IMITATION, TURNS, VECTORS)} == {50}
    asked = KNOWN[NUMBERS].options
    assert (asked["arm"], asked["other"]) == ("rl-varied", "rl-familiar")


def test_numbers_are_those_of_the_claims() -> None:
    known = {claim: judged(claim, 0.4, 1.2) for claim in CLAIMS}
    known["healing-rl-half"] = judged("healing-rl-half", -0.124, 0.218)
    known[IMITATION] = judged(IMITATION, 0.02, 0.10)
    text = paragraph(known)
    assert "5 % [-12, 22] after a loss of half" in text
    assert "does as much as RL (difference: 9 % [5, 13] of the loss)" in text, "0.15 minus the effect"


def test_a_sample_for_reading() -> None:
    """`pytest -s` prints it."""
    chance = random.Random(1)
    for _ in range(12):
        known = {claim: one for claim in CLAIMS if (one := chance.choice(outcomes(claim))) is not None}
        text = paragraph(known)
        english(text, known)
        print(f"\n{text}")
