"""Tables of anybody's: nothing is read before its size, its rows and its text are known to be bearable."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlheals.errors import BadInput
from rlheals.store.files import first_line, regular

MAX_TABLE, MAX_UNPACKED = 50_000_000, 1_000_000_000
"""Bytes of a parquet file, and of what it holds."""
MAX_ROWS, MAX_COLUMNS = 5_000_000, 200
TEXTS = ("string", "large_string", "binary", "large_binary")


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
            texts = [field.name for field in schema if str(field.type) in TEXTS]
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
