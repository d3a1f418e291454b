"""What tasks do alike with a reply before they read it."""

from __future__ import annotations

import json


def spoken(reply: str) -> str | None:
    """What stands behind the last `</think>`; None where a thought is not closed.

    >>> spoken("<think>7?</think> 8"), spoken("8"), spoken("<think>7")
    (' 8', '8', None)
    """
    _, closed, answer = reply.rpartition("</think>")
    return None if not closed and "<think>" in answer else answer


def strict_json(text: str) -> object:
    """What strict JSON says, None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
