"""Where a project's store and recorded study lie."""

from __future__ import annotations

from pathlib import Path

STORE_FOLDER = ".rlheals"
RESULTS_FOLDER = "results"


def project_root(start: Path | None = None) -> Path:
    """The nearest folder from `start` (the current one) upwards that is a project: a store, or results and notebooks.

    The start itself when there is none. So a notebook finds store and recorded study, whether it was started in
    `notebooks/` or at the top.
    """
    here = (start or Path.cwd()).absolute()

    def is_project(folder: Path) -> bool:
        both = (folder / RESULTS_FOLDER).is_dir() and (folder / "notebooks").is_dir()
        return both or (folder / STORE_FOLDER).is_dir()

    return next((folder for folder in (here, *here.parents) if is_project(folder)), here)
