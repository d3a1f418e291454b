"""Text of others: YAML, JSON, tables, names, replies and manifests that mean harm; made here, never stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlheals.study.record import manifest_digest

YAML = {
    "aliases that grow": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 1: anchors and aliases are not read"),
    "an alias of nothing": ("a: 1\nb: *nothing", "line 2: anchors and aliases are not read"),
    "merge keys that grow": ("{a: {x: 1}, b: {<<: {y: 2}}}", "line 1: merge keys (<<) are not read"),
    "a key twice": ("seeds: [1]\nname: mine\nseeds: [2]", "line 3: 'seeds' is given twice"),
    "a number twice, in two spellings": ("{16: 1, 0x10: 2}", "'0x10' is given twice"),
    "a key twice, inside": ("sft: {batch: 1, batch: 2}", "'batch' is given twice"),
    "a key that is a list": ("? [1, 2]\n: 3", "a key is a single value"),
    "deep": ("a: " + "[" * 30 + "]" * 30, "nested deeper than 20"),
    "deep without end": ("[" * 90_000, "nested deeper than 20"),
    "blocks without end": ("".join(" " * n + "a:\n" for n in range(400)), "nested deeper than 20"),
    "digits without end": ("a: " + "9" * 5_000, "a number of over 100 digits"),
    "hexadecimal digits": ("a: 0x" + "f" * 5_000, "a number of over 100 digits"),
    "base sixty": ("a: 1" + ":59" * 2_000, "a number of over 100 digits"),
    "large": ("a: " + "x" * 200_000, "has over 100,000 bytes"),
    "python": ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "no such day": ("a: 2001-99-99", "month must be in 1..12"),
    "NUL": ("a: \0", "not YAML that can be read"),
    "a surrogate": ("a: \ud800", "not YAML that can be read"),
    "open": ("a: [", "line 1: "),
}  # fmt: skip
"""Text with words of the reason."""


def parquet(file: Path, cells: object, changed: Callable[[bytes], bytes] = bytes) -> None:
    pq.write_table(pa.table({"a": cells}), file, compression="zstd")
    file.write_bytes(changed(file.read_bytes()))


def long_text_in_every_row(file: Path) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"a": words}), file, store_schema=False)


TEXTS = [str(number) for number in range(1_000)]
TABLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "rows without end": (lambda file: parquet(file, pa.nulls(5_100_000, pa.int8())), "over 5,000,000 rows"),
    "long text in every row": (long_text_in_every_row, "its text has over 1,000,000,000 bytes"),
    "columns without end": (
        lambda file: pq.write_table(pa.table({f"c{n}": [1] for n in range(300)}), file), "over 200 columns"
    ),
    "lists in cells": (lambda file: parquet(file, [[1] * 10]), "column 'a' holds more than single values"),
    "cut off": (lambda file: parquet(file, TEXTS, lambda data: data[:-20]), "cannot be read"),
    "flipped": (lambda file: parquet(file, TEXTS, lambda data: data[:20] + bytes(40) + data[60:]), "cannot be read"),
    "no table": (lambda file: file.write_text("a,b\n1,2\n"), "cannot be read"),
}  # fmt: skip

JSON = {
    "deep": ("[" * 100_000, "cannot be read"),
    "rather deep": ('{"a":' * 100 + "1" + "}" * 100, "nested deeper than 64"),
    "large": (" " * 2_000, "over 1000 bytes"),
    "a list": ("[]", "is no JSON object"),
    "digits without end": (f'{{"a": {"9" * 900}{"9" * 90}}}', ""),
    "cut off": ('{"a": 1', "cannot be read"),
    "no UTF-8": ('{"a": "\xff"}', "cannot be read"),
}  # fmt: skip

RAN = "document.title='r'+'an'"
"""Any script that runs renames the page."""
MARKUP = [
    f"<script>{RAN}</script>",
    f"<img src=x onerror={RAN}>",
    f"<svg onload={RAN}>",
    f"</td></table><script>{RAN}</script>",
    f"x |\n\n<script>{RAN}</script>\n\n| y",
    f"x\r\n\r\n```{{raw}} html\n<script>{RAN}</script>\n```",
    f"[a](javascript:{RAN})",
    f"[a]: javascript:{RAN}",
    f"[a](javascript:{RAN}//.ipynb#a)",
    "[a `b](x.ipynb#c) `",
    "![a](x.png)",
    "{raw}`x`",
    "{{ x }}",
    f"[a]{{onclick={RAN}}}",
    "$\\href{javascript:x}{y}$",
    f"`</code><script>{RAN}</script>",
    f"` <script>{RAN}</script> ``",
    f"\\`<script>{RAN}</script>\\`",
    f"\\<script>{RAN}</script>",
    f"\\\\<script>{RAN}</script>",
    f"a\\|<script>{RAN}</script>",
    "&lt;b&gt; &#60;b&#62;",
    f"*_~~<!--<script>{RAN}//--></script>",
    f"** <iframe srcdoc='<script>{RAN}</script>'>",
    "https://example.org/<b>",
    "<https://example.org>",
    "[^1] [1][2] [a]",
    "_a_ *b* ~~c~~",
]
"""What is shown as it stands, in every table cell and paragraph."""
STEERING = "a\x1b[2J\x9b1m\x07\u202eb\u2028\u200e"
"""Letters that steer a terminal: ESC, a C1 control, the bell, marks of direction, a line separator."""


def manifest(**changes: object) -> dict[str, object]:
    """Of a recorded base seed, as a contributor would send it."""
    whole: dict[str, object] = {
        "profile": {"name": "lab", "decodes": 1},
        "seed": 1,
        "started": "2026-01-01T00:00:00Z",
        "machine": {"kind": "cpu", "model": "a processor", "isa": "avx2", "threads": 1},
        "versions": {"torch": "2.13.0+cpu"},
        "claims": "2" * 64,
        "runs": [RUN],
        "files": {},
    }
    made = whole | changes
    return {"digest": manifest_digest(made)} | made


def recorded(results: Path, **changes: object) -> Path:
    """A folder of recorded studies with that manifest alone."""
    place = results / "lab" / "seed-1"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps(manifest(**changes)))
    return results


RUN = {
    "stage": "sft", "id": "0" * 64, "seed": 1, "code_hash": "1" * 64, "started": "2026-01-01T00:00:00Z", "seconds": 1.0,
}  # fmt: skip
MANIFESTS = {
    "versions": {"torch": MARKUP[0]},
    "machine": {"kind": "cpu", "model": "x" * 300, "isa": "avx2", "threads": 1},
    "runs": [RUN | {"stage": MARKUP[0]}],
    "files": {"a.parquet": MARKUP[0]},
    "started": MARKUP[0],
    "profile": {"name": "lab", "decodes": MARKUP[0]},
    "seed": MARKUP[0],
    "digest": "0" * 64,
    "more": MARKUP[0],
}
"""Fields with values that are refused."""
