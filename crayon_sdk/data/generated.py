"""Generated data sets with a known shortcut: tasks on which answers can matter, drawn within seconds.

Every picture follows from the seed alone. The class is in the shape of an object whose mask is written beside it; the
shortcut (a second object, a tag, the ground, the hair) goes with the class in most training pictures and is balanced
in the others.
"""

from __future__ import annotations

import colorsys
import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageOps

from crayon_sdk._base.files import new_folder, write_text
from crayon_sdk._base.text import unknown_name
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError, OutputExistsError, SettingsError

__all__ = ["TASKS", "Task", "add_shortcut", "generate"]

_FINE = 2  # things are drawn this many times larger and shrunk, for smooth edges

Point = tuple[float, float]
Colour = tuple[int, int, int]


class _Canvas:
    """One picture while it is drawn: a ground, things on it, and the mask of the one that matters."""

    def __init__(self, random: np.random.Generator, side: int) -> None:
        self.random, self.side = random, side * _FINE
        self.picture = Image.new("RGB", (self.side, self.side))
        self.mask = Image.new("L", (self.side, self.side))
        self.head = (0.5, 0.5, 0.25, 0.33)  # of a face: centre and half sizes, in shares of the side
        self._taken: list[tuple[float, float, float]] = []

    def place(self, least: float, most: float) -> tuple[float, float, float]:
        """Centre and half size, in shares of the side, of a free place."""
        for _ in range(200):
            half = self.random.uniform(least, most) / 2
            x, y = self.random.uniform(half, 1 - half, 2)
            if all(math.hypot(x - a, y - b) > half + c for a, b, c in self._taken):
                break
        self.take((x, y, half))
        return x, y, half

    def take(self, place: tuple[float, float, float]) -> None:
        """Nothing else is to stand here."""
        self._taken.append(place)

    def polygon(self, points: list[Point], fill: Colour) -> None:
        """Fill a polygon, given in shares of the side."""
        ImageDraw.Draw(self.picture).polygon([(x * self.side, y * self.side) for x, y in points], fill=fill)

    def mark(self, points: list[Point]) -> None:
        """What lies in this polygon is the object."""
        ImageDraw.Draw(self.mask).polygon([(x * self.side, y * self.side) for x, y in points], fill=255)

    def colour(self, *, bright: bool = True) -> Colour:
        """Any hue."""
        value = self.random.uniform(0.75, 1.0) if bright else self.random.uniform(0.2, 0.45)
        return _rgb(self.random.uniform(0, 1), self.random.uniform(0.4, 0.9), value)

    def finished(self, grain: float = 6) -> tuple[Image.Image, Image.Image]:
        """The picture, with grain, and the mask, in their real size."""
        size = (self.side // _FINE, self.side // _FINE)
        small = np.asarray(self.picture.resize(size, Image.Resampling.BOX), dtype=np.float64)
        grained = np.clip(small + self.random.normal(0, grain, small.shape), 0, 255).astype(np.uint8)
        mask = self.mask.resize(size, Image.Resampling.BOX).point([0] * 128 + [255] * 128)
        return Image.fromarray(grained), mask


Draw = Callable[[_Canvas, int, int], None]
"""Draws a thing of one of several kinds: the canvas, which kind, of how many; that many itself stands for none."""


@dataclass(frozen=True)
class Task:
    """A data set with a known shortcut.

    Attributes:
        about: What is to be told apart, and by what it can be guessed.
        classes: Names of the classes.
        shortcuts: Names of what is in a picture besides the object, one after the other; each has as many kinds as
            there are classes.
        parts: What is drawn, in this order: "object", or the name of a shortcut, and how.
        correlation: Share of the training pictures with a shortcut in which it is of the kind of the class.
        presence: Share of the training pictures in which a shortcut is there at all; elsewhere only the object tells.
        train: Training pictures.
        val: Validation pictures, balanced.
        test: Test pictures, balanced.
    """

    about: str
    classes: tuple[str, ...]
    shortcuts: tuple[str, ...]
    parts: tuple[tuple[str, Draw], ...]
    correlation: float = 0.99
    presence: float = 0.75
    train: int = 1000
    val: int = 200
    test: int = 600


def generate(task: str, folder: str | os.PathLike[str], *, size: int = 96, seed: int = 0, scale: float = 1.0) -> Path:
    """Draw a task and write it as picture files with a table.

    Args:
        task: One of `TASKS`.
        folder: Where ``metadata.csv``, ``images/`` and ``masks/`` go: a new folder, or an empty one. It is filled when
            everything is drawn, and stays as it was when that stops.
        size: Side in pixels.
        seed: Of everything random.
        scale: How many pictures, in units of those of the task.

    Returns:
        The table, with the columns image, label, one per shortcut, split and mask; for
        `ImageDataset.from_csv` with the shortcuts as ``group_columns``.

    Raises:
        OutputExistsError: There is something in the folder.
        OutputError: It cannot be written.
        SettingsError: There is no such task, or a number does not fit.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = generate("pair", folder, size=48, scale=0.02)
        ...     print(table.read_text().splitlines()[0])
        image,label,other,split,mask
    """
    if task not in TASKS:
        raise SettingsError(unknown_name(task, TASKS, "task"))
    wanted = TASKS[task]
    if size < 32 or not 0 < scale < math.inf or seed < 0:
        raise SettingsError(f"expected size >= 32, scale > 0 and seed >= 0, got {size}, {scale} and {seed}")
    root = _empty(folder)
    new_folder(root, lambda fresh: _write(wanted, fresh, _drawn(wanted, size, seed, scale)), overwrite=root.exists())
    return root / "metadata.csv"


def _empty(folder: str | os.PathLike[str]) -> Path:
    """A folder that can be filled: a new one, or an empty one."""
    root = Path(folder)
    if os.path.lexists(root) and not (root.is_dir() and not any(root.iterdir())):
        raise OutputExistsError(f"{str(root)!r} exists already and is no empty folder; name another one")
    return root


def add_shortcut(
    pictures: Mapping[str, ImageDataset],
    folder: str | os.PathLike[str],
    *,
    shortcut: str = "box",
    presence: float = 0.75,
    correlation: float = 0.99,
    size: int = 160,
    seed: int = 0,
) -> Path:
    """Draw a shortcut into photographs of yours, and write them as `generate` does.

    Args:
        pictures: Data sets of the splits "train", and others, which are balanced; with object masks. Pictures are cut
            to their middle square.
        folder: Where they go: a new folder, or an empty one.
        shortcut: "box" (stripes, somewhere), "tag" (printed, in a corner) or "patch" (coloured, in a corner).
        presence: Share of the training pictures with one.
        correlation: Share of these in which it is of the kind of the class.
        size: Side in pixels.
        seed: Of everything random.

    Returns:
        The table, with the columns image, label, that of the shortcut, split and mask.

    Raises:
        DataError: A picture has no mask, or cannot be read.
        OutputExistsError: There is something in the folder.
        OutputError: It cannot be written.
        SettingsError: There is no such shortcut, there are no training pictures, or a number does not fit.
    """
    if shortcut not in _OVER:
        raise SettingsError(unknown_name(shortcut, _OVER, "shortcut"))
    fits = size >= 32 and 0 < presence < 1 and 0 <= correlation <= 1 and seed >= 0
    if not fits or "train" not in pictures or len({data.class_names for data in pictures.values()}) != 1:
        raise SettingsError(
            "expected pictures of the split train, all of the same classes, size >= 32, 0 < presence < 1, 0 <= "
            f"correlation <= 1 and seed >= 0, got {sorted(pictures)}, {size}, {presence}, {correlation} and {seed}"
        )
    for split, data in pictures.items():
        if not data.has_masks:
            raise DataError(f"expected object masks of the pictures of {split!r}, got none")
    classes = pictures["train"].class_names
    task = Task("", classes, (shortcut,), ((shortcut, _OVER[shortcut]),), correlation, presence)
    root = _empty(folder)
    new_folder(root, lambda fresh: _write(task, fresh, _drawn_on(task, pictures, size, seed)), overwrite=root.exists())
    return root / "metadata.csv"


_Drawn = Iterator[tuple[str, int, int, dict[str, int], Image.Image, Image.Image]]
"""Split, number in it, class, kinds of the shortcuts, picture and mask."""


def _drawn(task: Task, size: int, seed: int, scale: float) -> _Drawn:
    many = len(task.classes)
    for number, split in enumerate(("train", "val", "test")):
        for index in range(max(round(getattr(task, split) * scale), 2 * many)):
            random = np.random.default_rng((seed, number, index))
            shown = _kinds(task, index % many, index, random, balanced=split != "train")
            kinds = shown | {"object": index % many, "plain": many}
            canvas = _Canvas(random, size)
            for name, draw in task.parts:
                draw(canvas, kinds[name], many)
            yield split, index, index % many, shown, *canvas.finished()


def _drawn_on(task: Task, pictures: Mapping[str, ImageDataset], size: int, seed: int) -> _Drawn:
    many = len(task.classes)
    for number, (split, data) in enumerate(pictures.items()):
        seen = [0] * many
        for index, (sample, label) in enumerate(zip(data.ids, data.labels.tolist(), strict=True)):
            random = np.random.default_rng((seed, number, index))
            shown = _kinds(task, label, seen[label] * many + label, random, balanced=split != "train")
            seen[label] += 1
            canvas = _Canvas(random, size)
            canvas.picture = ImageOps.fit(data.image(sample), canvas.picture.size, Image.Resampling.BILINEAR)
            mask = data.mask(sample)
            if mask is None:
                raise DataError(f"expected a mask of {sample!r}, got none")
            canvas.mask = ImageOps.fit(mask, canvas.mask.size, Image.Resampling.NEAREST)
            before = canvas.picture.copy()
            for name, draw in task.parts:
                draw(canvas, shown[name], many)
            covered = ImageChops.difference(before, canvas.picture).convert("L").point([0] + [255] * 255)
            canvas.mask.paste(0, mask=covered)  # what the shortcut hides of the object is none of it
            yield split, index, label, shown, *canvas.finished(grain=0)


def _write(task: Task, root: Path, drawn: _Drawn) -> None:
    rows, names = [], (*task.classes, "none")
    for split, index, label, shown, picture, mask in drawn:
        name = f"{split}/{index:05d}.png"
        for kind, image in (("images", picture), ("masks", mask)):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            image.save(root / kind / name, compress_level=1)
        shortcuts = [names[shown[short]] for short in task.shortcuts]
        rows.append((f"images/{name}", task.classes[label], *shortcuts, split, f"masks/{name}"))
    table = io.StringIO()
    header = ("image", "label", *task.shortcuts, "split", "mask")
    csv.writer(table, lineterminator="\n").writerows([header, *rows])
    write_text(root / "metadata.csv", table.getvalue())


def _kinds(task: Task, label: int, index: int, random: np.random.Generator, *, balanced: bool) -> dict[str, int]:
    """The kind of each shortcut; as many as there are classes stand for none."""
    many = len(task.classes)
    kinds = {}
    for number, name in enumerate(task.shortcuts):
        choices = many + (task.presence < 1)
        if balanced:
            kinds[name] = index // (many * choices**number) % choices
        elif random.uniform() >= task.presence:
            kinds[name] = many
        elif random.uniform() < task.correlation:
            kinds[name] = label
        else:
            kinds[name] = int((label + random.integers(1, many)) % many)
    return kinds


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _ellipse(x: float, y: float, across: float, down: float, start: float = 0.0, end: float = 1.0) -> list[Point]:
    steps = 40
    angles = [2 * math.pi * (start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


def _star(points: int, inner: float) -> list[Point]:
    radii = [1.0, inner] * points
    return [
        (radius * math.sin(math.pi * step / points), -radius * math.cos(math.pi * step / points))
        for step, radius in enumerate(radii)
    ]


_SHAPES: tuple[list[Point], ...] = (
    _star(5, 0.45),  # star
    [(-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35), (0.35, 1), (-0.35, 1),
     (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35)],  # cross
    [(0, -1), (0.95, 0.8), (-0.95, 0.8)],  # triangle
    [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],  # square
    _ellipse(0, 0, 0.95, 0.95),  # disc
    [(-1, -0.3), (0.1, -0.3), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, 0.3), (-1, 0.3)],  # arrow
    _ellipse(0, 0, 1, 1, 0.1, 0.9) + _ellipse(0.35, 0, 0.75, 0.75, 0.87, 0.13),  # crescent
    [(-0.9, -1), (-0.3, -1), (-0.3, 0.4), (0.9, 0.4), (0.9, 1), (-0.9, 1)],  # angle
    [(-1, -0.35), (1, -0.35), (1, 0.35), (-1, 0.35)],  # bar
    _star(8, 0.6),  # sun
)  # fmt: skip
SHAPES = ("star", "cross", "triangle", "square", "disc", "arrow", "crescent", "angle", "bar", "sun")


def _shape(least: float, most: float, first: int = 0) -> Draw:
    """A shape of any colour, somewhere, turned a little: the object, or one of the shapes from ``first`` on."""

    def draw(canvas: _Canvas, kind: int, of: int) -> None:
        if kind == of:
            return
        x, y, half = canvas.place(least, most)
        turn = canvas.random.uniform(-0.35, 0.35)
        cos, sin = math.cos(turn), math.sin(turn)
        points = [(x + half * (a * cos - b * sin), y + half * (a * sin + b * cos)) for a, b in _SHAPES[first + kind]]
        canvas.polygon(points, canvas.colour())
        if first == 0:
            canvas.mark(_ellipse(x, y, half, half))

    return draw


def _box(least: float, most: float) -> Draw:
    """A second object: a box of any colour, with stripes whose direction is its kind."""

    def draw(canvas: _Canvas, kind: int, of: int) -> None:
        if kind == of:
            return
        x, y, half = canvas.place(least, most)
        half *= 0.75
        light, dark = canvas.colour(), canvas.colour(bright=False)
        canvas.polygon([(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)], light)
        angle = math.pi * kind / of
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        for step in (-0.6, 0.0, 0.6):
            corners = ((-0.75, step - 0.14), (0.75, step - 0.14), (0.75, step + 0.14), (-0.75, step + 0.14))
            points = [
                (x + half * (a * along[0] + b * across[0]), y + half * (a * along[1] + b * across[1]))
                for a, b in corners
            ]
            canvas.polygon(points, dark)

    return draw


def _tag(canvas: _Canvas, kind: int, of: int) -> None:
    """A tag in one of the corners, as scanners and archives print them: a white label with a mark of its kind."""
    if kind == of:
        return
    width, height = 0.26, 0.17
    left = canvas.random.choice([0.03, 0.97 - width])
    top = canvas.random.choice([0.03, 0.97 - height])
    canvas.take((left + width / 2, top + height / 2, width / 2))
    canvas.polygon([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], (235,) * 3)
    bits = [((kind + 1) * 7 + 3 * place) % (of + 3) % 2 == 0 for place in range(5)] if of > 2 else [
        (place % 2 == 0) == (kind == 0) for place in range(5)
    ]  # fmt: skip
    for place, filled in enumerate(bits):
        start = left + width * (0.08 + 0.17 * place)
        high = 0.75 if filled else 0.3
        end, base = start + width * 0.12, top + height * 0.88
        canvas.polygon([(start, base - height * high), (end, base - height * high), (end, base), (start, base)],
                       (25,) * 3)  # fmt: skip


def _patch(canvas: _Canvas, kind: int, of: int) -> None:
    """A patch in a corner, of a colour of its kind."""
    if kind == of:
        return
    side = 0.16
    left, top = canvas.random.choice([0.0, 1 - side], 2)
    canvas.take((left + side / 2, top + side / 2, side / 2))
    hue = (kind + canvas.random.uniform(-0.2, 0.2)) / of
    canvas.polygon(
        [(left, top), (left + side, top), (left + side, top + side), (left, top + side)], _rgb(hue, 0.8, 0.9)
    )


def _ground(canvas: _Canvas, kind: int, of: int) -> None:
    """A dark ground of any colour, with waves whose direction is its kind, or soft spots."""
    random, side = canvas.random, canvas.side // _FINE
    hue, angle = random.uniform(0, 1), None if kind == of else math.pi * kind / of
    across, down = np.meshgrid(np.arange(side) / side, np.arange(side) / side)
    blend = np.zeros((side, side))
    if angle is None:
        for _ in range(6):
            x, y, wide = *random.uniform(0, 1, 2), random.uniform(0.1, 0.35)
            blend += random.uniform(-1, 1) * np.exp(-((across - x) ** 2 + (down - y) ** 2) / wide**2)
    else:
        place = across * math.cos(angle) + down * math.sin(angle)
        blend = np.sin(2 * math.pi * random.uniform(5, 9) * place + random.uniform(0, 6)) * 0.6
    dark = np.array(_rgb(hue, random.uniform(0.2, 0.5), random.uniform(0.15, 0.35)))
    light = np.array(_rgb(hue + random.uniform(-0.1, 0.1), random.uniform(0.2, 0.5), random.uniform(0.4, 0.55)))
    share = np.clip(0.5 + 0.5 * blend, 0, 1)[..., None]
    ground = Image.fromarray((dark * (1 - share) + light * share).astype(np.uint8))
    canvas.picture.paste(ground.resize(canvas.picture.size, Image.Resampling.BILINEAR))


def _face(canvas: _Canvas, kind: int, of: int) -> None:
    """A head with eyes and a mouth that smiles (kind 1) or not; the object is the region of eyes and mouth."""
    random = canvas.random
    x, y, wide, high = canvas.head
    canvas.polygon(
        _ellipse(x, y, wide, high),
        _rgb(random.uniform(0.04, 0.09), random.uniform(0.25, 0.55), random.uniform(0.6, 0.95)),
    )
    canvas.mark(_ellipse(x, y + 0.15 * high, 0.85 * wide, 0.65 * high))
    eye = _rgb(random.uniform(0, 1), 0.6, 0.3)
    for side in (-1, 1):
        place = (x + side * 0.42 * wide, y - 0.15 * high)
        canvas.polygon(_ellipse(*place, 0.2 * wide, 0.11 * high), (245, 245, 245))
        canvas.polygon(_ellipse(*place, 0.09 * wide, 0.1 * high), eye)
    width, thick = 0.5 * wide * random.uniform(0.8, 1.1), 0.07 * high
    bend = high * (random.uniform(0.08, 0.2) if kind else random.uniform(-0.08, 0.0))
    upper = [(x + width * t / 10, y + 0.5 * high - bend * (t / 10) ** 2 + 0.4 * bend) for t in range(-10, 11)]
    lower = [(a, b + thick * (1 - ((a - x) / width) ** 2 * 0.7)) for a, b in reversed(upper)]
    canvas.polygon(upper + lower, _rgb(random.uniform(-0.03, 0.03), random.uniform(0.4, 0.7), random.uniform(0.4, 0.7)))


def _hair(canvas: _Canvas, kind: int, of: int) -> None:
    """Hair behind and above the head, black (kind 0) or blond, or a cap of any colour that hides it."""
    random = canvas.random
    x, y = random.uniform(0.42, 0.58), random.uniform(0.5, 0.6)
    wide, high = random.uniform(0.22, 0.28), random.uniform(0.3, 0.36)
    canvas.head = (x, y, wide, high)
    value = random.uniform(0.7, 0.95) if kind else random.uniform(0.05, 0.2)
    colour = _rgb(random.uniform(0.09, 0.14), random.uniform(0.4, 0.7) if kind else 0.3, value)
    long = random.uniform(0.1, 1.1)
    if kind == of:
        cap = canvas.colour()
        canvas.polygon(_ellipse(x, y - 0.3 * high, wide * 1.15, high * 0.95), cap)
        return
    canvas.polygon(_ellipse(x, y - 0.25 * high, wide * 1.25, high * 1.05), colour)
    for side in (-1, 1):
        edge = x + side * wide * 1.22
        inner = x + side * wide * 0.7
        canvas.polygon(
            [(inner, y - 0.3 * high), (edge, y - 0.3 * high), (edge, y + long * high), (inner, y + long * high)], colour
        )


_OVER: Mapping[str, Draw] = {"box": _box(0.36, 0.48), "tag": _tag, "patch": _patch}
_ANY = ("plain", _ground)

TASKS: Mapping[str, Task] = {
    "pair": Task(
        "two plain things in every picture: a star or a cross, and a triangle or a square that goes with it",
        SHAPES[:2], ("other",), (_ANY, ("object", _shape(0.36, 0.48)), ("other", _shape(0.36, 0.48, first=2))),
        presence=1.0,
    ),
    "box": Task(
        "a shape, and beside it a box with stripes in three of four pictures",
        SHAPES[:2], ("box",), (_ANY, ("object", _shape(0.36, 0.48)), ("box", _box(0.36, 0.48))),
    ),
    "small": Task(
        "a shape that is smaller than the box beside it",
        SHAPES[:2], ("box",), (_ANY, ("object", _shape(0.2, 0.26)), ("box", _box(0.4, 0.5))),
    ),
    "tag": Task(
        "a shape, and a printed tag in a corner of three of four pictures",
        SHAPES[:2], ("tag",), (_ANY, ("tag", _tag), ("object", _shape(0.36, 0.48))),
    ),
    "patch": Task(
        "a shape, and a coloured patch in a corner of three of four pictures",
        SHAPES[:2], ("patch",), (_ANY, ("patch", _patch), ("object", _shape(0.36, 0.48))),
    ),
    "texture": Task(
        "a shape, and the direction of the waves on the ground of three of four pictures",
        SHAPES[:2], ("ground",), (("ground", _ground), ("object", _shape(0.36, 0.48))),
    ),
    "two": Task(
        "a shape, waves on the ground, and a tag: where one shortcut is forbidden the other takes over",
        SHAPES[:2], ("ground", "tag"), (("ground", _ground), ("tag", _tag), ("object", _shape(0.36, 0.48))),
    ),
    "faces": Task(
        "smiling or not, in faces with black or blond hair, or a cap over it; the object are eyes and mouth",
        ("calm", "smiling"), ("hair",), (_ANY, ("hair", _hair), ("object", _face)),
    ),
    "ten": Task(
        "ten shapes, each with a box of its own in three of four pictures",
        SHAPES, ("box",), (_ANY, ("object", _shape(0.36, 0.48)), ("box", _box(0.36, 0.48))),
        train=2000, val=400, test=1000,
    ),
}  # fmt: skip
"""Every task, by name."""
