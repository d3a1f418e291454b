"""What every engine must do, asked of both: agreement with plain forward passes, the right distribution, new weights.

The reference is a forward pass of transformers without padding, cache or batch; it shares no code with the engines.
vLLM's half runs where vLLM is installed; `make test-vllm` installs it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from conftest import TINY
from lab_helpers import refused
from transformers import PreTrainedModel
from vllm_here import NEEDS_VLLM

from rlheals.engines import load_engine, models
from rlheals.engines.hf import Engine, HFEngine, Sampling, refresh
from rlheals.engines.models import SHIPPED_BASE
from rlheals.engines.vllm import VLLMEngine
from rlheals.evaluation.rollout import rollout
from rlheals.tasks.general_points.cards import OOD_RULE
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints

VLLM = pytest.param("vllm", marks=NEEDS_VLLM)
GREEDY, WARM = Sampling(temperature=0), Sampling(temperature=0.7)
LAST_BITS = 1e-4  # float32 logits reach 20, and vLLM's kernels add up in another order
Record = Callable[[str, object], None]


@dataclass
class Subject:
    """An engine, and the same weights as a transformers model."""

    engine: Engine
    model: PreTrainedModel
    folder: Path


@pytest.fixture(scope="module")
def qwen2(dialect: Compact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Qwen2 with two query heads per key head, biases and a tied head; likely tokens stand out."""
    shape = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 256, "dtype": "float32"}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = tiny_models.model("qwen2", dialect.tokenizer, seed=2, tied=True, **shape)
        for parameter in model.parameters():
            parameter.mul_(4).add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("qwen2")
    models.save(folder, model, dialect.tokenizer)
    return folder


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def folder(request: pytest.FixtureRequest, qwen2: Path) -> Path:
    """The base that ships with the package, or that Qwen2."""
    return SHIPPED_BASE if request.param == "llama" else qwen2


@pytest.fixture(scope="module", params=["hf", VLLM])
def subject(request: pytest.FixtureRequest, folder: Path) -> Iterator[Subject]:
    if request.param == "vllm":
        engine = load_engine(folder, "vllm")
        assert isinstance(engine, VLLMEngine)
        yield Subject(engine, models.load(folder), folder)
        engine.close()
    else:  # small chunks, so that the tests stay fast
        hf = HFEngine(models.load(folder), models.load_tokenizer(folder), rows=32)
        yield Subject(hf, models.load(folder), folder)


@pytest.fixture(scope="module")
def asked(dialect: Compact, task: GeneralPoints) -> tuple[list[list[int]], list[str]]:
    """Prompts of 13 to 220 tokens (first tries to long episodes), and a key for each."""
    items, prompts = random.Random(5).sample(task.items("id") + task.items("ood"), 48), []
    for number, item in enumerate(items):
        values = item.payload.values
        wrong = dialect.answer(values, "+".join(map(str, values)), "plain") + dialect.encode(
            "wrong value answer"
        )
        prompt = dialect.prompt(item)
        while len(prompt) + len(wrong) < 45 * (number % 5):
            prompt = prompt + wrong
        prompts.append(prompt)
    assert max(map(len, prompts)) > 140  # more than one block of vLLM's prefix cache
    return prompts, [f"3/{item.id}/{number}" for number, item in enumerate(items)]


def plain_logits(model: PreTrainedModel, prompt: list[int], written: tuple[int, ...]) -> torch.Tensor:
    """The logits that every written token was chosen from, (tokens, words), float64."""
    with torch.inference_mode():
        whole = model(input_ids=torch.tensor([[*prompt, *written]]), use_cache=False).logits[0].double()
    return whole[len(prompt) - 1 : -1]


def greedy_gaps(subject: Subject, asked, record: Record | None = None) -> np.ndarray:
    """By how much every greedy token falls short of the likeliest one, and its log-probability of the reference's."""
    gaps, differences = [], []
    for prompt, made in zip(asked[0], subject.engine.generate(*asked, GREEDY), strict=True):
        logp = plain_logits(subject.model, prompt, made.tokens).log_softmax(-1)
        chosen = logp[range(len(made.tokens)), list(made.tokens)]
        gaps.extend((logp.max(-1).values - chosen).tolist())
        differences.extend((chosen.numpy() - made.logprobs).tolist())
    if record is not None:
        record("tokens", len(gaps))
        record("tokens_other_than_the_likeliest", int((np.array(gaps) > 0).sum()))
        record("largest_logprob_difference", float(np.abs(differences).max()))
    return np.abs([gaps, differences])


# --- agreement with plain forward passes


def test_greedy_tokens_and_logprobs_are_those_of_the_plain_model(
    subject: Subject, asked, record_property: Record
) -> None:
    gaps = greedy_gaps(subject, asked, record_property)
    assert gaps.shape[1] > 400
    assert gaps.max() < LAST_BITS


@pytest.mark.parametrize("temperature", [0, 0.3, 1.0, 2.0])
def test_logprobs_and_entropies_are_those_of_the_distribution_sampled_from(
    subject: Subject, asked, temperature: float
) -> None:
    for prompt, made in zip(
        asked[0], subject.engine.generate(*asked, Sampling(temperature=temperature)), strict=True
    ):
        logp = torch.log_softmax(
            plain_logits(subject.model, prompt, made.tokens) / (temperature or 1), -1
        ).numpy()
        assert made.logprobs.shape == made.entropies.shape == (len(made.tokens),)
        assert made.logprobs.dtype == made.entropies.dtype == np.float64
        wanted = logp[range(len(made.tokens)), list(made.tokens)]
        assert np.abs(made.logprobs - wanted).max() < LAST_BITS / min(1.0, temperature or 1.0)
        assert np.abs(made.entropies + (np.exp(logp) * logp).sum(-1)).max() < 10 * LAST_BITS


def test_an_end_token_ends_an_answer_a_long_one_is_cut_and_one_that_just_fits_is_given(
    subject: Subject, asked
) -> None:
    end = subject.engine.tokenizer.eos_token_id
    whole = subject.engine.generate(*asked, Sampling(temperature=4))
    assert {made.tokens[-1] == end for made in whole} == {True, False}
    for made in whole:
        assert end not in made.tokens[:-1]
        assert made.tokens[-1] == end or len(made.tokens) == 28
    short = subject.engine.generate(*asked, Sampling(temperature=2, max_new_tokens=5))
    assert all(len(made.tokens) == 5 or made.tokens[-1] == end for made in short)
    (made,) = subject.engine.generate([[5] * 228], ["k"], WARM)
    assert 1 <= len(made.tokens) <= 28


# --- the noise


def p_value(counts: np.ndarray, probabilities: np.ndarray, draws: int = 9_999) -> float:
    """How often true draws fit worse. Pearson's statistic against simulated ones: rejecting below alpha errs at a
    rate of at most alpha, however small the cells."""
    size = int(counts.sum())
    expected = size * probabilities
    simulated = np.random.default_rng(1).multinomial(size, probabilities, size=draws)
    statistic = ((simulated - expected) ** 2 / expected).sum(1)
    return float((1 + (statistic >= ((counts - expected) ** 2 / expected).sum()).sum()) / (1 + draws))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("position", [0, 1])
def test_tokens_follow_the_softmax(
    subject: Subject,
    dialect: Compact,
    task: GeneralPoints,
    temperature: float,
    position: int,
    record_property: Record,
) -> None:
    """The first tokens, and the second ones after the commonest first: noise of one position must not serve twice."""
    item = task.item(("3", "5", "9", "Q"), OOD_RULE)
    prompt = dialect.prompt(item) + dialect.encode("3 5 9 12 so")  # here a formula begins
    keys, how = [f"softmax/{n}" for n in range(2048)], Sampling(temperature=temperature, max_new_tokens=2)
    made = subject.engine.generate([prompt] * 2048, keys, how)
    firsts = [generation.tokens[0] for generation in made]
    common = max(set(firsts), key=firsts.count)
    if position == 0:
        drawn, before = firsts, []
    else:
        drawn, before = [one.tokens[1] for one in made if one.tokens[0] == common], [common]
    assert len(drawn) > 200
    logits = plain_logits(subject.model, [*prompt, *before], (0,))[0]
    probabilities = torch.softmax(logits / temperature, -1).numpy()
    found = p_value(np.bincount(drawn, minlength=len(probabilities)), probabilities / probabilities.sum())
    record_property("p_value", found)
    assert found > 1e-3
    assert p_value(np.bincount(drawn, minlength=39), np.full(39, 1 / 39)) < 1e-3, "this test sees nothing"


def test_the_same_key_gives_the_same_tokens_and_another_key_others(subject: Subject, asked) -> None:
    prompt = asked[0][0]
    keys = [f"key {number}" for number in range(40)]
    once, again = (subject.engine.generate([prompt] * 40, keys, Sampling(temperature=2)) for _ in range(2))
    assert [made.tokens for made in once] == [made.tokens for made in again]
    assert len({made.tokens for made in once}) > 20
    twins = subject.engine.generate([prompt] * 2, ["one"] * 2, WARM)
    assert twins[0].tokens == twins[1].tokens
    cold = subject.engine.generate([prompt] * 40, keys, GREEDY)
    assert len({made.tokens for made in cold}) == 1


def test_order_and_company_change_hardly_any_answer(subject: Subject, asked, record_property: Record) -> None:
    """Noise belongs to the key. The last bits of logits may change with the batch, and a token in a hundred thousand
    with them; the Hugging Face engine promises more, see test_engines.py."""
    prompts, keys = asked
    whole = subject.engine.generate(prompts, keys, WARM)
    places = random.Random(4).sample(range(len(prompts)), 40)
    parts = [places[:25], places[25:39], places[39:]]
    others = 0
    for part in parts:
        made = subject.engine.generate([prompts[i] for i in part], [keys[i] for i in part], WARM)
        others += sum(whole[i].tokens != one.tokens for i, one in zip(part, made, strict=True))
    record_property("answers_that_changed", others)
    assert others <= 1


# --- episodes


def test_a_greedy_rollout_is_the_one_of_the_plain_model(
    subject: Subject, dialect: Compact, task: GeneralPoints
) -> None:
    """The multi-turn loop hands pasts around; an engine that remembers by itself gives the same episodes."""
    items = random.Random(6).sample(task.items("ood"), 12)
    keys = [item.id for item in items]
    reference = HFEngine(subject.model, subject.engine.tokenizer, rows=16, remember=False)
    ours, theirs = (
        rollout(engine, dialect, task, items, keys, GREEDY, attempts=3)
        for engine in (subject.engine, reference)
    )
    assert sum(len(episode.attempts) for episode in ours) > 15
    for one, other in zip(ours, theirs, strict=True):
        assert [a.generation.tokens for a in one.attempts] == [a.generation.tokens for a in other.attempts]
        assert one.solved_at == other.solved_at


# --- weights


def changed(subject: Subject) -> PreTrainedModel:
    """Other weights in every kind of layer: what one of them kept from before would show."""
    model = models.load(subject.folder)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(9)
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))
    return model


def test_new_weights_give_the_answers_of_the_plain_model_with_those_weights(
    subject: Subject, asked, tmp_path: Path, record_property: Record
) -> None:
    before = subject.engine.generate(*asked, GREEDY)
    other = changed(subject)
    refresh(subject.engine, other)  # as a trainer does before every update
    try:
        gaps = greedy_gaps(Subject(subject.engine, other, tmp_path), asked, record_property)
        assert gaps.max() < LAST_BITS
        after = subject.engine.generate(*asked, GREEDY)
        assert sum(one.tokens != two.tokens for one, two in zip(before, after, strict=True)) > len(before) / 2
    finally:
        subject.engine.load_weights(subject.folder / "model.safetensors")
    back = subject.engine.generate(*asked, GREEDY)
    assert [made.tokens for made in back] == [made.tokens for made in before]


def test_requests_and_weights_that_do_not_fit_are_refused_and_the_engine_goes_on(
    subject: Subject, asked, dialect: Compact, tmp_path: Path
) -> None:
    before = subject.engine.generate(*asked, GREEDY)
    models.save(tmp_path, models.create(TINY, dialect.tokenizer, 0))
    whole = (subject.folder / "model.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("model.safetensors", "half.safetensors", "missing.safetensors"):
        with refused():
            subject.engine.load_weights(tmp_path / name)
    prompts, keys = asked
    for bad_prompts, bad_keys, named in (
        (prompts[:3], keys[:2], "3 prompts but 2 keys"),
        ([prompts[0], []], keys[:2], "empty prompt"),
        ([prompts[0], [5] * 229], keys[:2], "256 positions"),
    ):
        with refused(named):
            subject.engine.generate(bad_prompts, bad_keys, WARM)
    assert subject.engine.generate([], [], WARM) == []
    after = subject.engine.generate(*asked, GREEDY)
    assert [made.tokens for made in before] == [made.tokens for made in after]


@pytest.mark.parametrize("backend", ["hf", VLLM])
def test_folders_without_a_usable_model_are_refused_on_one_line(backend: str, tmp_path: Path) -> None:
    for name in ("empty", "no weights", "pickle"):
        (tmp_path / name).mkdir()
    for file in SHIPPED_BASE.glob("*.json"):
        for name in ("no weights", "pickle"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pickle" / "pytorch_model.bin")
    for folder in ("./nowhere", tmp_path / "empty", tmp_path / "no weights", tmp_path / "pickle"):
        with refused():
            load_engine(folder, backend)  # type: ignore[arg-type]
