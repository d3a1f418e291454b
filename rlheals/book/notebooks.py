"""Chapter notebooks: their parameters, and executing them into copies that the book shows.

A notebook has one cell tagged `parameters`; papermill writes the reader's values into a cell after it. The next cell
calls `parameters(globals())`, so a value is checked the same way under papermill, in Colab and in a bare kernel.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlheals.book.kernel import installed_from, mount_drive, show_bad_input_on_one_line
from rlheals.errors import BadInput
from rlheals.profiles import load_profile
from rlheals.project import project_root
from rlheals.settings import validated
from rlheals.store.files import atomic_write, make_folder

PARAMETERS = "parameters"
INJECTED = "injected-parameters"
LONGEST_TEXT = 200
CHECKED = "_rlheals_parameters"
INTERACTIVE = {"In", "Out", "exit", "quit", "get_ipython", "open"}
KERNEL = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "CI": "1",
}
"""A kernel has one thread, is that of this environment, and draws no progress bars into the executed copy."""

Seed = Annotated[int, Field(strict=True, ge=0, lt=10_000)]


class NotebookParameters(BaseModel):
    """What a reader can set in a chapter notebook.

    >>> NotebookParameters(profile="smoke", seeds=[7]).seeds
    (7,)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = Field("lab", description="a profile's name or a .yaml file")
    seeds: tuple[Seed, ...] | None = Field(None, description="base seeds; None: those of the profile")
    workers: int = Field(2, strict=True, ge=1, le=256, description="processes that compute")
    results: Path = Field(Path("results"), description="folder of the recorded study")
    store: Path | None = Field(
        None, description="folder where runs are kept; None: RLHEALS_STORE, or .rlheals"
    )

    @field_validator("store", mode="before")
    @classmethod
    def _named(cls, store: Any) -> Any:
        if isinstance(store, str) and not store.strip():
            raise ValueError("a folder is accepted, or None")
        return store

    @field_validator("seeds", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value  # pydantic calls the validator below first

    @field_validator("seeds", "workers", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if len(value) > LONGEST_TEXT:
            raise ValueError(f"text of {len(value)} characters; at most {LONGEST_TEXT} are read")
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError("the text is not YAML") from None

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
            raise ValueError("a list of different seeds is accepted")
        return seeds

    @field_validator("profile")
    @classmethod
    def _known(cls, profile: str) -> str:
        load_profile(profile)
        return profile


def parameters(names: MutableMapping[str, object]) -> NotebookParameters:
    """The parameters among a notebook's variables, checked; to be called with `globals()` after the parameters cell.

    Every variable that holds plain data has to be a parameter, so that a misspelt one fails. When the cell is run
    again in the same kernel, variables of later cells are let be, unless they look like a misspelt parameter.
    Text is read as YAML where no text is meant (papermill's `-p seeds [7]` passes text). A store in Google Drive is
    mounted on Colab, and the recorded study of a package that was installed from a folder is found there.
    Raises BadInput with one line that names the parameter; inside IPython that line is shown without a traceback.

    >>> parameters({"profile": "smoke", "seeds": "[7]", "In": ["..."]}).seeds
    (7,)
    """
    show_bad_input_on_one_line()
    known = list(NotebookParameters.model_fields)
    for name, value in names.items():
        if name in known or name in INTERACTIVE or name.startswith("_") or not _is_data(value):
            continue
        if CHECKED not in names or get_close_matches(name, known):
            raise BadInput(f"{name} is not a parameter of this notebook; accepted: {', '.join(known)}")
    given = {name: names[name] for name in known if name in names}
    checked = validated(NotebookParameters, given, "notebook parameters")
    if checked.store is not None:
        mount_drive(checked.store)
    checked = checked.model_copy(update={"results": _recorded(checked.results)})
    names[CHECKED] = checked
    return checked


def _recorded(results: Path) -> Path:
    """Where the recorded study lies: here, else in the folder that the package was installed from, as on Colab."""
    source = installed_from()
    if source is None or (project_root() / results).is_dir() or not (source / results).is_dir():
        return results
    return source / results


def _is_data(value: object) -> bool:
    return value is None or isinstance(value, str | bytes | int | float | list | tuple | dict | set)


class NotebookFailed(BadInput):
    """A cell of a notebook raised; the message says which cell, what, and where the executed copy is kept.

    `error_name` is the exception's type: "BadInput" when the notebook itself refused its input.
    """

    def __init__(self, message: str, error_name: str) -> None:
        super().__init__(message)
        self.error_name = error_name


def execute(
    notebook: Path,
    out: Path,
    parameters: Mapping[str, object] | None = None,
    quiet: bool = False,
    cwd: Path | None = None,
) -> Path:
    """Execute a notebook with papermill and write the executed copy to `out`, as a whole or not at all.

    The parameters are checked first, before a kernel starts. Without `cwd` the kernel runs in the folder above the
    notebook that holds `results/`, else in the current one. Times, paths and random ids are taken out, so two
    executions of the same state give the same bytes.
    Raises BadInput for an unknown parameter or an unreadable notebook, and NotebookFailed when a cell raises; the
    copy with the error is then kept beside `out` as NAME.failed.ipynb.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source = _read(notebook)
    root = cwd or project_root(notebook.absolute().parent)
    with contextlib.chdir(root):
        given = _check(source, notebook.name, parameters or {})
    failed = out.with_name(f"{out.stem}.failed.ipynb")
    make_folder(out.parent)
    with tempfile.TemporaryDirectory() as scratch, _environment(KERNEL):
        copy = Path(scratch) / "copy.ipynb"
        try:
            executed = papermill.execute_notebook(
                source,
                str(copy),
                given,
                kernel_name="python3",
                progress_bar=not quiet,
                cwd=str(root),
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
        except PapermillExecutionError as error:
            executed = _read(copy)
            where = next(_name(cell) for cell in executed.cells if cell.metadata.papermill.get("exception"))
            atomic_write(failed, _clean(executed))
            what = f"{error.ename}: {(str(error.evalue).splitlines() or [''])[0][:400]}"
            raise NotebookFailed(
                f"notebook {notebook.name}, cell {where}: {what} (executed copy: {failed})", error.ename
            ) from None
        except DeadKernelError:
            begun = [cell for cell in _read(copy).cells if cell.metadata.papermill.get("status") != "pending"]
            running = _name(begun[-1])
            raise NotebookFailed(
                f"notebook {notebook.name}, cell {running}: the kernel died (killed, or out of memory)",
                "DeadKernelError",
            ) from None
        atomic_write(out, _clean(executed))
    failed.unlink(missing_ok=True)
    return out


def _read(notebook: Path) -> Any:
    import nbformat

    try:
        source = nbformat.read(notebook, as_version=4)
        nbformat.validate(source)
    except OSError as error:
        raise BadInput(f"notebook {str(notebook)!r}: {error.strerror or 'cannot be read'}") from None
    except (nbformat.ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise BadInput(f"notebook {str(notebook)!r} is not a notebook file: {reason}") from None
    for cell in source.cells:
        cell.metadata.setdefault("tags", [])
        cell.metadata.setdefault("papermill", {})
    source.metadata.setdefault("papermill", {})
    source.metadata.setdefault(
        "kernelspec", {"name": "python3", "language": "python", "display_name": "Python 3"}
    )
    return source


def _check(source: Any, name: str, given: Mapping[str, object]) -> dict[str, object]:
    """The given parameters as plain values, after a look at the notebook's parameters cell."""
    import papermill

    known = list(papermill.inspect_notebook(source)) if given else []
    for parameter in given:
        if parameter not in known or parameter not in NotebookParameters.model_fields:
            raise BadInput(
                f"notebook {name}: {parameter} is not a parameter; accepted: {', '.join(known) or 'none'}"
            )
    checked = validated(NotebookParameters, dict(given), f"notebook {name}")
    return checked.model_dump(mode="json", include=set(given))


def _name(cell: Any) -> str:
    """What to call a cell in a message: its own name, else its number and first line."""
    if name := cell.metadata.get("name"):
        return repr(str(name))
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"In [{cell.get('execution_count') or ' '}] ({first[:60]})"


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _clean(executed: Any) -> str:
    """The notebook's text without times, paths and random ids."""
    import nbformat

    executed.metadata.pop("papermill", None)
    for cell in executed.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if INJECTED in cell.metadata.tags:
            cell.id = INJECTED
        if not cell.metadata.tags:
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _merged_streams(cell.outputs)
    text = json.dumps(executed)
    widgets = executed.metadata.get("widgets", {}).values()
    for number, model in enumerate(model for group in widgets for model in group.get("state", {})):
        text = text.replace(model, f"{number:032x}")  # in the order in which the notebook made them
    return nbformat.writes(nbformat.from_dict(json.loads(text))) + "\n"


def _merged_streams(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of printed text as one output per stream: how text is cut into pieces depends on time."""
    merged: list[Any] = []
    for is_text, group in itertools.groupby(outputs, lambda output: output.output_type == "stream"):
        if not is_text:
            merged += group
            continue
        streams: dict[str, Any] = {}
        for output in group:
            if output.name in streams:
                streams[output.name].text += output.text
            else:
                streams[output.name] = output
        merged += [streams[name] for name in sorted(streams, reverse=True)]
    return merged
