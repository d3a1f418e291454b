"""What becomes of the text weights of a small Mllama model when its file is loaded in ways that do not fit its names.

Mllama is the architecture of Llama-3.2-11B-Vision. Nothing is downloaded or unpickled: the model is made here, saved as
safetensors, and loaded again with the installed transformers. `python -m rlheals.chapters.audit.loading FILE` records
the table, so that another version of transformers can be measured (book, "Reproducing").
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from rlheals.chapters.audit.spectra import SPREAD
from rlheals.errors import BadInput
from rlheals.store.code_hash import snapshot
from rlheals.store.files import atomic_write
from rlheals.store.machine import this_machine

RECORDED = Path("results/llama-loading.json")
"""Made with the version of transformers that the authors pinned."""
SHIFT = 1.0
"""Added to every weight before it is saved, so that no fresh initialisation can pass for it."""
TEXT: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "cross_attention_layers": [1], "max_position_embeddings": 32, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": SPREAD,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2, "intermediate_size": 16,
    "vision_output_dim": 32, "image_size": 8, "patch_size": 4, "max_num_tiles": 1, "intermediate_layers_indices": [0],
    "supported_aspect_ratios": [[1, 1]],
}  # fmt: skip

Tensors = Mapping[str, torch.Tensor]
OWN, AUTO, MEMORY, STRICT_FALSE = (
    "the class it was saved from",
    "AutoModelForCausalLM",
    "AutoModelForCausalLM, file with the names in memory",
    "load_state_dict(strict=False) into the text model",
)


def routes(seed: int = 0) -> pd.DataFrame:
    """Each way of loading, and what it leaves of the text weights.

    Columns: route, tensors (of the text model), kept, left_at_random, redrawn (of these: differ between two loads),
    spread (standard deviation of the matrices left at random about their mean; nan where there are none).
    """
    import transformers
    from transformers import (
        AutoModelForCausalLM,
        MllamaConfig,
        MllamaForCausalLM,
        MllamaForConditionalGeneration,
    )
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig

    with torch.random.fork_rng(devices=[]), _quiet(), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(seed)
        text = TEXT | _positions(transformers.__version__)
        model = MllamaForConditionalGeneration(MllamaConfig(text_config=text, vision_config=VISION))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(SHIFT)
        saved, renamed = Path(scratch) / "saved", Path(scratch) / "renamed"
        model.save_pretrained(saved)
        model.config.save_pretrained(renamed)
        in_memory = {name: one.contiguous() for name, one in model.state_dict().items()}
        save_file(in_memory, renamed / "model.safetensors", {"format": "pt"})

        def by_names() -> Any:
            alone = MllamaForCausalLM(MllamaTextConfig(**text))
            alone.load_state_dict(load_file(saved / "model.safetensors"), strict=False)
            return alone

        def by_class(kind: Any, folder: Path) -> Any:
            return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

        ways: dict[str, Callable[[], Any]] = {
            OWN: lambda: by_class(MllamaForConditionalGeneration, saved),
            AUTO: lambda: by_class(AutoModelForCausalLM, saved),
            MEMORY: lambda: by_class(AutoModelForCausalLM, renamed),
            STRICT_FALSE: by_names,
        }
        right = _text_weights(model.state_dict())
        rows = [
            {"route": name, **_compared(right, *(_text_weights(way().state_dict()) for _ in range(2)))}
            for name, way in ways.items()
        ]
    return pd.DataFrame(rows)


def _positions(version: str) -> dict[str, Any]:
    """Settings of rotary positions, which were named otherwise before transformers 5."""
    if int(version.split(".")[0]) >= 5:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
    return {"rope_theta": 10_000.0, "rope_scaling": {"rope_type": "default"}}


def _text_weights(weights: Tensors) -> dict[str, torch.Tensor]:
    """The text model's tensors by their names in a plain text model, whatever the prefix they are under."""
    return {
        name.replace("language_model.", "").removeprefix("model."): tensor.detach()
        for name, tensor in weights.items()
        if "vision" not in name and "projector" not in name
    }


def _compared(right: Tensors, first: Tensors, second: Tensors) -> dict[str, Any]:
    lost = [name for name, tensor in right.items() if not torch.equal(first[name], tensor)]
    matrices = [first[name].double().flatten() for name in lost if first[name].ndim == 2]
    return {
        "tensors": len(right),
        "kept": len(right) - len(lost),
        "left_at_random": len(lost),
        "redrawn": sum(not torch.equal(first[name], second[name]) for name in lost),
        "spread": float(torch.cat(matrices).std()) if matrices else float("nan"),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own reports and progress bars."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def record(file: Path, seed: int = 0) -> None:
    """Measure with the installed transformers, and write the table with its origin."""
    import transformers

    origin = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "code": snapshot(["rlheals.chapters.audit.loading"]).hash,
        "machine": this_machine().model_dump(mode="json"),
        "seed": seed,
    }
    rows = routes(seed).to_json(orient="records", double_precision=15)
    atomic_write(file, json.dumps({**origin, "routes": json.loads(rows)}, indent=1) + "\n")


def recorded(file: Path) -> tuple[str, pd.DataFrame]:
    """The version of transformers and the table that `record` wrote; BadInput when it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        table = pd.DataFrame(found["routes"])
        return str(found["transformers"]), table.astype({"spread": float})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file.name}: cannot be read ({str(error).splitlines()[0][:80]})") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m rlheals.chapters.audit.loading", description=record.__doc__)
    parser.add_argument("file", type=Path, help="JSON file to write")
    record(parser.parse_args().file)
