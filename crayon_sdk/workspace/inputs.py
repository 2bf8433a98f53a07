"""A look at model and pictures before any work starts, and whether they are still what they were.

What needs the model is imported where it is used: who only lists the pictures does not wait for torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crayon_sdk._base.files import check_writable, hash_of_file, sha256_of
from crayon_sdk._base.text import first_few
from crayon_sdk.data.classes import are_numbers
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError, MismatchError, StaleError
from crayon_sdk.workspace.ledger import Ledger
from crayon_sdk.workspace.manifest import Behaviour, ClassFacts, DataSource, Manifest, SplitFacts

if TYPE_CHECKING:
    from crayon_sdk.models.split import SplitModel

__all__ = ["Inputs", "behaviour_of", "differences", "facts_of", "is_same", "look_at_data"]

_SPLITS = ("train", "val", "test")
_LOGITS = 8
# Another processor or release of torch rounds otherwise; another pooling or padding differs by far more.
_TOLERANCE = 1e-3
_log = logging.getLogger(__name__)


class Inputs:
    """Model and pictures of a workspace; each is refused when it is not what the workspace was made for.

    Args:
        ledger: Of the workspace.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._kept: tuple[Path, int] | None = None
        self._model: SplitModel | None = None
        self._loaded_for: object = None

    @property
    def model(self) -> SplitModel:
        """The model as it was before any correction; loaded once, and again when another one was taken in.

        Raises:
            MismatchError: It is not the one that the workspace was made for.
        """
        known = self.ledger.manifest
        wanted = known.model, known.model_fingerprint, known.preprocessing, known.behaviour, known.classes
        if self._model is None or self._loaded_for != wanted:
            self._model = None
            self._model, self._loaded_for = self._load(), wanted
        return self._model

    def _load(self) -> SplitModel:
        known, take_in = self.ledger.manifest, f"{self.ledger.command('init')} --again"
        model = known.model.load(self.ledger.folder)
        if model.fingerprint != known.model_fingerprint:
            raise MismatchError(
                f"{known.model.source!r} is not the model this workspace was made for (fingerprint "
                f"{model.fingerprint[:12]}, expected {known.model_fingerprint[:12]}). Put the old one back, or "
                f"take the new one in: {take_in}"
            )
        changed = differences(known, model)
        if changed:
            raise MismatchError(
                f"{known.model.source!r} has the weights this workspace was made for, but "
                f"{'; '.join(changed)}. Put it back, or take it in as it is now: {take_in}"
            )
        return model

    @contextlib.contextmanager
    def keeping(self, folder: str | os.PathLike[str] | None, most_gb: float) -> Iterator[None]:
        """Within the block keep decoded pictures in a folder, if one is named, by `ImageDataset.with_cache`.

        Args:
            folder: Relative paths start at the workspace.
            most_gb: How much it may hold, in 10^9 bytes.

        Raises:
            OutputError: It cannot be written.
        """
        if folder is not None:
            check_writable(self.ledger.folder / folder)
            self._kept = self.ledger.folder / folder, max(round(most_gb * 1e9), 1)
        try:
            yield
        finally:
            self._kept = None

    def dataset(self, split: str = "train") -> ImageDataset:
        """The pictures of a split: "train", "val" or "test".

        Raises:
            StaleError: They are not those the workspace was made for.
            DataError: There is no such split.
        """
        found = self._dataset(split)
        return found if self._kept is None else found.with_cache(self._kept[0], most_bytes=self._kept[1])

    def _dataset(self, split: str) -> ImageDataset:
        facts = self.ledger.facts(split)
        found = self.ledger.manifest.data.load(self.ledger.folder, split)
        known = {name: row for row, name in enumerate(found.ids)}
        found = found.without({known[name]: why for name, why in facts.skipped.items() if name in known})
        there = facts_of(found)
        if (there.fingerprint, there.files) != (facts.fingerprint, facts.files):
            raise StaleError(
                f"the {split} pictures changed since the workspace was made ({facts.count} then, {len(found)} now; "
                "ids, labels, groups or file sizes differ). Put them back, or take them in: "
                f"{self.ledger.command('init')} --again"
            )
        classes = self.ledger.manifest.classes
        if classes is not None:
            return found.with_classes(classes.names, classes.numbers)
        from crayon_sdk.models.passes import in_classes_of

        # From before classes were noted: they were taken in the order of the data, whatever the model calls them.
        if in_classes_of(found, self.model).fingerprint != found.fingerprint:
            raise StaleError(
                f"this workspace was made by a version that took the classes in the order of the data "
                f"({first_few(found.class_names)}), and the model's are {first_few(self.model.class_names)}. Bring "
                f"them together: {self.ledger.command('init')} --again"
            )
        return found

    @property
    def base_model(self) -> str:
        """Name on the Hub of the model that is corrected; "" when it came from elsewhere."""
        source = self.ledger.manifest.model.source
        if source.startswith(("hf-hub:", "hf_hub:")):
            return source.partition(":")[2].partition("@")[0]
        if source.startswith(("local-dir:", ".", "/")) or os.path.sep in source or ":" in source:
            return ""
        config = getattr(self.model.model, "pretrained_cfg", None) or {}
        return str(config.get("hf_hub_id") or "")  # a timm name, which is loaded with its published weights


def look_at_data(data: DataSource, place: Path, model: SplitModel) -> tuple[dict[str, SplitFacts], ClassFacts]:
    """Decode every picture of every split there is, and check labels and classes.

    Pictures that are in two splits are a warning.

    Args:
        data: Where the pictures come from.
        place: Folder of the workspace.
        model: What is to classify them.

    Returns:
        What the splits are, by name; and which class is which of the model's.

    Raises:
        DataError: Pictures are not usable, a class has too few, or splits have different classes.
        SettingsError: It is not clear which class of the model a class of the data is.
    """
    from crayon_sdk.models.passes import in_classes_of

    found: dict[str, ImageDataset] = {}
    aligned: dict[str, ImageDataset] = {}
    for split in _SPLITS:
        if split != "train" and not data.has_split(place, split):
            named = data.splits.get(split, split)
            if named != split:
                there = ", ".join(map(repr, data.split_names(place))) or "none"
                raise DataError(
                    f"there is no split {named!r} in the data, which was named as the {split} split; there is {there}"
                )
            continue
        found[split] = data.load(place, split, decode=True)
        names, own = found["train"].class_names, found[split].class_names
        if own != names:
            raise DataError(f"the {split} pictures have the classes {own}, the train pictures {names}")
        if split == "train":
            _check_classes(found[split], data.min_images_per_class)
        aligned[split] = in_classes_of(found[split], model)
    _warn_of_shared_pictures(found)
    return {split: facts_of(each) for split, each in found.items()}, _class_facts(found, aligned)


def behaviour_of(model: SplitModel) -> Behaviour:
    """What decides besides weights, preprocessing and classes about the numbers of a model."""
    import torch

    from crayon_sdk.models.split import borrowed

    size = model.preprocessing.size
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    with borrowed(model, model.device), torch.no_grad():
        logits = model(images).float().cpu()[0, :_LOGITS]
    arguments: Any = getattr(model.model, "_model_args", None) or getattr(model.model, "arguments", {})
    # As JSON gives them back.
    told = json.loads(json.dumps(dict(arguments), default=str))
    return Behaviour(logits=tuple(float(f"{value:.6g}") for value in logits.tolist()), arguments=told)


def differences(manifest: Manifest, model: SplitModel) -> list[str]:
    """In what a model with the same weights is other than when the workspace was made, in words.

    What a workspace from before did not note is not compared.
    """
    now = model.preprocessing.to_dict()
    found = [
        f"its {name} is {now.get(name)!r}, it was {value!r}"
        for name, value in manifest.preprocessing.items()
        if now.get(name) != value
    ]
    names = () if are_numbers(model.class_names) else model.class_names
    if manifest.classes is not None and names not in ((), manifest.classes.names):
        found.append(f"its classes are {first_few(names)}, they were {first_few(manifest.classes.names)}")
    if manifest.behaviour is not None and not found:
        there = behaviour_of(model)
        found += _changed(manifest.behaviour.arguments, there.arguments)
        if not found and not is_same(manifest.behaviour, there):
            found.append("it gives other logits for the same picture and the same weights")
    return found


def is_same(one: Behaviour, other: Behaviour) -> bool:
    """Tell whether two models with the same weights give the same, up to rounding."""
    if _changed(one.arguments, other.arguments):
        return False
    import torch

    from crayon_sdk.models.alike import same_logits

    first, second = torch.tensor(one.logits), torch.tensor(other.logits)
    return same_logits(second, first, rtol=0, atol=_TOLERANCE * max(float(first.abs().max()), 1e-6))


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if not before or not now:  # a release of timm that does not tell them
        return []
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"it was built with {name} {before.get(name)!r}, now with {now.get(name)!r}" for name in names]


def facts_of(dataset: ImageDataset) -> SplitFacts:
    """What a workspace remembers of a split, to notice when it changes: ids, labels, groups, sizes of files."""
    return SplitFacts(
        count=len(dataset),
        fingerprint=sha256_of(dataset.fingerprint, json.dumps([dataset.group_names, dataset.group_labels])),
        files=dataset.file_fingerprint,
        skipped={sample.id: sample.reason for sample in dataset.skipped},
    )


def _class_facts(raw: Mapping[str, ImageDataset], aligned: Mapping[str, ImageDataset]) -> ClassFacts:
    pairs = {
        pair for split in raw for pair in zip(raw[split].labels.tolist(), aligned[split].labels.tolist(), strict=True)
    }
    return ClassFacts(
        names=aligned["train"].class_names,
        numbers={raw["train"].class_names[label]: number for label, number in sorted(pairs)},
        moved=any(aligned[split].fingerprint != raw[split].fingerprint for split in raw),
    )


def _warn_of_shared_pictures(splits: Mapping[str, ImageDataset]) -> None:
    """Say how many pictures two splits share: the same file, or another with the same bytes."""
    files = {split: dataset.files for split, dataset in splits.items()}
    sizes: dict[int, set[str]] = defaultdict(set)
    for split, paths in files.items():
        for path in paths:
            sizes[path.stat().st_size].add(split)
    hashes = {
        split: {path: hash_of_file(path) for path in paths if len(sizes[path.stat().st_size]) > 1}
        for split, paths in files.items()
    }
    for one, other in combinations(splits, 2):
        known = set(hashes[one].values())
        shared = [path for path, digest in hashes[other].items() if digest in known]
        if shared:
            same = {os.path.realpath(path) for path in files[one]} & {os.path.realpath(path) for path in shared}
            _log.warning(
                "%d of the %d %s pictures are also among the %s pictures (%d are the same files, the others have the "
                "same bytes; compared were paths, and the SHA-256 of files of equal size): %s. What is measured on "
                "them says nothing about new pictures",
                len(shared),
                len(files[other]),
                other,
                one,
                len(same),
                first_few(str(path) for path in shared),
            )


def _check_classes(train: ImageDataset, least: int) -> None:
    counts = train.labels.bincount(minlength=train.num_classes).tolist()
    small = [f"{name} ({count})" for name, count in zip(train.class_names, counts, strict=True) if count < least]
    if small:
        raise DataError(
            f"{len(small)} of {train.num_classes} classes have fewer than {least} training pictures: "
            f"{first_few(small)}. Add pictures, leave the classes out, or lower min_images_per_class="
        )
