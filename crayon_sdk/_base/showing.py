"""A table as text, for print, and as HTML, for notebooks: the same one that the shell shows."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["as_html", "as_text", "plain"]


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
