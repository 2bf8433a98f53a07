"""Names of a folder that load their module when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazily"]


def lazily(package: str, modules: Mapping[str, str | None]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: Its ``__name__``.
        modules: Public name -> the module below the package that defines it; ``None`` for a submodule itself.

    Returns:
        Both functions. A name that was asked for stays in the package, so that it is looked up once.

    Example:
        >>> get, names = lazily("crayon_sdk", {"Evaluation": "results.evaluation", "errors": None})
        >>> "errors" in names(), get("Evaluation").__name__
        (True, 'Evaluation')
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; public names are {', '.join(sorted(modules))}"
            )
        module = modules[name]
        value: object = import_module(f"{package}.{module or name}")
        if module is not None:
            value = getattr(value, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        special = (name for name in vars(sys.modules[package]) if name.startswith("__") and name.endswith("__"))
        return sorted([*modules, *special])

    return get, names
