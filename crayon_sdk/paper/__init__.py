"""The data sets and the tables of the paper, and the tables on data and models of one's own.

- [`datasets`][crayon_sdk.paper.datasets.about]: what the paper's numbers are measured on, read as published.
- [`fetch`][crayon_sdk.paper.fetch]: brings one, when somebody asks for it.
- [`challenge`][crayon_sdk.paper.challenge]: the Backgrounds Challenge as one call.
- [`protocol`][crayon_sdk.paper.protocol]: the rows of Table I, what is searched for each of them, and how it is chosen;
  loads no torch.
- [`table1`][crayon_sdk.paper.table1]: runs it, cell by cell.
- [`outcome`][crayon_sdk.paper.outcome]: what came out: table, figure, and whether the paper's claim holds.
- [`tables`][crayon_sdk.paper.tables]: the others, and Table I with published settings; loads no torch.
- [`measured`][crayon_sdk.paper.measured]: runs them, [`findings`][crayon_sdk.paper.findings] is what came out, with the
  [`numbers`][crayon_sdk.paper.numbers] of the paper beside.
- [`runner`][crayon_sdk.paper.runner]: the cells of all tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.paper.challenge import Challenge, run_challenge
    from crayon_sdk.paper.outcome import Outcome
    from crayon_sdk.paper.protocol import ROWS, Protocol, Row
    from crayon_sdk.paper.table1 import Pictures, read_pictures, run_table

__all__ = ["ROWS", "Challenge", "Outcome", "Pictures", "Protocol", "Row", "read_pictures", "run_challenge", "run_table"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Challenge": "challenge",
        "Outcome": "outcome",
        "Pictures": "table1",
        "Protocol": "protocol",
        "ROWS": "protocol",
        "Row": "protocol",
        "run_challenge": "challenge",
        "read_pictures": "table1",
        "run_table": "table1",
    },
)
