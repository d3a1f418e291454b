"""How the command line talks: exit codes, one line per error, JSON and nothing else on stdout.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed for a reason that is not the caller's; or `doctor` found something missing |
| 2 | bad input, a disk that cannot be used or an extra that is missing; one line says what, and what is accepted |
| 130, 143, 141 | stopped by Ctrl-C, by SIGTERM, by a reader that closed the pipe |
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import requires
from types import FrameType
from typing import Any, NoReturn

import typer

from rlheals.errors import BadInput
from rlheals.store.files import reason

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
_GOES_ON = "what is finished is kept; the same command resumes from there"


class Terminated(BaseException):
    """SIGTERM as an exception, so that temporary folders are removed and workers stopped on the way out."""


def guarded(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Run a typer application; every outcome becomes an exit code and at most one line on stderr."""
    on_sigterm, on_lost = _replace_sigterm(), sys.unraisablehook
    sys.unraisablehook = _raise_again(on_lost)
    # a letter that the terminal's encoding lacks ends no command
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # libraries quote a model's files in what they log and warn of
    made, written = logging.getLogRecordFactory(), warnings.formatwarning
    logging.setLogRecordFactory(_PlainRecord)
    warnings.formatwarning = lambda *said, **more: f"{plain(written(*said, **more))}\n"
    try:
        command = typer.main.get_command(app)
        # not command.main(): on Ctrl-C it prints a line of its own
        given = list(map(_at_home, sys.argv[1:] if arguments is None else arguments))
        with command.make_context("rlheals", given) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _end(130, f"interrupted; {_GOES_ON}")
    except Terminated:
        return _end(143, f"terminated; {_GOES_ON}")
    except BrokenPipeError:
        _discard_stdout()
        return 141
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        if os.environ.get("RLHEALS_DEBUG") == "1":
            traceback.print_exc()
        return _end(*_failed(error))
    finally:
        sys.unraisablehook = on_lost
        logging.setLogRecordFactory(made)
        warnings.formatwarning = written
        if on_sigterm is not None:
            signal.signal(signal.SIGTERM, on_sigterm)


def _at_home(argument: str) -> str:
    """`--out=~/x` and quoted paths, which a shell leaves as they are, with the home folder in place of `~`."""
    option, path = re.fullmatch(r"(--[a-z-]+=)?(.*)", argument, re.DOTALL).groups("")  # type: ignore[union-attr]
    return option + os.path.expanduser(path) if path.startswith("~/") else argument


def _missing(error: BaseException | None) -> tuple[int, str] | None:
    """What of the package's extras has to be installed, where that ended a command."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    module = "" if error is None else (error.name or "").partition(".")[0]
    extra = re.compile(rf"{module.replace('_', '[-_.]')}\b.*extra == ['\"](\w+)", re.IGNORECASE)
    for requirement in (requires("rlheals") or ()) if module else ():
        if found := extra.match(requirement):
            return 2, f"{module} is not installed, it comes with: pip install 'rlheals[{found[1]}]'"
    return None


def _failed(error: Exception) -> tuple[int, str]:
    if isinstance(error, BadInput):
        # a notebook's cell may fail for a reason that is not the caller's
        return 2 if getattr(error, "error_name", "BadInput") == "BadInput" else 1, str(error)
    if hasattr(error, "format_message"):  # a usage error of the command line itself
        context, option = getattr(error, "ctx", None), getattr(error, "option_name", None) or ""
        minus = ' Put "--" before an argument that begins with a minus sign.' if option[1:2].isdigit() else ""
        path = context.command_path if context is not None else "rlheals"
        return 2, f"{error.format_message().rstrip('.')}.{minus} See `{path} --help`"
    if isinstance(error, OSError) and error.errno in _DISK:
        return 2, (f"{error.filename}: " if isinstance(error.filename, str) else "") + reason(error)
    if os.strerror(errno.ENOSPC) in str(error):  # libraries report a full disk in their text only
        return 2, reason(OSError(errno.ENOSPC, ""))
    if missing := _missing(error):
        return missing
    first = (str(error).strip().splitlines() or [""])[0][:300]
    summary = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return 1, f"failed: {summary} (set RLHEALS_DEBUG=1 for the traceback)"


def plain(text: str) -> str:
    """One line that cannot steer a terminal, whatever the text holds.

    >>> plain("a\\n b \\x1b[2J")
    'a b ?[2J'
    """
    return _printable(" ".join(text.split()))


class _PlainRecord(logging.LogRecord):
    """What a library logs, as one such line."""

    def getMessage(self) -> str:  # noqa: N802 (its name in the standard library)
        return plain(super().getMessage())


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _end(code: int, message: str) -> int:
    try:
        print(f"rlheals: {plain(message)}", file=sys.stderr, flush=True)
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


def _raise_again(otherwise: Callable[[Any], object]) -> Callable[[Any], object]:
    """Python drops an exception that a signal raises inside an object's `__del__`: send such a signal once more."""
    terminate = signal.getsignal(signal.SIGTERM)

    def lost(what: Any) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            again = signal.SIGINT
        elif issubclass(what.exc_type, Terminated):
            again = signal.SIGTERM
            signal.signal(signal.SIGTERM, terminate)
        else:
            otherwise(what)
            return
        threading.Timer(0.05, os.kill, (os.getpid(), again)).start()

    return lost


def show(data: Any, lines: Iterable[str], as_json: bool) -> None:
    """Print a result on stdout: as JSON and nothing else, or as lines for people."""
    if as_json:
        print(json.dumps(data, indent=1, allow_nan=False, default=str))
        return
    for line in lines:
        print(_printable(line))


def table(rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """Rows as lines under the columns' headings; a column that is not known in any row is left out."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(columns)).rename(columns=columns).dropna(axis=1, how="all")
    return frame.to_string(index=False, na_rep="-", float_format="{:.4g}".format).splitlines()


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """The rows of a table as plain values; None where something is not known."""
    found: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return found


def show_facts(facts: dict[str, Any], as_json: bool) -> None:
    """One fact per line; lists are left to JSON."""
    shown = {
        name: value for name, value in facts.items() if value is not None and not isinstance(value, list)
    }
    show(facts, [f"{name:20} {value}" for name, value in shown.items()], as_json)
