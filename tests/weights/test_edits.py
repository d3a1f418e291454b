"""Edits obey their laws, whatever the matrices; checkpoints are edited where asked and nowhere else; the stage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_helpers import files_of, one_line, refused
from safetensors.torch import load_file

from rlheals.cli import main as cli
from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.settings import validated
from rlheals.stage import Work
from rlheals.weights import edit_stage as edited
from rlheals.weights.alignment import Pair, matched
from rlheals.weights.checkpoint import Checkpoint, write
from rlheals.weights.edit_parser import parse
from rlheals.weights.edited import apply
from rlheals.weights.edits import (
    EDITS,
    Directions,
    Interpolate,
    Left,
    Noise,
    PartialRollback,
    RandomSubspace,
    Released,
    Right,
    Rollback,
    Subspace,
    Triples,
    Values,
    edit_matrix,
)
from rlheals.weights.linalg import decompose, principal_angles
from rlheals.weights.selection import ALL, GROUPS, Part, Where


def top(amount: float, share: bool = False) -> Part:
    return Part("top", amount, 0, share)


RECORDED = Path(__file__).resolve().parents[2] / "results" / "lab-healing"
SHAPES = st.sampled_from([(8, 8), (6, 10), (10, 6), (5, 12), (1, 4), (3, 1)])
SEEDS = st.integers(0, 10_000)
PARTS = st.one_of(
    st.just(ALL),
    st.builds(top, st.integers(0, 12)),
    st.builds(Part, st.just("bottom"), st.integers(0, 12)),
    st.builds(top, st.one_of(st.sampled_from([10.0, 25.0, 100.0]), st.floats(0, 100)), st.just(True)),
    st.builds(lambda first, more: Part("range", first, first + more), st.integers(1, 6), st.integers(0, 4)),
)


def pair_of(shape: tuple[int, int], seed: int, size: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    b = torch.randn(shape, generator=random, dtype=torch.float64)
    return b, b + size * torch.randn(shape, generator=random, dtype=torch.float64)


def values_of(w: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(w)


# Laws --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SHAPES, SEEDS)
def test_nothing_chosen_changes_nothing(shape: tuple[int, int], seed: int) -> None:
    b, t = pair_of(shape, seed)
    for kind in (Values, Left, Right, Directions, Triples, Subspace, PartialRollback):
        assert torch.equal(edit_matrix(b, t, kind(top(0))), t), kind


@settings(max_examples=60, deadline=None)
@given(SHAPES, SEEDS)
def test_everything_put_back_is_the_base(shape: tuple[int, int], seed: int) -> None:
    b, t = pair_of(shape, seed)
    for edit in (Rollback(), Triples(), Values().then(Directions()).then(Values()), Interpolate(1.0)):
        assert torch.allclose(edit_matrix(b, t, edit), b, atol=1e-11), edit
    assert torch.equal(edit_matrix(b, t, Rollback()), b)


@settings(max_examples=80, deadline=None)
@given(SHAPES, SEEDS, PARTS)
def test_orthogonal_edits_keep_singular_values(shape: tuple[int, int], seed: int, part: Part) -> None:
    b, t = pair_of(shape, seed)
    turns = (Subspace(part), Subspace(part, 0.4), RandomSubspace(part, seed))
    for edit in (Left(), Right(), Directions(), *turns):
        assert torch.allclose(values_of(edit_matrix(b, t, edit)), values_of(t), atol=1e-12 * 10), edit


@settings(max_examples=60, deadline=None)
@given(SHAPES, SEEDS, PARTS)
def test_values_keep_directions_and_take_the_bases_values(
    shape: tuple[int, int], seed: int, part: Part
) -> None:
    b, t = pair_of(shape, seed)
    target, made = decompose(t, "svd"), edit_matrix(b, t, Values(part))
    inside = target.u.mT @ made @ target.v
    assert torch.allclose(inside, torch.diag(torch.diagonal(inside)), atol=1e-10)
    wanted = values_of(b).sort().values if part == ALL else None
    if wanted is not None:
        assert torch.allclose(torch.diagonal(inside).sort().values, wanted, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SEEDS, st.integers(1, 8))
def test_a_subspace_falls_on_the_bases_or_part_of_the_way(shape: tuple[int, int], seed: int, k: int) -> None:
    b, t = pair_of(shape, seed)
    k = min(k, min(shape))
    pair = Pair(b, t)
    for side in ("left", "right"):
        own, other = pair.target.side(side)[:, :k], pair.base.side(side)[:, :k]
        before = principal_angles(own, other)
        for share in (0.0, 0.5, 1.0):
            made = decompose(edit_matrix(b, t, Subspace(top(k), share)), "svd").side(side)
            if k < min(shape) and float(pair.target.s[k - 1] - pair.target.s[k]) < 1e-3:
                return  # no gap: the leading subspace is not defined well enough to be compared
            after = principal_angles(made[:, :k], other)
            assert torch.allclose(after, (1 - share) * before, atol=1e-6), (side, share)


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_the_ends_of_a_way_are_its_ends_and_the_middle_lies_between(
    shape: tuple[int, int], seed: int
) -> None:
    b, t = pair_of(shape, seed, 0.1)
    for along in ("straight", "rotation"):
        assert torch.allclose(edit_matrix(b, t, Interpolate(0.0, along)), t, atol=1e-12)
        assert torch.allclose(edit_matrix(b, t, Interpolate(1.0, along)), b, atol=1e-12)
    half = edit_matrix(b, t, Interpolate(0.5, "straight"))
    assert torch.allclose(half, (b + t) / 2, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SEEDS, PARTS, st.sampled_from(["target", "base", "random"]))
def test_a_partial_rollback_never_leads_away_and_undoes_all_inside(
    shape: tuple[int, int], seed: int, part: Part, of: str
) -> None:
    b, t = pair_of(shape, seed)
    made = edit_matrix(b, t, PartialRollback(part, of, seed))
    assert (b - made).norm() <= (b - t).norm() + 1e-12
    if of == "random":  # the same subspace of every pair: what is undone stays undone
        assert torch.allclose(edit_matrix(b, made, PartialRollback(part, of, seed)), made, atol=1e-10)
        return
    pair = Pair(b, t)
    at, whose = part.indices(pair.rank), pair.target if of == "target" else pair.base
    inside = whose.u[:, at].mT @ (made - b) @ whose.v[:, at]
    assert inside.abs().amax() <= 1e-10 if len(at) else torch.equal(made, t)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SEEDS, PARTS)
def test_a_control_has_the_size_of_what_it_controls(shape: tuple[int, int], seed: int, part: Part) -> None:
    b, t = pair_of(shape, seed)
    wanted = (edit_matrix(b, t, Directions(part)) - t).norm()
    for control in (Noise(seed), Rollback(), Interpolate(0.3), Triples()):
        assert (edit_matrix(b, t, control.like(Directions(part))) - t).norm() == pytest.approx(
            float(wanted), abs=1e-9
        )


def test_random_directions_turn_by_the_same_angles_but_elsewhere() -> None:
    b, t = pair_of((40, 60), 3, 0.05)
    pair, k = Pair(b, t), 4
    own = pair.target.u[:, :k]
    wanted = principal_angles(own, pair.base.u[:, :k])
    made = decompose(edit_matrix(b, t, RandomSubspace(top(k), 7)), "svd").u[:, :k]
    assert torch.allclose(principal_angles(own, made), wanted, atol=1e-8)
    assert principal_angles(made, pair.base.u[:, :k]).mean() > wanted.mean()
    other = decompose(edit_matrix(b, t, RandomSubspace(top(k), 8)), "svd").u[:, :k]
    assert principal_angles(made, other).mean() > 0.5 * wanted.mean()


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS, PARTS)
def test_scaling_both_scales_the_edit_and_transposing_both_transposes_it(
    shape: tuple[int, int], seed: int, part: Part
) -> None:
    b, t = pair_of(shape, seed)
    for edit in (Values(part), Directions(part), Triples(part), Subspace(part), PartialRollback(part)):
        made = edit_matrix(b, t, edit)
        assert torch.allclose(edit_matrix(7 * b, 7 * t, edit), 7 * made, atol=1e-9), edit
        assert torch.allclose(edit_matrix(b.T, t.T, edit), made.T, atol=1e-9), edit
    assert torch.allclose(edit_matrix(b.T, t.T, Left(part)), edit_matrix(b, t, Right(part)).T, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_signs_and_order_of_the_bases_triples_do_not_matter(seed: int) -> None:
    b, t = pair_of((7, 9), seed)
    base, target = decompose(b, "svd"), decompose(t, "svd")
    random = np.random.default_rng(seed)
    order = torch.as_tensor(random.permutation(7))
    signs = torch.as_tensor(random.choice([-1.0, 1.0], 7))
    shuffled = type(base)((base.u * signs)[:, order], base.s[order], (base.v * signs)[:, order])
    one, other = matched(base, target), matched(shuffled, target)
    for side in ("left", "right"):
        assert torch.allclose(one.side(side), other.side(side), atol=1e-12)
    assert torch.allclose(one.s, other.s)
    assert bool(((one.u * target.u).sum(0) + (one.v * target.v).sum(0) >= 0).all())


def test_equal_values_have_no_directions_of_their_own_and_without_a_change_nothing_changes() -> None:
    random = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(6, 6, generator=random, dtype=torch.float64))[0]
    b = torch.eye(6, dtype=torch.float64)  # every direction is a singular one
    t = b + 1e-3 * q
    assert torch.allclose(edit_matrix(b, t, Directions()), t, atol=3e-3)
    base = matched(decompose(b, "svd"), decompose(t, "svd"))
    assert torch.allclose((base.u * base.s) @ base.v.mT, b, atol=1e-12)
    b, _ = pair_of((5, 7), 2)
    controls = (Rollback(), Noise(), Noise().like(Rollback()))
    for edit in (Values(), Directions(), Triples(), Subspace(), *controls):
        assert torch.allclose(edit_matrix(b, b.clone(), edit), b, atol=1e-12), edit
    zero = torch.zeros(4, 4)
    assert torch.allclose(edit_matrix(zero, zero, Directions()), zero)


def test_the_released_edit_is_the_base_at_full_rank_and_ours_is_not() -> None:
    b, t = pair_of((6, 6), 1)
    assert torch.equal(edit_matrix(b, t, Released(4, 2)), b)
    assert torch.equal(edit_matrix(b, t, Released(9)), b)
    ours = edit_matrix(b, t, Directions())
    assert not torch.allclose(ours, b, atol=1e-3)
    assert torch.allclose(values_of(ours), values_of(t), atol=1e-12)
    assert torch.allclose(edit_matrix(b, t, Released(0)), t, atol=1e-12)


def test_types_are_kept_and_odd_input_is_one_line() -> None:
    b, t = (one.to(torch.bfloat16) for one in pair_of((4, 6), 0))
    assert edit_matrix(b, t, Directions()).dtype == torch.bfloat16
    vector = torch.ones(4)
    assert torch.equal(edit_matrix(vector, 2 * vector, Rollback()), vector)
    assert torch.equal(edit_matrix(vector, 3 * vector, Interpolate(0.5)), 2 * vector)
    for wrong in (
        lambda: edit_matrix(vector, vector, Values()),
        lambda: edit_matrix(vector, vector, Rollback().then(Values())),
        lambda: edit_matrix(torch.ones(2, 2), torch.ones(3, 2), Values()),
        lambda: edit_matrix(torch.ones(2, 2), torch.full((2, 2), math.nan), Values()),
        lambda: edit_matrix(torch.eye(2), torch.ones(2, 2), Values(top(0)).like(Rollback())),
    ):
        with refused():
            wrong()


# Text --------------------------------------------------------------------------------------------------------------

ONES = st.one_of(
    st.builds(Values, PARTS), st.builds(Left, PARTS), st.builds(Right, PARTS), st.builds(Directions, PARTS),
    st.builds(Triples, PARTS), st.builds(Subspace, PARTS, st.floats(0, 1)), st.just(Rollback()),
    st.builds(PartialRollback, PARTS, st.sampled_from(["target", "base", "random"]), st.integers(0, 9)),
    st.builds(Interpolate, st.floats(0, 1), st.sampled_from(["straight", "rotation"])),
    st.builds(Noise, st.integers(0, 9)), st.builds(RandomSubspace, PARTS, st.integers(0, 9)),
    st.builds(Released, st.integers(0, 99), st.integers(0, 99)),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(ONES, min_size=1, max_size=3), st.lists(st.booleans(), min_size=2, max_size=2))
def test_what_is_printed_is_read_back(edits: list, likes: list[bool]) -> None:
    made = edits[0].like(edits[-1]) if likes[0] else edits[0]
    for edit in edits[1:]:
        made = made.then(edit)
    assert parse(str(made)) == made


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz()=,%.-0123456789 \n", max_size=60))
def test_any_text_is_an_edit_or_one_line(text: str) -> None:
    for read in (parse, Part.parse, Where.parse):
        try:
            read(text)
        except BadInput as error:
            one_line(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "accepted are values(...)"),
        ("magic()", "accepted are values(...)"),
        ("values(top=120%)", "accepted are all, top=8"),
        ("values(top=-1)", "accepted are all, top=8"),
        ("values(range=5-2)", "range=5-10"),
        ("values(seed=1)", "not one of its arguments"),
        ("values(top=1, bottom=2)", "given twice"),
        ("interpolate(2)", "less than or equal to 1"),
        ("interpolate(nan)", "alpha='nan'"),
        ("interpolate()", "something is missing"),
        ("partial(of=sky)", "'target', 'base' or 'random'"),
        ("rollback(top=3)", "it takes none"),
        ("x" * 2000, "at most 1000"),
        ("__import__(os)", "accepted are values(...)"),
    ],
)
def test_what_cannot_be_read_says_what_can(text: str, said: str) -> None:
    with refused(said):
        parse(text)


def test_every_name_has_an_example_and_what_is_recorded_is_spelled_as_it_prints() -> None:
    rows = pd.concat(pd.read_parquet(file) for file in RECORDED.rglob("sizes.parquet"))
    recorded = {tuple(text.split(": ", 1)[1].split(" @ ")) for text in rows["control"].unique()}
    assert len(recorded) == len(load_profile("lab").healing.edits)
    assert all((str(parse(edit)), str(Where.parse(where))) == (edit, where) for edit, where in recorded)
    for text in [*GROUPS, "blocks layers=0-2", "kinds=q,v layers=1 heads=0,3/4"]:
        made = Where.parse(text)
        assert Where.parse(str(made)) == made
    needed = {"interpolate": "0.5", "random": "top=2", "released": "top=2"}
    b, t = pair_of((6, 5), 0)
    for name in EDITS:
        assert edit_matrix(b, t, parse(f"{name}({needed.get(name, '')})")).shape == (6, 5)


@pytest.mark.parametrize("where", ["x" * 20_000, "layers=" + "0-999," * 2000 + "1"])
def test_a_text_that_is_too_long_is_not_read(where: str) -> None:
    with refused("at most 10000 are read"):
        Where.parse(where)
    most = Where.parse("layers=0-999 heads=0-998/999 blocks")
    assert Where.parse(str(most)) == most


# Where -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    moved = tiny_models.moved_base(tmp_path_factory.mktemp("edits") / "moved", 0.02)
    return Checkpoint(SHIPPED_BASE), Checkpoint(moved)


def touched(checkpoints: tuple[Checkpoint, Checkpoint], where: str) -> set[str]:
    base, target = checkpoints
    made = dict(apply(base, target, Rollback(), Where.parse(where)))
    assert list(made) == list(target.places)
    changed = {name for name, tensor in made.items() if not torch.equal(tensor, target.tensor(name))}
    assert all(torch.equal(made[name], base.tensor(name)) for name in changed)
    return changed


def test_only_what_is_asked_for_is_edited(checkpoints) -> None:
    names = set(checkpoints[0].places)
    assert touched(checkpoints, "everything") == names
    assert touched(checkpoints, "ends") == {"model.embed_tokens.weight", "lm_head.weight"}
    blocks = touched(checkpoints, "blocks")
    assert len(blocks) == 28
    assert touched(checkpoints, "attention") | touched(checkpoints, "mlp") == blocks
    assert blocks - touched(checkpoints, "paper") == {name for name in blocks if "o_proj" in name}
    assert touched(checkpoints, "blocks layers=1,3") == {n for n in blocks if ".1." in n or ".3." in n}
    assert touched(checkpoints, "kinds=norms") == {name for name in names if "norm" in name}
    by_layer = [touched(checkpoints, f"blocks layers={layer}") for layer in range(4)]
    assert set.union(*by_layer) == blocks
    assert sum(map(len, by_layer)) == 28


def test_heads_are_rows_of_q_and_columns_of_o(checkpoints) -> None:
    base, target = checkpoints
    made = dict(apply(base, target, Rollback(), Where.parse("attention heads=1/2 layers=0")))
    q, o = (f"model.layers.0.self_attn.{kind}_proj.weight" for kind in "qo")
    assert torch.equal(made[q][32:], base.tensor(q)[32:])
    assert torch.equal(made[q][:32], target.tensor(q)[:32])
    assert torch.equal(made[o][:, 32:], base.tensor(o)[:, 32:])
    assert torch.equal(made[o][:, :32], target.tensor(o)[:, :32])


def test_edits_of_different_layers_commute(checkpoints, tmp_path: Path) -> None:
    base, target = checkpoints
    steps = [(Directions(top(5)), "layers=0"), (Values().then(Noise(1)), "layers=2-3")]

    def after(order: list) -> dict[str, torch.Tensor]:
        now = target
        for number, (edit, where) in enumerate(order):
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}-{number}"
            folder.mkdir()
            write(apply(base, now, edit, Where.parse(where)), folder)
            now = Checkpoint(folder)
        return {name: now.tensor(name) for name in now.places}

    one, other = after(steps), after(steps[::-1])
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "where",
    [
        "kinds=z",
        "layers=9",
        "layers=a",
        "heads=2/2",
        "heads=0/3 kinds=q",
        "kinds=up heads=0/2",
        "walls",
        "layers=",
    ],
)
def test_a_place_that_is_not_there_is_one_line(checkpoints, where: str) -> None:
    with refused():
        list(apply(*checkpoints, Rollback(), Where.parse(where)))


# Files -------------------------------------------------------------------------------------------------------------


def test_shards_hold_what_one_file_holds(checkpoints, tmp_path: Path) -> None:
    base, _ = checkpoints
    stream = [(name, base.tensor(name)) for name in base.places]
    for folder, size in (("one", 10**9), ("many", 50_000), ("each", 1)):
        (tmp_path / folder).mkdir()
        files = write(iter(stream), tmp_path / folder, size)
        made = Checkpoint(tmp_path / folder)
        assert all(torch.equal(made.tensor(name), tensor) for name, tensor in stream)
        assert {file.name for file in (tmp_path / folder).iterdir()} == set(files)
    assert len(list((tmp_path / "each").glob("*.safetensors"))) == len(stream)


def test_command_writes_a_model_that_loads_and_says_what_changed(checkpoints, tmp_path: Path, capsys) -> None:
    base, target = checkpoints
    out = tmp_path / "edited"
    asked = ["edit", base.source, target.source, "--where", "blocks layers=0-1", "--out", str(out)]
    assert cli.main([*asked, "--edit", "triples(all)", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["tensors"]) == 14
    for row in said["tensors"]:
        assert row["distance_after"] < 1e-5 < row["distance_before"]
        assert row["change"] == pytest.approx(row["distance_before"], rel=1e-3)
        assert row["angle_after"] < 0.1 < row["angle_before"]
    assert (said["edit"], said["where"]) == ("triples(all)", "kinds=q,k,v,o,gate,up,down layers=0,1")
    assert models.load(out).config.num_hidden_layers == 4
    models.load_tokenizer(out)
    assert cli.main([*asked, "--edit", "values()"]) == 2  # the folder is used
    assert "is there already" in capsys.readouterr().err


def test_a_failed_edit_leaves_nothing(checkpoints, tmp_path: Path, capsys) -> None:
    base, target = checkpoints
    out = tmp_path / "edited"
    asked = ["edit", base.source, target.source, "--out", str(out), "--edit"]
    assert cli.main([*asked, "values(all)", "--where", "everything"]) == 2
    assert "needs matrices" in capsys.readouterr().err
    assert cli.main([*asked, "conjure()"]) == 2
    assert cli.main(["edit", "/nowhere", target.source, "--out", str(out), "--edit", "rollback()"]) == 2
    assert list(tmp_path.iterdir()) == []


# The stage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the base and with a noisy version of it."""
    root = tmp_path_factory.mktemp("runs")
    for name, size in (("base", 0.0), ("moved", 0.01)):
        tiny_models.moved_base(root / name, size)
    return root


def done(runs: Path, out: Path, edit: str, where: str = "everything") -> dict[str, float]:
    out.mkdir()
    settings = {
        "base": "base",
        "target": "moved",
        "origin": "base",
        "edit": edit,
        "where": where,
        "questions": 12,
    }
    inputs = dict.fromkeys(("base", "target", "origin"), runs)
    edited.run(Work(out, out, settings, 3, inputs))
    return json.loads((out / "sizes.json").read_text())


def test_a_rollback_is_the_base_an_edit_of_nothing_the_target_and_the_sizes_say_so(
    runs: Path, tmp_path: Path
) -> None:
    sizes = done(runs, tmp_path / "out", "rollback()")
    made = load_file(tmp_path / "out/model/model.safetensors")
    assert all(
        torch.equal(made[name], tensor) for name, tensor in load_file(runs / "base/model.safetensors").items()
    )
    assert sizes["left"] == 0
    assert sizes["edit_norm"] == pytest.approx(sizes["distance"])
    assert sizes["kl_origin"] == 0
    assert sizes["kl_target"] > 0
    models.load(tmp_path / "out/model")
    sizes = done(runs, tmp_path / "still", "directions(top=0)", "blocks")
    assert sizes["edit_norm"] == 0
    assert sizes["left"] == pytest.approx(sizes["distance"])
    assert sizes["kl_target"] == 0
    assert sizes["kl_origin"] > 0


def test_the_same_edit_has_one_spelling_and_gives_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        done(runs, tmp_path / name, "noise(seed=2) like values(all)", "attention layers=0-1")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    one = edited.EditedSettings(base="a", target="b", edit="values( top=8 )", where="layers=0-1")
    other = edited.EditedSettings(base="a", target="b", edit="values(top=8)", where="blocks layers=0,1")
    assert one == other


@pytest.mark.parametrize(("field", "value"), [("edit", "conjure()"), ("where", "walls"), ("questions", 0)])
def test_settings_are_read_before_anything_is_computed(field: str, value: object) -> None:
    settings = {"base": "a", "target": "b", "edit": "rollback()", field: value}
    with pytest.raises(BadInput, match=field):
        validated(edited.EditedSettings, settings, "edited")
