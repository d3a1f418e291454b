"""Which edits chapter 04 makes: of which checkpoint, with which, where. Part of a profile.

An entry is `EDIT @ WHERE`, such as `directions(top=20%) @ blocks layers=0`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rlheals.settings import Int, Settings
from rlheals.weights.edit_parser import read_entry


def _spelled(entries: tuple[str, ...]) -> tuple[str, ...]:
    spelled = tuple(" @ ".join(read_entry(entry)) for entry in entries)
    if len(set(spelled)) < len(spelled):
        raise ValueError("an edit is there twice")
    return spelled


Entries = Annotated[tuple[str, ...], AfterValidator(_spelled)]


class SwapGrid(Settings):
    """Edits of a late SFT checkpoint with the peak ("restore"), and of an RL result with that checkpoint ("swap").

    "lend" is the reverse: the checkpoint from which RL started, with RL's result. "other" is a control: the late
    checkpoint with another SFT run's checkpoint, of the same base at the peak's step.

    >>> SwapGrid().late is None
    True
    """

    late: Int | None = Field(None, description="late SFT step that is edited; None: no edits in this profile")
    start: Int | None = Field(None, description="SFT step from which the edited RL run started")
    restore: Entries = Field((), description="edits of the late checkpoint with the peak: EDIT @ WHERE")
    swap: Entries = Field(
        (), description="edits of the model after RL with the late checkpoint: EDIT @ WHERE"
    )
    other: Entries = Field(
        (), description="edits of the late checkpoint with that of another SFT seed at the peak's step"
    )
    lend: Entries = Field(
        (), description="edits of the RL start checkpoint with the model after RL: EDIT @ WHERE"
    )
    reader_restore: Entries = Field((), description="`restore` of a reader's fresh run")
    reader_swap: Entries = Field((), description="`swap` of a reader's fresh run")
    decodes: Int = Field(1, ge=1, description="censuses of every edited model")
