"""Products in a shorter number format than that of the weights: faster where the machine multiplies in it.

A model that trains keeps float32 weights, gradients and optimiser, so that small updates are not rounded away; its
weights are rounded anew for every forward pass. A model that only answers holds rounded weights. Log-probabilities,
entropies and losses are computed in float32 or float64 from the logits that such products give.
"""

from __future__ import annotations

from typing import Literal

import torch
from transformers import PreTrainedModel

from rlheals.errors import BadInput

Precision = Literal["own", "bf16", "fp16"]
Unscaled = Literal["own", "bf16"]
"""Where gradients are not scaled: those of fp16 would vanish."""
DTYPES = {"own": "auto", "bf16": "bfloat16", "fp16": "float16"}
"""What `models.load` calls the weights of a model that only answers."""


def refuse_short_weights(model: PreTrainedModel, precision: Precision, where: str) -> None:
    """BadInput unless the weights that are to be trained with shorter products are float32."""
    if precision != "own" and model.dtype != torch.float32:
        dtype = str(model.dtype).removeprefix("torch.")
        raise BadInput(
            f"{where}.precision={precision} is for float32 weights; these are {dtype} (a profile: model.dtype)"
        )


def shorten(model: PreTrainedModel, precision: Precision, device: str) -> None:
    """From now on the model's forward passes, on that kind of device, multiply in the shorter format."""
    if precision != "own":
        model.forward = torch.autocast(device, getattr(torch, DTYPES[precision]))(model.forward)
