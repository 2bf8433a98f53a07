"""The one progress bar: silent where nobody watches."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator

__all__ = ["hidden", "track"]

_hidden = False


@contextlib.contextmanager
def hidden(wanted: bool = True) -> Iterator[None]:
    """Show no bars inside the block, wherever that is."""
    global _hidden
    before, _hidden = _hidden, wanted or _hidden
    try:
        yield
    finally:
        _hidden = before


@contextlib.contextmanager
def track(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and remaining time on a terminal or in a notebook; elsewhere do nothing.

    Args:
        doing: What is going on, shown before the bar.
        total: How much there is to do.

    Yields:
        A function to call with how much was done.

    Example:
        >>> with track("counting", 3) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    if not _watched() or os.environ.get("RANK", "0") != "0" or _hidden:
        yield lambda _amount: None
        return
    from tqdm import tqdm

    size = shutil.get_terminal_size()  # tqdm shows nothing where a terminal says that it has no size
    with tqdm(total=total, desc=doing, leave=False, file=sys.stderr, ncols=size.columns, nrows=size.lines) as bar:

        def advance(amount: int) -> None:
            bar.update(amount)
            if bar.n >= total:
                bar.refresh()  # the end of what was too fast to be shown

        yield advance


def _watched() -> bool:
    """Whether somebody sees stderr: on a terminal, or below the cell of a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
