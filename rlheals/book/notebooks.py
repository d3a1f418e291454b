"""Chapter notebooks: their parameters, and executing them into copies that the book shows.

A notebook has one cell tagged `parameters`; papermill writes the reader's values into a cell after it. The next cell
calls `parameters(globals())`, so a value is checked the same way under papermill, in Colab and in a bare kernel.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, MutableMapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rlheals.book.kernel import installed_from, mount_drive, show_bad_input_on_one_line
from rlheals.errors import BadInput
from rlheals.profiles import for_task, load_profile
from rlheals.project import project_root
from rlheals.settings import validated
from rlheals.store.files import atomic_write, make_folder, told
from rlheals.tasks import load_task
from rlheals.yaml_file import yaml_text

INJECTED = "injected-parameters"
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
    >>> NotebookParameters(profile="smoke", task="navigation").profile
    'smoke-navigation'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = Field("lab", description="a profile's name or a .yaml file")
    task: str | None = Field(None, description="another task than the profile's own")
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
        # papermill's `-p store 4711` passes a number: folders are called so, after jobs
        return str(store) if isinstance(store, int) and not isinstance(store, bool) else store

    @field_validator("seeds", "workers", mode="before")
    @classmethod
    def _from_text(cls, value: Any, field: ValidationInfo) -> Any:
        if isinstance(value, str):  # as papermill's `-p seeds [7]` passes it
            value = yaml_text(value, "the text")
        return [value] if field.field_name == "seeds" and isinstance(value, int) else value

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
            raise ValueError("a list of different seeds is accepted")
        return seeds

    @model_validator(mode="before")
    @classmethod
    def _of_task(cls, data: Any) -> Any:
        """The profile's name becomes that of the profile for the task, where it is for another one."""
        if not isinstance(data, dict) or data.get("task") is None:
            return data
        profile, task = data.get("profile", "lab"), data["task"]
        load_task(task)
        known = load_profile(str(profile)).task == task
        return data if known else data | {"profile": for_task(str(profile), task)}

    @field_validator("profile")
    @classmethod
    def _known(cls, profile: str) -> str:
        load_profile(profile)
        return profile


def parameters(names: MutableMapping[str, object]) -> NotebookParameters:
    """The parameters among a notebook's variables, checked; to be called with `globals()` after the parameters cell.

    Every variable that holds plain data must be a parameter, so a misspelt one fails; when the cell is run again, later
    cells' variables pass unless they look like a misspelt parameter. Google Drive is mounted if the store lies there.
    Where the current project has no recorded study, that of the folder the package was installed from is used.
    Raises BadInput with one line that names the parameter; IPython shows that line without a traceback.

    >>> parameters({"profile": "smoke", "seeds": "[7]", "In": ["..."]}).seeds
    (7,)
    """
    show_bad_input_on_one_line()
    known = list(NotebookParameters.model_fields)
    for name, value in names.items():
        data = value is None or isinstance(value, str | bytes | int | float | list | tuple | dict | set)
        if name in known or name in INTERACTIVE or name.startswith("_") or not data:
            continue
        if CHECKED not in names or get_close_matches(name, known):
            raise BadInput(f"{name} is not a parameter of this notebook; accepted: {', '.join(known)}")
    given = {name: names[name] for name in known if name in names}
    checked = validated(NotebookParameters, given, "notebook parameters")
    if checked.store is not None:
        mount_drive(checked.store)
    source = installed_from()
    if source and not (project_root() / checked.results).is_dir() and (source / checked.results).is_dir():
        checked = checked.model_copy(update={"results": source / checked.results})
    names[CHECKED] = checked
    return checked


class NotebookFailed(BadInput):
    """A cell raised; the message says which cell, what, and where the executed copy is. error_name: its exception."""

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

    The parameters are checked before a kernel starts. Without `cwd` the kernel runs in the project that the notebook
    lies in, else in the current folder. Times, paths and random ids are taken out, so two executions of the same state
    give the same bytes.
    Raises BadInput for an unknown parameter or an unreadable notebook, and NotebookFailed when a cell raises; the
    copy with the error is then kept beside `out` as NAME.failed.ipynb.
    """
    try:
        Path.home()  # Jupyter keeps files there
    except RuntimeError:
        raise BadInput("notebook: this user has no home folder; set HOME to a folder") from None
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # it warns of parameters whose lines it cannot read; `_check` has read them
    logging.getLogger("papermill").setLevel(logging.ERROR)
    source = _read(notebook)
    root = cwd or project_root(notebook.absolute().parent)
    with contextlib.chdir(root):
        given = _check(source, notebook.name, parameters or {})
    failed = out.with_name(f"{out.stem}.failed.ipynb")
    make_folder(out.parent)
    if out.is_dir():
        raise BadInput(f"--out {str(out)!r}: is a folder")
    with told(f"write {out.name}", out.parent), tempfile.NamedTemporaryFile(dir=out.parent):
        pass  # before tens of minutes are spent on what could not be written
    with tempfile.TemporaryDirectory() as scratch, patch.dict(os.environ, KERNEL):
        copy = Path(scratch) / "copy.ipynb"
        try:
            executed = papermill.execute_notebook(
                source,
                copy,
                given,
                kernel_name="python3",
                progress_bar=not quiet,
                cwd=root,
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
                coalesce_streams=True,  # how printed text is cut into pieces depends on time
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            executed = _read(copy)
            begun = [cell for cell in executed.cells if cell.metadata.papermill.get("status") != "pending"]
            raised = [cell for cell in begun if cell.metadata.papermill.get("exception")]
            where = f"notebook {notebook.name}, cell {_name((raised or begun[-1:])[0])}"
            if isinstance(error, DeadKernelError):
                died = f"{where}: the kernel died (killed, or out of memory)"
                raise NotebookFailed(died, "DeadKernelError") from None
            atomic_write(failed, _clean(executed))
            what = f"{error.ename}: {(str(error.evalue).splitlines() or [''])[0][:400]}"
            raise NotebookFailed(f"{where}: {what} (executed copy: {failed})", error.ename) from None
        atomic_write(out, _clean(executed))
    failed.unlink(missing_ok=True)
    return out


def _read(notebook: Path) -> Any:
    """The notebook with papermill's metadata; papermill is not given the path, as it would fill in its braces."""
    import nbformat
    from papermill.iorw import load_notebook_node

    try:
        source = load_notebook_node(str(notebook))
        nbformat.validate(source)
    except OSError as error:
        raise BadInput(f"notebook {str(notebook)!r}: {error.strerror or 'cannot be read'}") from None
    except (nbformat.ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise BadInput(f"notebook {str(notebook)!r} is not a notebook file: {reason}") from None
    source.metadata.setdefault(
        "kernelspec", {"name": "python3", "language": "python", "display_name": "Python 3"}
    )
    return source


def _check(source: Any, name: str, given: Mapping[str, object]) -> dict[str, object]:
    """The given parameters as plain values, after a look at the notebook's parameters cell."""
    known = _parameters(source, name) if given else []
    for parameter in given:
        if parameter not in known or parameter not in NotebookParameters.model_fields:
            raise BadInput(
                f"notebook {name}: {parameter} is not a parameter; accepted: {', '.join(known) or 'none'}"
            )
    checked = validated(NotebookParameters, dict(given), f"notebook {name}")
    return checked.model_dump(mode="json", include=set(given))


def _parameters(source: Any, name: str) -> list[str]:
    """The names that the parameters cell gives values to, whatever the values and their types look like."""
    tagged = [cell for cell in source.cells if "parameters" in cell.metadata.get("tags", [])]
    try:
        body = ast.parse(tagged[0].source).body if tagged else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadInput(f"notebook {name}: its parameters cell is not plain Python") from None
    plain = [target for line in body if isinstance(line, ast.Assign) for target in line.targets]
    targets = [*plain, *(line.target for line in body if isinstance(line, ast.AnnAssign))]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _name(cell: Any) -> str:
    """What to call a cell in a message: its own name, else its number and first line."""
    if name := cell.metadata.get("name"):
        return repr(str(name))
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"In [{cell.get('execution_count') or ' '}] ({first[:60]})"


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
    text = json.dumps(executed)
    widgets = executed.metadata.get("widgets", {}).values()
    for number, model in enumerate(model for group in widgets for model in group.get("state", {})):
        text = text.replace(model, f"{number:032x}")  # in the order in which the notebook made them
    return nbformat.writes(nbformat.from_dict(json.loads(text))) + "\n"
