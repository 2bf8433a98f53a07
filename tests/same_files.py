"""Does a fixed amount of work through public names alone, and prints a digest of every file that comes of it.

Run by test_same_files.py in a process of its own, with arithmetic that does not depend on the processor as far as
that can be asked for. ``python tests/same_files.py`` writes what it finds into ``same_files.json``; do that only
for a change that is meant to give other files, and say in CHANGELOG.md which.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
RECORDED = Path(__file__).with_suffix(".json")
# What differs from run to run: moments, durations, versions, and the digests of files that hold them.
VOLATILE = {"created", "started", "seconds", "versions", "written_by", "lr_seconds"}
MOMENTS = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00| UTC)?|\d+(\.\d+)? (seconds|s\b)|\d{4}-\d\d-\d\d")
EPOCHS = {"epochs": 2, "batch_size": 8}


def work(folder: Path) -> dict[str, Path | bytes]:
    """Draw, train, explain, answer, correct in many ways, evaluate, report; what came of it by name."""
    import torch

    import crayon_sdk as crayon

    drawn(folder)
    view = crayon.Preprocessing(size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = network("test_resnet.r160_in1k", view)
    train = crayon.ImageDataset.from_csv(folder / "metadata.csv", split="train")
    test = crayon.ImageDataset.from_csv(folder / "metadata.csv", split="test")
    maps = crayon.Explainer(model, score="margin").explain(train)
    patches = crayon.Explainer(model).explain_neurons(train)
    simulated = crayon.simulate_answers(maps, train).merge(crayon.simulate_neuron_answers(patches, train))
    answers = given(train.ids, maps.model)
    made: dict[str, Path | bytes] = {}
    of_names = {"maps.safetensors": maps, "patches.safetensors": patches, "simulated.jsonl": simulated}
    for name, each in {**of_names, "answers.jsonl": answers}.items():
        each.save(folder / name)
        made[name] = folder / name

    def attention(start: torch.nn.Module = model, **settings: object) -> object:
        corrector = crayon.AttentionCorrector(start, **{**EPOCHS, **settings})
        return corrector.fit(train, maps, answers, test)

    corrections = {
        "attention": attention(),
        "attention bfloat16": attention(precision="bfloat16"),
        "attention adamw": attention(optimizer="adamw", clip_norm=1.0, warmup_epochs=0.5, keep="best", score="logit"),
        "attention sgd": attention(optimizer="sgd", scheduler="step", batch_norm="frozen", background_swap=0.0),
        "pruning": crayon.NeuronPruner(model, epochs=3).fit(train, answers, test),
        "pruning bfloat16": crayon.NeuronPruner(model, epochs=3, precision="bfloat16").fit(train, answers, test),
    }
    corrections["both"] = attention(corrections["pruning"].model)
    for preset in ("waterbirds", "biased-celeba", "backgrounds"):
        corrector = crayon.AttentionCorrector.from_preset(preset, model)
        corrections[f"attention {preset}"] = corrector.fit(train, maps, answers)
        corrections[f"pruning {preset}"] = crayon.NeuronPruner.from_preset(preset, model).fit(train, answers)
    student = network("test_convnext.r160_in1k", view)
    corrections["transfer"] = attention(student)
    corrections["resumed"] = resumed(lambda: attention(checkpoint_dir=folder / "run"))
    for name, correction in corrections.items():
        made[f"weights of {name}"] = digest_of_weights(correction.model)
        made[f"history of {name}"] = json.dumps(steady(correction.record.history)).encode()
    saved = folder / "saved"
    corrections["both"].save(saved)
    made |= {f"saved {path.name}": path for path in sorted(saved.iterdir())}
    evaluation = crayon.evaluate(corrections["both"].model, test, train=train)
    evaluation.save(folder / "evaluation.json")
    made["evaluation.json"] = folder / "evaluation.json"
    before = crayon.evaluate(model, test, train=train)
    comparison = crayon.compare({"original": before, "both": evaluation}, resamples=200)
    comparison.save(folder / "comparison.json")
    made["comparison.json"] = folder / "comparison.json"
    after = crayon.load_correction(saved)
    after.report(folder / "report.html", original=model, dataset=test, patches=patches, train=train)
    made |= {path.name: path for path in sorted(folder.glob("report*"))}
    return made


def network(architecture: str, view: object) -> object:
    """A small network after a few steps on the pictures, by plain torch: its maps show something."""
    import numpy as np
    import torch
    from PIL import Image

    import crayon_sdk as crayon

    torch.manual_seed(0)
    model = crayon.load_model(architecture, pretrained=False, num_classes=2)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    files = [Image.open(f"{index:02d}.png").resize((64, 64)) for index in range(32)]
    images = torch.from_numpy(np.stack([np.asarray(file) for file in files])).permute(0, 3, 1, 2) / 127.5 - 1
    labels = torch.arange(32) % 2
    for _ in range(12):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return crayon.load_model(model.model.eval(), preprocessing=view, class_names=["disc", "square"])


def given(ids: tuple[str, ...], model: str) -> object:
    """What two people would say who cannot see: yes, no, mixed, nothing, over and over; every third neuron is cut."""
    import crayon_sdk as crayon

    answers = crayon.AnnotationSet()
    for index, sample in enumerate(ids):
        for person, word in zip("ab", ("yes yes", "no no", "yes no", "")[index // 2 % 4].split(), strict=False):
            answers.add(crayon.ImageAnswer(id=sample, answer=word, annotator=person, model=model))
    for neuron in range(24):
        word = "yes" if neuron % 3 else "no"
        answers.add(crayon.NeuronAnswer(neuron=neuron, patch=0, id=ids[0], answer=word, annotator="a", model=model))
    return answers


def resumed(run: object) -> object:
    """The same run, stopped by Ctrl-C in its third step and called again."""
    import signal

    import torch

    real, steps = torch.optim.Adam.step, [0]

    def step(self: torch.optim.Adam, *arguments: object) -> object:
        steps[0] += 1
        if steps[0] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    torch.optim.Adam.step = step
    try:
        run()
        raise RuntimeError("Ctrl-C did not stop the run")
    except KeyboardInterrupt:
        pass
    finally:
        torch.optim.Adam.step = real
    return run()


def drawn(folder: Path) -> None:
    """48 pictures of a disc or a square on one of two tints, with masks; noise that needs no library."""
    from PIL import Image, ImageDraw

    rows = ["image,label,place,split,mask"]
    for index in range(48):
        label, split = index % 2, "train" if index < 32 else "test"
        place = label if index % 5 else 1 - label
        picture = Image.new("RGB", (80, 80), ((90, 140, 60), (60, 90, 160))[place])
        mask = Image.new("L", (80, 80), 0)
        x, y = 10 + index * 7 % 30, 10 + index * 11 % 30
        for image, colour in ((picture, (220, 200, 40 + index * 4)), (mask, 255)):
            draw = ImageDraw.Draw(image)
            (draw.ellipse if label == 0 else draw.rectangle)((x, y, x + 28, y + 28), fill=colour)
        picture.save(folder / f"{index:02d}.png")
        mask.save(folder / f"{index:02d}-mask.png")
        name = ("disc", "square")[label]
        rows.append(f"{index:02d}.png,{name},{('land', 'water')[place]},{split},{index:02d}-mask.png")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def digest_of_weights(model: object) -> bytes:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.plain_state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest().encode()


def steady(value: object) -> object:
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items() if key not in VOLATILE}
    return [steady(each) for each in value] if isinstance(value, list | tuple) else value


def digest(value: Path | bytes) -> str:
    """SHA-256 of a file or of bytes, without what differs from run to run."""
    content = value if isinstance(value, bytes) else value.read_bytes()
    if isinstance(value, Path) and value.suffix == ".json":
        content = json.dumps(steady(json.loads(content)), sort_keys=True).encode()
    elif isinstance(value, Path) and value.suffix in (".html", ".md"):
        content = MOMENTS.sub(b"", content)
    return hashlib.sha256(content).hexdigest()


def arithmetic() -> str:
    """A digest of how this machine computes with this torch and these models, without any code of the package."""
    import timm
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=generator)
    digest = hashlib.sha256(f"{torch.__version__} {timm.__version__}".encode())
    for name in ("test_resnet.r160_in1k", "test_convnext.r160_in1k"):
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            model = timm.create_model(name, pretrained=False, num_classes=2)
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
            for _ in range(3):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                    loss = torch.nn.functional.cross_entropy(model(images).float(), torch.tensor([0, 1, 0, 1]))
                loss.backward()
                optimizer.step()
            for tensor in model.state_dict().values():
                digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = {name: digest(value) for name, value in work(Path(folder)).items()}
    text = json.dumps({"arithmetic": arithmetic(), "files": found}, indent=1)
    if "--print" in sys.argv:
        print(text)
    else:
        RECORDED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
