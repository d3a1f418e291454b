"""What kind of machine computed a run, and whether the process that left a folder behind still lives."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Machine(BaseModel):
    """The kind of machine that computed something: never its name, never a path.

    ``isa`` is the vector level the tensor library used (``avx512``, ``avx2``, ``default``, ...): results of
    training differ in the last bits between levels.

    >>> Machine(kind="cpu", model="Some CPU", isa="avx2", threads=1).isa
    'avx2'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["cpu", "gpu"]
    model: Annotated[str, Field(max_length=200)]
    isa: Annotated[str, Field(max_length=40)]
    threads: Annotated[int, Field(ge=1)]


def this_machine() -> Machine:
    """The kind of this machine, as the tensor library sees it.

    >>> this_machine().threads >= 1
    True
    """
    import torch  # takes seconds, and only who has computed asks

    isa, threads = torch.backends.cpu.get_cpu_capability().lower(), torch.get_num_threads()
    if torch.cuda.is_initialized():
        return Machine(kind="gpu", model=torch.cuda.get_device_name()[:200], isa=isa, threads=threads)
    return Machine(kind="cpu", model=_processor()[:200], isa=isa, threads=threads)


def multiplies_bfloat16() -> bool:
    """Whether the processor says that it multiplies bfloat16 (AMX, AVX512-BF16, ARM's BF16)."""
    flags = r"^(flags|Features)\s*:.*\b(amx_bf16|avx512_bf16|bf16)\b"
    return re.search(flags, _cpuinfo(), re.MULTILINE) is not None


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(\S.*)$", _cpuinfo(), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@functools.cache
def place() -> str:
    """12 hex digits for (host, boot, process namespace): within one place a process id means one process.

    Two containers on one kernel share the boot but not the process ids, hence the namespace.

    >>> len(place())
    12
    """
    parts = [platform.node()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    except OSError:
        parts.append("no boot id")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat after the command's name (which may itself hold spaces and brackets)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def process_start(pid: int) -> int:
    """When a process of this place started, in clock ticks since boot; 0 where that is not known."""
    try:
        return int(_stat_fields(pid)[19])
    except (OSError, IndexError, ValueError):
        return 0


def is_alive(pid: int, start: int) -> bool:
    """Whether the process ``pid`` of this place that started at ``start`` runs (a reused id does not count).

    >>> is_alive(os.getpid(), process_start(os.getpid()))
    True
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    now = process_start(pid)
    if now and start and now != start:
        return False
    try:
        return _stat_fields(pid)[0] not in "ZX"
    except (OSError, IndexError):
        return True
