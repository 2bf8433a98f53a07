"""The numbers that the paper reports, in per cent and seconds, as means of its five seeds."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ABLATION", "ANSWERS", "MEASURES", "RUNTIME", "TABLE1", "TRANSFER"]

Pair = tuple[float | None, float | None]

MEASURES: Mapping[str, tuple[str, str]] = {
    "waterbirds": ("WGA", "MGA"),
    "biased-celeba": ("WGA", "MGA"),
    "backgrounds": ("MR", "BG-Gap"),
}
"""What is measured on each data set: worst and mean group, or Mixed-Rand and the gap."""

_TABLE1 = """
original    28.35 72.08  32.60 73.71  78.27 12.99
attention   72.31 85.23  83.29 89.61  80.85  8.52
pruning     68.97 83.13  69.51 86.75  78.61 12.18
both        76.04 86.03  84.38 90.13  81.66  8.40
jtt         46.88 78.29  35.25 74.29  77.61 12.99
masktune    45.67 79.13  37.72 78.85  78.14 12.54
lff         44.64 77.24  44.35 77.05  78.23 12.41
softcon     46.10 79.93  42.38 76.17  73.14 11.58
flac        40.68 80.77  39.31 76.73  79.91  9.75
lc          61.65 80.43  64.98 84.80  74.78 13.35
cnc         46.98 77.80  37.76 75.34  77.87 12.91
rrr         53.96 82.29  42.16 78.64  80.08 10.68
gradmask    58.38 82.78   8.43 65.72  80.11 10.63
actdiff     64.58 84.54  41.29 79.08  75.84 11.73
gradia      60.87 83.17  41.80 76.58  79.79 11.26
boundingbox 66.36 85.85  33.34 73.03  80.82  9.81
erm         22.49 70.23  37.82 71.86  77.86 12.88
"""


def _by_data(line: str) -> dict[str, Pair]:
    values = [float(each) for each in line.split()[1:]]
    return {name: (values[2 * at], values[2 * at + 1]) for at, name in enumerate(MEASURES)}


TABLE1: Mapping[str, Mapping[str, Pair]] = {line.split()[0]: _by_data(line) for line in _TABLE1.strip().splitlines()}
"""Method -> data set -> both numbers (Table I)."""

ABLATION: Mapping[str, Mapping[str, Pair]] = {
    "relevant only": {"waterbirds": (67.38, None), "biased-celeba": (77.48, None), "backgrounds": (80.52, None)},
    "irrelevant only": {"waterbirds": (46.57, None), "biased-celeba": (67.32, None), "backgrounds": (78.66, None)},
    "both terms": TABLE1["attention"],
    "original": TABLE1["original"],
}
"""Terms of CRAYON-Attention (Table II)."""

ANSWERS: Mapping[tuple[str, int], Mapping[str, Pair]] = {
    ("attention", 500): {"waterbirds": (69.69, 83.64)},
    ("both", 500): {"waterbirds": (74.67, 84.89)},
}
"""Method and number of answered pictures -> both numbers, where the paper says them (Fig. 4)."""

TRANSFER: Mapping[str, Mapping[str, Pair]] = {
    "original": {"waterbirds": (66.23, 84.73), "biased-celeba": (26.76, 71.32), "backgrounds": (87.18, 5.87)},
    "attention": {"waterbirds": (76.73, 88.59), "biased-celeba": (49.50, 79.40), "backgrounds": (89.49, 5.56)},
}
"""A ConvNeXt before and after it is guided by the maps of a ResNet-50 (Table III)."""

RUNTIME: Mapping[str, Mapping[str, float]] = {
    "waterbirds": {"attention": 288.0, "pruning": 111.0, "both": 295.0},
    "biased-celeba": {"attention": 1368.0, "pruning": 1241.0, "both": 1401.0},
    "backgrounds": {"attention": 4512.0, "pruning": 4118.0, "both": 4540.0},
}
"""Seconds of a correction on an NVIDIA A6000."""
