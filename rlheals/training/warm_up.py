"""The stage that makes a base of a language model: SFT before the study, such as on questions under other rules.

A model that cannot play at all forgets nothing. After a warm-up without the OOD rule it can.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

from rlheals.stage import Work
from rlheals.training import fetch, sft
from rlheals.training.fetch import FetchSettings
from rlheals.training.sft import SFTSettings, checkpoint_name


class WarmUpSettings(SFTSettings):
    """How a language model is fine-tuned beforehand; its last checkpoint is the base."""

    source: FetchSettings


def run(work: Work) -> None:
    """The stage: `base/`, and the losses on the way there. A killed run goes on as SFT does."""
    settings = WarmUpSettings.model_validate(work.settings)
    fetched = work.scratch / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    fetched.mkdir()
    fetch.run(replace(work, out=fetched, settings=settings.source.model_dump(mode="json")))
    asked = {name: value for name, value in work.settings.items() if name != "source"}
    sft.run(replace(work, settings=asked, inputs={"base": fetched}))
    (work.out / checkpoint_name(settings.checkpoints[-1])).rename(work.out / "base")
