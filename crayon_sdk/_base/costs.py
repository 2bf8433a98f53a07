"""What the methods of this package cost, as ``benchmarks/methods.py --keep`` measured and wrote it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FILE", "Cost", "cost_of", "measured_with"]

FILE = Path(__file__).with_name("costs.json")
"""Written by the benchmark, never by hand."""


@dataclass(frozen=True)
class Cost:
    """What a method costs, in units of further training of the same network on the same pictures.

    Attributes:
        step: Time of a step in those of a step of further training; ``None`` where no network is trained.
        whole: Time of a whole correction in epochs of further training, with all that comes before the first step.
        epochs: For how many epochs it trained in it.
    """

    step: float | None
    whole: float
    epochs: int

    @property
    def in_words(self) -> str:
        """Short, for a table."""
        return f"{self.whole:.1f} epochs in all" if self.step is None else f"{self.step:.2f} a step"


@functools.cache
def _kept() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def cost_of(method: str) -> Cost | None:
    """What a method costs; nothing where it was not measured, as of other packages.

    Example:
        >>> cost_of("erm").step, cost_of("of another package")
        (1.0, None)
    """
    about = _kept()["methods"].get(method)
    return None if about is None else Cost(about["step"], about["whole"], _kept()["epochs"])


def measured_with() -> str:
    """Network, pictures and machine of the measurement, in a sentence.

    Example:
        >>> measured_with().startswith("Measured with ")
        True
    """
    kept = _kept()
    return (
        f"Measured with {kept['model']} at {kept['size']} pixels, {kept['batch']} pictures a step, on "
        f"{kept['machine']['cpu'] if kept['machine']['gpu'] == 'none' else kept['machine']['gpu']}"
    )
