"""Groups without group labels: by class, and by what the surround of the object looks like."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk._base.progress import track
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import effective_preprocessing
from crayon_sdk.errors import MismatchError, SettingsError, shortened
from crayon_sdk.explain.maps import SaliencyMaps, readable
from crayon_sdk.explain.objects import FoundObjects, ObjectProbe, found_objects
from crayon_sdk.functional.groups import centred, fit_softmax, foretold_classes, sureness
from crayon_sdk.functional.highlights import background_tiles
from crayon_sdk.models.passes import check_finite, in_classes_of
from crayon_sdk.models.split import SplitModel, as_split_model, borrowed

__all__ = ["ATTRIBUTE", "DiscoveredGroups", "Grounds", "SurroundProbe", "find_groups", "surrounds_of"]

ATTRIBUTE = "surround"
"""What discovered groups are groups by, in the place of a group column."""

_log = logging.getLogger(__name__)
_BATCH = 64
_PENALTY = 0.01
# Each lies in the middle of a wide gap between data sets with such groups and without, of those tried.
_SURE, _AGREE, _STABLE = 0.4, 0.6, 0.5
_ABOVE_CHANCE = 0.3  # of the way from chance to always right
_FEWEST = 10  # pictures in an unusual surround


@dataclass(frozen=True)
class Grounds:
    """Why discovered groups are to be trusted, or not. All of it is known without a group label.

    Attributes:
        accuracy: How often the label is foretold from the surround alone, by a probe that did not see the picture;
            mean over classes, in [0, 1].
        chance: What guessing gives.
        sureness: How sure that probe is where it contradicts the label, in units of how sure it is elsewhere
            ([`sureness`][crayon_sdk.functional.groups.sureness]).
        agreement: Of the pictures where it contradicts the label, the share in which the model itself says the same of
            the picture's background alone.
        stability: Of the pictures found in an unusual surround now or with other folds, the share found both times.
        unusual: How many pictures stand in a surround that is not that of their class.
    """

    accuracy: float
    chance: float
    sureness: float
    agreement: float
    stability: float
    unusual: int

    @property
    def lacking(self) -> str:
        """Why there are no reliable groups; "" where there are."""
        if self.accuracy < self.chance + _ABOVE_CHANCE * (1 - self.chance):
            return (
                f"the surround hardly tells the class ({100 * self.accuracy:.0f} %, and chance is "
                f"{100 * self.chance:.0f} %): no shortcut is seen there"
            )
        if self.unusual < _FEWEST:
            return f"only {self.unusual} pictures stand in an unusual surround, and it takes {_FEWEST}"
        if not self.sureness >= _SURE:
            return (
                "where the surround contradicts the class it does so without conviction "
                f"({self.sureness:.2f} of what it has elsewhere, and it takes {_SURE})"
            )
        if not self.agreement >= _AGREE:
            return (
                f"the model itself sees only {100 * self.agreement:.0f} % of the pictures in an unusual surround that "
                f"way when it is shown the background alone, and it takes {100 * _AGREE:.0f} %"
            )
        if not self.stability >= _STABLE:
            return f"with other folds {100 * (1 - self.stability):.0f} % of the pictures found are others"
        return ""

    @property
    def reliable(self) -> bool:
        """Whether anything may be weighted, chosen or reported by the groups."""
        return not self.lacking

    @property
    def in_words(self) -> str:
        """One sentence for people."""
        if self.lacking:
            return f"no reliable groups found: {self.lacking}"
        return (
            f"{self.unusual:,} pictures stand in a surround that is not that of their class (it tells the class in "
            f"{100 * self.accuracy:.0f} %, and the model agrees in {100 * self.agreement:.0f} % of the exceptions)"
        )


@dataclass(frozen=True)
class SurroundProbe:
    """Says of the surround of any picture which class it looks like.

    Attributes:
        objects: Tells the object from what is around it.
        stage: Which of its feature maps the surround is judged by.
        coefficients: (d + 1, K) of the means of that feature map.
        centre: (K,) logits that the model gives to backgrounds as such.
        seed: Of how backgrounds are laid out.
    """

    objects: ObjectProbe
    stage: int
    coefficients: Tensor
    centre: Tensor
    seed: int

    def tiles(self, model: SplitModel, images: Tensor, shares: Tensor, rows: Tensor) -> Tensor:
        """(n,) class that the model sees in the background alone, of pictures at positions ``rows``."""
        return (_background_logits(model, images, shares, self.objects.map_size, rows, self.seed) - self.centre).argmax(
            dim=1
        )

    def surround(self, surround: Tensor) -> Tensor:
        """(n,) class that the surround looks like, by its features, (n, D)."""
        features = self.objects.of_stage(surround, self.stage)
        return (features @ self.coefficients[:-1] + self.coefficients[-1]).argmax(dim=1)


@dataclass(frozen=True)
class DiscoveredGroups:
    """Groups that were found and not labelled: class, and the class whose usual surround a picture stands in.

    Attributes:
        ids: Sample ids.
        labels: (N,) int64 classes.
        surround: (N,) int64, the class that the surround looks like; the label where the signals do not agree.
        class_names: Of the model.
        grounds: Why they are to be trusted, or not.
        probe: Finds them in other pictures.
        names: What a surround is called, by class name; default "like" and that name.
    """

    ids: tuple[str, ...]
    labels: Tensor
    surround: Tensor
    class_names: tuple[str, ...]
    grounds: Grounds
    probe: SurroundProbe
    names: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        return f"DiscoveredGroups({counts}; {self.grounds.in_words})"

    @property
    def reliable(self) -> bool:
        """Whether they may be used."""
        return self.grounds.reliable

    @property
    def unusual(self) -> Tensor:
        """(N,) bool, whether a picture stands in a surround that is not that of its class."""
        return self.surround != self.labels

    @property
    def members(self) -> dict[str, list[str]]:
        """Ids of the pictures in each group, by its name."""
        found: dict[tuple[int, int], list[str]] = {}
        for sample, label, kind in zip(self.ids, self.labels.tolist(), self.surround.tolist(), strict=True):
            found.setdefault((label, kind), []).append(sample)
        return {f"{self.class_names[label]}/{self._name(kind)}": ids for (label, kind), ids in sorted(found.items())}

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures are in each group, by its name."""
        return {name: len(ids) for name, ids in self.members.items()}

    def _name(self, kind: int) -> str:
        name = self.class_names[kind]
        return self.names.get(name, f"like {name}")

    def named(self, names: Mapping[str, str]) -> DiscoveredGroups:
        """Call the surrounds otherwise, after a look at the pictures.

        Args:
            names: What the usual surround of a class is called, such as ``{"waterbird": "sea"}``.

        Raises:
            SettingsError: There is no such class, or two surrounds have one name.
        """
        unknown = [name for name in names if name not in self.class_names]
        if unknown:
            raise SettingsError(f"expected classes of {', '.join(self.class_names)}, got {unknown[0]!r}")
        made = replace(self, names=dict(names))
        called = [made._name(kind) for kind in range(len(self.class_names))]
        if len(set(called)) < len(called):
            raise SettingsError(f"expected another name for every surround, got {dict(names)}")
        return made

    def on(self, dataset: ImageDataset) -> ImageDataset:
        """Give a data set these groups in the place of its group columns.

        Every method that needs groups, `evaluate` and ``keep="best"`` then work with the discovered ones.

        Args:
            dataset: The pictures that the groups were found in, or some of them.

        Raises:
            DataError: It is no data set.
            MismatchError: A picture is not among them, or the groups are not reliable.
        """
        self.check()
        data, places = as_dataset(dataset), {sample: place for place, sample in enumerate(self.ids)}
        lacking = [sample for sample in data.ids if sample not in places]
        if lacking:
            raise MismatchError(
                f"{len(lacking):,} of {len(data):,} pictures are not among those that groups were found in, such as "
                f"{shortened(lacking[0], 100)!r}; find them there, too, with of()"
            )
        values = tuple((self._name(int(self.surround[places[sample]])),) for sample in data.ids)
        return replace(data, group_names=(ATTRIBUTE,), groups=values)

    def check(self) -> None:
        """See that the groups may be used.

        Raises:
            MismatchError: They are not reliable; says why.
        """
        if not self.reliable:
            raise MismatchError(f"{self.grounds.in_words}; nothing is to be weighted, chosen or reported by them")

    def of(
        self,
        model: torch.nn.Module,
        dataset: ImageDataset,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
    ) -> DiscoveredGroups:
        """Find the same groups in other pictures, such as held-out ones.

        Args:
            model: The model that they were found with, uncorrected.
            dataset: The pictures.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
        """
        split = as_split_model(model)
        data = in_classes_of(as_dataset(dataset), split)
        where = resolve_device(device, split.device)
        autocast = resolve_precision(precision, where)
        probe = _moved(self.probe, where)
        labels, surround = data.labels.to(where), torch.empty(len(data), dtype=torch.int64, device=where)
        with (
            PixelCache(data, effective_preprocessing(data, split.preprocessing), device=where) as cache,
            borrowed(split, where),
            torch.no_grad(),
            track("finding groups", len(data)) as advance,
        ):
            for rows in torch.arange(len(data)).split(_BATCH):
                images = cache.get(rows)
                shares, around = probe.objects.of(probe.objects.cells(split, images, autocast))
                kinds, there = probe.surround(around), rows.to(where)
                agreed = kinds == probe.tiles(split, images, shares, rows)
                surround[there] = torch.where(agreed, kinds, labels[there])
                advance(len(rows))
        return replace(self, ids=data.ids, labels=data.labels, surround=surround.cpu())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: It cannot be written.
        """
        probe, objects = self.probe, self.probe.objects
        facts = {
            "ids": self.ids,
            "class_names": self.class_names,
            "names": dict(self.names),
            "grounds": asdict(self.grounds),
            "stage": probe.stage,
            "seed": probe.seed,
            "map_size": objects.map_size,
            "channels": objects.channels,
        }
        tensors = {"labels": self.labels, "surround": self.surround}
        tensors |= {"coefficients": probe.coefficients, "centre": probe.centre}
        tensors |= {f"objects.{name}": getattr(objects, name) for name in _OF_OBJECTS}
        tensors["facts"] = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
        write_tensors(path, {name: each.cpu().contiguous() for name, each in tensors.items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DiscoveredGroups:
        """Read what `save` wrote.

        Raises:
            FileFormatError: The file is truncated, or holds something else.
        """
        tensors, _ = read_tensors(path)
        with readable(path):
            facts = json.loads(bytes(tensors["facts"].tolist()))
            objects = ObjectProbe(
                **{name: tensors[f"objects.{name}"] for name in _OF_OBJECTS},
                map_size=tuple(facts["map_size"]),
                channels=tuple(facts["channels"]),
            )
            probe = SurroundProbe(objects, facts["stage"], tensors["coefficients"], tensors["centre"], facts["seed"])
            ids, classes = tuple(facts["ids"]), tuple(facts["class_names"])
            found = Grounds(**facts["grounds"])
            return cls(ids, tensors["labels"], tensors["surround"], classes, found, probe, facts["names"])


_OF_OBJECTS = ("coefficients", "mean", "spread")


def find_groups(
    model: torch.nn.Module,
    dataset: ImageDataset,
    maps: SaliencyMaps,
    answers: AnnotationSet,
    *,
    rule: Rule = "unanimous",
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> DiscoveredGroups:
    """Say which pictures belong together by what the model leans on, without a group label.

    The answers tell where the object is ([`find_objects`][crayon_sdk.explain.objects.find_objects]). From the middle
    features of what is around it the label is foretold, out of fold; where that says another class, and the model says
    the same of the background alone, the picture stands in an unusual surround. Of the feature maps the one is taken
    that is surest where it contradicts the label: higher up the label has leaked everywhere. Two forward passes over
    the data, and seconds of fitting. Not part of the paper.

    The groups are a hypothesis: ask ``reliable`` before anything is done with them, and look at the pictures.

    Args:
        model: The model that was explained, uncorrected.
        dataset: The pictures.
        maps: Maps of the answered pictures.
        answers: Answers about them.
        rule: From votes to verdicts about whole maps.
        seed: Of the folds, and of how backgrounds are laid out.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).

    Raises:
        AnswerError: No map was found relevant, so that nothing is known of the object.
        DataError: What the model makes of some pictures is not finite.
        MismatchError: Answers, maps, data set and model do not belong together.
        UnsupportedModelError: The model does not give its intermediate features.
    """
    split = as_split_model(model)
    data = in_classes_of(as_dataset(dataset), split)
    where = resolve_device(device, split.device)
    autocast = resolve_precision(precision, where)
    with PixelCache(data, effective_preprocessing(data, split.preprocessing), device=where) as cache:
        objects = found_objects(split, data, maps, answers, cache, rule=rule, autocast=autocast)
        surround, grounds, probe = surrounds_of(split, cache.get, data.labels.to(where), objects, seed=seed)
    made = DiscoveredGroups(
        data.ids, data.labels, surround.cpu(), data.class_names, grounds, _moved(probe, torch.device("cpu")), {}
    )
    _log.info("%s", grounds.in_words)
    return made


def surrounds_of(
    model: SplitModel,
    pictures: Callable[[Tensor], Tensor],
    labels: Tensor,
    found: FoundObjects,
    *,
    seed: int = 0,
) -> tuple[Tensor, Grounds, SurroundProbe]:
    """The same from tensors.

    Args:
        model: The model that was explained.
        pictures: Gives preprocessed pictures at (n,) positions, on the device.
        labels: (N,) int64 classes, on the device.
        found: Where the objects are.
        seed: Of the folds, and of how backgrounds are laid out.

    Returns:
        (N,) int64 classes that the surrounds look like, why they are to be trusted, and what finds them elsewhere.

    Raises:
        DataError: What the model makes of some pictures is not finite, or too large to be added up.
        UnsupportedModelError: It is not for any.
    """
    count, device = model.num_classes, labels.device
    energy = len(labels) * found.surround.square().sum(dim=1, keepdim=True)  # standardising adds up no more than that
    check_finite(model, energy, "intermediate features", [f"picture number {row + 1:,}" for row in range(len(labels))])
    best, stage, chosen = -1.0, 0, torch.zeros(len(labels), count, device=device)
    for number in range(len(found.probe.channels)):
        features = found.probe.of_stage(found.surround, number)
        scores = foretold_classes(features, labels, count, penalty=_PENALTY, seed=seed)
        sure = sureness(scores, labels) if count > 1 else math.nan
        if sure > best:
            best, stage, chosen = sure, number, scores
    features = found.probe.of_stage(found.surround, stage)
    again = foretold_classes(features, labels, count, penalty=_PENALTY, seed=seed + 1).argmax(dim=1)
    with borrowed(model, device), torch.no_grad(), track("looking at backgrounds", len(labels)) as advance:
        parts = []
        for rows in torch.arange(len(labels)).split(_BATCH):
            shares = found.values[rows.to(device)]
            parts.append(_background_logits(model, pictures(rows), shares, found.probe.map_size, rows, seed))
            advance(len(rows))
    logits = torch.cat(parts)
    seen = centred(logits, labels)
    kinds, told = chosen.argmax(dim=1), seen.argmax(dim=1)
    contradict = kinds != labels
    surround = torch.where(kinds == told, kinds, labels)
    twice = torch.where(again == told, again, labels)
    either = (surround != labels) | (twice != labels)
    classes = labels.unique()
    grounds = Grounds(
        accuracy=_mean([(kinds[labels == each] == each).float().mean() for each in classes]),
        chance=1 / max(len(classes), 1),
        sureness=best if best >= 0 else math.nan,
        agreement=float((told == kinds)[contradict].float().mean()) if bool(contradict.any()) else math.nan,
        stability=float((surround == twice)[either].float().mean()) if bool(either.any()) else math.nan,
        unusual=int((surround != labels).sum()),
    )
    # On the scale that `of_stage` gives, so that other pictures need not be standardised by themselves.
    mean, spread = features.mean(dim=0), features.std(dim=0) + 1e-6
    weights = 1 / torch.bincount(labels, minlength=count).clamp_min(1)[labels]
    fitted = fit_softmax((features - mean) / spread, labels, weights, _PENALTY, count)
    slopes = fitted[:-1] / spread[:, None]
    coefficients = torch.cat([slopes, (fitted[-1] - mean @ slopes)[None]])
    centre = (logits - seen)[0]
    return surround, grounds, SurroundProbe(found.probe, stage, coefficients, centre, seed)


def _background_logits(
    model: SplitModel, images: Tensor, shares: Tensor, map_size: tuple[int, int], rows: Tensor, seed: int
) -> Tensor:
    """What the model makes of pictures of which the background alone is left, laid out anew by seed and position."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + int(rows[0]) if len(rows) else seed)
    found: Tensor = model(background_tiles(images, shares, map_size, generator))
    return found.float()


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else math.nan


def _moved(probe: SurroundProbe, device: torch.device) -> SurroundProbe:
    def moved(values: Any) -> dict[str, Any]:
        kept = {each.name: getattr(values, each.name) for each in fields(values)}
        return {name: each.to(device) for name, each in kept.items() if isinstance(each, Tensor)}

    return replace(probe, **moved(probe), objects=replace(probe.objects, **moved(probe.objects)))
