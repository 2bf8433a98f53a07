"""The one progress display: a bar on a terminal, a line now and then where the shell asked for it, else silence."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator

from crayon_sdk._base.launch import is_main

__all__ = ["duration", "hidden", "lines", "track"]

_INTERVAL = 30.0  # seconds between two lines
_hidden = False
_write: Callable[[str], None] | None = None
_last = 0.0  # when something was written; work of many short parts is long work too


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
def lines(write: Callable[[str], None]) -> Iterator[None]:
    """Write a line every half minute of work inside the block where stderr is no terminal."""
    global _write, _last
    before, _write, _last = _write, write, time.monotonic()
    try:
        yield
    finally:
        _write = before


@contextlib.contextmanager
def track(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and remaining time on a terminal or in a notebook; elsewhere what `lines` says, or nothing.

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
    if _hidden or not is_main():
        yield lambda _amount: None
        return
    if not _watched():
        yield _line_by_line(doing, total)
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


def _line_by_line(doing: str, total: int) -> Callable[[int], None]:
    started, done = time.monotonic(), 0

    def advance(amount: int) -> None:
        global _last
        nonlocal done
        done += amount
        now = time.monotonic()
        if _write is None or now - _last < _INTERVAL or not 0 < done < total:
            return
        _last = now
        left = (now - started) / done * (total - done)
        _write(f"{doing}: {done:,} of {total:,}, about {duration(left)} to go")

    return advance


def duration(seconds: float) -> str:
    """Say a time as roughly as it is known.

    >>> duration(42.4), duration(200), duration(8000)
    ('42 seconds', '3 minutes', '2.2 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
