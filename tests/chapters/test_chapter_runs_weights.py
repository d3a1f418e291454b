"""What holds of every recorded chapter, for those about weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from chapter_studies import recorded_study
from recorded_cases import *  # noqa: F403 (the tests of a recorded chapter)

from rlheals.store.store import Store


@pytest.fixture(scope="module", params=["rotation", "swaps"])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Store
) -> SimpleNamespace:
    return recorded_study(request.param, shared, tmp_path_factory.mktemp(request.param))
