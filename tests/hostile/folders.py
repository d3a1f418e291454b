"""Model folders as they come from other tools, broken downloads and people who mean harm: made here, never stored."""

from __future__ import annotations

import json
import os
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


def key_in_two_shards(at: Path) -> str:
    (model(at) / WEIGHTS).unlink()
    in_shards(at, tensors(1), twice=HEAD)
    return "lm_head.weight is in two files"


def shards_without_index(at: Path) -> str:
    key_in_two_shards(at)
    (at / INDEX).unlink()
    return "says which belong together"


def float8(at: Path) -> str:
    model(at, _with(**{Q: torch.ones(16, 16).to(torch.float8_e4m3fn), f"{Q}_scale_inv": torch.ones(1)}))
    return "belongs to quantised weights"


def int8(at: Path) -> str:
    model(at, _with(**{Q: torch.ones(16, 16, dtype=torch.int8), Q.replace("weight", "SCB"): torch.ones(16)}))
    return "belongs to quantised weights"


def int32_without_scale(at: Path) -> str:
    model(at, _with(**{Q: torch.ones(16, 16, dtype=torch.int32)}))
    return f"{Q} (I32) belongs to quantised weights"


def packed(at: Path) -> str:
    model(at, _with(**{Q.replace("weight", "qweight"): torch.ones(2, 16, dtype=torch.int32)}))
    return "belongs to quantised weights"


def quantised_by_config(at: Path) -> str:
    model(at, quantization_config={"quant_method": "gptq", "bits": 4})
    return "has quantization_config"


def empty_tensor(at: Path) -> str:
    model(at, _with(**{Q: torch.ones(0)}))
    return f"{Q} has shape (0,): nothing was saved of it, as happens under ZeRO-3"


def not_finite(at: Path) -> str:
    state = tensors(1)
    state[Q][3, 5] = torch.nan
    model(at, state)
    return f"{Q} holds numbers that are not finite"


def heads_in_words(at: Path) -> str:
    model(at, num_attention_heads="4")
    return "num_attention_heads is '4'"


def config_is_a_list(at: Path) -> str:
    (model(at) / "config.json").write_text("[]")
    return "is no JSON object"


def config_is_deep(at: Path) -> str:
    (model(at) / "config.json").write_text('{"a":' * 100_000)
    return "config.json': cannot be read"


def config_is_huge(at: Path) -> str:
    (model(at) / "config.json").write_text(" " * 6_000_000)
    return "has over 5000000 bytes"


def tied_but_different(at: Path) -> str:
    model(at, tie_word_embeddings=True)
    return "says that the output head is the embedding, but lm_head.weight holds other numbers"


def broken_link(at: Path) -> str:
    (model(at) / WEIGHTS).unlink()
    (at / WEIGHTS).symlink_to("nowhere")
    return f"{WEIGHTS}' is a broken link"


def link_out(at: Path) -> str:
    (model(at) / WEIGHTS).rename(at.parent / "elsewhere.safetensors")
    (at / WEIGHTS).symlink_to("../elsewhere.safetensors")
    return "is a link out of its folder"


def link_in_a_circle(at: Path) -> str:
    (model(at) / WEIGHTS).unlink()
    (at / WEIGHTS).symlink_to(WEIGHTS)
    return "is a broken link"


def pipe(at: Path) -> str:
    (model(at) / WEIGHTS).unlink()
    os.mkfifo(at / WEIGHTS)
    return "is not a regular file"


def folder_as_weights(at: Path) -> str:
    (model(at) / WEIGHTS).unlink()
    (at / WEIGHTS).mkdir()
    return "is not a regular file"


def header_of_a_gigabyte(at: Path) -> str:
    with (model(at) / WEIGHTS).open("wb") as file:
        file.write((10**9).to_bytes(8, "little") + b"{")
        file.truncate(2 * 10**9)
    return "has 1000000000 bytes, over"


def index_out_of_the_folder(at: Path) -> str:
    key_in_two_shards(at)
    index = json.loads((at / INDEX).read_text())
    index["weight_map"][HEAD] = "../elsewhere.safetensors"
    (at / INDEX).write_text(json.dumps(index))
    return "names '../elsewhere.safetensors', outside of the folder"


REFUSED = (
    key_in_two_shards, shards_without_index, float8, int8, int32_without_scale, packed, quantised_by_config,
    empty_tensor, not_finite, heads_in_words, config_is_a_list, config_is_deep, config_is_huge, tied_but_different,
    broken_link, link_out, link_in_a_circle, pipe, folder_as_weights, header_of_a_gigabyte, index_out_of_the_folder,
)  # fmt: skip
