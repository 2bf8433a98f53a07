"""Shows the keywords that come from declarations: of methods of correction, and of what publishes.

Griffe reads source code, where a class made by `crayon_sdk.correct.method.method` has no constructor, and a function
under `crayon_sdk._base.publishing.takes_hub_options` takes ``**hub``. This extension takes signature and docstring from
the class or function itself, so that the page says what `help()` says.
"""

from __future__ import annotations

import inspect
from pkgutil import resolve_name
from typing import Any

import griffe

KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
}


def written(parameter: inspect.Parameter) -> griffe.Parameter:
    """A parameter as Griffe has it: with its type and default as text."""
    missing = parameter.empty
    return griffe.Parameter(
        parameter.name,
        annotation=None if parameter.annotation is missing else inspect.formatannotation(parameter.annotation),
        kind=KINDS[parameter.kind],
        default=None if parameter.default is missing else repr(parameter.default),
    )


class DeclaredSettings(griffe.Extension):
    """Gives every method its constructor, and what publishes its keywords."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Change a function that was just read."""
        if not any(str(decorator.value) == "takes_hub_options" for decorator in func.decorators):
            return
        made = resolve_name(f"{func.module.path}:{func.path.removeprefix(func.module.path + '.')}")
        func.docstring.value = inspect.getdoc(made) or ""
        func.parameters = griffe.Parameters(
            *(each for each in func.parameters if each.kind is not griffe.ParameterKind.var_keyword),
            *(
                written(each)
                for name, each in inspect.signature(made).parameters.items()
                if name not in func.parameters
            ),
        )

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Change a class that was just read."""
        if not any(str(decorator.value) == "method" for decorator in cls.decorators) or cls.docstring is None:
            return
        module, _, name = cls.path.rpartition(".")
        made = resolve_name(f"{module}:{name}")
        cls.docstring.value = inspect.getdoc(made) or ""
        parameters = [written(each) for each in inspect.signature(made).parameters.values()]
        this = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        cls["__init__"] = griffe.Function(
            "__init__", parameters=griffe.Parameters(this, *parameters), lineno=cls.lineno, endlineno=cls.lineno
        )
