"""Shared fixtures: the optional data folder beside the project, small pictures, small models."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real pictures, weights and golden numbers that is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(
            f"no folder {SHARED.name!r} beside the project: real pictures and golden numbers are not distributed"
        )
    return SHARED
