"""Large files from plain web servers: several mirrors, resumed where a line was cut, compared with what is published.

What comes is written beside its name, as ``NAME.part``, and gets the name when it is whole. A later call goes on with
it; from another server only where a checksum says in the end that both had the same.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from crayon_sdk._base.files import check_writable, describe_write_failure, locked, new_folder, write_text
from crayon_sdk._base.progress import track
from crayon_sdk._base.text import first_line
from crayon_sdk.errors import DataError, FileFormatError, OutputError, SettingsError

__all__ = ["Remote", "download", "unpack"]

_log = logging.getLogger(__name__)
_TRIES = 3  # of each mirror, each going on where the last one stopped
_PIECE = 1 << 20
_WAIT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """A file on the web.

    Attributes:
        name: What it is called here.
        urls: Where it is, best first; all the same bytes.
        checksum: "md5:..." or "sha256:..."; "" where none is published.
        size: In bytes, where it is known.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str = ""
    size: int | None = None


class _UnfitError(Exception):
    """What a mirror gives cannot be used; the next one is asked."""


def download(remote: Remote, folder: str | os.PathLike[str]) -> Path:
    """Bring a file, or the rest of it; one that is there already, and is the right one, is left as it is.

    Args:
        remote: What, and where it is.
        folder: Where to; made when it is missing.

    Returns:
        The file.

    Raises:
        DataError: No mirror gave it; the message has a line for each. What came is kept for the next call.
        FileFormatError: A file of that name is there, and is not what is published.
        OutputError: It cannot be written, or the disk is too small.
        SettingsError: An address is none of http or https.
        WorkspaceBusyError: Another process brings it.
    """
    for url in remote.urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise SettingsError(f"expected an address that begins with http:// or https://, got {url!r}")
    target = Path(folder) / remote.name
    check_writable(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent, doing=f"fetching {remote.name}", timeout=0, name=f".{remote.name}.lock"):
        try:
            if not target.is_file():
                _from_mirrors(remote, target)
            elif problem := _problem(target, remote):
                raise FileFormatError(f"{str(target)!r} is there and {problem}; delete it, and fetch it again")
        finally:
            (target.parent / f".{remote.name}.lock").unlink(missing_ok=True)
    return target


def _from_mirrors(remote: Remote, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    said = []
    for url in remote.urls:
        problem = _bring(url, remote, part)
        if not problem:
            os.replace(part, target)
            _note(part).unlink(missing_ok=True)
            return
        said.append(f"{url}: {problem}")
    kept = f". {part.stat().st_size:,} bytes are kept" if part.is_file() else ""
    raise DataError(
        f"cannot fetch {remote.name}: {'; '.join(said)}{kept}; run the same again to go on, or bring the file "
        f"yourself and put it into {str(target.parent)!r}"
    )


def _bring(url: str, remote: Remote, part: Path) -> str:
    """Write the part whole, from one mirror; why that cannot be, or nothing."""
    problem = ""
    for _ in range(_TRIES):
        try:
            _go_on(url, remote, part)
        except _UnfitError as error:  # noqa: PERF203 - three times at most
            return str(error)
        except (URLError, http.client.HTTPException, OSError) as error:
            problem = first_line(error)
            _log.info("%s: %s; trying again", url, problem)
        else:
            wrong = _problem(part, remote)
            if wrong:
                _forget(part)
            return wrong
    return problem


def _go_on(url: str, remote: Remote, part: Path) -> None:
    """Write what is missing of a part."""
    have = part.stat().st_size if part.is_file() else 0
    before = _read_note(part)
    same = before.get("url") == url and bool(before.get("mark"))
    if have and not (same or remote.checksum):  # from somewhere else, and nothing would tell in the end
        _forget(part)
        have = 0
    if remote.size is not None and have == remote.size:
        return
    headers = {"User-Agent": "crayon-sdk", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if same:
            headers["If-Range"] = before["mark"]
    try:
        answer = urlopen(Request(url, headers=headers), timeout=_WAIT)  # noqa: S310 - http and https only, see above
    except HTTPError as error:
        if error.code == 416 and have:  # all of it is here, or it is another file now
            if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                return
            _forget(part)
            raise OSError("what is here is longer than the file there; beginning anew") from error
        if error.code in (408, 425, 429) or error.code >= 500:
            raise
        raise _UnfitError(f"the server says {error.code} {error.reason}") from error
    with answer:
        # Before anything of what is here is given up: is it the file at all?
        if answer.headers.get_content_type() == "text/html":
            raise _UnfitError("the server sends a page, not the file")
        if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _UnfitError("the server sends another part than it was asked for")
        have = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        if remote.size is not None and total is not None and total != remote.size:
            raise _UnfitError(f"the file there has {total:,} bytes instead of {remote.size:,}")
        _check_space(part, (total or 0) - have)
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        write_text(_note(part), json.dumps({"url": url, "mark": "" if mark.startswith("W/") else mark}))
        _write(answer, part, have, total)


def _write(answer: Any, part: Path, have: int, total: int | None) -> None:
    done = have
    with track(f"fetching {part.stem}", total or 0) as advance:
        advance(have)
        try:
            file = open(part, "r+b" if have else "wb")  # noqa: SIM115 - closed below; reading fails in other ways
        except OSError as error:
            raise OutputError(describe_write_failure(part, error)) from error
        with file:
            file.seek(have)
            while piece := answer.read(_PIECE):
                try:
                    file.write(piece)
                    file.flush()
                except OSError as error:
                    raise OutputError(describe_write_failure(part, error)) from error
                done += len(piece)
                advance(len(piece))
    if total is not None and done < total:
        raise OSError(f"the line was cut after {done:,} of {total:,} bytes")


def _check_space(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place.parent).free
    if needed > free:
        raise OutputError(
            f"cannot write {str(place)!r}: {needed:,} bytes are needed and {free:,} are free; free some space, or "
            "choose another folder"
        )


def _problem(path: Path, remote: Remote) -> str:
    """What is wrong with a file, as the end of a sentence; nothing where it is what is published."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"has {size:,} bytes instead of {remote.size:,}"
    kind, _, expected = remote.checksum.partition(":")
    if expected:
        digest = hashlib.md5(usedforsecurity=False) if kind == "md5" else hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        if digest.hexdigest() != expected:
            return f"does not have the published {kind} {expected}, but {digest.hexdigest()}"
    return ""


def _note(part: Path) -> Path:
    """Beside a part: where it came from."""
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, str]:
    try:
        found = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def unpack(archive: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Unpack a tar or zip file into a folder that appears when all of it is there.

    A folder in the archive that is called as the target becomes the target, so that it is not there twice.

    Args:
        archive: The file.
        target: The folder; must not exist.

    Raises:
        FileFormatError: It is no such archive, it is cut off, or a name in it leads out of the folder.
        OutputExistsError: The folder exists.
        OutputError: It cannot be written, or the disk is too small.
    """
    path, folder = Path(archive), Path(target)
    try:
        sizes = _contents(path)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise FileFormatError(
            f"{str(path)!r} is not a whole archive ({first_line(error)}); delete it, and fetch it again"
        ) from error
    for name in sizes:
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
            raise FileFormatError(f"{str(path)!r} has a file called {name!r}, which leads out of its folder")
    check_writable(folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_space(folder, sum(sizes.values()))
    new_folder(folder, lambda fresh: _fill(path, fresh, folder.name))


def _contents(path: Path) -> dict[str, int]:
    """Names and sizes of all files; all of the archive is read for it, so that a cut one is found before the work."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            return {each.filename: each.file_size for each in packed.infolist()}
    with tarfile.open(path) as packed:
        return {each.name: each.size for each in packed}


def _fill(path: Path, fresh: Path, name: str) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            packed.extractall(fresh)  # noqa: S202 - names are looked over
    else:
        with tarfile.open(path) as packed:
            more: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            packed.extractall(fresh, [each for each in packed if each.isfile() or each.isdir()], **more)  # noqa: S202
    twice = fresh / name
    if twice.is_dir() and [each.name for each in fresh.iterdir()] == [name]:
        aside = fresh / ".crayon-unpacked"
        twice.rename(aside)
        for each in list(aside.iterdir()):
            each.rename(fresh / each.name)
        aside.rmdir()
