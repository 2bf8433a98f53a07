"""The answers that the authors of the method published, about the pictures and neurons of their models."""

from __future__ import annotations

from pathlib import Path

from crayon_sdk._base.files import StrPath
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.formats import from_published
from crayon_sdk.errors import DataError, FileFormatError, MismatchError
from crayon_sdk.paper.datasets.about import PaperData

__all__ = ["published_answers"]

_FILES = {"waterbirds": "waterbirds", "biased-celeba": "biased_celeba", "backgrounds": "background"}


def published_answers(data: PaperData, folder: StrPath) -> AnnotationSet:
    """Attach the published answers to a data set of the paper: about all training pictures, and all neurons.

    Answers about pictures go by position: the data set must be whole, and in its own order. Verdicts about neurons are
    of the published models alone, and those about maps too; with another model they are answers of a transfer.

    Args:
        data: What a reader of this package gave.
        folder: The folder ``annotation`` of the published code, with ``waterbirds_gradcam.json`` and its like.

    Returns:
        Two answers per picture, one per neuron.

    Raises:
        DataError: The training pictures were drawn, so that nobody was asked about them.
        FileFormatError: A file is not there, or no such list.
        MismatchError: The data set is not whole.

    Example:
        >>> from crayon_sdk.paper.datasets import ABOUT
        >>> sorted(ABOUT)
        ['backgrounds', 'biased-celeba', 'waterbirds']
    """
    name = _FILES[data.about.name]
    pictures, neurons = (Path(folder) / f"{name}_{kind}.json" for kind in ("gradcam", "neuron"))
    for file in (pictures, neurons):
        if not file.is_file():
            raise FileFormatError(
                f"no published answers at {str(file)!r}; they are in the folder annotation of "
                "https://github.com/poloclub/crayon"
            )
    if data.drawn:
        raise DataError(
            "expected the published training pictures, to which the published answers belong, got a draw of one's own; "
            "read the data set with the published list of names instead of seed="
        )
    if len(data.train) != data.about.count("train"):
        raise MismatchError(
            f"expected all {data.about.count('train'):,} training pictures of {data.about.title}, in whose order the "
            f"published answers are, got {len(data.train):,}"
        )
    return from_published(pictures, data.train.ids).merge(from_published(neurons))
