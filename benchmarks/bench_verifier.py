"""Verifier and solver, timed beside the reference's approach: `python benchmarks/bench_verifier.py [--strings N]`.

The reference lists a hand's solutions by writing every string and evaluating it, and compares a reply's value in
floating point. That approach is written here in our own words as the peer; Python's `eval` sees nothing but strings
that this file builds itself out of numbers from 1 to 13. JSON comes last; exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement, permutations, product
from typing import Any

from rlheals.tasks.base import Item
from rlheals.tasks.general_points import solver
from rlheals.tasks.general_points.formula import MAX_LENGTH, FormulaError, parse
from rlheals.tasks.general_points.task import GeneralPoints

ALL_VALUES = list(combinations_with_replacement(range(1, 14), 4))
LAYOUTS = (
    "{}{}{}{}{}{}{}",
    "({}{}{}){}{}{}{}",
    "({}{}{}{}{}){}{}",
    "{}{}({}{}{}){}{}",
    "{}{}({}{}{}{}{})",
    "{}{}{}{}({}{}{})",
    "({}{}{}){}({}{}{})",
)
SLOWEST_KEPT = 50
STEPS_PER_CHARACTER, STEPS_MORE = 5, 3


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--strings", type=int, default=1_000_000, help="random strings given to the parser"
    )
    arguments.add_argument("--hands", type=int, default=60, help="hands on which string enumeration is timed")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    report: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "processor": platform.machine()},
        "fuzz": fuzz(options.strings, options.seed),
        "table": solved_table(options.hands, options.seed),
        "grading": grading(options.seed),
    }
    report["passed"] = bool(
        report["fuzz"]["unexpected"] == 0
        and report["fuzz"]["over_the_work_bound"] == 0
        and report["table"]["disagreements"] == 0
        and report["table"]["load_seconds"] < 0.1
        and report["grading"]["disagreements_beyond_floating_point"] == 0
    )
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Random strings: what came of them, and the work they took in counted steps (never in seconds)."""
    outcomes = {"value": 0, "division by zero": 0, "not a formula": 0}
    unexpected = over = 0
    worst_ratio = 0.0
    slowest: list[tuple[float, str]] = []
    started = time.perf_counter()
    spent = 0.0
    for text in random_strings(count, seed):
        before = time.thread_time()
        try:
            parsed = parse(text)
            steps = parsed.steps
            outcomes["value" if parsed.value is not None else "division by zero"] += 1
        except FormulaError as error:
            steps = error.steps
            outcomes["not a formula"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            print(f"unexpected {type(error).__name__} for {text!r}", file=sys.stderr)
            unexpected += 1
            continue
        seconds = time.thread_time() - before
        spent += seconds
        if len(slowest) < SLOWEST_KEPT or seconds > slowest[0][0]:
            (heapq.heappush if len(slowest) < SLOWEST_KEPT else heapq.heapreplace)(slowest, (seconds, text))
        over += steps > STEPS_PER_CHARACTER * min(len(text), MAX_LENGTH) + STEPS_MORE
        worst_ratio = max(worst_ratio, steps / max(len(text), 1))
    return {
        "strings": count,
        "outcomes": outcomes,
        "unexpected": unexpected,
        "over_the_work_bound": over,
        "most_steps_per_character": round(worst_ratio, 2),
        "strings_per_cpu_second": round(count / spent),
        "slowest_cpu_milliseconds": round(max(slowest)[0] * 1e3, 3),
        "slowest_again_cpu_milliseconds": round(max(again(text) for _, text in slowest) * 1e3, 3),
        "seconds_with_making_the_strings": round(time.perf_counter() - started, 1),
    }


def again(text: str) -> float:
    """CPU seconds of one parse, the best of five: what the string costs, without what the machine did meanwhile."""
    best = math.inf
    for _ in range(5):
        before = time.thread_time()
        with contextlib.suppress(FormulaError):
            parse(text)
        best = min(best, time.thread_time() - before)
    return best


def random_strings(count: int, seed: int) -> Iterator[str]:
    """A quarter each: any Unicode, the formula's characters, spliced pieces, and real solutions with an edit."""
    draw = random.Random(seed)
    pieces = [
        "(",
        ")",
        "+",
        "-",
        "*",
        "/",
        "1",
        "8",
        "13",
        "24",
        "0",
        " ",
        "(1+1)",
        "**",
        "//",
        "1e3",
        "0x",
        "٣",
        "=",
        "\n",
    ]
    solutions = [text for values in draw.sample(ALL_VALUES, 200) for text in solver.solutions(values)]
    for index in range(count):
        kind = index % 4
        if kind == 0:
            yield "".join(chr(draw.randrange(0x2500)) for _ in range(draw.randrange(12)))
        elif kind == 1:
            yield "".join(draw.choices("0123456789+-*/() ", k=draw.randrange(40)))
        elif kind == 2:
            yield "".join(draw.choices(pieces, k=draw.randrange(30)))
        else:
            text = draw.choice(solutions)
            place = draw.randrange(len(text) + 1)
            yield text[:place] + draw.choice(pieces) + text[place + draw.randrange(2) :]


def solved_table(hands: int, seed: int) -> dict[str, Any]:
    """The shipped table and the exact solver, against writing and evaluating every string."""
    load = min(fresh_seconds() for _ in range(3))
    started = time.perf_counter()
    for values in ALL_VALUES:
        solver.solutions(values)
    all_exact = time.perf_counter() - started
    sample = random.Random(seed).sample(ALL_VALUES, hands)
    disagreements = 0
    seconds = []
    for values in sample:
        started = time.perf_counter()
        listed = set(strings_that_make_24(values))
        seconds.append(time.perf_counter() - started)
        disagreements += listed != set(solver.solutions(values))
    per_hand = statistics.mean(seconds)
    return {
        "hands": len(ALL_VALUES),
        "solvable": len(solver.solved_table()),
        "load_seconds": round(load, 5),
        "all_solutions_exact_seconds": round(all_exact, 3),
        "exact_milliseconds_per_hand": round(all_exact / len(ALL_VALUES) * 1e3, 3),
        "strings_milliseconds_per_hand": round(per_hand * 1e3, 1),
        "strings_all_hands_seconds_estimated": round(per_hand * len(ALL_VALUES), 1),
        "compared_hands": hands,
        "disagreements": disagreements,
        "times_faster": round(per_hand * len(ALL_VALUES) / all_exact),
        "times_faster_table": round(per_hand * len(ALL_VALUES) / load),
    }


def fresh_seconds() -> float:
    """Reading, checking and looking up the whole table in a new process, import of the solver included."""
    code = (
        "import time; t = time.perf_counter();"
        "from rlheals.tasks.general_points.solver import (solvable, solved_table); n = len(solved_table());"
        "print(time.perf_counter() - t)"
    )
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def strings_that_make_24(values: tuple[int, ...]) -> Iterator[str]:
    """The reference's solver in our own words: every string, evaluated, kept when it is 24 to 1e-9."""
    for (a, b, c, d), (x, y, z) in product(set(permutations(values)), product("+-*/", repeat=3)):
        for layout in LAYOUTS:
            text = layout.format(a, x, b, y, c, z, d)
            try:
                if math.isclose(eval(text), 24, rel_tol=1e-9):
                    yield text
            except ZeroDivisionError:
                continue


def grading(seed: int) -> dict[str, Any]:
    """Replies per second on right and wrong answers, ours and the reference's approach, and where they differ."""
    task = GeneralPoints()
    draw = random.Random(seed)
    items = draw.sample(task.items("id") + task.items("ood"), 400)
    work: list[tuple[Item, str]] = []
    for item in items:
        values = item.payload.values
        work += [(item, formula) for formula in draw.choices(solver.solutions(values), k=2)]
        work.append((item, "+".join(map(str, values))))
        work.append((item, "*".join(map(str, (*values[:3], 12)))))
    for item, _ in work:
        solver.solutions(item.payload.values)

    def by_floats(item: Item, formula: str) -> bool:
        numbers = sorted(map(int, "".join(c if c.isdigit() else " " for c in formula).split()))
        return numbers == sorted(item.payload.values) and eval(formula) == 24

    ours, our_seconds = timed(lambda: [task.grade(item, formula).solved for item, formula in work])
    floats, float_seconds = timed(lambda: [by_floats(item, formula) for item, formula in work])
    differing = [formula for (_, formula), a, b in zip(work, ours, floats, strict=True) if a != b]
    return {
        "replies": len(work),
        "grades_per_second": round(len(work) / our_seconds),
        "float_checks_per_second": round(len(work) / float_seconds),
        "float_checks_say_only": "solved or not: no reward, no feedback",
        "right_answers_that_floats_reject": sum("/" in formula for formula in differing),
        "disagreements_beyond_floating_point": sum("/" not in formula for formula in differing),
    }


def timed(call: Callable[[], list[bool]]) -> tuple[list[bool], float]:
    """The result, and the fastest of three calls in seconds."""
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - started)
    return result, best


if __name__ == "__main__":
    sys.exit(main())
