"""What people said: records, sets of them, relevance and agreement, rules for crowds, files and the Hub.

No torch, no pictures: facts as text. Four modules about the same answers, for they have nothing in common: `lines` are
bytes of a file that survive a crash, `table` holds a million in memory, `formats` is the door for files of every kind,
`tools` the rows of other tools behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.answers.annotations import AnnotationSet
    from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer

__all__ = ["AnnotationSet", "ImageAnswer", "NeuronAnswer", "SpotAnswer"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "AnnotationSet": "annotations",
        "ImageAnswer": "records",
        "NeuronAnswer": "records",
        "SpotAnswer": "records",
    },
)
