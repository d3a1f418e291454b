"""Engines: the same tokens whatever is asked beside them, the right distribution, agreement with plain forward."""

from __future__ import annotations

import math
import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab_helpers import refused, same_weights
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlheals.engines import load_engine, models
from rlheals.engines.hf import LARGE_VOCABULARY, Generation, HFEngine, Sampling, draw, uniforms
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.tasks.general_points.compact import Compact
from rlheals.tasks.general_points.task import GeneralPoints

WARM = Sampling(temperature=0.7)
GREEDY = Sampling(temperature=0)
LAST_BITS = 3e-5  # logits reach 20, where float32 resolves 2e-6, and four layers add up in another order


@pytest.fixture(scope="module")
def asked(dialect: Compact, task: GeneralPoints) -> tuple[list[list[int]], list[str]]:
    """Prompts of 13 to 100 tokens (first tries and retries), and a key for each."""
    draw_item, prompts = random.Random(3), []
    items = draw_item.sample(task.items("id") + task.items("ood"), 120)
    for number, item in enumerate(items):
        prompt = dialect.prompt(item)
        for _ in range(number % 4):
            values = item.payload.values
            wrong = dialect.answer(values, "+".join(map(str, values)), "plain")
            prompt = prompt + wrong + dialect.encode("wrong value answer")
        prompts.append(prompt)
    return prompts, [f"7/{item.id}/{number}" for number, item in enumerate(items)]


@pytest.fixture
def engine(base: PreTrainedModel, dialect: Compact) -> HFEngine:
    return HFEngine(base, dialect.tokenizer, rows=32)


def same(one: Generation, other: Generation) -> bool:
    """Tokens, log-probabilities and entropies, bit for bit."""
    return (
        one.tokens == other.tokens
        and one.logprobs.tobytes() == other.logprobs.tobytes()
        and one.entropies.tobytes() == other.entropies.tobytes()
    )


# A sequence depends on its own prompt and key only --------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [WARM, GREEDY], ids=["warm", "greedy"])
def test_order_company_and_repetition_change_no_bit(engine: HFEngine, asked, sampling: Sampling) -> None:
    prompts, keys = asked
    whole = engine.generate(prompts, keys, sampling)
    shuffle = random.Random(1)
    for size in (len(prompts), len(prompts), 50, 3, 1):
        chosen = shuffle.sample(range(len(prompts)), size)
        part = engine.generate([prompts[i] for i in chosen], [keys[i] for i in chosen], sampling)
        assert all(same(whole[i], made) for i, made in zip(chosen, part, strict=True))
    assert len({generation.tokens for generation in whole}) > 60


# Agreement with plain forward passes ----------------------------------------------------------------------------------


def plain_logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Logits after every token of one unpadded sequence, without a cache; float64."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()


def test_every_sampled_token_is_drawn_with_the_noise_of_its_own_key_and_position(
    engine: HFEngine, asked
) -> None:
    prompts, keys = asked
    drawn = 0
    for prompt, key, made in zip(prompts, keys, engine.generate(prompts, keys, WARM), strict=True):
        logits = plain_logits(engine.model, [*prompt, *made.tokens])[len(prompt) - 1 : -1]
        cumulative = torch.softmax(logits / WARM.temperature, -1).cumsum(-1)
        for row, token, noise in zip(cumulative, made.tokens, uniforms(key, len(made.tokens)), strict=True):
            below = float(row[token - 1]) if token else 0.0
            assert below - LAST_BITS <= noise <= float(row[token]) + LAST_BITS
            drawn += 1
    assert drawn > 1500


def test_other_batch_shapes_move_the_last_bits_and_flip_no_token(
    base: PreTrainedModel, dialect: Compact, asked
) -> None:
    """The benchmark of the census measures the same on more tokens."""
    prompts, keys = asked
    reference = HFEngine(base, dialect.tokenizer).generate(prompts, keys, WARM)
    tokens = flips = 0
    largest = 0.0
    for rows, bucket, size in ((1, 1, 20), (7, 8, 60), (32, 16, 120), (64, 64, 120), (128, 32, 120)):
        other = HFEngine(base, dialect.tokenizer, rows, bucket).generate(prompts[:size], keys[:size], WARM)
        for one, two in zip(reference, other, strict=False):
            tokens += len(two.tokens)
            if one.tokens == two.tokens:
                largest = max(largest, float(np.abs(one.logprobs - two.logprobs).max()))
            else:
                flips += 1
    assert tokens > 5000
    assert flips == 0  # wanted: fewer than 1e-5 per token
    assert largest < LAST_BITS


# What is remembered of an episode ------------------------------------------------------------------------------------


def continued(
    engine: HFEngine, asked, sampling: Sampling, dialect: Compact, chosen: list[int] | None = None
) -> list[list[Generation]]:
    """Three attempts of some prompts with feedback in between, as in a rollout; one list per attempt."""
    prompts, keys = asked
    chosen = list(range(len(prompts))) if chosen is None else chosen
    texts, pasts = [list(prompts[i]) for i in chosen], [None] * len(chosen)
    rounds = []
    for attempt in range(3):
        made = engine.generate(texts, [f"{keys[i]}/{attempt}" for i in chosen], sampling, pasts)
        rounds.append(made)
        pasts = [generation.past for generation in made]
        texts = [
            [
                *text,
                *generation.tokens,
                *dialect.encode("wrong value answer" if i % 3 else "wrong answer so so so"),
            ]
            for i, text, generation in zip(chosen, texts, made, strict=True)
        ]
    return rounds


@pytest.mark.parametrize("sampling", [WARM, GREEDY], ids=["warm", "greedy"])
def test_rows_that_have_ended_leave_and_change_no_bit(
    base: PreTrainedModel, dialect: Compact, asked, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside chunks that stay full to the end; where a machine's rows are not alike, every chunk does."""
    prompts, keys = asked
    full, lean = (HFEngine(base, dialect.tokenizer, rows=64, remember=True) for _ in range(2))
    full.__dict__["alike"] = False
    computed: list[int] = []
    forward = base.forward
    monkeypatch.setattr(
        base, "forward", lambda **given: computed.append(len(given["input_ids"])) or forward(**given)
    )
    wanted, all_rows = full.generate(prompts, keys, sampling), sum(computed)
    computed.clear()
    alike = lean.alike
    computed.clear()
    found = lean.generate(prompts, keys, sampling)
    assert (sum(computed) < 0.9 * all_rows) == alike
    for one, other in zip(found, wanted, strict=True):
        assert same(one, other)
        assert one.past is not None
        assert other.past is not None
        assert one.past.tokens == other.past.tokens
        assert all(map(torch.equal, one.past.states, other.past.states))


@pytest.mark.parametrize(
    "sampling", [WARM, Sampling(temperature=0.7, max_new_tokens=9)], ids=["ended", "cut"]
)
def test_remembering_changes_the_last_bits_and_no_token(
    base: PreTrainedModel, dialect: Compact, asked, sampling: Sampling
) -> None:
    engines = [HFEngine(base, dialect.tokenizer, remember=remember) for remember in (True, False)]
    short = [i for i, prompt in enumerate(asked[0]) if len(prompt) < 60]
    remembered, anew = (continued(engine, asked, sampling, dialect, short) for engine in engines)
    compared = 0
    for one, two in zip(chain(*remembered), chain(*anew), strict=True):
        assert one.past is not None
        assert two.past is None
        assert one.tokens == two.tokens
        assert float(np.abs(one.logprobs - two.logprobs).max()) < LAST_BITS
        compared += len(one.tokens)
    assert compared > 1000


def test_with_pasts_too_order_and_company_change_no_bit(
    base: PreTrainedModel, dialect: Compact, asked
) -> None:
    engine = HFEngine(base, dialect.tokenizer, rows=16)
    short = [i for i, prompt in enumerate(asked[0]) if len(prompt) < 60]
    whole = continued(engine, asked, WARM, dialect, short)
    shuffle = random.Random(2)
    for size in (len(short), 20, 1):
        places = shuffle.sample(range(len(short)), size)
        part = continued(engine, asked, WARM, dialect, [short[place] for place in places])
        for attempt in range(3):
            assert all(
                same(whole[attempt][place], made) for place, made in zip(places, part[attempt], strict=True)
            )


def test_a_past_has_to_be_the_beginning_of_its_prompt(engine: HFEngine, asked) -> None:
    prompts, keys = asked
    first = engine.generate(prompts[:2], keys[:2], WARM)
    longer = [[*prompt, *made.tokens, 5] for prompt, made in zip(prompts, first, strict=False)]
    wrong = [[7, *longer[0][1:]], longer[1]], [list(first[0].past.tokens), longer[1]]
    for texts in (*wrong, longer[::-1]):
        with refused("remembered"):
            engine.generate(texts, keys[:2], WARM, [made.past for made in first])


@pytest.mark.parametrize("remember", [True, False])
def test_a_beginning_is_read_once_and_changes_the_last_bits_and_no_token(
    base: PreTrainedModel, dialect: Compact, asked, remember: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for prompts of other lengths, for one that begins otherwise, for one that is the beginning itself, and for
    retries; whatever is asked beside it, a sequence keeps all its bits."""
    begin = asked[0][0][:13] + dialect.encode("wrong value answer so so so") * 8
    ends = [prompt for prompt in asked[0] if len(prompt) < 40]
    prompts = [[*begin, *prompt] for prompt in ends] + [begin, ends[0]]
    keys, engine = asked[1][: len(prompts)], HFEngine(base, dialect.tokenizer, rows=32, remember=remember)
    read: list[int] = []
    forward = base.forward

    def counted(**given: torch.Tensor) -> object:
        rows, columns = given["input_ids"].shape
        read.append(rows * columns if columns > 1 else 0)
        return forward(**given)

    monkeypatch.setattr(base, "forward", counted)
    engine.alike  # noqa: B018 (what tries it is not counted)
    read.clear()
    whole = engine.generate(prompts, keys, WARM)
    without = sum(read)
    read.clear()
    found = engine.generate(prompts, keys, WARM, beginning=begin)
    assert sum(read) < 0.75 * without
    for one, other in zip(found, whole, strict=True):
        assert one.tokens == other.tokens
        assert float(np.abs(one.logprobs - other.logprobs).max()) < LAST_BITS
    assert all(map(same, found[-2:], whole[-2:])), "what does not go on from the beginning is read as ever"
    places = random.Random(4).sample(range(len(prompts)), 11)
    few = engine.generate([prompts[i] for i in places], [keys[i] for i in places], WARM, beginning=begin)
    assert all(same(found[i], made) for i, made in zip(places, few, strict=True))
    again = [[*prompt, *made.tokens, 5] for prompt, made in zip(prompts, found, strict=True)]
    fits = [i for i, prompt in enumerate(again) if len(prompt) < 140]
    asking = [again[i] for i in fits], [keys[i] for i in fits], WARM
    retried = engine.generate(*asking, [found[i].past for i in fits], begin)
    for one, other in zip(retried, engine.generate(*asking), strict=True):
        assert one.tokens == other.tokens


def test_a_model_broken_for_a_while_leaves_no_trace(engine: HFEngine, asked) -> None:
    """The memory of a chunk is used again: numbers that are none must not outlive the weights that gave them."""
    prompts, keys = asked
    before = engine.generate(prompts[:40], keys[:40], WARM)
    weight = engine.model.model.layers[0].self_attn.k_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
        with pytest.raises(BadInput, match="logits are not finite"):
            engine.generate(prompts[:40], keys[:40], WARM)
        weight.copy_(kept)
    assert all(map(same, before, engine.generate(prompts[:40], keys[:40], WARM)))


def test_large_models_do_not_remember_unless_told_to(base: PreTrainedModel, dialect: Compact) -> None:
    wide = LlamaConfig(hidden_size=64, num_hidden_layers=8, num_attention_heads=4, head_dim=32, vocab_size=60)
    assert HFEngine(base, dialect.tokenizer).remember
    assert not HFEngine(LlamaForCausalLM(wide), dialect.tokenizer).remember  # 8 KiB per token
    assert HFEngine(LlamaForCausalLM(wide), dialect.tokenizer, remember=True).remember


# The noise and the draw -----------------------------------------------------------------------------------------------


def test_noise_is_uniform_and_differs_between_keys_positions_and_neighbours() -> None:
    table = np.stack([uniforms(f"3/id/A-5-J-K/{number}", 28) for number in range(4000)])
    assert table.min() >= 0
    assert table.max() < 1
    for position in range(28):
        counts = np.bincount((table[:, position] * 20).astype(int), minlength=20)
        assert chisquare(counts).pvalue > 1e-6
    correlations = np.corrcoef(table.T) - np.eye(28)
    assert np.abs(correlations).max() < 5 / math.sqrt(4000)
    across = np.corrcoef(table[:-1, 0], table[1:, 0])[0, 1]
    assert abs(across) < 5 / math.sqrt(4000)
    keys = ["1/a/0", "1/a/1", "11/a/0", "1/a/00", "", "é", "1/a/0 "]
    assert len({uniforms(key, 4).tobytes() for key in keys}) == len(keys)
    assert (uniforms("x", 100)[:7] == uniforms("x", 7)).all()


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=8),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.1, 5),
    st.sets(st.integers(0, 7), max_size=6),
)
def test_a_draw_inverts_the_cumulative_distribution(
    scores: list[float], noise: float, temperature: float, impossible: set[int]
) -> None:
    logits = torch.tensor([scores], dtype=torch.float64)
    for index in impossible:
        if index < len(scores) - 1:
            logits[0, index] = -math.inf
    token, logprob, entropy = draw(logits, torch.tensor([noise], dtype=torch.float64), temperature)
    p = torch.softmax(logits[0] / temperature, -1).tolist()
    chosen = int(token)
    assert p[chosen] > 0
    assert sum(p[:chosen]) <= noise + 1e-9
    assert sum(p[: chosen + 1]) >= noise - 1e-9
    assert math.isclose(float(logprob), math.log(p[chosen]), abs_tol=1e-6)
    assert math.isclose(float(entropy), -sum(q * math.log(q) for q in p if q > 0), abs_tol=1e-6)


# Weights and bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_large_vocabulary_is_drawn_from_alike(temperature: float) -> None:
    """By blocks beside the whole table in float64: the same tokens but where float32 cannot tell neighbours apart."""
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(400, LARGE_VOCABULARY + 1000, generator=random)
    logits[:, ::3] = -torch.inf
    noise = torch.rand(400, generator=random, dtype=torch.float64)
    noise[:2] = torch.tensor([0.0, 1 - 1e-16])
    token, logprob, entropy = draw(logits, noise, temperature)
    logp = torch.log_softmax(logits.double() / (temperature or 1.0), -1)
    torch.testing.assert_close(logprob, logp.gather(-1, token[:, None])[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, -(logp.exp() * logp.clamp(min=-1e4)).sum(-1), atol=1e-4, rtol=0)
    if temperature == 0:
        assert torch.equal(token, logits.argmax(-1))
        return
    ends = logp.exp().cumsum(-1)
    assert bool((ends.gather(-1, token[:, None])[:, 0] > noise - 1e-6).all())
    begins = ends.gather(-1, token[:, None])[:, 0] - logprob.exp()
    assert bool((begins < noise + 1e-6).all())
    assert bool(torch.isfinite(logprob).all())


def test_generating_changes_no_weight_and_needs_no_gradient(engine: HFEngine, asked) -> None:
    fresh = models.load(SHIPPED_BASE)
    engine.model.train()
    made = HFEngine(engine.model, engine.tokenizer).generate(*(part[:4] for part in asked), WARM)
    assert len(made) == 4
    assert not engine.model.training
    assert same_weights(engine.model, fresh)
    assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_engines_come_from_folders(tiny_folder: Path, tiny: PreTrainedModel, asked) -> None:
    engine = load_engine(tiny_folder)
    few = asked[0][:5], asked[1][:5], WARM
    assert all(map(same, engine.generate(*few), HFEngine(tiny, engine.tokenizer).generate(*few)))
    with refused("accepted: 'hf'"):
        load_engine(tiny_folder, backend="abacus")  # type: ignore[arg-type]
    with refused("folder or hub id"):
        load_engine(tiny)
