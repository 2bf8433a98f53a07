"""The one progress bar: silent where nobody watches."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

__all__ = ["hidden", "track"]

_hidden = False


@contextlib.contextmanager
def hidden(wanted: bool = True) -> Iterator[None]:
    """Show no bars inside the block, also not on a terminal."""
    global _hidden
    before, _hidden = _hidden, wanted or _hidden
    try:
        yield
    finally:
        _hidden = before


@contextlib.contextmanager
def track(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and remaining time on a terminal's stderr; elsewhere do nothing.

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
    watched = sys.stderr.isatty() and os.environ.get("RANK", "0") == "0" and not _hidden
    if not watched:
        yield lambda _amount: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )

    class _Rate(ProgressColumn):
        def render(self, task: Task) -> str:
            speed = task.finished_speed or task.speed
            return f"{speed:.1f}/s" if speed else "-/s"

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda amount: bar.advance(task, amount)
