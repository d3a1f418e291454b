"""Claims of chapter 4: planted effects come out, controls count, nothing is judged before everything is there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlheals.chapters.edits import claims
from rlheals.chapters.edits import measures as measured
from rlheals.chapters.edits.runs import ANCHOR, EditTables
from rlheals.profiles import load_profile
from rlheals.weights.edit_parser import read_entry

FILE = claims.CLAIMS.read()
HANDS = 1000
ANCHORS = {"peak": 0.20, "late": 0.04, "start": 0.15, "rl": 0.16, "other-peak": 0.18}


def tables(
    edits: dict[tuple[str, str, str], tuple[float, float]], seeds: tuple[int, ...] = (1,), decodes: int = 2
) -> EditTables:
    """Edited checkpoints with given accuracies and sizes (in distances), by (kind, edit, where)."""
    rows, sizes = [], []
    for seed in seeds:
        for (kind, edit, where), (accuracy, size) in edits.items():
            spelled = read_entry(f"{edit} @ {where}")
            place = {"seed": seed, "kind": kind, "edit": spelled[0], "where": spelled[1]}
            sizes.append({**place, "target_norm": 10.0, "edit_norm": 2 * size, "distance": 2.0, "left": 1.0,
                          "kl_origin": 1.0, "kl_target": 1.0})  # fmt: skip
            rows += [{**place, "value": accuracy, "decode": decode} for decode in range(decodes)]
        for name, accuracy in ANCHORS.items():
            place = {"seed": seed, "kind": ANCHOR, "edit": name, "where": ""}
            rows += [{**place, "value": accuracy, "decode": decode} for decode in range(decodes)]
    effects = pd.DataFrame(rows)
    solved = (effects["value"] * HANDS).round().astype(int)
    effects = effects.drop(columns="value").assign(split="ood", hands=HANDS, solved=solved, first=0)
    return EditTables(effects, pd.DataFrame(sizes), pd.DataFrame({"seed": list(seeds), "peak": 20}))


def everything(accuracy: float = 0.1) -> dict[tuple[str, str, str], tuple[float, float]]:
    """What the claims need, all with one accuracy."""
    needed = {}
    for claim in FILE.claims:
        kind = claim.options.get("kind", "swap" if claim.estimator == "lost" else "restore")
        for key in ("edit", "control"):
            if key in claim.options:
                needed[kind, claim.options[key], claim.options["where"]] = (accuracy, 1.0)
        if "control_kind" in claim.options:
            needed[claim.options["control_kind"], claim.options["edit"], claim.options["where"]] = (
                accuracy,
                1.0,
            )
    needed["restore", "rollback()", "blocks"] = (accuracy, 1.0)
    return needed


def value(id_: str, made: EditTables) -> float:
    (claim,) = (one for one in FILE.claims if one.id == id_)
    return claims.CLAIMS.estimates(claim, made).get(1, np.nan)


def test_every_edit_that_a_claim_speaks_of_is_in_the_labs_grid() -> None:
    grid = load_profile("lab").swaps
    there = {("restore", *read_entry(entry)) for entry in grid.restore}
    there |= {("swap", *read_entry(entry)) for entry in grid.swap}
    there |= {("other", *read_entry(entry)) for entry in grid.other}
    assert {(kind, *read_entry(f"{edit} @ {where}")) for kind, edit, where in everything()} <= there
    assert set(map(read_entry, grid.reader_restore)) <= set(map(read_entry, grid.restore))
    assert set(map(read_entry, grid.reader_swap)) <= set(map(read_entry, grid.swap))


def test_shares_and_differences_are_those_that_were_planted() -> None:
    made = tables(
        {
            ("restore", "values(all)", "blocks"): (0.05, 0.3),
            ("restore", "values(all) like directions(all)", "blocks"): (0.02, 1.0),
            ("restore", "directions(all)", "blocks"): (0.16, 1.0),
            ("restore", "rollback()", "blocks"): (0.17, 1.0),
            ("restore", "directions(top=20%)", "blocks"): (0.12, 0.5),
            ("restore", "partial(top=20%) like directions(top=20%)", "blocks"): (0.06, 0.5),
            ("restore", "directions(all)", "blocks layers=0"): (0.08, 0.4),
            ("restore", "rollback()", "ends"): (0.09, 0.2),
            ("other", "directions(all)", "blocks"): (0.15, 1.1),
            ("swap", "directions(all)", "blocks"): (0.06, 1.0),
            ("swap", "noise() like directions(all)", "blocks"): (0.14, 1.0),
            ("swap", "rollback()", "blocks"): (0.05, 1.0),
        }
    )
    wanted = {
        "values-do-nothing": 0.01, "values-scaled-do-nothing": 0.0, "directions-restore": 0.75,
        "directions-top-fifth": 0.5, "directions-first-layers": 0.25, "directions-over-partial-rollback": 0.06,
        "directions-per-size": 0.08 / 0.5 - 0.13, "directions-are-a-rollback": 0.006, "ends-restore": 0.05,
        "other-run-restores-too": 0.006,
        "swap-degrades": 0.10, "swap-over-noise": 0.08, "swap-is-a-rollback": 0.002,
    }  # fmt: skip
    assert {claim.id for claim in FILE.claims} == set(wanted)
    for id_, number in wanted.items():
        assert value(id_, made) == pytest.approx(number, abs=1e-9), id_


def test_no_verdict_while_a_seed_a_decode_or_an_edit_is_missing() -> None:
    seeds = FILE.study.seeds
    assert len(claims.CLAIMS.outcome(tables(everything(), seeds)).judged) == len(FILE.claims)
    assert claims.CLAIMS.missing(tables(everything(), seeds[1:]), FILE)[0] == f"base seed {seeds[0]}"
    assert "1 of 2 sampling seeds" in claims.CLAIMS.missing(tables(everything(), seeds, 1), FILE)[0]
    fewer = everything()
    del fewer["swap", "noise() like directions(all)", "blocks"]
    one = claims.CLAIMS.outcome(tables(fewer, seeds))
    assert one.no_data == {"swap-over-noise": f"base seed {seeds[0]}: what it needs is not recorded yet"}
    assert len(one.judged) == len(FILE.claims) - 1


def test_sizes_are_in_distances_of_the_two_checkpoints() -> None:
    rows = measured.effects(tables({("restore", "rollback()", "blocks"): (0.2, 1.3)}))
    assert rows["size"].to_list() == [1.3]
    assert rows["left"].to_list() == [0.5]


@pytest.mark.parametrize(
    ("other", "wanted"), [(0.15, 0.016 - 0.01), (0.17, 0.016 - 0.01), (0.10, 0.016 - 0.06)]
)
def test_alike_means_within_a_share_of_what_lies_between_both_checkpoints(
    other: float, wanted: float
) -> None:
    made = {
        ("restore", "directions(all)", "blocks"): (0.16, 1.0),
        ("restore", "rollback()", "blocks"): (other, 1.0),
        ("other", "directions(all)", "blocks"): (other, 1.0),
    }
    rows = measured.effects(tables(made))
    for options in ({"control": "rollback()"}, {"control_kind": "other"}):
        found = claims.alike(rows, "restore", "directions(all)", "blocks", 0.1, **options)
        assert found == pytest.approx(wanted)
