"""Instruct models of a few thousand parameters with tokenizers and chat templates of their families, made here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MllamaConfig,
    MllamaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlheals.engines import models
from rlheals.tasks.general_points.task import GeneralPoints

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday is "
    "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2, "intermediate_size": 16,
    "vision_output_dim": 32, "image_size": 8, "patch_size": 4, "max_num_tiles": 1, "intermediate_layers_indices": [0],
    "supported_aspect_ratios": [[1, 1]],
}  # fmt: skip
FAMILIES = ("qwen2", "llama", "mllama")


def moved_base(folder: Path, size: float) -> Path:
    """The shipped base with noise of this size on every tensor, the same noise always, in a folder that loads."""
    random = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True)
    for described in models.SHIPPED_BASE.glob("*.json"):
        (folder / described.name).write_bytes(described.read_bytes())
    state = load_file(models.SHIPPED_BASE / "model.safetensors")
    noisy = {
        name: tensor + size * torch.randn(tensor.shape, generator=random) for name, tensor in state.items()
    }
    save_file(noisy, folder / "model.safetensors")
    return folder


@cache
def core_tokenizer() -> str:
    """A byte-level tokenizer with a few hundred merges learnt from the task's own texts, as JSON."""
    task = GeneralPoints()
    texts = [task.prompt(item, form) for item in task.items("sft")[::50] for form in range(task.forms)]
    texts += [task.expert(item) for item in task.items("sft")[::5]]
    core = Tokenizer(BPE())
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts, BpeTrainer(vocab_size=500, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    )
    return str(core.to_str())


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A tokenizer with the family's special tokens and a template in its style."""
    core = Tokenizer.from_str(core_tokenizer())
    if family == "qwen2":
        made = PreTrainedTokenizerFast(
            tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>",
            additional_special_tokens=["<|im_start|>"],
        )  # fmt: skip
        made.chat_template = CHATML
    else:
        made = PreTrainedTokenizerFast(
            tokenizer_object=core, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
            additional_special_tokens=["<|start_header_id|>", "<|end_header_id|>"],
        )  # fmt: skip
        made.chat_template = HEADERS
    return made


def model(
    family: str, words: PreTrainedTokenizerFast, seed: int = 0, tied: bool = False, **changes: Any
) -> PreTrainedModel:
    """An untrained model of the family; tied: embeddings and output head are one matrix; changes: of its text part."""
    own = {"vocab_size": len(words), "eos_token_id": words.eos_token_id, "tie_word_embeddings": tied}
    text = {**TEXT, **own, **changes}
    torch.manual_seed(seed)
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**text, pad_token_id=words.pad_token_id))
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**text, bos_token_id=words.bos_token_id))
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    text |= {"num_hidden_layers": 3, "cross_attention_layers": [1], "rope_parameters": rope}
    text |= {"pad_token_id": 0, "bos_token_id": words.bos_token_id}
    return MllamaForConditionalGeneration(MllamaConfig(text_config=text, vision_config=VISION))


def folder(at: Path, family: str, seed: int = 0, tied: bool = False, **changes: Any) -> Path:
    """Model and tokenizer on disk, as a hub would give them."""
    words = tokenizer(family)
    models.save(at, model(family, words, seed, tied, **changes), words)
    return at
