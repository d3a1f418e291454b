"""Estimators of chapter 4. Accuracy is success@5 on OOD hands, all sampling seeds together."""

from __future__ import annotations

from tables import Tables

BETWEEN = {"restore": ("late", "peak"), "swap": ("rl", "late"), "other": ("late", "other-peak")}
"""Of each kind of edit: the checkpoint that is edited, and the one it is edited with."""
PLACES = {"blocks": "kinds=q,k,v,o,gate,up,down", "ends": "kinds=embed,head"}


class Seed:
    def __init__(self, tables: Tables) -> None:
        rows = tables["effects"][tables["effects"]["split"] == "ood"]
        counts = rows.groupby(["kind", "edit", "where"])[["solved", "hands"]].sum()
        self.accuracy = (counts["solved"] / counts["hands"]).to_dict()
        sizes = tables["sizes"].set_index(["kind", "edit", "where"])
        self.size = (sizes["edit_norm"] / sizes["distance"]).to_dict()

    def of(self, kind: str, edit: str, where: str) -> float:
        """Accuracy of an edited checkpoint."""
        return self.accuracy.get((kind, edit, spelled(where)), float("nan"))

    def anchor(self, name: str) -> float:
        """Accuracy of a checkpoint as it is."""
        return self.of("anchor", name, "")


def spelled(where: str) -> str:
    """As tables write a place: "blocks layers=0" is "kinds=q,k,v,o,gate,up,down layers=0"."""
    first, *rest = where.split(" ")
    return " ".join([PLACES.get(first, first), *rest])


def measured(tables: Tables) -> Seed:
    return Seed(tables)


def gained(seed: Seed, kind: str, edit: str, where: str) -> float:
    """acc(edited) - acc(target)."""
    return seed.of(kind, edit, where) - seed.anchor(BETWEEN[kind][0])


def lost(seed: Seed, edit: str, where: str) -> float:
    """acc(RL) - acc(edited)."""
    return -gained(seed, "swap", edit, where)


def no_effect(seed: Seed, kind: str, edit: str, where: str, tolerance: float) -> float:
    """tolerance - |acc(edited) - acc(target)|."""
    return tolerance - abs(gained(seed, kind, edit, where))


def over_control(seed: Seed, kind: str, edit: str, control: str, where: str) -> float:
    """acc(edited) - acc(edited otherwise)."""
    return seed.of(kind, edit, where) - seed.of(kind, control, where)


def restored(seed: Seed, edit: str, where: str) -> tuple[float, float]:
    """(acc(edited) - acc(late), acc(peak) - acc(late))."""
    return gained(seed, "restore", edit, where), seed.anchor("peak") - seed.anchor("late")


def alike(
    seed: Seed, kind: str, edit: str, where: str, share: float, control: str = "", control_kind: str = ""
) -> float:
    """share |acc(other checkpoint) - acc(target)| - |acc(edit) - acc(control)|."""
    target, other = map(seed.anchor, BETWEEN[kind])
    compared = seed.of(control_kind or kind, control or edit, where)
    return share * abs(other - target) - abs(seed.of(kind, edit, where) - compared)


def over_rollback_per_size(seed: Seed, edit: str, where: str) -> float:
    """(acc(edited) - acc(late)) / (|edit| / |distance|), minus the same of restoring whole matrices."""
    one, other = (
        gained(seed, "restore", each, where) / seed.size.get(("restore", each, spelled(where)), float("nan"))
        for each in (edit, "rollback()")
    )
    return one - other
