"""How often the 95 % intervals of `rlheals.stats.intervals` contain the truth: a table, then JSON on the last line.

    python benchmarks/bench_coverage.py [--repetitions 5000] [--seed 0]

The truth is known without simulation.  An attempt succeeds if  m_h + seed + sampling seed + seed x hand + noise > 0,
all terms normal; averaged over terms of total variance v beside the noise, that has probability
Phi(m / sqrt(1 + v)).
Wilson and Newcombe are not simulated at all: every possible outcome is enumerated with its probability.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from rlheals.stats.intervals import Interval, newcombe, t_interval, wilson

FloatArray = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator], Interval]
RESAMPLES = 400

MEAN, HAND_SD = -0.6, 1.0
SEED_SD, SAMPLING_SD, SEED_BY_HAND_SD = 0.3, 0.1, 0.5
SAMPLINGS = 4


def success_rate(mean: float, variance: float) -> float:
    """Phi(mean / sqrt(1 + variance)): the share of successes over all normal terms of that total variance."""
    return NormalDist().cdf(mean / math.sqrt(1 + variance))


def accuracies(rng: np.random.Generator, seeds: int, hands: FloatArray) -> FloatArray:
    """Accuracy of every base seed in one repetition of the study: 4 sampling seeds; hands: latent ease, (hands,)."""
    shape = (seeds, SAMPLINGS, len(hands))
    latent = (
        hands
        + SEED_SD * rng.standard_normal((seeds, 1, 1))
        + SAMPLING_SD * rng.standard_normal((seeds, SAMPLINGS, 1))
        + SEED_BY_HAND_SD * rng.standard_normal((seeds, 1, len(hands)))
        + rng.standard_normal(shape)
    )
    return (latent > 0).mean(axis=(1, 2))


def fixed_hands(n: int) -> FloatArray:
    """A census: the same n hands in every repetition."""
    return MEAN + HAND_SD * np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])


HANDS = fixed_hands(100)
TRUTH = float(
    np.mean([success_rate(ease, SEED_SD**2 + SAMPLING_SD**2 + SEED_BY_HAND_SD**2) for ease in HANDS])
)


def t_over_seeds(seeds: int) -> tuple[float, Draw]:
    """The claims' interval: one accuracy per base seed, all hands evaluated."""
    return TRUTH, lambda rng: t_interval(accuracies(rng, seeds, HANDS))


def percentile_over_seeds(seeds: int) -> tuple[float, Draw]:
    """What is too short with few seeds: the plain percentile bootstrap of the per-seed values."""

    def draw(rng: np.random.Generator) -> Interval:
        values = accuracies(rng, seeds, HANDS)
        means = values[rng.integers(seeds, size=(RESAMPLES, seeds))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return Interval(float(values.mean()), float(low), float(high), n=seeds)

    return TRUTH, draw


SIMULATED = {f"t_interval, {n} seeds": t_over_seeds(n) for n in (3, 5, 9)}
TOO_SHORT = {f"plain percentile bootstrap, {n} seeds": percentile_over_seeds(n) for n in (3, 5, 9)}


def simulated_coverage(truth: float, draw: Draw, repetitions: int, seed: int) -> float:
    """Share of `repetitions` whose interval contains the truth."""
    rng = np.random.default_rng(seed)
    return sum(truth in draw(rng) for _ in range(repetitions)) / repetitions


def binomial_probabilities(n: int, rates: FloatArray) -> FloatArray:
    """P(k successes of n), (rates, n + 1)."""
    return binom.pmf(np.arange(n + 1), n, rates[:, None])


def wilson_coverage(n: int) -> FloatArray:
    """Exact coverage of `wilson` at 199 rates from .005 to .995."""
    rates = np.arange(1, 200) / 200
    intervals = [wilson(k, n) for k in range(n + 1)]
    low, high = (np.array([getattr(interval, end) for interval in intervals]) for end in ("low", "high"))
    inside = (low <= rates[:, None]) & (rates[:, None] <= high)
    return (binomial_probabilities(n, rates) * inside).sum(axis=1)


def newcombe_coverage(n1: int, n2: int) -> FloatArray:
    """Exact coverage of `newcombe` at 19 x 19 pairs of rates from .05 to .95."""
    rates = np.arange(1, 20) / 20
    pairs = [[newcombe(k1, n1, k2, n2) for k2 in range(n2 + 1)] for k1 in range(n1 + 1)]
    low, high = (np.array([[getattr(i, end) for i in row] for row in pairs]) for end in ("low", "high"))
    first, second = binomial_probabilities(n1, rates), binomial_probabilities(n2, rates)
    coverage = np.empty((19, 19))
    for i, j in np.ndindex(19, 19):
        difference = rates[i] - rates[j]
        # rates are multiples of 1/20: an end that meets the difference exactly must not depend on rounding
        inside = (low <= difference + 1e-12) & (difference - 1e-12 <= high)
        coverage[i, j] = first[i] @ inside @ second[j]
    return coverage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    exact = {f"wilson, n = {n}": wilson_coverage(n) for n in (10, 48, 234, 796)}
    exact |= {f"newcombe, n = {n1}, {n2}": newcombe_coverage(n1, n2) for n1, n2 in ((20, 30), (48, 48))}
    result: dict[str, dict[str, float]] = {}
    for name, coverage in exact.items():
        result[name] = {"coverage": float(coverage.mean()), "lowest": float(coverage.min())}
        print(f"{name:52s} {coverage.mean():.4f} (exact; lowest {coverage.min():.4f})", flush=True)
    for name, (truth, draw) in (SIMULATED | TOO_SHORT).items():
        coverage_share = simulated_coverage(truth, draw, options.repetitions, options.seed)
        error = math.sqrt(coverage_share * (1 - coverage_share) / options.repetitions)
        result[name] = {"coverage": coverage_share, "standard_error": error}
        print(f"{name:52s} {coverage_share:.4f} +- {error:.4f}", flush=True)
    seconds = time.perf_counter() - start
    print(
        json.dumps({"repetitions": options.repetitions, "seconds": round(seconds, 1), "level": 0.95} | result)
    )


if __name__ == "__main__":
    main()
