"""What every method of correction is made of: its settings, a model, and where it runs."""

from __future__ import annotations

import functools
import inspect
import os
import re
from dataclasses import KW_ONLY, InitVar, asdict, dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, dataclass_transform, get_type_hints

import torch
from torch import nn

from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk._base.settings import check_names, settings_in
from crayon_sdk.correct.settings import TrainingSettings
from crayon_sdk.models.split import SplitModel, as_split_model

__all__ = ["Method", "method"]

KindT = TypeVar("KindT")
SettingsT = TypeVar("SettingsT", bound=TrainingSettings)


class _Kept(Generic[SettingsT]):
    """What is kept of what is given: of another type, so that it is declared apart."""

    model: SplitModel
    device: torch.device
    precision: str
    checkpoint_dir: str | os.PathLike[str] | None
    autocast: torch.dtype | None
    settings: SettingsT


@dataclass(frozen=True, eq=False, repr=False)
class Method(_Kept[SettingsT]):
    """Base of the methods: ``class Mine(Method[MySettings], MySettings)`` under `method` has all their keywords.

    Args:
        model: A `SplitModel`, timm model, or the model of a `Correction`. It is not changed.
        device: "auto" (a GPU when there is one) or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        checkpoint_dir: Where the state is kept; a run that was stopped continues there.

    Attributes:
        settings: All settings as they count: checked, with what depends on the model filled in.
        autocast: Reduced precision of the trunk.
    """

    model: InitVar[nn.Module]
    _: KW_ONLY
    device: InitVar[str | torch.device] = "auto"
    precision: InitVar[str] = "auto"
    checkpoint_dir: InitVar[str | os.PathLike[str] | None] = None

    settings_kind: ClassVar[Any]
    """The class of the settings."""
    _shown: ClassVar[tuple[str, ...]] = ("epochs", "lr")

    def __post_init__(
        self,
        model: nn.Module,
        device: str | torch.device,
        precision: str,
        checkpoint_dir: str | os.PathLike[str] | None,
    ) -> None:
        kept = vars(self)  # past the lock of a frozen dataclass
        kept["model"] = as_split_model(model)
        kept["device"] = resolve_device(device, self.model.device)
        kept["precision"], kept["autocast"] = precision, resolve_precision(precision, self.device)
        kept["checkpoint_dir"] = checkpoint_dir
        given = self.settings_kind(**{name: kept[name] for name in settings_in(self.settings_kind)})
        kept["settings"] = self.resolved(given)
        kept |= asdict(self.settings)  # what the method itself is asked for is what counts, too

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self.settings, name)!r}" for name in self._shown)
        return f"{type(self).__name__}({self.model.architecture}, {shown}, on {self.device})"

    def resolved(self, settings: SettingsT) -> SettingsT:
        """Settings with what depends on the model checked and filled in; a method may have some.

        Raises:
            SettingsError: A setting does not fit the model.
        """
        return settings


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def method(kind: type[KindT]) -> type[KindT]:
    """Make a class of a `Method` and its settings: its constructor takes them all, and says so.

    Args:
        kind: The class, with the class of its settings among its bases.
    """
    made: Any = dataclass(frozen=True, kw_only=True, eq=False, repr=False)(kind)
    made.settings_kind = next(base for base in made.__mro__ if "__pydantic_fields__" in vars(base))
    init, known = made.__init__, settings_in(made.settings_kind)
    hints = get_type_hints(Method.__post_init__) | get_type_hints(made.settings_kind)
    signature = inspect.signature(init)
    parameters = [
        each.replace(annotation=hints.get(name, each.annotation)) for name, each in signature.parameters.items()
    ]
    names = list(signature.parameters)[1:]

    @functools.wraps(init)
    def checked(self: Any, *positional: Any, **given: Any) -> None:
        check_names(given, names, f"setting of {type(self).__name__}")
        init(self, *positional, **given)

    made.__init__ = checked
    made.__eq__, made.__hash__ = object.__eq__, object.__hash__  # not those of the settings: it holds a model
    made.__signature__ = signature.replace(parameters=parameters[1:], return_annotation=signature.empty)
    base = inspect.getdoc(Method) or ""
    beside = base.partition("Args:\n")[2].partition("\n\n")[0]
    first, _, others = beside.partition("\n")
    own = "\n".join(f"    {name}: {setting.about}" for name, setting in known.items())
    made.__doc__ = _with_arguments(inspect.cleandoc(made.__doc__ or ""), f"{first}\n{own}\n{others}")
    found: type[KindT] = made
    return found


def _with_arguments(doc: str, arguments: str) -> str:
    """A docstring with a section on arguments, before what may be raised and the examples."""
    end = re.search(r"^(Raises|Examples?):$", doc, re.M)
    at = end.start() if end else len(doc)
    return f"{doc[:at].rstrip()}\n\nArgs:\n{arguments}\n\n{doc[at:]}".rstrip() + "\n"
