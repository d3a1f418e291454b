"""Any task as a task of inspect_ai: `inspect eval rlheals/episodes -T task=navigation -T split=ood --model MODEL`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rlheals.adapters.questions import GAMMA, Questions
from rlheals.errors import BadInput

try:
    import inspect_ai as ai
    from inspect_ai import scorer as scoring
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageUser
    from inspect_ai.solver import Generate, Solver, TaskState, solver
except ImportError as error:
    raise BadInput(f'inspect_ai is needed ({error}): pip install -e ".[inspect]"') from None


@ai.task
def episodes(
    task: str = "general_points",
    split: str = "held_out",
    seed: int = 0,
    count: int | None = None,
    attempts: int | None = None,
    gamma: float = GAMMA,
    **options: Any,
) -> ai.Task:
    """Several attempts at every question, with the verifier's feedback between them; see `Questions`."""
    given = Questions(task, split, seed, count, attempts, gamma, **options)
    items, of = given.items.values(), given.task
    samples = [Sample(of.prompt(item), target=list(of.answers(item)), id=item.id) for item in items]
    return ai.Task(dataset=samples, solver=play(given), scorer=[solved(), first_try(), reward()])


@solver
def play(questions: Questions) -> Solver:
    """An answer, what the verifier says of it as the user's next message, the next answer."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        episode = questions.episode(str(state.sample_id))
        try:
            state = await generate(state)
            while (told := episode.answer(state.output.completion)) is not None:
                state.messages.append(ChatMessageUser(content=told))
                state = await generate(state)
        finally:  # a limit on tokens or messages ends it sooner
            state.store.set("reward", episode.finish())
            state.store.set("verdicts", [asdict(verdict) for verdict in episode.verdicts])
        return state

    return solve


def _scorer(name: str, metric: scoring.Metric, value: Callable[[TaskState], float]) -> Callable[[], Any]:
    """A scorer whose explanation is what the verifier said of every attempt."""

    def made() -> scoring.Scorer:
        async def score(state: TaskState, target: scoring.Target) -> scoring.Score:
            verdicts = enumerate(state.store.get("verdicts"), 1)
            told = "\n".join(f"{number}. {verdict['feedback']}" for number, verdict in verdicts)
            return scoring.Score(value=value(state), answer=state.output.completion, explanation=told)

        return score

    return scoring.scorer(metrics=[metric, scoring.stderr()], name=name)(made)


solved = _scorer("solved", scoring.accuracy(), lambda state: state.store.get("verdicts")[-1]["solved"])
first_try = _scorer("first_try", scoring.accuracy(), lambda state: state.store.get("verdicts")[0]["solved"])
reward = _scorer("reward", scoring.mean(), lambda state: state.store.get("reward"))
