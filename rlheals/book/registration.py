"""The page on registration: versions of the claims, and whether what decides them was computed later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlheals.chapters.registry import CHAPTERS
from rlheals.display.markup import Block, Table
from rlheals.store.runs import digest_of
from rlheals.study.claims import FILE
from rlheals.study.record import recorded_manifests
from rlheals.study.registration import Order, Version, order, registered, versions


def blocks(results: Path) -> list[Block]:
    """Where the versions are from, the order for every part of the claims, and every version with its reason."""
    known, source = versions()
    recorded = recorded_manifests(results)
    orders = []
    for key, one in CHAPTERS.items():
        profile = one.claims.read().study.profile
        folders = [f"{name}{one.part.suffix}" for name in _with_variants(profile, one.part.variants)]
        orders.append(order(known, key, [each for folder in folders for each in recorded.get(folder, ())]))
    return [source, *_current(known), _orders(known, orders), _versions(known)]


def _with_variants(profile: str, variants: Sequence[str]) -> list[str]:
    return [profile, *(f"{profile}-{variant}" for variant in variants)]


def _current(known: Sequence[Version]) -> list[Block]:
    """Said where today's claims are none of the versions."""
    if digest_of(FILE).sha256 in {one.sha256 for one in known}:
        return []
    return [
        f"**`{FILE.name}` as it is here is none of these versions: it has been changed since the last one.**"
    ]


def _orders(known: Sequence[Version], orders: Sequence[Order]) -> Table:
    rows = []
    for one in orders:
        since = one.registered if one.runs else registered(known, digest_of(FILE).sha256, one.part)
        committed = "" if since is None else f"`{since.commit[:7]}`, {_time(since.time)}"
        rows.append((CHAPTERS[one.part].title, committed, _time(one.first), verdict(one)))
    return Table(("claims of", "registered", "first run began", "order"), tuple(rows))


def verdict(one: Order) -> str:
    """In words, whether the runs of a part began after its registration."""
    if not one.runs:
        return "nothing is recorded yet"
    if one.unknown:
        return f"**cannot be told: a manifest names the version {one.unknown[:12]}, which is none of these**"
    if one.before:
        return f"**{one.before:,} of {one.runs:,} runs began before the registration**"
    return f"all {one.runs:,} runs began after the registration"


def _versions(known: Sequence[Version]) -> Table:
    rows, last = [], dict[int, Version]()
    for one in known:
        before = last.get(one.registration)
        tests = {} if before is None else before.tests
        new = [key for key, digest in one.tests.items() if tests.get(key) != digest]
        last[one.registration] = one
        names = ", ".join(CHAPTERS[key].title if key in CHAPTERS else f"`{key}`" for key in new) or (
            "the same text" if before and before.sha256 == one.sha256 else ""
        )
        rows.append(
            (
                f"`{one.commit[:7]}`",
                _time(one.time),
                str(one.registration),
                names or "wording only",
                one.subject,
            )
        )
    return Table(("commit", "time", "registration", "tests that differ", "reason given"), tuple(rows))


def _time(text: str) -> str:
    """
    >>> _time("2026-11-21T00:37:22Z")
    '2026-11-21 00:37:22'
    """
    return text.replace("T", " ").removesuffix("Z")
