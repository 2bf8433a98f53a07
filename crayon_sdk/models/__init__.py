"""Classifiers: split into trunk and head, loaded, rebuilt, proven to load back, exported; passes over data.

Nothing that changes a model: that is `crayon_sdk.correct`. The Hub's side of `load` is tested in ``test_hub_loading``,
`split` over many architectures in ``test_timm_families``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.models.load import load_model
    from crayon_sdk.models.rebuild import to_timm
    from crayon_sdk.models.split import SplitModel, as_split_model, borrowed

__all__ = ["SplitModel", "as_split_model", "borrowed", "load_model", "to_timm"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "SplitModel": "split",
        "as_split_model": "split",
        "borrowed": "split",
        "load_model": "load",
        "to_timm": "rebuild",
    },
)
