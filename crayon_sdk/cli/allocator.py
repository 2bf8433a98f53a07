"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # from glibc's malloc.h
_NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Keep the memory of a batch for the next one, instead of giving it to the system and asking for it again.

    Passes on a CPU take the system much less time then. Only glibc is asked; it tells
    what it was told by the environment (MALLOC_...) from this by nothing, so this comes last.

    Returns:
        Whether the C library did as it was asked.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_MAX, 0))
