"""Files of settings that people write: profiles, claims, Slurm jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rlheals.errors import BadInput

MAX_BYTES = 100_000


def read_yaml(file: Path, said: str) -> dict[str, Any]:
    """The mapping in a YAML file; where it is none, BadInput with one line that begins with `said`."""
    try:
        large = file.stat().st_size > MAX_BYTES
        data = None if large else yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{said}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{said} is not YAML: {str(error).splitlines()[0]}") from None
    if large:
        raise BadInput(f"{said} has over {MAX_BYTES:,} bytes")
    if not isinstance(data, dict):
        raise BadInput(f"{said} has to be a YAML mapping of settings")
    return data
