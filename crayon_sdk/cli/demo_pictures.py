"""The demo's own data: birds and fish drawn on forest and water, with object masks.

Nothing is downloaded; every picture follows from the seed alone. The class is in the
shape (colours, sizes, places and turns are drawn by chance), the trap is the background.
"""

from __future__ import annotations

import colorsys
import csv
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from crayon_sdk._base.files import write_text

__all__ = ["BACKGROUNDS", "CLASSES", "draw_picture", "write_pictures"]

CLASSES = ("bird", "fish")
BACKGROUNDS = ("forest", "water")

_FINE = 3  # shapes are drawn this many times larger and shrunk, for smooth edges

Point = tuple[float, float]


def write_pictures(
    folder: Path, *, train: int, test: int, size: int = 96, correlation: float = 0.98, seed: int = 0
) -> Path:
    """Draw a training and a test set and write them as picture files with a table.

    Args:
        folder: Where ``metadata.csv``, ``images/`` and ``masks/`` go; must exist.
        train: Training pictures; ``correlation`` of them have birds in the forest and fish in the water.
        test: Test pictures, as many in each of the four groups.
        size: Side in pixels.
        correlation: Share in [0, 1] of the training pictures of a class on its usual background.
        seed: Of everything random.

    Returns:
        The table.
    """
    rows = []
    for number, (split, count, share) in enumerate((("train", train, correlation), ("test", test, 0.5))):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            label = index % 2
            # Spread evenly, so that every class has exactly its share of unusual backgrounds.
            rank = index // 2
            usual = math.floor((rank + 1) * share) > math.floor(rank * share)
            background = label if usual else 1 - label
            name = f"{split}/{index:04d}.png"
            picture, mask = draw_picture(np.random.default_rng((seed, number, index)), label, background, size)
            picture.save(folder / "images" / name, compress_level=1)
            mask.save(folder / "masks" / name, compress_level=1)
            rows.append((f"images/{name}", CLASSES[label], BACKGROUNDS[background], split, f"masks/{name}"))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("image", "label", "background", "split", "mask"), *rows])
    write_text(folder / "metadata.csv", table.getvalue())
    return folder / "metadata.csv"


def draw_picture(
    random: np.random.Generator, label: int, background: int, size: int
) -> tuple[Image.Image, Image.Image]:
    """Draw one picture and the mask of its object.

    Args:
        random: Where chance comes from.
        label: 0 bird, 1 fish.
        background: 0 forest, 1 water.
        size: Side in pixels.

    Returns:
        The picture ("RGB") and the mask ("L", 255 on the object).

    Example:
        >>> picture, mask = draw_picture(np.random.default_rng(0), 0, 1, 48)
        >>> picture.size, mask.getextrema()
        ((48, 48), (0, 255))
    """
    scene = _scene(random, background, size)
    colours = _colours(random)
    pose = _Pose(random, size * _FINE)
    drawn = Image.new("RGBA", (size * _FINE, size * _FINE))
    (_bird if label == 0 else _fish)(ImageDraw.Draw(drawn), pose, colours)
    # Premultiplied, so that no dark rim appears where the shape is shrunk onto the scene.
    drawn = drawn.convert("RGBa").resize((size, size), Image.Resampling.BOX).convert("RGBA")
    scene.paste(drawn, mask=drawn.getchannel("A"))
    grain = random.normal(0, 6, (size, size, 3))
    picture = np.clip(np.asarray(scene, dtype=np.float64) + grain, 0, 255).astype(np.uint8)
    mask = drawn.getchannel("A").point([0] * 128 + [255] * 128)
    return Image.fromarray(picture), mask


def _scene(random: np.random.Generator, background: int, size: int) -> Image.Image:
    """Vertical trunks in greens, or horizontal waves in blues."""
    along, across = np.meshgrid(np.arange(size), np.arange(size))
    if background == 1:
        along, across = across, along
    period = size / random.uniform(5, 9)
    bend = random.uniform(1, 3) * np.sin(across / size * random.uniform(4, 9) + random.uniform(0, 6))
    wave = np.sin((along + bend) / period * 2 * math.pi + random.uniform(0, 6))
    hue = random.uniform(0.22, 0.46) if background == 0 else random.uniform(0.42, 0.66)
    dark = np.array(colorsys.hsv_to_rgb(hue, random.uniform(0.5, 0.8), random.uniform(0.25, 0.4)))
    light = np.array(colorsys.hsv_to_rgb(hue + random.uniform(-0.04, 0.04), 0.5, random.uniform(0.55, 0.75)))
    blend = np.clip(0.5 + 0.5 * wave + random.normal(0, 0.15, wave.shape), 0, 1)[..., None]
    return Image.fromarray((255 * (dark * (1 - blend) + light * blend)).astype(np.uint8))


def _colours(random: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A bright colour of any hue and a darker or lighter companion."""
    hue = random.uniform(0, 1)
    first = colorsys.hsv_to_rgb(hue, random.uniform(0.3, 0.9), random.uniform(0.75, 1.0))
    second = colorsys.hsv_to_rgb((hue + random.uniform(-0.2, 0.2)) % 1, random.uniform(0.3, 0.9), 0.5)
    return tuple(round(255 * value) for value in first), tuple(round(255 * value) for value in second)


class _Pose:
    """Where an object stands: maps its own coordinates (about -1 to 1) to pixels."""

    def __init__(self, random: np.random.Generator, side: int) -> None:
        self.scale = side * random.uniform(0.28, 0.38)
        self.turn = random.uniform(-0.45, 0.45)
        self.mirror = -1 if random.random() < 0.5 else 1
        margin = self.scale * 1.05 / side
        self.centre = (side * random.uniform(margin, 1 - margin), side * random.uniform(margin, 1 - margin))

    def __call__(self, points: list[Point]) -> list[Point]:
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turned = [(self.mirror * (x * cos - y * sin), x * sin + y * cos) for x, y in points]
        return [(self.centre[0] + x * self.scale, self.centre[1] + y * self.scale) for x, y in turned]


def _ellipse(x: float, y: float, across: float, down: float) -> list[Point]:
    angles = [2 * math.pi * step / 40 for step in range(40)]
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


def _bird(draw: ImageDraw.ImageDraw, pose: _Pose, colours: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Two legs, a body with a wing, a head with a beak."""
    first, second = colours
    for x in (-0.15, 0.15):
        draw.polygon(pose([(x - 0.05, 0.3), (x + 0.05, 0.3), (x + 0.05, 0.95), (x - 0.05, 0.95)]), fill=second)
        draw.polygon(pose([(x - 0.05, 0.87), (x + 0.25, 0.87), (x + 0.25, 0.95), (x - 0.05, 0.95)]), fill=second)
    draw.polygon(pose([(-0.4, 0.0), (-1.0, -0.15), (-1.0, 0.12), (-0.4, 0.25)]), fill=second)
    draw.polygon(pose(_ellipse(0, 0.1, 0.6, 0.36)), fill=first)
    draw.polygon(pose([(0.2, 0.0), (0.35, -0.6), (0.6, -0.6), (0.6, 0.1)]), fill=first)
    draw.polygon(pose(_ellipse(0.5, -0.62, 0.25, 0.25)), fill=first)
    draw.polygon(pose([(0.7, -0.72), (1.05, -0.58), (0.7, -0.5)]), fill=second)
    draw.polygon(pose([(-0.35, 0.0), (0.25, -0.05), (-0.25, 0.35)]), fill=second)
    draw.polygon(pose(_ellipse(0.55, -0.67, 0.07, 0.07)), fill=(20, 20, 20))


def _fish(draw: ImageDraw.ImageDraw, pose: _Pose, colours: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """A lying body with bars, a forked tail, fins and an eye."""
    first, second = colours
    draw.polygon(pose([(-0.45, 0), (-1.0, -0.5), (-0.85, 0.0), (-1.0, 0.5)]), fill=second)
    draw.polygon(pose([(-0.3, -0.3), (0.0, -0.7), (0.35, -0.3)]), fill=second)
    draw.polygon(pose([(-0.1, 0.3), (-0.15, 0.65), (0.2, 0.3)]), fill=second)
    draw.polygon(pose(_ellipse(0.15, 0, 0.8, 0.42)), fill=first)
    for x in (-0.25, 0.05, 0.35):
        draw.polygon(pose([(x, -0.32), (x + 0.1, -0.32), (x + 0.1, 0.32), (x, 0.32)]), fill=second)
    draw.polygon(pose(_ellipse(0.68, -0.1, 0.09, 0.09)), fill=(20, 20, 20))
