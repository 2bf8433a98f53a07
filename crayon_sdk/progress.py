"""The one progress bar: silent where nobody watches."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

__all__ = ["track"]


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
    watched = sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"
    if not watched:
        yield lambda _amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda amount: bar.advance(task, amount)
