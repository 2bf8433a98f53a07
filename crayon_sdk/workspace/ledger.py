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
from crayon_sdk._base.files import read_metadata, sweep
from crayon_sdk.errors import FileFormatError, StaleError
from crayon_sdk.results.correction import versions
from crayon_sdk.workspace.manifest import FileRecord, Manifest, PartRecord

__all__ = ["FileStatus", "Ledger", "now"]

State = Literal["missing", "unfinished", "stale", "fresh"]


# Of a correction; its README.md may be written on by people.
_PARTS = ("crayon.json", "config.json", "answers.jsonl", "model.safetensors")
_SMALL = 8 << 20  # bytes; so much is hashed in a few hundredths of a second, on every look


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
        before: An earlier one of the same folder, whose hashes of files that did not change since are taken over.

    Raises:
        FileFormatError: It is not a workspace, or needs another version.
    """

    def __init__(self, folder: Path, before: Ledger | None = None) -> None:
        self.folder = folder
        self.manifest = Manifest.load(folder)
        # By path: size, time and number of the file when it was hashed; one command looks at a file several times.
        self._hashes: dict[Path, tuple[tuple[int, int, int], str]] = {} if before is None else before._hashes

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
            parts={
                name: PartRecord(size=part.stat().st_size, sha256=self._sha256(part))
                for name, part in self._parts(path).items()
                if part.is_file()
            },
            started=datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.time() - started, 3),
            versions=versions(),
        )
        self.update(files={**self.manifest.files, path: entry})

    def forget(self, path: str) -> None:
        """Drop the entry of a file."""
        self.update(files={name: entry for name, entry in self.manifest.files.items() if name != path})

    def digest(self, path: str, *, verify: bool = True) -> str:
        """SHA-256 of a file; of a correction, that of its crayon.json. Empty when it is missing.

        Args:
            path: Within the workspace.
            verify: Hash it, however large it is; else take the hash that was written down when it looks the same.
        """
        whole = self.folder / path
        whole = whole / "crayon.json" if whole.is_dir() else whole
        if not whole.is_file():
            return ""
        entry = self.manifest.files.get(path)
        if not verify and entry is not None and entry.parts and not self.damage(path, verify=False):
            return entry.output
        return self._sha256(whole)

    def _parts(self, path: str) -> dict[str, Path]:
        whole = self.folder / path
        return {name: whole / name for name in _PARTS} if whole.is_dir() else {whole.name: whole}

    def _sha256(self, path: Path) -> str:
        about = path.stat()
        now_there = (about.st_size, about.st_mtime_ns, about.st_ino)
        known = self._hashes.get(path)
        if known is not None and known[0] == now_there:
            return known[1]
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        self._hashes[path] = (now_there, digest.hexdigest())
        return digest.hexdigest()

    def damage(self, path: str, *, verify: bool = True) -> str:
        """Say what happened to a recorded file since it was made; "" when nothing did.

        Args:
            path: Within the workspace.
            verify: Compare the hashes of all its files; else of small ones, and size and header of large ones.
        """
        entry, whole = self.manifest.files[path], self.folder / path
        if not entry.parts:
            return "" if self.digest(path) == entry.output else "it was changed after it was made"
        for name, part in entry.parts.items():
            file = whole / name if whole.is_dir() else whole
            called = f"{name} in it" if whole.is_dir() else "it"
            if not file.is_file():
                return f"{called} is missing"
            size = file.stat().st_size
            changed = size != part.size or ((verify or size <= _SMALL) and self._sha256(file) != part.sha256)
            if changed:
                return f"{called} was changed after it was made"
            if size > _SMALL and file.suffix == ".safetensors":
                try:
                    read_metadata(file)
                except FileFormatError:
                    return f"{called} is damaged"
        return ""

    def status(self, path: str, inputs: Mapping[str, str], run: str, *, verify: bool = True) -> FileStatus:
        """Compare a file with what it would be made from now.

        Args:
            path: Within the workspace.
            inputs: Fingerprints by name, as they are now.
            run: The command that makes it again.
            verify: As for `damage`.
        """
        entry = self.manifest.files.get(path)
        if not (self.folder / path).exists():
            return FileStatus(path, "missing", "it is not there", run)
        if entry is None:
            return FileStatus(path, "unfinished", "the step that makes it did not end", run)
        damage = self.damage(path, verify=verify)
        if damage:
            return FileStatus(path, "stale", damage, run)
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
