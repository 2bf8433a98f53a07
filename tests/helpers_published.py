"""Copies of the published layouts: every list as long as it is published, all pictures links to one small file."""

from __future__ import annotations

import os
import random
from pathlib import Path

from PIL import Image

from crayon_sdk.paper.datasets.about import ABOUT
from crayon_sdk.paper.datasets.backgrounds import FOLDERS
from crayon_sdk.paper.datasets.biased_celeba import LISTS


def one_picture(path: Path, size: tuple[int, int] = (12, 9)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 120, 40)).save(path)
    return path


def link(path: Path, to: Path) -> None:
    try:
        os.symlink(to, path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        os.symlink(to, path)


def make_waterbirds(root: Path, *, share: float = 1.0, masks: bool = True) -> Path:
    """``metadata.csv`` as published: its six columns, splits 0, 1, 2, and pictures below folders of species."""
    picture, mask = one_picture(root / "one.jpg"), one_picture(root / "one.png")
    base = root / "waterbird_complete95_forest2water2"
    rows = []
    for split, name in enumerate(("train", "validation", "test")):
        for (y, place), count in zip(
            ((0, 0), (0, 1), (1, 0), (1, 1)), ABOUT["waterbirds"].groups[name].values(), strict=True
        ):
            rows += [(y, split, place)] * max(1, round(share * count))
    random.Random(0).shuffle(rows)
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for number, (y, split, place) in enumerate(rows, start=1):
        file = f"{number % 200 + 1:03}.Bird/Bird_{number:05}.jpg"
        lines.append(f"{number},{file},{y},{split},{place},/o/ocean/{number:08}.jpg")
        link(base / file, picture)
        if masks:
            link(root / "segmentations" / file.replace(".jpg", ".png"), mask)
    (base / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def make_celeba(root: Path, *, people: int = 202_599, lists: bool = True) -> Path:
    """Attributes, partitions and landmarks as published; pictures of those that are listed."""
    picture = one_picture(root / "one.jpg", (178, 218))
    names = [f"{number:06}.jpg" for number in range(1, people + 1)]
    columns = ("Bald", "Black_Hair", "Blond_Hair", "Smiling", "Young")
    # black, blond, smiling; the last is of nobody's group
    kinds = [(1, -1, 1), (-1, 1, -1), (1, -1, -1), (-1, 1, 1), (-1, -1, 1), (1, 1, 1)]
    attributes, partitions, landmarks = [str(people), " ".join(columns) + " "], [], [str(people), "lefteye_x lefteye_y"]
    chosen: dict[str, list[str]] = {"train": [], "test": []}
    left = {split: dict(ABOUT["biased-celeba"].groups[split]) for split in chosen}
    for number, name in enumerate(names):
        black, blond, smiling = kinds[number % len(kinds)]
        partition = 0 if number < people * 0.8 else 1 + (number % 2)
        attributes.append(f"{name} -1 {black:2} {blond:2} {smiling:2}  1")
        partitions.append(f"{name} {partition}")
        landmarks.append(f"{name}  69  109  106  113   77  142   73  152  108  154")
        split = "test" if partition else "train"
        group = f"{'smiling' if smiling == 1 else 'not smiling'}/{'black' if black == 1 else 'blond'}"
        if black != blond and left[split][group]:
            left[split][group] -= 1
            chosen[split].append(name)
    (root / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    (root / "list_eval_partition.txt").write_text("\n".join(partitions) + "\n")
    (root / "list_landmarks_align_celeba.txt").write_text("\n".join(landmarks) + "\n")
    for split, names_of_split in chosen.items():
        if lists:
            (root / LISTS[split]).write_text(
                f"Filename {' '.join(columns)}\n" + "".join(f"{name} 0 1 0 1 1\n" for name in names_of_split)
            )
    for name in names if people < 10_000 else (*chosen["train"], *chosen["test"]):
        link(root / "img_align_celeba" / name, picture)
    return root


def make_backgrounds(root: Path, *, train: int = 5_045, test: int = 450, variants=("mixed_same", "mixed_rand")) -> Path:
    """Nine folders with spaces in their names, train and val, files in .JPEG."""
    picture = one_picture(root / "one.png")
    for number, folder in enumerate(FOLDERS):
        for position in range(train):
            name = f"n{number:08}_{position}.JPEG"
            for variant in ("original", "only_fg") if train < 100 else ("original",):
                link(root / "training" / variant / "train" / folder / name, picture)
        for variant in variants:
            for position in range(test):
                link(root / "bg_challenge" / variant / "val" / folder / f"fg_{position}_bg_{position}.JPEG", picture)
    return root
