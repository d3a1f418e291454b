"""Chat templates as models come with them: those that TRL ships, and some that mislead."""

from __future__ import annotations

import re
from pathlib import Path

import trl
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

_FOLDER = Path(trl.__file__).parent / "chat_templates"
SHIPPED = {file.stem: file.read_text(encoding="utf-8") for file in sorted(_FOLDER.glob("*.jinja"))}
_SPECIAL = re.compile(r"<[|｜]?[a-zA-Z_▁｜|]+[|｜]?>|</s>|\[/?INST\]")
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "<turn|>", "<｜end▁of▁sentence｜>", "<|end|>",
    "<|return|>", "<end_of_utterance>", "<|endoftext|>", "<|user|>", "</s>", "<|END_RESPONSE|>",
    "<|eot|>",
)  # fmt: skip

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(template: str | dict[str, str] | None, end: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose special tokens are those that the template writes."""
    core = Tokenizer(BPE({letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, bos_token="<s>", pad_token="<|pad|>")
    text = template if isinstance(template, str) else CHATML
    made.add_special_tokens({"additional_special_tokens": sorted({*_SPECIAL.findall(text)} - {end})})
    made.chat_template = template
    return made


MISLEADING = {
    "content as a list of parts": (
        CHATML.replace("{{ m['content'] }}", "{{ m['content'][0]['text'] }}"), "does not write an answer as it is given"
    ),
    "answers in capitals": (
        CHATML.replace("{{ m['content'] }}", "{{ m['content'] | upper }}"), "does not write an answer as it is given"
    ),
    "history is summed up": (
        CHATML.replace("{{ m['content'] }}", "{{ m['content'] if loop.last or m['role'] == 'user' else '...' }}"),
        "rewrites earlier turns",
    ),
    "asks in words that are not in the conversation": (
        CHATML.replace("assistant\n{% endif %}", "assistant\nSure! {% endif %}"), "what is trained would not be what"
    ),
    "another end": (CHATML.replace("<|im_end|>", "<|done|>"), "would not stop at the other"),
    "not a template": ("{% for %}", "cannot be applied"),
    "raises": ("{{ raise_exception('no') }}", "cannot be applied"),
    "reaches out": ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "cannot be applied|does not write"),
    "counts for ever": ("{% for a in range(10**9) %}{% endfor %}", "cannot be applied"),
    "longer than a book": (CHATML + "{# " + "x" * 200_000 + " #}", "no text of at most"),
    "several, none of them the default": ({"tool_use": CHATML, "rag": CHATML}, "no chat template, or several"),
    "none": (None, "no chat template"),
}  # fmt: skip
