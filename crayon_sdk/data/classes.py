"""Which class of the data is which class of a model: by name, by what the user says, or by number.

The one place where the two lists meet. A model that names its classes decides their order and their
names; data whose labels are only numbers goes by number; everything else is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from crayon_sdk._base.text import first_few
from crayon_sdk.errors import SettingsError

__all__ = ["ClassMap", "are_numbers", "checked_class_map", "match_classes"]

ClassMap = Mapping[str, str | int]

_SHOWN = 10
_NOTHING: Mapping[str, str] = MappingProxyType({})


def are_numbers(names: Sequence[str]) -> bool:
    """Tell whether names only count: 0 and on, or -1 and 1.

    >>> [are_numbers(names) for names in (("0", "1"), ("-1", "1"), ("1", "0"), ("cat", "dog"))]
    [True, True, False, False]
    """
    return tuple(names) in (("-1", "1"), tuple(map(str, range(len(names)))))


def match_classes(
    data: Sequence[str],
    model: Sequence[str],
    count: int,
    *,
    needed: Iterable[str],
    class_map: ClassMap | None = None,
    guessed: bool = False,
    aliases: Mapping[str, str] = _NOTHING,
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Say which number in the model every class of the data has.

    Args:
        data: Names of the classes of the data, in its order.
        model: Those of the model, in its order; may be empty.
        count: How many classes the model has.
        needed: Names that must have a number: those that have samples.
        class_map: What the user says: names in the data to names, or numbers, in the model.
        guessed: The names in the data are a guess, made from numbers.
        aliases: Other names of classes of the model, as "label_descriptions" has them.

    Returns:
        The names of the model's classes, and the numbers by the names in the data.

    Raises:
        SettingsError: It cannot be said; the message has both lists and what to do.

    Example:
        >>> match_classes(["bird", "fish"], ["fish", "bird"], 2, needed=["bird", "fish"])
        (('fish', 'bird'), {'bird': 1, 'fish': 0})
    """
    wanted = [name for name in data if name in set(needed)]
    names = () if are_numbers(model) else tuple(model)
    if names == tuple(data):
        numbers = {name: number for number, name in enumerate(data)}
    else:
        numbers = _by_name(data, names, aliases)
    said = {name: _number(name, given, names, count) for name, given in (class_map or {}).items()}
    numbers |= said
    missing = [name for name in wanted if name not in numbers]
    if missing and not said and len(data) == count and (not names or guessed or are_numbers(data)):
        numbers, missing = {name: number for number, name in enumerate(data)}, []
    # Two classes become one only where the user says so of both.
    by_name = [numbers[name] for name in wanted if name in numbers and name not in said]
    if missing or len(set(by_name)) < len(by_name) or not set(by_name).isdisjoint(said.values()):
        raise SettingsError(_refusal(data, names, count, missing))
    return names or _named(count, numbers), numbers


def checked_class_map(class_map: ClassMap | None, names: Sequence[str]) -> dict[str, str | int] | None:
    """Give a class map back whose keys are classes of the data.

    Raises:
        SettingsError: It is no such map.
    """
    if class_map is None:
        return None
    if not isinstance(class_map, Mapping) or not all(
        isinstance(value, str | int) and not isinstance(value, bool) for value in class_map.values()
    ):
        raise SettingsError(
            f'class_map must say names in the data and names or numbers in the model, {{"bird": "waterbird"}}, '
            f"got {class_map!r}"
        )
    unknown = [name for name in class_map if name not in names]
    if unknown:
        raise SettingsError(
            f"class_map names {first_few(unknown)}, which the data does not have; its classes are "
            f"{first_few(names, _SHOWN)}"
        )
    return dict(class_map)


def _by_name(data: Sequence[str], model: Sequence[str], aliases: Mapping[str, str]) -> dict[str, int]:
    """Equal names first, then names that differ in capitals, spaces or hyphens, then other names; one of each."""
    exact: dict[str, list[int]] = {}
    plain: dict[str, list[int]] = {}
    other: dict[str, list[int]] = {}
    for number, name in enumerate(model):
        exact.setdefault(name, []).append(number)
        plain.setdefault(_plain(name), []).append(number)
        about = aliases.get(name, "")
        for alias in {_plain(part) for part in (about, *about.split(","))} - {""}:
            other.setdefault(alias, []).append(number)
    found = {}
    for name in data:
        hits = exact.get(name) or plain.get(_plain(name)) or other.get(_plain(name)) or []
        if len(hits) == 1:
            found[name] = hits[0]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _number(name: str, given: str | int, model: Sequence[str], count: int) -> int:
    if isinstance(given, str) and model.count(given) == 1:
        return model.index(given)
    if isinstance(given, int) or (not model and given.isdecimal()):
        number = int(given)
        if 0 <= number < count:
            return number
    has = f"its classes are {first_few(model, _SHOWN)}" if model else "its classes have no names"
    raise SettingsError(
        f"class_map says that {name!r} is {given!r}, which the model does not have; {has}, with the numbers 0 to "
        f"{count - 1}"
    )


def _named(count: int, numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Name the classes of a model without names after the data."""
    called: list[list[str]] = [[] for _ in range(count)]
    for name, number in numbers.items():
        called[number].append(name)
    return tuple(names[0] if len(names) == 1 else str(number) for number, names in enumerate(called))


def _refusal(data: Sequence[str], model: Sequence[str], count: int, missing: Sequence[str]) -> str:
    lists = f"the data has {len(data)} ({first_few(data, _SHOWN)}), the model {count:,} "
    lists += f"({first_few(model, _SHOWN)})" if model else "without names"
    unclear = missing or data
    example = dict.fromkeys(unclear[:2], model[0] if model else 0)
    if len(example) == 2:
        example[unclear[1]] = model[-1] if model else 1
    told = json.dumps(example, ensure_ascii=False)
    which = f" {first_few(missing)} cannot be found in the model." if missing and model else ""
    return (
        f"expected data and model to have the same classes: {lists}.{which} Say which class of the model each of the "
        f"data's is, by name or number, for instance class_map={told}; or take a model that was trained on these "
        "classes"
    )
