from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from PIL import Image

from crayon_sdk.errors import MissingExtraError, install_extra
from crayon_sdk.show import sheets, style

matplotlib = pytest.importorskip("matplotlib")


def drawn():
    with style.figure(2, 1) as figure:
        figure.add_subplot().plot([0, 1], label="$5 and _x_")
        return style.png(figure)


def test_the_same_figure_gives_the_same_bytes_whatever_the_caller_set():
    before = dict(matplotlib.rcParams)
    first = drawn()
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 20}):
        assert drawn() == first


def test_no_window_system_is_touched():
    code = "from crayon_sdk.show.style import figure, png\nwith figure(1, 1) as f: png(f)\nimport sys\n"
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_name_that_the_font_lacks_is_no_warning():
    with style.figure(2, 1) as figure:
        figure.text(0, 0.5, "\u9ce5 \U0001f426 $\\frac$")
        assert style.png(figure).startswith(b"\x89PNG")


def luminance(colour):
    def linear(value):
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(each / 255) for each in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def rgb(text):
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))


def test_text_is_dark_enough_to_read():
    """WCAG 2 asks for 4.5 : 1 on small text."""
    for colour in (style.INK, style.GOOD, style.BAD):
        assert contrast(colour, (255, 255, 255)) > 4.5


def test_before_and_after_differ_in_lightness_too():
    assert contrast(rgb(style.BEFORE), rgb(style.AFTER)) > 2


def seen_by(colour, kind):
    """Machado, Oliveira and Fernandes (2009), severity 1: what a dichromat sees, in linear RGB."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    }
    linear = [(each / 255) ** 2.2 for each in colour]
    rows = [sum(weight * value for weight, value in zip(row, linear, strict=True)) for row in matrices[kind]]
    return [255 * min(max(row, 0), 1) ** (1 / 2.2) for row in rows]


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_pairs_that_must_be_told_apart_are_also_by_colour_blind_people(kind):
    for one, other in ((style.GOOD, style.BAD), (rgb(style.BEFORE), rgb(style.AFTER))):
        first, second = seen_by(one, kind), seen_by(other, kind)
        assert sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5 > 80


def test_sheets_and_plots_share_their_colours():
    assert (sheets.GOOD, sheets.BAD, sheets.INK) == (style.GOOD, style.BAD, style.INK)


def test_plots_are_on_white():
    assert Image.open(io.BytesIO(drawn())).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_extra("report"))), style.figure(1, 1):
        pass
