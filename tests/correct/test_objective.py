from __future__ import annotations

import pytest
import torch
from helpers_correction import half_and_half, image_answers, noise_pictures, random_maps, split_model
from PIL import Image

from crayon_sdk._base.methods import methods
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.erm import ERMSettings
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, FeatureFeed, Objective, PixelFeed, Prediction
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import SettingsError

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


def spotted(count=6, side=64):
    """A bright square in each picture, and a mask and a map that are bright just there."""
    images = torch.zeros(count, 3, side, side)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for row in range(count):
        top, left = 8 * (row % 5), 8 * (row * 3 % 6)
        images[row, :, top : top + 16, left : left + 16] = 1.0
        masks[row, top : top + 16, left : left + 16] = True
    maps = torch.nn.functional.avg_pool2d(masks.float(), 8)
    flags = torch.ones(count, dtype=torch.bool)
    rows = torch.arange(count)
    return Batch(
        rows=rows, positions=rows, labels=rows % 2, images=images, masks=masks, reference=maps, relevant=flags,
        irrelevant=~flags,
    )  # fmt: skip


def test_pictures_masks_and_maps_are_augmented_together():
    batch = spotted()
    torch.manual_seed(0)
    for _ in range(20):
        found = batch.augmented(mirror=0.5, least_area=0.3)
        bright = found.images[:, 0] > 0.5
        gone = ~bright.flatten(1).any(dim=1)
        assert found.masks[gone].all()  # of these the object is not known any more
        assert torch.equal(found.masks[~gone], bright[~gone])
        assert not found.relevant[gone].any()
        guided = found.relevant
        assert bool(guided.any())
        torch.testing.assert_close(found.reference[guided].amax(dim=(1, 2)), torch.ones(int(guided.sum())))
        assert torch.equal(found.reference[~guided], torch.ones(int((~guided).sum()), 8, 8))
        # The brightest cell of a map is bright in the picture, and what is dark there is dark in the map.
        cells = torch.nn.functional.avg_pool2d(found.images[:, 0], 8)[guided].flatten(1)
        maps = found.reference[guided].flatten(1)
        assert cells.gather(1, maps.argmax(dim=1, keepdim=True)).min() > 0.4
        assert maps[torch.nn.functional.max_pool2d(cells.view(-1, 8, 8), 3, 1, 1).flatten(1) == 0].max() < 0.05
        torch.testing.assert_close(found.seen(batch.images), found.images)
    assert torch.equal(batch.images, spotted().images)


def test_nothing_moves_where_all_is_shown():
    batch = spotted()
    found = batch.augmented(mirror=0.0, least_area=1.0)
    torch.testing.assert_close(found.images, batch.images, rtol=0, atol=1e-5)
    assert torch.equal(found.masks, batch.masks)
    assert torch.equal(found.relevant, batch.relevant)
    mirrored = batch.augmented(mirror=1.0, least_area=1.0)
    torch.testing.assert_close(mirrored.images, batch.images.flip(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(mirrored.reference, batch.reference.flip(2), rtol=0, atol=1e-5)
    assert batch.seen(batch.images) is batch.images


AUGMENTED = {"mirror": 0.5, "crop_area": 0.4}


@pytest.mark.parametrize("spread", ["auto", "never"])
def test_augmented_training_is_repeatable_goes_on_and_does_not_depend_on_parts(spread, tmp_path, monkeypatch):
    dataset = noise_pictures(12)
    said = image_answers({sample: ("yes", "no")[row % 3 == 2] for row, sample in enumerate(dataset.ids[:9])})

    def fit(**more):
        plain = {"epochs": 2, "batch_size": 6, "batch_norm": "frozen", "device": "cpu", "spread": spread}
        corrector = AttentionCorrector(split_model(), **plain | AUGMENTED | more)
        return corrector.fit(dataset, random_maps(dataset), said)

    first = fit()
    assert first.record.settings["crop_area"] == 0.4
    assert fit(mirror=0.0, crop_area=1.0).record.corrected != first.record.corrected != fit(seed=1).record.corrected
    in_parts = fit(accumulate=3)
    for name, tensor in in_parts.model.plain_state_dict().items():
        torch.testing.assert_close(tensor, first.model.plain_state_dict()[name], rtol=1e-3, atol=1e-4)
    real, steps = torch.optim.Adam.step, []

    def step(self):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        with pytest.raises(KeyboardInterrupt):
            fit(checkpoint_dir=tmp_path)
    again = fit(checkpoint_dir=tmp_path)
    assert again.record.corrected == first.record.corrected
    assert [entry["loss"] for entry in again.history] == [entry["loss"] for entry in first.history]


def test_a_method_that_draws_pictures_of_its_own_is_not_augmented():
    with pytest.raises(SettingsError, match=r"expected mirror=0 and crop_area=1 for method 'cnc'.*got 0.5 and 1.0"):
        methods["cnc"](split_model(), mirror=0.5)
