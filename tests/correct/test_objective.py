from __future__ import annotations

import pytest
import torch
from helpers_correction import half_and_half, noise_pictures, random_maps, split_model
from PIL import Image

from crayon_sdk.correct.erm import ERMSettings
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import FeatureFeed, Objective, PixelFeed, Prediction
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache

NEEDS = frozenset({"answers", "maps", "groups", "masks", "holdout"})


class Looking(Prediction):
    def forward(self, batch):
        type(self).seen.append(batch)
        return super().forward(batch)


@method
class Look(Method[ERMSettings], ERMSettings):
    method, needs = "look", NEEDS

    def objective(self, model, feed, settings):
        Looking.seen = []
        return Looking(model, feed.labels)


def with_masks():
    plain = noise_pictures(8)
    masks = [Image.new("L", (64, 64), 255) for position in range(8)]
    for position in range(8):
        if position % 3:
            masks[position].paste(0, (0, 0, 64, 32))
    return ImageDataset.from_torch(
        [(plain.row(position, None), int(plain.labels[position])) for position in range(8)],
        class_names=["a", "b"],
        ids=plain.ids,
        groups={"place": [values[0] for values in plain.groups]},
        masks=masks,
        preprocessed=True,
        preprocessing=plain.preprocessing,
    )


def test_batches_hold_what_the_method_needs():
    dataset = with_masks()
    maps, answers = random_maps(dataset), half_and_half(dataset)
    look = Look(split_model(), epochs=1, batch_size=4, device="cpu")
    found = look.fit(dataset, noise_pictures(4, seed=1), maps=maps, answers=answers)
    assert found.record.counts == {
        "relevant": 2, "irrelevant": 2, "mixed": 2, "unanswered": 2, "without_evidence": 0, "dropped_answers": 0,
        "masks": 5,  # those that are not all of their picture
    }  # fmt: skip
    assert (found.record.maps, found.record.answers) == (maps.fingerprint, answers.fingerprint)
    rows = torch.cat([batch.rows for batch in Looking.seen])
    assert sorted(rows.tolist()) == list(range(8))
    assert torch.equal(torch.cat([batch.groups for batch in Looking.seen]), dataset.group_index()[0][rows])
    assert torch.cat([batch.masks for batch in Looking.seen]).all((1, 2)).tolist() == [
        row % 3 == 0 for row in rows.tolist()
    ]
    words = {row: (answers.image_relevance("unanimous").get(dataset.ids[row])) for row in range(8)}
    for batch in Looking.seen:
        for row, yes, no, reference in zip(
            batch.rows.tolist(), batch.relevant, batch.irrelevant, batch.reference, strict=True
        ):
            assert (bool(yes), bool(no)) == (words[row] == "relevant", words[row] == "irrelevant")
            torch.testing.assert_close(reference, maps.values[row] if yes or no else torch.ones(2, 2))


def test_feeds_give_the_rows_that_are_asked_for():
    dataset = noise_pictures(6)
    with PixelCache(dataset, dataset.preprocessing) as cache:
        feed = PixelFeed(cache, dataset.labels)
        batch = feed.batch(torch.tensor([4, 1]))
        assert len(feed) == 6
        assert torch.equal(batch.images[1], dataset.row(1, None))
        assert (batch.labels.tolist(), batch.groups, batch.relevant) == ([0, 1], None, None)
    table = FeatureFeed([torch.arange(6.0)[:, None]], dataset.labels)
    assert table.batch(torch.tensor([4, 1])).features[0].tolist() == [[4.0], [1.0]]


def test_an_objective_has_only_the_model_as_its_result():
    model = split_model()
    objective = Prediction(model, torch.tensor([0, 0, 0, 1]), logit_adjustment=1.0)
    assert objective.offsets.exp().tolist() == pytest.approx([0.75, 0.25])
    assert {name.removeprefix("model.") for name in objective.state_dict()} == set(model.state_dict())
    assert [id(each) for each in objective.parameters()] == [id(each) for each in model.parameters()]
    order = Objective(model).epoch(2, 5, count=9)
    assert sorted(order.tolist()) == list(range(9))
    assert torch.equal(order, Objective(model).epoch(2, 5, count=9))


def test_a_result_that_is_not_finite_is_told():
    dataset, model = noise_pictures(4), split_model()
    objective = Prediction(model, dataset.labels)
    with PixelCache(dataset, dataset.preprocessing) as cache:
        feed = PixelFeed(cache, dataset.labels)
        assert objective.broken(feed) == ""
        with torch.no_grad():
            model.final_layers[0].bias.fill_(torch.inf)
        assert objective.broken(feed) == "the logits of training pictures are not finite"
