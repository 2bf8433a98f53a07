"""Reading and writing without surprises: to the side first, then rename.

Nothing here ever leaves a half-written file under the name that was asked for,
and every failure of the operating system arrives as an
[`OutputError`][crayon_sdk.errors.OutputError] or a
[`FileFormatError`][crayon_sdk.errors.FileFormatError].
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crayon_sdk.errors import FileFormatError, OutputError, OutputExistsError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "describe_write_failure",
    "free_path",
    "new_folder",
    "read_json",
    "read_tensors",
    "replace_file",
    "sha256_of",
    "sha256_of_each",
    "write_json",
    "write_tensors",
    "write_text",
]

_LONGEST_HEADER = 100_000_000  # as the format has it
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
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(describe_write_failure(target, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
        SettingsError: Another ending.
    """
    target = Path(path)
    if target.suffix.lower() != ending:
        raise SettingsError(f"expected a name that ends in {ending}, got {os.fspath(path)!r}")
    if target.exists() and not overwrite:
        raise OutputExistsError(
            f"{str(target)!r} exists already; choose another name, or pass overwrite=True (--overwrite) to replace it"
        )
    return target


def write_json(path: StrPath, value: object) -> None:
    """Write a JSON file in one piece; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: StrPath) -> Any:
    """Read a JSON file.

    Raises:
        FileFormatError: It is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # some editors begin files with a mark
    except FileNotFoundError as error:
        raise FileFormatError(f"no file at {str(path)!r}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{str(path)!r} is not a readable JSON file: {error}") from error


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


def read_tensors(path: StrPath) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file into memory: its tensors and its metadata.

    Raises:
        FileFormatError: It is missing, truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileFormatError(f"no file at {str(path)!r}")
    _check_header(Path(path))
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{str(path)!r} is not a whole safetensors file ({error}); it was probably cut off while "
            "being copied or written. Make it again or copy it again."
        ) from error


def _check_header(path: Path) -> None:
    """Refuse a header that claims more than there can be, before anything makes room for it."""
    try:
        with path.open("rb") as file:
            claimed, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
    except OSError as error:
        raise FileFormatError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    if claimed > min(size - 8, _LONGEST_HEADER):
        raise FileFormatError(
            f"{str(path)!r} is not a whole safetensors file (its header claims {claimed:,} bytes, the file has "
            f"{size:,}); it was cut off, or is something else. Make it again or copy it again."
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
    if os.path.lexists(target) and not overwrite:
        raise OutputExistsError(
            f"{str(target)!r} exists already; choose another name, or pass overwrite=True to replace it"
        )
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        fresh = aside / "new"
        fresh.mkdir()
        fill(fresh)
        if os.path.lexists(target):
            _exchange(fresh, target)
        else:
            os.replace(fresh, target)
    except OSError as error:
        raise OutputError(describe_write_failure(target, error)) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


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


def sha256_of(*parts: bytes | str) -> str:
    """Hash the parts in order; lengths are hashed too, so that parts cannot run together."""
    return sha256_of_each(parts)


def sha256_of_each(parts: Iterable[bytes | str]) -> str:
    """Hash the parts as [`sha256_of`][crayon_sdk.files.sha256_of] does, one at a time."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()
