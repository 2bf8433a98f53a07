"""Correct what an image classifier looks at, with simple yes/no answers.

The names below are loaded when they are first used: ``import crayon_sdk`` alone
loads neither torch nor matplotlib.

>>> import crayon_sdk as crayon
>>> issubclass(crayon.errors.SettingsError, crayon.CrayonError)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily
from crayon_sdk._base.moved import watch

if TYPE_CHECKING:
    __version__: str

    from crayon_sdk import errors, functional
    from crayon_sdk.answers.annotations import AnnotationSet
    from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer
    from crayon_sdk.correct.attention import AttentionCorrector
    from crayon_sdk.correct.erm import FurtherTraining
    from crayon_sdk.correct.pruning import NeuronPruner
    from crayon_sdk.correct.unasked import UnaskedCorrector
    from crayon_sdk.data.dataset import ImageDataset
    from crayon_sdk.data.preprocessing import Preprocessing
    from crayon_sdk.errors import CrayonError
    from crayon_sdk.explain.explainer import Explainer
    from crayon_sdk.explain.groups import DiscoveredGroups, find_groups
    from crayon_sdk.explain.maps import SaliencyMaps
    from crayon_sdk.explain.masks import simulate_answers, simulate_neuron_answers, simulate_spot_answers
    from crayon_sdk.explain.objects import ObjectMaps, find_objects
    from crayon_sdk.explain.patches import NeuronPatches
    from crayon_sdk.models.load import load_model
    from crayon_sdk.models.rebuild import to_timm
    from crayon_sdk.models.split import SplitModel
    from crayon_sdk.results.card import Card
    from crayon_sdk.results.comparison import Comparison, compare
    from crayon_sdk.results.correction import Correction, check_output, load_correction
    from crayon_sdk.results.evaluation import Evaluation, background_gap, evaluate
    from crayon_sdk.workspace.manifest import DataSource, ModelSource
    from crayon_sdk.workspace.workspace import Workspace

__all__ = [
    "AnnotationSet",
    "AttentionCorrector",
    "Card",
    "Comparison",
    "Correction",
    "CrayonError",
    "DataSource",
    "DiscoveredGroups",
    "Evaluation",
    "Explainer",
    "FurtherTraining",
    "ImageAnswer",
    "ImageDataset",
    "ModelSource",
    "NeuronAnswer",
    "NeuronPatches",
    "NeuronPruner",
    "ObjectMaps",
    "Preprocessing",
    "SaliencyMaps",
    "SplitModel",
    "SpotAnswer",
    "UnaskedCorrector",
    "Workspace",
    "background_gap",
    "check_output",
    "compare",
    "errors",
    "evaluate",
    "find_groups",
    "find_objects",
    "functional",
    "load_correction",
    "load_model",
    "simulate_answers",
    "simulate_neuron_answers",
    "simulate_spot_answers",
    "to_timm",
]

# Public name -> the module that defines it; the two submodules stand for themselves.
_MODULE_OF = {
    "AnnotationSet": "answers.annotations",
    "AttentionCorrector": "correct.attention",
    "Card": "results.card",
    "Comparison": "results.comparison",
    "Correction": "results.correction",
    "CrayonError": "errors",
    "DataSource": "workspace.manifest",
    "DiscoveredGroups": "explain.groups",
    "Evaluation": "results.evaluation",
    "Explainer": "explain.explainer",
    "FurtherTraining": "correct.erm",
    "ImageAnswer": "answers.records",
    "ImageDataset": "data.dataset",
    "ModelSource": "workspace.manifest",
    "NeuronAnswer": "answers.records",
    "NeuronPatches": "explain.patches",
    "NeuronPruner": "correct.pruning",
    "ObjectMaps": "explain.objects",
    "Preprocessing": "data.preprocessing",
    "SaliencyMaps": "explain.maps",
    "SplitModel": "models.split",
    "SpotAnswer": "answers.records",
    "UnaskedCorrector": "correct.unasked",
    "Workspace": "workspace.workspace",
    "background_gap": "results.evaluation",
    "check_output": "results.correction",
    "compare": "results.comparison",
    "evaluate": "results.evaluation",
    "find_groups": "explain.groups",
    "find_objects": "explain.objects",
    "load_correction": "results.correction",
    "load_model": "models.load",
    "simulate_answers": "explain.masks",
    "simulate_neuron_answers": "explain.masks",
    "simulate_spot_answers": "explain.masks",
    "to_timm": "models.rebuild",
}
_SUBMODULES = ("errors", "functional")

_load, __dir__ = lazily(__name__, {**_MODULE_OF, **dict.fromkeys(_SUBMODULES)})
watch()


def __getattr__(name: str) -> object:
    return _version() if name == "__version__" else _load(name)


def _version() -> str:
    from importlib import metadata  # takes longer than all else here, and ``crayon`` cannot hear Ctrl-C before

    try:
        return metadata.version("crayon-sdk")
    except metadata.PackageNotFoundError:  # used from a source folder that was never installed
        return "0+unknown"
