"""Answer files as bytes: one record a line, safe against a crash in mid-line.

A program that dies while it appends leaves a *torn* last line: it starts like a
record, has no newline at its end and is not JSON. (No part of a JSON object that
is cut off is JSON, so a torn line cannot be mistaken for a whole one.) A torn
line never makes a file unreadable, and is never overwritten: reading reports it,
appending moves its bytes to `<file>.torn` first.

Nothing here knows what a record is; that is in `annotations`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import from_json

from crayon_sdk._base.files import StrPath, describe_write_failure
from crayon_sdk.errors import FileFormatError, OutputError

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind
    fcntl = None  # type: ignore[assignment]

__all__ = ["AnswerLines", "append_lines", "read_lines"]

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 16


@dataclass(frozen=True)
class AnswerLines:
    """The lines of an answer file as long as it was when it was opened, read one by one as they are asked for.

    Attributes:
        path: The file.
        end: Where its whole lines end.
        torn: The torn last line, or None.
    """

    path: StrPath
    end: int
    torn: bytes | None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Number (from 1) and bytes of each line that is not blank, without line end and byte order mark."""
        with _readable(self.path), open(self.path, "rb") as file:
            left = self.end
            for number, line in enumerate(file, start=1):
                if left <= 0:
                    return
                whole = line if len(line) <= left else line[:left]
                left -= len(line)
                if stripped := (whole.removeprefix(_BOM) if number == 1 else whole).strip(b" \t\r\n"):
                    yield number, stripped


def read_lines(path: StrPath) -> AnswerLines:
    r"""Open an answer file.

    A byte order mark, `\r\n` line ends and blank lines are tolerated.

    Raises:
        FileFormatError: It is missing, or cannot be read.
    """
    with _readable(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        last = _last_line(file.fileno(), size)
    return AnswerLines(path, size - len(last), last) if _is_torn(last) else AnswerLines(path, size, None)


@contextlib.contextmanager
def _readable(path: StrPath) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileFormatError(
            f"no file at {str(path)!r}; expected a file of answers, one JSON record a line"
        ) from error
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{str(path)!r} cannot be read as a file of answers: {error}") from error


def _is_torn(last: bytes) -> bool:
    """Tell a record that was cut off from a whole one, and from something else altogether."""
    # After a power failure some file systems leave zeros where the line should be.
    starts_like_one = last.lstrip().startswith(b"{") or (bool(last) and not last.strip(b"\0"))
    return starts_like_one and not _is_json(last)


def _is_json(line: bytes) -> bool:
    try:
        from_json(line)
    except ValueError:
        return False
    return True


def append_lines(path: StrPath, lines: bytes) -> None:
    r"""Append whole lines to an answer file, all of them or none.

    The lines go out in one write and are on the disk when this returns. If the
    write fails half-way, the file is cut back to what it was. A torn last line
    is first copied to `<path>.torn` and then cut off. Several processes may
    append to one file (an advisory lock keeps them apart, where there is one).

    Args:
        path: The file; it and its folder are made when missing.
        lines: Complete lines, the last one with its `\n`.

    Raises:
        FileFormatError: What is there is not a file of answers; it is left alone.
        OutputError: It cannot be written; what was there is unchanged.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _open_locked(target) as file:
            ready = _repair(file, target)
            _write_all(file, ready + lines)
        _flush_folder(target.parent)
    except (OSError, ValueError) as error:
        raise OutputError(describe_write_failure(target, error)) from error


@contextlib.contextmanager
def _open_locked(target: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.open(target, flags, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)  # releases the lock as well


def _repair(file: int, target: Path) -> bytes:
    """Make the end of the file fit for appending; return what must go before the new lines."""
    size = os.fstat(file).st_size
    last = _last_line(file, size)
    if _is_torn(last):
        _write_aside(Path(f"{target}.torn"), last)
        os.ftruncate(file, size - len(last))
        os.fsync(file)
        return b""
    start = _read_at(file, 0, min(size, _CHUNK)).removeprefix(_BOM).strip()
    if (start and not start.startswith(b"{")) or (last.strip() and not _is_json(last)):
        raise FileFormatError(
            f"{str(target)!r} exists and is not a file of answers (one JSON record a line); "
            "nothing was added to it. Choose another name."
        )
    # A whole record that only lacks its line end, as an editor may leave it.
    return b"\n" if last.strip() else b""


def _last_line(file: int, size: int) -> bytes:
    """Read what follows the last newline, without the byte order mark."""
    tail = b""
    at = size
    while at > 0 and b"\n" not in tail:
        step = min(_CHUNK, at)
        at -= step
        tail = _read_at(file, at, step) + tail
    return tail.removeprefix(_BOM) if b"\n" not in tail else tail[tail.rindex(b"\n") + 1 :]


def _read_at(file: int, start: int, length: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    parts = []
    while length > 0 and (part := os.read(file, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _write_aside(path: Path, torn: bytes) -> None:
    with open(path, "ab") as file:
        file.write(torn + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _write_all(file: int, data: bytes) -> None:
    before = os.fstat(file).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, before)
        raise


def _flush_folder(folder: Path) -> None:
    """Make the name of a new file last, too; not every system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
