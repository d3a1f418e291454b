"""Where a project's store and recorded study lie."""

from __future__ import annotations

import os
from pathlib import Path

STORE_FOLDER = ".rlheals"
RESULTS_FOLDER = "results"


def project_root(start: Path | None = None) -> Path:
    """The nearest folder from `start` (the current one) upwards that is a project: a store, or results and notebooks.

    The start itself when there is none. So a notebook finds store and recorded study, whether it was started in
    `notebooks/` or at the top. Above the start another user's store makes no project.
    """
    here = (start or Path.cwd()).absolute()
    return next((folder for folder in (here, *here.parents) if _is_project(folder, here)), here)


def project_store(start: Path | None = None) -> tuple[Path, Path | None]:
    """The folder of the project's store, there or not, and a nearer one that is not used since it is another user's."""
    here = (start or Path.cwd()).absolute()
    root = project_root(here)
    store = (root if _is_mine(root, here) else here) / STORE_FOLDER
    if _is_project(here, here):
        return store, None
    upwards = [folder for folder in here.parents if root == here or folder.is_relative_to(root)]
    others = [folder / STORE_FOLDER for folder in upwards if not _is_mine(folder, here)]
    return store, next((one for one in others if one.is_dir() or one.parent == root), None)


def _is_project(folder: Path, here: Path) -> bool:
    both = (folder / RESULTS_FOLDER).is_dir() and (folder / "notebooks").is_dir()
    return both or ((folder / STORE_FOLDER).is_dir() and _is_mine(folder, here))


def _is_mine(folder: Path, here: Path) -> bool:
    """Whether a folder above `here`, the store in it and the folders between are this user's; `here` is always taken.

    Whoever owns one of them may have put forged results there.
    """
    if folder == here or not hasattr(os, "geteuid"):
        return True
    between = [one for one in (here, *here.parents) if one.is_relative_to(folder)]
    return all(one.stat().st_uid == os.geteuid() for one in (*between, folder / STORE_FOLDER) if one.exists())
