"""Methods of correction by name: those of the package, and what other packages register.

A package registers its own with an entry point of the group ``crayon_sdk.methods``; see "Add your own method" in the
documentation. Names are known without importing anything; a class is imported when it is looked up.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import metadata
from pkgutil import resolve_name
from typing import Any

from crayon_sdk._base.text import unknown_name
from crayon_sdk.errors import SettingsError, shortened

__all__ = [
    "GROUP",
    "NEEDS",
    "SETTINGS",
    "checked_method",
    "made_of",
    "methods",
    "paper_of",
    "settings_of",
    "title_of",
    "with_settings",
]

GROUP = "crayon_sdk.methods"
NEEDS = {
    "answers": "answers about pictures",
    "neuron answers": "answers about neurons",
    "maps": "the maps that were answered",
    "groups": "groups of the training pictures",
    "masks": "object masks of the training pictures",
    "holdout": "pictures to evaluate on",
    "holdout groups": "groups of the pictures to evaluate on",
}
"""What a method may need besides labelled pictures, and in words."""

_OWN = {
    "actdiff": "crayon_sdk.correct.baselines.actdiff:ActDiff",
    "afr": "crayon_sdk.correct.baselines.afr:AutomaticFeatureReweighting",
    "attention": "crayon_sdk.correct.attention:AttentionCorrector",
    "boundingbox": "crayon_sdk.correct.baselines.boundingbox:BoundingBox",
    "both": "crayon_sdk.correct.both:PruningThenAttention",
    "cnc": "crayon_sdk.correct.baselines.cnc:CorrectAndContrast",
    "dfr": "crayon_sdk.correct.baselines.dfr:DeepFeatureReweighting",
    "dfr-tr": "crayon_sdk.correct.baselines.dfr:DeepFeatureReweightingOnTraining",
    "erm": "crayon_sdk.correct.erm:FurtherTraining",
    "evals": "crayon_sdk.correct.baselines.evals:LossBasedSampling",
    "flac": "crayon_sdk.correct.baselines.flac:FLAC",
    "gradia": "crayon_sdk.correct.baselines.gradia:GradIA",
    "gradmask": "crayon_sdk.correct.baselines.gradmask:GradMask",
    "groupdro": "crayon_sdk.correct.baselines.groupdro:GroupDRO",
    "jtt": "crayon_sdk.correct.baselines.jtt:JustTrainTwice",
    "lc": "crayon_sdk.correct.baselines.lc:LogitCorrection",
    "lff": "crayon_sdk.correct.baselines.lff:LearningFromFailure",
    "masktune": "crayon_sdk.correct.baselines.masktune:MaskTune",
    "pruning": "crayon_sdk.correct.pruning:NeuronPruner",
    "refit": "crayon_sdk.correct.refit:LastLayerRefit",
    "rrr": "crayon_sdk.correct.baselines.rrr:RightForRightReasons",
    "softcon": "crayon_sdk.correct.baselines.softcon:SoftContrastive",
    "unasked": "crayon_sdk.correct.unasked:UnaskedCorrector",
}
_OF_OTHERS = ("both",)  # of ours, made of others; known without importing it
SETTINGS = {
    "attention": "crayon_sdk.correct.settings:AttentionSettings",
    "pruning": "crayon_sdk.correct.settings:PruningSettings",
    "erm": "crayon_sdk.correct.settings:ERMSettings",
    "unasked": "crayon_sdk.correct.settings:AttentionSettings",
}
"""Method of the package -> the class of its settings, which loads no torch; of the others it is with the method."""


class _UnknownMethodError(SettingsError, KeyError):
    """Both, so that ``methods.get(name)`` gives ``None`` as of any mapping."""

    __str__ = Exception.__str__


class _Methods(Mapping[str, Any]):
    """Name -> class."""

    def __getitem__(self, name: str) -> Any:
        if name in _OWN:
            return resolve_name(_OWN[name])
        found = [each for each in metadata.entry_points(group=GROUP) if each.name == name]
        places = sorted({each.value for each in found})
        if not places:
            raise _UnknownMethodError(unknown_name(str(name), self, "method"))
        if len(places) > 1:
            raise SettingsError(
                f"several packages call a method {name!r}: {', '.join(places)}; uninstall all but one of them"
            )
        return _loaded(found[0])

    def __contains__(self, name: object) -> bool:
        return any(name == each for each in self)  # without importing anything

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*_OWN, *(each.name for each in metadata.entry_points(group=GROUP))}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<methods: {', '.join(self)}>"


methods: Mapping[str, Any] = _Methods()
"""Every method there is, by name; a class is imported when it is looked up."""


def _loaded(entry: metadata.EntryPoint) -> Any:
    """The class behind an entry point, looked over before it is used."""
    origin = f"method {entry.name!r} ({entry.value}, of another package)"
    try:
        kind: Any = entry.load()
    except Exception as error:  # whatever a stranger's module raises
        why = shortened(" ".join(str(error).split()), 300)
        raise SettingsError(f"{origin} cannot be imported: {type(error).__name__}: {why}") from error
    is_class = inspect.isclass(kind)
    lacking = [name for name in ("fit", "method", "needs", "settings_kind") if not hasattr(kind, name)]
    if not is_class or lacking:
        raise SettingsError(
            f"expected {origin} to be a class with fit, method, needs and settings_kind, such as a subclass of "
            f"crayon_sdk.correct.Method; it lacks {', '.join(lacking) or 'being a class'}"
        )
    if kind.method != entry.name:
        raise SettingsError(f"expected {origin} to call itself that, got method = {kind.method!r} in {kind.__name__}")
    unknown = sorted(set(kind.needs) - set(NEEDS))
    if unknown:
        raise SettingsError(f"{origin}: {unknown_name(unknown[0], NEEDS, 'need')}")
    return kind


def checked_method(name: str) -> str:
    """Give a name back that is a method's.

    Raises:
        SettingsError: There is no such method; the message names the nearest.

    Example:
        >>> checked_method("erm")
        'erm'
    """
    if name not in methods:
        raise _UnknownMethodError(unknown_name(str(name), methods, "method"))
    return name


def made_of(method: str) -> tuple[str, ...]:
    """The methods whose settings a method takes: its own, or of those that it is made of, in their order.

    Raises:
        SettingsError: There is no such method.

    Example:
        >>> made_of("erm"), made_of("both")
        (('erm',), ('pruning', 'attention'))
    """
    found: tuple[str, ...] = getattr(methods[method], "parts", (method,))
    return found


def settings_of(method: str) -> Any:
    """The class of a method's settings.

    Raises:
        SettingsError: There is no such method, or it is made of others.

    Example:
        >>> settings_of("pruning").__name__
        'PruningSettings'
    """
    if method in SETTINGS:
        return resolve_name(SETTINGS[method])
    kind = getattr(methods[method], "settings_kind", None)
    if kind is None:
        raise SettingsError(f"method {method!r} has no settings of its own: it is made of others")
    return kind


def title_of(method: str) -> str:
    """What people call a method; its name where nobody here knows more.

    Example:
        >>> title_of("erm"), title_of("of a package that is gone")
        ('Further training (ERM)', 'of a package that is gone')
    """
    return _said_of(method, "title") or method


def paper_of(method: str) -> str:
    """Where a method is published, in short; "" where nobody here knows.

    Example:
        >>> paper_of("attention")
        'Lee et al., IEEE BigData 2024'
    """
    return _said_of(method, "paper")


def _said_of(method: str, what: str) -> str:
    """What its class says; a record may name a method whose package is gone, or broken."""
    try:
        return str(getattr(methods[method], what, ""))
    except SettingsError:
        return ""


def with_settings() -> tuple[str, ...]:
    """Names of the methods that have settings of their own: all that are not made of others.

    Example:
        >>> with_settings()[:3]
        ('attention', 'pruning', 'erm')
    """
    return (*SETTINGS, *(name for name in methods if name not in SETTINGS and name not in _OF_OTHERS))
