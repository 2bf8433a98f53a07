"""What the tests of the correctors share: small data, and one correction that other processes can run and kill."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from crayon_sdk._base.files import write_tensors
from crayon_sdk.answers.annotations import AnnotationSet, ImageAnswer, NeuronAnswer
from crayon_sdk.correct import loop, run_file
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.functional.saliency import normalize_maps
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results import evaluation
from crayon_sdk.results.correction import Correction, CorrectionRecord, versions
from crayon_sdk.results.evaluation import Evaluation, GroupResult

# The models are so small that threads only wait for each other.
torch.set_num_threads(1)

SIDE = 64
SMALL = Preprocessing(size=(SIDE, SIDE))
assert evaluation  # loaded before the fork, so that children start at once


def split_model(seed: int = 0, name: str = "test_resnet.r160_in1k", **model_args: Any) -> SplitModel:
    """A small timm model with random weights for pictures of 64 x 64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, num_classes=2, **model_args).eval()
    return SplitModel(model, preprocessing=SMALL)


def noise_pictures(
    count: int = 12, *, seed: int = 0, huge_at: int | None = None, class_names: Sequence[str] = ("a", "b")
) -> ImageDataset:
    """Finished inputs (3, 64, 64): noise that is brighter in the second class; groups by place."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    labels = [position % 2 for position in range(count)]
    images[1::2] += 0.3
    if huge_at is not None:
        images[huge_at] = 1e38  # finite, but what the first layer makes of it is not
    places = [("land", "water")[position // 2 % 2] for position in range(count)]
    return ImageDataset.from_torch(
        [(image, label) for image, label in zip(images, labels, strict=True)],
        class_names=class_names,
        ids=[f"s{position}" for position in range(count)],
        groups={"place": places},
        preprocessed=True,
        preprocessing=SMALL,
    )


def random_maps(dataset: ImageDataset, size: tuple[int, int] = (2, 2), *, seed: int = 0) -> SaliencyMaps:
    """Maps that no model made."""
    values = torch.rand(len(dataset), *size, generator=torch.Generator().manual_seed(seed))
    return SaliencyMaps(dataset.ids, normalize_maps(values), dataset.labels.clone())


def image_answers(words: dict[str, str | Sequence[str]], *, model: str = "") -> AnnotationSet:
    """``{"s0": "yes", "s1": ("yes", "no")}``: one word stands for two people who agree."""
    answers = AnnotationSet()
    for sample, given in words.items():
        for number, word in enumerate((given, given) if isinstance(given, str) else given):
            answers.add(ImageAnswer(id=sample, answer=word, annotator=f"p{number}", model=model))
    return answers


def half_and_half(dataset: ImageDataset) -> AnnotationSet:
    """Yes, no, mixed, none, over and over."""
    given: tuple[Any, ...] = ("yes", "no", ("yes", "no"))
    return image_answers({sample: given[i % 4] for i, sample in enumerate(dataset.ids) if i % 4 < 3})


def neuron_answers(irrelevant: Sequence[int], relevant: Sequence[int] = (), *, model: str = "") -> AnnotationSet:
    """One person, three patches per neuron."""
    return AnnotationSet(
        NeuronAnswer(neuron=neuron, patch=patch, id="s0", answer=word, annotator="p0", model=model)
        for word, neurons in (("no", irrelevant), ("yes", relevant))
        for neuron in neurons
        for patch in range(3)
    )


def plain_correction(model: SplitModel) -> Correction:
    """A correction of a model, with a record that says that nothing was done."""
    record = CorrectionRecord(
        method="attention",
        settings={"epochs": 0, "batch_size": 8, "lr": 0.01, "alpha": 1.0, "beta": 1.0},
        history=(),
        counts={},
        original=model.fingerprint,
        corrected=model.fingerprint,
        dataset="d" * 64,
        answers="a" * 64,
        simulated=False,
        pruned_neurons=tuple((~model.neuron_mask).nonzero().flatten().tolist()),
        seconds=0.0,
        created="2026-01-01T00:00:00+00:00",
        versions=versions(),
    )
    answers = half_and_half(noise_pictures(8)).merge(neuron_answers([1]))
    evaluation = Evaluation((GroupResult("a/land", 1, 2, 3),), {"s0": 1}, True, ("s9",))
    return Correction(model, record, (record,), answers, evaluation, None)


def run_correction(
    method: str,
    out: Path,
    checkpoint_dir: Path | None = None,
    *,
    seed: int = 0,
    lr: float = 1e-3,
    epochs: int = 4,
    average_decay: float = 0.0,
    keep: str = "last",
    accumulate: int = 1,
    pace: float = 0.0,
) -> None:
    """Correct, telling every step in ``out.steps``, and write the weights to ``out``.

    The state is written at every step, and each step lasts ``pace`` seconds longer.
    """
    torch.set_num_threads(1)
    run_file.RunFile.__init__.__kwdefaults__["every_seconds"] = 0.0
    steps = out.with_suffix(".steps")

    @contextlib.contextmanager
    def tell(_doing: str, total: int) -> Iterator[Any]:
        def write(amount: int) -> None:
            with open(steps, "a", encoding="utf-8") as file:
                file.write(f"{amount}\n")
            time.sleep(pace)

        yield write

    loop.track = tell
    dataset, model = noise_pictures(13), split_model()
    if method == "attention":
        corrector = AttentionCorrector(
            model,
            alpha=10.0,
            beta=10.0,
            epochs=epochs,
            batch_size=3,
            lr=lr,
            average_decay=average_decay,
            keep=keep,
            accumulate=accumulate,
            seed=seed,
            device="cpu",
            checkpoint_dir=checkpoint_dir,
        )
        held_out = noise_pictures(8, seed=1) if keep == "best" else None
        found = corrector.fit(dataset, random_maps(dataset), half_and_half(dataset), held_out)
    else:
        pruner = NeuronPruner(
            model, epochs=epochs, batch_size=3, lr=lr, seed=seed, device="cpu", checkpoint_dir=checkpoint_dir
        )
        found = pruner.fit(dataset, neuron_answers(range(10), range(10, 20)))
    write_tensors(out, found.model.plain_state_dict(), {"history": json.dumps(found.history)})


_processes = multiprocessing.get_context("forkserver") if sys.platform != "win32" else multiprocessing


def _start_server() -> None:
    """Load torch and the package once, in a process that the others are forked from."""
    if sys.platform == "win32":
        return
    from multiprocessing import forkserver

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        multiprocessing.set_forkserver_preload(["helpers_correction"])
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Attempt:
    """One run of `run_correction` in a process of its own."""

    def __init__(self, method: str, out: Path, checkpoint_dir: Path | None = None, **settings: Any) -> None:
        _start_server()
        self.steps_file = out.with_suffix(".steps")
        self.steps_file.unlink(missing_ok=True)
        self.process = _processes.Process(
            target=run_correction, args=(method, out, checkpoint_dir), kwargs=settings, daemon=True
        )
        self.process.start()

    def lines(self) -> list[int]:
        """What was told so far: where it started from, then 1 for every step."""
        if not self.steps_file.exists():
            return []
        return [int(line) for line in self.steps_file.read_text(encoding="utf-8").splitlines() if line]

    @property
    def started_at(self) -> int:
        return self.lines()[0]

    @property
    def steps(self) -> int:
        return len(self.lines()) - 1

    def wait_for(self, steps: int, seconds: float = 300.0) -> None:
        """Wait until so many steps are done."""
        end = time.monotonic() + seconds
        while len(self.lines()) - 1 < steps:
            if not self.process.is_alive() and len(self.lines()) - 1 < steps:
                raise RuntimeError(f"the process ended after {len(self.lines()) - 1} steps, expected {steps}")
            if time.monotonic() > end:
                raise RuntimeError("the process is too slow")
            time.sleep(0.002)

    def send(self, number: int) -> None:
        os.kill(self.process.pid or 0, number)

    def join(self) -> int:
        self.process.join(300)
        return -99 if self.process.exitcode is None else self.process.exitcode


if __name__ == "__main__":
    run_correction(
        sys.argv[1], Path(sys.argv[2]), None if sys.argv[3] == "-" else Path(sys.argv[3]), pace=float(sys.argv[4])
    )
