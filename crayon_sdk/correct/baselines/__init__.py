"""The methods that the paper compares with, and more of their kind: one short file each, all on one loop.

An objective, its settings, its published settings, and nothing else; losses are in `crayon_sdk.functional`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.correct.baselines.cnc import CorrectAndContrast
    from crayon_sdk.correct.baselines.flac import FLAC
    from crayon_sdk.correct.baselines.jtt import JustTrainTwice
    from crayon_sdk.correct.baselines.lc import LogitCorrection
    from crayon_sdk.correct.baselines.lff import LearningFromFailure
    from crayon_sdk.correct.baselines.masktune import MaskTune
    from crayon_sdk.correct.baselines.softcon import SoftContrastive

__all__ = [
    "FLAC",
    "CorrectAndContrast",
    "JustTrainTwice",
    "LearningFromFailure",
    "LogitCorrection",
    "MaskTune",
    "SoftContrastive",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "CorrectAndContrast": "cnc",
        "FLAC": "flac",
        "JustTrainTwice": "jtt",
        "LearningFromFailure": "lff",
        "LogitCorrection": "lc",
        "MaskTune": "masktune",
        "SoftContrastive": "softcon",
    },
)
