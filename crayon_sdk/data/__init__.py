"""Pictures: data sets, samples, where they come from, tables, preprocessing, pixels.

Nothing that needs a model. `classes` is apart from `dataset`, as it is where data and model meet; `torch_items` and
`hf_items` are one library of other people each. Both of `sources` and `torch_items` are tested in ``test_dataset``.
`shards` reads tar files where they lie, `row_groups` Parquet files, `on_hub` knows where those of the Hub are; all are
tested in ``test_shards``.

Pictures are listed without torch, which takes longer to load than they take to list: but for `torch_items` and `pixels`
it is imported where a tensor is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.data.dataset import ImageDataset, SkippedSample
    from crayon_sdk.data.preprocessing import Preprocessing

__all__ = ["ImageDataset", "Preprocessing", "SkippedSample"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "ImageDataset": "dataset",
        "Preprocessing": "preprocessing",
        "SkippedSample": "dataset",
    },
)
