"""What a Slurm job of a study asks for: dask-jobqueue's own file, checked before anything is started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.store.stages import STAGES

MAX_BYTES = 100_000
MIN_MINUTES = 10  # a worker retires five minutes before its job ends, up to two minutes earlier or later
PASTED = r"^[A-Za-z0-9/._+@=-]+$"
"""What dask-jobqueue pastes into the job's script as it stands: no character that a shell would read otherwise."""

Line = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\r\n]+$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,@-]{1,100}$")]
Memory = Annotated[str, Field(pattern=r"^[1-9]\d{0,5} ?[MGT]i?B$")]


class Job(BaseModel):
    """The keys of dask-jobqueue that a study leaves open; one worker in a job computes one unit at a time.

    ``cores`` are those of the job, whatever the unit makes of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class _Loader(yaml.SafeLoader):
    """YAML without what a file of settings does not need: aliases (a few lines of them fill any memory), keys twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [str(key.value) for key, _ in node.value]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.MarkedYAMLError(problem=f"{twice[0]!r:.40} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


class _File(BaseModel):
    """Hyphens and underscores in keys are the same, as everywhere in Dask's configuration."""

    model_config = ConfigDict(extra="forbid")

    jobqueue: dict[str, dict[str, Any]]

    def section(self, name: str) -> dict[str, Any]:
        return {key.replace("-", "_"): value for key, value in self.jobqueue.get(name, {}).items()}


def read_slurm_file(path: Path) -> dict[str, Job]:
    """The file of `--slurm`: jobs by stage, "slurm" for all others; BadInput names what is wrong in it.

    A section named like a stage says what its jobs ask for instead; the rest is as in the section `slurm`.
    """
    where = f"Slurm file {str(path)!r}"
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise BadInput(f"{where}: has more than {MAX_BYTES:,} bytes")
        data = yaml.load(text.decode("utf-8"), _Loader)
    except OSError as error:
        raise BadInput(f"{where}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{where} is not plain YAML: {' '.join(str(error).split())[:120]}") from None
    found, jobs = validated(_File, data, f"Slurm file {path.name}"), dict[str, Job]()
    for name in ("slurm", *found.jobqueue):
        if name not in ("slurm", *STAGES):
            known = ", ".join(("slurm", *STAGES))
            raise BadInput(f"Slurm file {path.name}: jobqueue.{name:.40} is not known; accepted: {known}")
        given = found.section("slurm") | found.section(name)
        jobs[name] = validated(Job, given, f"Slurm file {path.name}: jobqueue.{name}")
    return jobs
