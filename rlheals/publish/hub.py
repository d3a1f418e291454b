"""A published folder on a hub account: the only place where this package writes to a network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlheals.errors import BadInput
from rlheals.publish import folder as published
from rlheals.publish.folder import MANIFEST
from rlheals.publish.licence import HUB_ID

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write (hf.co/settings/tokens)"


def ready(name: str) -> None:
    """BadInput when the name is none of a hub's or no token is at hand; asks nobody."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if not HUB_ID.fullmatch(name):
            raise HFValidationError("the form is OWNER/NAME")
        validate_repo_id(name)
    except HFValidationError as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"--hub {name!r:.120}: {reason}; accepted: OWNER/NAME such as ada/lab-seed-1, of letters, digits, - _ ."
        ) from None
    if get_token() is None:
        raise BadInput(f"--hub {name}: no token of the hub is at hand; {LOG_IN}")


def upload(folder: Path, name: str, private: bool) -> str:
    """Write a published folder to a model repository, made if it is not there; its address.

    The manifest goes last, so that what was interrupted never passes `check`; the same call goes on. BadInput, before
    anything is written, when the repository holds something else, or is public where a private one was asked for.
    """
    from huggingface_hub import HfApi

    manifest, api = published.check(folder), HfApi()
    with _told(name):
        api.create_repo(name, repo_type="model", private=True if private else None, exist_ok=True)
        if private and not api.repo_info(name, repo_type="model").private:
            raise BadInput(
                f"--hub {name}: is there already and public; make it private first, or take another name"
            )
        there = {file for file in api.list_repo_files(name, repo_type="model") if file != ".gitattributes"}
        ours = {*manifest.files, MANIFEST}
        if not there <= ours and not _is_ours(api, name, there):
            other = min(there - ours)
            raise BadInput(
                f"--hub {name}: is there already and holds {other!r:.80}, which is not from `rlheals publish`; take "
                "another name"
            )
        api.upload_folder(
            repo_id=name,
            repo_type="model",
            folder_path=folder,
            ignore_patterns=[MANIFEST],
            delete_patterns=sorted(there - ours) or None,
            commit_message=f"rlheals publish: {manifest.profile}, base seed {manifest.seed}",
        )
        api.upload_file(
            repo_id=name,
            repo_type="model",
            path_or_fileobj=folder / MANIFEST,
            path_in_repo=MANIFEST,
            commit_message="rlheals publish: manifest",
        )
    return f"https://huggingface.co/{name}"


def _is_ours(api: Any, name: str, there: set[str]) -> bool:
    """Whether what is on the hub has a manifest of ours that names all of it."""
    if MANIFEST not in there:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        file = api.hf_hub_download(name, MANIFEST, repo_type="model", local_dir=scratch)
        try:
            return there <= {*published.read(Path(file)).files, MANIFEST}
        except BadInput:
            return False


@contextmanager
def _told(name: str) -> Iterator[None]:
    """The errors of the hub and of the way to it as one line that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    client_error: Any = HfHubHTTPError.__bases__[0]  # of whichever HTTP client the library has
    try:
        yield
    except BadInput:
        raise
    except OfflineModeIsEnabled:
        raise BadInput(f"--hub {name}: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set; unset it") from None
    except LocalTokenNotFoundError:
        raise BadInput(f"--hub {name}: no token of the hub is at hand; {LOG_IN}") from None
    except GatedRepoError as error:
        raise BadInput(
            f"--hub {name}: access is restricted; ask for it on the hub ({_line(error)})"
        ) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        advice = {
            401: f"the hub does not accept the token; {LOG_IN}",
            403: f"this account may not write there; take a name of your own, or {LOG_IN}",
            404: "no such owner, or nothing that this account may see; check the name",
        }.get(status or 0, "the hub refused; the same command goes on later")
        raise BadInput(f"--hub {name}: {advice} ({_line(error)})") from None
    except (OSError, ValueError, client_error) as error:
        raise BadInput(
            f"--hub {name}: the hub cannot be reached or the upload broke off; the same command goes on later "
            f"({_line(error)})"
        ) from None


def _line(error: Exception) -> str:
    return " ".join((str(error).strip() or type(error).__name__).split())[:160]
