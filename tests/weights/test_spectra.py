"""Two checkpoints measured: what is known of them comes out, and what has nothing in common is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lab_helpers import flip_bit, refused
from safetensors.torch import load_file, save_file
from small_study import SMALL

from rlheals.cli import main as cli
from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE
from rlheals.store.runs import RunSpec
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.plan import plan
from rlheals.weights import figures as spectra_figures
from rlheals.weights import linalg as decompositions
from rlheals.weights import spectra as spectrum
from rlheals.weights import spectra_stage as spectra
from rlheals.weights.checkpoint import Checkpoint
from rlheals.weights.linalg import decompose, principal_angles
from rlheals.weights.nulls import NULLS
from rlheals.weights.spectra import CHANGE, START, Spectra
from rlheals.weights.spectra_stage import SpectraSettings, compare, summary

FEW = SpectraSettings(kinds=("q", "down"), ks=(2, 8), draws=3)
Q = "model.layers.0.self_attn.q_proj.weight"


def changed(folder: Path, change, only: str = "") -> Checkpoint:
    """The shipped base with every matrix changed."""
    state = load_file(SHIPPED_BASE / "model.safetensors")
    made = {name: change(t) if t.ndim == 2 and only in name else t for name, t in state.items()}
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in made.items()}, folder / "model.safetensors")
    return Checkpoint(folder)


def noisy(w: torch.Tensor) -> torch.Tensor:
    random = torch.Generator().manual_seed(w.numel())
    return w + 0.02 * w.norm() / w.numel() ** 0.5 * torch.randn(w.shape, generator=random)


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return Checkpoint(SHIPPED_BASE)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The base with noise in every matrix."""
    return changed(tmp_path_factory.mktemp("spectra") / "noisy", noisy)


def test_a_checkpoint_and_itself_differ_in_nothing(base: Checkpoint, other: Checkpoint) -> None:
    found = compare(base, base, FEW)
    mine = found.matrices[found.matrices["what"] == CHANGE]
    assert (mine[["change_norm", "relative_change", "value_change_mean", "effective_rank"]] == 0).all(
        axis=None
    )
    angles = found.angles[found.angles["what"] == CHANGE]
    assert (angles[["mean", "largest", "projector_distance"]] == 0).all(axis=None)
    assert angles["alignment"].to_numpy() == pytest.approx(1)
    assert (found.values["before"] == found.values["after"]).all()
    quiet = FEW.model_copy(update={"draws": 0})
    found = compare(other, other, quiet, reference=base)
    wanted = compare(base, other, quiet).angles.drop(columns="what").reset_index(drop=True)
    for what in (CHANGE, START):
        mine = found.angles[found.angles["what"] == what].drop(columns="what").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, wanted)


def test_every_matrix_is_measured_as_by_hand(base: Checkpoint, other: Checkpoint) -> None:
    found = compare(base, other, FEW)
    assert found.matrices["tensor"].nunique() == 8
    w, after = base.tensor(Q).double(), other.tensor(Q).double()
    one, two = decompose(w, "svd"), decompose(after, "svd")
    row = found.matrices[(found.matrices["tensor"] == Q) & (found.matrices["what"] == CHANGE)].iloc[0]
    assert row["relative_change"] == pytest.approx(float((after - w).norm() / w.norm()))
    assert row["value_change_max"] == pytest.approx(float(((two.s - one.s) / one.s).abs().max()))
    assert (row["kind"], row["layer"], row["head"], row["rows"], row["columns"]) == ("q", 0, -1, 64, 64)
    angles = found.angles[(found.angles["tensor"] == Q) & (found.angles["what"] == CHANGE)]
    assert len(angles) == 2 * 2 * 2
    for _, at in angles.iterrows():
        k = int(at["k"])
        inside = slice(0, k) if at["end"] == "top" else slice(64 - k, 64)
        wanted = principal_angles(one.side(at["side"])[:, inside], two.side(at["side"])[:, inside])
        assert at["mean"] == pytest.approx(float(wanted.mean()), abs=1e-8)
        assert at["largest"] == pytest.approx(float(wanted.max()), abs=1e-8)
        assert at["gap"] == pytest.approx(float(one.gap(k, at["end"])))
    curve = found.curves[(found.curves["tensor"] == Q) & (found.curves["side"] == "left")]
    assert curve["angle"].to_numpy() == pytest.approx(
        principal_angles(one.u[:, :8], two.u[:, :8]).numpy(), abs=1e-8
    )
    assert (curve["null_low"] <= curve["null"]).all()
    assert (curve["null"] <= curve["null_high"]).all()


def stretched(w: torch.Tensor) -> torch.Tensor:
    """Other values, the same directions."""
    d = decompose(w)
    return ((d.u * (d.s * torch.linspace(1.02, 1.0, len(d.s)))) @ d.v.mT).float()


def turned(w: torch.Tensor) -> torch.Tensor:
    """The same values, the first eight directions on the left mixed with the next eight."""
    d = decompose(w)
    mixed = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    skew = d.u[:, :8] @ mixed @ d.u[:, 8:16].mT
    return (torch.linalg.matrix_exp(0.02 * (skew - skew.mT)) @ w.double()).float()


def test_the_null_tells_noise_from_stretching_and_from_turning(base: Checkpoint, tmp_path: Path) -> None:
    """Rotation less that of Gaussian changes of equal norm, in standard deviations of the null, per matrix."""
    settings = FEW.model_copy(update={"draws": 30, "nulls": ("gaussian",), "ks": (8,)})
    excess, moved = {}, {}
    for change in (noisy, stretched, turned):
        found = compare(base, changed(tmp_path / change.__name__, change), settings)
        angles = found.angles[(found.angles["end"] == "top") & (found.angles["side"] == "left")]
        null = angles[angles["what"] == "gaussian"].groupby("tensor")["mean"].agg(["mean", "std"])
        mine = angles[angles["what"] == CHANGE].set_index("tensor")["mean"]
        excess[change.__name__] = (mine - null["mean"]) / null["std"]
        matrices = found.matrices[found.matrices["what"] == CHANGE]
        moved[change.__name__] = matrices["value_change_max"].max()
        table = summary(found)
        wanted = (table["change"] - table["gaussian"]).to_numpy()
        assert table["excess"].to_numpy() == pytest.approx(wanted)
    assert excess["noisy"].abs().max() < 4
    assert excess["stretched"].max() < -3
    assert excess["turned"].mean() > 4
    assert moved["turned"] < 1e-5 < 0.019 < moved["stretched"] < 0.021


def test_streaming_shards_gives_the_same_tables_and_the_key_the_same_nulls(
    base, tmp_path: Path, other: Checkpoint
) -> None:
    models.load(SHIPPED_BASE).save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    whole = compare(base, other, FEW, key="a")
    streamed = compare(Checkpoint(tmp_path / "sharded"), other, FEW, key="a")
    for table in fields(Spectra):
        pd.testing.assert_frame_equal(getattr(whole, table.name), getattr(streamed, table.name))
    again = compare(base, other, FEW, key="b")
    assert not again.angles["mean"].equals(whole.angles["mean"])
    mine = [one.angles.loc[one.angles["what"] == CHANGE, "mean"] for one in (whole, again)]
    assert mine[0].equals(mine[1])


def test_decompositions_of_a_base_are_kept_and_used_again(
    base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other: Checkpoint,
) -> None:
    bases, settings = decompositions.Bases(tmp_path / "kept"), FEW.model_copy(update={"draws": 0})
    third = changed(tmp_path / "turned", turned)
    wanted = compare(base, third, settings)
    compare(base, other, settings, bases=bases)
    files = sorted((tmp_path / "kept").glob("*.safetensors"))
    assert len(files) == 8
    calls, real = [], decompositions.decompose
    monkeypatch.setattr(spectrum, "decompose", lambda w: calls.append(w.shape) or real(w))
    again = compare(base, third, settings, bases=bases)
    assert len(calls) == 8  # of the second checkpoint only
    for table in fields(Spectra):
        pd.testing.assert_frame_equal(getattr(wanted, table.name), getattr(again, table.name))
    flip_bit(files[0])
    again = compare(base, third, settings, bases=bases)
    assert len(calls) == 16
    assert f"{files[0].name}: is not as it was written" in capsys.readouterr().err
    for table in fields(Spectra):
        pd.testing.assert_frame_equal(getattr(wanted, table.name), getattr(again, table.name))


def test_every_null_has_its_draws_and_little_memory_means_more_batches(
    base, monkeypatch: pytest.MonkeyPatch, other: Checkpoint
) -> None:
    monkeypatch.setattr(spectrum, "BATCH_BYTES", 2 * 64 * 64 * 8)
    found = compare(base, other, FEW)
    counts = found.matrices[found.matrices["tensor"] == Q].groupby("what")["draw"].apply(list).to_dict()
    assert counts == {CHANGE: [0], **{name: [0, 1, 2] for name in NULLS}}
    keys = ["tensor", "what", "draw", "side", "end", "k"]
    assert not found.angles.duplicated(keys).any()
    assert len(found.angles) == 8 * (1 + 3 * len(NULLS)) * 2 * 2 * 2


def test_heads_are_slices_of_rows_or_of_columns_of_the_output(base, other: Checkpoint) -> None:
    settings = SpectraSettings(kinds=("q", "o", "down"), ks=(4,), draws=0, heads=2)
    found = compare(base, other, settings)
    counted = found.matrices.groupby("kind")["head"].nunique().to_dict()
    assert counted == {"q": 3, "o": 3, "down": 1}
    for kind, rows, columns in (("q", 32, 64), ("o", 64, 32)):
        mine = found.matrices[(found.matrices["kind"] == kind) & (found.matrices["head"] == 1)].iloc[0]
        assert (mine["rows"], mine["columns"]) == (rows, columns)
    one, two = (source.tensor(Q).double()[32:] for source in (base, other))
    angle = found.angles[(found.angles["tensor"] == Q) & (found.angles["head"] == 1)]
    angle = angle[(angle["side"] == "right") & (angle["end"] == "top")]["mean"].iloc[0]
    wanted = principal_angles(decompose(one, "svd").v[:, :4], decompose(two, "svd").v[:, :4]).mean()
    assert angle == pytest.approx(float(wanted), abs=1e-8)


def test_ks_at_or_above_the_smaller_side_are_left_out_and_ranks_that_are_not_there_not_measured(
    tmp_path: Path,
) -> None:
    random = torch.Generator().manual_seed(0)
    w = torch.randn(6, 3, generator=random) @ torch.randn(3, 10, generator=random)
    for name, tensor in (("a", w), ("b", w + 0.01 * w.flip(0)), ("zero", torch.zeros(6, 10))):
        save_file({Q: tensor.contiguous()}, tmp_path / f"{name}.safetensors")
    one, two, zero = (Checkpoint(tmp_path / f"{name}.safetensors") for name in ("a", "b", "zero"))
    settings = SpectraSettings(kinds=("q",), ks=(2, 5, 6, 50), draws=0)
    angles = compare(one, two, settings).angles
    assert sorted(angles["k"].unique()) == [2, 5]
    top = angles[angles["end"] == "top"]
    assert np.isfinite(top.loc[top["k"] == 2, "mean"]).all()
    assert top.loc[top["k"] == 5, "mean"].isna().all()
    assert angles.loc[angles["end"] == "bottom", "mean"].isna().all()
    assert compare(zero, zero, settings).angles["mean"].isna().all()


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_tensor_that_a_loader_has_drawn_anew_is_refused_by_name(base, tmp_path: Path) -> None:
    other = changed(tmp_path / "lost", lambda w: 0.02 * torch.randn_like(w), only="layers.2.mlp.down_proj")
    with refused("looks re-initialised", "model.layers.2.mlp.down_proj.weight"):
        compare(base, other, FEW)
    found = compare(base, other, FEW.model_copy(update={"unrelated": True}))
    lost = found.angles[
        found.angles["tensor"].str.contains("layers.2.mlp.down_proj") & (found.angles["k"] == 8)
    ]
    mean = np.rad2deg(lost.groupby("what")["mean"].mean())
    assert mean[CHANGE] == pytest.approx(mean["independent"], abs=6)


def test_it_is_a_stage_that_compares_checkpoints_of_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = plan(SMALL, 1, store)
    settings = SpectraSettings(
        before="step-00003", after="step-00005", ks=(1, 2), draws=2, kinds=("q", "head")
    )
    inputs = dict.fromkeys(("before", "after"), store.key(made.sft))
    spec = RunSpec(stage="spectra", settings=settings.model_dump(mode="json"), inputs=inputs, seed=1)
    *_, run = compute([made.base, made.sft, spec], store, quiet=True)
    found = spectra.read(run.path)
    steps = [Checkpoint(store.load(store.key(made.sft)).path / name) for name in ("step-00003", "step-00005")]
    again = compare(*steps, settings, key="seed 1")
    for table in fields(Spectra):
        pd.testing.assert_frame_equal(getattr(found, table.name), getattr(again, table.name))
    change = found.matrices[found.matrices["what"] == CHANGE]
    assert (change["change_norm"] > 0).all()


# Figures, page, command line ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(base: Checkpoint, other: Checkpoint) -> Spectra:
    return compare(base, other, SpectraSettings(draws=4, ks=(2, 4, 8)))


@pytest.mark.parametrize("figure", spectra_figures.SPECTRA, ids=lambda figure: figure.__name__)
def test_every_figure_shows_the_change_and_its_null(measured: Spectra, figure) -> None:
    drawn = figure(measured)
    assert drawn.svg.startswith(b"<?xml")
    assert figure(measured).svg == drawn.svg
    frame = drawn.frame
    if "what" in frame:
        assert {CHANGE, "gaussian"} <= set(frame["what"])
    elif "null" in frame:
        assert frame["null"].notna().all()
    else:
        assert frame["energy"].mean() == pytest.approx(1, abs=0.05)  # the change here is noise: its own null
    assert set(measured.matrices["kind"]) == set(frame["kind"])


def test_bands_are_of_means_over_matrices() -> None:
    frame = pd.DataFrame(
        [
            {"kind": "q", "what": "gaussian", "draw": draw, "tensor": t, "x": 10.0 * draw + t}
            for draw in range(3)
            for t in (0, 2)
        ]
    )
    row = spectra_figures.over_draws(frame, "x", ["kind"]).iloc[0]
    assert row["value"] == 11
    assert row["low"] == pytest.approx(1.5)
    assert row["high"] == pytest.approx(20.5)


def call(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_one_command_gives_tables_figures_and_a_page_that_needs_nothing_else(
    other: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = call(
        "spectra", SHIPPED_BASE, other.source, "--k", "2,8", "--matrices", "q,down", "--null", "3",
        "--out", out, "--json",
    )  # fmt: skip
    assert code == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["side"], row["k"]) for row in said["angles"]] == [
        (kind, side, k) for kind in ("q", "down") for side in ("left", "right") for k in (2, 8)
    ]
    assert said["angles"][0]["excess"] == pytest.approx(
        said["angles"][0]["change"] - said["angles"][0]["gaussian"], abs=1e-6
    )
    names = {file.name for file in out.iterdir()}
    assert {"index.html", "angles.parquet", "matrices.parquet", "spectra-angles.svg"} <= names
    page = (out / "index.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<img") == len(spectra_figures.SPECTRA)
    angles = pd.read_parquet(out / "angles.parquet")
    assert set(angles["k"]) == {2, 8}
    assert call("spectra", SHIPPED_BASE, other.source, "--out", out) == 2
    assert "out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--k", "8,x"], "--k"),
        (["--k", "8,4"], "rising numbers"),
        (["--matrices", "query"], "--matrices 'query'; accepted, each once:"),
        (["--nulls", "none"], "--nulls"),
        (["--heads", "5"], "says 2 heads for q, not 5"),
        (["--null", "-1"], "--null"),
    ],
)
def test_bad_requests_are_told_on_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert call("spectra", SHIPPED_BASE, SHIPPED_BASE, "--null", "0", *arguments) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out


def test_without_nulls_the_page_says_so(other: Checkpoint, tmp_path: Path) -> None:
    assert call("spectra", SHIPPED_BASE, other.source, "--null", "0", "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "No null model was drawn." in page
    assert "spectra-excess" not in page


# Seen from a third -------------------------------------------------------------------------------------------------


def test_a_change_back_to_the_reference_leaves_no_angle_and_noise_leads_away(
    base: Checkpoint, tmp_path: Path
) -> None:
    away = changed(tmp_path / "away", noisy)
    found = compare(away, base, FEW, reference=base)
    angles = found.angles.groupby(["tensor", "side", "end", "k", "what"])["mean"].mean().unstack("what")
    assert angles[CHANGE].to_numpy() == pytest.approx(0, abs=1e-9)
    assert (angles[START] > 0.001).all()
    top = angles.xs("top", level="end")
    assert top["gaussian"].mean() > 1.1 * top[START].mean()
    sizes = found.matrices.groupby("what")["value_change_mean"].mean()
    assert sizes[CHANGE] == pytest.approx(0, abs=1e-12)
    assert sizes[START] > 0


def test_command_says_what_the_angles_are_measured_from(
    base: Checkpoint, tmp_path: Path, capsys, other: Checkpoint
) -> None:
    asked = f"spectra {other.source} {SHIPPED_BASE} --reference {SHIPPED_BASE} --matrices q --k 4 --null 2"
    assert cli.main([*asked.split(), "--out", str(tmp_path / "page"), "--nulls", "gaussian"]) == 0
    said = capsys.readouterr().out
    assert f"angles to {SHIPPED_BASE}" in said
    assert "start" in said
    page = (tmp_path / "page/index.html").read_text()
    assert f"seen from {SHIPPED_BASE}" in page
    missing = [*asked.replace("--reference " + str(SHIPPED_BASE), "--reference /nowhere").split()]
    assert cli.main(missing) == 2


def test_every_singular_value_has_its_null_if_there_are_nulls(base: Checkpoint, other: Checkpoint) -> None:
    found = compare(base, other, FEW)
    rows = found.values
    assert (rows["null_low"] <= rows["null"]).all()
    assert (rows["null"] <= rows["null_high"]).all()
    inside = rows["after"].between(rows["null_low"] * 0.99, rows["null_high"] * 1.01)
    assert inside.mean() > 0.9  # white noise is its own null
    assert compare(base, base, FEW.model_copy(update={"draws": 0})).values["null"].isna().all()
    found = compare(base, other, FEW.model_copy(update={"draws": 0}))
    assert set(found.matrices["what"]) == {CHANGE}
    assert found.curves["null"].isna().all()
    assert "gaussian" not in summary(found)
