"""Settings of stages: what is impossible, alone or together, is one line that names the setting."""

from __future__ import annotations

import math
from typing import Any

import pytest
from lab_helpers import refused

from rlheals.engines.models import ModelSettings
from rlheals.evaluation.evaluate import EvaluateSettings
from rlheals.settings import Settings, validated
from rlheals.training.pretrain import PretrainSettings
from rlheals.training.protected import ProtectedSettings
from rlheals.training.rl.settings import RLSettings
from rlheals.training.sft import SFTSettings

FEW = {"episodes": 16, "group": 4, "micro_batch_size": 8}
IMPOSSIBLE: dict[type[Settings], list[tuple[dict[str, Any], str]]] = {
    ModelSettings: [
        ({"hidden": 65}, "hidden=65"),
        ({"hidden": 10, "heads": 2}, "even number"),  # rotary embeddings turn pairs of coordinates
        ({"mlp": "wide"}, "mlp"),
        ({"width": 3}, "width"),
    ],
    PretrainSettings: [
        ({"variant": "lenient"}, "variant"),
        ({"ability": 1.5}, "ability"),
        ({"model": {"hidden": 65}}, "hidden"),
        ({"betas": (2.0, 0.98)}, "betas"),
    ],
    SFTSettings: [
        *(({"checkpoints": steps}, "checkpoints") for steps in ((), (0,), (5, 2), (0, 2, 2), (-1, 2))),
        ({"micro_batch_size": 3}, "micro_batch_size=3 does not divide batch=64"),
        ({"batch": 8, "processes": 3}, "processes=3 does not divide batch=8"),
        ({"batch": 8, "processes": 4, "micro_batch_size": 4}, "micro_batch_size=4 does not divide batch=8/4"),
        *(({"learning_rate": rate}, "learning_rate") for rate in (0, math.nan, math.inf)),
        ({"lr": 1e-3}, "lr is not a setting"),
        *(({"splits": splits}, "splits") for splits in ((), ("sft", "sft"), ("other",))),
        ({"replay": 1.0}, "replay"),
        ({"lora_rank": 0}, "lora_rank"),
        ({"loss": "mse"}, "loss"),
        ({"processes": 2, "lora_rank": 2}, "lora_rank"),
    ],
    ProtectedSettings: [
        ({"kind": "values"}, "kind"),
        ({"strength": True}, "strength"),
        ({"share": 1.5}, "share"),
        ({"processes": 2}, "by one process"),
        ({"lora_rank": 4}, "lora_rank=4"),
        ({"precision": "fp16"}, "precision: Input should be 'own' or 'bf16'"),
    ],
    EvaluateSettings: [
        *(({"splits": splits}, "splits") for splits in (("everything",), (), ("sft", "sft"))),
        ({"task": "../toy"}, "task"),
        ({"attempts": 21}, "attempts"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature"),
        ({"sampling": {"max_new_tokens": 0}}, "sampling.max_new_tokens"),
        ({"precision": "bfloat16"}, "precision: Input should be 'own', 'bf16' or 'fp16'"),
    ],
    RLSettings: [
        ({"algorithm": "dpo"}, "algorithm"),
        ({"episodes": 18}, "group=4 does not divide episodes=18"),
        ({"group": 1}, "group"),
        ({"micro_batch_size": 12}, "micro_batch_size=12 does not divide episodes=16"),
        ({"sampling": {"temperature": 0}}, "temperature=0"),
        *(({"splits": splits}, "splits") for splits in ((), ("sft", "sft"), ("rule:5-7-2",))),
        ({"reward": "shuffled", "advantage_estimator": "attempt"}, "advantage_estimator=episode"),
        ({"log_kl": False, "kl_base": 0.1}, "log_kl=false"),
        ({"processes": 2}, "processes=2 needs log_kl=false"),
        ({"processes": 3}, "processes=3 does not divide episodes=16"),
        ({"processes": 2, "micro_batch_size": 16}, "micro_batch_size=16 does not divide episodes=16/2"),
        ({"gamma": 1.1}, "gamma"),
        *(({"epochs": epochs}, "epochs") for epochs in (0, True)),
        *(({"clip_range": clip}, "clip_range") for clip in (0.0, math.nan)),
        ({"algorithm": "ppo", "kl_start": 0.1, "scale": "group"}, "it takes no scale, kl_start"),
        ({"algorithm": "expert_iteration", "reward": "shuffled"}, "it takes no reward"),
        ({"precision": "fp16"}, "precision: Input should be 'own' or 'bf16'"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "changes", "named"), [(kind, *case) for kind, cases in IMPOSSIBLE.items() for case in cases]
)
def test_what_is_impossible_is_named_on_one_line(
    kind: type[Settings], changes: dict[str, Any], named: str
) -> None:
    with refused(named):
        validated(kind, {**(FEW if kind is RLSettings else {}), **changes}, "x")
