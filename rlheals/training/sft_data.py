"""Expert answers from a file in place of the task's own: JSON as the reference publishes it.

A list of records {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]}; whatever
else a record has is not read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from rlheals.errors import BadInput

MOST_BYTES = 4 * 2**30


class Pair(NamedTuple):
    """A question and the reply to imitate, as text."""

    question: str
    reply: str


class _Turn(BaseModel):
    speaker: str = Field(alias="from")
    value: str = Field(min_length=1)


class _Record(BaseModel):
    conversations: list[_Turn] = Field(min_length=2, max_length=2)


def read(file: Path, sha256: str | None) -> list[Pair]:
    """The pairs of a file with that hash. Raises BadInput with one line for any other file."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BadInput(f"expert_file {str(file)!r}: over 4 GB")
        data = file.read_bytes()
    except OSError as error:
        raise BadInput(f"expert_file {str(file)!r}: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        wanted = "is needed, so that the run is known by it" if sha256 is None else f"is {sha256[:12]}..."
        raise BadInput(f"expert_file {str(file)!r} has the hash {found}; expert_sha256 {wanted}")
    try:
        records = TypeAdapter(list[_Record]).validate_python(json.loads(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(f"expert_file {file.name!r}: {place}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"expert_file {file.name!r} is not JSON ({str(error).splitlines()[0][:80]})") from None
    for number, record in enumerate(records):
        if (speakers := [turn.speaker for turn in record.conversations]) != ["human", "gpt"]:
            raise BadInput(
                f"expert_file {file.name!r}: record {number} is from {speakers}, not human, then gpt"
            )
    if not records:
        raise BadInput(f"expert_file {file.name!r} has no record")
    return [Pair(*(turn.value for turn in record.conversations)) for record in records]
