"""Talking to the Hugging Face Hub: who is asking, what a repository holds, and what to do when it refuses.

The token is the one that huggingface_hub finds itself (``hf auth login``, or ``HF_TOKEN``). It
goes to the Hub and nowhere else: no message of ours repeats it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from crayon_sdk._base.files import hash_of_file
from crayon_sdk.errors import CrayonError, HubAccessError, HubConflictError, HubError, SettingsError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Account", "LocalFile", "RepoKind", "RepoState", "account", "client", "local_files", "repo_state", "retried"]

RepoKind = Literal["model", "dataset"]
WAITS = (1.0, 2.0, 4.0, 8.0)
_PASSING = (429, 500, 502, 503, 504)
_BROKEN_LINE = {"TransportError", "ConnectionError", "Timeout", "ChunkedEncodingError"}
_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Account:
    """Who a token belongs to.

    Attributes:
        name: The user.
        organizations: Where the user may have repositories too.
        may_write: Whether the token may write anywhere at all.
    """

    name: str
    organizations: tuple[str, ...] = ()
    may_write: bool = True

    def owns(self, repo_id: str) -> bool:
        """Tell whether a repository would be the user's, or of an organisation of theirs.

        Example:
            >>> Account("ann", ("lab",)).owns("Lab/birds"), Account("ann").owns("bob/birds")
            (True, False)
        """
        owner = repo_id.split("/")[0].lower()  # the Hub takes names in any case
        return owner in {name.lower() for name in (self.name, *self.organizations)}


@dataclass(frozen=True)
class LocalFile:
    """One file as it is to be on the Hub.

    Attributes:
        path: In the repository, with forward slashes.
        size: Bytes.
        sha256: What the Hub knows large files by.
        blob: git's own hash, which it knows small ones by.
        source: Where it lies here.
    """

    path: str
    size: int
    sha256: str
    blob: str = field(repr=False)
    source: Path = field(repr=False)


@dataclass(frozen=True)
class RepoState:
    """A repository at one commit.

    Attributes:
        commit: The commit.
        private: Whether others cannot see it.
        files: By path: ("sha256", hash) of a large file, ("blob", hash) of a small one.
    """

    commit: str
    private: bool
    files: dict[str, tuple[str, str]] = field(repr=False)

    def holds(self, file: LocalFile) -> bool:
        """Tell whether a file is there as it is here."""
        kind, found = self.files.get(file.path, ("", ""))
        return found == (file.sha256 if kind == "sha256" else file.blob)


def client() -> HfApi:
    """huggingface_hub's client, with its own token and endpoint."""
    from huggingface_hub import HfApi

    return HfApi()


def refuse_token(token: object) -> None:
    """Answer people who pass a token as an argument.

    Raises:
        SettingsError: There is one; the message does not repeat it.
    """
    if token is not None:
        raise SettingsError(
            "token= is not taken, so that no token stands in a script, a notebook or a log: log in once with "
            "`hf auth login`, or set HF_TOKEN in the environment, and leave token= out"
        )


def checked_repo_id(repo_id: str) -> str:
    """Refuse what cannot be the name of a repository.

    Raises:
        SettingsError: It is not "user/name" or "name".
    """
    if not isinstance(repo_id, str) or not _NAME.fullmatch(repo_id) or ".." in repo_id or len(repo_id) > 193:
        raise SettingsError(f"expected a repository such as 'me/birds-resnet50', got {repo_id!r}")
    return repo_id


def local_files(folder: Path) -> tuple[LocalFile, ...]:
    """List and hash the files below a folder.

    Raises:
        CrayonError: It holds a link, which might lead out of it.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise CrayonError(f"{str(path)!r} is a link; only files that lie in the folder are published")
        if path.is_file():
            hashes = hash_of_file(path), hash_of_file(path, of_git=True)
            found.append(LocalFile(path.relative_to(folder).as_posix(), path.stat().st_size, *hashes, path))
    return tuple(found)


def account(api: HfApi) -> Account:
    """Ask the Hub who is asking.

    Raises:
        HubAccessError: There is no token, or the Hub does not know it.
        HubError: The Hub cannot be reached.
    """
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        found = retried(api.whoami, "asking the Hub who you are", known=(LocalTokenNotFoundError,))
    except LocalTokenNotFoundError as error:
        raise HubAccessError(
            "no token of the Hub was found: log in with `hf auth login`, or set HF_TOKEN to a token that may write"
        ) from error
    token = (found.get("auth") or {}).get("accessToken") or {}
    organizations = tuple(str(each.get("name")) for each in found.get("orgs") or ())
    return Account(str(found.get("name")), organizations, may_write=token.get("role") != "read")


def repo_state(api: HfApi, repo_id: str, revision: str, kind: RepoKind) -> RepoState | None:
    """Look at a repository.

    Args:
        api: The client.
        repo_id: The repository.
        revision: A branch, tag or commit.
        kind: "model" or "dataset".

    Returns:
        Its state, or ``None`` when there is none that the token may see.

    Raises:
        RevisionNotFoundError: It has no such revision (huggingface_hub's own; for whoever makes branches).
        HubError: The Hub refuses or cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    doing, known = f"looking at {repo_id}", (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        info = retried(lambda: api.repo_info(repo_id, revision=revision, repo_type=kind), doing, known=known)
        pages = retried(
            lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=kind)),
            doing,
            known=known,
        )
    except RepositoryNotFoundError:
        return None
    files = {}
    for entry in pages:
        large = getattr(entry, "lfs", None)
        if hasattr(entry, "blob_id"):
            files[str(entry.path)] = ("sha256", str(large.sha256)) if large else ("blob", str(entry.blob_id))
    return RepoState(str(info.sha), bool(info.private), files)


def retried(
    call: Callable[[], _Found],
    doing: str,
    *,
    again: Callable[[BaseException], bool] | None = None,
    known: tuple[type[Exception], ...] = (),
) -> _Found:
    """Call the Hub, and call it again after a fault that passes: a broken line, too many requests, its own trouble.

    Args:
        call: What to do; must be safe to do twice.
        doing: What that is, for messages.
        again: Decides in the place of the rule for faults that pass.
        known: Errors that the caller deals with itself.

    Raises:
        HubAccessError: The token is not known, or may not do this.
        HubConflictError: Somebody else was faster.
        HubError: The Hub refuses, or cannot be reached after all.
    """
    known = (CrayonError, *known)
    try:
        return patiently(call, again or passes)
    except known:
        raise
    except Exception as error:  # httpx, requests and the client have no error in common
        _refused(error, doing)


def patiently(call: Callable[[], _Found], again: Callable[[BaseException], bool]) -> _Found:
    """Call, and call again with growing waits while ``again`` says so; raises what the call raises."""
    waits = iter(WAITS)
    while True:
        try:
            return call()
        except Exception as error:  # noqa: PERF203
            wait = next(waits, None)
            if wait is None or isinstance(error, CrayonError) or not again(error):
                raise
            time.sleep(max(wait, _asked_to_wait(error)))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, where there is one."""
    for each in chain(error):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def path_of(error: BaseException) -> str:
    """The path that was asked for when an error happened."""
    for each in chain(error):
        for holder in (getattr(each, "response", None), each):
            try:
                url = getattr(getattr(holder, "request", None), "url", None)
            except RuntimeError:  # httpx, of a request that was never made
                url = None
            if url:
                return str(url).partition("?")[0]
    return ""


def passes(error: BaseException) -> bool:
    """Tell whether a fault may be gone in a second."""
    status = status_of(error)
    if status is not None:
        return status in _PASSING
    return is_broken_line(error) or isinstance(error, json.JSONDecodeError)


def is_broken_line(error: BaseException) -> bool:
    """Tell whether a request got no answer, so that nobody knows whether it was carried out."""
    return any(kind.__name__ in _BROKEN_LINE for each in chain(error) for kind in type(each).__mro__)


def _asked_to_wait(error: BaseException) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(60.0, float(headers.get("Retry-After", 0)))
    except (TypeError, ValueError):
        return 0.0


def _refused(error: Exception, doing: str) -> NoReturn:
    """Raise what happened as an error that says what to do, without the token."""
    status, said = status_of(error), without_token(_words(error))
    cause = error if all(without_token(str(each)) == str(each) for each in chain(error)) else None
    if status == 401:
        raise HubAccessError(
            f"{doing}: the Hub does not know the token that was found (401). Log in again with `hf auth login`, or set "
            "HF_TOKEN to a valid one; HF_TOKEN counts before the login"
        ) from cause
    if status in (402, 403):
        raise HubAccessError(
            f"{doing}: the Hub refused ({status}: {said}). Take a token that may write there, or propose the change "
            "with create_pr=True"
        ) from cause
    if status in (409, 412):
        raise HubConflictError(f"{doing}: the repository changed at the same moment ({status}: {said})") from cause
    if status == 429:
        raise HubError(f"{doing}: the Hub asks for fewer requests (429). Wait some minutes and run it again") from cause
    if status is not None and status >= 500:
        raise HubError(
            f"{doing}: the Hub is in trouble ({status}). Run it again later; nothing is sent twice"
        ) from cause
    if is_broken_line(error):
        raise HubError(
            f"{doing}: the connection to the Hub broke ({said}). Check the network and run it again; what was "
            "uploaded already is not sent twice"
        ) from cause
    raise HubError(f"{doing}: {said}") from cause


def _words(error: BaseException) -> str:
    """What the server said, else what the client says, else what lies behind it."""
    for each in chain(error):
        headers = getattr(getattr(each, "response", None), "headers", None) or {}
        if said := headers.get("X-Error-Message"):
            return str(said)[:300]
    texts = [" ".join(str(each).split()) or type(each).__name__ for each in chain(error)]
    return (texts[0] if isinstance(error, ValueError) or len(texts) == 1 else f"{texts[0]} {texts[-1]}")[:300]


def without_token(text: str) -> str:
    """Take the token out of a text, where a library has put it in."""
    from huggingface_hub import get_token

    for token in {get_token(), os.environ.get("HF_TOKEN", "").strip(), os.environ.get("HF_TOKEN")}:
        if token:
            text = text.replace(token, "<token>")
    return text


def endpoint_of(api: Any) -> str:
    """Address of the Hub."""
    return str(api.endpoint).rstrip("/")
