"""How the command line talks: exit codes, one line per error, JSON on stdout, and how seeds and settings are typed.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed for a reason that is not the caller's; or `doctor` found something missing |
| 2 | bad input or a disk that cannot be used; one line on stderr says what, where, and what is accepted |
| 130, 143, 141 | stopped by Ctrl-C, by SIGTERM, by a reader that closed the pipe |
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any, NoReturn

import typer

from rlheals.errors import BadInput

MAX_SEEDS = 1000
LARGEST_SEED = 9_999
MAX_VALUE = 10_000
MAX_ANSWER = 1_000_000

_SEEDS = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)=(.*)", re.DOTALL)
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+")
_DISK = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EROFS: "read-only folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


class Terminated(BaseException):
    """SIGTERM, as an exception, so that temporary folders are removed and workers stopped on the way out."""


def guarded(app: typer.Typer, arguments: Sequence[str] | None, name: str = "rlheals") -> int:
    """Run a typer application; every outcome becomes an exit code and at most one line on stderr."""
    on_sigterm = _replace_sigterm()
    try:
        command = typer.main.get_command(app)
        # not command.main(): it has its own way with Ctrl-C, which differs between versions
        with command.make_context(name, list(sys.argv[1:] if arguments is None else arguments)) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _end(130, "interrupted; what is finished is kept, the same command goes on from there")
    except Terminated:
        return _end(143, "terminated; what is finished is kept, the same command goes on from there")
    except BrokenPipeError:
        _discard_stdout()
        return 141
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        return _failed(error)
    finally:
        if on_sigterm is not None:
            signal.signal(signal.SIGTERM, on_sigterm)


def _failed(error: Exception) -> int:
    if os.environ.get("RLHEALS_DEBUG") == "1":
        traceback.print_exc()
    if isinstance(error, BadInput):
        # a notebook's cell may fail for a reason that is not the caller's
        return _end(2 if getattr(error, "error_name", "BadInput") == "BadInput" else 1, str(error))
    if hasattr(error, "format_message"):  # a usage error of the command line itself
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "rlheals"
        return _end(2, f"{error.format_message()} See `{path} --help`")
    if (trouble := _disk_trouble(error)) is not None:
        return _end(2, trouble)
    text = str(error).strip()
    summary = f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
    return _end(1, f"failed: {summary} (set RLHEALS_DEBUG=1 for the traceback)")


def _disk_trouble(error: Exception) -> str | None:
    """One line when a disk or a permission is to blame; libraries report a full disk in their text only."""
    if isinstance(error, OSError) and error.errno in _DISK:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return f"{where}{_DISK[error.errno]}"
    return "disk full" if os.strerror(errno.ENOSPC) in str(error) else None


def _end(code: int, message: str) -> int:
    """Print the one line. Whatever the message holds, it stays one line and cannot steer the terminal."""
    line = " ".join(message.split())
    safe = "".join(letter if letter.isprintable() else "?" for letter in line)
    try:
        print(f"rlheals: {safe}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    return code


def _discard_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere, without a message."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open until the process ends


def _replace_sigterm() -> Any:
    """Let SIGTERM unwind the stack; None where handlers cannot be set (not in the main thread)."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    try:
        return signal.signal(signal.SIGTERM, terminate)
    except ValueError:
        return None


def show(data: Any, lines: Callable[[], Iterable[str]], as_json: bool) -> None:
    """Print a result on stdout: as JSON and nothing else, or as lines for people."""
    if as_json:
        print(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False, default=str))
        return
    for line in lines():
        print(line)


def read_answer(text: str) -> str:
    """The answer as typed, or from stdin for "-". Raises BadInput when it is not text or too long."""
    if text == "-":
        data = sys.stdin.buffer.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise BadInput(f"answer on stdin: more than {MAX_ANSWER:,} bytes")
        try:
            return data.decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise BadInput(f"answer on stdin: byte {error.start} is not UTF-8 text") from None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput(f"answer: character {error.start} is not UTF-8 text") from None
    return text


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from text such as "1-3,7", in that order. Raises BadInput that names the part that is wrong.

    >>> parse_seeds("1-3,7")
    (1, 2, 3, 7)
    """
    seeds: list[int] = []
    accepted = 'accepted: whole numbers and ranges from low to high, such as "1-3,7"'
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        if match is None:
            raise BadInput(f"seeds {text!r:.60}: {part.strip()!r:.40} is not a seed; {accepted}")
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise BadInput(f"seeds {text!r:.60}: {part.strip()!r:.40} goes down; {accepted}")
        if high > LARGEST_SEED:
            raise BadInput(f"seeds {text!r:.60}: {high} is too large; accepted: up to {LARGEST_SEED}")
        if len(seeds) + high - low + 1 > MAX_SEEDS:
            raise BadInput(f"seeds {text!r:.60}: more than {MAX_SEEDS} seeds")
        seeds += range(low, high + 1)
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise BadInput(f"seeds {text!r:.60}: {twice[0]} occurs twice")
    return tuple(seeds)


def parse_settings(pairs: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """{"sft.learning_rate": 0.001} from "sft.learning_rate=1e-3"; values are YAML. Raises BadInput.

    YAML 1.1 reads 1e-3, without a dot, as text; here it is a number.

    >>> parse_settings(["sft.learning_rate=1e-3", "evaluated=[0, 40]", "pretrain.ability=null"])
    {'sft.learning_rate': 0.001, 'evaluated': [0, 40], 'pretrain.ability': None}
    """
    import yaml

    settings: dict[str, Any] = {}
    for pair in pairs:
        match = _SETTING.fullmatch(pair)
        if match is None:
            raise BadInput(f"{option} {pair!r:.60}: accepted is NAME=VALUE, such as sft.learning_rate=1e-3")
        name, text = match.groups()
        if name in settings:
            raise BadInput(f"{option} {name}: given twice")
        if len(text) > MAX_VALUE:
            raise BadInput(f"{option} {name}: the value has more than {MAX_VALUE} characters")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise BadInput(f"{option} {name}: {text!r:.60} is not YAML ({str(error)[:60]})") from None
        settings[name] = float(text) if _SCIENTIFIC.fullmatch(text.strip()) else value
    return settings
