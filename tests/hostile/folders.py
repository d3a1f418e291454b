"""Model folders as they come from other tools, broken downloads and people who mean harm: made here, never stored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    "tie_word_embeddings": False,
}  # fmt: skip
LAYER = "model.layers.0."
Q, O, NORM = (f"{LAYER}{name}.weight" for name in ("self_attn.q_proj", "self_attn.o_proj", "input_layernorm"))  # noqa: E741
EMBED, HEAD, WEIGHTS, INDEX = (
    "model.embed_tokens.weight", "lm_head.weight", "model.safetensors", "model.safetensors.index.json",
)  # fmt: skip
SHAPES = {
    "model.embed_tokens.weight": (32, 16), "lm_head.weight": (32, 16), "model.norm.weight": (16,),
    f"{LAYER}input_layernorm.weight": (16,), f"{LAYER}post_attention_layernorm.weight": (16,),
    f"{LAYER}self_attn.q_proj.weight": (16, 16), f"{LAYER}self_attn.k_proj.weight": (8, 16),
    f"{LAYER}self_attn.v_proj.weight": (8, 16), f"{LAYER}self_attn.o_proj.weight": (16, 16),
    f"{LAYER}mlp.gate_proj.weight": (24, 16), f"{LAYER}mlp.up_proj.weight": (24, 16),
    f"{LAYER}mlp.down_proj.weight": (16, 24),
}  # fmt: skip


def tensors(seed: int = 0, without: str = "") -> dict[str, torch.Tensor]:
    """Names and shapes of a one-layer Llama; a later seed is a nearby model."""
    first = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=first) for name, shape in SHAPES.items()}
    if seed:
        more = torch.Generator().manual_seed(seed)
        state = {name: one + 0.3 * torch.randn(one.shape, generator=more) for name, one in state.items()}
    return {name: one for name, one in state.items() if name != without}


def model(folder: Path, state: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """A folder with config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    save_file(tensors(1) if state is None else state, folder / WEIGHTS, {"format": "pt"})
    return folder


def in_shards(folder: Path, state: dict[str, torch.Tensor], twice: str = "") -> None:
    """The state in two files with their index; twice: a name that both files hold."""
    names = sorted(state)
    parts = [names[:6], names[6:]]
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, (file, held) in enumerate(zip(files, parts, strict=True)):
        chosen = [*held, twice] if twice and twice not in held else held
        save_file({name: state[name].clone() for name in chosen}, folder / file, {"format": "pt"})
        parts[number] = held
    where = {name: file for file, held in zip(files, parts, strict=True) for name in held}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


# Folders that are read, each with what it really holds ----------------------------------------------------------------


def stale_shards(at: Path) -> Path:
    """An old model in shards beside the new model.safetensors, which is what transformers loads."""
    in_shards(model(at), tensors(0))
    return at


def consolidated(at: Path) -> Path:
    """The same weights once more under another tool's names."""
    save_file({"layers.0.attention.wq.weight": torch.ones(16, 16)}, model(at) / "consolidated.safetensors")
    return at


def buffers(at: Path) -> Path:
    """Masks and positions that older models store beside their weights."""
    state = tensors(1) | {f"{LAYER}self_attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)}
    return model(at, state | {"model.position_ids": torch.arange(8)[None]})


READ = (stale_shards, consolidated, buffers)


# Folders that are refused, with words of the reason -------------------------------------------------------------------


def _with(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return tensors(1) | changes


def key_in_two_shards(at: Path) -> None:
    (model(at) / WEIGHTS).unlink()
    in_shards(at, tensors(1), twice=HEAD)


def shards_without_index(at: Path) -> None:
    key_in_two_shards(at)
    (at / INDEX).unlink()


def header_of_a_gigabyte(at: Path) -> None:
    with (model(at) / WEIGHTS).open("wb") as file:
        file.write((10**9).to_bytes(8, "little") + b"{")
        file.truncate(2 * 10**9)


def link_out(at: Path) -> None:
    (model(at) / WEIGHTS).rename(at.parent / "elsewhere.safetensors")
    (at / WEIGHTS).symlink_to("../elsewhere.safetensors")


def _not_finite() -> dict[str, torch.Tensor]:
    state = tensors(1)
    state[Q][3, 5] = torch.nan
    return state


def _instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """A model, with something else in the place of its weights."""

    def put(at: Path) -> None:
        (model(at) / WEIGHTS).unlink()
        make(at / WEIGHTS)

    return put


def _config(text: str) -> Callable[[Path], object]:
    return lambda at: (model(at) / "config.json").write_text(text)


QUANTISED = "belongs to quantised weights"
INT8, INT32 = torch.ones(16, 16, dtype=torch.int8), torch.ones(16, 16, dtype=torch.int32)
FLOAT8 = torch.ones(16, 16).to(torch.float8_e4m3fn)
SCB, PACKED = Q.replace("weight", "SCB"), Q.replace("weight", "qweight")
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "key in two shards": (key_in_two_shards, "lm_head.weight is in two files"),
    "shards without index": (shards_without_index, "says which belong together"),
    "float8": (lambda at: model(at, _with(**{Q: FLOAT8, f"{Q}_scale_inv": torch.ones(1)})), QUANTISED),
    "int8": (lambda at: model(at, _with(**{Q: INT8, SCB: torch.ones(16)})), QUANTISED),
    "int32 without scale": (lambda at: model(at, _with(**{Q: INT32})), f"{Q} (I32) {QUANTISED}"),
    "packed": (lambda at: model(at, _with(**{PACKED: INT32[:2].clone()})), QUANTISED),
    "quantised by config": (
        lambda at: model(at, quantization_config={"quant_method": "gptq", "bits": 4}), "has quantization_config"
    ),
    "empty tensor": (
        lambda at: model(at, _with(**{Q: torch.ones(0)})),
        f"{Q} has shape (0,): nothing was saved of it, as happens under ZeRO-3",
    ),
    "not finite": (lambda at: model(at, _not_finite()), f"{Q} holds numbers that are not finite"),
    "heads in words": (lambda at: model(at, num_attention_heads="4"), "num_attention_heads is '4'"),
    "config is a list": (_config("[]"), "is no JSON object"),
    "config is deep": (_config('{"a":' * 100_000), "config.json': cannot be read"),
    "config is huge": (_config(" " * 6_000_000), "has over 5000000 bytes"),
    "tied but different": (
        lambda at: model(at, tie_word_embeddings=True),
        "says that the output head is the embedding, but lm_head.weight holds other numbers",
    ),
    "broken link": (_instead(lambda file: file.symlink_to("nowhere")), f"{WEIGHTS}' is a broken link"),
    "link out": (link_out, "is a link out of its folder"),
    "link in a circle": (_instead(lambda file: file.symlink_to(WEIGHTS)), "is a broken link"),
    "pipe": (_instead(os.mkfifo), "is not a regular file"),
    "folder as weights": (_instead(Path.mkdir), "is not a regular file"),
    "header of a gigabyte": (header_of_a_gigabyte, "has 1000000000 bytes, over"),
}  # fmt: skip
"""What makes the folder, and words of the reason."""
