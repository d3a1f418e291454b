"""Any task as a taskset and environment of `verifiers`: the task's verifier speaks as the user.

`verifiers` finds environments by the name of a top-level module, so a file beside your configuration names these two:

from rlheals.adapters.verifiers import Taskset, VerifierEnv
__all__ = ["Taskset", "VerifierEnv"]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rlheals.adapters.questions import GAMMA, Questions
from rlheals.errors import BadInput

try:
    import verifiers.v1 as vf
except ImportError as error:
    raise BadInput(f'verifiers 0.4 is needed ({error}): pip install -e ".[verifiers]"') from None


class TasksetConfig(vf.TasksetConfig):
    """`--env.taskset.*`: see `Questions`."""

    task_name: str = "general_points"
    split: str = "rl"
    seed: int = 0
    count: int | None = None
    attempts: int | None = None
    gamma: float = GAMMA
    options: dict[str, Any] = {}  # noqa: RUF012  (a pydantic field)


class Question(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    """Scored by the environment."""


class Taskset(vf.Taskset[Question, TasksetConfig]):
    """The questions; the id of a task is the item's."""

    def __init__(self, config: TasksetConfig) -> None:
        super().__init__(config)
        names = ("split", "seed", "count", "attempts", "gamma")
        chosen = {name: getattr(config, name) for name in names}
        self.questions = Questions(config.task_name, **chosen, **config.options)

    def load(self) -> Iterator[Question]:
        task = self.questions.task
        for item in self.questions.items.values():
            yield Question(vf.TaskData(id=item.id, name=item.id, prompt=task.prompt(item)), self.config.task)


class EnvConfig(vf.EnvConfig):
    """The player needs no tools and no sandbox: plain chat, from a process of this machine."""

    player: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"}, runtime={"type": "subprocess"})


class VerifierEnv(vf.Env[EnvConfig]):
    """An episode: an answer, what the verifier says of it as the user's next turn, the next answer."""

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        episode = self.taskset.questions.episode(task.data.id)
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated and (told := episode.answer(segment.last_reply)) is not None:
                segment = await interaction.turn(told)
            trace = interaction.trace
            trace.record_reward("reward", episode.finish())
            solved_at = episode.solved_at
            trace.record_metrics({"solved": float(solved_at > 0), "first_try": float(solved_at == 1)})
            trace.info["verdicts"] = [asdict(verdict) for verdict in episode.verdicts]
