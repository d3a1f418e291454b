"""The recorded study as a dataset: every recorded row is found again, by the readers that people use."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from lab_helpers import files_of, refused
from transformers import AutoModelForCausalLM

from rlheals.chapters import verdicts
from rlheals.cli.main import main
from rlheals.errors import BadInput
from rlheals.publish import dataset
from rlheals.publish.dataset import CLAIM, CLAIMS, INDEX, OWN, checkpoint, claims, publish, recorded
from rlheals.store.files import StoreError
from rlheals.store.runs import MANIFEST, digest_of
from rlheals.study import record

RESULTS = Path(__file__).parents[2] / "results"


def seal(place: Path) -> None:
    """The manifest for the files that are there now."""
    files = {file.relative_to(place).as_posix(): file for file in place.rglob("*") if file.is_file()}
    hashes = {name: digest_of(file).sha256 for name, file in files.items() if name != MANIFEST}
    changed = record.read_manifest(place).model_copy(update={"files": hashes})
    (place / MANIFEST).write_text(changed.sealed().text())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every study that the repository has, however deep, the first and the last folder, and two more folders: of
    another task, whose episodes have a column of their own, and with a number that is missing."""
    made = tmp_path_factory.mktemp("results")
    studies = dict[str, list[Path]]()
    for manifest in sorted(RESULTS.rglob(f"seed-*/{MANIFEST}")):
        studies.setdefault(manifest.parents[1].name, []).append(manifest.parent)
    for study, places in studies.items():
        for place in (places[0], places[-1]):
            shutil.copytree(place, made / study / place.name, dirs_exist_ok=True)
    source = next(iter(sorted((made / "lab").iterdir())))
    other = made / "lab-town" / source.name
    shutil.copytree(source, other)
    told = json.loads((other / MANIFEST).read_text())
    told["profile"]["name"] = "lab-town"
    told["digest"] = record.manifest_digest(told)
    (other / MANIFEST).write_text(json.dumps(told))
    episodes = pd.read_parquet(other / "episodes.parquet").drop(columns="face").assign(node="turn")
    episodes.to_parquet(other / "episodes.parquet", index=False)
    pd.read_parquet(other / "bases.parquet").assign(base_step=np.nan).to_parquet(
        other / "bases.parquet", index=False
    )
    seal(other)
    shutil.copy(RESULTS / "replays.json", made)
    return made


@pytest.fixture(scope="module")
def written(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "study"
    publish(results, out, out.with_name("models"))
    return out


def table(written: Path, name: str) -> pa.Table:
    return pq.read_table(written / "data" / f"{name}.parquet")


def test_every_recorded_row_is_found_again_with_its_types(results: Path, written: Path) -> None:
    found, places = dict[str, int](), {place.folder: place for place in recorded(results)}
    for file in sorted(results.rglob("*.parquet")):
        place, original = places[file.parent], pq.read_table(file)
        name = next(name for name, path in place.tables.items() if path == file)
        found[name] = found.get(name, 0) + original.num_rows
        if original.num_rows == 0:
            continue
        here = pq.read_table(
            written / "data" / f"{name}.parquet",
            filters=[("profile", "==", place.profile), ("place", "==", place.folder.name)],
        )
        assert here.column_names[:2] == list(OWN)
        for column in here.column_names[2:]:
            kind = here[column].type
            if column not in original.column_names:
                assert here[column].null_count == len(here) == original.num_rows, (name, column)
                continue
            assert here[column].to_pandas().equals(original[column].cast(kind).to_pandas()), (name, column)
            stored = getattr(original[column].type, "value_type", original[column].type)
            same = kind == stored or (pa.types.is_large_string(stored) and kind == pa.string())
            # of a column without a value the type is not known; the base's step is missing in one place
            assert same or pa.types.is_null(stored) or (column, kind) == ("base_step", pa.float64()), (
                name,
                column,
            )
        assert set(original.column_names) <= set(here.column_names)
    there = {file.stem: pq.read_metadata(file).num_rows for file in (written / "data").iterdir()}
    del there[CLAIMS]
    assert there == {name: count for name, count in found.items() if count}


def test_the_readers_that_people_use(written: Path, tmp_path: Path) -> None:
    names = datasets.get_dataset_config_names(str(written))
    assert set(names) == {file.stem for file in (written / "data").iterdir()}
    for name in names:
        loaded = datasets.load_dataset(str(written), name, split="train", cache_dir=str(tmp_path))
        expected = table(written, name)
        assert loaded.num_rows == expected.num_rows
        assert loaded.features.arrow_schema.remove_metadata() == expected.schema.remove_metadata()
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB")
    for name in names:
        ((count,),) = duckdb.sql(f"SELECT count(*) FROM '{written}/data/{name}.parquet'").fetchall()
        assert count == table(written, name).num_rows


def test_card_and_records(results: Path, written: Path) -> None:
    text = (written / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert {one["data_files"] for one in head["configs"]} == {
        f"data/{f.name}" for f in (written / "data").iterdir()
    }
    assert text.rstrip().endswith((RESULTS / "README.md").read_text().rstrip())
    assert "{{" not in text
    assert (written / "records/replays.json").read_bytes() == (RESULTS / "replays.json").read_bytes()
    for place in recorded(results):
        copied = written / "records" / place.folder.parent.name / f"{place.folder.name}.json"
        assert copied.read_bytes() == (place.folder / MANIFEST).read_bytes()


@pytest.mark.slow
def test_claims_have_the_verdicts_of_the_study(
    monkeypatch: pytest.MonkeyPatch, results: Path, written: Path
) -> None:
    found = verdicts.outcomes(RESULTS)
    monkeypatch.setattr(verdicts, "outcomes", lambda results: found)
    rows = {(row["part"], row["id"]): row for row in claims(RESULTS).to_pylist()}
    registered = [(key, claim) for key, one in found.items() for claim in one.claims.claims]
    assert [*rows] == [(key, claim.id) for key, claim in registered]
    for key, one in found.items():
        for judged in one.judged:
            row = rows.pop((key, judged.claim.id))
            assert (row["verdict"], row["holm_p"]) == (judged.verdict, judged.adjusted)
            assert [row[name] for name in ("estimate", "low", "high")] == [
                getattr(judged.interval, name) for name in ("estimate", "low", "high")
            ]
            assert dict(zip(row["seeds"], row["values"], strict=True)) == judged.values
            assert row["sentence"] == judged.claim.sentence
    assert all(row["verdict"] is None and (row["missing"] or row["no_data"]) for row in rows.values())
    assert set(type(registered[0][1]).model_fields) <= set(CLAIM)
    assert table(written, CLAIMS).schema.equals(claims(RESULTS).schema)


def test_models_are_found_by_seed_stage_and_step(results: Path, written: Path) -> None:
    models = written.with_name("models")
    index = json.loads((models / INDEX).read_text())["models"]
    there = [(place, model) for place in recorded(results) for model in sorted(place.folder.glob("*/"))]
    assert len(index) == len(there) > 0
    for one, (place, model) in zip(index, there, strict=True):
        stage = "pretrain" if model.name == "base" else "sft"
        step = model.name.removeprefix("step-") if stage == "sft" else _last_step(place.folder)
        folder = checkpoint(
            models, seed=place.manifest.seed, stage=stage, step=int(step), profile=place.profile
        )
        assert folder == models / one["folder"]
        assert files_of(folder) == files_of(model)
        assert {run.id: run.stage for run in place.manifest.runs}[one["run"]] == stage
    AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(BadInput, match="has 0 models"):
        checkpoint(models, seed=place.manifest.seed, stage="rl")


def _last_step(place: Path) -> int:
    return int(pd.read_parquet(place / "ability.parquet")["step"].max())


def other_seed(place: Path) -> None:
    pd.read_parquet(place / "losses.parquet").assign(seed=77).to_parquet(
        place / "losses.parquet", index=False
    )
    seal(place)


def another_table(place: Path) -> None:
    shutil.copy(place / "losses.parquet", place / "more.parquet")
    seal(place)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda place: (place / "losses.parquet").unlink(), "losses.parquet is missing"),
        (lambda place: (place / "losses.parquet").write_bytes(b"PAR1"), "not as it was recorded"),
        (
            lambda place: (place / "notes.txt").write_text(""),
            "notes.txt is missing or is not as it was recorded",
        ),
        (lambda place: place.parent.rename(place.parents[1] / "lab-unknown"), "not a known study"),
        (lambda place: shutil.rmtree(place.parent), "nothing is recorded"),
        (another_table, "more.parquet is not a table of this study"),
        (other_seed, "holds other base seeds"),
    ],
)
def test_what_is_not_as_recorded_is_refused(results: Path, tmp_path: Path, change: Any, said: str) -> None:
    shutil.copytree(results / "lab-town", tmp_path / "results" / "lab-town")
    change(next((tmp_path / "results" / "lab-town").iterdir()))
    with refused(said):
        publish(tmp_path / "results", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_a_full_disk_leaves_nothing(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*others: Any, **more: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dataset.pq, "ParquetWriter", full)
    with pytest.raises(StoreError, match="disk full"):
        publish(results, tmp_path / "out", tmp_path / "models")
    assert not list(tmp_path.iterdir())


def test_on_the_command_line(results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "results" / "lab-recovery"
    shutil.copytree(results / "lab-recovery", study)
    command = ["publish", "--dataset", "--results", str(study.parent), "--out", str(tmp_path / "out")]
    assert main([*command, "--hub", "ada/study"]) == 0
    told = capfd.readouterr().out
    assert f"hf upload ada/study {tmp_path / 'out'} . --repo-type dataset" in told
    assert "recovery-losses: " in told
    for more, said in (
        ([], "is there already"),
        (["--seed", "1"], "--dataset"),
        (["--check", "x"], "--check"),
        (["--checkpoints", str(tmp_path / "new"), "--out", str(tmp_path / "new")], "of its own"),
        (["--checkpoints", str(tmp_path / "models"), "--out", str(tmp_path / "new")], "recorded with models"),
    ):
        assert main([*command, *more]) == 2
        assert said in capfd.readouterr().err
    assert main(["publish", "--seed", "1", "--out", "x", "--checkpoints", "y"]) == 2
    assert "only with --dataset" in capfd.readouterr().err
