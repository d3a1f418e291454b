"""Edits that are controls: changes of a known size that know nothing of the other checkpoint's directions.

And the released edit, to show what it does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlheals.edits import Edit
from rlheals.linalg import decompose
from rlheals.nulls import null
from rlheals.pairs import Pair
from rlheals.parts import Part
from rlheals.turning import outside, planes, rotated


@dataclass(frozen=True, repr=False)
class RandomSubspace(Edit):
    """As `Subspace`, by the same angles, but towards directions drawn at random (Haar): its control."""

    part: Part
    seed: int = 0

    def on(self, pair: Pair) -> torch.Tensor:
        at = self.part.indices(pair.rank)
        turned = pair.t
        for side in ("left", "right"):
            own, other = pair.target.side(side)[:, at], pair.base.side(side)[:, at]
            a, g, angles = planes(own, other)
            turning = angles > 0
            drawn = torch.zeros_like(g)
            drawn[:, turning] = outside(own, int(turning.sum()), f"random directions {self.seed} {side}")
            w = turned if side == "left" else turned.mT
            w = rotated(w, a, drawn, angles)
            turned = w if side == "left" else w.mT
        return turned


@dataclass(frozen=True, repr=False)
class Noise(Edit):
    """t with Gaussian noise of the norm of b - t: a control that knows nothing of b but its distance."""

    seed: int = 0

    def on(self, pair: Pair) -> torch.Tensor:
        return null("gaussian", pair.t.cpu(), (pair.b - pair.t).cpu(), 1, f"noise {self.seed}")[0].to(
            pair.t.device
        )


@dataclass(frozen=True, repr=False)
class Released(Edit):
    """The direction edit of the authors' scripts, to show what it does: index order, no matching, and its shortcut.

    Where top and bottom together reach the rank, those scripts give back b itself, values included.
    """

    top: int
    bottom: int = 0

    def on(self, pair: Pair) -> torch.Tensor:
        if self.top + self.bottom >= pair.rank:
            return pair.b.clone()
        base, target = decompose(pair.b), pair.target
        mixed = [
            torch.cat(
                [b[:, : self.top], t[:, self.top : pair.rank - self.bottom], b[:, pair.rank - self.bottom :]],
                1,
            )
            for b, t in ((base.u, target.u), (base.v, target.v))
        ]
        return (mixed[0] * target.s) @ mixed[1].mT
