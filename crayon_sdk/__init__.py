"""Correct what an image classifier looks at, with simple yes/no answers.

The names below are loaded when they are first used: ``import crayon_sdk`` alone
loads neither torch nor matplotlib.

>>> import crayon_sdk as crayon
>>> issubclass(crayon.errors.SettingsError, crayon.CrayonError)
True
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crayon_sdk import errors, functional
    from crayon_sdk.annotations import AnnotationSet
    from crayon_sdk.card import Card
    from crayon_sdk.checkpoint import Correction, check_output, load_correction
    from crayon_sdk.comparison import Comparison, compare
    from crayon_sdk.conversion import to_timm
    from crayon_sdk.corrector import AttentionCorrector
    from crayon_sdk.data import ImageDataset
    from crayon_sdk.errors import CrayonError
    from crayon_sdk.evaluation import Evaluation, background_gap, evaluate
    from crayon_sdk.explainer import Explainer
    from crayon_sdk.loading import load_model
    from crayon_sdk.manifest import DataSource, ModelSource
    from crayon_sdk.maps import SaliencyMaps
    from crayon_sdk.models import SplitModel
    from crayon_sdk.patches import NeuronPatches
    from crayon_sdk.preprocessing import Preprocessing
    from crayon_sdk.pruner import NeuronPruner
    from crayon_sdk.records import ImageAnswer, NeuronAnswer
    from crayon_sdk.simulation import simulate_answers, simulate_neuron_answers
    from crayon_sdk.workspace import Workspace

__all__ = [
    "AnnotationSet",
    "AttentionCorrector",
    "Card",
    "Comparison",
    "Correction",
    "CrayonError",
    "DataSource",
    "Evaluation",
    "Explainer",
    "ImageAnswer",
    "ImageDataset",
    "ModelSource",
    "NeuronAnswer",
    "NeuronPatches",
    "NeuronPruner",
    "Preprocessing",
    "SaliencyMaps",
    "SplitModel",
    "Workspace",
    "background_gap",
    "check_output",
    "compare",
    "errors",
    "evaluate",
    "functional",
    "load_correction",
    "load_model",
    "simulate_answers",
    "simulate_neuron_answers",
    "to_timm",
]

try:
    __version__ = metadata.version("crayon-sdk")
except metadata.PackageNotFoundError:  # used from a source folder that was never installed
    __version__ = "0+unknown"

# Public name -> the module that defines it; the two submodules stand for themselves.
_MODULE_OF = {
    "AnnotationSet": "annotations",
    "AttentionCorrector": "corrector",
    "Card": "card",
    "Comparison": "comparison",
    "Correction": "checkpoint",
    "CrayonError": "errors",
    "DataSource": "manifest",
    "Evaluation": "evaluation",
    "Explainer": "explainer",
    "ImageAnswer": "records",
    "ImageDataset": "data",
    "ModelSource": "manifest",
    "NeuronAnswer": "records",
    "NeuronPatches": "patches",
    "NeuronPruner": "pruner",
    "Preprocessing": "preprocessing",
    "SaliencyMaps": "maps",
    "SplitModel": "models",
    "Workspace": "workspace",
    "background_gap": "evaluation",
    "check_output": "checkpoint",
    "compare": "comparison",
    "evaluate": "evaluation",
    "load_correction": "checkpoint",
    "load_model": "loading",
    "simulate_answers": "simulation",
    "simulate_neuron_answers": "simulation",
    "to_timm": "conversion",
}
_SUBMODULES = ("errors", "functional")


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    """Show the public names and nothing else."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])
