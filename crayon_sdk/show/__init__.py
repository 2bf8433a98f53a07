"""How pictures are drawn: maps over pictures, captions, sheets, galleries, one style.

Nothing that computes a map, and no model. `overlays` is tested in ``test_gallery``, `sheets` in ``test_style`` and
``explain/test_contact_sheets``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.show.gallery import Gallery, gallery

__all__ = ["Gallery", "gallery"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Gallery": "gallery",
        "gallery": "gallery",
    },
)
