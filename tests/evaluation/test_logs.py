"""Logs of three harnesses: the same answers give the same comparison in all; a hostile one gives one line."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import multinomial

from rlheals.cli.main import main
from rlheals.errors import BadInput
from rlheals.evaluation.logs import compare, read
from rlheals.stats.intervals import mcnemar, newcombe, newcombe_paired

ANSWERS = {f"q{number}": bool(number % 3) for number in range(30)}
OTHERS = {f"q{number}": bool(number % 4) for number in range(5, 40)}


def ours(folder: Path, answers: dict[str, bool]) -> Path:
    rows = [{"item": item, "split": "ood", "solved_at": int(right)} for item, right in answers.items()]
    rows += [{"item": f"id-{item}", "split": "id", "solved_at": 2} for item in answers]
    folder.mkdir()
    pd.DataFrame(rows).to_parquet(folder / "episodes.parquet")
    return folder


def lm_eval(folder: Path, answers: dict[str, bool]) -> Path:
    folder.mkdir()
    file = folder / "samples_task_2026.jsonl"
    rows = [
        {
            "doc_id": at,
            "doc_hash": item,
            "filter": name,
            "metrics": ["exact_match"],
            "exact_match": float(right),
        }
        for at, (item, right) in enumerate(answers.items())
        for name, right in (("strict", right), ("loose", True))
    ]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def sample(item: str, right: bool) -> dict[str, Any]:
    return {"id": item, "epoch": 1, "scores": {"match": {"value": "C" if right else "I", "answer": "x"}}}


def inspect_json(folder: Path, answers: dict[str, bool]) -> Path:
    folder.mkdir()
    file = folder / "log.json"
    file.write_text(json.dumps({"version": 2, "samples": [sample(*one) for one in answers.items()]}))
    return file


def inspect_eval(folder: Path, answers: dict[str, bool]) -> Path:
    folder.mkdir()
    file = folder / "log.eval"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "{}")
        for item, right in answers.items():
            archive.writestr(f"samples/{item}_epoch_1.json", json.dumps(sample(item, right)))
    return file


def inspect_zstd(folder: Path, answers: dict[str, bool]) -> Path:
    """As inspect_ai packs its logs: entries in two frames of Zstandard, which zipfile itself does not write."""
    file, codec = inspect_eval(folder, answers), pa.Codec("zstd")
    with zipfile.ZipFile(file) as archive:
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in contents.items():
            half = len(data) // 2
            archive.writestr(
                name, b"".join(codec.compress(part).to_pybytes() for part in (data[:half], data[half:]))
            )
        for entry in archive.infolist():
            entry.compress_type, entry.file_size = 93, len(contents[entry.filename])
    return file


FORMATS: dict[Callable[[Path, dict[str, bool]], Path], dict[str, str]] = {
    ours: {"split": "ood"},
    lm_eval: {"metric": "strict,exact_match"},
    inspect_json: {},
    inspect_eval: {"metric": "match"},
    inspect_zstd: {},
}


@pytest.mark.parametrize("written", FORMATS)
def test_what_was_written_is_what_is_read(written: Callable[..., Path], tmp_path: Path) -> None:
    answers = (
        ANSWERS if written in (ours, lm_eval) else {f"{item} 1": right for item, right in ANSWERS.items()}
    )
    assert read(written(tmp_path / "one", ANSWERS), **FORMATS[written]) == answers


@pytest.mark.parametrize("written", FORMATS)
def test_the_same_answers_give_the_same_comparison(written: Callable[..., Path], tmp_path: Path) -> None:
    one, other = (
        read(written(tmp_path / name, answers), **FORMATS[written])
        for name, answers in (("one", ANSWERS), ("other", OTHERS))
    )
    assert compare(one, other) == compare(ANSWERS, OTHERS)
    back = compare(other, one)
    found = compare(one, other)
    assert (back.alone, back.solved, back.p) == (found.alone[::-1], found.solved[::-1], found.p)
    assert back.difference.low == pytest.approx(-found.difference.high)


def test_the_counts_are_those_of_the_items_in_both() -> None:
    found = compare(ANSWERS, OTHERS)
    common = ANSWERS.keys() & OTHERS.keys()
    assert found.items == len(common) == 25
    assert found.only_here == (5, 10)
    assert found.solved == tuple(sum(log[item] for item in common) for log in (ANSWERS, OTHERS))
    assert found.p == mcnemar(*found.alone)
    with pytest.raises(BadInput, match="no item in common"):
        compare({"a": True}, {"b": True})


def test_paired_intervals_cover_and_are_those_of_independent_shares_without_correlation() -> None:
    n = 12
    cells = [(a, b, c, n - a - b - c) for a, b, c in product(range(n + 1), repeat=3) if a + b + c <= n]
    intervals = [newcombe_paired(*cell) for cell in cells]
    for p in ((0.4, 0.2, 0.1, 0.3), (0.1, 0.3, 0.3, 0.3), (0.7, 0.1, 0.1, 0.1), (0.25, 0.25, 0.25, 0.25)):
        covered = multinomial.pmf(cells, n, p)[[p[1] - p[2] in interval for interval in intervals]].sum()
        assert 0.93 < covered < 0.995, p
    free = newcombe_paired(10, 10, 10, 10)  # both solve as often as chance has it
    apart = newcombe(20, 40, 20, 40)
    assert (free.low, free.high) == pytest.approx((apart.low, apart.high))
    alike = newcombe_paired(40, 5, 5, 50)
    assert alike.high - alike.low < newcombe(45, 100, 45, 100).high - newcombe(45, 100, 45, 100).low


def broken(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


LINE = {"doc_id": 1, "metrics": ["acc"], "acc": 1.0}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "", "no answers"),
        ("a.jsonl", "{", "line 1"),
        ("a.jsonl", "[]", "no JSON object"),
        ("a.jsonl", "\xff".encode("latin1"), "cannot be read"),
        ("a.jsonl", json.dumps({"doc_id": 1}), "not a sample"),
        ("a.jsonl", json.dumps(LINE | {"acc": 0.5}), "neither right nor wrong"),
        ("a.jsonl", json.dumps(LINE | {"acc": [1]}), "neither right nor wrong"),
        ("a.jsonl", json.dumps(LINE | {"metrics": ["acc", "f1"]}), "choose one with --metric"),
        ("a.jsonl", f"{json.dumps(LINE)}\n{json.dumps(LINE)}", "twice"),
        ("a.jsonl", "[" * 100_000, "cannot be read"),
        ("a.json", "{}", "not a log of inspect_ai"),
        ("a.json", json.dumps({"samples": [1]}), "without id or scores"),
        ("a.json", json.dumps({"samples": [{"id": 1, "scores": {"a": 1}}]}), "neither right nor wrong"),
        ("a.json", json.dumps({"samples": [{"id": 1, "scores": {}, "error": {}}]}), "has no score"),
        ("a.json", json.dumps({"samples": [{"id": 1, "scores": {"a": {}, "b": {}}}]}), "scorers are a, b"),
        ("a.eval", b"PK", "cannot be read"),
        ("a.txt", "", "accepted: a folder"),
    ],
)  # fmt: skip
def test_what_is_no_log_is_one_line(
    name: str, text: str | bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = broken(tmp_path, name, text)
    assert main(["compare", str(file), str(file)]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_an_archive_that_is_larger_than_it_says_or_may_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.eval"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(6):
            archive.writestr(f"samples/{number}.json", b" " * 100_000_000)
    with pytest.raises(BadInput, match="have over"):
        read(file)


def test_any_bytes_are_a_log_or_one_line(tmp_path: Path) -> None:
    chance = random.Random(3)
    wholes = [make(tmp_path / make.__name__, ANSWERS).read_bytes() for make in (inspect_eval, inspect_zstd)]
    text = lm_eval(tmp_path / "text", ANSWERS).read_bytes()
    for number in range(300):
        data, name = (wholes[number % 3], "x.eval") if number % 3 < 2 else (text, "x.jsonl")
        cut = bytearray(data[: chance.randrange(len(data))])
        for _ in range(chance.randrange(4)):
            if cut:
                cut[chance.randrange(len(cut))] = chance.randrange(256)
        with suppress(BadInput):  # and nothing else
            read(broken(tmp_path, name, bytes(cut)), "strict,exact_match" if name == "x.jsonl" else None)


def test_the_command_prints_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = ours(tmp_path / "one", ANSWERS), ours(tmp_path / "other", OTHERS)
    assert main(["compare", str(one), str(other), "--split", "ood"]) == 0
    printed = capsys.readouterr().out
    found = compare(ANSWERS, OTHERS)
    assert f"difference: {100 * found.difference.estimate:+.1f} points" in printed
    assert "left out: 5 in the first log only, 10 in the second only" in printed
    assert main(["compare", str(one), str(other), "--split", "ood", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alone"] == list(found.alone)
    assert main(["compare", str(one), str(other), "--split", "odd"]) == 2
    assert main(["compare", str(one), str(other), "--metric", "odd"]) == 2
    assert np.isclose(found.difference.estimate, (found.solved[0] - found.solved[1]) / found.items)
