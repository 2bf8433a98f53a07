"""Tasks for people elsewhere: pictures to look at, a table for MTurk, tasks and a configuration for Label Studio."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crayon_sdk._base.files import new_folder, write_json
from crayon_sdk._base.progress import track
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain import contact_sheets
from crayon_sdk.explain.asking import Question, question_words
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches

__all__ = ["export_crowd"]

_COLUMNS = ("image_url", "sample_id", "kind", "neuron", "patch", "label", "target", "question", "model")
_CONFIGURATION = """\
<View>
  <Header value="$question"/>
  <Image name="image" value="$image_url" zoom="true"/>
  <Choices name="answer" toName="image" choice="single" required="true" showInline="true">
    <Choice value="yes" hotkey="y"/>
    <Choice value="no" hotkey="n"/>
    <Choice value="unsure" hotkey="u"/>
  </Choices>
</View>
"""


def export_crowd(
    folder: str | os.PathLike[str],
    dataset: ImageDataset,
    source: SaliencyMaps | NeuronPatches,
    questions: Sequence[Question],
    *,
    question: str | None = None,
    base_url: str = "",
    cell: int = 320,
    overwrite: bool = False,
) -> Path:
    """Write what a crowd needs to answer: one picture per question and the task files that name them.

    - ``images/``: the three panels of the paper, the same with the brightest spot of the map only, or a patch as a red
      rectangle on its picture; JPEG.
    - ``tasks.csv``: a row per question, for MTurk (columns image_url, sample_id, label, question, ...).
    - ``tasks.json`` and ``label-studio.xml``: the same for Label Studio, and its labelling configuration.

    The files of results of both come back with `read_answers`: the sample id, the neuron, that
    it is about a spot, and the fingerprint of the model travel in the tasks.

    Args:
        folder: The folder to make.
        dataset: Has the pictures.
        source: Maps, for questions about pictures or spots, or patches, for those about neurons.
        questions: What to ask, from `open_questions`.
        question: The words, with ``{label}`` for the class; default those of the paper.
        base_url: Where ``images/`` will be served, such as ``https://example.org/birds``; MTurk needs one. For
            Label Studio's local files: ``/data/local-files/?d=birds``.
        cell: Longer side of each panel in pixels, at least 48.
        overwrite: Replace the folder when it exists, in one step.

    Returns:
        The folder.

    Raises:
        MismatchError: A question is about a picture without a map.
        OutputExistsError: The folder exists, and ``overwrite`` is false.
        OutputError: It cannot be written.
        SettingsError: There is nothing to ask, or the words have another placeholder than ``{label}``.
    """
    if not questions:
        raise SettingsError("expected at least one question, got none: everything was answered often enough")
    words = {kind: question_words(source, question, kind=kind) for kind in {each.kind for each in questions}}

    def fill(fresh: Path) -> None:
        (fresh / "images").mkdir()
        rows = []
        with track("drawing", len(questions)) as advance:
            for number, asked in enumerate(questions, start=1):
                name = f"images/{number:06}-{_plain(asked.id)}.jpg"
                image, label, target = _drawn(dataset, source, asked, cell)
                image.save(fresh / name, format="JPEG", quality=92)
                about = {"image_url": _address(base_url, name), "sample_id": asked.id, "label": label, "target": target}
                about |= {"question": words[asked.kind].format(label=label), "model": source.model}
                about |= {"kind": "spot" if asked.kind == "spot" else None}
                rows.append(about | {"neuron": asked.neuron, "patch": asked.patch})
                advance(1)
        _write_tasks(fresh, rows)

    new_folder(folder, fill, overwrite=overwrite)
    return Path(folder)


def _drawn(
    dataset: ImageDataset, source: SaliencyMaps | NeuronPatches, asked: Question, cell: int
) -> tuple[Any, str, int]:
    """Picture, class name and class of a question."""
    if isinstance(source, SaliencyMaps):
        target = int(source.select([asked.id]).targets[0])
        name = contact_sheets.class_name(dataset, target, source)
        if asked.kind == "spot":
            spot = source.select([asked.id]).spots()
            image = contact_sheets.panels(dataset, spot, asked.id, cell=cell, shows="Bright Spot")
        else:
            image = contact_sheets.panels(dataset, source, asked.id, cell=cell)
    else:
        target = int(dataset.labels[dataset.index_of(asked.id)])
        name = contact_sheets.class_name(dataset, target)
        patch = source.of(int(asked.neuron or 0))[int(asked.patch or 0)]
        image = contact_sheets.patch_picture(dataset, source, patch, cell=cell)
    return image, name, target


def _write_tasks(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = [name for name in _COLUMNS if any(row[name] not in (None, "") for row in rows)]
    with (folder / "tasks.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([row[name] for name in columns] for row in rows)
    tasks = [{"data": {name: row[name] for name in columns}} for row in rows]
    write_json(folder / "tasks.json", tasks)
    (folder / "label-studio.xml").write_text(_CONFIGURATION, encoding="utf-8")


def _plain(sample: str) -> str:
    """A sample id as part of a file name that every system and web server takes."""
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", sample.rpartition("/")[2].rpartition(".")[0] or sample).strip("-.")[:60] or "x"
    )


def _address(base_url: str, name: str) -> str:
    return f"{base_url.rstrip('/')}/{name}" if base_url else name
