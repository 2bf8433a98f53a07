from __future__ import annotations

import torch
from helpers_correction import SMALL

import crayon_sdk as crayon
from crayon_sdk.explain.masks import simulate_answers, simulate_neuron_answers


def test_explain_answer_prune_guide_evaluate_save_load(picture_folder, tiny_model, tmp_path):
    model = crayon.load_model(tiny_model(), preprocessing=SMALL)
    train = crayon.ImageDataset.from_csv(picture_folder / "metadata.csv", split="train")
    test = crayon.ImageDataset.from_csv(picture_folder / "metadata.csv", split="test")

    explainer = crayon.Explainer(model, device="cpu")
    maps = explainer.explain(train)
    patches = explainer.explain_neurons(train)
    simulated = simulate_answers(maps, train, strictness=(0.1, 0.2)).merge(
        simulate_neuron_answers(patches, train, coverage=0.1)
    )
    simulated.save(tmp_path / "answers.jsonl")
    answers = crayon.AnnotationSet.load(tmp_path / "answers.jsonl")

    pruned = crayon.NeuronPruner(model, epochs=2, device="cpu").fit(train, answers, evaluate_on=test)
    corrected = crayon.AttentionCorrector(
        pruned.model, epochs=2, batch_size=8, alpha=10.0, beta=10.0, device="cpu"
    ).fit(train, maps, answers, evaluate_on=test)
    result = crayon.evaluate(corrected.model, test, train=train, device="cpu")
    folder = corrected.save(tmp_path / "corrected")
    loaded = crayon.load_correction(folder)

    assert 0 < pruned.record.counts["pruned"] < 96
    assert corrected.record.simulated
    assert corrected.record.pruned_neurons == pruned.record.pruned_neurons
    assert [group.name for group in result.groups] == ["cat/land", "cat/water", "dog/land", "dog/water"]
    assert result.predictions == corrected.after.predictions
    assert "cat/land" in str(result)
    assert loaded.record == corrected.record
    assert loaded.parents == (pruned.record,)
    assert loaded.answers == corrected.answers
    assert set(loaded.answers.image_relevance().values()) <= {"relevant", "irrelevant", "mixed"}
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(loaded.model(images), corrected.model(images), rtol=0, atol=1e-6)
    again = crayon.evaluate(crayon.load_model(folder), test, train=train, device="cpu")
    assert again == result
