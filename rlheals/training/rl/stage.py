"""RL from a checkpoint: multi-turn episodes with verifier feedback, on ID hands only unless told otherwise.

The stage. A run is a sequence of iterations, see `session.py`; `grpo.py` and `ppo.py` learn from their episodes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd

from rlheals.engines import fsdp, models
from rlheals.engines.hf import Opens
from rlheals.stage import Work
from rlheals.training import resume
from rlheals.training.rl import grpo, ppo
from rlheals.training.rl.session import Session
from rlheals.training.rl.settings import RLSettings, checkpoint_name

LOGS = "logs"
TABLES = ("log.parquet", "advantages.parquet", "losses.json")


def run(work: Work, opens: Opens | None = None, module: str = "rlheals.training.rl.stage") -> None:
    """The stage: `update-*/` model folders, `log.parquet` (a row per iteration), `advantages.parquet`, `losses.json`.

    opens: the engine that plays, see `Session`; module: with several processes each calls `part(work)` of it.
    """
    settings = RLSettings.model_validate(work.settings)

    def trained(rows: int) -> None:
        folders = {update: checkpoint_name(update) for update in settings.checkpoints}
        resume.Files(work.scratch / resume.STATE, settings.processes).check(folders, "rl")
        fitting = replace(work, settings={**work.settings, "micro_batch_size": rows})
        if settings.processes > 1:
            fsdp.together(module, fitting, settings.processes)
        else:
            part(fitting, opens)

    models.retry_on_out_of_memory(
        trained, settings.micro_batch_size, settings.per_process, "rl.micro_batch_size"
    )
    for update in settings.checkpoints:
        resume.same_files(work.scratch / checkpoint_name(update), work.out / checkpoint_name(update))
    for name in TABLES:
        shutil.copy2(work.scratch / LOGS / name, work.out / name)


def part(work: Work, opens: Opens | None = None) -> None:
    """What one process does of the stage, in the scratch folder; the first one writes what the others have too."""
    settings = RLSettings.model_validate(work.settings)
    session = Session(work, settings, opens)
    (ppo if settings.algorithm == "ppo" else grpo).train(session)
    if fsdp.rank() == 0:
        frames = [
            pd.DataFrame({"update": int(update), "advantage": values})
            for update, values in session.advantages.items()
        ]
        with resume.kept(work.scratch / LOGS) as folder:
            log, advantages, losses = (folder / name for name in TABLES)
            pd.DataFrame(session.log).to_parquet(log, index=False)
            pd.concat(frames, ignore_index=True).to_parquet(advantages, index=False, compression="zstd")
            losses.write_text(json.dumps(session.losses, indent=1) + "\n")
