"""How everything that the package draws looks: one palette, one way of plotting.

The colours are those of Okabe and Ito, darkened for text where they need to be: they are told
apart by colour-blind people, and on a grey print by their lightness. Nothing relies on colour
alone; bars, lines and words say the same by their place, their pattern or their label.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crayon_sdk.errors import MissingExtraError, install_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AFTER", "BAD", "BEFORE", "GOOD", "INK", "LINES", "figure", "needs_matplotlib", "png"]

Colour = tuple[int, int, int]

INK: Colour = (40, 40, 40)
# Blue and vermilion, darkened until small text in them is easy to read on white.
GOOD: Colour = (0, 100, 160)
BAD: Colour = (196, 70, 0)
BEFORE, AFTER = "#e69f00", "#0072b2"  # orange, blue: also light and dark
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_RULES: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": "#282828",
    "axes.edgecolor": "#8c8c8c",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#282828",
    "ytick.color": "#282828",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a class may be called "$5"
    "text.usetex": False,
}


def needs_matplotlib() -> None:
    """Say early that plots cannot be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"plots need matplotlib: {install_extra('report')}") from error


@contextlib.contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in our style, without touching what the caller set in matplotlib.

    Args:
        width: In inches.
        height: In inches.

    Yields:
        An empty figure; it belongs to no window and needs no closing.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    needs_matplotlib()
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", _RULES]):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        yield made


def png(drawn: Figure) -> bytes:
    """The bytes of a figure as PNG; the same figure gives the same bytes."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the page beside it has it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        drawn.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()
