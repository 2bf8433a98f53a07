"""What people said: records, sets of them, relevance and agreement, rules for crowds, files and the Hub.

No torch, no pictures: facts as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.answers.annotations import AnnotationSet
    from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer

__all__ = ["AnnotationSet", "ImageAnswer", "NeuronAnswer"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "AnnotationSet": "annotations",
        "ImageAnswer": "records",
        "NeuronAnswer": "records",
    },
)
