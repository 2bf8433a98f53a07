"""`Explainer`: a map for every picture, patches for every neuron."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from crayon_sdk._base.files import check_writable
from crayon_sdk._base.process import Processes, resolve_device, resolve_precision
from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import Workers
from crayon_sdk.data.preprocessing import effective_preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain import asking
from crayon_sdk.explain.maps import SaliencyMaps, as_maps
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional import neurons as neuron_functions
from crayon_sdk.functional.saliency import has_evidence, normalize_maps, target_scores, weighted_activation
from crayon_sdk.models.passes import check_finite, in_classes_of, portion, stream_features
from crayon_sdk.models.split import SplitModel, as_split_model, borrowed

__all__ = ["Explainer"]

_log = logging.getLogger(__name__)


class _CaptumHead(nn.Module):
    """The head, with a layer in front for captum to attribute to and the target's score at the end."""

    def __init__(self, split: SplitModel, score: str) -> None:
        super().__init__()
        self.split = split
        self.score = score
        self.features = nn.Identity()

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        logits = self.split.head(self.features(features))
        self.logits = logits.detach()
        return target_scores(logits, targets, self.score)


class Explainer:
    """Makes the pictures that people answer about.

    Maps come from captum's Grad-CAM over the head; the trunk runs without a
    gradient, so explaining costs a forward pass. The model is used in eval mode
    and comes back as it was.

    Args:
        model: A `SplitModel`, a timm model, or what `load_model` gives.
        target: Whose evidence a map shows: "label" (the true class), "predicted",
            or the index of one class.
        score: "margin", the log odds of the target, in which evidence against the other classes counts too and
            which the corrections of this package were tuned with; or "logit", as in the paper.
        batch_size: Pictures at a time.
        device: "auto" (a GPU when there is one), or a torch device.
        precision: "auto" (bfloat16 for the trunk on GPUs that have it), "float32" or "bfloat16".
        num_workers: Processes that decode pictures; "auto" picks by size.

    Raises:
        SettingsError: A setting is out of range.
        UnsupportedModelError: The model has no feature map.

    Example:
        >>> from crayon_sdk import ImageDataset, load_model
        >>> pictures = [(torch.rand(3, 160, 160), index % 2) for index in range(4)]
        >>> model = load_model("test_resnet.r160_in1k", pretrained=False, num_classes=2)
        >>> Explainer(model).explain(ImageDataset.from_torch(pictures)).size
        (5, 5)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        target: str | int = "label",
        score: str = "margin",
        batch_size: int = 64,
        device: str | torch.device = "auto",
        precision: str = "auto",
        num_workers: Workers = "auto",
    ) -> None:
        self.model = as_split_model(model)
        self.target = check_target(target, self.model.num_classes)
        self.score = check_score(score, self.model.num_classes)
        if batch_size < 1:
            raise SettingsError(f"expected batch_size >= 1, got {batch_size}")
        self.batch_size = batch_size
        self.device = resolve_device(device, self.model.device)
        self.autocast = resolve_precision(precision, self.device)
        self.num_workers = num_workers

    def __repr__(self) -> str:
        return f"Explainer({self.model.architecture}, target={self.target!r}, score={self.score!r}, on {self.device})"

    def explain(self, dataset: ImageDataset, path: str | os.PathLike[str] | None = None) -> SaliencyMaps:
        """Make the map of every sample.

        Processes that were launched together share the work, and all get the whole, with the same bytes.

        Args:
            dataset: What to explain.
            path: The file of [`save`][crayon_sdk.explain.maps.SaliencyMaps.save]: maps are written into it as they are
                made and come from it when they are looked at, so that a million of them need no memory.

        Returns:
            Maps in the order of the data set.

        Raises:
            DataError: A picture cannot be read, there are none, or the model gives NaN or infinity for some.
            OutputError: The file cannot be written.
            SettingsError: The labels are not classes of the model.
            UnsupportedModelError: The model gives NaN or infinity for all of them, or has such weights.
        """
        dataset = in_classes_of(dataset, self.model)
        if path is not None:
            check_writable(Path(path).parent)
        order, processes = portion(len(dataset), self.batch_size)
        together = Processes.found()
        with contextlib.ExitStack() as stack:
            stack.enter_context(borrowed(self.model, self.device))
            parts = self._parts(dataset, order)
            first, count = next(parts), len(dataset)
            maps = SaliencyMaps(
                ids=dataset.ids[: len(first[1])],
                values=first[0],
                targets=first[1],
                evidence=first[2],
                model=self.model.fingerprint,
                target_rule=str(self.target),
                score=self.score,
                class_names=dataset.class_names,
                preprocessing=effective_preprocessing(dataset, self.model.preprocessing),
            ).only_shapes(dataset.ids)
            kept: list[tuple[Tensor, Tensor, Tensor]] = []
            alone = together.size == 1  # several processes bring their maps together in memory
            put = stack.enter_context(maps.saved_in_parts(path)) if path is not None and alone else None
            done = empty = 0
            for part in itertools.chain([first], parts):
                if put is None:
                    kept.append(part)
                else:
                    put(done, *part)
                done, empty = done + len(part[2]), empty + int((~part[2]).sum())
        if kept:
            values, targets, evidence = (
                _of_all(torch.cat(each), order, count, processes) for each in zip(*kept, strict=True)
            )
            maps = replace(maps, values=values, targets=targets, evidence=evidence)
            empty = int((~evidence).sum())
        if empty:
            _log.warning(
                "%d of %d maps have no positive evidence for their target; they will not guide anything", empty, count
            )
        if path is None:
            return maps
        if kept:
            maps.save(path)
            together.wait()  # until the main process has written it
        return SaliencyMaps.load(path)

    def _parts(self, dataset: ImageDataset, order: list[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Values, targets and evidence of some maps, on the CPU, in the order of the data set."""
        for indices, features in self._features(dataset, "explaining", order):
            targets = self._targets(features, dataset.labels[indices])
            found = self._maps(features, targets, [dataset.ids[row] for row in indices.tolist()])
            yield normalize_maps(found).cpu(), targets.cpu(), has_evidence(found).cpu()

    def explain_neurons(self, dataset: ImageDataset, patches_per_neuron: int = 3) -> NeuronPatches:
        """Find the strongest patches of every penultimate neuron.

        Processes that were launched together share the work, and all get the whole, with the same bytes.

        Per neuron, the pictures on which it (the input of the classifier) is most active.
        Memory is O(neurons x patches), however many pictures there are. Where one
        feature channel feeds a neuron, the patch is that channel's maximal cell;
        otherwise it is the maximal cell of the neuron's own Grad-CAM.

        Args:
            dataset: Where to look.
            patches_per_neuron: How many samples to keep per neuron.

        Returns:
            The patches, duplicates merged.

        Raises:
            DataError: A picture cannot be read, or there are none.
            SettingsError: ``patches_per_neuron`` is not positive.
        """
        if patches_per_neuron < 1:
            raise SettingsError(f"expected patches_per_neuron >= 1, got {patches_per_neuron}")
        dataset = in_classes_of(dataset, self.model)
        mixed = self.model.mixes_channels()
        top = neuron_functions.empty_top_patches(self.model.num_neurons, patches_per_neuron, self.device)
        map_size = self.model.map_size
        order, processes = portion(len(dataset), self.batch_size)
        with borrowed(self.model, self.device), torch.no_grad():
            for indices, features in self._features(dataset, "finding patches", order):
                map_size = (int(features.shape[2]), int(features.shape[3]))
                # Ranked by the neuron itself: channels that saturate (ReLU6) have the same peak in many pictures.
                values = self.model.penultimate(features).float()
                cells = torch.zeros_like(values, dtype=torch.int64)
                if not mixed:
                    cells = neuron_functions.channel_peaks(features)[1]
                top = neuron_functions.top_patches(top, values, indices.to(self.device), cells)
            if processes.size > 1:
                top = neuron_functions.best_of(*(processes.each(part) for part in top), count=patches_per_neuron)
            if mixed:
                top = top._replace(cells=self._own_cells(dataset, top))
        return NeuronPatches.from_top(
            top,
            dataset.ids,
            map_size,
            model=self.model.fingerprint,
            preprocessing=effective_preprocessing(dataset, self.model.preprocessing),
        )

    def suggest(
        self,
        maps: SaliencyMaps,
        n: int = 20,
        *,
        method: asking.Method = "random",
        dataset: ImageDataset | None = None,
        answers: AnnotationSet | None = None,
        votes: int = 1,
        seed: int = 0,
        kind: Literal["image", "spot"] = "image",
    ) -> tuple[str, ...]:
        """Choose the pictures to ask people about first.

        Args:
            maps: The maps to ask about; those without evidence are left out.
            n: How many at most, at least 1.
            method: "random"; "coverage", every next picture being the one whose neurons differ most from all
                before; "uncertain", the picture first whose class the model expected least; "typical", the most
                typical picture of every cluster of what the brightest spots show; or "active", typical ones until
                twenty are answered, then those first that can be foretold least.
            dataset: Has the pictures; all but "random" run the model over them once.
            answers: What was answered: such pictures are left out, and count as covered.
            votes: How many people are to answer a picture before it counts as answered.
            seed: Of the random order; "coverage" starts with its first picture.
            kind: "image", or "spot": what was answered about the brightest spots of the maps counts, and nothing else.

        Returns:
            Sample ids in the order of asking.

        Raises:
            MismatchError: The maps are of another model, or of pictures that the data set lacks.
            SettingsError: A setting is out of range, or the data set is needed and was not given.

        Example:
            >>> maps = SaliencyMaps(("a", "b", "c"), torch.ones(3, 5, 5), torch.tensor([0, 1, 0]))
            >>> from crayon_sdk import load_model
            >>> explainer = Explainer(load_model("test_resnet.r160_in1k", pretrained=False, num_classes=2))
            >>> len(explainer.suggest(maps, 2))
            2
        """

        def look() -> asking.Outlook:
            if dataset is None:
                raise SettingsError(f"method={method!r} looks at the pictures: expected dataset=, the one explained")
            return asking.look(
                self.model,
                dataset,
                maps,
                device=self.device,
                autocast=self.autocast,
                batch_size=self.batch_size,
                num_workers=self.num_workers,
            )

        given = AnnotationSet() if answers is None else as_answers(answers)
        if kind not in ("image", "spot"):
            raise SettingsError(f"expected kind 'image' or 'spot', got {kind!r}")
        asked = asking.suggest(as_maps(maps), given, look, count=n, votes=votes, seed=seed, method=method, kind=kind)
        return tuple(question.id for question in asked)

    def saliency(self, images: Tensor, targets: Tensor) -> Tensor:
        """Make the maps of preprocessed images.

        Args:
            images: (N, 3, H, W) float32, normalised as the model expects.
            targets: (N,) int64 class indices.

        Returns:
            (N, h, w) float32 in (0, 1], on the explainer's device.

        Raises:
            SettingsError: The shapes do not fit, or a target is not a class of the model.
        """
        fits = images.ndim == 4 and targets.shape == images.shape[:1] and not targets.is_floating_point()
        if not fits or not bool(((targets >= 0) & (targets < self.model.num_classes)).all()):
            raise SettingsError(
                f"expected images (N, 3, H, W) and N targets from 0 to {self.model.num_classes - 1}, "
                f"got {tuple(images.shape)} and {targets.tolist()}"
            )
        with borrowed(self.model, self.device):
            with torch.no_grad():
                features = self.model.features(images.to(self.device), autocast=self.autocast)
            names = [f"image {number}" for number in range(len(images))]
            check_finite(self.model, features, "features", names)
            return normalize_maps(self._maps(features, targets.to(self.device, copy=True), names))

    def _features(
        self, dataset: ImageDataset, doing: str, order: list[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return stream_features(
            self.model,
            dataset,
            device=self.device,
            autocast=self.autocast,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            order=order,
            doing=doing,
        )

    def _targets(self, features: Tensor, labels: Tensor) -> Tensor:
        if self.target == "label":
            return labels.to(features.device)
        if self.target == "predicted":
            with torch.no_grad():
                return self.model.head(features).argmax(dim=1)
        return torch.full((len(features),), int(self.target), dtype=torch.int64, device=features.device)

    def _maps(self, features: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        wrapped = _CaptumHead(self.model, self.score)
        grad_cam = LayerGradCam(wrapped, wrapped.features)
        with torch.enable_grad():
            inputs = features.detach().requires_grad_()
            maps: Tensor = grad_cam.attribute(inputs, additional_forward_args=(targets,), relu_attributions=True)
        check_finite(self.model, wrapped.logits, "logits", ids)
        check_finite(self.model, maps, "maps", ids)
        return maps[:, 0].detach().float()

    def _own_cells(self, dataset: ImageDataset, top: neuron_functions.TopPatches) -> Tensor:
        """The maximal cell of each neuron's own Grad-CAM on each of its samples."""
        cells = torch.zeros_like(top.cells)
        wanted = top.samples.cpu()
        samples = sorted({int(sample) for sample in wanted.flatten().tolist() if sample >= 0})
        order, processes = portion(len(samples), self.batch_size, samples)
        for indices, features in self._features(dataset, "placing patches", order):
            pairs = (wanted[None] == indices[:, None, None]).nonzero().to(self.device)
            for part in pairs.split(self.batch_size):
                rows, neurons, ranks = part.unbind(1)
                with torch.enable_grad():
                    inputs = features[rows].detach().requires_grad_()
                    activation = self.model.penultimate(inputs).gather(1, neurons[:, None]).sum()
                    (gradient,) = torch.autograd.grad(activation, inputs)
                cells[neurons, ranks] = weighted_activation(inputs.detach(), gradient).flatten(1).argmax(dim=1)
        # Each was found by one process; where there is no sample there is no cell.
        return torch.where(top.samples < 0, top.cells, processes.sum(cells))


def _of_all(values: Tensor, order: list[int], count: int, processes: Processes) -> Tensor:
    """What all processes found, in the order of the data set."""
    if processes.size == 1:
        return values
    rows = torch.tensor(order, dtype=torch.int64)
    whole = values.to(torch.int32) if values.dtype == torch.bool else values
    found = processes.merged(whole.new_zeros(count, *whole.shape[1:]).index_copy(0, rows, whole), rows)
    return found.to(values.dtype)


def check_target(target: str | int, num_classes: int) -> str | int:
    """Check a target rule against the number of classes.

    Raises:
        SettingsError: Not "label", "predicted" or a class index.
    """
    if target in ("label", "predicted"):
        return target
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < num_classes:
        return target
    raise SettingsError(
        f"expected target='label', 'predicted' or a class index from 0 to {num_classes - 1}, got {target!r}"
    )


def check_score(score: str, num_classes: int) -> Literal["logit", "margin"]:
    """Check what is differentiated for a map.

    Raises:
        SettingsError: Not "logit" or "margin", or a margin with a single class.
    """
    if score == "logit":
        return "logit"
    if score != "margin":
        raise SettingsError(f"expected score='logit' or 'margin', got {score!r}")
    if num_classes < 2:
        raise SettingsError(
            "score='margin' compares a class with the others; the model has only one class. Take score='logit'"
        )
    return "margin"
