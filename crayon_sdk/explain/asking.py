"""What is asked next, and in what words: what has too few answers, which of it first, and the question itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from string import Formatter
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk._base.text import first_few
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import ImageAnswer
from crayon_sdk.answers.relevance import Kind, check_kind
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import Workers
from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps, as_maps, readable
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional.selection import k_centre, surprise, typical
from crayon_sdk.models.passes import stream_features
from crayon_sdk.models.split import SplitModel, borrowed

__all__ = [
    "Asked",
    "Method",
    "Outlook",
    "Question",
    "checked_words",
    "how_far",
    "look",
    "open_questions",
    "question_words",
    "suggest",
    "suggest_spots",
]

Method = Literal["random", "coverage", "uncertain", "typical"]
"""In which order pictures are asked about."""

_EVERYTHING = 2**31
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
        highlights: (N, C) float32, mean of the trunk's features over the highlight of the map (half its maximum and
            more), every channel standardised.
    """

    neurons: Tensor
    surprise: Tensor
    highlights: Tensor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: It cannot be written.
        """
        write_tensors(path, {"neurons": self.neurons, "surprise": self.surprise, "highlights": self.highlights})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Outlook:
        """Read what `save` wrote.

        Raises:
            FileFormatError: The file is truncated, or holds something else.
        """
        tensors, _ = read_tensors(path)
        with readable(path):
            return cls(tensors["neurons"], tensors["surprise"], tensors["highlights"])


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
    neurons, doubts, highlights = [], [], []
    with borrowed(model, device), torch.no_grad():
        stream = stream_features(
            model,
            dataset,
            device=device,
            autocast=autocast,
            batch_size=batch_size,
            num_workers=num_workers,
            order=order,
            doing="looking",
        )
        parts = zip(maps.targets.split(batch_size), maps.values.split(batch_size), strict=True)
        for (targets, values), (_, features) in zip(parts, stream, strict=True):
            neurons.append(F.normalize(model.penultimate(features).float(), dim=1).cpu())
            doubts.append(surprise(model.head(features).float().cpu(), targets))
            shown = (values * (values >= 0.5 * values.amax(dim=(1, 2), keepdim=True))).to(features.device)
            highlighted = torch.einsum("nchw,nhw->nc", features.float(), shown)
            highlights.append((highlighted / shown.sum(dim=(1, 2))[:, None].clamp(min=1e-12)).cpu())
    shows = torch.cat(highlights)
    shows = (shows - shows.mean(dim=0)) / (shows.std(dim=0, correction=0) + 1e-6)
    return Outlook(torch.cat(neurons), torch.cat(doubts), shows)


def suggest(
    maps: SaliencyMaps | NeuronPatches,
    answers: AnnotationSet,
    outlook: Callable[[], Outlook],
    *,
    count: int = 20,
    votes: int = 1,
    seed: int = 0,
    method: Method = "random",
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
            "typical": the most typical picture of every cluster of what is highlighted, of the largest cluster first
            ([`typical`][crayon_sdk.functional.selection.typical]); as many clusters as
            questions, a hundred at most, and what is beyond them at random.

    Returns:
        Questions in the order to ask them. With more votes the same call gives the same order, so that the
        next person starts with the pictures that the first one had.

    Raises:
        SettingsError: A setting is out of range, or patches are to be chosen by anything but chance.
    """
    if method not in get_args(Method):
        raise SettingsError(f"expected method to be one of {', '.join(get_args(Method))}, got {method!r}")
    if method == "random":
        return open_questions(maps, answers, count=count, votes=votes, seed=seed)
    if not isinstance(maps, SaliencyMaps):
        raise SettingsError(f"method={method!r} chooses pictures; patches of neurons are asked about at random")
    if count < 1:
        raise SettingsError(f"expected count >= 1, got {count}")
    asked = open_questions(maps, answers, count=_EVERYTHING, votes=votes, seed=seed)
    if not asked:
        return ()
    seen, row_of = outlook(), {sample: row for row, sample in enumerate(maps.ids)}
    rows = torch.tensor([row_of[question.id] for question in asked])
    if method == "uncertain":
        order = seen.surprise[rows].argsort(descending=True, stable=True)
    elif method == "typical":
        order = _typical(seen.highlights, rows, maps.evidence, count, seed)
    else:
        done = maps.evidence.clone()
        done[rows] = False  # the rest has its answers
        order = k_centre(seen.neurons[rows], seen.neurons[done], count=min(count, len(rows)))
    return tuple(asked[position] for position in order[:count].tolist())


def suggest_spots(
    maps: SaliencyMaps,
    answers: AnnotationSet,
    outlook: Callable[[], Outlook],
    *,
    count: int = 20,
    votes: int = 1,
    seed: int = 0,
    method: Method = "random",
) -> tuple[Question, ...]:
    """Choose the brightest spots to ask about next: those of the pictures that `suggest` would choose.

    Args:
        maps: Maps whose spots are asked about; maps without evidence are left out.
        answers: What was answered; only what was answered about spots counts.
        outlook: As for `suggest`, and so are the others.
        count: How many questions at most, at least 1.
        votes: How many people are to answer each, at least 1.
        seed: Of the random order.
        method: In which order.

    Returns:
        Questions in the order to ask them.

    Raises:
        SettingsError: A setting is out of range.

    Example:
        >>> maps = SaliencyMaps(("a", "b"), torch.ones(2, 1, 1), torch.tensor([0, 0]))
        >>> said = AnnotationSet.from_dict({"a": "yes"}, annotator="ann", kind="spot")
        >>> [(question.kind, question.id) for question in suggest_spots(as_maps(maps), said, Outlook)]
        [('spot', 'b')]
    """
    # To `suggest`, which orders pictures, an answer about a spot is one about its picture.
    given = AnnotationSet(ImageAnswer(**each.model_dump(exclude={"kind"})) for each in answers.only("spot"))
    asked = suggest(as_maps(maps), given, outlook, count=count, votes=votes, seed=seed, method=method)
    return tuple(replace(question, kind="spot") for question in asked)


def _typical(highlights: Tensor, rows: Tensor, shown: Tensor, count: int, seed: int) -> Tensor:
    """Positions among the open questions at ``rows``: typical ones of clusters nobody was asked about, then others."""
    places = torch.full((len(highlights),), -1, dtype=torch.int64)
    places[rows] = torch.arange(len(rows))
    known = shown.nonzero().flatten()
    done = known[places[known] < 0]
    chosen, stands = typical(highlights[known], min(count, _CLUSTERS) + len(done), seed=seed)
    covered = set(stands[places[known] < 0].tolist())
    fresh = [int(places[known[each]]) for cluster, each in enumerate(chosen.tolist()) if cluster not in covered]
    left = sorted(set(range(len(rows))) - set(fresh))
    return torch.tensor([*fresh, *left], dtype=torch.int64)
