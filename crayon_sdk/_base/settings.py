"""Classes of settings: a line declares a setting, with its type, range, default and sentence.

From that line come the check of what is given, the keywords of a constructor and their documentation, the section of
``crayon.toml``, the option of the command line and the page of the reference. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import dataclass_transform, is_typeddict  # in typing from Python 3.11 on

from crayon_sdk._base.text import unknown_name
from crayon_sdk.errors import SettingsError, shortened

__all__ = [
    "CONFIG",
    "Count",
    "Number",
    "OneOrMore",
    "Setting",
    "Share",
    "alternatives",
    "check_names",
    "refusal",
    "settings",
    "settings_in",
]

KindT = TypeVar("KindT")
Count = Annotated[int, Field(ge=0)]
OneOrMore = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(kind: type[KindT]) -> type[KindT]:
    """Make a class of settings: a frozen dataclass, keyword-only, that checks its values when it is made.

    A range is written into the type, ``Annotated[float, Field(ge=0)]``; a choice is a ``Literal``; the sentence is
    the string below the line. What is not finite, unknown, or of another type is refused with a `SettingsError`.

    Args:
        kind: With a line for each setting. One that changes only a default of the class above it needs no sentence.

    Example:
        >>> @settings
        ... class Speed:
        ...     lr: Annotated[float, Field(ge=0)] = 0.1
        >>> Speed(lr=-1)
        Traceback (most recent call last):
        crayon_sdk.errors.SettingsError: expected lr to be a number >= 0, got -1
        >>> Speed(rl=0.2)
        Traceback (most recent call last):
        crayon_sdk.errors.SettingsError: there is no setting of Speed called 'rl'; did you mean 'lr'?
    """
    made: Any = checked_dataclass(kind, frozen=True, kw_only=True, config=CONFIG)
    check = made.__init__

    @functools.wraps(check)
    def init(self: Any, **values: Any) -> None:
        try:
            check(self, **values)
        except ValidationError as error:
            raise SettingsError(refusal(error, made)) from error

    made.__init__ = init
    found: type[KindT] = made
    return found


@dataclass(frozen=True)
class Setting:
    """One setting of a class.

    Attributes:
        name: As it is typed.
        hint: Its type, with its range.
        default: ``dataclasses.MISSING`` where there is none.
        allowed: What it may be, in words.
        text: What it is.
    """

    name: str
    hint: Any
    default: Any
    allowed: str
    text: str

    @property
    def about(self) -> str:
        """What it is, and what it may be."""
        limited = get_origin(self.hint) is not None  # beyond its type
        return f"{self.text} {self.allowed[:1].upper()}{self.allowed[1:]}." if limited else self.text

    @property
    def sentence(self) -> str:
        """All of it: what it is, what it may be, and what it is when nobody says it."""
        return self.about + ("" if self.default in (None, dataclasses.MISSING) else f" Default {self.default!r}.")


@functools.cache
def settings_in(kind: type) -> dict[str, Setting]:
    """Every setting of a class, by name, in the order in which they are declared.

    Args:
        kind: Made by `settings`; or a `TypedDict` under ``with_config(CONFIG)``, whose defaults are ``None``, or false
            where that cannot be.
    """
    hints = get_type_hints(kind, include_extras=True)
    texts: dict[str, str] = {}
    if is_typeddict(kind):
        described = TypeAdapter(kind).json_schema()["properties"]
        texts = {name: " ".join(described[name].get("description", "").split()) for name in hints}
        defaults = {name: False if hint is bool else None for name, hint in hints.items()}
        return {name: Setting(name, hint, defaults[name], _allowed(hint), texts[name]) for name, hint in hints.items()}
    for base in reversed(kind.__mro__):
        fields = vars(base).get("__pydantic_fields__", {})
        texts |= {name: " ".join(field.description.split()) for name, field in fields.items() if field.description}
    return {
        field.name: Setting(
            name=field.name,
            hint=hints[field.name],
            default=field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
            allowed=_allowed(hints[field.name]),
            text=texts.get(field.name, ""),
        )
        for field in dataclasses.fields(kind)
    }


def check_names(names: Iterable[str], known: Collection[str], what: str) -> None:
    """Raise `SettingsError` where a name is none of those that are known; it names the nearest."""
    for name in names:
        if name not in known:
            raise SettingsError(unknown_name(name, known, what))


def refusal(error: ValidationError, kind: type, called: Callable[[str], str] = str) -> str:
    """Say what is wrong with the first setting that was refused: what was expected, and what came.

    Args:
        error: What pydantic says.
        kind: The class of settings.
        called: From the name of a setting to what somebody typed.
    """
    problem = error.errors(include_url=False)[0]
    name, known = str(problem["loc"][0]) if problem["loc"] else "", settings_in(kind)
    if name not in known and name:
        return unknown_name(name, known, f"setting of {kind.__name__}")
    if not name or problem["type"] == "value_error":  # a check of the class's own, which says it all
        return problem["msg"].removeprefix("Value error, ")
    given = "nothing" if problem["type"] == "missing" else shortened(repr(problem["input"]), 200)
    inside = any(get_origin(kind) in (dict, tuple) for kind in alternatives(known[name].hint)) and problem["loc"][1:]
    place = f" at {inside[0]!r}" if inside else ""
    return f"expected {called(name)} to be {known[name].allowed}, got {given}{place}"


def alternatives(hint: Any) -> list[Any]:
    """The types that a setting may have; what is annotated stays so.

    >>> alternatives(Literal["a"] | int | None)
    [typing.Literal['a'], <class 'int'>]
    """
    if get_origin(hint) is Annotated and get_origin(get_args(hint)[0]) in (types.UnionType, Union):
        hint = get_args(hint)[0]
    if get_origin(hint) in (types.UnionType, Union):
        return [kind for each in get_args(hint) for kind in alternatives(each)]
    return [] if hint is type(None) else [hint]


def _allowed(hint: Any) -> str:
    return " or ".join(_in_words(each) for each in alternatives(hint))


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    bounds: dict[str, Any] = {}
    kind = hint
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        for mark in marks:
            for each in getattr(mark, "metadata", None) or [mark]:  # a Field of pydantic's holds several
                bounds |= {name: getattr(each, name) for name in _BOUNDS if getattr(each, name, None) is not None}
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a table"}
    what = words.get(get_origin(kind) or kind, "a list of names" if get_origin(kind) is tuple else str(kind))
    shown = {name: f"{bound:g}" if isinstance(bound, float) else str(bound) for name, bound in bounds.items()}
    if shown.keys() == {"ge", "le"}:
        return f"{what} from {shown['ge']} to {shown['le']}"
    limits = " and ".join(f"{sign} {shown[name]}" for name, sign in _BOUNDS.items() if name in shown)
    return f"{what} {limits}".rstrip()
