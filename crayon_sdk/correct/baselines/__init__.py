"""The methods that the paper compares with, and more of their kind: one short file each, all on one loop.

An objective, its settings, its published settings, and nothing else; losses are in `crayon_sdk.functional`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.correct.baselines.actdiff import ActDiff
    from crayon_sdk.correct.baselines.afr import AutomaticFeatureReweighting
    from crayon_sdk.correct.baselines.boundingbox import BoundingBox
    from crayon_sdk.correct.baselines.cnc import CorrectAndContrast
    from crayon_sdk.correct.baselines.dfr import DeepFeatureReweighting, DeepFeatureReweightingOnTraining
    from crayon_sdk.correct.baselines.evals import LossBasedSampling
    from crayon_sdk.correct.baselines.flac import FLAC
    from crayon_sdk.correct.baselines.gradia import GradIA
    from crayon_sdk.correct.baselines.gradmask import GradMask
    from crayon_sdk.correct.baselines.groupdro import GroupDRO
    from crayon_sdk.correct.baselines.jtt import JustTrainTwice
    from crayon_sdk.correct.baselines.lc import LogitCorrection
    from crayon_sdk.correct.baselines.lff import LearningFromFailure
    from crayon_sdk.correct.baselines.masktune import MaskTune
    from crayon_sdk.correct.baselines.rrr import RightForRightReasons
    from crayon_sdk.correct.baselines.softcon import SoftContrastive

__all__ = [
    "FLAC",
    "ActDiff",
    "AutomaticFeatureReweighting",
    "BoundingBox",
    "CorrectAndContrast",
    "DeepFeatureReweighting",
    "DeepFeatureReweightingOnTraining",
    "GradIA",
    "GradMask",
    "GroupDRO",
    "JustTrainTwice",
    "LearningFromFailure",
    "LogitCorrection",
    "LossBasedSampling",
    "MaskTune",
    "RightForRightReasons",
    "SoftContrastive",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "ActDiff": "actdiff",
        "AutomaticFeatureReweighting": "afr",
        "BoundingBox": "boundingbox",
        "CorrectAndContrast": "cnc",
        "DeepFeatureReweighting": "dfr",
        "DeepFeatureReweightingOnTraining": "dfr",
        "FLAC": "flac",
        "GradIA": "gradia",
        "GradMask": "gradmask",
        "GroupDRO": "groupdro",
        "JustTrainTwice": "jtt",
        "LearningFromFailure": "lff",
        "LogitCorrection": "lc",
        "LossBasedSampling": "evals",
        "MaskTune": "masktune",
        "RightForRightReasons": "rrr",
        "SoftContrastive": "softcon",
    },
)
