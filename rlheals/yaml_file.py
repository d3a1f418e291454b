"""YAML that people write: profiles, claims, Slurm jobs, settings and parameters on a command line, front matter.

It is plain data only: no anchors, aliases or merge keys, no key twice, limits on size, depth and the length of numbers.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rlheals.errors import BadInput

MAX_BYTES = 100_000
MAX_DEPTH = 20
MAX_NUMBER = 100
"""Characters of a number."""


class _Plain(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not read", problem_mark=event.start_mark
            )
        if self.depth == MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH}", problem_mark=event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        number = isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float"))
        if number and len(node.value) > MAX_NUMBER:
            problem = f"a number of over {MAX_NUMBER} digits"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key, _ in getattr(node, "value", ()):
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a single value", problem_mark=key.start_mark)
            if key.tag.endswith(":merge"):
                raise yaml.MarkedYAMLError(
                    problem="merge keys (<<) are not read", problem_mark=key.start_mark
                )
            name = self.construct_object(key)
            if name in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r:.60} is given twice", problem_mark=key.start_mark
                )
            keys.add(name)
        return super().construct_mapping(node, deep)


@lru_cache(maxsize=64)
def _loaded(text: str) -> Any:
    """Read once a process: claims are asked for by part, and the largest part of a second goes into reading them."""
    return yaml.load(text, _Plain)  # a SafeLoader


def yaml_text(text: str, said: str) -> Any:
    """What YAML text holds; BadInput with one line that begins with `said` and tells the line in the text."""
    if len(text) > MAX_BYTES:
        raise BadInput(f"{said} has over {MAX_BYTES:,} bytes")
    try:
        return deepcopy(_loaded(text))
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        reason = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{said} is not YAML that can be read: {where}{reason}") from None


def read_yaml(file: Path, said: str) -> dict[str, Any]:
    """The mapping in a YAML file; where it is none, BadInput with one line that begins with `said`."""
    try:
        large = file.stat().st_size > MAX_BYTES
        text = "" if large else file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{said}: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"{said} is not YAML that can be read: {error}") from None
    if large:
        raise BadInput(f"{said} has over {MAX_BYTES:,} bytes")
    if not isinstance(data := yaml_text(text, said), dict):
        raise BadInput(f"{said} has to be a YAML mapping of settings")
    return data
