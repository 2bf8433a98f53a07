"""Which of the processes that a launcher started this one is, by what it says in the environment; without torch.

``accelerate launch`` and ``torchrun`` say it alike. Of several processes the first, the main one, writes files and
talks; the others compute the same, and write nothing.
"""

from __future__ import annotations

import os

__all__ = ["is_main", "launched"]


def launched() -> tuple[int, int]:
    """Which process this is, from 0, and how many were launched together.

    Example:
        >>> launched()
        (0, 1)
    """
    try:
        index, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):  # nobody launched it
        return 0, 1
    return (index, size) if 0 <= index < size else (0, 1)


def is_main() -> bool:
    """Whether this is the one that writes and talks.

    Example:
        >>> is_main()
        True
    """
    return launched()[0] == 0
