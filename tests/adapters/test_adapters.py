"""Tasks as environments of other frameworks: each framework's own loop must come to our verdicts, feedback, rewards."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import random
import re
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_models
import torch
import trl
from lab_helpers import FakeEngine

from rlheals.adapters.questions import GAMMA, Episode, Questions
from rlheals.adapters.trl import HOW, ForTRL
from rlheals.engines.hf import Sampling
from rlheals.errors import BadInput
from rlheals.evaluation import rollout
from rlheals.evaluation.dialects import Chat
from rlheals.tasks import load_task, task_names
from rlheals.training.rl.episodes import discounted, rewards
from rlheals.training.rl.settings import RLSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book/elsewhere.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
TASKS = task_names()


class Script:
    """Right at attempt 1, 2, 3 or never, by item; wrong in ways of all kinds before that."""

    def __init__(self, given: Questions, seed: int = 0) -> None:
        dice = random.Random(seed)
        wrong = ["", "no", '{"answer": 7}', *(given.task.answers(item)[0] for item in given.items.values())]
        self.prompts = {given.task.prompt(item): item.id for item in given.items.values()}
        self.replies = dict[str, list[str]]()
        for item in given.items.values():
            at = dice.randrange(4)
            right = [given.task.answers(item)[0]] if at else []
            self.replies[item.id] = [*dice.choices(wrong, k=at - 1 if at else 9), *right]

    def __call__(self, messages: list[str]) -> str:
        """The reply in a conversation of question, answer, feedback, answer, ..."""
        return self.replies[self.prompts[messages[0]]][len(messages) // 2]


def ours(given: Questions, script: Script) -> dict[str, rollout.Episode]:
    """The same replies through the loop that evaluation and RL use."""
    dialect = Chat(tiny_models.tokenizer("qwen2"), given.task)
    engine = FakeEngine(dialect.tokenizer, lambda key, attempt: dialect.reply(script.replies[key][attempt]))
    items = list(given.items.values())
    played = rollout.rollout(
        engine, dialect, given.task, items, [i.id for i in items], Sampling(), given.attempts
    )
    return {episode.item.id: episode for episode in played}


def verdicts(episode: rollout.Episode) -> list[Any]:
    return [attempt.verdict for attempt in episode.attempts]


def told(episode: rollout.Episode) -> list[str]:
    """The user's turns between the attempts, as our chat dialect writes them."""
    tokenizer = tiny_models.tokenizer("qwen2")
    turns = tokenizer.decode(episode.attempts[-1].prompt).split("<|im_start|>user\n")[2:]
    return [turn.split("<|im_end|>")[0] for turn in turns]


def both(name: str, **more: Any) -> tuple[dict[str, Any], Script, dict[str, rollout.Episode]]:
    chosen = {"split": "ood", "seed": 3, "count": 50, "attempts": 3, **more}
    given = Questions(name, **chosen)
    script = Script(given)
    return chosen, script, ours(given, script)


@pytest.mark.parametrize("name", TASKS)
def test_an_episode_has_the_verdicts_the_feedback_and_the_return_of_ours(name: str) -> None:
    chosen, script, expected = both(name)
    given = Questions(name, **chosen)
    assert len(given.items) == 50
    assert RLSettings().gamma == GAMMA
    for ident, episode in expected.items():
        played, said = given.episode(ident), []
        for reply in script.replies[ident]:
            if played.over:
                break
            said.append(played.answer(reply))
        assert played.verdicts == verdicts(episode)
        assert said == [*told(episode), None]
        assert played.solved_at == episode.solved_at
        assert played.reward == played.finish() == pytest.approx(discounted(rewards(episode), GAMMA))


def test_questions_follow_from_the_seed_and_no_default_is_ood() -> None:
    one, same, other = (list(Questions(seed=seed, count=20).items) for seed in (1, 1, 2))
    assert one == same != other
    assert {item.id for item in load_task("general_points").items("rl")} == {*Questions().items} > {*one}
    with pytest.raises(BadInput, match="split"):
        Questions(split="test")
    with pytest.raises(BadInput, match="is not among"):
        Questions(count=1).episode("ood/2-8-Q-K")
    for name in ("count", "attempts"):
        for number in (0, True, 2.0):
            with pytest.raises(BadInput, match=name):
                Questions(**{name: number})


def test_giving_up_does_not_pay() -> None:
    task = load_task("general_points")
    item = task.items("rl")[0]
    gave_up, tried = Episode(task, item, 5), Episode(task, item, 5)
    gave_up.answer("no")
    for _ in range(5):
        tried.answer("no")
    assert gave_up.finish() <= tried.finish()
    with pytest.raises(BadInput, match="over"):
        tried.answer("no")


# --- TRL: the real trainer, with a model that says what the script wants


def scripted_model(words: Any, reply: Callable[[str], str]) -> Any:
    """A tiny model whose `generate` continues every prompt as the script says."""
    made = tiny_models.model("qwen2", words, max_position_embeddings=16384)

    def generate(input_ids: torch.Tensor, **others: Any) -> torch.Tensor:
        said = [reply(words.decode(row)) for row in input_ids]
        tokens = [words(text + words.eos_token, add_special_tokens=False)["input_ids"] for text in said]
        width = max(map(len, tokens))
        padded = [row + [words.pad_token_id] * (width - len(row)) for row in tokens]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)

    made.generate = generate
    return made


def trained(folder: Path, given: ForTRL, reply: Callable[[str], str], **how: Any) -> dict[str, float]:
    """Reward by item id over one step of GRPOTrainer."""
    from datasets import Dataset

    words = tiny_models.tokenizer("qwen2")
    words.chat_template = (Path(trl.__file__).parent / "chat_templates/qwen3.jinja").read_text()
    args = trl.GRPOConfig(
        str(folder), num_generations=2, per_device_train_batch_size=2 * len(given.items), max_steps=1, use_cpu=True,
        max_completion_length=8000, report_to="none", save_strategy="no", disable_tqdm=True, temperature=1.0,
    )  # fmt: skip
    seen = dict[str, float]()

    class Watched(trl.GRPOTrainer):
        def _calculate_rewards(self, inputs: Any, *rest: Any) -> torch.Tensor:
            result = super()._calculate_rewards(inputs, *rest)
            seen.update(
                {row["item"]: float(value) for row, (value,) in zip(inputs, result.tolist(), strict=True)}
            )
            return result

    assert isinstance(given.dataset, Dataset)
    model = scripted_model(words, reply)
    Watched(model, args=args, train_dataset=given.dataset, processing_class=words, **how).train()
    return seen


@pytest.mark.slow
def test_the_reward_function_in_trl(tmp_path: Path) -> None:
    chosen, script, expected = both("general_points", count=4, attempts=1)
    given = ForTRL("general_points", **chosen)

    def reply(prompt: str) -> str:
        return script([next(known for known in script.prompts if known in prompt)])

    seen = trained(tmp_path, given, reply, reward_funcs=given.reward)
    assert seen == {ident: rewards(episode)[0] for ident, episode in expected.items()}


@pytest.mark.slow
def test_the_environment_in_trl(tmp_path: Path) -> None:
    chosen, script, expected = both("general_points", count=4)
    given, heard = ForTRL("general_points", **chosen), dict[str, list[str]]()

    def reply(prompt: str) -> str:
        question = next(known for known in script.prompts if known + HOW in prompt)
        answers = re.findall(r"<tool_response>\n(.*?)\n</tool_response>", prompt, flags=re.S)
        heard[script.prompts[question]] = answers
        if answers and answers[-1].endswith("The episode is over."):
            return "I am done."
        call = {"name": "answer", "arguments": {"reply": script([question] * (2 * len(answers) + 1))}}
        return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"

    seen = trained(tmp_path, given, reply, environment_factory=given.environment)
    for ident, episode in expected.items():
        assert seen[ident] == pytest.approx(discounted(rewards(episode), GAMMA))
        end = ("Correct. " if episode.solved_at else "") + "The episode is over."
        assert heard[ident] == [*told(episode), end]


@pytest.mark.parametrize("name", TASKS)
def test_what_trl_asks_of_reward_and_environment(name: str) -> None:
    chosen, script, expected = both(name)
    given = ForTRL(name, **chosen)
    rows, first = given.dataset.to_list(), []
    for row in rows:
        environment, episode = given.environment(), expected[row["item"]]
        environment.reset(**row)
        for reply in script.replies[row["item"]][:4]:  # one more than there are attempts
            environment.answer(reply)
        assert environment.episode.verdicts == verdicts(episode)
        assert environment.get_reward() == pytest.approx(discounted(rewards(episode), GAMMA))
        first.append([{"role": "assistant", "content": script.replies[row["item"]][0]}])
    scores = given.reward(completions=first, item=[row["item"] for row in rows], prompts=None)
    assert scores == [rewards(expected[row["item"]])[0] for row in rows]
    environment = given.environment()
    assert environment.get_reward() == 0.0
    environment.reset(item=rows[0]["item"])
    assert environment.answer({"formula": 7}).startswith(
        "That attempt failed: "
    )  # read from JSON by the framework


# --- inspect_ai


def mock(script: Script) -> Any:
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    def output(messages: list[Any], *others: Any) -> ModelOutput:
        made = ModelOutput.from_content("mockllm/model", script([message.text for message in messages]))
        made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return made

    return get_model("mockllm/model", custom_outputs=output)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_inspect_ai(name: str, tmp_path: Path) -> None:
    inspect_ai = pytest.importorskip("inspect_ai", reason="needs inspect_ai (the extra `inspect`)")
    from rlheals.adapters.inspect_ai import episodes
    from rlheals.evaluation.logs import read

    chosen, script, expected = both(name)
    given = Questions(name, **chosen)
    log = inspect_ai.eval(
        episodes(name, **chosen), model=mock(script), display="none", log_dir=str(tmp_path), log_format="json"
    )[0]
    assert log.status == "success"
    for sample in log.samples:
        episode = expected[sample.id]
        assert sample.target == list(given.task.answers(given.items[sample.id]))
        assert [message.text for message in sample.messages if message.role == "user"][1:] == told(episode)
        assert sample.store["verdicts"] == [vars(verdict) for verdict in verdicts(episode)]
        assert sample.scores["reward"].value == pytest.approx(discounted(rewards(episode), GAMMA))
        for number, verdict in enumerate(verdicts(episode), 1):
            assert f"{number}. {verdict.feedback}" in sample.scores["solved"].explanation
    (file,) = tmp_path.glob("*.json")
    wanted = {f"{ident} 1": episode.solved_at for ident, episode in expected.items()}
    assert read(file, "solved") == {item: at > 0 for item, at in wanted.items()}
    assert read(file, "first_try") == {item: at == 1 for item, at in wanted.items()}


# --- verifiers: the real environment, agent and interception server; the model is an endpoint of ours


@contextmanager
def endpoint(script: Script) -> Iterator[str]:
    """An OpenAI-compatible server that says what the script wants."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {
                "role": "assistant",
                "content": script([each["content"] for each in asked["messages"]]),
            }
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "scripted", "usage": usage}
            data = json.dumps({**body, "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *others: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def verifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The framework with the page's module, and a chat loop in this process: the one that ships downloads itself."""
    vf = pytest.importorskip("verifiers.v1", reason="needs verifiers (the extra `verifiers`)")
    import httpx

    class PlainChat(vf.Harness[vf.HarnessConfig]):
        SUPPORTS_RESUME, EXECUTES_CODE, NEEDS_CONTAINER = True, False, False

        async def launch(
            self, ctx: Any, trace: Any, runtime: Any, url: str, secret: str, mcp: Any, data: Any
        ) -> Any:
            prompt = self.resolve_prompt(data)[1]
            said = (
                [("user", prompt)]
                if isinstance(prompt, str)
                else [(each.role, each.content) for each in prompt]
            )
            body = {"model": ctx.model, "messages": [{"role": role, "content": text} for role, text in said]}
            async with httpx.AsyncClient(timeout=60) as client:
                headers = {"Authorization": f"Bearer {secret}"}
                (await client.post(f"{url}/chat/completions", json=body, headers=headers)).raise_for_status()
            return vf.ProgramResult(0, "", "")

    module = ModuleType("plain_chat")
    module.__dict__.update(__all__=["PlainChat"], PlainChat=PlainChat)
    monkeypatch.setitem(sys.modules, "plain_chat", module)
    (tmp_path / "rlheals_questions.py").write_text(next(text for text in SNIPPETS if "__all__" in text))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "rlheals_questions", raising=False)
    return vf


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_verifiers(name: str, verifiers: Any) -> None:
    chosen, script, expected = both(name)
    taskset = {"id": "rlheals_questions", "task_name": name, **chosen}
    config = verifiers.resolve_env_config({"taskset": taskset, "player": {"harness": {"id": "plain_chat"}}})
    environment = verifiers.load_environment(config)

    async def played(url: str) -> list[Any]:
        client = verifiers.EvalClientConfig(base_url=url, api_key_var="NO_SUCH_KEY")
        context = verifiers.ModelContext("scripted", client)
        async with environment.serving():
            return await asyncio.gather(
                *(environment.run_episode(task, context) for task in environment.taskset)
            )

    with endpoint(script) as url:
        found = asyncio.run(played(url))
    assert len(found) == 50
    for episode in found:
        (trace,) = episode.traces
        assert episode.ok, (episode.errors, trace.errors)
        wanted = expected[episode.task.data.id]
        asked = [node.message.content for node in trace.nodes if node.message.role == "user"]
        assert asked[1:] == told(wanted)
        assert trace.info["verdicts"] == [vars(verdict) for verdict in verdicts(wanted)]
        assert trace.rewards["reward"].score == pytest.approx(discounted(rewards(wanted), GAMMA))
        assert trace.metrics == {"solved": wanted.solved_at > 0, "first_try": wanted.solved_at == 1}


# --- the page


def test_the_pages_command_for_verifiers(verifiers: Any) -> None:
    from verifiers.v1.cli.eval.main import main

    command = next(line for line in PAGE.splitlines() if line.startswith("vf-eval ")).split()[1:]
    given = Questions("navigation", split="held_out")
    with endpoint(Script(given)) as url:
        here = [
            "--env.player.harness.id",
            "plain_chat",
            "--client.base-url",
            url,
            "--client.api-key-var",
            "NO_SUCH_KEY",
        ]
        main([*command, *here, "--no-rich", "-o", "out"])
    (file,) = Path("out").rglob("traces.jsonl")
    traces = [trace for line in file.read_text().splitlines() for trace in json.loads(line)["traces"]]
    assert len(traces) == 20
    assert all("reward" in str(trace["rewards"]) and not trace.get("errors") for trace in traces)


def test_the_pages_command_for_inspect_ai(tmp_path: Path) -> None:
    """As the framework's command line reads it: a task by its name in the registry, which an entry point fills."""
    inspect_ai = pytest.importorskip("inspect_ai", reason="needs inspect_ai (the extra `inspect`)")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    importlib.import_module(project["entry-points"]["inspect_ai"]["rlheals"])
    command = next(line for line in PAGE.splitlines() if line.startswith("inspect eval ")).split()[2:]
    options = dict(word.split("=") for word in command if "=" in word)
    options["count"] = int(options["count"])
    script = Script(Questions(options["task"], split=options["split"]))
    log = inspect_ai.eval(
        command[0], task_args=options, model=mock(script), display="none", log_dir=str(tmp_path)
    )[0]
    assert (log.status, len(log.samples)) == ("success", 20)


@pytest.mark.slow
def test_the_pages_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models that they name are those of the test."""
    monkeypatch.chdir(tmp_path)
    small = functools.partial(trl.GRPOConfig, use_cpu=True, max_completion_length=8, report_to="none")
    monkeypatch.setattr(trl, "GRPOConfig", small)
    names = dict[str, Any]()
    tried = 0
    for snippet in SNIPPETS:
        if "__all__" in snippet:
            continue  # written into a file by the tests of verifiers
        if "inspect_ai" in snippet:
            pytest.importorskip("inspect_ai", reason="needs inspect_ai (the extra `inspect`)")
            monkeypatch.setenv("INSPECT_DISPLAY", "none")
            model = mock(Script(Questions("determinant_rules", split="ood", seed=1, count=20)))
        else:
            model = qwen_here(tmp_path / "model")
        exec(re.sub(r'^model = ".*"$', "", snippet, flags=re.M), names | {"model": model}, names)
        tried += 1
    assert tried == 4
    assert names["log"].status == "success"
    assert names["reward"] <= 5


def qwen_here(folder: Path) -> str:
    if not folder.exists():
        tiny_models.folder(folder, "qwen2", max_position_embeddings=16384)
        template = Path(trl.__file__).parent / "chat_templates/qwen3.jinja"
        (folder / "chat_template.jinja").write_text(template.read_text())
    return str(folder)


@pytest.mark.parametrize("name", ["verifiers", "inspect_ai"])
def test_without_the_package_one_line_names_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [*sys.modules]:
        if module.split(".")[0] == name or module == f"rlheals.adapters.{name}":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match=r'pip install -e ".\[\w+\]"') as caught:
        importlib.import_module(f"rlheals.adapters.{name}")
    assert "\n" not in str(caught.value)
