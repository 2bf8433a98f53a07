"""Shows what a class passes on to another as the method it is.

``suggest = _done_by("answering", Answering.suggest)`` in the body of `Workspace` is an attribute to Griffe, which reads
the source and does not run it. This extension puts `Answering.suggest` in its place: signature and docstring.
"""

from __future__ import annotations

import copy
from typing import Any

import griffe

FORWARDER = "_done_by"


class Forwards(griffe.Extension):
    """Replaces every ``name = _done_by(room, Class.method)`` in a class by a copy of the method."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Look through a package that was just read."""
        for module in _modules(pkg):
            for owner in module.classes.values():
                for name, attribute in [] if owner.is_alias else list(owner.attributes.items()):
                    call = attribute.value
                    if isinstance(call, griffe.ExprCall) and str(call.function) == FORWARDER:
                        shown = copy.copy(pkg[call.arguments[1].canonical_path.partition(".")[2]])
                        shown.lineno = attribute.lineno  # members are shown in the order of the source
                        owner.set_member(name, shown)


def _modules(module: griffe.Module) -> list[griffe.Module]:
    inner = [each for each in module.modules.values() if not each.is_alias]
    return [module, *(found for each in inner for found in _modules(each))]
