"""`Correction`: a corrected model with everything that one must know about it.

On disk it is a plain timm folder (``config.json`` and ``model.safetensors``) that needs
nothing of ours, with ``crayon.json``, ``answers.jsonl`` and a model card beside it. A model that timm
cannot build has no ``config.json``; ``crayon.json`` says how to load it.
"""

from __future__ import annotations

import logging
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from typing_extensions import Unpack  # in typing from Python 3.11 on

from crayon_sdk._base.fetching import fetch, hub_hint, is_on_hub, split_source
from crayon_sdk._base.files import free_folder, free_path, new_folder, read_json, write_json, write_tensors
from crayon_sdk._base.publishing import HubOptions, Published, find_target, publish, takes_hub_options
from crayon_sdk._base.showing import as_html, plain
from crayon_sdk._base.text import one_line
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import FileFormatError, MismatchError, SettingsError
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.load import WEIGHTS, load_model
from crayon_sdk.models.onnx import export_onnx
from crayon_sdk.models.passes import in_classes_of
from crayon_sdk.models.proof import check_in_fresh_process, check_loads_back, filled
from crayon_sdk.models.rebuild import base_of, how_to_load, is_timm, remember_base, timm_config
from crayon_sdk.models.split import Provenance, SplitModel, as_split_model
from crayon_sdk.results.card import Card, model_card, write_card
from crayon_sdk.results.consistency import (
    check_answers,
    check_before_building,
    check_evaluations,
    check_model,
    check_records,
    description,
)
from crayon_sdk.results.evaluation import Evaluation, per_cent
from crayon_sdk.results.facts import Facts, gather_facts, group_rows
from crayon_sdk.results.report import Material, make_report
from crayon_sdk.results.weight_changes import WeightChanges, weight_changes

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Correction", "CorrectionRecord", "check_output", "load_correction", "versions"]

_log = logging.getLogger(__name__)
_FORMAT = "crayon-correction"
_VERSION = 1
# What would go on describing, or loading, an earlier model beside the new one.
_OF_A_MODEL = (
    *("config.json", WEIGHTS, "crayon.json", "answers.jsonl", "model.onnx"),
    *("pytorch_model.bin", "pytorch_model.pth", "model.pth"),
    *(f"picture-{number}.png" for number in range(1, 10)),  # of an earlier card: nobody allows them for this one
)
_FLOAT_TYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.float16, torch.bfloat16)}


class CorrectionRecord(BaseModel):
    """What one correction did, in plain values.

    Attributes:
        method: Its name, such as "attention"; "none" of a checkpoint that no correction made.
        settings: All settings of the corrector.
        history: One entry per epoch.
        counts: How many samples, answers, neurons took part or were left out.
        pruned_neurons: Neurons that are cut in the result, from this correction or one before.
        original: Fingerprint of the model that was corrected.
        corrected: Fingerprint of the result.
        dataset: Fingerprint of the data set.
        maps: Fingerprint of the reference maps; empty without.
        answers: Fingerprint of the answers.
        simulated: Whether any answer was simulated.
        skipped: Ids of samples that were left out, with the reason.
        seconds: Wall-clock time of the correction.
        created: When it ended (ISO 8601, UTC).
        versions: Versions of the software.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    settings: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    counts: dict[str, int]
    pruned_neurons: tuple[int, ...] = ()
    original: str
    corrected: str
    dataset: str
    maps: str = ""
    answers: str
    simulated: bool
    skipped: dict[str, str] = {}
    seconds: float
    created: str
    versions: dict[str, str]

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(name, getattr(self, name)) for name in ("method", "counts", "created")]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide about numbers.

    Example:
        >>> sorted(versions())[:3]
        ['captum', 'crayon-sdk', 'python']
    """
    names = ("crayon-sdk", "torch", "torchvision", "timm", "captum", "safetensors")
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Correction:
    """The result of a corrector.

    Attributes:
        model: The corrected model in eval mode; hand it to the next corrector to go on.
        record: What was done.
        parents: Records of the corrections before this one, oldest first.
        answers: All answers behind this correction and its parents.
        before: How the model did on ``evaluate_on`` before; ``None`` without.
        after: How the corrected model does on it.
    """

    model: SplitModel = field(repr=False)
    record: CorrectionRecord
    parents: tuple[CorrectionRecord, ...] = ()
    answers: AnnotationSet = field(default_factory=AnnotationSet, repr=False)
    before: Evaluation | None = field(default=None, repr=False)
    after: Evaluation | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        done = [record for record in (*self.parents, self.record) if record.method != "none"]
        records = tuple(record.model_dump(mode="json") for record in done)
        answers = tuple(answer.model_dump(mode="json") for answer in self.answers)
        self.model.provenance = Provenance(records, answers)

    def __repr__(self) -> str:
        scores = [each.worst_group for each in (self.before, self.after) if each is not None]
        worst = f", worst group {' to '.join(per_cent(score) for score in scores)} %" if scores else ""
        steps = " after ".join(each.method for each in (self.record, *reversed(self.parents)))
        return f"Correction({one_line(steps, 80)} of {self.model.architecture}, {len(self.answers):,} answers{worst})"

    def table(self, title: str = "") -> Table:
        """A rich table for the terminal: groups before and after in per cent; without them, what was counted."""
        from rich.table import Table

        table = Table(title=title or plain(repr(self)))
        table.add_column("", no_wrap=True)
        if self.before is None and self.after is None:
            table.add_column("n", justify="right")
            for name, count in self.record.counts.items():
                table.add_row(plain(name.replace("_", " ")), f"{count:,}")
            return table
        measured = {"before": self.before, "after": self.after}
        for name in measured:
            table.add_column(f"{name} %", justify="right")
        for row in group_rows(self.before, self.after):
            accuracies = (None if each is None else each.accuracy for each in (row.before, row.after))
            table.add_row(plain(row.name), *map(per_cent, accuracies))
        table.add_section()
        summaries = [each.summary() if each else {} for each in measured.values()]
        for name in ("worst_group", "mean_group", "accuracy"):
            cells = (per_cent(each.get(name)) for each in summaries)
            table.add_row({"accuracy": "all samples"}.get(name, name.replace("_", " ")), *cells)
        return table

    def _repr_html_(self) -> str:
        return as_html(self.table())

    @property
    def history(self) -> tuple[dict[str, Any], ...]:
        """One entry per epoch of this correction."""
        return self.record.history

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False, card: Card | None = None) -> Path:
        """Write a checkpoint that loads without this package, with plain timm where timm has the architecture.

        The folder is written to the side, loaded back (with plain timm, or torchvision), its
        logits are compared, and only then does it take its name.

        Args:
            folder: The folder to make.
            overwrite: Replace it when it exists, in one step.
            card: What the model card (``README.md``) says that the correction does not know itself.

        Returns:
            The folder.

        Raises:
            MismatchError: The model was changed after its correction; only half precision is fine.
            OutputExistsError: It exists and ``overwrite`` is false.
            OutputError: It cannot be written, or what was written does not
                give the same logits; nothing was changed then.
        """
        if self.model.dtype.itemsize >= 4 and self.record.corrected != self.model.fingerprint:
            raise MismatchError(
                "the model was changed after its correction, so what is known of it would be wrong: expected "
                f"fingerprint {self.record.corrected[:12]}, got {self.model.fingerprint[:12]}. Correct it again, or "
                "save it without its history"
            )

        def fill(fresh: Path) -> None:
            manifest = self._manifest()
            metadata = {"format": "pt", "crayon_model": description(manifest)}
            write_tensors(fresh / WEIGHTS, self.model.plain_state_dict(), metadata)
            if is_timm(self.model):
                write_json(fresh / "config.json", timm_config(self.model))
            self.answers.save(fresh / "answers.jsonl")
            write_json(fresh / "crayon.json", manifest)
            write_card(fresh, self.facts(evaluated_on=card.evaluated_on if card else ""), card)
            check_loads_back(fresh, self.model)

        new_folder(folder, fill, overwrite=overwrite)
        return Path(folder)

    @takes_hub_options
    def push_to_hub(self, repo_id: str, *, card: Card | None = None, **hub: Unpack[HubOptions]) -> Published:
        """Publish what `save` writes on the Hugging Face Hub, in one commit.

        First the rights and the repository are looked at; then the checkpoint is saved aside and loaded
        in a fresh process with plain timm (or torchvision), and its logits are compared; then it is
        published, and what arrived is compared by its hashes. What is there already is not sent again. The
        token is the one of ``hf auth login`` or HF_TOKEN.

        Args:
            repo_id: "me/birds-resnet50"; made when it is missing. Files of an earlier model there (config,
                answers, pickled weights) are replaced or removed, others stay.
            card: What the model card says that the correction does not know itself.
            **hub: As in [`HubOptions`][crayon_sdk._base.publishing.HubOptions].

        Returns:
            Where it is, and what was sent.

        Raises:
            SettingsError: A name or a combination that cannot be; ``private`` is not what the repository is.
            HubAccessError: The token is missing, unknown, or may not write there.
            HubConflictError: Somebody else changed the branch meanwhile; theirs is what is there.
            HubError: The Hub refuses, cannot be reached, or holds something else than what was sent.
            OutputError: The checkpoint does not give the same logits; nothing was sent.
        """
        target = find_target(repo_id, **hub)
        with tempfile.TemporaryDirectory(prefix="crayon-push-") as place:
            about = replace(card or Card(), repo_id=target.repo_id)
            folder = self.save(Path(place) / "model", card=about)
            check_in_fresh_process(folder, self.model)
            return publish(folder, target, replaces=_OF_A_MODEL)

    def facts(self, *, evaluated_on: str = "") -> Facts:
        """What report and card say, in plain values.

        Args:
            evaluated_on: What ``before`` and ``after`` were measured on, such as "test pictures".
        """
        records: list[dict[str, Any]] = [each.model_dump(mode="json") for each in (*self.parents, self.record)]
        return gather_facts(self.model, records, self.answers, self.before, self.after, evaluated_on=evaluated_on)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        dataset: ImageDataset | None = None,
        original: nn.Module | None = None,
        train: ImageDataset | None = None,
        patches: NeuronPatches | None = None,
        evaluated_on: str = "",
        commands: Sequence[str] = (),
        pictures: int = 4,
        candidates: int = 1000,
        seed: int = 0,
        device: str = "auto",
        title: str = "",
        discovered: tuple[Evaluation | None, Evaluation | None] = (None, None),
        overwrite: bool = False,
    ) -> Path:
        """Write one HTML file that says everything about the correction, and its pictures beside it.

        It needs no network and no script, and prints well. What was not given is said to be missing.

        Args:
            path: Ends in ".html"; pictures go beside it as ``STEM-NAME.png``.
            dataset: Pictures to measure on and to show maps of, best such that nobody trained on.
            original: The model before the first correction; with ``dataset``: accuracy and maps before.
            train: The training pictures, for the patches.
            patches: Of the original model, for the neurons that were cut.
            evaluated_on: What ``dataset`` is, such as "test pictures".
            commands: What was typed, for the record.
            pictures: How many to show for each rule.
            candidates: How many pictures the rules choose from; of more, so many are drawn at random.
            seed: Of everything that is drawn at random.
            device: "auto" or a torch device.
            title: Of the page.
            discovered: Evaluations by discovered groups (`DiscoveredGroups.on`), before and after.
            overwrite: Replace the page when it exists.

        Returns:
            The page.

        Raises:
            MismatchError: ``original`` or ``patches`` belong to another correction.
            MissingExtraError: matplotlib is not installed.
            OutputExistsError: The page exists.
            OutputError: It cannot be written.
            SettingsError: A setting is out of range.
        """
        free_path(path, ".html", overwrite=overwrite)  # before minutes of work, not after
        material = Material(
            dataset=None if dataset is None else in_classes_of(dataset, self.model),
            original=None if original is None else as_split_model(original),
            train=None if train is None else in_classes_of(train, self.model),
            patches=patches,
            commands=commands,
            pictures=pictures,
            candidates=candidates,
            seed=seed,
            device=device,
            title=title,
            discovered=discovered,
        )
        made = make_report(self.facts(evaluated_on=evaluated_on), self.model, material)
        return made.save(path, overwrite=overwrite)

    def card(self, card: Card | None = None, *, images: Sequence[str] = ()) -> str:
        """The text of the model card, which ``save`` writes as ``README.md``.

        Args:
            card: What the correction does not know itself.
            images: Names of PNG files beside it to show.
        """
        return model_card(self.facts(evaluated_on="" if card is None else card.evaluated_on), card, images=images)

    def changes(self, original: nn.Module) -> WeightChanges:
        """Which weights are other than before, and by how much.

        Args:
            original: The model that was corrected, at first or in between.

        Raises:
            MismatchError: It is another model.
        """
        split = as_split_model(original)
        known = [record.original for record in (*self.parents, self.record)]
        if split.fingerprint not in known:
            raise MismatchError(
                f"this is not the model that was corrected (fingerprint {split.fingerprint[:12]}, expected "
                f"{known[0][:12]}); pass the model as it was before the correction"
            )
        return weight_changes(split.plain_state_dict(), self.model.plain_state_dict())

    def export_onnx(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the model as one ONNX file; see [`export_onnx`][crayon_sdk.models.onnx.export_onnx].

        Args:
            path: Ends in ".onnx".
            overwrite: Replace the file when it exists.

        Returns:
            The file, whose logits onnxruntime was seen to give as they are here.

        Raises:
            MissingExtraError: onnx, onnxruntime or onnxscript is not installed, or torch is older than 2.9.1.
            OutputExistsError: The file exists.
            OutputError: The model cannot be written as ONNX, or its logits differ.
            SettingsError: Another ending.
        """
        return export_onnx(self.model, path, overwrite=overwrite)

    def _arguments(self) -> dict[str, Any]:
        if is_timm(self.model):
            return dict(timm_config(self.model)["model_args"])
        return dict(getattr(self.model.model, "arguments", {}))

    def _manifest(self) -> dict[str, Any]:
        evaluations = {"before": self.before, "after": self.after}
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "architecture": self.model.architecture,
            "fingerprint": self.model.fingerprint,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "feature_shape": list(self.model.feature_shape),
            "answers": self.answers.fingerprint,
            "base": base_of(self.model),
            "class_names": list(self.model.class_names),
            "preprocessing": self.model.preprocessing.to_dict(),
            "model_args": self._arguments(),
            "load": how_to_load(self.model),
            "record": self.record.model_dump(mode="json"),
            "parents": [parent.model_dump(mode="json") for parent in self.parents],
            "evaluations": {name: found.to_dict() for name, found in evaluations.items() if found is not None},
        }


def check_output(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """See that a correction can be saved in a folder: before hours of training, not after them.

    Args:
        folder: What [`Correction.save`][crayon_sdk.results.correction.Correction.save] is going to make.
        overwrite: Whether it is going to replace it.

    Returns:
        The folder; nothing was made.

    Raises:
        OutputExistsError: It exists and ``overwrite`` is false.
        OutputError: Nothing can be written there.

    Example:
        >>> check_output("birds-corrected").name
        'birds-corrected'
    """
    return free_folder(folder, overwrite=overwrite)


def load_correction(source: str | os.PathLike[str], *, model: nn.Module | None = None) -> Correction:
    """Read back what [`save`][crayon_sdk.results.correction.Correction.save] wrote, or `push_to_hub` published.

    Pruned neurons are pruned again, so that a further correction leaves them so. A checkpoint of timm that no
    correction made is loaded too: its record says ``method="none"``, and a warning is logged. So is one where a package
    made the correction that is not installed here.

    Args:
        source: The folder, or ``"hf-hub:user/name"``, or ``"hf-hub:user/name@revision"``.
        model: For what neither timm nor torchvision can build: the model that was corrected, or one
            built like it. It is copied and given the weights.

    Returns:
        The correction, with answers, settings and history.

    Raises:
        FileFormatError: A file is missing, broken, of another kind, or not what the Hub lists.
        ModelLoadError: The weights cannot be loaded, or the repository may not be read.
        MismatchError: Weights or preprocessing are not those that were saved.
    """
    if is_on_hub(source):
        return _read(fetch(str(source), _OF_A_MODEL[:4], needed=(WEIGHTS,)).folder, model, str(source))
    if not isinstance(source, str | os.PathLike):
        raise SettingsError(f"expected a folder or 'hf-hub:user/name', got {type(source).__name__}")
    if not Path(source).is_dir():
        name = os.fspath(source)
        raise FileFormatError(f"no folder at {name!r}; expected one that Correction.save wrote{hub_hint(name)}")
    return _read(Path(source), model, "")


def _read(place: Path, model: nn.Module | None, source: str) -> Correction:
    if not (place / "crayon.json").is_file():
        if model is None and (place / "config.json").is_file() and (place / WEIGHTS).is_file():
            return _foreign(place, source)
        raise FileFormatError(
            f"no crayon.json in {source or str(place)!r}: it is not a correction; load_model(...) loads a plain "
            "checkpoint"
        )
    stored = _Stored.read(place / "crayon.json")
    manifest = stored.manifest
    check_before_building(place, manifest)
    if model is None:
        loaded = load_model(f"local-dir:{place}", class_names=stored.class_names or None)
    else:
        given = filled(as_split_model(model), place).model
        preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
        loaded = SplitModel(given, preprocessing=preprocessing, class_names=stored.class_names)
    # A builder makes float32; the model was saved as it was.
    loaded = loaded.eval().to(stored.dtype)
    check_model(place, manifest, loaded)
    answers, known = AnnotationSet.load(place / "answers.jsonl"), stored.evaluations
    check_answers(place, manifest, answers)
    check_records(place / "crayon.json", [*manifest["parents"], manifest["record"]], loaded, answers)
    check_evaluations(place / "crayon.json", known, loaded)
    remember_base(loaded, stored.base)
    if stored.record.pruned_neurons:
        keep = torch.ones(loaded.num_neurons, dtype=torch.bool)
        keep[list(stored.record.pruned_neurons)] = False
        loaded.prune(keep)
    return Correction(loaded, stored.record, stored.parents, answers, known.get("before"), known.get("after"))


@dataclass(frozen=True)
class _Stored:
    """What ``crayon.json`` says, each value of its own kind."""

    manifest: dict[str, Any]
    record: CorrectionRecord
    parents: tuple[CorrectionRecord, ...]
    evaluations: dict[str, Evaluation]
    class_names: list[str]
    dtype: torch.dtype
    base: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> _Stored:
        manifest = read_json(path, remedy="Copy the folder again, or save the correction again.")
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise FileFormatError(f"{str(path)!r} is not the crayon.json of a correction")
        if manifest.get("version") != _VERSION:
            raise FileFormatError(
                f"{str(path.parent)!r} was written in version {manifest.get('version')!r} of the format, "
                f"this crayon-sdk reads version {_VERSION}; upgrade crayon-sdk"
            )
        try:
            record = CorrectionRecord.model_validate(manifest["record"])
            parents = tuple(CorrectionRecord.model_validate(parent) for parent in manifest["parents"])
            plain: dict[str, Any] = {
                "architecture": _text(manifest["architecture"]),
                "fingerprint": _text(manifest["fingerprint"]),
                "class_names": [_text(name) for name in manifest["class_names"]],
                "model_args": dict(manifest["model_args"]),
                "preprocessing": dict(manifest["preprocessing"]),
                "base": {_text(name): _text(value) for name, value in manifest.get("base", {}).items()},
                "record": record.model_dump(mode="json"),
                "parents": [parent.model_dump(mode="json") for parent in parents],
            }
            return cls(
                manifest | plain,
                record,
                parents,
                {name: Evaluation.from_dict(found) for name, found in manifest["evaluations"].items()},
                plain["class_names"],
                _FLOAT_TYPES[manifest["dtype"]],
                plain["base"],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            detail = " ".join(str(error).split())[:200]
            raise FileFormatError(f"{str(path)!r} is incomplete or altered: {detail}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _foreign(place: Path, source: str) -> Correction:
    """Load a checkpoint of timm that no correction made."""
    loaded = load_model(f"local-dir:{place}")
    if source:
        loaded.model.pretrained_cfg["hf_hub_id"] = split_source(source)[0]
    _log.warning(
        "%s has no crayon.json: a plain checkpoint, loaded as a model without answers, settings and history",
        source or str(place),
    )
    nothing = AnnotationSet()
    record = CorrectionRecord(
        method="none",
        settings={},
        history=(),
        counts={},
        original=loaded.fingerprint,
        corrected=loaded.fingerprint,
        dataset="",
        answers=nothing.fingerprint,
        simulated=False,
        seconds=0.0,
        created="",
        versions={},
    )
    return Correction(loaded, record, (), nothing)
