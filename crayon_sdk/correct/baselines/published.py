"""What published settings of the compared methods have in common."""

from __future__ import annotations

from typing import Any

__all__ = ["COMPARED", "OWN"]

OWN: dict[str, Any] = {"scheduler": "none", "average_decay": 0.0, "logit_adjustment": 0.0, "reduction": "mean"}
"""Of the code of the methods' authors: nothing that this package adds, and means over a batch."""

COMPARED: dict[str, dict[str, Any]] = {
    "waterbirds": {**OWN, "epochs": 10, "batch_size": 128, "weight_decay": 1e-4},
    "biased-celeba": {**OWN, "epochs": 10, "batch_size": 64, "weight_decay": 1e-4},
    "backgrounds": {**OWN, "epochs": 10, "batch_size": 256, "weight_decay": 1e-4},
}
"""Of CRAYON's authors for all methods that they compare with, by data set: Adam, and what a method does not say itself.
Their code of the compared methods is not public: whether it takes means is not stated."""
