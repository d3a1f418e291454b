"""Who computes the units of a study: this process, workers on this machine, a Dask cluster, or Slurm jobs."""

from __future__ import annotations

from dataclasses import dataclass

from rlheals.slurm_file import SlurmFile

GONE = "the study's workers have ended; the same command goes on"


@dataclass(frozen=True)
class Workers:
    """count: workers on this machine; scheduler: address of a Dask scheduler; slurm: jobs to start.

    Workers of a scheduler and of jobs have to see the same store, at the same path, and have the same packages.
    """

    count: int = 1
    scheduler: str | None = None
    slurm: SlurmFile | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a cluster computes."""
        return self.scheduler is not None or self.slurm is not None
