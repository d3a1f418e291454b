"""Create, load and save causal language models: transformers' own classes, safetensors only, every key checked."""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import transformers
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import logging

from rlheals.engines import weight_files
from rlheals.errors import BadInput
from rlheals.settings import Int, Settings
from rlheals.store.files import first_line

logging.disable_progress_bar()  # loading shows nothing worth a bar; long work has bars of its own

LOGITS = 2**27
PANIC = "PanicException"
"""What tokenizers, which are in Rust, end with on some files; no Exception in Python."""
Precision = Literal["own", "bf16", "fp16"]
"""Of products: the weights' own format, or a shorter one. A model that learns keeps float32 weights beside it, so that
small updates are not rounded away; one that only answers holds rounded weights."""
Unscaled = Literal["own", "bf16"]
"""Where gradients are not scaled: those of fp16 would vanish."""
DTYPES = {"own": "auto", "bf16": "bfloat16", "fp16": "float16"}
"""What `load` calls the weights of a model that only answers."""
SHIPPED_BASE = Path(str(resources.files("rlheals"))) / "base"


class ModelSettings(Settings):
    """Shape of a lab model (Llama architecture, untied head).

    >>> ModelSettings().head_dim
    32
    """

    hidden: Int = Field(64, ge=8, description="width of the residual stream")
    layers: Int = Field(4, ge=1, description="number of decoder layers")
    heads: Int = Field(2, ge=1, description="attention heads; hidden / heads is the head dimension")
    mlp: Int = Field(160, ge=8, description="width of the SwiGLU block")
    max_tokens: Int = Field(256, ge=64, description="longest episode in tokens")

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @model_validator(mode="after")
    def _divides(self) -> ModelSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} is not a multiple of heads={self.heads}")
        if self.head_dim % 2:
            raise ValueError(f"hidden / heads is {self.head_dim}; rotary embeddings need an even number")
        return self


def create(settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A freshly initialised model in float32; the same seed gives the same weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.mlp,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.max_tokens,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write config.json, model.safetensors and, if given, the tokenizer into `folder`.

    weights: in place of the model's own, when several processes hold them.
    """
    model.save_pretrained(folder, state_dict=weights)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def load(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    revision: str | None = None,
) -> PreTrainedModel:
    """The model in a local folder or GGUF file, of an installed package (`package:NAME/FILE`), or of a hub id such as
    "Qwen/Qwen2.5-0.5B-Instruct".

    Only safetensors are read, and a GGUF file that is named, which is dequantised (to float32, unless dtype says
    otherwise). No code from the model is run, and the class is the one that the weights were saved from: every tensor
    that it needs must be there with its shape, and no other (transformers alone would fill what is missing with random
    numbers). dtype: "auto" keeps that of the files. revision: of a hub id, a branch or a commit.
    Raises BadInput with one line otherwise.
    """
    name = str(folder)
    place, where = _source(folder, revision)
    with _told(f"model {name!r}") as read:
        stored: dict[str, tuple[int, ...]] = {}
        options: dict[str, Any] = {}
        if "gguf_file" in where:
            stored = weight_files.gguf_contents(Path(place, where["gguf_file"]))[0]
            dtype = "float32" if dtype == "auto" else dtype
            # since there is one, transformers may leave weights packed, for kernels from the hub
            if hasattr(transformers, "GgufConfig"):
                options["quantization_config"] = transformers.GgufConfig(dequantize=True)
        elif not where:
            stored = tensor_shapes(Path(folder))
        adapter = (Path(place) / weight_files.ADAPTER_CONFIG).exists()
        config = AutoConfig.from_pretrained(place, trust_remote_code=False, **where)
        read.append(config)
        _refuse_config(f"model {name!r}", config, stored)
        with _quiet():
            model, found = _class_of(config, name).from_pretrained(
                place,
                trust_remote_code=False,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **where,
                **options,
            )
    if adapter or getattr(model, "_hf_peft_config_loaded", False):
        raise BadInput(
            f"model {name!r}: a LoRA adapter lies beside the weights, and whether it is added depends on what is "
            "installed; merge it into them (peft: merge_and_unload), or move it away"
        )
    _check_loaded(name, found)
    for tensor_name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor.detach().sum())) and not bool(torch.isfinite(tensor).all()):
            raise BadInput(f"model {name!r}: {tensor_name} holds numbers that are not finite")
    torch.nn.Module.to(model, device)
    return model.eval()


def _source(folder: str | Path, revision: str | None) -> tuple[str, dict[str, str]]:
    """What transformers is asked for: a folder, a GGUF file in one, or a hub id at a revision."""
    if str(folder) and Path(folder).is_dir():
        return str(folder), {}
    if weight_files.is_gguf(folder):
        file = Path(weight_files.located(folder))
        return str(file.parent), {"gguf_file": file.name}
    refuse_missing_path(str(folder))
    return str(folder), {"revision": revision or "main"}


@contextmanager
def _told(where: str) -> Iterator[list[PreTrainedConfig]]:
    """Whatever a library says of a folder of anybody's, as one line of BadInput; memory that is full stays itself.

    The block puts its config.json into the list, once it has one.
    """
    config: list[PreTrainedConfig] = []
    try:
        yield config
    except (BadInput, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        # transformers looks words of config.json up in tables of its own
        if isinstance(error, KeyError) and config:
            fields = [key for key, value in config[0].to_dict().items() if value == error.args[0]]
            known = f"config.json: {', '.join(fields) or 'a field'} = {error} is not known to transformers"
            raise BadInput(f"{where}: {known}") from error
        said = " ".join(str(error).split())[:200] or "cannot be read"
        kind = (
            "" if isinstance(error, OSError | ValueError | SafetensorError) else f"{type(error).__name__}: "
        )
        raise BadInput(f"{where}: {kind}{said}") from error


def _refuse_config(said: str, config: PreTrainedConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """BadInput for quantised models, kernels that a folder chooses, and more weights than the files hold.

    shapes: by the files' headers, empty where they are not here yet. The model is made without memory first, so that
    what a config.json says cannot fill it.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise BadInput(f"{said}: is quantised; give the checkpoint before quantisation, or dequantise it")
    if (kernel := getattr(config, "_attn_implementation", None)) not in (None, "eager", "sdpa"):
        raise BadInput(
            f"{said}: config.json asks for the attention {kernel!r:.60}, which is not for a model to say"
        )
    if not shapes:
        return
    layers, held = config.get_text_config().num_hidden_layers, sum(map(math.prod, shapes.values()))
    if layers > len(shapes):
        raise BadInput(f"{said}: config.json says {layers} layers, the files hold {len(shapes)} tensors")
    with torch.device("meta"), _quiet():
        skeleton = _class_of(config, "config.json").from_config(config)
    wanted = sum(one.numel() for one in skeleton.parameters())  # tied matrices once
    if wanted > held * 1.01 + 1000:
        raise BadInput(f"{said}: config.json describes {wanted:,} weights, the files hold {held:,}")


def _class_of(config: PreTrainedConfig, name: str) -> Any:
    """The automatic class that gives the architecture that the weights were saved from."""
    saved = config.architectures[0] if config.architectures else ""
    if not saved or saved in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return AutoModelForCausalLM
    if saved in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        return AutoModelForImageTextToText
    raise BadInput(f"model {name!r}: was saved from {saved!r:.60}, which does not continue text")


def load_tokenizer(
    folder: str | Path, revision: str | None = None, fetch: bool = True
) -> PreTrainedTokenizerFast:
    """The tokenizer saved beside a model; one without a padding token (Llama) pads with its end token.

    fetch: ask the hub for what is not on this machine.
    """
    place, where = _source(folder, revision)
    with _told(f"tokenizer of {str(folder)!r}"):
        if "gguf_file" in where:
            weight_files.gguf_contents(Path(place, where["gguf_file"]))
        tokenizer = AutoTokenizer.from_pretrained(
            place, local_files_only=not fetch, trust_remote_code=False, **where
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BadInput(f"tokenizer of {str(folder)!r}: is a {type(tokenizer).__name__}, not a fast tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_weights(model: PreTrainedModel, file: Path) -> None:
    """Replace the weights of `model` in place by those of a safetensors file; names and shapes must agree exactly."""
    try:
        state = load_file(file, device=str(model.device))
    except (OSError, SafetensorError) as error:
        raise BadInput(f"weights {file.name!r}: {first_line(error)}") from error
    check_shapes(file.name, model, {name: tuple(tensor.shape) for name, tensor in state.items()})
    model.load_state_dict(state, strict=False)  # checked above; a tied head is not in the file


def device() -> str:
    """The GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def rows_at_once(model: PreTrainedModel, length: int) -> int:
    """How many sequences of a length may be read at once, so that their logits in float32 fill half a gigabyte."""
    return max(1, LOGITS // (length * model.config.get_text_config().vocab_size))


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Keep no activations for the backward pass but compute them again: less memory, a third more time."""
    with warnings.catch_warnings():  # transformers 5 has two names for it
        warnings.filterwarnings("ignore", "`gradient_checkpointing", FutureWarning)
        model.gradient_checkpointing_enable()


def refuse_short_weights(model: PreTrainedModel, precision: Precision, where: str) -> None:
    """BadInput unless the weights that are to be trained with shorter products are float32."""
    if precision != "own" and model.dtype != torch.float32:
        dtype = str(model.dtype).removeprefix("torch.")
        raise BadInput(
            f"{where}.precision={precision} is for float32 weights; these are {dtype} (a profile: model.dtype)"
        )


def shorten_products(model: PreTrainedModel, precision: Precision) -> None:
    """From now on the model's forward passes multiply in the shorter format, on the device that `device` names."""
    if precision != "own":
        model.forward = torch.autocast(device(), getattr(torch, DTYPES[precision]))(model.forward)


def refuse_missing_path(name: str) -> None:
    """BadInput for what is no hub id, and for a path below a folder that is here: nobody is asked about that."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).parent.is_dir():
        raise BadInput(f"model {name!r}: no such folder, and not a hub id of the form owner/name")


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a file or a model folder holds, from headers alone."""
    if not path.exists():
        raise BadInput(f"model {str(path)!r}: no such folder")
    return {name: place.shape for name, place in weight_files.places(path)[0].items()}


def _check_loaded(where: str, found: Mapping[str, Iterable[Any]]) -> None:
    """What transformers says of a load: names missing, unknown, or of another shape."""
    problems = [f"missing {name}" for name in sorted(found["missing_keys"])]
    problems += [f"unknown {name}" for name in sorted(found["unexpected_keys"])]
    problems += [
        f"{name} has shape {tuple(theirs)}, not {tuple(wanted)}"
        for name, theirs, wanted in sorted(found["mismatched_keys"])
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise BadInput(f"weights of {where!r} do not fit the architecture: {'; '.join(problems[:3])}{more}")


def check_shapes(where: str, model: PreTrainedModel, found: dict[str, tuple[int, ...]]) -> None:
    """BadInput unless tensors of these names and shapes are all that the model needs."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if getattr(model.config, "tie_word_embeddings", False):  # one matrix, in the file under one of its names
        tied = getattr(model, "_tied_weights_keys", None) or ()
        wanted = {name: shape for name, shape in wanted.items() if name in found or name not in tied}
    both = wanted.keys() & found.keys()
    differ = [(name, found[name], wanted[name]) for name in both if found[name] != wanted[name]]
    missing, unknown = wanted.keys() - both, found.keys() - both
    _check_loaded(where, {"missing_keys": missing, "unexpected_keys": unknown, "mismatched_keys": differ})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report of what does not fit: it is an error here, with a line of its own."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


Made = TypeVar("Made")


def retry_on_out_of_memory(do: Callable[[int], Made], rows: int, whole: int, where: str) -> Made:
    """`do(rows)`, or if that is too much, `do` with half of it at most; BadInput when that is too much as well.

    whole: what the rows are a part of; only its divisors are tried. where: the setting, as "sft.micro_batch_size".
    """
    smaller = [size for size in range(rows // 2, 0, -1) if whole % size == 0][:1]
    for size in (rows, *smaller):
        try:
            return do(size)
        except torch.OutOfMemoryError:
            pass  # leave the block first: the error holds on to what filled the memory
        gc.collect()
        torch.cuda.empty_cache()
    raise BadInput(
        f"out of GPU memory with {where}={size}; make it smaller, set gradient_checkpointing to true, "
        "or take a smaller model"
    )
