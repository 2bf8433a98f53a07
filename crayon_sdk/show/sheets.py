"""Laying out pictures with captions on a sheet; knows nothing of maps or models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from crayon_sdk._base.files import replace_file
from crayon_sdk._base.text import one_line
from crayon_sdk.errors import SettingsError
from crayon_sdk.show.style import BAD, GOOD, INK, Colour

__all__ = ["BAD", "GOOD", "INK", "Cell", "Line", "save_sheet", "side_by_side"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MARGIN, _GAP, _BLOCK_GAP, _SMALL, _LARGE, _LEADING = 24, 16, 32, 15, 22, 20  # pixels
_LONG = 5  # rows; more stand in two blocks


@dataclass(frozen=True)
class Line:
    """One line of a caption."""

    text: str
    colour: Colour = INK


@dataclass(frozen=True)
class Cell:
    """A picture and the caption below it."""

    image: Image.Image
    caption: Sequence[Line] = field(default=())


def save_sheet(
    path: str | os.PathLike[str],
    *,
    title: str,
    notes: Sequence[str],
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    cell: int,
) -> None:
    """Write a sheet of pictures as a PNG file.

    Args:
        path: The file; its name must end in ".png".
        title: In large letters at the top.
        notes: Below the title; long ones are broken into lines.
        headers: One per column.
        rows: Pictures no larger than ``cell``; a row may be shorter than the headers.
        cell: Width and height in pixels that every picture gets; at least 48.

    Raises:
        SettingsError: Nothing to draw, another file ending, or cells that are too small.
        OutputError: The file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise SettingsError(f"a sheet is a PNG file: expected a name that ends in .png, got {os.fspath(path)!r}")
    if not rows or cell < 48:
        raise SettingsError(f"expected at least one row and cells of 48 pixels or more, got {len(rows)} and {cell}")
    sheet = _draw(title, notes, headers, rows, cell)
    with replace_file(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def side_by_side(cells: Sequence[Cell], cell: int) -> Image.Image:
    """Put pictures of at most ``cell`` pixels in one row, captions below; ``cell`` is at least 48."""
    if not cells or cell < 48:
        raise SettingsError(
            f"expected at least one picture and cells of 48 pixels or more, got {len(cells)} and {cell}"
        )
    high = max(each.image.height for each in cells)
    lines = max(len(each.caption) for each in cells)
    strip = Image.new("RGB", (len(cells) * (cell + _GAP) - _GAP, high + 4 + lines * _LEADING), "white")
    draw = ImageDraw.Draw(strip)
    for column, each in enumerate(cells):
        _draw_cell(strip, draw, each, (column * (cell + _GAP), 0), high + 4, cell)
    return strip


def _draw(
    title: str, notes: Sequence[str], headers: Sequence[str], rows: Sequence[Sequence[Cell]], cell: int
) -> Image.Image:
    arranged, places = _arranged(rows, len(headers), cell)
    width = places[-1] + cell + _MARGIN
    inner = width - 2 * _MARGIN
    top = [(line, _font(_LARGE), INK) for line in _wrapped(title, _font(_LARGE), inner)]
    top += [(line, _font(_SMALL), (90, 90, 90)) for note in notes for line in _wrapped(note, _font(_SMALL), inner)]
    heights = [max(cell_.image.height for cell_ in row if cell_) for row in arranged]
    captions = [max(len(cell_.caption) for cell_ in row if cell_) * _LEADING for row in arranged]
    head = _MARGIN + sum(_leading(font) for _, font, _ in top) + _GAP
    height = head + _LEADING + 6 + sum(heights) + sum(captions) + len(arranged) * (_GAP + 6) + _MARGIN - _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    for text, font, colour in top:
        draw.text((_MARGIN, y), text, font=font, fill=colour)
        y += _leading(font)
    y += _GAP
    for column, x in enumerate(places):
        header = _fitted(headers[column % len(headers)], _font(_SMALL), cell)
        draw.text((x, y), header, font=_font(_SMALL), fill=INK)
    y += _LEADING + 6
    for row, picture_height, caption_height in zip(arranged, heights, captions, strict=True):
        for x, shown in zip(places, row, strict=True):
            if shown is not None:
                _draw_cell(sheet, draw, shown, (x, y), y + picture_height + 4, cell)
        y += picture_height + caption_height + _GAP + 6
    return sheet


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, shown: Cell, place: tuple[int, int], below: int, cell: int
) -> None:
    sheet.paste(shown.image, place)
    for number, line in enumerate(shown.caption):
        text = _fitted(line.text, _font(_SMALL), cell)
        draw.text((place[0], below + number * _LEADING), text, font=_font(_SMALL), fill=line.colour)


def _arranged(rows: Sequence[Sequence[Cell]], columns: int, cell: int) -> tuple[list[list[Cell | None]], list[int]]:
    """Fill rows up, and put the second half of a long sheet beside the first."""
    full: list[list[Cell | None]] = [[*row, *[None] * (columns - len(row))] for row in rows]
    blocks = 2 if len(full) > _LONG else 1
    half = -(-len(full) // blocks)
    if blocks == 2:
        empty: list[Cell | None] = [None] * columns
        full = [[*full[at], *(full[half + at] if half + at < len(full) else empty)] for at in range(half)]
    block = columns * (cell + _GAP) + _BLOCK_GAP
    return full, [
        _MARGIN + number * block + column * (cell + _GAP) for number in range(blocks) for column in range(columns)
    ]


@lru_cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _leading(font: Font) -> int:
    return _LEADING + 10 if font is _font(_LARGE) else _LEADING


def _fitted(text: str, font: Font, width: int) -> str:
    """Shorten a line from the left: the end of a path says more than its beginning."""
    text = one_line(text, limit=1000)  # a name may hold line ends, which no font can measure
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_fitted(line, font, width) for line in lines]
