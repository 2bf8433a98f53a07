"""What was made in a workspace: handed out where it is fresh, and how all of it stands."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crayon_sdk._base.files import read_json
from crayon_sdk._base.methods import methods
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.errors import FileFormatError, SettingsError, StaleError
from crayon_sdk.workspace.ledger import FileStatus, Ledger
from crayon_sdk.workspace.names import (
    ANSWERS,
    DISCOVERED,
    GROUPS,
    MAPS,
    ORIGINAL,
    PATCHES,
    as_options,
    by_groups,
    checked_name,
    split_and_groups,
)

if TYPE_CHECKING:
    from crayon_sdk.explain.groups import DiscoveredGroups
    from crayon_sdk.explain.maps import SaliencyMaps
    from crayon_sdk.explain.patches import NeuronPatches
    from crayon_sdk.results.correction import Correction

__all__ = ["Holdings"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Holdings:
    """Hands out maps, patches, answers and corrections, and says how every file stands.

    What holds tensors is imported when it is asked for: who reads answers alone does not wait for torch.

    Attributes:
        ledger: What was made from what.
    """

    ledger: Ledger

    def maps(self) -> SaliencyMaps:
        """The maps of the training pictures.

        Raises:
            StaleError: They are missing, or were made from other inputs.
        """
        from crayon_sdk.explain.maps import SaliencyMaps

        return SaliencyMaps.load(self.ledger.need(MAPS, self.ledger.base(), self.ledger.command("explain")))

    def patches(self) -> NeuronPatches:
        """The strongest patches of every neuron.

        Raises:
            StaleError: They are missing, or were made from other inputs.
        """
        from crayon_sdk.explain.patches import NeuronPatches

        return NeuronPatches.load(self.ledger.need(PATCHES, self.ledger.base(), self.ledger.command("explain")))

    def groups(self) -> DiscoveredGroups:
        """The groups that were found in the training pictures.

        Raises:
            StaleError: They are missing, or were found by other answers.
        """
        from crayon_sdk.explain.groups import DiscoveredGroups

        return DiscoveredGroups.load(self.ledger.need(GROUPS, self.groups_inputs(), self.ledger.command("groups")))

    def groups_inputs(self, *, verify: bool = True) -> dict[str, str]:
        """Fingerprints of what groups would be found from now."""
        told = self.answers().only("image", "spot").fingerprint
        return self.ledger.base() | {"maps": self.ledger.digest(MAPS, verify=verify), "answers about pictures": told}

    def answers(self, *, missing_ok: bool = False) -> AnnotationSet:
        """All answers so far; none when nobody has answered.

        Args:
            missing_ok: Give none also where the file is gone, so that they can be taken in again.

        Raises:
            StaleError: The file is gone, though answers were taken in.
            FileFormatError: It is broken.
        """
        ledger = self.ledger
        path = ledger.folder / ANSWERS
        if path.exists():
            return AnnotationSet.load(path)
        if ledger.manifest.answers and not missing_ok:
            found = self.answers_status()
            raise StaleError(f"{ANSWERS} in {str(ledger.folder)!r} is {found.state}: {found.reason}. Run: {found.run}")
        return AnnotationSet()

    def correction(self, name: str) -> Correction:
        """A correction by name. That answers came in after it is no error, and is logged.

        Raises:
            StaleError: It is missing, changed after it was made, or made from another model.
        """
        from crayon_sdk.results.correction import load_correction

        path = f"corrections/{checked_name(name)}"
        found = self.correction_status(path)
        entry = self.ledger.manifest.files.get(path)
        usable = entry is not None and (self.ledger.folder / path).exists() and not self.ledger.damage(path)
        if not usable or (entry is not None and entry.inputs["model"] != self.ledger.manifest.model_fingerprint):
            known = f" (there are: {', '.join(self.corrections)})" if self.corrections else ""
            raise StaleError(f"{path} is {found.state}: {found.reason}{known}. Run: {found.run}")
        if found.state != "fresh":
            _log.warning("%s: %s; to make it again: %s", path, found.reason, found.run)
        return load_correction(self.ledger.folder / path)

    @property
    def corrections(self) -> tuple[str, ...]:
        """Names of the corrections that are recorded, in the order in which they were made."""
        return tuple(Path(path).name for path in self.ledger.manifest.files if path.startswith("corrections/"))

    def status(self, *, verify: bool = False) -> tuple[FileStatus, ...]:
        """How every file stands: missing, unfinished, stale or fresh, and what makes it again.

        The model itself is not loaded for this, and pictures are not decoded.

        Args:
            verify: Read every file whole and compare its hash; else small ones are, and of those above 8 MB size and
                header are looked at. Whatever is used is read whole in any case.
        """
        ledger = self.ledger
        explain = ledger.command("explain")
        found = [ledger.status(path, ledger.base(), explain, verify=verify) for path in (MAPS, PATCHES)]
        if ledger.manifest.answers or (ledger.folder / ANSWERS).exists():
            found.append(self.answers_status())
        if GROUPS in ledger.manifest.files:
            inputs = self.groups_inputs(verify=verify)
            found.append(ledger.status(GROUPS, inputs, ledger.command("groups"), verify=verify))
        found += [self.correction_status(f"corrections/{name}", verify=verify) for name in self.corrections]
        for path in ledger.manifest.files:
            kind, _, rest = path.partition("/")
            run, entry = f"crayon {kind.removesuffix('s')}", ledger.manifest.files[path]
            if kind == "evaluations" and not rest.endswith("/comparison.json"):
                (split, by), name = split_and_groups(path), Path(rest).stem
                run = f"{ledger.command('evaluate')} --split {split}{by_groups(by)} {name}"
                # After init --again the split may be gone: then nothing that it was made from is there.
                gone = split not in ledger.manifest.splits
                inputs = dict.fromkeys(entry.inputs, "") if gone else self.evaluation_inputs(name, split, by)
                found.append(ledger.status(path, inputs, run, verify=verify))
            elif kind in ("evaluations", "pictures", "reports"):
                made_from = {source: ledger.digest(source, verify=verify) for source in entry.inputs}
                split, by = split_and_groups(path)
                draw = ledger.command("groups") if rest.startswith("groups-") else explain
                run = draw if kind == "pictures" else f"{ledger.command('compare')} --split {split}{by_groups(by)}"
                run = f"{ledger.command('report')} --name {Path(rest).stem}" if kind == "reports" else run
                found.append(ledger.status(path, made_from, run, verify=verify))
        return tuple(found)

    def answers_status(self) -> FileStatus:
        """How the answers stand: what they are now against what they were when the last ones were taken in."""
        ledger = self.ledger
        steps = {"simulated": "answer simulate", "annotate": "annotate"}
        sources = dict.fromkeys(str(entry.get("source", "")) for entry in ledger.manifest.answers)
        again = [ledger.command(steps.get(each, f"answer import {shlex.quote(each)}")) for each in sources]
        run = " and ".join(again) or ledger.command("annotate")
        if not (ledger.folder / ANSWERS).exists():
            taken = len(ledger.manifest.answers)
            why = f"it is not there, and answers were taken in {taken} time{'s' * (taken > 1)}; put a copy of it back"
            return FileStatus(ANSWERS, "missing", why, run)
        recorded = ledger.manifest.answers[-1].get("output") if ledger.manifest.answers else None
        if recorded and ledger.digest(ANSWERS) != recorded:
            why = "it was changed by hand since the last answers were taken in; what was made from it is made again"
            return FileStatus(ANSWERS, "stale", why, f"{ledger.command('answer import')} {ledger.folder / ANSWERS}")
        return FileStatus(ANSWERS, "fresh", "", run)

    def correction_inputs(
        self,
        method: str,
        evaluate_on: str | None = None,
        *,
        groups: str = "own",
        refit_on: str | None = None,
        verify: bool = True,
    ) -> dict[str, str]:
        """Fingerprints, by name, of what a correction by a method would be made from now.

        Args:
            method: As for `Workspace.correct`; ``evaluate_on`` likewise.
            evaluate_on: The split that is measured after every epoch.
            groups: Whether it is told "discovered" groups.
            refit_on: The split that the last layer is fitted to.
            verify: Read every file whole, as for `status`.

        Raises:
            StaleError: The answers are gone.
            FileFormatError: They are broken.
            SettingsError: There is no such method.
        """
        answers, inputs = self.answers(), self.ledger.base()
        for split in (evaluate_on, refit_on):
            if split is not None and split in self.ledger.manifest.splits:
                inputs[split] = self.ledger.base(split)["data"]
        needs = methods[method].needs
        if "neuron answers" in needs:
            inputs["answers about neurons"] = answers.only("neuron").fingerprint
        if "answers" in needs:
            inputs["answers about pictures"] = answers.only("image", "spot").fingerprint
        if "maps" in needs:
            inputs["maps"] = self.ledger.digest(MAPS, verify=verify)
        if groups == DISCOVERED:
            inputs["groups"] = self.ledger.digest(GROUPS, verify=verify)
        return inputs

    def correction_status(self, path: str, *, verify: bool = True) -> FileStatus:
        """How a correction stands, by its path in the workspace."""
        ledger = self.ledger
        entry = ledger.manifest.files.get(path)
        settings: Mapping[str, Any] = entry.settings if entry else {"method": "attention"}
        run = f"{ledger.command('correct')} --name {Path(path).name}{as_options(settings)}"
        try:
            also = {"groups": settings.get("groups", "own"), "refit_on": settings.get("refit_on"), "verify": verify}
            inputs = self.correction_inputs(settings["method"], settings.get("evaluate_on"), **also)
        except SettingsError as error:  # the package of the method is not here any more
            return FileStatus(path, "stale", str(error), run)
        except (FileFormatError, StaleError):
            found = ledger.status(path, {}, run, verify=verify)
            gone = f"{ANSWERS}, which it was made from, is missing or broken"
            return FileStatus(path, "stale", gone, run) if found.state == "fresh" else found
        return ledger.status(path, inputs, run, verify=verify)

    def usable_corrections(self) -> list[str]:
        """Corrections that are there; a warning for every other one."""
        usable = []
        for name in self.corrections:
            entry, path = self.ledger.manifest.files[f"corrections/{name}"], f"corrections/{name}"
            found = self.correction_status(path)
            whole = found.state != "missing" and not self.ledger.damage(path)
            if whole and entry.inputs["model"] == self.ledger.manifest.model_fingerprint:
                usable.append(name)
            else:
                _log.warning(
                    "%s is passed over, it is %s: %s; to make it again: %s", path, found.state, found.reason, found.run
                )
        return usable

    def evaluation_inputs(self, name: str, split: str, groups: str = "own") -> dict[str, str]:
        """Fingerprints of what an evaluation of a model (or of "original") on a split would be made from now."""
        train = self.ledger.facts("train")
        found = self.ledger.base(split) | {"model": self._fingerprint_of(name), "train": train.fingerprint}
        return found if groups != DISCOVERED else found | {"groups": self.ledger.digest(GROUPS)}

    def _fingerprint_of(self, name: str) -> str:
        """Fingerprint of a model by name; empty when it is not there."""
        if name == ORIGINAL:
            return self.ledger.manifest.model_fingerprint
        about = self.ledger.folder / "corrections" / checked_name(name) / "crayon.json"
        try:
            return str(read_json(about)["fingerprint"])
        except (FileFormatError, KeyError, TypeError):
            return ""
