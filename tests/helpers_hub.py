"""A stand-in for the Hugging Face Hub: real HTTP on this machine, for the unpatched client in a process of its own."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOKENS = {"hf_mine": "ann", "hf_other": "bob"}
MAIN = "0" * 40


@dataclass
class Repository:
    """Files by revision; a private one is there for its owner only."""

    revisions: dict[str, Path]
    private: bool = False
    gated: bool = False
    commits: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str) -> str:
        """The commit behind a revision: main's is all zeros."""
        return MAIN if revision == "main" else f"{sorted(self.revisions).index(revision) + 1:040d}"


class Hub(http.server.ThreadingHTTPServer):
    """Downloads only: small files answer as the Hub's do."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Repository]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.seen: list[tuple[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[:2])
        repository = self.server.repositories.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.server.seen.append((name, token))
        if token and token not in TOKENS:
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.private and TOKENS.get(token) != parts[0]):
            # As the Hub does: who may not see a repository is not told that it exists.
            return self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.gated and TOKENS.get(token) != parts[0]:
            return self.refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        if parts[2:3] != ["resolve"] or len(parts) < 5:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        if parts[3] not in repository.revisions:
            by_commit = {repository.commit(revision): revision for revision in repository.revisions}
            if parts[3] not in by_commit:
                return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {parts[3]}")
            parts[3] = by_commit[parts[3]]
        path = repository.revisions[parts[3]] / "/".join(parts[4:])
        if not path.is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", repository.commit(parts[3]))
        self.send_header("ETag", f'"{parts[1]}-{parts[3]}-{path.name}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        return None

    do_GET = do_HEAD  # noqa: N815

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Run a stand-in while the block lasts."""
    hub = Hub(repositories)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


ASK = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from crayon_sdk.errors import CrayonError
from crayon_sdk.loading import load_model
for source in sys.argv[1:]:
    try:
        sys.stdout.write(f"{source} loaded {load_model(source).fingerprint}\\n")
    except CrayonError as error:
        sys.stdout.write(f"{source} {type(error).__name__}: {error}\\n")
"""


def ask(
    sources: Sequence[str], endpoint: str, home: Path, *, offline: bool = False, token: str = ""
) -> tuple[list[str], str]:
    """Load models in a fresh process; gives a line for each, and everything that was written anywhere."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    environment |= {"HF_HUB_OFFLINE": str(int(offline))} | ({"HF_TOKEN": token} if token else {})
    done = subprocess.run(
        [sys.executable, "-c", ASK, *sources], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stdout + done.stderr
