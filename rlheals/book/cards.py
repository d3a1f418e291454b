"""The claims page: the paper's numbered claims with their tests, then our own questions, as rows that fold open.

`claims_order.yaml` says what stands where and how a number is shown. All text is escaped; the rows need no script.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from rlheals.chapters.registry import CHAPTERS, PAGES
from rlheals.display.markup import escaped, p_text
from rlheals.errors import BadInput
from rlheals.settings import Float, Int, Settings, validated
from rlheals.stats.verdicts import VERDICTS
from rlheals.study.claims import FAMILIES, Claim
from rlheals.yaml_file import read_yaml

FILE = Path(str(resources.files("rlheals.book"))) / "claims_order.yaml"
UNDECIDED = "no verdict yet"
UNRECORDED = "what it needs is not recorded for every base seed yet"
NO_DATA = "no data yet"
MARKS = {"holds": "●", "holds in part": "◐", "open": "○", "not here": "✕", NO_DATA: "–"}
COUNTED = {
    "holds": ("holds", "hold"), "holds in part": ("holds in part", "hold in part"), "open": ("is open", "are open"),
    "not here": ("does not hold here", "do not hold here"), NO_DATA: ("has no data yet", "have no data yet"),
}  # fmt: skip
"""By verdict, what is said of one test and of several."""
MEANING = {
    ("supports", "holds"): "supports the paper's explanation",
    ("supports", "holds in part"): "supports the paper's explanation in part",
    ("supports", "not here"): "no support for the paper's explanation in this lab",
    ("undermines", "holds"): "counts against the paper's explanation",
    ("undermines", "holds in part"): "counts in part against the paper's explanation",
    ("undermines", "not here"): "no evidence against the paper's explanation in this lab",
}
"""By bearing and verdict. What is not seen in one small model does not refute a paper about others."""
WIDTH, HEIGHT, EDGE = 220, 18, 6
"""Of a bar, in pixels; nothing is drawn nearer to its ends than the edge."""

Bearing = Literal["supports", "undermines", "neutral"]


class Shown(Settings):
    """How a claim's number is shown: the fields are explained in `claims_order.yaml`."""

    of: str
    unit: str = ""
    scale: Annotated[Float, Field(gt=0)] = 1
    sign: Literal[1, -1] = 1
    offset: Float | str = 0
    size: bool = False
    decimals: Annotated[Int, Field(ge=0)] = 1

    def turned(self, number: float, claim: Claim) -> float:
        """The claim's number, or its margin, as the quantity that is shown. Where `sign` is -1, a claim says that
        the quantity is below the margin."""
        offset = claim.options[self.offset] if isinstance(self.offset, str) else self.offset
        return float(self.scale * (offset + self.sign * number))

    def text(self, number: float, signed: bool = True) -> str:
        """A shown number without its unit."""
        rounded = round(number, self.decimals) + 0.0  # no minus before zero
        return f"{rounded:{'+' if signed and not self.size else ''}.{self.decimals}f}"

    def with_unit(self, text: str) -> str:
        """The same with the unit behind it."""
        return f"{text} {self.unit}".strip()


class Numbered(Settings):
    """One of the paper's claims with its tests; qualified: by test, our own questions that belong below it."""

    title: str
    sentence: str
    tests: tuple[str, ...]
    qualified: dict[str, tuple[str, ...]] = Field({})


class Order(Settings):
    """What `claims_order.yaml` says."""

    claims: tuple[Numbered, ...]
    bearing: dict[str, Bearing]
    shown: dict[str, Shown]

    def shows(self, claim: Claim) -> Shown:
        """How the claim's number is shown; that of its estimator without an entry of its own."""
        return self.shown.get(claim.id) or self.shown[claim.options.get("estimate", claim.estimator)]

    def bears(self, claim: Claim) -> Bearing:
        """What it means for the paper's explanation that the claim holds."""
        return self.bearing.get(claim.id, "supports" if claim.family == "paper" else "neutral")


def every_claim() -> dict[str, Claim]:
    """All claims of all parts, by id."""
    return {claim.id: claim for one in CHAPTERS.values() for claim in one.claims.read().claims}


def read_order(known: Mapping[str, Claim], file: Path = FILE) -> Order:
    """The file, checked against the claims; BadInput names an id that is unknown, misplaced, there twice or missing."""
    order = validated(Order, read_yaml(file, file.name), file.name)
    tests = [test for one in order.claims for test in one.tests]
    below = [own for one in order.claims for owns in one.qualified.values() for own in owns]
    above = [(test, one) for one in order.claims for test in one.qualified]
    for name in (*tests, *below, *order.bearing):
        if name not in known:
            raise BadInput(f"{file.name}: {name!r} is no claim of claims.yaml")
    for family, listed in (("paper", tests), ("ours", below)):
        for name in listed:
            if known[name].family != family:
                raise BadInput(f"{file.name}: {name!r} is not of family {family!r}")
            if listed.count(name) > 1:
                raise BadInput(f"{file.name}: {name!r} is there twice")
    for test, one in above:
        if test not in one.tests:
            raise BadInput(f"{file.name}: qualified: {test!r} is no test of {one.title!r}")
    for claim in known.values():
        if claim.family == "paper" and claim.id not in tests:
            raise BadInput(f"{file.name}: {claim.id!r} of the paper is under none of its claims")
        if claim.id not in order.shown and claim.options.get("estimate", claim.estimator) not in order.shown:
            raise BadInput(f"{file.name}: shown: nothing for {claim.id!r}")
    return order


def counted(verdicts: Sequence[str], of: str = "tests") -> str:
    """Verdicts in words. of: what they are on, in the plural.

    >>> counted(["holds", "not here", "open", "open"])
    '1 of 4 tests holds, 2 are open, 1 does not hold here'
    >>> counted(["open"]), counted([UNDECIDED, UNDECIDED])
    ('the one test is open', 'no data yet on 2 tests')
    """
    words = [verdict if verdict in VERDICTS else NO_DATA for verdict in verdicts]
    if len(words) == 1:
        return f"the one {of.removesuffix('s')} {COUNTED[words[0]][0]}"
    if set(words) == {NO_DATA}:
        return f"{NO_DATA} on {len(words)} {of}"
    found = {name: words.count(name) for name in COUNTED}
    holds = found.pop("holds")
    said = [f"{n} {COUNTED[name][n != 1]}" for name, n in found.items() if n]
    return ", ".join([f"{holds} of {len(words)} {of} {COUNTED['holds'][holds != 1]}", *said])


@dataclass(frozen=True)
class Row:
    """A claim with what the table of all claims says of it."""

    claim: Claim
    said: Mapping[str, Any]
    shown: Shown
    bearing: Bearing

    @property
    def verdict(self) -> str:
        return self.said["verdict"] if self.said["verdict"] in VERDICTS else NO_DATA

    @property
    def decided(self) -> bool:
        return not pd.isna(self.said["estimate"])

    @property
    def scale(self) -> tuple[str, str]:
        """Rows with the same have bars on one scale."""
        return self.said["page"], self.shown.unit

    @property
    def margin(self) -> float:
        return self.shown.turned(self.claim.margin, self.claim)

    @property
    def limit(self) -> str:
        """What the claim says of the shown quantity."""
        return f"{'more' if self.shown.sign > 0 else 'less'} than {round(self.margin, self.shown.decimals) + 0.0:g}"

    def interval(self) -> tuple[float, float, float]:
        """Estimate, lower and upper end, as shown."""
        at, *ends = (self.shown.turned(self.said[name], self.claim) for name in ("estimate", "low", "high"))
        return at, min(ends), max(ends)

    def effect(self) -> str:
        """The estimate in its unit with its interval."""
        at, low, high = self.interval()
        ends = f"{self.shown.text(low, signed=False)}, {self.shown.text(high, signed=False)}"
        return f"{self.shown.with_unit(self.shown.text(at))} [{ends}]"


def page(table: pd.DataFrame) -> str:
    """The page's part on all claims as markdown, from the table of `claims.frame`: each claim once."""
    known = every_claim()
    order = read_order(known)
    rows = {
        said["id"]: Row(
            known[said["id"]], said, order.shows(known[said["id"]]), order.bears(known[said["id"]])
        )
        for said in table.to_dict("records")
    }
    spans = _spans(rows.values())
    parts, placed = [_filter(table)], set[str]()
    for number, one in enumerate(order.claims, start=1):
        groups = {test: one.qualified.get(test, ()) for test in one.tests}
        placed |= {*groups, *(own for owns in groups.values() for own in owns)}
        said = counted([rows[test].verdict for test in groups])
        parts += [
            f"({target(number)})=\n## {number}. {escaped(one.title)}",
            f"{escaped(one.sentence)} **{said[0].upper()}{said[1:]}.**",
            _listed(_group(rows[test], [rows[own] for own in owns], spans) for test, owns in groups.items()),
        ]
    parts.append("## Our own further questions")
    for chapter, mine in table[~table["id"].isin(placed)].groupby("chapter", sort=False):
        parts += [f"### {escaped(str(chapter))}", _listed(_row(rows[name], spans) for name in mine["id"])]
    return "\n\n".join(parts) + "\n"


def target(number: int) -> str:
    """What links to one of the paper's claims lead to."""
    return f"paper-claim-{number}"


def _filter(table: pd.DataFrame) -> str:
    """The form that `claims.js` shows and reads."""
    titles: dict[str, list[str]] = {}
    for title, page in zip(table["chapter"], table["page"], strict=True):
        titles[page] = [*dict.fromkeys([*titles.get(page, []), re.sub(r" \(chapter \d+\)$", "", title)])]
    choices: dict[str, dict[str, str]] = {
        "chapter": {page: f"{int(page[:2])}. {'; '.join(names)}" for page, names in titles.items()},
        "verdict": {name: f"{mark} {name}" for name, mark in MARKS.items()},
        "family": {str(family): heading for family, heading in FAMILIES.items()},
    }
    fields = []
    for name, each in choices.items():
        options = "".join(
            f'<option value="{_said(key)}">{_said(text)}</option>' for key, text in each.items()
        )
        label = {"family": "whose"}.get(name, name)
        fields.append(
            f'<label>{label} <select name="{name}"><option value="">all</option>{options}</select></label>'
        )
    fields.append('<label>text <input type="search" name="text"></label>')
    count = '<output name="count" aria-live="polite"></output>'
    return f'<form class="claims-filter" aria-label="Filter the claims" hidden>\n{"".join(fields)}{count}\n</form>'


def _listed(parts: Iterable[str]) -> str:
    """One block of raw HTML: markdown would go on after an empty line, and there is none."""
    return "\n".join(['<div class="claims-list">', *parts, "</div>"])


def _group(test: Row, own: Sequence[Row], spans: _Spans) -> str:
    """A test and, folded below it, what qualifies it."""
    if not own:
        return _row(test, spans)
    said = f"What qualifies it: {counted([one.verdict for one in own], 'own questions')}"
    below = "\n".join(_row(one, spans) for one in own)
    return (
        f'<div class="claim-group">\n{_row(test, spans)}\n'
        f'<details class="claim-controls"><summary>{_said(said)}</summary>\n{below}\n</details>\n</div>'
    )


def _row(row: Row, spans: _Spans) -> str:
    claim, said = row.claim, row.said
    meaning = MEANING.get((row.bearing, row.verdict), "")
    if claim.family == "paper":
        meaning = meaning.replace("explanation", "claim")
    if said["shown"].endswith("not after Holm"):
        meaning = f"{meaning}; not after Holm's correction".removeprefix("; ")
    about = _said(f"claimed: {row.shown.with_unit(row.limit)} ({row.shown.of})")
    if row.decided:
        about = f"{_said(row.shown.of)}: <b>{_said(row.effect())}</b>; claimed: {_said(row.limit)}"
    facts = {key: text for key, text in _facts(row).items() if text}
    return "\n".join([
        f'<details class="claim" id="claim-{claim.id}" data-chapter="{_said(said["page"])}" '
        f'data-verdict="{row.verdict}" data-family="{claim.family}">',
        f'<summary><span class="verdict verdict-{row.verdict.replace(" ", "-")}">'
        f'<span class="shape" aria-hidden="true">{MARKS[row.verdict]}</span> {row.verdict}</span>',
        f'<span class="sentence">{_said(claim.sentence)}</span>',
        f'<span class="meaning">{_said(meaning)}</span>' if meaning else "<!-- -->",
        f'<span class="effect"><span>{about}</span>{_bar(row, spans) if row.decided else ""}</span></summary>',
        "<dl>" + "".join(f"<dt>{key}</dt><dd>{text}</dd>" for key, text in facts.items()) + "</dl>",
        "</details>",
    ])  # fmt: skip


def _facts(row: Row) -> dict[str, str]:
    """What is folded in a row, as HTML; empty: not said."""
    claim, said, shown = row.claim, row.said, row.shown
    where, section = f"_generated/{said['page']}.html#{anchor(said['section'])}", _said(said["section"])
    data = f'<a href="{_said(where)}">{section}</a>' if said["page"] in PAGES else "not recorded yet"
    waiting = {UNDECIDED: UNRECORDED}.get(said["shown"], said["shown"]) if row.verdict == NO_DATA else ""
    fresh = "not measured"
    if not pd.isna(said["fresh"]):
        fresh = shown.with_unit(shown.text(shown.turned(said["fresh"], claim)))
    power = ""
    if claim.power is not None:
        least = shown.with_unit(shown.text(shown.turned(claim.power, claim)))
        power = f"planned from the spread in development: a true effect of {least} would hold with probability 0.8"
    return {
        "id": f'<a href="#claim-{claim.id}"><code>{claim.id}</code></a>',
        "no verdict because": _said(waiting),
        "data": data,
        "source": _said(said["source"]),
        "registered number": f"{_said(claim.unit)}; <code>{_said(said['code'])}</code>",
        "its margin": f"{claim.margin:g}",
        "base seeds": _said(said["seeds"]),
        "Holm-adjusted p": _said(p_text(said["holm_p"])) if row.decided else "",
        "power": _said(power),
        "fresh run": _said(fresh),
    }


_Spans = dict[tuple[str, str], tuple[float, float]]
"""By what `Row.scale` says, from where to where bars go."""


def _spans(rows: Iterable[Row]) -> _Spans:
    """All estimates, margins and zero with room around; an interval that is wider is cut off at the ends."""
    points: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.decided:
            points.setdefault(row.scale, [0.0]).extend((row.interval()[0], row.margin))
    found = {}
    for key, each in points.items():
        room = 0.25 * (max(each) - min(each)) or 1.0
        found[key] = min(each) - room, max(each) + room
    return found


def _bar(row: Row, spans: _Spans) -> str:
    """A row of a forest plot: interval, estimate, margin, zero; shaded is where the claim would hold."""
    start, end = spans[row.scale]

    def place(number: float) -> float:
        inside = min(max(number, start), end)
        return round(EDGE + (inside - start) / (end - start) * (WIDTH - 2 * EDGE), 1)

    at, low, high = (place(number) for number in row.interval())
    margin, middle = place(row.margin), HEIGHT / 2
    left, right = (margin, WIDTH) if row.shown.sign > 0 else (0, margin)
    caps = [where for where, true in zip((low, high), row.interval()[1:], strict=True) if start < true < end]
    ends = "".join(f"M{where} {middle - 3}V{middle + 3}" for where in caps)
    label = f"Interval and margin: {row.effect()}, claimed: {row.limit}"
    return (
        f'<svg class="bar" role="img" aria-label="{_said(label)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">'
        f'<rect class="claimed" x="{left}" y="0" width="{round(right - left, 1)}" height="{HEIGHT}"/>'
        f'<path class="zero" d="M{place(0)} 0V{HEIGHT}"/><path class="margin" d="M{margin} 0V{HEIGHT}"/>'
        f'<path class="interval" d="M{low} {middle}H{high}{ends}"/><circle cx="{at}" cy="{middle}" r="4"/></svg>'
    )


def _said(text: str) -> str:
    """Text in HTML, on one line."""
    return html.escape(" ".join(text.split()))


def anchor(heading: str) -> str:
    """The id that a heading has in the book's HTML.

    >>> anchor("The paper's curve: what it shows")
    'the-paper-s-curve-what-it-shows'
    """
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
