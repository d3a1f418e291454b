"""Routes of the reference: read from a file of anybody's, walked like our own; anything wrong is one line."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from lab_helpers import refused

from rlheals.errors import BadInput
from rlheals.tasks import load_task
from rlheals.tasks.navigation import reference

DEGREE = 1 / 111_195
"""Of latitude, per metre."""


def block(heading: str, landmarks: str | None = None) -> str:
    lines = ['"id": "x"', f'"to_next_intersection_heading": "{heading}"']
    if landmarks is not None:
        lines.insert(1, f'"landmarks": "{landmarks}"')
    return "{\n" + ",\n".join(lines) + "\n}"


def route(*headings: str, metres: float = 100, start: Any = 350) -> dict[str, Any]:
    """North all the way, whatever the headings say; the last block has a landmark."""
    blocks = [block(one) for one in headings[:-1]] + [block(headings[-1], "Café Dolvik is on your left")]
    return {
        "start_place": {"relocated_geocode": [40.0, -73.0]},
        "dest_place": {"name": "Café Dolvik"},
        "init_heading": start,
        "route_results": {
            "geocode_list": [[40 + metres * DEGREE * n, -73.0] for n in range(1, len(headings) + 1)],
            "landmark_list": [],
        },
        "milestone_info": "\n".join(blocks),
    }


GOOD = [
    route("80 (east)", "123.5 (southeast)", "177 (south)"),
    route("10 (north)", "350 (north)", metres=4, start=0),
]


def written(folder: Path, found: Any, name: str = "route_infos.json") -> Path:
    (folder / name).write_text(found if isinstance(found, str) else json.dumps(found))
    return folder / name


def test_routes_of_a_file_are_walked_under_both_rules(tmp_path: Path) -> None:
    file = written(tmp_path, [GOOD, len(GOOD)])
    task = load_task("navigation", compat="reference", routes=str(file))
    for split in ("id", "ood"):
        items = task.items(split)
        assert {item.group for item in items} == {"0", "1"}
        assert all(task.grade(item, task.expert(item)).solved for item in items)
    ood = [json.loads(task.expert(item))["action"] for item in task.items("ood")]
    turns = [action for action in ood if action.startswith("turn")]
    words = ["left", "slightly right", "right", None, "right"]
    assert [turn[15:-1] for turn, word in zip(turns, words, strict=True) if word] == [
        word for word in words if word
    ]
    wrapped = [
        json.loads(task.expert(item))["action"]
        for item in load_task("navigation", routes=str(file)).items("ood")
    ]
    assert wrapped[0] == "turn_direction(right)", "350 to 80 goes round north"
    compass = [json.loads(task.expert(item))["action"] for item in task.items("id")]
    assert [one for one in compass if one.startswith("turn")][:3] == [
        f"turn_direction({word})" for word in ("east", "southeast", "south")
    ]
    assert "Go to the destination, where Café Dolvik is on your left." in task.prompt(task.items("id")[0])
    assert sum(len(task.items(split)) for split in ("sft", "rl", "held_out")) == len(task.items("id"))
    assert task.words == ()
    assert task.items("ood") == load_task("navigation", compat="reference", routes=str(file)).items("ood")


def test_there_are_at_most_four_points_on_the_way_and_none_within_eight_metres_of_an_end(
    tmp_path: Path,
) -> None:
    def forwards(metres: float) -> list[int]:
        routes = [route(*["90 (east)"] * 3, metres=metres) for _ in range(50)]
        found = reference.read_routes(written(tmp_path, [routes, 50]))
        return [len(leg.sights) - 1 for one in found for leg in one.legs]

    many = forwards(100)
    assert set(many) == {0, 1, 2, 3, 4}
    assert 1.7 < sum(many) / len(many) < 2.3
    assert set(forwards(30)) == {0, 1, 2}
    assert set(forwards(15)) == {0}


def _changed(path: str, value: Any) -> list[Any]:
    """A good file with one thing in its first route replaced, or taken out (None of type)."""
    found = copy.deepcopy(GOOD)
    place: Any = found[0]
    *keys, last = path.split(".")
    for key in keys:
        place = place[int(key) if key.isdecimal() else key]
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdecimal() else last] = value
    return [found, 2]


NO_HEADINGS = (
    "",
    "90",
    "(east)",
    "east (90)",
    "90 (eastward)",
    "-3 (north)",
    "361 (north)",
    "9" * 5000,
    "1e2 (east)",
)
BAD: list[Any] = [
    "",
    "{",
    "[" * 100_000,
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "null",
    {},
    [],
    [[], 0],
    [GOOD],
    [3, 3],
    [[3], 1],
    [[None], 1],
    _changed("milestone_info", ...),
    _changed("milestone_info", 3),
    _changed("milestone_info", "no braces"),
    _changed("milestone_info", "{" * 1_000_000),
    _changed("milestone_info", block("90 (east)") * 60),
    _changed("milestone_info", block("90 (east)") * 2),
    *(_changed("milestone_info", block("90 (east)") * 2 + block(heading)) for heading in NO_HEADINGS),
    _changed("milestone_info", "{}{}{}"),
    _changed("milestone_info", block("90 (east)") * 2 + block("90 (east)", "x" * 400)),
    _changed("milestone_info", block("90 (east)") * 2 + block("90 (east)", "a\u0007b")),
    _changed("start_place", ...),
    _changed("start_place", []),
    _changed("start_place.relocated_geocode", [1]),
    _changed("start_place.relocated_geocode", ["40", "-73"]),
    _changed("start_place.relocated_geocode", [True, False]),
    _changed("start_place.relocated_geocode", [float("nan"), 0]),
    _changed("start_place.relocated_geocode", [361, 0]),
    _changed("start_place.relocated_geocode", [10**400, 0]),
    _changed("route_results.geocode_list", ...),
    _changed("route_results.geocode_list", {}),
    _changed("route_results.geocode_list", [[40, -73]]),
    _changed("route_results.geocode_list.1", "40,-73"),
    _changed("init_heading", "north"),
    _changed("init_heading", 1e9),
    _changed("init_heading", True),
    _changed("init_heading", float("inf")),
]  # fmt: skip


@pytest.mark.parametrize("found", BAD, ids=[str(number) for number in range(len(BAD))])
def test_anything_wrong_in_the_file_is_one_line(found: Any, tmp_path: Path) -> None:
    file = written(tmp_path, found)
    with refused():
        load_task("navigation", routes=str(file))


def test_no_file_a_pipe_a_folder_and_a_link_out_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(written(tmp_path, [GOOD, 2]))
    for path in ("nothing", "pipe", ".", "inside/link", "\0", "x" * 5000):
        with refused():
            reference.read_routes(str(tmp_path / path))
    monkeypatch.setattr(reference, "LARGEST_FILE", 100)
    with pytest.raises(BadInput, match="over 100 bytes"):
        reference.read_routes(tmp_path / "route_infos.json")
