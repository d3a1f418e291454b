"""GGUF files as llama.cpp writes them: which one is meant, what it says it holds; transformers does the rest."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlheals.engines.weight_files import regular
from rlheals.errors import BadInput


def is_gguf(source: str | Path) -> bool:
    """Whether a path is that of a GGUF file that is there."""
    path = Path(source)
    return path.suffix == ".gguf" and (path.is_symlink() or path.exists()) and not path.is_dir()


def contents(file: Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
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
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise BadInput(f"{said}: is no whole GGUF file ({type(error).__name__}: {line})") from None
    if parts is not None and int(parts.parts[parts.data[0]][0]) > 1:
        raise BadInput(f"{said}: is one of several parts; join them with llama.cpp's gguf-split --merge")
    if not tensors:
        raise BadInput(f"{said}: holds no tensors")
    return tensors, types
