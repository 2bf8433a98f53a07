"""A table as text, for print, as HTML, for notebooks: the same one that the shell shows, as wide as the terminal."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["as_html", "as_text", "fitted", "plain"]

_FOLDED = 20  # what a column whose words may be broken has at least


def as_text(table: Table) -> str:
    """Write a table as text, as wide as it needs to be.

    Example:
        >>> from rich.table import Table
        >>> as_text(Table("group", "n", box=None)).split()
        ['group', 'n']
    """
    from rich.console import Console

    console = Console(width=100, no_color=True, color_system=None)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def as_html(table: Table) -> str:
    """Write a table as an HTML table; whatever is in a cell is escaped.

    Example:
        >>> from rich.table import Table
        >>> "<th>a&lt;b</th>" in as_html(Table("a<b"))
        True
    """
    title = f"<caption>{_words(table.title)}</caption>" if table.title else ""
    head = "".join(f"<th>{_words(column.header)}</th>" for column in table.columns)
    body = ["<tbody>"]
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        sides = ["right" if column.justify == "right" else "left" for column in table.columns]
        shown = (f'<td style="text-align: {side}">{_words(cell)}</td>' for side, cell in zip(sides, cells, strict=True))
        body.append(f"<tr>{''.join(shown)}</tr>")
        if row.end_section:
            body.append("</tbody><tbody>")
    note = f"<p>{_words(table.caption)}</p>" if table.caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead>{''.join(body)}</tbody></table>{note}"


def fitted(table: Table, console: Console) -> RenderableType:
    """Bring a table into the width of a terminal without cutting anything off: names are there to be copied.

    Args:
        table: The table. Its columns get widths in which words stay whole, but for columns that are folded anyway,
            where there is room for that; else long words are broken.
        console: The terminal.

    Returns:
        The table; or, where more than three columns have no room for their words, its rows one below the other, each
        cell after the name of its column.

    Example:
        >>> from rich.console import Console
        >>> from rich.table import Table
        >>> table = Table("name", "paper", "year", "preset")
        >>> table.add_row("afr", "Qiu et al.", "2023", "celeba-own")
        >>> Console(width=24).print(fitted(table, Console(width=24)))  # doctest: +NORMALIZE_WHITESPACE
        afr
          paper   Qiu et al.
          year    2023
          preset  celeba-own
    """
    from rich.measure import measure_renderables

    wide = console.options.update(width=10_000)
    ranges = [measure_renderables(console, wide, [column.header, *column.cells]) for column in table.columns]
    least = []
    for column, (words, whole) in zip(table.columns, ranges, strict=True):
        low = min(words, _FOLDED) if column.overflow == "fold" else words
        least.append(max(whole if column.no_wrap else low, column.min_width or 0))
        column.overflow = "fold"
    wishes = [max(width.maximum - low, 0) for width, low in zip(ranges, least, strict=True)]
    wished = console.measure(table, options=wide).maximum
    spare = console.width - (wished - sum(wishes))
    if spare < 0:
        return _below_each_other(table) if len(table.columns) > 3 else table
    if wished > console.width:  # rich would take from the widest columns, whatever their words are
        for column, low, wish in zip(table.columns, least, wishes, strict=True):
            column.width = low + spare * wish // sum(wishes)
    return table


def _below_each_other(table: Table) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table

    names = [column.header for column in table.columns[1:]]
    parts: list[RenderableType] = [table.title] if table.title else []
    for first, *cells in zip(*(column.cells for column in table.columns), strict=True):
        row = Table("", box=None, show_header=False, pad_edge=False)
        row.add_column(overflow="fold")
        for name, cell in zip(names, cells, strict=True):
            if cell:
                row.add_row(name, cell)
        parts += [first, Padding(row, (0, 0, 0, 2), expand=False)]
    return Group(*parts, *([table.caption] if table.caption else []))


def plain(text: object) -> str:
    r"""Keep a name from being read as rich's markup.

    Example:
        >>> plain("[red] fox")
        '\\[red] fox'
    """
    from rich.markup import escape

    return escape(str(text))


def _words(cell: Any) -> str:
    from rich.text import Text

    return html.escape(Text.from_markup(cell).plain if isinstance(cell, str) else str(cell))
