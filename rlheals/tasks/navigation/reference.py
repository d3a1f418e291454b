"""Routes of the reference, from its `route_infos.json`, which a user has; no street views, no mapping of places.

The file is a list of the routes and their number. `milestone_info` of a route is text: blocks in braces, a line
`"key": "value"` for each fact. Points between two crossings are at fifths of the way, more than 8 m from both ends, and
one of two is left out; the reference draws them, and start headings that are missing or 0, anew every time, here they
are always the same.
"""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from rlheals.errors import BadInput
from rlheals.store.files import first_line, regular
from rlheals.tasks.navigation.frames import COMPASS, FAMILIES
from rlheals.tasks.navigation.graph import Leg, Route, Sight, unwrapped

LARGEST_FILE, MOST_ROUTES, MOST_BLOCKS, LONGEST_TEXT = 100_000_000, 20_000, 50, 300
PARTS, NEAR, EARTH = 5, 8.0, 6_371_000.0
"""Of the way between crossings; metres; metres."""
_BLOCK = re.compile(r"\{([^{}]*)\}")
_LINE = re.compile(r'^\s*"([^"\n]{1,80})"\s*:\s*"([^"\n]*)"\s*,?\s*$', re.MULTILINE)
_HEADING = re.compile(r"(\d{1,3}(?:\.\d{1,12})?) ?\((\w{4,9})\)")

Degrees = Annotated[float, Field(ge=-360, le=360, strict=True)]
Geocode = tuple[Degrees, Degrees]
"""Latitude and longitude."""


class _Start(BaseModel):
    relocated_geocode: Geocode


class _Results(BaseModel):
    geocode_list: list[Geocode]


class _Info(BaseModel):
    start_place: _Start
    init_heading: Degrees | None = None
    route_results: _Results
    milestone_info: Annotated[str, Field(max_length=100_000)]


INFOS = TypeAdapter(tuple[Annotated[list[_Info], Field(min_length=1, max_length=MOST_ROUTES)], int])


def read_routes(file: str | Path, wrapped: bool = True) -> tuple[Route, ...]:
    """The routes of a file, their turns by degrees, wrapped at north or, as the reference has it, not.

    Raises BadInput with one line for a file that is anything else.
    """
    if not isinstance(file, str | Path) or "\0" in str(file):
        raise BadInput(f"routes = {file!r:.200}; a file is accepted")
    path, where = Path(file), f"routes {str(file)!r:.200}"
    try:
        if regular(path).stat().st_size > LARGEST_FILE:
            raise BadInput(f"{where}: over {LARGEST_FILE} bytes are not accepted")
        found = INFOS.validate_json(path.read_bytes())[0]
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']:.120}") from None
    except OSError as error:
        raise BadInput(f"{where}: cannot be read ({first_line(error)})") from None
    return tuple(_route(index, info, f"{where}: route {index}", wrapped) for index, info in enumerate(found))


def _route(index: int, info: _Info, where: str, wrapped: bool) -> Route:
    chance = random.Random(f"route {index} of a file")
    blocks, places = _blocks(info.milestone_info, where), info.route_results.geocode_list
    if len(places) != len(blocks):
        raise BadInput(f"{where}: geocode_list has {len(places)} places, milestone_info {len(blocks)} blocks")
    here, before = info.start_place.relocated_geocode, info.init_heading or chance.randrange(360)
    start, legs = round(before / 45) % 8, []
    for number, (there, (degrees, heading, landmark)) in enumerate(zip(places, blocks, strict=True), 1):
        metres = _metres(here, there)
        on_the_way = [metres * part / PARTS for part in range(1, PARTS)]
        points = [at for at in on_the_way if NEAR < at < metres - NEAR and chance.random() < 0.5]
        change = degrees - before
        turn = unwrapped((change + 180) % 360 - 180 if wrapped else change)
        legs.append(Leg(heading, turn, (*[Sight()] * len(points), Sight(number < len(blocks), landmark))))
        here, before = there, degrees
    return Route(str(index), start, tuple(legs))


def _blocks(text: str, where: str) -> list[tuple[float, int, str | None]]:
    """Degrees, number of the compass word and landmarks of every block."""
    if not 0 < len(blocks := _BLOCK.findall(text)) <= MOST_BLOCKS:
        raise BadInput(f"{where}: milestone_info is no text of 1 to {MOST_BLOCKS} blocks in braces")
    found = []
    for number, block in enumerate(blocks, 1):
        lines = dict(_LINE.findall(block))
        said = lines.get("to_next_intersection_heading", "")
        read = _HEADING.fullmatch(said)
        if read is None or float(read[1]) > 360 or read[2] not in FAMILIES[COMPASS]:
            raise BadInput(
                f"{where}: block {number}: to_next_intersection_heading = {said!r:.40}; a heading such as "
                "'177 (south)' is accepted"
            )
        landmark = lines.get("landmarks", "").strip() or None
        if landmark and (len(landmark) > LONGEST_TEXT or not landmark.isprintable()):
            raise BadInput(
                f"{where}: block {number}: landmarks: printable text of at most {LONGEST_TEXT} characters is accepted"
            )
        found.append((float(read[1]), FAMILIES[COMPASS].index(read[2]), landmark))
    return found


def _metres(one: Geocode, other: Geocode) -> float:
    """The distance along a great circle, by the haversine formula."""
    north, east, to_north, to_east = map(math.radians, (*one, *other))
    across = math.cos(north) * math.cos(to_north) * math.sin((to_east - east) / 2) ** 2
    return 2 * EARTH * math.asin(math.sqrt(min(1.0, math.sin((to_north - north) / 2) ** 2 + across)))
