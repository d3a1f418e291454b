"""Two evaluations item by item, of ours or of other harnesses: who solves what the other does not.

Read are tables of ours (`episodes.parquet`, or a folder with it), samples of lm-evaluation-harness (`samples_*.jsonl`)
and logs of inspect_ai (`.json`, `.eval`). Nothing of a log is run.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlheals.errors import BadInput
from rlheals.stats.intervals import Interval, mcnemar, newcombe_paired
from rlheals.store.files import first_line, read_json, regular
from rlheals.store.foreign import read_table

MAX_BYTES, MAX_SAMPLES = 500_000_000, 1_000_000
ZSTANDARD, LOCAL_HEAD = 93, struct.Struct("<26xHH")
"""Of zip archives: a method of compression, and what stands before an entry: lengths of its name and of a field."""
OURS = {"solved": lambda at: at > 0, "pass@1": lambda at: at == 1}
KEYS = ("item", "seed", "step", "decode")
"""Columns of our tables that together tell one answer from another."""
RIGHT = {"C": True, "I": False, "N": False, 1: True, 0: False}
"""Scores that are right or wrong, true and false among them; N is inspect_ai's "no answer"."""
Answers = dict[str, bool]
"""By item, whether it was solved."""


@dataclass(frozen=True)
class Compared:
    """Of the items in both logs. difference: share of the first minus that of the second; p: McNemar's, exact."""

    items: int
    only_here: tuple[int, int]
    solved: tuple[int, int]
    alone: tuple[int, int]
    difference: Interval
    p: float


def compare(first: Answers, second: Answers) -> Compared:
    """Two logs of the same items. BadInput where they share none."""
    common = sorted(first.keys() & second.keys())
    if not common:
        raise BadInput("the two logs have no item in common, so there is nothing to compare")
    both = sum(first[item] and second[item] for item in common)
    one, other = (sum(each[item] for item in common) for each in (first, second))
    alone = (one - both, other - both)
    return Compared(
        items=len(common),
        only_here=(len(first) - len(common), len(second) - len(common)),
        solved=(one, other),
        alone=alone,
        difference=newcombe_paired(both, *alone, len(common) - both - sum(alone)),
        p=mcnemar(*alone),
    )


def read(log: Path, metric: str | None = None, split: str | None = None) -> Answers:
    """What was solved. metric: of lm-evaluation-harness a metric or "FILTER,METRIC", of inspect_ai a scorer, of our
    tables `solved` or `pass@1`; unless given, the only one there is (of ours `solved`). split: of our tables.

    Raises BadInput with one line for anything that is no such log, has an item twice, or a score that is neither right
    nor wrong.
    """
    if split is not None and not _is_ours(log):
        raise BadInput(f"{log.name}: --split is for tables of rlheals")
    if _is_ours(log):
        pairs = _of_ours(log / "episodes.parquet" if log.is_dir() else log, metric or "solved", split)
    elif log.suffix == ".jsonl":
        pairs = _of_lm_eval(log, metric)
    elif log.suffix in (".json", ".eval"):
        pairs = _of_inspect(log, metric)
    else:
        raise BadInput(
            f"{str(log)!r:.200}; accepted: a folder with episodes.parquet, .parquet, .jsonl "
            "(lm-evaluation-harness), .json and .eval (inspect_ai)"
        )
    found: Answers = {}
    for item, right in pairs:
        if item in found:
            raise BadInput(f"{log.name}: has item {item[:60]!r} twice")
        found[item] = right
    if not found:
        raise BadInput(f"{log.name}: has no answers")
    return found


def _is_ours(log: Path) -> bool:
    return log.suffix == ".parquet" or log.is_dir()


def _of_ours(file: Path, metric: str, split: str | None) -> Iterator[tuple[str, bool]]:
    table = read_table(file)
    if metric not in OURS:
        raise BadInput(f"--metric {metric!r:.40}; accepted: {', '.join(OURS)}")
    if missing := [name for name in ("item", "solved_at") if name not in table]:
        raise BadInput(f"{file.name}: has no column {missing[0]}")
    if split is not None:
        known = [] if "split" not in table else sorted(map(str, table["split"].unique()))
        if split not in known:
            raise BadInput(f"--split {split!r:.40}: {file.name} has {', '.join(known) or 'no splits'}")
        table = table[table["split"] == split]
    keys = [name for name in KEYS if name in table]
    names = table[keys].astype(str).agg(" ".join, axis=1)
    yield from zip(names, OURS[metric](table["solved_at"]).astype(bool), strict=True)


def _of_lm_eval(file: Path, metric: str | None) -> Iterator[tuple[str, bool]]:
    asked = None if metric is None else metric.split(",")
    for number, sample in enumerate(_lines(file), 1):
        where = f"{file.name}, line {number}"
        names = sample.get("metrics")
        if not isinstance(names, list) or not names or "doc_id" not in sample:
            raise BadInput(f"{where}: is not a sample of lm-evaluation-harness (doc_id, metrics)")
        if asked is not None and len(asked) > 1 and sample.get("filter") != asked[0]:
            continue
        name = asked[-1] if asked else names[0]
        if name not in names or (not asked and len(names) > 1):
            raise BadInput(f"{where}: metrics are {', '.join(map(str, names))}; choose one with --metric")
        yield f"{sample.get('doc_hash') or sample['doc_id']}", _right(sample.get(name), where)


def _of_inspect(file: Path, metric: str | None) -> Iterator[tuple[str, bool]]:
    samples = _zipped(file) if file.suffix == ".eval" else read_json(file, MAX_BYTES).get("samples")
    if not isinstance(samples, Iterable):
        raise BadInput(f"{file.name}: is not a log of inspect_ai with samples")
    for sample in samples:
        scores = sample.get("scores") if isinstance(sample, dict) else None
        if not isinstance(scores, dict) or "id" not in sample:
            raise BadInput(f"{file.name}: has a sample without id or scores")
        where = f"{file.name}, sample {str(sample['id'])[:60]!r}"
        if not scores:
            raise BadInput(f"{where}: has no score{', it ended in an error' if sample.get('error') else ''}")
        name = next(iter(scores)) if metric is None else metric
        if name not in scores or (metric is None and len(scores) > 1):
            raise BadInput(f"{where}: scorers are {', '.join(map(str, scores))}; choose one with --metric")
        value = scores[name].get("value") if isinstance(scores[name], dict) else None
        yield f"{sample['id']} {sample.get('epoch', 1)}", _right(value, where)


def _right(value: Any, where: str) -> bool:
    if not isinstance(value, (str, int, float, bool)) or value not in RIGHT:
        raise BadInput(f"{where}: the score {value!r:.40} is neither right nor wrong")
    return RIGHT[value]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file."""
    regular(file)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BadInput(f"{file.name}: has over {MAX_BYTES:,} bytes")
        with file.open(encoding="utf-8") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield _object(line, f"{file.name}, line {number}")
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{file.name}: cannot be read ({first_line(error)})") from None


def _zipped(file: Path) -> Iterator[dict[str, Any]]:
    """The samples of an .eval file: JSON files below samples/ in a zip archive, one after the other."""
    regular(file)
    try:
        with zipfile.ZipFile(file) as archive:
            listed = {
                entry.filename: entry for entry in archive.infolist()
            }  # a later one replaces an earlier one
            entries = [entry for name, entry in listed.items() if name.startswith("samples/")]
            if len(entries) > MAX_SAMPLES or sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise BadInput(f"{file.name}: its samples have over {MAX_BYTES:,} bytes")
            for entry in entries:
                data = _unpacked(file, archive, entry)
                if len(data) > entry.file_size:  # what the head says is not believed
                    raise BadInput(f"{file.name}: {entry.filename[:60]!r} is longer than it says")
                yield _object(data, f"{file.name}, {entry.filename[:60]}")
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise BadInput(f"{file.name}: cannot be read ({first_line(error)})") from None


def _unpacked(file: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry, of which at most one byte more than it says is read. inspect_ai packs with Zstandard, which archives of
    Python know from 3.14 on."""
    if entry.compress_type != ZSTANDARD:
        with archive.open(entry) as opened:
            return opened.read(entry.file_size + 1)
    import pyarrow as pa

    with file.open("rb") as raw:
        raw.seek(entry.header_offset)
        head = raw.read(LOCAL_HEAD.size)
        if len(head) < LOCAL_HEAD.size or head[:4] != b"PK\x03\x04" or entry.flag_bits & 1:
            raise zipfile.BadZipFile(f"{entry.filename[:60]!r} is not where the archive says, or encrypted")
        raw.seek(sum(LOCAL_HEAD.unpack(head)), 1)
        packed = raw.read(entry.compress_size)
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return bytes(stream.read(entry.file_size + 1))


def _object(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: cannot be read ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise BadInput(f"{where}: is no JSON object")
    return found
