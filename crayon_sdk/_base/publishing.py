"""Publishing a folder on the Hugging Face Hub: one commit with everything, or nothing.

The order is: who is asking and what is there; large files, which nobody sees yet; one
commit on top of what was there at the beginning; a look at what arrived. A process that
dies in between leaves the branch as it was, and running it again goes on.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict, Unpack  # in typing from Python 3.12 and 3.11 on

from crayon_sdk._base.hub import (
    Account,
    LocalFile,
    RepoKind,
    RepoState,
    account,
    checked_repo_id,
    client,
    endpoint_of,
    is_broken_line,
    local_files,
    passes,
    path_of,
    refuse_token,
    repo_state,
    retried,
)
from crayon_sdk._base.launch import launched
from crayon_sdk._base.settings import CONFIG, check_names, refusal, settings_in
from crayon_sdk._base.text import first_few
from crayon_sdk.errors import HubAccessError, HubConflictError, HubError, SettingsError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["HubOptions", "Published", "Target", "find_target", "publish", "takes_hub_options"]

_log = logging.getLogger(__name__)
_LOOKED_AT = 20
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@with_config(CONFIG)
class HubOptions(TypedDict, total=False):
    """How something is published; what all that publish take, in Python and in the shell."""

    private: bool | None
    """For a new repository: whether others cannot see it; where it is not said, the Hub's default."""
    create_pr: bool
    """Open a pull request instead of changing main; the same one is not opened twice."""
    revision: str | None
    """The branch, made when it is missing; default main."""
    commit_message: str | None
    """Message of the commit; default "Upload model (or answers) with crayon-sdk"."""
    dry_run: bool
    """List files and sizes, and check what can be checked here; send nothing, ask the Hub nothing."""
    token: None
    """Refused, with a word on where the token comes from."""


def takes_hub_options(function: FunctionT) -> FunctionT:
    """Let a function that takes ``**hub: Unpack[HubOptions]`` say so: one by one, in its signature and its docstring.

    It is run with all of them but the token. A keyword that there is not, and a value that cannot be, are refused first
    with a `SettingsError`.
    """
    known, own = settings_in(HubOptions), inspect.signature(function)
    *before, hub = own.parameters.values()
    names = [each.name for each in before if each.name != "self"] + list(known)

    @functools.wraps(function)
    def checked(*positional: Any, **given: Any) -> Any:
        check_names(given, names, f"keyword of {function.__name__}")
        refuse_token(given.pop("token", None))  # before anything could repeat it
        asked = {name: given.pop(name, setting.default) for name, setting in known.items() if name != "token"}
        try:
            TypeAdapter(HubOptions).validate_python(asked)
        except ValidationError as error:
            raise SettingsError(refusal(error, HubOptions)) from error
        return function(*positional, **given, **asked)

    shown = [
        inspect.Parameter(name, hub.KEYWORD_ONLY, default=each.default, annotation=each.hint if each.allowed else None)
        for name, each in known.items()
    ]
    made: Any = checked
    made.__signature__ = own.replace(parameters=[*before, *shown])
    lines = "\n".join(rf"\1{name}: {each.text}" for name, each in known.items())
    made.__doc__ = re.sub(rf"^( *)\*\*{hub.name}: .*$", lines, function.__doc__ or "", flags=re.M)
    found: FunctionT = made
    return found


@dataclass(frozen=True)
class Published:
    """What was published, and where.

    Attributes:
        url: Page of the repository, or of the pull request.
        repo_id: The repository, with its owner.
        commit: The commit that holds the files; empty after a dry run.
        files: All files, as (path, bytes).
        removed: Files of an earlier model that are no longer there.
        changed: Whether a commit was made; false when everything was there already.
        dry_run: Whether nothing was sent.
    """

    url: str
    repo_id: str
    commit: str
    files: tuple[tuple[str, int], ...]
    removed: tuple[str, ...] = ()
    changed: bool = True
    dry_run: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)


@dataclass(frozen=True)
class Target:
    """Where to publish, after a look at it.

    Attributes:
        repo_id: The repository, with its owner.
        kind: "model" or "dataset".
        branch: The branch to change, or to propose a change of.
        state: What was there; ``None`` when the repository, or the branch, is to be made.
        author: Who is asking.
        message: Of the commit.
        hub: What was asked for.
    """

    repo_id: str
    kind: RepoKind
    branch: str
    state: RepoState | None
    author: str
    message: str
    hub: HubOptions
    api: HfApi = field(repr=False)

    @property
    def url(self) -> str:
        """Page of the repository."""
        return f"{endpoint_of(self.api)}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"

    def look(self, revision: str) -> RepoState:
        """See what is there now.

        Raises:
            HubError: It is gone, or the Hub cannot be reached.
        """
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            found = repo_state(self.api, self.repo_id, revision, self.kind)
        except RevisionNotFoundError:
            found = None
        if found is None:
            raise HubError(f"{self.url} has no {revision!r} any more; it was probably deleted. Run it again")
        return found


@takes_hub_options
def find_target(repo_id: str, *, kind: RepoKind = "model", **hub: Unpack[HubOptions]) -> Target:
    """Check names, rights and the repository, before any work is done.

    Args:
        repo_id: "me/name"; without an owner it is the token's.
        kind: "model" or "dataset".
        **hub: As in `HubOptions`.

    Raises:
        SettingsError: A name or a combination that cannot be; ``private`` is not what the repository is.
        HubAccessError: The token is missing, unknown, or may not write there.
        HubError: The Hub cannot be reached.
    """
    index, size = launched()
    if index:
        raise SettingsError(
            f"expected the main process alone to publish, got process {index} of {size}, too; save the result, and "
            "publish it when the launched processes have ended"
        )
    checked_repo_id(repo_id)
    create_pr, revision, commit_message = hub["create_pr"], hub["revision"], hub["commit_message"]
    if create_pr and revision is not None:
        raise SettingsError("a pull request goes to main: leave revision= out, or create_pr=True")
    if revision == "" or (commit_message is not None and not commit_message.strip()):
        raise SettingsError("revision and commit_message must not be empty; leave them out for their defaults")
    api, branch = client(), revision or "main"
    message = commit_message or f"Upload {'answers' if kind == 'dataset' else 'model'} with crayon-sdk"
    if hub["dry_run"]:
        return Target(repo_id, kind, branch, None, "", message, hub, api)
    who = account(api)
    repo_id = repo_id if "/" in repo_id else f"{who.name}/{repo_id}"
    _check_rights(repo_id, who, create_pr=create_pr)
    state = _found(api, repo_id, branch, kind, hub["private"])
    if state is None and create_pr and not who.owns(repo_id):
        raise HubAccessError(
            f"there is no repository {repo_id!r} to propose a change of, or it is private and the token of "
            f"{who.name!r} may not see it; check the name"
        )
    return Target(repo_id, kind, branch, state, who.name, message, hub, api)


def _check_rights(repo_id: str, who: Account, *, create_pr: bool) -> None:
    if not who.may_write:
        raise HubAccessError(
            f"the token of {who.name!r} that was found may only read. Make one that may write in the settings of the "
            "Hub, then `hf auth login` or set HF_TOKEN"
        )
    owner = repo_id.split("/")[0]
    if not who.owns(repo_id) and not create_pr:
        others = f" (also in {first_few(who.organizations)})" if who.organizations else ""
        raise HubAccessError(
            f"{repo_id!r} belongs to {owner!r}, and the token to {who.name!r}{others}. Push to a repository of yours, "
            "or propose the change with create_pr=True"
        )


def _found(api: HfApi, repo_id: str, branch: str, kind: RepoKind, private: bool | None) -> RepoState | None:
    """See what is in a branch; ``None`` when it, or the repository, is to be made."""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        state = repo_state(api, repo_id, branch, kind)
    except RevisionNotFoundError:
        if branch == "main":
            raise HubError(f"{repo_id!r} has no branch main; name one with revision=") from None
        _check_visibility(repo_id, repo_state(api, repo_id, "main", kind), private)
        return None
    _check_visibility(repo_id, state, private)
    return state


def _check_visibility(repo_id: str, state: RepoState | None, private: bool | None) -> None:
    if state is not None and private is not None and state.private != private:
        is_now, asked = ("private", "public") if state.private else ("public", "private")
        raise SettingsError(
            f"{repo_id!r} exists and is {is_now}, but {asked} was asked for; nothing was sent. Change it on its "
            "settings page, or leave private= out"
        )


def publish(folder: Path, target: Target, *, replaces: Collection[str] = ()) -> Published:
    """Make the repository hold the files of a folder, in one commit; what is there already is not sent.

    Args:
        folder: Everything below it is published.
        target: Where to, from [`find_target`][crayon_sdk._base.publishing.find_target].
        replaces: Names that would belong to an earlier model: removed from the repository when the folder lacks them.
            Other files there stay.

    Raises:
        HubAccessError: The token may not write there.
        HubConflictError: Somebody else changed the branch meanwhile; theirs is what is there.
        HubError: The Hub refuses, cannot be reached, or holds something else than what was sent.
    """
    files = local_files(folder)
    listed = tuple((file.path, file.size) for file in files)
    if target.hub["dry_run"]:
        return Published(target.url, target.repo_id, "", listed, changed=False, dry_run=True)
    state = target.state or _made(target)
    paths = {file.path for file in files}
    removed = tuple(sorted(path for path in state.files if path in replaces and path not in paths))
    if not removed and all(map(state.holds, files)):
        _log.info("%s holds all files already", target.url)
        return Published(target.url, target.repo_id, state.commit, listed, changed=False)
    commit, url, changed = _Commit(target, state, files, removed).run()
    return Published(url, target.repo_id, commit, listed, removed, changed=changed)


def _made(target: Target) -> RepoState:
    """Make the repository, or the branch in it."""
    api, name, kind = target.api, target.repo_id, target.kind
    retried(
        lambda: api.create_repo(name, private=target.hub["private"], repo_type=kind, exist_ok=True),
        f"making {target.url}",
    )
    if target.branch != "main":
        retried(
            lambda: api.create_branch(name, branch=target.branch, repo_type=kind, exist_ok=True),
            f"making the branch {target.branch!r} of {target.url}",
        )
    state = target.look(target.branch)
    _check_visibility(name, state, target.hub["private"])  # somebody else may have made it meanwhile
    return state


@dataclass
class _Commit:
    """One commit that may be tried several times, and is made once."""

    target: Target
    state: RepoState
    files: tuple[LocalFile, ...]
    removed: tuple[str, ...]
    tries: int = 0

    def run(self) -> tuple[str, str, bool]:
        """Commit and look at it; gives the commit, a page, and whether it is new."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        changed = [file for file in self.files if not self.state.holds(file)]
        operations: list[Any] = [CommitOperationAdd(file.path, str(file.source)) for file in changed]
        operations += [CommitOperationDelete(path, is_folder=False) for path in self.removed]
        doing = f"pushing to {self.target.url}"
        try:
            commit, url, new = retried(lambda: self._once(operations), doing, again=_again)
        except HubConflictError as error:
            found = self._arrived()
            if found is None:
                raise HubConflictError(
                    f"{self.target.url} was changed by somebody else meanwhile; nothing of theirs was overwritten, "
                    "nothing of yours was published. Look at it, then run it again to put yours on top"
                ) from error
            commit, url, new = found, self.target.url, True
        self._check(commit)
        return commit, url, new

    def _once(self, operations: list[Any]) -> tuple[str, str, bool]:
        target = self.target
        self.tries += 1
        if target.hub["create_pr"] and (proposed := self._proposed()):
            return (*proposed, self.tries > 1)
        # The answer to the last try may be all that was lost.
        if not target.hub["create_pr"] and self.tries > 1 and (commit := self._arrived()):
            return commit, target.url, True
        made = target.api.create_commit(
            target.repo_id,
            operations,
            commit_message=target.message,
            repo_type=target.kind,
            revision=None if target.hub["create_pr"] else target.branch,
            create_pr=target.hub["create_pr"],
            parent_commit=self.state.commit,
        )
        return str(made.oid), str(made.pr_url or target.url), True

    def _arrived(self) -> str | None:
        """The commit of the branch, when it holds everything already."""
        if self.target.hub["create_pr"]:
            return None
        now = self.target.look(self.target.branch)
        return now.commit if self._is_whole(now) else None

    def _proposed(self) -> tuple[str, str] | None:
        """Commit and page of an open pull request of ours that holds everything already."""
        target = self.target
        requests = retried(
            lambda: list(
                target.api.get_repo_discussions(
                    target.repo_id,
                    repo_type=target.kind,
                    author=target.author,
                    discussion_type="pull_request",
                    discussion_status="open",
                )
            ),
            f"looking for open pull requests of {target.url}",
        )
        for request in requests[:_LOOKED_AT]:
            now = target.look(f"refs/pr/{request.num}")
            if self._is_whole(now):
                return now.commit, f"{target.url}/discussions/{request.num}"
        return None

    def _is_whole(self, now: RepoState) -> bool:
        return all(map(now.holds, self.files)) and not any(path in now.files for path in self.removed)

    def _check(self, commit: str) -> None:
        """See that what arrived is what was sent."""
        now = self.target.look(commit)
        wrong = [file.path for file in self.files if not now.holds(file)]
        wrong += [path for path in self.removed if path in now.files]
        if wrong:
            raise HubError(
                f"{self.target.url}: {first_few(wrong)} there are not what was sent (missing, or their hashes differ). "
                "Run it again; if it happens again, look whether a .gitignore there keeps files out"
            )


def _again(error: BaseException) -> bool:
    """Only what the client does not try again by itself: the card's check and the commit; before 2.0, all."""
    import huggingface_hub

    path, before_2 = path_of(error), huggingface_hub.__version__.startswith(("0.", "1."))
    ours = "/commit/" in path or path.endswith("/validate-yaml") or not (path or is_broken_line(error))
    return (ours or before_2) and passes(error)
