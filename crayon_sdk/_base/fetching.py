"""Files from the Hugging Face Hub, by name and nothing else, compared with the hashes that it lists.

The client compares sizes only; a file whose bytes were changed on the way would load.
What was fetched once is read from the client's cache when the Hub cannot be reached.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from crayon_sdk._base.files import hash_of_file
from crayon_sdk._base.hub import RepoKind, chain, client, is_broken_line, passes, patiently, without_token
from crayon_sdk._base.text import first_line
from crayon_sdk.errors import CrayonError, FileFormatError, ModelLoadError

__all__ = ["PREFIXES", "Fetched", "fetch", "hub_hint", "is_on_hub", "offline_copy", "split_source"]

PREFIXES = ("hf-hub:", "hf_hub:")
_log = logging.getLogger(__name__)
_TRIES = 3
_CONNECTING = 5.0  # seconds for each address
_LARGEST_TEXT = 256 << 20
_ON_HUB = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?", re.ASCII)
_ODD = re.compile(r"[\\\x00-\x1f:]")


@dataclass(frozen=True)
class Fetched:
    """Files in the client's cache.

    Attributes:
        folder: Where they lie.
        names: Which of those that were asked for there are.
    """

    folder: Path
    names: frozenset[str]


@dataclass(frozen=True)
class _Listing:
    commit: str
    files: dict[str, Any] = field(repr=False)


def is_on_hub(source: object) -> bool:
    """Tell whether a source is "hf-hub:..."."""
    return isinstance(source, str) and source.startswith(PREFIXES)


def hub_hint(source: str) -> str:
    """What to add to a message about a folder that is not there, where the name could be one of the Hub.

    Example:
        >>> hub_hint("me/birds"), hub_hint("/home/me/birds")
        ("; for a repository of the Hub write 'hf-hub:me/birds'", '')
    """
    return f"; for a repository of the Hub write 'hf-hub:{source}'" if _ON_HUB.fullmatch(source) else ""


def split_source(source: str) -> tuple[str, str]:
    """Split "hf-hub:me/name@revision".

    Example:
        >>> split_source("hf-hub:me/birds@v1"), split_source("hf-hub:me/birds")
        (('me/birds', 'v1'), ('me/birds', ''))
    """
    repository, _, revision = source.partition(":")[2].partition("@")
    return repository, revision


def fetch(
    source: str,
    names: Sequence[str],
    *,
    kind: RepoKind = "model",
    needed: Collection[str] = (),
    error_type: type[CrayonError] = ModelLoadError,
) -> Fetched:
    """Bring files of one commit into the cache.

    Args:
        source: "hf-hub:me/name" or "hf-hub:me/name@revision".
        names: Files of the repository.
        kind: "model" or "dataset".
        needed: Those of them that must be there.
        error_type: What to raise when they cannot be had.

    Raises:
        ModelLoadError: Or ``error_type``: the repository, its revision or a needed file is not there, or may not be
            read.
        FileFormatError: What arrives is not what the Hub lists, or its listing is no listing of files.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, revision = split_source(source)
    try:
        for _ in range(_TRIES):
            listing = _listing(repository, revision, kind)
            there = [name for name in names if listing is None or name in listing.files]
            found = {name: _download(repository, revision, name, kind, listing) for name in there}
            commits = {path.parents[name.count("/")].name for name, path in found.items() if path is not None}
            if listing is None or commits <= {listing.commit}:
                break
        else:
            raise error_type(f"{source!r} changed while it was fetched; fetch it again, or name a commit after the @")
    except LocalEntryNotFoundError as error:  # it went away between two files
        raise error_type(f"cannot fetch {source!r}, the Hub cannot be reached: {first_line(error)}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise error_type(f"cannot fetch {source!r}: {_reason(error, repository, revision)}") from error
    paths = {name: path for name, path in found.items() if path is not None}
    lacking = sorted(set(needed) - set(paths))
    if listing is None and (lacking or not paths):
        raise error_type(
            f"cannot fetch {source!r}, the Hub cannot be reached, and it is not in the cache: check the network, or "
            "fetch it once where there is one"
        )
    if lacking:
        raise error_type(f"{source!r} has no {' and no '.join(lacking)}")
    folders = {path.parents[name.count("/")] for name, path in paths.items()}
    return Fetched(folders.pop() if folders else Path(), frozenset(paths))


def offline_copy(repository: str, names: Sequence[str]) -> Path | None:
    """Find the copy of a file in the cache, when the Hub cannot be reached.

    For libraries that would try to reach it for a minute. A Hub that is only slow to answer counts as reached.

    Args:
        repository: "timm/resnet18.a1_in1k".
        names: The file, under the names that it may have.

    Returns:
        The first of them that is there; ``None`` when the Hub can be reached.

    Raises:
        ModelLoadError: It cannot be reached, and none of them is there.
    """
    try:
        client().repo_info(repository, timeout=_CONNECTING)
        return None
    except Exception as error:
        slow = any(kind.__name__ == "ReadTimeout" for each in chain(error) for kind in type(each).__mro__)
        if slow or not is_broken_line(error):
            return None
        cause = error
    for name in names:
        if (path := _download(repository, "", name, "model", None)) is not None:
            _log.info("the Hub cannot be reached; taking %s from the cache", repository)
            return path
    raise ModelLoadError(
        f"the Hub cannot be reached ({without_token(first_line(cause))}), and {repository} is not in the cache: check "
        "the network, or fetch it once where there is one (in Python: pretrained=False gives random weights)"
    ) from cause


def _listing(repository: str, revision: str, kind: RepoKind) -> _Listing | None:
    """See what a repository holds; ``None`` when the Hub cannot be reached."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        info = patiently(
            lambda: client().repo_info(repository, revision=revision or None, repo_type=kind, files_metadata=True),
            lambda error: passes(error) and not is_broken_line(error),
        )
    except Exception as error:
        if is_broken_line(error):
            _log.info("the Hub cannot be reached; taking %s from the cache", repository)
            return None
        raise
    files = {str(each.rfilename): each for each in getattr(info, "siblings", None) or ()}
    for name in files:
        if _ODD.search(name) or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise FileFormatError(
                f"{repository!r} lists a file called {name!r}, which leads out of its folder; nothing was fetched"
            )
    return _Listing(str(info.sha), files)


def _download(repository: str, revision: str, name: str, kind: RepoKind, listing: _Listing | None) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def once(*, force: bool = False) -> Path:
        return Path(
            hf_hub_download(
                repository,
                name,
                revision=revision or None,
                repo_type=kind,
                force_download=force,
                local_files_only=listing is None,
            )
        )

    if listing is None:
        try:
            return once()
        except LocalEntryNotFoundError:
            return None
    entry = listing.files[name]
    if not name.endswith(".safetensors") and (entry.size or 0) > _LARGEST_TEXT:
        raise FileFormatError(f"{name} of {repository!r} has {entry.size:,} bytes, which is no such file")
    path = patiently(once, passes)
    if path.parents[name.count("/")].name != listing.commit:
        return path  # the branch moved on; the caller looks again
    if not _is(path, entry):
        _forget(path)
        _log.warning("%s of %s was changed on the way; fetching it again", name, repository)
        path = patiently(lambda: once(force=True), passes)
        if not _is(path, entry):
            _forget(path)
            raise FileFormatError(
                f"{name} of {repository!r} does not have the hash that the Hub lists: it was changed on the way, or "
                "while it was stored. Fetch it again; over another network if need be"
            )
    return path


def _is(path: Path, entry: Any) -> bool:
    """Compare a file with what the Hub lists: sha256 of a large file, git's hash of a small one."""
    large = getattr(entry, "lfs", None)
    return hash_of_file(path, of_git=not large) == str(large.sha256 if large else entry.blob_id)


def _forget(path: Path) -> None:
    """Take a file out of the cache, so that nobody else loads it."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _reason(error: Exception, repository: str, revision: str) -> str:
    """Say what the Hub refused, and what to do; the token itself is in none of its errors."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    token = "the token that was found" if get_token() else "no token was found, and without one"
    log_in = "log in with `hf auth login`, or set HF_TOKEN to a token that may read it"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return f"access to {repository!r} must be asked for on its page, and {token} has none; then {log_in}"
    if isinstance(error, RevisionNotFoundError):
        return f"{repository!r} has no revision {revision!r}; name a branch, a tag or a commit after the @"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"no repository {repository!r}, or it is private and {token} may not read it; check the name, or {log_in}"
        )
    if status in (401, 403):
        return f"the Hub refused to hand out {repository!r} ({status}; {token} may not read it); {log_in}"
    return without_token(first_line(error))
