"""Generation by a vLLM server: the GPUs that play are not those that train, and need not be in the same machine.

    rlheals serve ./model                              # there; started once, it stays
    export RLHEALS_VLLM_SERVER=http://127.0.0.1:8000   # here: whatever has `engine: vllm` asks it

Behind the same seam as `VLLMEngine`, which this process then does not need, nor vLLM. How the server was started is
checked when it is first asked. Every run gives it its own weights, so it can have been started with any of that shape.

- Weights go through files: the server has to see this machine's store and temporary folder (TMPDIR) at the same paths.
- A server plays for one run at a time. Weights are labelled; an answer that may be of another run's is an error.
- On a processor an output head that is tied to the embedding would keep its old weights: such models are refused there.
- Nobody is asked who they are: whoever reaches the port can exchange the weights. By default only this machine can.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlheals import models, sharded, vllm_asking
from rlheals.hf_engine import Engine, Generation
from rlheals.vllm_engine import VLLMEngine
from rlheals.vllm_http import Choice, Server

SERVER = "RLHEALS_VLLM_SERVER"
"""The environment variable with the server's address: where episodes are played is no part of a run's settings."""

AT_ONCE = 256  # requests in flight, each of them one sequence


class Closing(Engine, Protocol):
    """An engine that is closed when it is not needed any more."""

    def close(self) -> None: ...


def open_vllm(folder: Path, rows: int, cache_gb: float | None = None) -> Closing:
    """vLLM for a model's folder: the server that the environment names, or an engine in this process."""
    if address := os.environ.get(SERVER):
        return ServedEngine(address, folder, rows)
    return VLLMEngine(folder, rows, cache_gb=cache_gb)


class ServedEngine(vllm_asking.Asking):
    """The weights in a folder, played by the vLLM server at an address.

    Processes that train `together` open theirs together: one of them brings the weights, all of them ask.
    """

    def __init__(self, address: str, folder: Path, rows: int = AT_ONCE) -> None:
        self.tokenizer = models.load_tokenizer(folder)
        self.config = vllm_asking.read_config(folder)
        self._at_once = min(rows, AT_ONCE)
        self._server = Server(address, self._at_once)
        self.positions = self._checked()
        vllm_asking.refuse_unfit(self.config, folder, str(folder))
        self._exchange(folder)

    def close(self) -> None:
        """Close the connections; the server goes on, with the weights that it got last."""
        self._server.close()

    def load_weights(self, file: Path) -> None:
        """Replace the weights by those of a safetensors file with the same names and shapes."""
        with self._alone(file) as folder:
            self._exchange(folder)

    def _continued(self, asked: Sequence[tuple[Sequence[int], dict[str, Any]]]) -> list[Generation]:
        self._check_label()
        with ThreadPoolExecutor(self._at_once) as threads:
            made = list(threads.map(lambda one: self._server.continued(*one), asked))
        self._check_label()
        return [self._generation(choice) for choice in made]

    def _generation(self, choice: Choice) -> Generation:
        words, count = vllm_asking.words(self.config), len(choice.token_ids)
        own, others = choice.logprobs.token_logprobs, choice.logprobs.top_logprobs
        if not len(own) == len(others) == count or not all(len(row) >= words for row in others):
            raise self._server.error(f"{count} tokens came without the log-probabilities that were asked for")
        rows = [list(row.values()) if words else [] for row in others]
        table = np.array([[value, *row] for value, row in zip(own, rows, strict=True)])
        return vllm_asking.generation(choice.token_ids, table.reshape(count, -1))

    def _exchange(self, folder: Path) -> None:
        """Give the server the weights in a folder."""
        self._label = sharded.of_first(uuid.uuid4().hex)
        if sharded.rank() == 0:
            self._server.read_weights(str(folder.resolve()), self._label)
        sharded.wait()

    def _check_label(self) -> None:
        if self._server.label() != self._label:
            raise self._server.error("its weights are another run's by now; a server plays for one at a time")

    def _checked(self) -> int:
        """The server's longest episode; BadInput when it would say something else than `VLLMEngine` does."""
        said = self._server.info().vllm_config
        wanted = vllm_asking.started_with(self.config, False, self._at_once, None, None)
        found = {**said.model.model_dump(), **said.load_config.model_dump()}
        found["dtype"] = found["dtype"].removeprefix("torch.")
        for name in ("logprobs_mode", "generation_config", "load_format", "dtype"):
            if found[name] != wanted[name]:
                raise self._server.error(
                    f"{name} is {found[name]!r:.60}, not {wanted[name]!r}; `rlheals serve` starts it as it has to be"
                )
        if 0 <= said.model.max_logprobs < wanted["max_logprobs"]:
            raise self._server.error(
                f"it gives {said.model.max_logprobs} log-probabilities per token, not {wanted['max_logprobs']}; "
                "`rlheals serve` starts it as it has to be"
            )
        if said.device_config.device == "cpu" and getattr(self.config, "tie_word_embeddings", False):
            raise self._server.error(
                "on a processor the output head of this model, which is tied to its embedding, would keep its old "
                f"weights; without {SERVER} vLLM plays in this process"
            )
        return said.model.max_model_len
