"""What is asked next, and in what words: what has too few answers, which of it first, and the question itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from string import Formatter
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk._base.text import first_few
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.relevance import Kind, check_kind
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import Workers
from crayon_sdk.errors import MismatchError, SettingsError, UnsupportedModelError
from crayon_sdk.explain.maps import SaliencyMaps, readable
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional.cells import FINER, cells_on_grid
from crayon_sdk.functional.saliency import brightest_spot
from crayon_sdk.functional.selection import foretell, k_centre, surprise, typical, would_change
from crayon_sdk.models.passes import check_finite, gives_intermediates, intermediate_features, stream_pictures
from crayon_sdk.models.split import SplitModel, borrowed

__all__ = [
    "Asked",
    "Foresight",
    "Method",
    "Outlook",
    "Question",
    "checked_words",
    "foresee",
    "how_far",
    "look",
    "open_questions",
    "question_words",
    "suggest",
]

Method = Literal["random", "coverage", "uncertain", "typical", "active"]
"""In which order pictures are asked about."""

_EVERYTHING = 2**31
_ENOUGH = 20  # typical ones, from which on the others can be foretold on the tasks tried
_LITTLE = 0.03  # share of the pictures that the next answer may still change when there are enough
_ALIKE = 0.9  # share of one answer, from which on the maps are right, or wrong, as a whole
_CLUSTERS = 100  # as many pictures as there are clusters would be typical of nothing but themselves
_IMAGE_QUESTION = "Is the highlight mainly on the {label}?"
_SPOT_QUESTION = "Is the bright spot on the {label}?"
_NEURON_QUESTION = "Is the red rectangle mainly on the {label}?"
_NEURONS_QUESTION = "Are the red rectangles mainly on the {label}?"


@dataclass(frozen=True)
class Question:
    """One thing to ask a person.

    Attributes:
        kind: "image", "neuron", or "spot": the brightest spot of a map.
        id: Sample id of the picture.
        votes: How many people have answered it.
        neuron: With "neuron": which one; of neurons that share a patch, the first.
        patch: With "neuron": which of its patches, 0 is the strongest.
    """

    kind: Kind
    id: str
    votes: int
    neuron: int | None = None
    patch: int | None = None


@dataclass(frozen=True)
class Asked:
    """How far people are with the questions there are.

    Attributes:
        answered: How many have an answer.
        total: How many there are.
    """

    answered: int
    total: int


def how_far(source: SaliencyMaps | NeuronPatches, answers: AnnotationSet, *, kind: Kind | None = None) -> Asked:
    """Count what is answered of what there is to ask: pictures with evidence (or their spots), or different patches.

    Args:
        source: Maps or patches.
        answers: What was answered.
        kind: "spot" counts the spots of maps; ``None`` the maps themselves, or the patches.

    Raises:
        SettingsError: An unknown kind, or one that the source does not show.

    Example:
        >>> maps = SaliencyMaps(("a", "b"), torch.ones(2, 1, 1), torch.tensor([0, 0]))
        >>> how_far(maps, AnnotationSet())
        Asked(answered=0, total=2)
    """
    asked = _questions(source, answers, kind)
    return Asked(sum(question.votes > 0 for question in asked), len(asked))


def open_questions(
    source: SaliencyMaps | NeuronPatches,
    answers: AnnotationSet,
    *,
    count: int = 20,
    votes: int = 1,
    seed: int = 0,
    kind: Kind | None = None,
) -> tuple[Question, ...]:
    """Draw pictures or patches that have fewer answers than wanted, in random order.

    Args:
        source: Maps or patches to ask about; maps without evidence are left out.
        answers: What was answered.
        count: How many questions at most, at least 1.
        votes: How many people are to answer each, at least 1.
        seed: Of the order.
        kind: "spot" asks about the brightest spots of maps; ``None`` about the maps themselves, or the patches.

    Returns:
        Questions in the order to ask them; fewer than ``count`` when fewer are open.

    Raises:
        SettingsError: ``count``, ``votes`` or ``seed`` is out of range, or the source does not show this kind.

    Example:
        >>> maps = SaliencyMaps(("a", "b"), torch.ones(2, 1, 1), torch.tensor([0, 0]))
        >>> sorted(question.id for question in open_questions(maps, AnnotationSet()))
        ['a', 'b']
    """
    if count < 1 or votes < 1 or not 0 <= seed < 2**63:
        raise SettingsError(f"expected count >= 1, votes >= 1 and seed >= 0, got {count}, {votes} and {seed}")
    asked = _questions(source, answers, kind)
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [asked[position] for position in order if asked[position].votes < votes]
    return tuple(chosen[:count])


def _questions(source: SaliencyMaps | NeuronPatches, answers: AnnotationSet, kind: Kind | None) -> list[Question]:
    """All there is to ask, in its own order: pictures with evidence, or different patches."""
    kind = _kind_of(source, kind)
    return (
        _about_pictures(source, answers, kind) if isinstance(source, SaliencyMaps) else _about_patches(source, answers)
    )


def _kind_of(source: SaliencyMaps | NeuronPatches, kind: Kind | None) -> Kind:
    """What is asked about a source."""
    own: Kind = "image" if isinstance(source, SaliencyMaps) else "neuron"
    if kind is None:
        return own
    check_kind(kind)
    if (kind == "neuron") != (own == "neuron"):
        raise SettingsError(
            f"kind={kind!r} cannot be asked about {type(source).__name__}; give maps for 'image' and 'spot', patches "
            "for 'neuron'"
        )
    return kind


def _about_pictures(maps: SaliencyMaps, answers: AnnotationSet, kind: Kind) -> list[Question]:
    people = answers.voters(kind)
    shown = zip(maps.ids, maps.evidence.tolist(), strict=True)
    return [Question(kind, sample, len(people.get(sample, ()))) for sample, evidence in shown if evidence]


def _about_patches(patches: NeuronPatches, answers: AnnotationSet) -> list[Question]:
    people = answers.voters("neuron")
    questions: dict[int, Question] = {}
    for neuron, row in enumerate(patches.neurons.tolist()):
        for rank, index in enumerate(row):
            # A shared patch is asked about once.
            if index >= 0 and index not in questions:
                sample = patches.ids[int(patches.samples[index])]
                questions[index] = Question("neuron", sample, len(people.get((neuron, rank), ())), neuron, rank)
    return list(questions.values())


def question_words(
    source: SaliencyMaps | NeuronPatches,
    question: str | None = None,
    *,
    several: bool = False,
    kind: Kind | None = None,
) -> str:
    """The words to ask in, with ``{label}`` for the class; when none are given those of the paper, which asks no spots.

    Args:
        source: What is asked about.
        question: Other words.
        several: Whether several patches are shown together.
        kind: "spot" for the spots of maps; ``None`` for the maps themselves, or the patches.

    Raises:
        SettingsError: They have another placeholder than ``{label}``, or the source does not show this kind.

    Example:
        >>> maps = SaliencyMaps(("a",), torch.ones(1, 1, 1), torch.tensor([0]))
        >>> question_words(maps).format(label="bird")
        'Is the highlight mainly on the bird?'
    """
    default = {
        "image": _IMAGE_QUESTION,
        "neuron": _NEURONS_QUESTION if several else _NEURON_QUESTION,
        "spot": _SPOT_QUESTION,
    }
    return checked_words(question or default[_kind_of(source, kind)])


def checked_words(words: str) -> str:
    """The words of a question, if nothing but ``{label}`` is to be put into them.

    Raises:
        SettingsError: They have another placeholder, or one that would run code (``{label.__class__}``).

    Example:
        >>> checked_words("Is it on the {label}?")
        'Is it on the {label}?'
    """
    try:
        words.encode()
        fields = [part[1:] for part in Formatter().parse(words) if part[1] is not None]
    except ValueError as error:  # braces that do not match; UnicodeError is one, too
        raise SettingsError(f"expected a question with {{label}} at most, got {words!r}: {error}") from error
    other = next((field for field in fields if field != ("label", "", None)), None)
    if other is not None:
        raise SettingsError(
            f"expected a question with {{label}} at most, got {words!r}; {{label}} stands for the name of the class, "
            "and a brace that is meant as one is written twice"
        )
    return words


@dataclass(frozen=True)
class Outlook:
    """What a model makes of the pictures of some maps, in their order.

    Attributes:
        neurons: (N, D) float32, inputs of the final classifier (pooled trunk features), each of length one.
        surprise: (N,) float32, ``-log p`` of the class that the map is for.
        spots: (N, C) float32, mean of the middle feature maps over the brightest spot of the map
            ([`brightest_spot`][crayon_sdk.functional.saliency.brightest_spot]), every channel standardised; of the last
            ones where the model gives no others.
    """

    neurons: Tensor
    surprise: Tensor
    spots: Tensor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: It cannot be written.
        """
        write_tensors(path, {"neurons": self.neurons, "surprise": self.surprise, "spots": self.spots})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Outlook:
        """Read what `save` wrote.

        Raises:
            FileFormatError: The file is truncated, or holds something else.
        """
        tensors, _ = read_tensors(path)
        with readable(path):
            return cls(tensors["neurons"], tensors["surprise"], tensors["spots"])


def look(
    model: SplitModel,
    dataset: ImageDataset,
    maps: SaliencyMaps,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
    batch_size: int = 64,
    num_workers: Workers = "auto",
) -> Outlook:
    """Run a model once over the pictures of maps.

    Args:
        model: The model that was explained.
        dataset: Has the pictures.
        maps: Which pictures, and for which class of each.
        device: Where to compute.
        autocast: Reduced precision of the trunk.
        batch_size: Pictures at a time.
        num_workers: Processes that decode.

    Raises:
        MismatchError: The maps are of another model, of other pictures, or for other classes.
    """
    if maps.model and maps.model != model.fingerprint:
        raise MismatchError(
            f"the maps are of another model ({maps.model[:12]}) than this one ({model.fingerprint[:12]}); "
            "choose with the model that was explained, or at random"
        )
    known = {sample: position for position, sample in enumerate(as_dataset(dataset).ids)}
    missing = [sample for sample in maps.ids if sample not in known]
    if missing:
        raise MismatchError(
            f"the data set lacks {len(missing)} of {len(maps)} pictures that there are maps of "
            f"({first_few(missing)}); give the one that was explained"
        )
    if len(maps) and int(maps.targets.max()) >= model.num_classes:
        raise MismatchError(
            f"the maps are for classes up to {int(maps.targets.max())}, and the model has {model.num_classes}; "
            "choose with the model that was explained, or at random"
        )
    order = [known[sample] for sample in maps.ids]
    neurons, doubts, spots = [], [], []
    with borrowed(model, device), torch.no_grad():
        stream = stream_pictures(
            model, dataset, device=device, batch_size=batch_size, num_workers=num_workers, order=order
        )
        parts = zip(maps.targets.split(batch_size), maps.values.split(batch_size), strict=True)
        for (targets, values), (rows, images) in zip(parts, stream, strict=True):
            features = model.features(images, autocast=autocast)
            check_finite(model, features, "features", [dataset.ids[row] for row in rows.tolist()])
            neurons.append(F.normalize(model.penultimate(features).float(), dim=1).cpu())
            doubts.append(surprise(model.head(features).float().cpu(), targets))
            spots.append(_at_spots(model, images, features, values, autocast))
    shows = torch.cat(spots)
    shows = (shows - shows.mean(dim=0)) / (shows.std(dim=0, correction=0) + 1e-6)
    return Outlook(torch.cat(neurons), torch.cat(doubts), shows)


def _at_spots(
    model: SplitModel, images: Tensor, features: Tensor, maps: Tensor, autocast: torch.dtype | None
) -> Tensor:
    """(n, C) on the CPU: what the model makes of the brightest spot of every map, halfway up."""
    found = [features.float()]
    if gives_intermediates(model):
        with contextlib.suppress(UnsupportedModelError):  # has none that are fine enough
            found = intermediate_features(model, images, (int(maps.shape[1]), int(maps.shape[2])), autocast)
    cells = cells_on_grid(found, (FINER * int(maps.shape[1]), FINER * int(maps.shape[2])))
    spot = brightest_spot(maps, (int(cells.shape[2]), int(cells.shape[3]))).to(cells.device)
    return (torch.einsum("nchw,nhw->nc", cells, spot) / spot.sum(dim=(1, 2))[:, None].clamp(min=1e-12)).cpu()


def suggest(
    maps: SaliencyMaps | NeuronPatches,
    answers: AnnotationSet,
    outlook: Callable[[], Outlook],
    *,
    count: int = 20,
    votes: int = 1,
    seed: int = 0,
    method: Method = "random",
    kind: Kind | None = None,
) -> tuple[Question, ...]:
    """Choose what to ask next.

    Args:
        maps: Maps, or patches, to ask about; maps without evidence are left out.
        answers: What was answered.
        outlook: Gives what the model makes of the pictures of the maps; not called for "random".
        count: How many questions at most, at least 1.
        votes: How many people are to answer each, at least 1.
        seed: Of the random order, which the other methods start from and break ties with.
        method: "random"; "coverage": the picture whose neurons differ most from all that were asked about
            before ([`k_centre`][crayon_sdk.functional.selection.k_centre]); "uncertain": the picture
            whose class the model expected least ([`surprise`][crayon_sdk.functional.selection.surprise]); or
            "typical": the most typical picture of every cluster of what the brightest spots show, of the largest first
            ([`typical`][crayon_sdk.functional.selection.typical]); as many clusters as
            questions, a hundred at most, and what is beyond them at random; or "active": typical ones until twenty are
            answered, then those first whose answer can be foretold least from the others
            ([`foretell`][crayon_sdk.functional.selection.foretell]).
        kind: "spot" asks about the brightest spots of maps; ``None`` about the maps themselves, or the patches.

    Returns:
        Questions in the order to ask them. With more votes the same call gives the same order, so that the
        next person starts with the pictures that the first one had.

    Raises:
        SettingsError: A setting is out of range, or patches are to be chosen by anything but chance.
    """
    if method not in get_args(Method):
        raise SettingsError(f"expected method to be one of {', '.join(get_args(Method))}, got {method!r}")
    if method == "random":
        return open_questions(maps, answers, count=count, votes=votes, seed=seed, kind=kind)
    if not isinstance(maps, SaliencyMaps):
        raise SettingsError(f"method={method!r} chooses pictures; patches of neurons are asked about at random")
    if count < 1:
        raise SettingsError(f"expected count >= 1, got {count}")
    asked = open_questions(maps, answers, count=_EVERYTHING, votes=votes, seed=seed, kind=kind)
    if not asked:
        return ()
    seen, row_of = outlook(), {sample: row for row, sample in enumerate(maps.ids)}
    rows = torch.tensor([row_of[question.id] for question in asked])
    if method == "uncertain":
        order = seen.surprise[rows].argsort(descending=True, stable=True)
    elif method == "typical":
        order = _typical(seen.spots, rows, maps.evidence, count, seed)
    elif method == "active":
        order = _active(seen.spots, rows, maps, _said(maps, answers, _kind_of(maps, kind)), seed)
    else:
        done = maps.evidence.clone()
        done[rows] = False  # the rest has its answers
        order = k_centre(seen.neurons[rows], seen.neurons[done], count=min(count, len(rows)))
    return tuple(asked[position] for position in order[:count].tolist())


def _typical(spots: Tensor, rows: Tensor, shown: Tensor, count: int, seed: int) -> Tensor:
    """Positions among the open questions at ``rows``: typical ones of clusters nobody was asked about, then others."""
    places = torch.full((len(spots),), -1, dtype=torch.int64)
    places[rows] = torch.arange(len(rows))
    known = shown.nonzero().flatten()
    done = known[places[known] < 0]
    chosen, stands = typical(spots[known], min(count, _CLUSTERS) + len(done), seed=seed)
    covered = set(stands[places[known] < 0].tolist())
    fresh = [int(places[known[each]]) for cluster, each in enumerate(chosen.tolist()) if cluster not in covered]
    left = sorted(set(range(len(rows))) - set(fresh))
    return torch.tensor([*fresh, *left], dtype=torch.int64)


def _said(maps: SaliencyMaps, answers: AnnotationSet, kind: Kind) -> tuple[Tensor, Tensor]:
    """Positions of the maps with a clear answer, (A,) int64, and whether it is a yes, (A,) bool."""
    given = answers.spot_relevance("majority") if kind == "spot" else answers.image_relevance("majority")
    known = {"relevant": True, "irrelevant": False}
    found = [
        (row, known[given[sample]])
        for row, (sample, shown) in enumerate(zip(maps.ids, maps.evidence.tolist(), strict=True))
        if shown and given.get(sample) in known
    ]
    rows, yes = torch.tensor(found, dtype=torch.int64).view(-1, 2).unbind(dim=1)
    return rows, yes.bool()


def _chooses(yes: int, no: int) -> bool:
    """Whether so many answers say which question is next: there are enough, and they are not all the same."""
    return yes + no >= _ENOUGH and min(yes, no) > 0


def _active(spots: Tensor, rows: Tensor, maps: SaliencyMaps, said: tuple[Tensor, Tensor], seed: int) -> Tensor:
    """Positions among the open questions at ``rows``: typical ones until there are enough, then the least certain."""
    done, yes = said
    if not _chooses(int(yes.sum()), int((~yes).sum())):
        return _typical(spots, rows, maps.evidence, _ENOUGH, seed)
    return foretell(spots, done, yes)[rows].abs().argsort(stable=True)


@dataclass(frozen=True)
class Foresight:
    """What can be foretold from the answers so far, and whether there are enough.

    Attributes:
        yes: How many say yes.
        no: How many say no.
        foretold: Share of all pictures that are foretold to get a yes, in [0, 1].
        change: Share of all pictures that would be foretold otherwise after a yes than after a no to the question
            that says most, in [0, 1].
    """

    yes: int
    no: int
    foretold: float
    change: float

    @property
    def alike(self) -> bool:
        """Whether the answers are the same but for a few, so that the maps are right, or wrong, as a whole."""
        total = self.yes + self.no
        return total >= _ENOUGH and max(self.yes, self.no) >= _ALIKE * total

    @property
    def enough(self) -> bool:
        """Whether nobody needs to be asked further: answers would change little, or are nearly all the same."""
        return self.alike or (self.yes + self.no >= _ENOUGH and self.change <= _LITTLE)

    @property
    def chooses(self) -> bool:
        """Whether the order "active" goes by what is foretold; before that it asks about what is typical."""
        return _chooses(self.yes, self.no)

    @property
    def in_words(self) -> str:
        """One sentence for people."""
        total = self.yes + self.no
        if not total:
            return f"nothing is answered yet; {_ENOUGH} typical ones are a good start"
        if total < _ENOUGH:
            return f"{total} of {_ENOUGH} typical ones are answered"
        if self.alike:
            same, maps = (self.yes, "right") if self.yes > self.no else (self.no, "wrong")
            said = "yes" if self.yes > self.no else "no"
            return f"{same} of {total} are {said}: the maps are {maps}, and nobody needs to be asked further"
        if self.enough:
            return (
                f"enough: {100 * self.foretold:.0f} % of the pictures are foretold to get a yes, and the next answer "
                f"would change {100 * self.change:.1f} % of them"
            )
        return f"the next answer may change {100 * self.change:.0f} % of the pictures: go on"


def foresee(maps: SaliencyMaps, answers: AnnotationSet, outlook: Outlook, *, kind: Kind | None = None) -> Foresight:
    """Foretell the answers that were not given from those that were; takes milliseconds.

    Args:
        maps: The maps that are asked about.
        answers: What was answered.
        outlook: What the model makes of their pictures.
        kind: "spot" is about the brightest spots of maps; ``None`` about the maps themselves.

    Raises:
        SettingsError: An unknown kind, or "neuron".
    """
    rows, yes = _said(maps, answers, _kind_of(maps, kind))
    shown = maps.evidence.nonzero().flatten()
    certain = foretell(outlook.spots, rows, yes)
    unasked = maps.evidence.clone()
    unasked[rows] = False
    left = unasked.nonzero().flatten()
    change = 0.0
    if len(left) and len(rows):
        least = int(left[certain[left].abs().argmin()])
        change = would_change(outlook.spots, rows, yes, least)
    likely = float((certain[shown] > 0).float().mean()) if len(shown) else 0.0
    return Foresight(int(yes.sum()), int((~yes).sum()), likely, change)
