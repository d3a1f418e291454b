"""Files of anybody's: regular ones only, and nothing is read before its size, depth and rows are known to be bearable.

Every reason why not is BadInput with one line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from rlheals.errors import BadInput

MAX_DEPTH = 64
"""Of JSON: objects and lists in one another."""
MAX_TABLE, MAX_UNPACKED = 50_000_000, 1_000_000_000
"""Bytes of a parquet file, and of what it holds."""
MAX_ROWS, MAX_COLUMNS = 5_000_000, 200


def regular(file: Path) -> Path:
    """The file, if it is a regular one of its folder; BadInput for links that are broken or lead out, pipes, devices.

    The links of a hub snapshot lead to the blobs of its own repository, and are taken.
    """
    if file.is_symlink():
        folder = file.parent.resolve()
        try:
            target = file.resolve(strict=True)
        except (OSError, RuntimeError):
            raise BadInput(f"{str(file)!r} is a broken link") from None
        blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
        if not (target.is_relative_to(folder) or target.is_relative_to(blobs)):
            raise BadInput(f"{str(file)!r} is a link out of its folder; put the file itself there")
    if file.exists() and not file.is_file():
        raise BadInput(f"{str(file)!r} is not a regular file")
    return file


def read_json(file: Path, limit: int) -> dict[str, Any]:
    """A JSON object; BadInput unless it is in a regular file of at most `limit` bytes."""
    regular(file)
    try:
        if file.stat().st_size > limit:
            raise BadInput(f"{str(file)!r}: has over {limit} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{str(file)!r}: cannot be read ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise BadInput(f"{str(file)!r}: is no JSON object")
    _refuse_deep(found, file)
    return found


def _refuse_deep(found: Any, file: Path) -> None:
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise BadInput(f"{str(file)!r}: is nested deeper than {MAX_DEPTH}")


def read_table(file: Path) -> pd.DataFrame:
    """A parquet table of plain columns, whose head is believed about how much it is, not about what it is."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    regular(file)
    said = f"{file.name} cannot be read"
    try:
        if file.stat().st_size > MAX_TABLE:
            raise BadInput(f"{said}: it has over {MAX_TABLE} bytes")
        with pq.ParquetFile(file, memory_map=False) as opened:
            head, schema = opened.metadata, opened.schema_arrow
            groups = [head.row_group(at) for at in range(head.num_row_groups)]
            unpacked = sum(group.total_byte_size for group in groups)
            if head.num_rows > MAX_ROWS or sum(group.num_rows for group in groups) > MAX_ROWS:
                raise BadInput(f"{said}: it has over {MAX_ROWS:,} rows")
            if len(schema) > MAX_COLUMNS or unpacked > MAX_UNPACKED:
                raise BadInput(f"{said}: it has over {MAX_COLUMNS} columns or {MAX_UNPACKED:,} bytes")
            if nested := [field.name for field in schema if pa.types.is_nested(field.type)]:
                raise BadInput(f"{said}: column {nested[0]!r:.40} holds more than single values")
            texts = [field.name for field in schema if _is_text(pa, field.type)]
        if texts:  # as stored, each value once: how long would they be in every row?
            stored = pq.read_table(file, columns=texts, read_dictionary=texts)
            for chunk in (chunk for column in stored.columns for chunk in column.chunks):
                longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
                if longest * len(chunk) > MAX_UNPACKED:
                    raise BadInput(f"{said}: its text has over {MAX_UNPACKED:,} bytes")
        return pd.read_parquet(file)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{said} ({first_line(error)})") from None


def _is_text(pa: Any, kind: Any) -> bool:
    return any(
        check(kind)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
