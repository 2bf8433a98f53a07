"""Which files of a workspace are there, from which inputs, and whether these are still the inputs.

Nothing here or in the manifest loads torch before a model or pictures are asked for.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from crayon_sdk import __version__
from crayon_sdk._base.files import hash_of_file, locked, read_metadata, sha256_of, sweep
from crayon_sdk._base.launch import is_main, launched
from crayon_sdk.errors import DataError, FileFormatError, StaleError
from crayon_sdk.workspace.manifest import FileRecord, Manifest, PartRecord, SplitFacts
from crayon_sdk.workspace.names import RUNS, plain

__all__ = ["FileStatus", "Ledger", "now"]

State = Literal["missing", "unfinished", "stale", "fresh"]
LOCK_TIMEOUT = 10.0

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


def _wait() -> None:
    """Wait for the processes that were launched together."""
    if launched()[1] > 1:
        from crayon_sdk._base.process import Processes  # loads torch, which reading needs not

        Processes.found().wait()


class Ledger:
    """The manifest of a workspace, the lock on it, and the questions one has to it. Every room holds the same one.

    Args:
        folder: The workspace.
        lock_timeout: Seconds to wait while another process works in it; default 10.

    Attributes:
        folder: As it was given.
        lock_timeout: In seconds.
        manifest: What ``workspace.json`` said when it was read last.

    Raises:
        FileFormatError: It is not a workspace, or needs another version.
    """

    def __init__(self, folder: Path, *, lock_timeout: float | None = None) -> None:
        self.folder = folder
        self.lock_timeout = LOCK_TIMEOUT if lock_timeout is None else lock_timeout
        self.manifest = Manifest.load(folder)
        # By path: size, time and number of the file when it was hashed; one command looks at a file several times.
        self._hashes: dict[Path, tuple[tuple[int, int, int], str]] = {}

    @contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """Hold the lock, with the manifest as it is now and without what killed processes left.

        Args:
            doing: What others are told who wait.

        Raises:
            WorkspaceBusyError: Another process works in it for longer than ``lock_timeout``.
        """
        with locked(self.folder, doing=doing, timeout=self.lock_timeout):
            _wait()  # of several processes the main one has the lock, for all
            self.manifest = Manifest.load(self.folder)
            if is_main():
                self.sweep()
            yield

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
        from crayon_sdk.results.correction import versions  # of what loads torch, which reading needs not

        _wait()  # until the main process has written it
        entry = FileRecord(
            made_by=made_by,
            inputs=dict(inputs),
            settings=plain(settings),
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

    def is_copy(self, path: str, other: Path) -> bool:
        """Tell whether another file holds the same bytes as a file of the workspace; not where one cannot be read."""
        whole = self.folder / path
        if not (whole.is_file() and other.is_file() and whole.stat().st_size == other.stat().st_size):
            return False
        try:
            return self._sha256(whole) == self._sha256(other)
        except OSError:  # whoever needs it says so
            return False

    def _parts(self, path: str) -> dict[str, Path]:
        whole = self.folder / path
        return {name: whole / name for name in _PARTS} if whole.is_dir() else {whole.name: whole}

    def _sha256(self, path: Path) -> str:
        about = path.stat()
        now_there = (about.st_size, about.st_mtime_ns, about.st_ino)
        known = self._hashes.get(path)
        if known is not None and known[0] == now_there:
            return known[1]
        found = hash_of_file(path)
        self._hashes[path] = (now_there, found)
        return found

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

    def is_fresh(self, path: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
        """Tell whether a file would be made from the same inputs with the same settings."""
        fresh = self.status(path, inputs, "").state == "fresh"
        return fresh and self.manifest.files[path].settings == plain(settings)

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

    def run_folder(self, name: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> Path:
        """Where an unfinished step keeps what it goes on from; another place for other inputs or settings."""
        return self.folder / RUNS / f"{name}-{sha256_of(repr((sorted(inputs.items()), plain(settings))))[:12]}"

    def clear_runs(self, name: str) -> None:
        """Delete what a step kept, now that it has ended."""
        for left in (self.folder / RUNS).glob(f"{name}-????????????") if is_main() else ():
            shutil.rmtree(left, ignore_errors=True)

    def facts(self, split: str) -> SplitFacts:
        """What the pictures of a split were when the workspace was made.

        Raises:
            DataError: There is no such split.
        """
        if split not in self.manifest.splits:
            raise DataError(
                f"this workspace has no {split} pictures, only {', '.join(self.manifest.splits)}; "
                f"name them with {self.command('init')} --again"
            )
        return self.manifest.splits[split]

    def base(self, split: str = "train") -> dict[str, str]:
        """Fingerprints, by name, of what everything is made from that looks at the pictures of a split."""
        facts = self.facts(split)
        seen = sha256_of(json.dumps(self.manifest.preprocessing, sort_keys=True))
        base = {"model": self.manifest.model_fingerprint, "data": facts.fingerprint, "pictures": facts.files}
        base |= {"preprocessing": seen}
        # What a workspace from before did not note is no input there, so that its files stay fresh.
        classes, behaviour = self.manifest.classes, self.manifest.behaviour
        if classes is not None and classes.moved:
            base["classes"] = sha256_of(json.dumps([classes.names, sorted(classes.numbers.items())]))
        if behaviour is not None:
            base["behaviour"] = sha256_of(behaviour.model_dump_json())
        return base

    def command(self, name: str) -> str:
        """The command of a step for this workspace, as one types it."""
        where = str(self.folder)
        return f"crayon {name}" if where == "." else f"crayon {name} -w {shlex.quote(where)}"
