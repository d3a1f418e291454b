"""What every test stands on: one thread, no network, and models of a few thousand parameters."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", CI="true")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as a shell's background jobs do; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from play_page import javascript  # noqa: F401
from store_lab import lab  # noqa: F401
from transformers import PreTrainedModel

from rlheals.chapters.base import core
from rlheals.chapters.rl.runs import RLChapter
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.engines import models
from rlheals.engines.models import SHIPPED_BASE, ModelSettings
from rlheals.store.store import Store
from rlheals.study.compute import compute
from rlheals.study.plan import plan
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints

TINY = ModelSettings(hidden=16, layers=2, heads=2, mlp=24)


@pytest.fixture(scope="session")
def dialect() -> Compact:
    return Compact()


@pytest.fixture(scope="session")
def task() -> GeneralPoints:
    return GeneralPoints()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Runs of the small studies, for tests that are not about how runs come to be; shared by all test processes."""
    own = tmp_path_factory.getbasetemp()
    return Store((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared-store")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result files of the small study, computed without any disturbance."""
    from small_study import SMALL, results_of  # which needs what stands above

    store = Store(tmp_path_factory.mktemp("reference"))
    compute(plan(SMALL, 1, store).specs(), store, quiet=True)
    return results_of(store.root)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, dialect: Compact) -> dict[str, Path]:
    """Of an RL run: the shipped base, and what a few steps of SFT make of it (`step-00003`, ...)."""
    from rlheals.training import sft  # TRL takes seconds to import, which other tests need not wait for

    folder, model = tmp_path_factory.mktemp("start"), models.load(SHIPPED_BASE)

    def save(step: int) -> None:
        models.save(folder / "sft" / sft.checkpoint_name(step), model, dialect.tokenizer)

    models.save(folder / "pretrain/base", model, dialect.tokenizer)
    sft.train(model, dialect, sft.SFTSettings(checkpoints=(3, 10, 16), loss_examples=8), 0, save)
    return {"model": folder / "sft", "base": folder / "pretrain"}


@pytest.fixture
def tiny(dialect: Compact) -> PreTrainedModel:
    """An untrained model, fresh for every test."""
    return models.create(TINY, dialect.tokenizer, seed=1)


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny: PreTrainedModel, dialect: Compact) -> Path:
    """That model on disk, as a run holds it: model and tokenizer in one folder."""
    folder = tmp_path / "tiny"
    models.save(folder, tiny, dialect.tokenizer)
    return folder


@pytest.fixture
def base() -> PreTrainedModel:
    """The base that ships with the package, which does the task half of the time; fresh for every test."""
    return models.load(SHIPPED_BASE)


@pytest.fixture(scope="session")
def played(shared: Store) -> SFTChapter:
    """A fresh run of the small study with its RL, as the page "Play" shows it."""
    from small_study import SPIN  # which needs what stands above

    core([SFTChapter, RLChapter], SPIN, store=shared, quiet=True)
    return SFTChapter.open(SPIN, store=shared, quiet=True)
