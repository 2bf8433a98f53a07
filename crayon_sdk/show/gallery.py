"""A gallery of maps without a server: one HTML file that needs nothing else, a PNG sheet, or inline in a notebook."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image

from crayon_sdk._base.files import write_text
from crayon_sdk._base.progress import track
from crayon_sdk._base.text import first_few
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.show.overlays import TITLES, Maps, Style, class_name, seen, shown
from crayon_sdk.show.sheets import BAD, Cell, Line, save_sheet

__all__ = ["Entry", "Gallery", "Order", "gallery"]

Order = Literal["given", "random", "widest"]
"""In which order a gallery shows maps; "widest" starts with those that highlight the most."""

_STYLE = """\
.crayon-gallery{font:14px/1.4 system-ui,sans-serif;margin:0 auto;max-width:1400px}
.crayon-gallery h1{font-size:1.4em;margin:.2em 0}
.crayon-gallery p{margin:.2em 0 1em}
.crayon-gallery .cards{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))}
.crayon-gallery figure{border:1px solid #8886;border-radius:6px;margin:0;padding:8px}
.crayon-gallery .panels{display:grid;gap:4px;grid-template-columns:repeat(3,1fr)}
.crayon-gallery img{display:block;height:auto;width:100%}
.crayon-gallery .panels span{font-size:.8em;opacity:.8}
.crayon-gallery figcaption{margin-top:6px;overflow-wrap:anywhere}
.crayon-gallery .warning{color:#c44600;font-weight:600}
"""
_STRIP_STYLE = """\
.crayon-strips{font:13px/1.4 system-ui,sans-serif}
.crayon-strips p{margin:.2em 0}
.crayon-strips .strip{display:flex;flex-wrap:wrap;gap:6px;margin:.4em 0}
.crayon-strips figure{margin:0;width:80px}
.crayon-strips img{border:1px solid #8886;display:block;height:auto;width:100%}
.crayon-strips figcaption{font-size:.85em;line-height:1.2;overflow-wrap:anywhere}
"""


@dataclass(frozen=True)
class Entry:
    """One picture of a gallery.

    Attributes:
        id: Sample id.
        panels: Title and picture of each panel.
        about: Lines below it.
        warning: What is wrong with the map; empty when nothing is.
    """

    id: str
    panels: tuple[tuple[str, Image.Image], ...]
    about: tuple[str, ...]
    warning: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures beside their maps; shows itself in a notebook.

    Attributes:
        cards: One per picture.
        title: What it is about.
        note: Which pictures these are.
        cell: Longer side of a panel in pixels.
    """

    cards: tuple[Entry, ...]
    title: str
    note: str
    cell: int

    def __repr__(self) -> str:
        return f"Gallery({self.note})"

    def __len__(self) -> int:
        return len(self.cards)

    def _repr_html_(self) -> str:
        """What a notebook shows: the gallery without the frame of a page; every name is escaped."""
        cards = "\n".join(_card(card) for card in self.cards)
        return (
            f'<div class="crayon-gallery">\n<style>\n{_STYLE}</style>\n<h1>{_escaped(self.title)}</h1>\n'
            f'<p>{_escaped(self.note)}</p>\n<div class="cards">\n{cards}\n</div>\n</div>\n'
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file: a page that holds its pictures (.html), or a sheet (.png).

        Args:
            path: Its name says which.

        Raises:
            OutputError: It cannot be written.
            SettingsError: Another ending, or nothing to show on a sheet.
        """
        ending = Path(path).suffix.lower()
        if ending in (".html", ".htm"):
            write_text(path, self._page())
            return
        if ending != ".png":
            raise SettingsError(f"expected a name that ends in .html or .png, got {os.fspath(path)!r}")
        rows = [
            [Cell(image, _lines(card, first=not place)) for place, (_, image) in enumerate(card.panels)]
            for card in self.cards
        ]
        headers = [name for name, _ in self.cards[0].panels] if self.cards else []
        save_sheet(path, title=self.title, notes=[self.note], headers=headers, rows=rows, cell=self.cell)

    def _page(self) -> str:
        # Nothing may be fetched or run, whatever a name turns out to hold.
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="color-scheme" content="light dark">\n<title>{_escaped(self.title)}</title>\n</head>\n'
            f"<body>\n{self._repr_html_()}</body>\n</html>\n"
        )


def gallery(
    maps: Maps,
    dataset: ImageDataset,
    path: str | os.PathLike[str] | None = None,
    *,
    ids: Sequence[str] | None = None,
    limit: int | None = 24,
    order: Order = "given",
    seed: int = 0,
    style: Style = "orange",
    title: str = "What the model looks at",
    cell: int = 192,
) -> Gallery:
    """Make a gallery: each picture beside its map in two forms.

    Args:
        maps: The maps.
        dataset: Has the pictures.
        path: A file to write, .html or .png.
        ids: Which samples; default all that there are maps of.
        limit: How many at most, at least 1; ``None`` shows all.
        order: "given"; "random"; or "widest", with the mean of the map, the largest first.
        seed: Of "random".
        style: Of the third panel, "orange" or "red"; the second shows the picture through the map.
        title: First line.
        cell: Longer side of a panel in pixels, at least 48.

    Returns:
        The gallery, which a notebook shows as it is.

    Raises:
        MismatchError: There is no map, or no picture, for a sample.
        OutputError: The file cannot be written.
        SettingsError: A setting is out of range, or it is not known how the pictures were cropped.
    """
    if order not in get_args(Order) or style not in get_args(Style) or cell < 48 or (limit is not None and limit < 1):
        raise SettingsError(
            f"expected order {', '.join(get_args(Order))}, style {', '.join(get_args(Style))}, limit >= 1 or None and "
            f"cell >= 48, got {order!r}, {style!r}, {limit} and {cell}"
        )
    if path is not None and Path(path).suffix.lower() not in (".html", ".htm", ".png"):
        raise SettingsError(f"expected a name that ends in .html or .png, got {os.fspath(path)!r}")
    chosen = maps if ids is None else maps.select(_listed(ids))
    ranked = _ranked(chosen, order, seed)
    kept = ranked[:limit]
    known = set(as_dataset(dataset).ids)
    lacking = [sample for sample in kept if sample not in known]
    if lacking:
        raise MismatchError(
            f"the data set lacks {len(lacking)} of {len(kept)} pictures ({first_few(lacking)}); "
            "give the one that was explained"
        )
    with track("drawing", len(kept)) as advance:
        cards = []
        for sample in kept:
            cards.append(_drawn(chosen, dataset, sample, style, cell))
            advance(1)
    words = {"given": "in the order given", "random": f"at random (seed {seed})", "widest": "widest highlight first"}
    made = Gallery(tuple(cards), title, f"{len(kept):,} of {len(ranked):,} pictures, {words[order]}", cell)
    if path is not None:
        made.save(path)
    return made


def strips(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, Image.Image]]]], note: str) -> str:
    """Rows of small pictures as HTML: what a notebook shows of something that has no pictures of its own.

    Args:
        title: First line.
        rows: Name of each row, may be empty, and its pictures, each with a line about it.
        note: Last line.

    Returns:
        HTML that holds its pictures; every name is escaped.

    Example:
        >>> page = strips("Two", [("", [("a<b", Image.new("RGB", (4, 4)))])], "of many")
        >>> "a&lt;b" in page, page.count("<img"), page.count("data:image/png")
        (True, 1, 1)
    """
    parts = []
    for name, pictures in rows:
        shown = "".join(
            f'<figure title="{_escaped(about)}"><img alt="{_escaped(about)}" width="{image.width}" '
            f'height="{image.height}" src="data:image/png;base64,{_encoded(image, "PNG")}">'
            f"<figcaption>{_escaped(_ending(about))}</figcaption></figure>"
            for about, image in pictures
        )
        parts.append((f"<p>{_escaped(name)}</p>" if name else "") + f'<div class="strip">{shown}</div>')
    return (
        f'<div class="crayon-strips">\n<style>\n{_STRIP_STYLE}</style>\n<p><strong>{_escaped(title)}</strong></p>\n'
        + "\n".join(parts)
        + f"\n<p>{_escaped(note)}</p>\n</div>\n"
    )


def _ending(text: str, most: int = 24) -> str:
    """The end of a text, where paths differ, for two narrow lines."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _listed(ids: Sequence[str]) -> Sequence[str]:
    if isinstance(ids, str):
        raise SettingsError(f"expected a list of sample ids, got the text {ids!r}; write [{ids!r}]")
    return ids


def _ranked(maps: Maps, order: Order, seed: int) -> list[str]:
    rows = list(range(len(maps.ids)))
    if order == "random":
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    elif order == "widest":
        # A map without evidence is all ones and highlights nothing.
        width = torch.where(maps.evidence, maps.values.mean(dim=(1, 2)), 0.0)
        rows = width.argsort(descending=True, stable=True).tolist()
    return [maps.ids[row] for row in rows]


def _drawn(maps: Maps, dataset: ImageDataset, sample: str, style: Style, cell: int) -> Entry:
    own = maps.select([sample])
    styles: tuple[Style, ...] = ("overlaid", style) if style != "overlaid" else ("overlaid",)
    panels = [("Original", seen(dataset, maps.preprocessing, sample, cell))]
    panels += [(TITLES[each], shown(dataset, own, sample, cell, each)) for each in styles]
    group = dataset.group_of(dataset.index_of(sample))
    about = (group, f"evidence for {class_name(dataset, int(own.targets[0]), maps)}")
    return Entry(sample, tuple(panels), about, "" if bool(own.evidence[0]) else "no evidence anywhere")


def _lines(card: Entry, *, first: bool) -> list[Line]:
    """Below a panel of a sheet: what it is under the first, what the map says under the others."""
    if first:
        return [Line(_plain(text)) for text in (card.id, card.about[0])]
    return [Line(_plain(card.about[1])), *([Line(card.warning, BAD)] if card.warning else [])]


def _card(card: Entry) -> str:
    panels = "".join(
        f'<div><img alt="{_escaped(f"{card.id}: {name}")}" width="{image.width}" height="{image.height}" '
        f'loading="lazy" src="data:image/jpeg;base64,{_encoded(image)}"><span>{_escaped(name)}</span></div>'
        for name, image in card.panels
    )
    warning = f'<div class="warning">{_escaped(card.warning)}</div>' if card.warning else ""
    about = "".join(f"<div>{_escaped(text)}</div>" for text in card.about)
    caption = f"<figcaption><strong>{_escaped(card.id)}</strong>{about}{warning}</figcaption>"
    return f'<figure><div class="panels">{panels}</div>{caption}</figure>'


def _encoded(image: Image.Image, format: Literal["JPEG", "PNG"] = "JPEG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=format, quality=88)  # of which PNG knows nothing
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _plain(text: str) -> str:
    """A name on one line, in characters that a file can hold."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _escaped(text: str) -> str:
    return html.escape(_plain(text), quote=True)
