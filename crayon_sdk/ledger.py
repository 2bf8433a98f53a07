"""Which files of a workspace are there, from which inputs, and whether these are still the inputs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from crayon_sdk import __version__
from crayon_sdk.checkpoint import versions
from crayon_sdk.errors import StaleError
from crayon_sdk.files import sweep
from crayon_sdk.manifest import FileRecord, Manifest

__all__ = ["FileStatus", "Ledger", "now"]

State = Literal["missing", "unfinished", "stale", "fresh"]


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class FileStatus:
    """How one file of a workspace stands.

    Attributes:
        path: Within the workspace.
        state: "missing"; "unfinished" (there, but the step that makes it did not end); "stale"
            (made from other inputs, or changed since); or "fresh".
        reason: Why it is not fresh.
        run: What makes it again.
    """

    path: str
    state: State
    reason: str
    run: str


class Ledger:
    """The manifest of a workspace, and the questions one has to it.

    Args:
        folder: The workspace.

    Raises:
        FileFormatError: It is not a workspace, or needs another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.load(folder)

    def update(self, **changes: Any) -> None:
        """Write the manifest with some fields replaced."""
        self.manifest = self.manifest.model_copy(update={"written_by": __version__, **changes})
        self.manifest.save(self.folder)

    def record(
        self, path: str, *, made_by: str, inputs: Mapping[str, str], settings: Mapping[str, Any], started: float
    ) -> None:
        """Write down how a file came to be, now that it is there.

        Args:
            path: Within the workspace.
            made_by: The public call.
            inputs: Fingerprints by name.
            settings: What was set.
            started: When, by `time.time`.
        """
        entry = FileRecord(
            made_by=made_by,
            inputs=dict(inputs),
            settings=dict(settings),
            output=self.digest(path),
            started=datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.time() - started, 3),
            versions=versions(),
        )
        self.update(files={**self.manifest.files, path: entry})

    def forget(self, path: str) -> None:
        """Drop the entry of a file."""
        self.update(files={name: entry for name, entry in self.manifest.files.items() if name != path})

    def digest(self, path: str) -> str:
        """SHA-256 of a file; of a correction, that of its crayon.json. Empty when it is missing."""
        whole = self.folder / path
        whole = whole / "crayon.json" if whole.is_dir() else whole
        if not whole.is_file():
            return ""
        with whole.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def status(self, path: str, inputs: Mapping[str, str], run: str) -> FileStatus:
        """Compare a file with what it would be made from now.

        Args:
            path: Within the workspace.
            inputs: Fingerprints by name, as they are now.
            run: The command that makes it again.
        """
        entry = self.manifest.files.get(path)
        output = self.digest(path)
        if not output:
            return FileStatus(path, "missing", "it is not there", run)
        if entry is None:
            return FileStatus(path, "unfinished", "the step that makes it did not end", run)
        if output != entry.output:
            return FileStatus(path, "stale", "it was changed after it was made", run)
        names = [name for name, value in inputs.items() if entry.inputs.get(name) != value]
        if names:
            return FileStatus(path, "stale", f"it was made from other inputs: {', '.join(names)}", run)
        return FileStatus(path, "fresh", "", run)

    def need(self, path: str, inputs: Mapping[str, str], run: str) -> Path:
        """Give the path of a file that is fresh.

        Raises:
            StaleError: It is not; the message says what to run.
        """
        found = self.status(path, inputs, run)
        if found.state != "fresh":
            raise StaleError(f"{path} in {str(self.folder)!r} is {found.state}: {found.reason}. Run: {run}")
        return self.folder / path

    def sweep(self) -> None:
        """Delete what killed processes left in our own places: files and folders that never took their name."""
        ours = [self.folder, *(self.folder / name for name in ("corrections", "pictures", "reports"))]
        ours += [*self.folder.glob("evaluations/*/"), *self.folder.glob("runs/*/"), *self.folder.glob("runs/*/*/")]
        for place in ours:
            sweep(place)
