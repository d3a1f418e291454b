"""Measures of k tries: pass@k of first attempts, success@k with feedback, and what feedback adds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from lab_helpers import one_line

from rlheals.chapters.rows import pass_at
from rlheals.chapters.sft.claims import feedback_lacks
from rlheals.chapters.sft.measures import Curves, share
from rlheals.errors import BadInput

SOLVED = {"a": [1, 1, 1, 1], "b": [1, 0, 3, 0], "c": [0, 2, 2, 5], "d": [0, 0, 0, 0]}
EITHER = {**SOLVED, "d": [1, 1, 0, 4]}
"""By hand, the attempt that solved it, under four sampling seeds."""


def episodes(seed: int = 1, decodes: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"seed": seed, "step": 0, "item": hand, "decode": decode, "solved_at": numbers[decode],
             "solved_at_either": EITHER[hand][decode]}
            for hand, numbers in SOLVED.items() for decode in range(decodes)
        ]
    )  # fmt: skip


def value(measure: str, rows: pd.DataFrame) -> float:
    return float(share(rows, measure, ["seed"])["value"].mean())


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_is_the_share_of_choices_of_k_seeds_in_which_one_first_attempt_solves(k: int) -> None:
    for column, known, name in (("solved_at", SOLVED, ""), ("solved_at_either", EITHER, " either")):
        choices = [
            any(hand[i] == 1 for i in chosen)
            for hand in known.values()
            for chosen in combinations(range(4), k)
        ]
        assert pass_at(episodes(), k, ["seed"], column)["value"].item() == pytest.approx(np.mean(choices))
        assert value(f"pass@{k}{name}", episodes()) == pytest.approx(np.mean(choices))


def test_success_counts_attempts_and_feedback_is_the_difference() -> None:
    rows = episodes()
    assert value("success@5", rows) == pytest.approx((4 + 2 + 3) / 16)
    assert value("success@2", rows) == pytest.approx((4 + 1 + 2) / 16)
    assert value("success@2 either", rows) == pytest.approx((4 + 1 + 2 + 2) / 16)
    for k in (1, 2, 3, 4):
        both = value(f"success@{k} either", rows) - value(f"pass@{k} either", rows)
        assert value(f"feedback@{k} either", rows) == pytest.approx(both)
    assert value("feedback@1", rows) == 0


def test_neither_order_nor_names_of_sampling_seeds_matter() -> None:
    rows = pd.concat([episodes(1), episodes(2)])
    mixed = rows.assign(decode=rows["decode"].map({0: 7, 1: 2, 2: 9, 3: 0})).sample(frac=1, random_state=4)
    for measure in ("pass@3", "feedback@2 either", "success@4"):
        pd.testing.assert_frame_equal(share(rows, measure, ["seed"]), share(mixed, measure, ["seed"]))


def test_pass_at_k_is_unbiased_whatever_the_number_of_sampling_seeds() -> None:
    random, chance = np.random.default_rng(1), 0.3
    rows = pd.DataFrame({"item": np.repeat(np.arange(20_000), 5), "seed": 1})
    rows["solved_at"] = rows["solved_at_either"] = (random.random(len(rows)) < chance).astype(int)
    assert value("pass@3", rows) == pytest.approx(1 - (1 - chance) ** 3, abs=0.01)


def test_fewer_sampling_seeds_than_k_give_nothing_and_other_names_are_refused() -> None:
    assert share(episodes(decodes=2), "pass@4").empty
    assert share(episodes(decodes=2), "feedback@4 either").empty
    for name in ("pass@0", "pass@10", "pass@2 target", "within_five", ""):
        with pytest.raises(BadInput) as caught:
            share(episodes(), name)
        assert "success@k" in one_line(caught.value)


def test_sft_that_teaches_single_answers_makes_feedback_worth_less_than_another_try() -> None:
    one = pd.DataFrame(
        [
            {"seed": 1, "step": step, "split": "ood", "item": f"ood/{hand}", "decode": decode,
             "solved_at": at, "solved_at_either": at}
            for step, shift in ((0, 9), (10, 0), (20, 9)) for hand in range(40) for decode in (0, 1)
            for at in [1 if (hand + shift + 2 * decode) % 8 == 0 and not shift else 0]
        ]
    )  # fmt: skip
    assert feedback_lacks(Curves.of(type("T", (), {"episodes": one, "losses": None})()), 2) == pytest.approx(
        2 / 8 - 1 / 8
    )
