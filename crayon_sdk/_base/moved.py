"""Modules under the dotted paths they had before 0.2: each is the one that took its place, with a warning.

What only the package itself imported has no alias here. A line may go a year after its version.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["MOVED", "watch"]

_PACKAGE = "crayon_sdk."
MOVED = {
    "aggregation": "answers.consensus",
    "annotate.serving": "workspace.serving",
    "annotations": "answers.annotations",
    "card": "results.card",
    "changes": "results.weight_changes",
    "checkpoint": "results.correction",
    "comparison": "results.comparison",
    "conversion": "models.rebuild",
    "corrector": "correct.attention",
    "evaluation": "results.evaluation",
    "explainer": "explain.explainer",
    "formats": "answers.formats",
    "gallery": "show.gallery",
    "loading": "models.load",
    "manifest": "workspace.manifest",
    "maps": "explain.maps",
    "onnx_export": "models.onnx",
    "patches": "explain.patches",
    "pictures": "explain.contact_sheets",
    "pixels": "data.pixels",
    "preprocessing": "data.preprocessing",
    "presets": "correct.presets",
    "pruner": "correct.pruning",
    "publishing": "_base.publishing",
    "records": "answers.records",
    "relevance": "answers.relevance",
    "report": "results.report",
    "settings": "correct.settings",
    "simulation": "explain.masks",
}
"""Old dotted path -> new one, below the package. Paths that are folders now (data, models, workspace) are these."""


class _Moved(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        known = fullname.startswith(_PACKAGE) and fullname.removeprefix(_PACKAGE) in MOVED
        return ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = _PACKAGE + MOVED[module.__name__.removeprefix(_PACKAGE)]
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(new)  # what the import system looks up after this call


def watch() -> None:
    """Let the import system know the old paths."""
    sys.meta_path.append(_Moved())
