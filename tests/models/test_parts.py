"""Where the grid lies in features, and what stands at the end of a model."""

from __future__ import annotations

import pytest
import torch

from crayon_sdk.models.parts import from_grid, grid_of, layout_of, to_grid, tokens_are_in_order


@pytest.mark.parametrize("size", [(224, 224), (160, 320), (320, 160)])
@pytest.mark.parametrize("channels", [3, 24, 2048])
def test_the_grid_is_found_and_the_way_back(size, channels):
    height, width = size[0] // 32, size[1] // 32
    grid = torch.rand(2, channels, height, width)
    for layout, features in (
        ("NCHW", grid),
        ("NHWC", grid.permute(0, 2, 3, 1)),
        ("NLC", grid.flatten(2).transpose(1, 2)),
    ):
        assert layout_of(features, size) == (layout, (height, width))
        assert torch.equal(to_grid(features, layout, size), grid)
        assert torch.equal(from_grid(grid, layout), features)


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(1, 8),
        torch.zeros(1, 50, 8),  # a class token and 7 x 7
        torch.zeros(1, 8, 1, 1),
        torch.zeros(1, 8, 49, 1),
        torch.zeros(1, 1, 8),
        [torch.zeros(1, 8, 7, 7)],
        None,
    ],
)
def test_no_grid(features):
    assert layout_of(features, (224, 224)) is None


def test_tokens_that_cover_nothing():
    assert grid_of(48, (224, 224)) == (6, 8) or grid_of(48, (224, 224)) is None
    assert grid_of(47, (224, 224)) is None
    with pytest.raises(RuntimeError, match="47 tokens do not cover pictures of 224x224 evenly"):
        to_grid(torch.zeros(1, 47, 3), "NLC", (224, 224))


def test_order_of_tokens():
    before, after = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    after[0, :, 0, 3] = 1
    assert tokens_are_in_order(before, after, (0, 3))
    assert tokens_are_in_order(before, after, (1, 2))
    assert not tokens_are_in_order(before, after, (0, 0))
    assert not tokens_are_in_order(before, after * torch.nan, (0, 3))
    assert tokens_are_in_order(before, torch.ones(1, 3, 4, 4), (0, 3))  # all alike: nothing against it
