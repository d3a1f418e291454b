"""What a Slurm job of a study asks for: a YAML file, checked before anything is started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlheals.errors import BadInput
from rlheals.settings import validated
from rlheals.store.stages import STAGES

MAX_BYTES = 100_000

Line = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\r\n]+$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,@-]{1,100}$")]


class Job(BaseModel):
    """One job: a node's share with one worker, which computes one unit at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: Word | None = None
    account: Word | None = None
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d\d:\d\d$")] = "04:00:00"
    cores: int = Field(default=1, ge=1, le=1024)
    memory: Annotated[str, Field(pattern=r"^\d{1,6} ?[MGT]i?B$")] = "8GB"
    gpus: int = Field(default=0, ge=0, le=64)
    directives: tuple[Line, ...] = ()
    prologue: tuple[Line, ...] = ()

    @property
    def minutes(self) -> int:
        """Of walltime."""
        days, hours, minutes, _ = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", self.walltime).groups("0")  # type: ignore[union-attr]
        return (int(days) * 24 + int(hours)) * 60 + int(minutes)


class SlurmFile(Job):
    """Jobs of a study. jobs: at once, at most; stages: what a stage needs instead of the rest."""

    jobs: int = Field(default=4, ge=1, le=1000)
    stages: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _stages_known(self) -> SlurmFile:
        for stage in self.stages:
            if stage not in STAGES:
                raise ValueError(f"stages: {stage!r:.40} is not known; accepted: {', '.join(STAGES)}")
            self.job(stage)
        return self

    def job(self, stage: str) -> Job:
        """What a job for a stage asks for."""
        common = {name: getattr(self, name) for name in Job.model_fields}
        return validated(Job, common | self.stages.get(stage, {}), f"stages.{stage}")


def read_slurm_file(path: Path) -> SlurmFile:
    """The file of `--slurm`; BadInput names what is wrong in it."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise BadInput(f"Slurm file {str(path)!r}: has more than {MAX_BYTES:,} bytes")
        data = yaml.safe_load(text.decode("utf-8"))
    except OSError as error:
        raise BadInput(f"Slurm file {str(path)!r}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"Slurm file {str(path)!r} is not YAML: {reason[:120]}") from None
    return validated(SlurmFile, {} if data is None else data, f"Slurm file {path.name}")
