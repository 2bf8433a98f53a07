"""One process at a time in a folder; the lock ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from crayon_sdk._base.files import describe_write_failure, read_json, write_json
from crayon_sdk.errors import CrayonError, OutputError, WorkspaceBusyError

__all__ = ["locked"]


@contextlib.contextmanager
def locked(folder: Path, *, doing: str, timeout: float = 10.0, name: str = ".lock") -> Iterator[None]:
    """Hold the lock of a folder; the operating system takes it back from a process that dies.

    Args:
        folder: The folder, which exists.
        doing: What is done, for the message that another process gets.
        timeout: Seconds to wait for the lock. Helpers of a killed process may hold it a moment longer.
        name: Of its file; locks of different names do not know each other.

    Raises:
        WorkspaceBusyError: Another process has it; the message says which and since when.
        OutputError: The folder is not writable.
    """
    from filelock import FileLock, Timeout

    owner = folder / f"{name}-owner.json"
    lock = FileLock(str(folder / name), thread_local=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise WorkspaceBusyError(
            f"{str(folder)!r} is in use{_describe(owner)}; wait until that is done, or stop it. Nothing was changed."
        ) from error
    except OSError as error:
        raise OutputError(describe_write_failure(folder / name, error)) from error
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        # For people; whether it is held is the operating system's word alone.
        write_json(owner, {"pid": os.getpid(), "doing": doing, "since": since, "program": sys.argv[0]})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _describe(owner: Path) -> str:
    try:
        about = read_json(owner)
        return f" by process {about['pid']} ({about['doing']}, since {about['since']})"
    except (CrayonError, KeyError, TypeError):
        return ""
