"""What one can show and hand on of a correction: report, card, changed weights, ONNX."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from crayon_sdk._base.files import free_path
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import MismatchError
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.onnx import export_onnx
from crayon_sdk.models.passes import in_classes_of
from crayon_sdk.models.split import as_split_model
from crayon_sdk.results.card import Card, model_card
from crayon_sdk.results.facts import Facts, facts_of
from crayon_sdk.results.report import Material, make_report
from crayon_sdk.results.weight_changes import WeightChanges, weight_changes

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crayon_sdk.answers.annotations import AnnotationSet
    from crayon_sdk.models.split import SplitModel
    from crayon_sdk.results.evaluation import Evaluation

__all__ = ["Presenting"]


class Presenting:
    """A correction that can be shown; [`Correction`][crayon_sdk.results.correction.Correction] is one."""

    if TYPE_CHECKING:  # they are fields there

        @property
        def model(self) -> SplitModel: ...  # noqa: D102

        @property
        def record(self) -> BaseModel: ...  # noqa: D102

        @property
        def parents(self) -> Sequence[BaseModel]: ...  # noqa: D102

        @property
        def answers(self) -> AnnotationSet: ...  # noqa: D102

        @property
        def before(self) -> Evaluation | None: ...  # noqa: D102

        @property
        def after(self) -> Evaluation | None: ...  # noqa: D102

    def facts(self, *, evaluated_on: str = "") -> Facts:
        """What report and card say, in plain values.

        Args:
            evaluated_on: What ``before`` and ``after`` were measured on, such as "test pictures".
        """
        records: list[dict[str, Any]] = [each.model_dump(mode="json") for each in (*self.parents, self.record)]
        return facts_of(self.model, records, self.answers, self.before, self.after, evaluated_on=evaluated_on)

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
        known = [str(getattr(record, "original", "")) for record in (*self.parents, self.record)]
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
