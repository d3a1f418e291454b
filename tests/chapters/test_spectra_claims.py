"""Does OOD follow rotation: planted answers are found, and nothing is found where nothing is."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from rlheals.chapters.spectra import claims, predictors
from rlheals.chapters.spectra import measures as measured
from rlheals.chapters.spectra.runs import SFT, SpectraTables
from rlheals.errors import BadInput

SIZES = np.geomspace(0.01, 0.3, 9)
BRANCHES = [f"branch-{number}" for number in range(10)]


def world(ood, seeds: int = 4, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Points of plain SFT and of ten branches that turn more or less at the same size; ood(size, angle, kl)."""
    random = np.random.default_rng(seed)
    rows = []
    for base in range(1, seeds + 1):
        for branch in [SFT, *BRANCHES]:
            turn, spread = (1.0, 1.0) if branch == SFT else random.uniform(0.8, 1.2, 2)
            for step, size in enumerate(SIZES if branch == SFT else random.uniform(0.02, 0.2, 4)):
                angle, kl = 50 * size * turn, 30 * size * spread
                value = ood(size, angle, kl) + noise * random.normal()
                place = {"seed": base, "branch": branch, "start": -1, "step": step}
                rows.append({**place, "size": size, "angle": angle, "kl": kl, "ood": value})
    frame = pd.DataFrame(rows)
    return frame.assign(excess=frame["angle"] - 40 * frame["size"], id=0.9, held_out=0.8)


def correlations(points: pd.DataFrame, predictor: str, given: tuple[str, ...] = ()) -> list[float]:
    groups = measured.matched(points).groupby("seed")
    return [measured.correlation(group, predictor, given) for _, group in groups]


def test_accuracy_that_follows_rotation_is_found_at_equal_size() -> None:
    points = world(lambda size, angle, kl: 0.5 - 0.02 * angle)
    assert correlations(points, "angle") == pytest.approx([-1] * 4, abs=0.02)
    assert min(correlations(points, "angle", ("kl",))) < -0.95


def test_accuracy_that_follows_size_alone_is_not_taken_for_rotation() -> None:
    points = world(lambda size, angle, kl: 0.5 - np.log(size / 0.01) / 10, noise=0.01)
    assert abs(np.mean(correlations(points, "angle"))) < 0.45
    raw = points[points["branch"] == SFT]
    assert raw["angle"].corr(raw["ood"]) < -0.8  # along time it looks like rotation all the same


def test_a_rival_is_told_from_rotation() -> None:
    points = world(lambda size, angle, kl: 0.5 - 0.03 * kl, noise=0.002)
    assert correlations(points, "kl") == pytest.approx([-1] * 4, abs=0.1)
    assert max(map(abs, correlations(points, "angle", ("kl",)))) < 0.8
    found = measured.prediction_errors(points).groupby("scale")["value"].mean()
    assert found["kl"] < 0.3 * min(found["size"], found["angle"])
    assert found["mean"] > found["kl"]


def test_rotation_and_its_rivals_are_listed_with_what_chance_gives() -> None:
    rows = measured.matched(world(lambda size, angle, kl: 0.5 - 0.02 * angle, noise=0.002))
    found = {one.predictor.words: one for one in predictors.associations(rows)}
    assert len(found) == len(predictors.PREDICTORS)
    low, high = found["rotation"].null
    assert max(found["rotation"].values) < low < 0 < high
    assert len(found["rotation"].values) == rows["seed"].nunique()
    assert max(map(abs, found["forward KL, at equal rotation"].values)) < 0.95
    few = predictors.associations(rows.iloc[:2])
    assert all(one.values == () for one in few)
    assert np.isnan([one.null for one in few]).all()


def test_a_trajectory_that_is_plain_sft_again_differs_in_nothing() -> None:
    points = world(lambda size, angle, kl: 0.5 - 0.02 * angle)
    line = points[points["branch"] == SFT]
    table = measured.matched(pd.concat([line, line.assign(branch="again")]))
    assert len(table) == 4
    assert table[["ood", "angle", "excess", "kl", "id"]].abs().to_numpy().max() < 1e-12


def test_matching_does_not_depend_on_the_order_of_points_or_on_units_of_size() -> None:
    points = world(lambda size, angle, kl: 0.5 - 0.02 * angle, noise=0.01)
    for same in (points.sample(frac=1, random_state=1), points.assign(size=7 * points["size"])):
        pd.testing.assert_frame_equal(measured.matched(points), measured.matched(same), rtol=1e-6)


def test_points_beyond_the_reach_of_plain_sft_do_not_count() -> None:
    points = world(lambda size, angle, kl: 0.5 - 0.02 * angle)
    far = points[points["branch"] == BRANCHES[0]].assign(branch="far", size=5.0)
    assert "far" not in set(measured.matched(pd.concat([points, far]))["branch"])
    mixed = pd.concat([points, far.head(1).assign(branch=BRANCHES[1])])
    pd.testing.assert_frame_equal(measured.matched(mixed), measured.matched(points))


def test_a_branch_taught_the_ood_rule_has_no_say_in_the_verdict_and_a_line_of_its_own() -> None:
    points = world(lambda size, angle, kl: 0.5 - 0.02 * angle, seeds=1)
    odd = points[points["branch"] == BRANCHES[0]].assign(branch=measured.TAUGHT_OOD, ood=0.99, angle=60.0)
    both = pd.concat([points, odd])

    class Kept:
        def once(self, make):
            return both

    assert claims.tracks(Kept(), "angle") == pytest.approx(-correlations(points, "angle")[0])
    found = {one.predictor.words: one.values for one in predictors.associations(measured.matched(both))}
    assert found["rotation"] == pytest.approx(tuple(correlations(points, "angle")))
    assert found["rotation, with RL on the OOD rule"] == pytest.approx(tuple(correlations(both, "angle")))


def test_along_one_trajectory_everything_that_grows_correlates(monkeypatch: pytest.MonkeyPatch) -> None:
    line = world(lambda size, angle, kl: 0.5 - np.log(size / 0.01) / 10, seeds=2)
    line = line.assign(step=10 * 2 ** line["step"])
    monkeypatch.setattr(measured, "points", lambda tables: line)
    empty = {field.name: pd.DataFrame() for field in fields(SpectraTables)}
    peaks = pd.DataFrame({"seed": [1, 2], "peak": [20, 40]})
    found = measured.along(SpectraTables(**{**empty, "peaks": peaks})).set_index("seed")
    assert list(found) == list(measured.ALONG)
    assert found[["size", "step"]].to_numpy() == pytest.approx(-1)
    assert found["angle"].max() < -0.8


def test_partial_correlation_is_that_of_the_textbook() -> None:
    random = np.random.default_rng(5)
    x, y, z = random.normal(size=(3, 30))
    x, y = x + z, y - z
    frame = pd.DataFrame({"ood": y, "angle": x, "id": z})
    r = np.corrcoef([x, y, z])
    wanted = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert measured.correlation(frame, "angle", ("id",)) == pytest.approx(wanted)
    assert measured.correlation(frame, "angle") == pytest.approx(r[0, 1])


def test_too_few_or_constant_values_have_no_correlation() -> None:
    frame = pd.DataFrame({"ood": [1.0, 2.0, 3.0, 5.0], "angle": [1.0, 2.0, 4.0, 3.0], "id": 1.0})
    assert np.isfinite(measured.correlation(frame, "angle"))
    assert np.isnan(measured.correlation(frame.head(3), "angle"))
    assert np.isnan(measured.correlation(frame, "angle", ("id",)))
    assert np.isnan(measured.correlation(frame.assign(angle=1.0), "angle"))


def test_permuting_trajectories_gives_the_null_its_level() -> None:
    hits = 0
    for seed in range(60):
        points = world(lambda size, angle, kl: 0.5 - np.log(size / 0.01) / 10, noise=0.02, seed=seed)
        table = measured.matched(points)
        found = np.mean([measured.correlation(group, "angle") for _, group in table.groupby("seed")])
        low, high = np.quantile(measured.permuted(table, "angle", draws=300), [0.025, 0.975])
        assert low < 0 < high
        hits += not low <= found <= high
    assert hits <= 9  # 3 expected of 60; more than 9 has a chance below 1 in 500


# From tables ---------------------------------------------------------------------------------------------------------


def spectra(angles: dict[str, dict[str, float]], changes: dict[str, dict[str, float]]) -> SpectraTables:
    """Tables of one base seed with given angles (degrees) and changes of singular values of q, by pair and what."""
    rows = [
        {"seed": 1, "pair": pair, "what": what, "kind": kind, "head": head, "end": end, "k": 64 // part,
         "rows": 64, "columns": 64, "side": side, "mean": angle if (kind, head, end) == ("q", -1, "top") else 77.0,
         "low": angle, "high": angle}
        for pair, levels in angles.items() for what, angle in levels.items() for part in (16, 8, 4, 2)
        for kind, head, end in (("q", -1, "top"), ("embed", -1, "top"), ("q", 0, "top"), ("q", -1, "bottom"))
        for side in ("left", "right")
    ]  # fmt: skip
    values = [
        {"seed": 1, "pair": pair, "what": what, "kind": kind, "head": -1,
         **{f"value_change_{by}": factor * value if kind == "q" else 9.0
            for by, factor in (("mean", 1), ("median", 0.5), ("energy", 0.8))}}
        for pair, levels in changes.items() for what, value in levels.items() for kind in ("q", "embed")
    ]  # fmt: skip
    empty = {field.name: pd.DataFrame() for field in fields(SpectraTables)}
    return SpectraTables(**{**empty, "angles": pd.DataFrame(rows), "changes": pd.DataFrame(values)})


def test_angles_count_whole_matrices_of_the_blocks_at_their_top_only() -> None:
    tables = spectra({"peak-end": {"change": 12.0, "gaussian": 8.0}}, {})
    for part in (16, 8, 4, 2):
        assert claims.rotation_over_null(tables, "peak-end", part) == pytest.approx(0.5)


def test_values_are_judged_against_the_limit_and_against_the_null() -> None:
    tables = spectra({}, {"peak-end": {"change": 0.03, "gaussian": 0.04}})
    assert claims.values_small(tables, "peak-end", 0.05) == pytest.approx(0.02)
    assert claims.values_below_null(tables, "peak-end") == pytest.approx(0.25)
    for by, factor in (("median", 0.5), ("energy", 0.8)):
        assert claims.values_small(tables, "peak-end", 0.05, by) == pytest.approx(0.05 - 0.03 * factor)
        assert claims.values_below_null(tables, "peak-end", by) == pytest.approx(0.25)
    with pytest.raises(BadInput, match="no column value_change_mode"):
        claims.values_small(tables, "peak-end", 0.05, "mode")


def test_both_ends_are_as_far_from_the_null_as_the_nearer_one() -> None:
    tables = spectra({"peak-end": {"change": 12.0, "gaussian": 8.0}}, {})
    low = tables.angles["end"] == "bottom"
    for kind, angle in (("change", 9.0), ("gaussian", 10.0)):
        tables.angles.loc[low & (tables.angles["what"] == kind), "mean"] = angle
    assert claims.both_ends_over_null(tables, "peak-end", 16) == pytest.approx(-0.1)


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize(("ends", "wanted"), [((4.0, 3.0), 2.0), ((4.0, 0.5), -0.5), ((1.0, 1.0), 0.0)])
def test_the_bulk_is_held_against_the_end_that_moves_less(
    size: int, ends: tuple[float, float], wanted: float
) -> None:
    left, right = (axis.ravel() for axis in np.indices((size, size)))
    quarter = size // 4
    low, high = np.minimum(left, right), np.maximum(left, right)
    energy = np.where(low < quarter, ends[0], np.where(high >= size - quarter, ends[1], 1.0))
    heat = pd.DataFrame({"left": left, "right": right, "energy": energy, "kind": "q", "pair": "peak-end"})
    other = heat.assign(kind="embed", energy=99.0)
    empty = {field.name: pd.DataFrame() for field in fields(SpectraTables)}
    made = SpectraTables(**{**empty, "heat": pd.concat([heat, other]).sample(frac=1, random_state=2)})
    assert claims.ends_over_bulk(made, "peak-end") == pytest.approx(wanted)


def test_rl_that_turns_back_is_told_from_rl_that_does_not() -> None:
    def tables(after: float) -> SpectraTables:
        return spectra(
            {
                "back-160": {"start": 4.0, "change": after, "gaussian": 4.2},
                "back-320": {"start": 8.0, "change": 2 * after, "gaussian": 8.4},
                "on-160": {"start": 4.0, "change": 6.0, "gaussian": 5.0},
                "on-320": {"start": 8.0, "change": 12.0, "gaussian": 10.0},
            },
            {},
        )

    both = [160, 320]
    assert claims.rotates_back(tables(3.0), both) == pytest.approx(0.25)
    assert claims.rotates_back(tables(4.2), both) == pytest.approx(-0.05)
    assert claims.nearer_than_null(tables(4.2), both) == pytest.approx(0)
    assert claims.nearer_than_null(tables(4.0), both) == pytest.approx(0.05)
    assert claims.nearer_than_sft(tables(4.0), both) == pytest.approx(0.5)
    assert np.isnan(claims.rotates_back(tables(4.0), [640]))
