"""A stand-in for the Hugging Face Hub: real HTTP on this machine, for the unpatched client in a process of its own.

It speaks what the client asks for when it creates, pushes and downloads: repositories with commits and branches, large
files by LFS on another origin, pull requests, private and gated repositories, tokens that may only read. A commit is
taken whole or not at all. What goes wrong on the way is a `Fault`.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAIN = "0" * 40


@dataclass(frozen=True)
class Person:
    """Who is behind a token, and what the token may do."""

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()


TOKENS = {
    "hf_mine": Person("ann", organizations=("lab",)),
    "hf_other": Person("bob"),
    "hf_readonly": Person("ann", role="read"),
}


@dataclass(frozen=True)
class Commit:
    """Files by path, and which of them are large."""

    oid: str
    files: Mapping[str, bytes]
    title: str = "initial commit"
    parent: str = ""
    large: frozenset[str] = frozenset()


def blob_id(content: bytes) -> str:
    """git's own hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".onnx"))


def files_in(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@dataclass
class PullRequest:
    number: int
    author: str
    title: str
    status: str = "open"


class Repository:
    """Commits, newest last, and branches.

    Args:
        revisions: Folders (or files by path) by revision; main's commit is all zeros.
        private: There for its owner only.
        gated: Its files are for its owner only.
    """

    def __init__(
        self,
        revisions: Mapping[str, Path | Mapping[str, bytes]],
        *,
        private: bool = False,
        gated: bool = False,
        lfs: bool = True,
    ) -> None:
        self.private, self.gated = private, gated
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.requests: list[PullRequest] = []
        self.objects: dict[str, bytes] = {}
        for number, (revision, found) in enumerate(sorted(revisions.items()), start=1):
            oid = MAIN if revision == "main" else f"{number:040d}"
            files = files_in(found) if isinstance(found, Path) else dict(found)
            large = frozenset(path for path in files if lfs and is_large(path))
            self.objects |= {sha256(files[path]): files[path] for path in large}
            self.commits[oid] = Commit(oid, files, large=large)
            self.branches[revision] = oid

    def commit(self, revision: str) -> str:
        """The commit behind a revision."""
        return self.branches[revision]

    @property
    def main(self) -> Commit:
        return self.commits[self.branches["main"]]

    def history(self, revision: str = "main") -> list[Commit]:
        """Commits of a branch, newest first."""
        found, oid = [], self.branches[revision]
        while oid:
            found.append(self.commits[oid])
            oid = found[-1].parent
        return found

    def find(self, revision: str) -> Commit | None:
        return self.commits.get(self.branches.get(revision, revision))


@dataclass
class Fault:
    """What goes wrong at one endpoint.

    Attributes:
        endpoint: "whoami", "create", "validate-yaml", "info", "tree", "preupload", "batch", "upload", "verify",
            "commit", "branch", "discussions", "resolve" or "storage".
        what: A status; "cut" (the connection breaks in the middle of the upload), "cut-after" (the work is done, the
            answer is lost), "slow", "hang" (waits for `Hub.go`, after `Hub.reached`), "corrupt" (other bytes, as many)
            or "move" (main is another commit right after the answer).
        times: How often.
        owner: For repositories, and for requests, of this person only.
        headers: Sent with a status.
    """

    endpoint: str
    what: int | str
    times: int = 10**6
    owner: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Hub(http.server.ThreadingHTTPServer):
    """The server; `storage` is its other origin, where large files lie."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, repositories: Mapping[str, Repository] | None = None, *, lfs: bool = True) -> None:
        from helpers_hub_handler import Handler

        super().__init__(("127.0.0.1", 0), Handler)
        self.storage = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.storage.daemon_threads = True
        self.storage.hub = self  # type: ignore[attr-defined]
        self.hub = self
        self.repositories = dict(repositories or {})
        self.tokens = dict(TOKENS)
        self.lfs = lfs
        self.part_size = 0
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.tokens_at: dict[str, set[str]] = {}
        self.yaml_errors: list[str] = []
        self.lock = threading.RLock()
        self.reached, self.go = threading.Event(), threading.Event()
        self._numbers = iter(range(1, 10**6))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def storage_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.storage.server_address[1]}"

    def next_oid(self) -> str:
        return hashlib.sha1(str(next(self._numbers)).encode()).hexdigest()

    def fault(self, endpoint: str, owner: str) -> Fault | None:
        """Take the next fault that is due here."""
        with self.lock:
            for fault in self.faults:
                if fault.endpoint == endpoint and fault.owner in ("", owner) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def create(self, name: str, *, private: bool) -> Repository:
        made = Repository({"main": {".gitattributes": b"*.safetensors filter=lfs\n"}}, private=private)
        first = self.next_oid()
        made.commits = {first: Commit(first, made.main.files)}
        made.branches = {"main": first}
        self.repositories[name] = made
        return made

    def add_commit(self, repository: Repository, branch: str, commit: Commit) -> None:
        """Take a commit in, in one step."""
        repository.commits[commit.oid] = commit
        repository.branches[branch] = commit.oid


@contextlib.contextmanager
def serving(repositories: Mapping[str, Repository] | None = None, *, lfs: bool = True) -> Iterator[Hub]:
    """Run a stand-in while the block lasts."""
    hub = Hub(repositories, lfs=lfs)
    stops: list[Callable[[], None]] = []
    for server in (hub, hub.storage):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        stops += [server.shutdown, server.server_close]
    try:
        yield hub
    finally:
        hub.go.set()
        for stop in stops:
            stop()


def assert_whole(repository: Repository, *pushes: Mapping[str, bytes], branch: str = "main") -> None:
    """On a branch, every commit holds all files of one push, or none of any."""
    for commit in repository.history(branch):
        ours = {path for push in pushes for path in push}
        there = {path: content for path, content in commit.files.items() if path in ours}
        assert not there or there in [dict(push) for push in pushes], f"half a model: {sorted(there)}"
