"""The pictures of the app, as JPEG; drawn when first asked for, the last ones kept."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Literal, get_args

from PIL import Image

from crayon_sdk.annotate.tasks import Task
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain.contact_sheets import Style, panel, patch_picture
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches

__all__ = ["CELLS", "Drawing", "Panel", "Size"]

Panel = Literal["original", "overlaid", "red", "orange", "patch"]
Size = Literal["large", "small"]
CELLS: dict[Size, int] = {"large": 480, "small": 240}
"""Longer side in pixels."""

_STYLES: dict[Panel, Style | None] = {"original": None, "overlaid": "overlaid", "red": "red", "orange": "orange"}
_KEPT_BYTES = 64 * 2**20


class Drawing:
    """Draws the pictures of tasks. May be used from many threads.

    Args:
        dataset: Has the pictures.
        sources: Their maps, and the patches of neurons; of what is asked about.
    """

    def __init__(self, dataset: ImageDataset, sources: Iterable[SaliencyMaps | NeuronPatches]) -> None:
        self._dataset = dataset
        self._sources = {isinstance(each, SaliencyMaps): each for each in sources}
        self._kept: OrderedDict[tuple[str, int, Panel, Size], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def jpeg(self, task: Task, number: int, which: Panel, size: Size) -> bytes:
        """Draw one picture of a task.

        Args:
            task: What is asked.
            number: Which of its pictures, from 0.
            which: The panel; "patch" for tasks about neurons, any other for those about pictures and spots.
            size: "large" to answer about, "small" for the grid.

        Raises:
            DataError: The picture cannot be read any more.
            SettingsError: The task has no such picture.
        """
        fits = (which == "patch") == (task.kind == "neuron") and which in get_args(Panel) and size in CELLS
        if not fits or not 0 <= number < task.pictures:
            raise SettingsError(f"expected a picture of a task about one {task.kind}, got {which!r}, number {number}")
        key = (task.id, number, which, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        drawn = _encoded(self._painter(task, number, which, CELLS[size]))
        with self._lock:
            if key not in self._kept:
                self._kept[key] = drawn
                self._kept_bytes += len(drawn)
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return drawn

    def _painter(self, task: Task, number: int, which: Panel, cell: int) -> Callable[[], Image.Image]:
        source = self._sources[task.kind != "neuron"]
        if isinstance(source, SaliencyMaps):
            # Of one map only: those of all would be four times as large as the maps.
            maps = source.select([task.sample]).spots() if task.kind == "spot" else source
            return lambda: panel(self._dataset, maps, task.sample, _STYLES[which], cell=cell)
        return lambda: patch_picture(self._dataset, source, task.patches[number], cell=cell)


def _encoded(paint: Callable[[], Image.Image]) -> bytes:
    file = io.BytesIO()
    paint().save(file, format="JPEG", quality=88)
    return file.getvalue()
