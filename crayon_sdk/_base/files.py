"""Reading and writing without surprises: to the side first, then rename; and one process at a time in a folder.

Nothing here ever leaves a half-written file under the name that was asked for,
and every failure of the operating system arrives as an
[`OutputError`][crayon_sdk.errors.OutputError] or a
[`FileFormatError`][crayon_sdk.errors.FileFormatError]. A lock ends with its process, however that ends.

Of several processes that were launched together the main one alone writes: in the others everything here runs, and
nothing of it is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crayon_sdk._base.launch import is_main
from crayon_sdk.errors import (
    CrayonError,
    FileFormatError,
    OutputError,
    OutputExistsError,
    SettingsError,
    WorkspaceBusyError,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from torch import Tensor

__all__ = [
    "LARGEST",
    "check_writable",
    "describe_write_failure",
    "free_folder",
    "free_path",
    "hash_of_file",
    "locked",
    "new_folder",
    "read_json",
    "read_metadata",
    "read_shapes",
    "read_tensors",
    "read_whole",
    "replace_file",
    "sha256_of",
    "sha256_of_each",
    "sweep",
    "tensors_in_parts",
    "write_json",
    "write_tensors",
    "write_text",
]

LARGEST = 1 << 30  # bytes of a file that is read whole: tables and answers of many millions of lines
_SAFETENSORS = {"torch.float32": "F32", "torch.int64": "I64", "torch.bool": "BOOL"}  # that are written in parts
_LONGEST_HEADER = 100_000_000  # as the format has it
_ASIDE, _LOCK = ".crayon-", ".crayon-lock"
StrPath = str | os.PathLike[str]


def describe_write_failure(path: Path, error: BaseException) -> str:
    """Say in words why ``path`` could not be written."""
    number = getattr(error, "errno", None)
    text = str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        reason = "the disk is full; free some space and run it again"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = "the folder is not writable; choose another one or change its permissions"
    elif number in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        reason = "the folder above it does not exist or is a file"
    else:
        reason = text or type(error).__name__
    return f"cannot write {str(path)!r}: {reason}. What was there before is unchanged."


@contextlib.contextmanager
def replace_file(path: StrPath) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name on success.

    Args:
        path: The file to write; its folder is made when it is missing.

    Yields:
        A path in the same folder. Write there; leaving the block renames it.

    Raises:
        OutputError: The folder cannot be written or the disk is full. A file
            that was at ``path`` before is left as it was.
    """
    target = Path(path)
    if not is_main():
        with tempfile.TemporaryDirectory(prefix="crayon-") as elsewhere:
            yield Path(elsewhere) / "new"
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _aside(target.parent) as place:
            temporary = place / "new"
            temporary.touch()
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
    except OSError as error:
        raise OutputError(describe_write_failure(target, error)) from error


@contextlib.contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """Make a hidden folder to write in, and hold its lock, which ends with this process however that ends."""
    sweep(place)
    made, lock = _locked_folder(place)
    try:
        yield made
    finally:
        lock.release()
        shutil.rmtree(made, ignore_errors=True)


def _locked_folder(place: Path) -> tuple[Path, BaseFileLock]:
    from filelock import FileLock

    for _ in range(100):
        made = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=place))
        lock = FileLock(str(made / _LOCK), thread_local=False)
        # Another process may take it for left behind until it is locked, and delete it.
        with contextlib.suppress(FileNotFoundError, FileExistsError, TimeoutError):
            try:
                lock.acquire(timeout=0)
            except NotImplementedError:  # no locks on this file system: then nobody sweeps here
                return made, lock
            if (made / _LOCK).exists():
                return made, lock
        lock.release()
    raise OSError(errno.EBUSY, f"every folder that was made in {str(place)!r} was deleted at once")


def sweep(folder: Path) -> None:
    """Delete what killed processes left in a folder of what they were writing; what is being written stays.

    A folder of ours has a lock in it, which no process holds any more. Whatever has none is somebody else's.
    """
    from filelock import FileLock

    for path in folder.glob(f"{_ASIDE}????????"):
        with contextlib.suppress(OSError, NotImplementedError):  # in use (a Timeout is one), or not ours to delete
            if path.is_symlink() or not path.is_dir():
                continue
            if not (path / _LOCK).is_file() and any(path.iterdir()):
                continue
            with FileLock(str(path / _LOCK), timeout=0, thread_local=False):
                shutil.rmtree(path, ignore_errors=True)


def check_writable(folder: StrPath) -> None:
    """See that something can be written in a folder, before any work is done; nothing is left there.

    Args:
        folder: It need not exist: then what there is above it counts.

    Raises:
        OutputError: Nothing can.
    """
    if not is_main():
        return
    place = Path(folder).absolute()
    there = next((each for each in (place, *place.parents) if os.path.lexists(each)), place)
    try:
        with _aside(there):
            pass
    except OSError as error:
        raise OutputError(describe_write_failure(place, error)) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: StrPath, text: str) -> None:
    """Write UTF-8 text in one piece."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def free_path(path: StrPath, ending: str, *, overwrite: bool) -> Path:
    """Check the name of a file that is going to be made, before any work is done.

    Args:
        path: The file.
        ending: What its name ends in, such as ".html"; capital letters count as small ones.
        overwrite: Whether it may exist.

    Raises:
        OutputExistsError: It exists.
        OutputError: Nothing can be written there.
        SettingsError: Another ending.
    """
    target = Path(path)
    if target.suffix.lower() != ending:
        raise SettingsError(f"expected a name that ends in {ending}, got {os.fspath(path)!r}")
    _check_free(target, overwrite)
    check_writable(target.parent)
    return target


def free_folder(path: StrPath, *, overwrite: bool) -> Path:
    """Check the name of a folder that is going to be made, before any work is done.

    Args:
        path: The folder.
        overwrite: Whether it may exist.

    Raises:
        OutputExistsError: It exists.
        OutputError: Nothing can be written there.
    """
    target = Path(path)
    _check_free(target, overwrite)
    check_writable(target.parent)
    return target


def _check_free(target: Path, overwrite: bool) -> None:
    if os.path.lexists(target) and not overwrite and is_main():  # which may have made it already
        raise OutputExistsError(
            f"{str(target)!r} exists already; choose another name, or pass overwrite=True to replace it"
        )


def read_whole(path: StrPath, limit: int = LARGEST) -> bytes:
    """Read a file that somebody named into memory, if it is one that fits there.

    Args:
        path: The file; a pipe is read as well.
        limit: Most bytes.

    Raises:
        FileFormatError: It is longer; a device such as /dev/zero never ends.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            limit = min(limit, LARGEST // 8)  # nothing but reading tells how long it is
        data = file.read(limit + 1) if about.st_size <= limit else None
    if data is None or len(data) > limit:
        raise FileFormatError(f"{str(path)!r} is longer than {limit / 1e6:,.0f} MB, which no file of this kind is")
    return data


def write_json(path: StrPath, value: object) -> None:
    """Write a JSON file in one piece; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: StrPath, *, remedy: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        remedy: What helps when it is broken, as a sentence for the message.

    Raises:
        FileFormatError: It is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(read_whole(path).decode("utf-8-sig"))  # some editors begin files with a mark
    except FileNotFoundError as error:
        raise FileFormatError(f"no file at {str(path)!r}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{str(path)!r} is not a readable JSON file: {error}{remedy and f'. {remedy}'}"
        ) from error


def write_tensors(path: StrPath, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as one safetensors file, contiguous and on the CPU; equal contents give equal bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replace_file(path) as temporary:
        try:
            save_file(plain, str(temporary), metadata=dict(metadata or {}))
            _sort_metadata(temporary)
        except SafetensorError as error:
            raise OutputError(describe_write_failure(Path(path), error)) from error


@contextlib.contextmanager
def tensors_in_parts(
    path: StrPath, like: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[Callable[[str, int, Tensor], None]]:
    """Write the file that `write_tensors` writes, to the byte, without ever having a whole tensor in memory.

    Args:
        path: The file; it gets its name when the block ends well.
        like: A tensor of the shape and dtype (float32, int64 or bool) of each that is written; its values do not
            matter, so that one number, expanded, will do.
        metadata: As there.

    Yields:
        A function that writes rows: the name of the tensor, the number of the first row, and the rows. What is not
        written is zero.

    Raises:
        OutputError: It cannot be written; the file from before is as it was.
        SettingsError: Rows do not fit.
    """
    ordered = sorted(like.items(), key=lambda item: (-item[1].itemsize, item[0]))  # as safetensors lays them out
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    starts, end = {}, 0
    for name, tensor in ordered:
        starts[name], end = end, end + tensor.numel() * tensor.itemsize
        place = {"shape": list(tensor.shape), "data_offsets": [starts[name], end]}
        header[name] = {"dtype": _SAFETENSORS[str(tensor.dtype)], **place}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replace_file(path) as temporary, temporary.open("w+b") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + end)

        def put(name: str, row: int, values: Tensor) -> None:
            known = like[name]
            if not (0 <= row <= len(known) - len(values) and values.shape[1:] == known.shape[1:]):
                raise SettingsError(
                    f"expected rows of {name!r} that fit into {tuple(known.shape)}, got {tuple(values.shape)} "
                    f"from row {row}"
                )
            rows = values.detach().to("cpu", known.dtype).contiguous()
            size = math.prod(known.shape[1:]) * known.itemsize
            file.seek(8 + len(text) + starts[name] + row * size)
            file.write(rows.numpy().tobytes())

        yield put
        file.flush()


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in the header, which safetensors writes in an order of its own each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # else a character was escaped in another way; the file is right all the same
            file.seek(8)
            file.write(text.ljust(size))


def read_tensors(
    path: StrPath, *, remedy: str = "Make it again or copy it again."
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file into memory: its tensors and its metadata.

    Args:
        path: The file.
        remedy: What helps when it is broken, as a sentence for the message.

    Raises:
        FileFormatError: It is missing, truncated, or not a safetensors file.
    """
    with _opened(path, "pt", remedy) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def read_metadata(path: StrPath, *, remedy: str = "Make it again or copy it again.") -> dict[str, str]:
    """Read the metadata of a safetensors file, and see that its header fits its size; no tensor is read.

    Args:
        path: The file.
        remedy: What helps when it is broken, as a sentence for the message.

    Raises:
        FileFormatError: It is missing, truncated, or not a safetensors file.
    """
    with _opened(path, "numpy", remedy) as file:
        return dict(file.metadata() or {})


def read_shapes(path: StrPath, *, remedy: str) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Read the shape of every tensor of a safetensors file, and its metadata; no tensor is read.

    Args:
        path: The file.
        remedy: What helps when it is broken, as a sentence for the message.

    Raises:
        FileFormatError: It is missing, truncated, or not a safetensors file.
    """
    with _opened(path, "numpy", remedy) as file:
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return shapes, dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: StrPath, framework: str, remedy: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileFormatError(f"no file at {str(path)!r}")
    _check_header(Path(path), remedy)
    try:
        with safe_open(str(path), framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{str(path)!r} is not a whole safetensors file ({error}); it was probably cut off while "
            f"being copied or written. {remedy}"
        ) from error


def _check_header(path: Path, remedy: str) -> None:
    """Refuse a header that claims more than there can be, before anything makes room for it."""
    try:
        with path.open("rb") as file:
            claimed, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
    except OSError as error:
        raise FileFormatError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    if claimed > min(size - 8, _LONGEST_HEADER):
        raise FileFormatError(
            f"{str(path)!r} is not a whole safetensors file (its header claims {claimed:,} bytes, the file has "
            f"{size:,}); it was cut off, or is something else. {remedy}"
        )


def new_folder(path: StrPath, fill: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Make a folder that appears under its name only when it is complete.

    Args:
        path: The folder to make.
        fill: Called with an empty folder beside it; writes everything. When it
            raises, nothing under ``path`` has changed.
        overwrite: Replace what exists: the new folder and the old one swap
            names (in one step on Linux), then the old one is deleted.

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is false.
        OutputError: It cannot be written.
    """
    target = Path(path)
    if not is_main():
        return
    _check_free(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _aside(target.parent) as aside:
            fresh = aside / "new"
            fresh.mkdir()
            fill(fresh)
            if os.path.lexists(target):
                _exchange(fresh, target)
            else:
                os.replace(fresh, target)
    except OSError as error:
        raise OutputError(describe_write_failure(target, error)) from error


def _exchange(fresh: Path, target: Path) -> None:
    """Swap two paths; in one step where the kernel can (Linux renameat2)."""
    at_cwd, exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        pass
    else:
        if renameat2(at_cwd, os.fsencode(fresh), at_cwd, os.fsencode(target), exchange) == 0:
            return
    old = fresh.with_name("old")
    os.replace(target, old)
    try:
        os.replace(fresh, target)
    except OSError:
        os.replace(old, target)
        raise


def hash_of_file(path: StrPath, *, of_git: bool = False) -> str:
    """Hash the bytes of a file, read in pieces.

    Args:
        path: The file.
        of_git: As git does for a file: SHA-1 of its size and bytes; else SHA-256.
    """
    digest: Any = hashlib.sha256()
    if of_git:
        digest = hashlib.sha1(b"blob %d\0" % os.path.getsize(path), usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return str(digest.hexdigest())


def sha256_of(*parts: bytes | str) -> str:
    """Hash the parts in order; lengths are hashed too, so that parts cannot run together."""
    return sha256_of_each(parts)


def sha256_of_each(parts: Iterable[bytes | str | memoryview]) -> str:
    """Hash the parts as [`sha256_of`][crayon_sdk._base.files.sha256_of] does, one at a time."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


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

    if not is_main():
        yield
        return
    owner = folder / f"{name}-owner.json"
    lock = FileLock(str(folder / name), thread_local=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise WorkspaceBusyError(
            f"{str(folder)!r} is in use{_owner(owner)}; wait until that is done, or stop it. Nothing was changed."
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


def _owner(owner: Path) -> str:
    """Who holds a lock, in words."""
    try:
        about = read_json(owner)
        return f" by process {about['pid']} ({about['doing']}, since {about['since']})"
    except (CrayonError, KeyError, TypeError):
        return ""
