"""What a profile of a language model takes: memory, hours and disk, by arithmetic, before anything is loaded.

Bytes of one weight: w for the weight, w for its gradient, 2 w for AdamW's two running means; products in 16 bits beside
float32 weights keep a second copy in 16 bits. Hours: floating-point operations over a share of the card's peak, or
bytes read over a share of its bandwidth, whichever is longer; the shares are assumptions, stated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rlheals.engines.models import LOGITS, Precision
from rlheals.errors import BadInput
from rlheals.evaluation.evaluate import census_items
from rlheals.profiles.hardware import CORE, Gpu, Hardware, Shape
from rlheals.profiles.profile import Profile
from rlheals.tasks import load_task

GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LEARNING = 0.3
"""Assumed share of the peak that a forward and backward pass reach."""
READING = 0.6
"""Assumed share of the bandwidth that reading weights and cache reaches."""
SECONDS_PER_LAYER = 8e-4
"""Assumed time to start one layer's kernels for one token: what bounds small models."""
SINGLE = 0.125
"""Peak of products in float32 over that in 16 bits."""
SOLVED_AFTER = 3.0
"""Assumed attempts of an episode, on average."""
EMPTY = 1.0 * GB
"""Of a process that has begun to use a GPU."""


class Need(NamedTuple):
    """Of one stage: bytes of GPU memory at its peak, and seconds of all its runs together."""

    memory: float
    seconds: float


@dataclass(frozen=True)
class Budget:
    """stages: by name; disk: bytes of what is kept and of what a killed run goes on from."""

    parameters: int
    stages: dict[str, Need]
    disk: float

    @property
    def memory(self) -> float:
        """Bytes of GPU memory that the most demanding stage needs."""
        return max(need.memory for need in self.stages.values())

    @property
    def hours(self) -> float:
        """Of all stages, one after the other."""
        return sum(need.seconds for need in self.stages.values()) / 3600


def budget(profile: Profile, peak: float | None = None) -> Budget:
    """The arithmetic for one seed; BadInput for a profile that does not say what it is made for.

    peak: TFLOP/s of products in 16 bits that were measured, in place of the data sheet's.
    """
    shape, hardware = profile.shape, profile.hardware
    if shape is None or hardware is None or profile.model is None:
        raise BadInput(
            f"profile {profile.name}: has no model, shape and hardware; a lab model needs no arithmetic"
        )
    dtype = BYTES.get(profile.model.dtype, 2)
    card = hardware.card if peak is None else hardware.card._replace(peak=peak)
    sums = _Sums(profile, shape, hardware, card, dtype)
    stages = {"sft": sums.sft(), "census": sums.censuses()}
    if profile.rl_starts.starts:
        stages["rl"] = sums.rl()
    size = dtype * shape.parameters
    kept = 1 + len(profile.sft.checkpoints) + len(profile.rl_starts.starts) * profile.rl_starts.runs
    state = 3 * size  # weights and AdamW's means of the run in progress
    return Budget(shape.parameters, stages, kept * size + state)


@dataclass(frozen=True)
class _Sums:
    profile: Profile
    shape: Shape
    hardware: Hardware
    card: Gpu
    dtype: int

    @property
    def weights(self) -> float:
        return float(self.dtype * self.shape.parameters)

    def sft(self) -> Need:
        settings, width = self.profile.sft, self._width(self.profile.sft.precision)
        beside = 0.0 if settings.precision == "own" else 2.0 * self.shape.parameters
        tokens = self.hardware.prompt_tokens + self.hardware.answer_tokens
        kept = self._activations(settings.rows, tokens, settings.gradient_checkpointing, width)
        seen = settings.checkpoints[-1] * settings.batch * tokens
        seconds = self._learning(seen, settings.gradient_checkpointing, width)
        return Need(EMPTY + 4 * self.weights + beside + kept, seconds)

    def censuses(self) -> Need:
        settings, rl_starts = self.profile.evaluate, self.profile.rl_starts
        rows, attempts, answer = settings.rows, settings.attempts, settings.sampling.max_new_tokens
        width = self._width(settings.precision)
        hands = len(census_items(load_task(self.profile.task), settings))
        of_rl = len(rl_starts.starts) * (1 + rl_starts.runs) * rl_starts.decodes
        seconds = (len(self.profile.census_steps) + of_rl) * self._playing(
            rows, hands, attempts, answer, width
        )
        return Need(
            EMPTY + width * self.shape.parameters + self._cache(rows, attempts, answer, width), seconds
        )

    def rl(self) -> Need:
        settings = self.profile.rl_starts.rl
        answer, recomputed = settings.sampling.max_new_tokens, settings.gradient_checkpointing
        longest, usual = self._longest(settings.attempts, answer), self._longest(SOLVED_AFTER, answer)
        width, compared = self._width(settings.precision), 2 if settings.log_kl else 0
        beside = 0 if settings.precision == "own" else 2  # rounded for a pass, and for the engine
        copies = 4 * self.weights + (beside + compared) * width * self.shape.parameters
        at_once = max(
            self._activations(settings.micro_batch_size, longest, recomputed, width),
            self._cache(settings.play_rows, settings.attempts, answer, width),
            self._reading(longest, width) if settings.log_kl else 0.0,
        )
        iteration = self._playing(settings.play_rows, settings.episodes, SOLVED_AFTER, answer, width)
        iteration += settings.used_epochs * self._learning(settings.episodes * usual, recomputed, width)
        runs = len(self.profile.rl_starts.starts) * self.profile.rl_starts.runs
        return Need(EMPTY + copies + at_once, runs * settings.iterations * iteration)

    def _width(self, precision: Precision) -> int:
        """Bytes of the numbers that are multiplied."""
        return self.dtype if precision == "own" else 2

    def _longest(self, attempts: float, answer: int) -> float:
        return self.hardware.prompt_tokens + attempts * (answer + self.hardware.feedback_tokens)

    def _activations(self, rows: int, tokens: float, gradient_checkpointing: bool, width: int) -> float:
        """What the backward pass needs of the forward pass, and the logits: read, in float32, and their gradient.

        Of a layer, per token: 8 vectors of the hidden width, keys, values, and 4 of the feed-forward block's width, in
        numbers of so many bytes.
        """
        shape = self.shape
        layer = (8 * shape.hidden + 2 * shape.kv_width + 4 * shape.mlp) * width
        kept = (
            (shape.layers * shape.hidden * width + layer) if gradient_checkpointing else shape.layers * layer
        )
        return rows * tokens * (kept + shape.vocabulary * (width + 8))

    def _reading(self, tokens: float, width: int) -> float:
        """The logits from which a KL divergence is measured: as many rows as `models.rows_at_once` lets through, as the
        model gives them, in float32, and their log-probabilities."""
        rows = max(1, LOGITS // (tokens * self.shape.vocabulary))
        return rows * tokens * self.shape.vocabulary * (width + 8)

    def _cache(self, rows: int, attempts: float, answer: int, width: int) -> float:
        """Keys and values of so many episodes, and what drawing one token of each takes (float64, three times)."""
        per_token = 2 * self.shape.layers * self.shape.kv_width * width
        drawing = rows * self.shape.vocabulary * 24
        return rows * self._longest(attempts, answer) * per_token + drawing

    def _learning(self, tokens: float, gradient_checkpointing: bool, width: int) -> float:
        """Two operations per weight and token forward, four backward, two more to compute the forward pass again."""
        work = (8 if gradient_checkpointing else 6) * self.shape.parameters * tokens
        return work / self._speed(width)

    def _playing(self, rows: int, episodes: float, attempts: float, answer: int, width: int) -> float:
        """Token after token, so many episodes at a time; prompts and feedback cost little beside that."""
        chunks = -(-episodes // rows)
        read = width * self.shape.parameters / (READING * self.card.bandwidth * GB)
        multiplied = 2 * self.shape.parameters * min(rows, episodes) / self._speed(width)
        started = 0.0 if self.hardware.gpu == CORE else self.shape.layers * SECONDS_PER_LAYER
        return chunks * attempts * answer * max(read, multiplied, started)

    def _speed(self, width: int) -> float:
        """Floating-point operations per second."""
        return LEARNING * (1.0 if width == 2 else SINGLE) * self.card.peak * 1e12
