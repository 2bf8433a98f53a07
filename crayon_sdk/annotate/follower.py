"""What follows from the answers so far, worked out while people go on answering: nobody waits for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Follower"]

_log = logging.getLogger(__name__)


class Follower:
    """Works something out anew whenever the answers have changed, in a thread of its own.

    Changes that come while it works are one more turn after that, however many they are.

    Args:
        work: Gives what people are told, for each kind of task; called once here, so that there is something to tell.

    Example:
        >>> follower = Follower(lambda: {"spot": {"words": "nothing is answered yet", "enough": False}})
        >>> follower.told["current"]
        True
    """

    def __init__(self, work: Callable[[], Mapping[str, Any]]) -> None:
        self._work = work
        self._found = work()
        self._moment = threading.Condition()
        self._changes = self._followed = 0
        self._over = False

    @property
    def told(self) -> dict[str, Any]:
        """What was worked out last, and whether the answers have not changed since."""
        with self._moment:
            return {"foresight": self._found, "current": self._followed == self._changes}

    def changed(self) -> None:
        """Say that the answers are others; returns at once."""
        with self._moment:
            self._changes += 1
            self._moment.notify()

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Follow the answers until the end of the block."""
        thread = threading.Thread(target=self._follow, name="crayon-annotate-follow", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._moment:
                self._over = True
                self._moment.notify()
            thread.join()

    def _follow(self) -> None:
        while True:
            with self._moment:
                self._moment.wait_for(lambda: self._over or self._followed < self._changes)
                if self._over:
                    return
                turn, found = self._changes, self._found
            try:
                found = self._work()
            except Exception as error:  # of whatever kind: people go on answering in the order there was
                _log.warning("what follows from the answers could not be worked out: %s", error)
            with self._moment:
                self._found, self._followed = found, turn
