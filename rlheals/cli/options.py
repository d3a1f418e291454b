"""Options that several commands have, and how seeds and settings are typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from rlheals.errors import BadInput
from rlheals.project import RESULTS_FOLDER, project_root

LARGEST_SEED = 9_999
RESULTS = Path(RESULTS_FOLDER)

_NUMBER = re.compile(r"[0-9]{1,9}")
_SEEDS = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)=(.*)", re.DOTALL)
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+")


def _there(results: Path) -> Path:
    """A project without a recorded study is accepted, a folder that was named and is not there is not."""
    if results != RESULTS and not (project_root() / results).is_dir():
        raise BadInput(f"--results {str(results)!r}: no such folder; accepted: a folder of recorded studies")
    return results


Json = Annotated[bool, Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]
ProfileName = Annotated[str, Option("--profile", help="A name such as lab, or a .yaml file.")]
OptionalProfile = Annotated[str | None, Option("--profile", help="A name such as lab, or a .yaml file.")]
Set = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Change a setting, e.g. sft.learning_rate=1e-3 (YAML value)."),
]
Seed = Annotated[int, Option(min=0, max=LARGEST_SEED, help="Base seed; 0 is the base in the package.")]
Seeds = Annotated[str | None, Option(help='Base seeds, e.g. "1-3,7".')]
Workers = Annotated[int, Option(min=1, max=256, help="Processes (or Slurm jobs) that compute.")]
Results = Annotated[Path, Option(callback=_there, help="Folder of the recorded study.")]
Out = Annotated[Path | None, Option(help="Also write the files into this new folder.")]


def chosen_profile(name: str, changes: Sequence[str] | None) -> Any:
    """The profile of `--profile` with the changes of `--set`."""
    from rlheals.profiles import load_profile

    return load_profile(name, parse_settings(changes or ()))


def the_store() -> Any:
    """The store that all commands share: that of the project around the current folder."""
    from rlheals.store.store import default_store

    return default_store()


def parse_numbers(option: str, text: str, least: int) -> list[int]:
    """Numbers from text such as "8,64,256"; BadInput unless they rise, from `least` on."""
    numbers = [int(part) if _NUMBER.fullmatch(part) else -1 for part in text.split(",")]
    if numbers[0] < least or numbers != sorted(set(numbers)):
        raise BadInput(f"{option} {text!r:.60}; accepted: rising numbers from {least}, such as 8,64,256")
    return numbers


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """Seeds from text such as "1-3,7", in that order; None stays None. BadInput names the part that is wrong.

    >>> parse_seeds("1-3,7")
    (1, 2, 3, 7)
    """
    if text is None:
        return None
    seeds: list[int] = []
    accepted = f'accepted: numbers and rising ranges up to {LARGEST_SEED}, as in "1-3,7"'
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high or high > LARGEST_SEED:
            raise BadInput(f"seeds {text!r:.60}: {part.strip()!r:.40} does not fit; {accepted}")
        seeds += range(low, high + 1)
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds {text!r:.60}: a seed occurs twice; {accepted}")
    return tuple(seeds)


def parse_settings(pairs: Iterable[str], option: str = "--set", texts: Sequence[str] = ()) -> dict[str, Any]:
    """{"sft.learning_rate": 0.001} from "sft.learning_rate=1e-3"; values are YAML. Raises BadInput.

    YAML 1.1 reads 1e-3, without a dot, as text; here it is a number. texts: names whose numbers and dates are text.

    >>> parse_settings(["sft.learning_rate=1e-3", "evaluated=[0, 40]", "pretrain.ability=null"])
    {'sft.learning_rate': 0.001, 'evaluated': [0, 40], 'pretrain.ability': None}
    """
    from rlheals.yaml_file import yaml_text

    settings: dict[str, Any] = {}
    for pair in pairs:
        match = _SETTING.fullmatch(pair)
        if match is None:
            raise BadInput(f"{option} {pair!r:.60}; accepted: NAME=VALUE, such as sft.learning_rate=1e-3")
        name, text = match.groups()
        if name in settings:
            raise BadInput(f"{option} {name}: given twice")
        value = yaml_text(text, f"{option} {name}: {text!r:.60}")
        if text.count("#") > str(value).count("#"):
            raise BadInput(f"{option} {name}: {text!r:.60} holds a comment; put quotes around a value with #")
        if _SCIENTIFIC.fullmatch(text.strip()):
            value = float(text)
        if name in texts and not isinstance(value, str | list | dict | None):
            value = text.strip()
        settings[name] = value
    return settings
