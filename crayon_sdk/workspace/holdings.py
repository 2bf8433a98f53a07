"""What a workspace holds: its inputs, its files, and whether they belong together."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from crayon_sdk._base.files import read_json, sha256_of
from crayon_sdk._base.locking import locked
from crayon_sdk._base.methods import methods
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.guidance import guidance_answers
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError, FileFormatError, MismatchError, SettingsError, StaleError, first_few
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.passes import in_classes_of
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import Correction, load_correction
from crayon_sdk.workspace.books import ORIGINAL, as_options, checked_name, plain
from crayon_sdk.workspace.inputs import differences, facts_of
from crayon_sdk.workspace.ledger import FileStatus, Ledger
from crayon_sdk.workspace.manifest import Manifest, SplitFacts

__all__ = ["ANSWERS", "MAPS", "ORIGINAL", "PATCHES", "Holdings"]

MAPS, PATCHES, ANSWERS, RUNS = "maps.safetensors", "patches.safetensors", "answers.jsonl", "runs"
LOCK_TIMEOUT = 10.0
_BATCHES_PER_PART = 64
_log = logging.getLogger(__name__)


class Holdings:
    """Reads a workspace and keeps its books.

    Args:
        folder: A workspace.
        lock_timeout: Seconds to wait while another process works in it; default 10.

    Raises:
        FileFormatError: It is not a workspace, or another version is needed.
    """

    def __init__(self, folder: str | os.PathLike[str] = ".", *, lock_timeout: float | None = None) -> None:
        self.folder = Path(folder)
        self.lock_timeout = LOCK_TIMEOUT if lock_timeout is None else lock_timeout
        self._ledger = Ledger(self.folder)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @property
    def manifest(self) -> Manifest:
        """What ``workspace.json`` says."""
        return self._ledger.manifest

    @cached_property
    def model(self) -> SplitModel:
        """The model as it was before any correction.

        Raises:
            MismatchError: It is not the one that the workspace was made for.
        """
        model = self.manifest.model.load(self.folder)
        if model.fingerprint != self.manifest.model_fingerprint:
            raise MismatchError(
                f"{self.manifest.model.source!r} is not the model this workspace was made for (fingerprint "
                f"{model.fingerprint[:12]}, expected {self.manifest.model_fingerprint[:12]}). Put the old one back, or "
                f"take the new one in: {self.command('init')} --again"
            )
        changed = differences(self.manifest, model)
        if changed:
            raise MismatchError(
                f"{self.manifest.model.source!r} has the weights this workspace was made for, but "
                f"{'; '.join(changed)}. Put it back, or take it in as it is now: {self.command('init')} --again"
            )
        return model

    def dataset(self, split: str = "train") -> ImageDataset:
        """The pictures of a split: "train", "val" or "test".

        Raises:
            StaleError: They are not those the workspace was made for.
            DataError: There is no such split.
        """
        facts = self._facts(split)
        found = self.manifest.data.load(self.folder, split)
        known = {name: row for row, name in enumerate(found.ids)}
        found = found.without({known[name]: why for name, why in facts.skipped.items() if name in known})
        there = facts_of(found)
        if (there.fingerprint, there.files) != (facts.fingerprint, facts.files):
            raise StaleError(
                f"the {split} pictures changed since the workspace was made ({facts.count} then, {len(found)} now; "
                "ids, labels, groups or file sizes differ). Put them back, or take them in: "
                f"{self.command('init')} --again"
            )
        classes = self.manifest.classes
        if classes is not None:
            return found.with_classes(classes.names, classes.numbers)
        # From before classes were noted: they were taken in the order of the data, whatever the model calls them.
        if in_classes_of(found, self.model).fingerprint != found.fingerprint:
            raise StaleError(
                f"this workspace was made by a version that took the classes in the order of the data "
                f"({first_few(found.class_names)}), and the model's are {first_few(self.model.class_names)}. Bring "
                f"them together: {self.command('init')} --again"
            )
        return found

    def _facts(self, split: str) -> SplitFacts:
        if split not in self.manifest.splits:
            raise DataError(
                f"this workspace has no {split} pictures, only {', '.join(self.manifest.splits)}; "
                f"name them with {self.command('init')} --again"
            )
        return self.manifest.splits[split]

    def maps(self) -> SaliencyMaps:
        """The maps of the training pictures.

        Raises:
            StaleError: They are missing, or were made from other inputs.
        """
        return SaliencyMaps.load(self._ledger.need(MAPS, self._base(), self.command("explain")))

    def patches(self) -> NeuronPatches:
        """The strongest patches of every neuron.

        Raises:
            StaleError: They are missing, or were made from other inputs.
        """
        return NeuronPatches.load(self._ledger.need(PATCHES, self._base(), self.command("explain")))

    def answers(self, *, missing_ok: bool = False) -> AnnotationSet:
        """All answers so far; none when nobody has answered.

        Args:
            missing_ok: Give none also where the file is gone, so that they can be taken in again.

        Raises:
            StaleError: The file is gone, though answers were taken in.
            FileFormatError: It is broken.
        """
        path = self.folder / ANSWERS
        if path.exists():
            return AnnotationSet.load(path)
        if self.manifest.answers and not missing_ok:
            found = self._answers_status()
            raise StaleError(f"{ANSWERS} in {str(self.folder)!r} is {found.state}: {found.reason}. Run: {found.run}")
        return AnnotationSet()

    def _answers_status(self) -> FileStatus:
        """How the answers stand: what they are now against what they were when the last ones were taken in."""
        steps = {"simulated": "answer simulate", "annotate": "annotate"}
        sources = dict.fromkeys(str(entry.get("source", "")) for entry in self.manifest.answers)
        again = [self.command(steps.get(each, f"answer import {shlex.quote(each)}")) for each in sources]
        run = " and ".join(again) or self.command("annotate")
        if not (self.folder / ANSWERS).exists():
            taken = len(self.manifest.answers)
            why = f"it is not there, and answers were taken in {taken} time{'s' * (taken > 1)}; put a copy of it back"
            return FileStatus(ANSWERS, "missing", why, run)
        recorded = self.manifest.answers[-1].get("output") if self.manifest.answers else None
        if recorded and self._ledger.digest(ANSWERS) != recorded:
            why = "it was changed by hand since the last answers were taken in; what was made from it is made again"
            return FileStatus(ANSWERS, "stale", why, f"{self.command('answer import')} {self.folder / ANSWERS}")
        return FileStatus(ANSWERS, "fresh", "", run)

    def correction(self, name: str) -> Correction:
        """A correction by name. That answers came in after it is no error, and is logged.

        Raises:
            StaleError: It is missing, changed after it was made, or made from another model.
        """
        path = f"corrections/{checked_name(name)}"
        found = self._correction_status(path)
        entry = self.manifest.files.get(path)
        usable = entry is not None and (self.folder / path).exists() and not self._ledger.damage(path)
        if not usable or (entry is not None and entry.inputs["model"] != self.manifest.model_fingerprint):
            known = f" (there are: {', '.join(self.corrections)})" if self.corrections else ""
            raise StaleError(f"{path} is {found.state}: {found.reason}{known}. Run: {found.run}")
        if found.state != "fresh":
            _log.warning("%s: %s; to make it again: %s", path, found.reason, found.run)
        return load_correction(self.folder / path)

    @property
    def corrections(self) -> tuple[str, ...]:
        """Names of the corrections that are recorded, in the order in which they were made."""
        return tuple(Path(path).name for path in self.manifest.files if path.startswith("corrections/"))

    def command(self, name: str) -> str:
        """The command of a step for this workspace, as one types it."""
        where = str(self.folder)
        return f"crayon {name}" if where == "." else f"crayon {name} -w {shlex.quote(where)}"

    # --- books ----------------------------------------------------------------------------

    @contextmanager
    def _working(self, doing: str) -> Iterator[None]:
        """Hold the lock, with the manifest as it is now and without what killed processes left."""
        with locked(self.folder, doing=doing, timeout=self.lock_timeout):
            before = self.manifest
            self._ledger = Ledger(self.folder, self._ledger)
            if _about_the_model(before) != _about_the_model(self.manifest):
                self.__dict__.pop("model", None)  # another process, or another object, took a new one in
            self._ledger.sweep()
            yield

    def _note(
        self, path: str, made_by: str, inputs: Mapping[str, str], settings: Mapping[str, Any], started: float
    ) -> None:
        self._ledger.record(path, made_by=made_by, inputs=inputs, settings=plain(settings), started=started)

    def _is_fresh(self, path: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
        fresh = self._ledger.status(path, inputs, "").state == "fresh"
        return fresh and self.manifest.files[path].settings == plain(settings)

    def _run_folder(self, name: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> Path:
        """Where an unfinished step keeps what it goes on from; another place for other inputs or settings."""
        return self.folder / RUNS / f"{name}-{sha256_of(repr((sorted(inputs.items()), plain(settings))))[:12]}"

    def _clear_runs(self, name: str) -> None:
        for left in (self.folder / RUNS).glob(f"{name}-????????????"):
            shutil.rmtree(left, ignore_errors=True)

    def _base(self, split: str = "train") -> dict[str, str]:
        facts = self._facts(split)
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

    def _correction_inputs(self, method: str, evaluate_on: str | None = None, *, verify: bool = True) -> dict[str, str]:
        answers, inputs = self.answers(), self._base()
        if evaluate_on is not None and evaluate_on in self.manifest.splits:
            inputs[evaluate_on] = self._base(evaluate_on)["data"]
        needs = methods[method].needs
        if "neuron answers" in needs:
            inputs["answers about neurons"] = answers.only("neuron").fingerprint
        if "answers" in needs:
            inputs["answers about pictures"] = answers.only("image").fingerprint
        if "maps" in needs:
            inputs["maps"] = self._ledger.digest(MAPS, verify=verify)
        return inputs

    def _correction_status(self, path: str, *, verify: bool = True) -> FileStatus:
        entry = self.manifest.files.get(path)
        settings: Mapping[str, Any] = entry.settings if entry else {"method": "attention"}
        run = f"{self.command('correct')} --name {Path(path).name}{as_options(settings)}"
        try:
            inputs = self._correction_inputs(settings["method"], settings.get("evaluate_on"), verify=verify)
        except SettingsError as error:  # its package is not here any more
            return FileStatus(path, "stale", str(error), run)
        except (FileFormatError, StaleError):
            found = self._ledger.status(path, {}, run, verify=verify)
            gone = f"{ANSWERS}, which it was made from, is missing or broken"
            return FileStatus(path, "stale", gone, run) if found.state == "fresh" else found
        return self._ledger.status(path, inputs, run, verify=verify)

    def _usable_corrections(self) -> list[str]:
        """Corrections that are there; a warning for every other one."""
        usable = []
        for name in self.corrections:
            entry, path = self.manifest.files[f"corrections/{name}"], f"corrections/{name}"
            found = self._correction_status(path)
            whole = found.state != "missing" and not self._ledger.damage(path)
            if whole and entry.inputs["model"] == self.manifest.model_fingerprint:
                usable.append(name)
            else:
                _log.warning(
                    "%s is passed over, it is %s: %s; to make it again: %s", path, found.state, found.reason, found.run
                )
        return usable

    def _check_guidance(self, maps: SaliencyMaps, answers: AnnotationSet, train: ImageDataset, *, strict: bool) -> None:
        guidance_answers(answers, maps, train, num_classes=self.model.num_classes, strict=strict)
        asked = [entry["maps"] for entry in self.manifest.answers if entry.get("maps")]
        if asked and asked[-1] != self._ledger.digest(MAPS):
            _log.warning(
                "the last answers were given about other maps than those there are now (crayon explain made new ones "
                "since); look at the new ones: %s",
                self.command("suggest"),
            )

    def _evaluation_inputs(self, name: str, split: str) -> dict[str, str]:
        train = self._facts("train")
        return self._base(split) | {"model": self._fingerprint_of(name), "train": train.fingerprint}

    def _fingerprint_of(self, name: str) -> str:
        """Fingerprint of a model by name; empty when it is not there."""
        if name == ORIGINAL:
            return self.manifest.model_fingerprint
        about = self.folder / "corrections" / checked_name(name) / "crayon.json"
        try:
            return str(read_json(about)["fingerprint"])
        except (FileFormatError, KeyError, TypeError):
            return ""

    def _explain_in_parts(self, explainer: Explainer, train: ImageDataset) -> SaliencyMaps:
        """The maps of all pictures; when it is stopped, the next run goes on with the part it was at."""
        size = _BATCHES_PER_PART * explainer.batch_size
        if len(train) <= size:
            return explainer.explain(train)
        how = {"target": explainer.target, "score": explainer.score, "precision": str(explainer.autocast), "size": size}
        run = self._run_folder("maps", self._base(), how)
        parts = []
        for start in range(0, len(train), size):
            path = run / f"{start:012}.safetensors"
            with suppress(FileFormatError):  # missing or broken: it is made again
                parts.append(SaliencyMaps.load(path))
                continue
            made = explainer.explain(train.subset(train.ids[start : start + size]))
            made.save(path)
            parts.append(made)
        return SaliencyMaps.concatenate(parts)

    def status(self, *, verify: bool = False) -> tuple[FileStatus, ...]:
        """How every file stands: missing, unfinished, stale or fresh, and what makes it again.

        The model itself is not loaded for this, and pictures are not decoded.

        Args:
            verify: Read every file whole and compare its hash; else small ones are, and of those above 8 MB size and
                header are looked at. Whatever is used is read whole in any case.
        """
        explain = self.command("explain")
        found = [self._ledger.status(path, self._base(), explain, verify=verify) for path in (MAPS, PATCHES)]
        if self.manifest.answers or (self.folder / ANSWERS).exists():
            found.append(self._answers_status())
        found += [self._correction_status(f"corrections/{name}", verify=verify) for name in self.corrections]
        for path in self.manifest.files:
            kind, _, rest = path.partition("/")
            run, entry = f"crayon {kind.removesuffix('s')}", self.manifest.files[path]
            if kind == "evaluations" and not rest.endswith("/comparison.json"):
                split, name = rest.split("/")[0], Path(rest).stem
                run = f"{self.command('evaluate')} --split {split} {name}"
                # After init --again the split may be gone: then nothing that it was made from is there.
                gone = split not in self.manifest.splits
                inputs = dict.fromkeys(entry.inputs, "") if gone else self._evaluation_inputs(name, split)
                found.append(self._ledger.status(path, inputs, run, verify=verify))
            elif kind in ("evaluations", "pictures", "reports"):
                made_from = {source: self._ledger.digest(source, verify=verify) for source in entry.inputs}
                run = explain if kind == "pictures" else f"{self.command('compare')} --split {rest.split('/')[0]}"
                run = f"{self.command('report')} --name {Path(rest).stem}" if kind == "reports" else run
                found.append(self._ledger.status(path, made_from, run, verify=verify))
        return tuple(found)


def _about_the_model(manifest: Manifest) -> tuple[object, ...]:
    return manifest.model, manifest.model_fingerprint, manifest.preprocessing, manifest.behaviour, manifest.classes
