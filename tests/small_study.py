"""A whole study in two seconds: a model of a few thousand parameters, two steps of everything, three hands."""

from __future__ import annotations

from pathlib import Path

from conftest import TINY
from lab_helpers import files_of

from rlheals.engines.hf import Sampling
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.profiles.edit_grid import SwapGrid
from rlheals.profiles.healing import Healing
from rlheals.profiles.profile import Profile
from rlheals.profiles.sections import Protection, RLStarts, Rotation
from rlheals.store.runs import MANIFEST
from rlheals.training.pretrain import PretrainSettings
from rlheals.training.rl.settings import RLSettings
from rlheals.training.sft import SFTSettings

SMALL = Profile(
    name="small",
    shipped_base=False,
    seeds=(1,),
    evaluated=(0, 3),
    rule_steps=(3,),
    rule_hands=1,
    pretrain=PretrainSettings(
        model=TINY, ability=None, min_steps=0, max_steps=2, check_every=2, panel_hands=16, batch_tokens=512
    ),
    sft=SFTSettings(checkpoints=(0, 3, 5), batch=4, loss_examples=8),
    evaluate=EvaluateSettings(
        splits=("held_out", "ood"), hands=3, attempts=2, sampling=Sampling(max_new_tokens=6)
    ),
)
RUNS = 2 + 2 + 1

RL = RLSettings(
    checkpoints=(1,), episodes=8, group=4, micro_batch_size=4, attempts=2, loss_examples=4,
    sampling=Sampling(temperature=1.0, max_new_tokens=6),
)  # fmt: skip
CLIMB = SMALL.model_copy(
    update={
        "name": "climb",
        "rl_starts": RLStarts(
            starts=(3, 5), runs=2, decodes=2, control_start=3, controls=("rejection", "shuffled-reward"),
            late_starts=(5,), temperatures=(0.3,), rl=RL,
        ),
    }
)  # fmt: skip

SPIN = CLIMB.model_copy(
    update={
        "name": "spin",
        "evaluated": (0, 3, 5),
        "rotation": Rotation(
            steps=(0, 3, 5), branches=("lr-1e-3",), branch_steps=(3, 5), controls=("rejection",), draws=2, questions=4
        ),
    }
)  # fmt: skip

EDIT = SPIN.model_copy(
    update={
        "name": "edit",
        "swaps": SwapGrid(
            late=5, start=3, decodes=2,
            restore=("values(all) @ blocks", "rollback() @ everything", "directions(top=20%) @ blocks"),
            swap=("directions(all) @ blocks", "noise() like directions(all) @ blocks"),
            other=("directions(all) @ blocks",), lend=("directions(all) @ blocks",),
            reader_restore=("directions(all) @ blocks",), reader_swap=("directions(all) @ blocks",),
        ),
    }
)  # fmt: skip


SHIELD = SPIN.model_copy(
    update={
        "name": "shield",
        "protection": Protection(
            regularisers=("subspace=1", "random=1", "kl=1", "weight_decay=0.3"), steps=(3, 5),
            reader_regularisers=("subspace=1",),
            decodes=2,
        ),
    }
)  # fmt: skip

HEAL = SPIN.model_copy(
    update={
        "name": "heal",
        "evaluate": SMALL.evaluate.model_copy(update={"splits": ("held_out", "ood", "control")}),
        "healing": Healing(
            map=("rl", "rl-varied", "rl-familiar", "imitate-varied"), window=("rl",), runs=2, arms=("fused",),
            examples=8, edits=("directions(all) @ blocks", "values(all) @ blocks"), reader_map=("rl",),
        ),
    }
)  # fmt: skip

WHOLE = EDIT.model_copy(update={"name": "whole", "protection": SHIELD.protection, "healing": HEAL.healing})
"""With the parts of all chapters."""


def results_of(root: Path) -> dict[str, bytes]:
    """Every result file of a store, by run and name; manifests say when, so they are left out."""
    return {name: data for name, data in files_of(root / "runs").items() if not name.endswith(MANIFEST)}
