"""The one table of colours and marks: a quantity looks the same in every figure, and has its own mark or line in grey.

Filled marks and lines in bands are the recorded study, open marks the fresh run; that is not said here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

BLACK, BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY = (
    "#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#777777",
)  # fmt: skip
"""Okabe and Ito's colours, told apart by colour-blind readers."""


@dataclass(frozen=True)
class Look:
    """How one quantity is drawn, and what it is called in a legend."""

    label: str
    color: str
    marker: str = "o"
    line: str = "-"

    def named(self, label: str) -> Look:
        """The same look under another name."""
        return replace(self, label=label)


# What is measured
OOD = Look("OOD", RED, "o", "-")
ID = Look("ID, SFT hands", BLUE, "s", "--")
HELD_OUT = Look("held-out ID", GREEN, "^", "-.")
SPLITS = {"sft": ID, "held_out": HELD_OUT, "ood": OOD}
LOSSES = {"train": ID, "test": HELD_OUT, "ood": OOD}
AGNOSTIC = Look("format-agnostic", PURPLE, "D", "--")
SIZE = Look("size of the change, |dW| / |W|", GREEN, "^", "-.")
ROTATION = Look("rotation (degrees)", PURPLE, "D")
KL = Look("forward KL from the base (nats)", ORANGE, "v", "--")
SIDES = {"left": Look("left (output)", BLUE, "s", "--"), "right": Look("right (input)", RED, "o")}
_VERDICTS = {
    "correct": Look("correct", GREEN),
    "no_solution": Look("values right, not 24", BLUE, "s", "--"),
    "wrong_rule": Look("right under another rule", RED, "D", "-."),
    "wrong_number": Look("other wrong values", ORANGE, "^"),
    "wrong_action": Look("other wrong action", ORANGE, "^"),
    "wrong_observation": Look("wrong observation", BLUE, "s", "--"),
    "wrong_products": Look("other products", ORANGE, "^"),
    "wrong_value": Look("products right, value wrong", BLUE, "s", "--"),
    "wrong": Look("wrong", ORANGE, "^"),
    "illegal_formula": Look("unreadable", GREY, "v", "--"),
    "illegal": Look("unreadable", GREY, "v", "--"),
    "unreadable": Look("unreadable", GREY, "v", "--"),
}
"""Verdicts on an attempt."""


def verdicts(names: Iterable[str]) -> dict[str, Look]:
    """The looks of some verdicts, those of all tasks first; one of a task of your own is called by its name."""
    asked = set(names)
    own = {name: Look(name.replace("_", " "), SKY) for name in sorted(asked - _VERDICTS.keys())}
    return {name: look for name, look in _VERDICTS.items() if name in asked} | own


# Whose checkpoint it is
PLAIN_SFT = Look("SFT", BLACK, "s", "--")
AFTER_RL = Look("RL", RED, "o", "-")
BEFORE, AFTER = PLAIN_SFT.named("start of RL (SFT)"), AFTER_RL.named("after RL")
LLAMA, QWEN = Look("Llama (paper)", ORANGE, "o", "-"), Look("Qwen (paper)", PURPLE, "s", "--")
BRANCHES = {
    "sft": PLAIN_SFT,
    "lr-1e-4": Look("SFT, learning rate 1e-4", SKY, "^"),
    "lr-1e-3": Look("SFT, learning rate 1e-3", BLUE, "v"),
    "decay-0.3": Look("SFT, weight decay 0.3", GREEN, "<"),
    "batch-16": Look("SFT, batches of 16", PURPLE, ">"),
    "lora-16": Look("SFT, LoRA of rank 16", ORANGE, "^", ":"),
    "rl": AFTER_RL,
    "rejection": Look("expert iteration", ORANGE, "D"),
    "ood-rule": Look("RL on the OOD rule", BLACK, "P"),
}
"""Trajectories of chapter 03."""
PAIRS = {
    "base-peak": Look("base to peak", BLACK, "s", "--"),
    "peak-middle": Look("peak to middle of SFT", SKY, "v"),
    "peak-end": Look("peak to end of SFT", RED, "o"),
    "base-end": Look("base to end of SFT", GREY, "<"),
    "early-rl": Look("RL from an early checkpoint", ORANGE, "v", "-."),
    "middle-rl": Look("RL from the middle", BLUE, "^", "-."),
    "end-rl": Look("RL from the end", GREEN, "D"),
}
BACK = {
    "start": BEFORE,
    "RL": AFTER,
    "null": Look("start + noise of RL's norm", GREY, "d"),
    "SFT on": Look("SFT, four times the steps", BLUE, "^"),
}
REGULARISERS = {
    "sft": PLAIN_SFT,
    "subspace": Look("leading subspaces", RED, "o"),
    "random": Look("random subspaces", GREY, "s"),
    "kl": Look("KL to the base", ORANGE, "v"),
    "learning_rate": Look("learning rate", BLUE, "^"),
    "weight_decay": Look("weight decay", GREEN, "D"),
}
CATEGORICAL = [
    Look("", *pair)
    for pair in zip((SKY, BLUE, GREEN, ORANGE, RED, PURPLE, BLACK, GREY), "osv^D<>P", strict=True)
]
"""For checkpoints, layers or rules side by side, which have no look of their own."""

# Nulls and controls
GAUSSIAN = Look("Gaussian of equal norm", GREY, "|", "--")
NULLS = {
    "gaussian": GAUSSIAN,
    "permuted": Look("entries permuted", SKY, "|"),
    "turned": Look("singular vectors drawn anew", GREEN, "|"),
    "ulp": Look("one bfloat16 step", ORANGE, "|", "-."),
    "independent": Look("unrelated matrix", PURPLE, "|", ":"),
}
CHANGE = Look("the change", BLACK, "o")
EDITS = {
    "directions": Look("", RED), "left": Look("", SKY, "<"), "right": Look("", BLUE, ">"),
    "values": Look("", GREEN, "X"), "triples": Look("", ORANGE, "p"), "subspace": Look("", PURPLE, "h"),
    "released": Look("", BLACK, "*"),
    "rollback": Look("", BLACK, "s", "--"), "interpolate": Look("", BLACK, "D", "--"),
    "partial": Look("", BLUE, "v", "--"), "random": Look("", PURPLE, "^", "--"), "noise": Look("", GREY, "P", "--"),
}  # fmt: skip
"""Families of edits: solid lines put something back, dashed ones are controls."""
