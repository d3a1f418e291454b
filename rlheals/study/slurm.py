"""What a Slurm job of a study asks for: dask-jobqueue's own file, checked before anything is started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from rlheals.errors import BadInput
from rlheals.settings import Settings, validated
from rlheals.store.stages import STAGES
from rlheals.yaml_file import read_yaml

MIN_MINUTES = 10  # a worker retires five minutes before its job ends, up to two minutes earlier or later
PASTED = r"^[A-Za-z0-9/._+@=-]+$"
"""What dask-jobqueue pastes into the job's script as it stands: no character that a shell would read otherwise."""

Line = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\r\n]+$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,@][A-Za-z0-9_.,@-]{0,99}$")]
Memory = Annotated[str, Field(pattern=r"^[1-9]\d{0,5} ?[MGT]i?B$")]


class Job(Settings):
    """The keys of dask-jobqueue that a study leaves open; one worker in a job computes one unit at a time.

    ``cores`` are those of the job, whatever the unit makes of them.
    """

    name: Word | None = None
    queue: Word | None = None
    account: Word | None = None
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d\d:\d\d$")] = "04:00:00"
    cores: int = Field(default=1, ge=1, le=1024)
    memory: Memory = "8GB"
    interface: Word | None = None
    python: Annotated[str, Field(pattern=PASTED)] | None = None
    local_directory: Annotated[str, Field(pattern=PASTED)] | None = None
    job_extra_directives: tuple[Line, ...] = ()
    job_directives_skip: tuple[Line, ...] = ()
    job_script_prologue: tuple[Line, ...] = ()

    @field_validator("walltime")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if minutes(value) < MIN_MINUTES:
            raise ValueError(
                f"a job of less than {MIN_MINUTES} minutes ends before its worker has computed anything"
            )
        return value


def minutes(walltime: str) -> int:
    """Of Slurm's D-HH:MM:SS.

    >>> minutes("1-12:30:00")
    2190
    """
    days, hours, rest, _ = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", walltime).groups("0")  # type: ignore[union-attr]
    return (int(days) * 24 + int(hours)) * 60 + int(rest)


class _File(Settings):
    jobqueue: dict[str, dict[str, Any]]


def read_slurm_file(path: Path) -> dict[str, Job]:
    """The file of `--slurm`: jobs by stage, "slurm" for all others; BadInput names what is wrong in it.

    A section named like a stage says what its jobs ask for instead; the rest is as in the section `slurm`.
    """
    where, jobs = f"Slurm file {path.name}", dict[str, Job]()
    found = validated(_File, read_yaml(path, f"Slurm file {str(path)!r}"), where).jobqueue
    # hyphens and underscores in keys are the same, as everywhere in Dask's configuration
    given = {at: {key.replace("-", "_"): value for key, value in one.items()} for at, one in found.items()}
    for name in ("slurm", *found):
        if name not in ("slurm", *STAGES):
            known = ", ".join(("slurm", *STAGES))
            raise BadInput(f"{where}: jobqueue.{name:.40} is not known; accepted: {known}")
        asked = given.get("slurm", {}) | given.get(name, {})
        jobs[name] = validated(Job, asked, f"{where}: jobqueue.{name}")
    return jobs
