"""What came of it: evaluation, comparison, the correction as a checkpoint, its card, report and plots.

Nothing that trains. `facts` is what card and report say alike; `report` lays out a page, `exhibits` draws its pictures,
and the workspace draws one without the page. `consistency` is apart from `correction`: it doubts what that one writes.
`correction` on the Hub is tested in ``test_hub_corrections``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.results.card import Card
    from crayon_sdk.results.comparison import Comparison, compare
    from crayon_sdk.results.correction import Correction, load_correction
    from crayon_sdk.results.evaluation import Evaluation, background_gap, evaluate

__all__ = ["Card", "Comparison", "Correction", "Evaluation", "background_gap", "compare", "evaluate", "load_correction"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Card": "card",
        "Comparison": "comparison",
        "Correction": "correction",
        "Evaluation": "evaluation",
        "background_gap": "evaluation",
        "compare": "comparison",
        "evaluate": "evaluation",
        "load_correction": "correction",
    },
)
