"""The data sets of the paper, read as they are published: a file for each, and `about`: where to get them.

Nothing here downloads anything; `paper.fetch` does, when it is asked to. No torch is loaded to read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.paper.datasets.about import ABOUT, About, PaperData
    from crayon_sdk.paper.datasets.answers import published_answers
    from crayon_sdk.paper.datasets.backgrounds import read_backgrounds
    from crayon_sdk.paper.datasets.biased_celeba import read_biased_celeba
    from crayon_sdk.paper.datasets.waterbirds import read_waterbirds

__all__ = [
    "ABOUT",
    "About",
    "PaperData",
    "published_answers",
    "read_backgrounds",
    "read_biased_celeba",
    "read_waterbirds",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "ABOUT": "about",
        "About": "about",
        "PaperData": "about",
        "published_answers": "answers",
        "read_backgrounds": "backgrounds",
        "read_biased_celeba": "biased_celeba",
        "read_waterbirds": "waterbirds",
    },
)
