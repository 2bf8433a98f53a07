"""`Method`: what every way of correcting a model shares, and how one is made of its settings."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_type_hints

import torch
from torch import nn
from typing_extensions import dataclass_transform  # in typing from Python 3.11 on

from crayon_sdk._base.launch import launched
from crayon_sdk._base.methods import NEEDS, methods
from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk._base.settings import check_names, settings_in
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.guidance import guidance_answers, guidance_of, taken_for_right
from crayon_sdk.correct.objective import Objective, PixelFeed
from crayon_sdk.correct.presets import preset as preset_of
from crayon_sdk.correct.run_file import RunFile, check_run_folder
from crayon_sdk.correct.start import published_weights, start_of
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import AnswerError, CrayonError, DataError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.models.split import SplitModel, as_split_model
from crayon_sdk.results.correction import Correction

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Method", "check_needs", "made", "method"]

KindT = TypeVar("KindT")
SettingsT = TypeVar("SettingsT", bound="DataclassInstance")
MethodT = TypeVar("MethodT", bound="Method[Any]")


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
    """A way of correcting a model: ``class Mine(Method[MySettings], MySettings)`` under `method` has all keywords.

    A method of yours names itself, says what it needs, and gives its objective; ``fit`` makes a copy of the model,
    trains it, goes on with a run that was stopped, and writes the record.

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

    method: ClassVar[str]
    """What it is called, in the registry and in records."""
    title: ClassVar[str] = ""
    """What people call it, in card and report; its name where it is not said."""
    paper: ClassVar[str] = ""
    """Where it is published, in short, such as "Liu et al., ICML 2021"."""
    settings_kind: ClassVar[Any]
    """Class of its settings, with a default for everything; a `TrainingSettings` where it trains in the loop."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of "answers", "neuron answers", "maps", "groups", "masks", "holdout", "holdout groups"; batches hold what they
    are about."""
    presets: ClassVar[Mapping[str, Any]] = {}
    """Published settings by name."""
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
        if self.whole_batch and hasattr(self.settings, "accumulate"):
            if self.settings.accumulate > 1:
                raise SettingsError(
                    f"expected accumulate=1 for method {self.method!r}, got {self.settings.accumulate}: "
                    f"{self.whole_batch}. Lower batch_size where memory runs out"
                )
            kept["settings"] = replace(self.settings, auto_batch_size=False)
        kept |= asdict(self.settings)  # what the method itself is asked for is what counts, too

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self.settings, name)!r}" for name in self._shown)
        return f"{type(self).__name__}({self.model.architecture}, {shown}, on {self.device})"

    def resolved(self, settings: SettingsT) -> SettingsT:
        """Settings with what depends on the model checked and filled in; a method may have some.

        Raises:
            SettingsError: A setting does not fit the model.
        """
        known: Any = settings
        if getattr(known, "init", "original") == "pretrained":
            known = replace(known, init=published_weights(self.model))
        found: SettingsT = known
        return found

    @classmethod
    def from_preset(cls: type[MethodT], name: str, model: nn.Module, **overrides: Any) -> MethodT:
        """Take the settings of the published runs.

        Args:
            name: "waterbirds", "biased-celeba", "backgrounds", or another one of ``presets``.
            model: The model to correct.
            overrides: Keywords of the constructor, on top.

        Raises:
            SettingsError: There is no such preset, or no such setting.
        """
        if not cls.presets:
            raise SettingsError(f"method {cls.method!r} has no presets, got preset {name!r}; leave it out")
        return cls(model, **{**asdict(preset_of(dict(cls.presets), name)), **overrides})

    def objective(self, model: SplitModel, feed: PixelFeed, settings: Any) -> Objective:
        """What is minimised; overridden by every method.

        Args:
            model: The copy that is corrected, on the device.
            feed: The training set.
            settings: Of this run.
        """
        raise NotImplementedError

    def prepared(self, fit: Fit, feed: PixelFeed, settings: Any, file: RunFile | None) -> Objective:
        """What is minimised, when all that comes before is done; overridden by methods of two stages.

        Args:
            fit: The correction that is being made; `Fit.train_first` trains another network.
            feed: The training set.
            settings: Of this run.
            file: Where its state is kept.
        """
        return self.objective(fit.model, feed, settings)

    @property
    def alone(self) -> str:
        """Why it takes one process, ``""`` where it takes any number; overridden by methods that cannot be shared."""
        return ""

    @property
    def whole_batch(self) -> str:
        """Why a batch cannot come in parts (``accumulate``), ``""`` where it can.

        What needs all pictures of a batch in one process needs them at one time, too; overridden where the reason is
        another.
        """
        return self.alone

    def settings_for(self, maps: SaliencyMaps | None) -> SettingsT:
        """The settings of a run; overridden where they depend on the maps."""
        return self.settings

    def fit(
        self,
        dataset: ImageDataset,
        evaluate_on: ImageDataset | None = None,
        *,
        maps: SaliencyMaps | None = None,
        answers: AnnotationSet | None = None,
        strict: bool = True,
    ) -> Correction:
        """Correct a copy of the model.

        Args:
            dataset: The training set.
            evaluate_on: Measured after every epoch; not used for training.
            maps: The maps that were answered, for a method that needs them.
            answers: Answers about them, for a method that needs them.
            strict: Refuse answers for unknown samples or other maps; else drop and count them.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            AnswerError: No answer can guide anything, or there are none and the method needs some.
            DataError: The method needs groups or masks, and the data set has none.
            MismatchError: Answers, maps and data set do not belong together, or
                ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite; its ``model`` holds
                the weights from before.
            SettingsError: Several processes were launched, and the method takes one (``alone``).
            LostProcessError: Another one of them is gone.
        """
        check_run_folder(self.checkpoint_dir)
        if self.alone and launched()[1] > 1:
            raise SettingsError(
                f"method {self.method!r} works in one process, and {launched()[1]} were launched: {self.alone}. Run it "
                "without the launcher"
            )
        check_needs(self, as_dataset(dataset), evaluate_on, maps=maps, answers=answers)
        used, told, inputs = AnnotationSet(), None, {}
        if maps is not None and answers is not None and {"maps", "answers"} <= self.needs:
            told = used = guidance_answers(answers, maps, dataset, num_classes=self.model.num_classes, strict=strict)
            inputs = {"maps": maps.fingerprint, "answers": used.fingerprint}
        elif maps is not None and "maps" in self.needs:
            told, inputs = taken_for_right(maps, dataset), {"maps": maps.fingerprint}
        settings = self.settings_for(maps)
        start = start_of(self.model, getattr(settings, "init", "original"))
        fit = Fit(self.model, dataset, evaluate_on, self.device, self.autocast, settings)
        if start is not None:
            inputs["start"] = start.fingerprint
            fit.start_from(start)
        dataset = fit.dataset
        file = fit.run_file(self.checkpoint_dir, self.method, **inputs)
        preprocessing = fit.model.preprocessing
        groups = dataset.group_index()[0] if "groups" in self.needs else None
        masks = dataset.mask_tensors(preprocessing) if "masks" in self.needs else None
        with PixelCache(dataset, preprocessing, device=self.device) as cache:
            guidance = None
            if maps is not None and told is not None:
                rule: Any = getattr(settings, "answer_rule", "unanimous")
                zero_maps = getattr(settings, "zero_maps", "skip")
                guidance = guidance_of(
                    dataset,
                    maps,
                    told,
                    fit.map_size(cache),
                    preprocessing=preprocessing,
                    rule=rule,
                    zero_maps=zero_maps,
                )
            feed = PixelFeed(cache, dataset.labels, guidance=guidance, groups=groups, masks=masks)
            objective = self.prepared(fit, feed, settings, file)
            history = fit.train(objective, feed, file, measured=True)
        counts = {} if guidance is None else dict(guidance.counts) | {"dropped_answers": used.dropped}
        counts |= {} if masks is None else {"masks": int((~masks.flatten(1).all(dim=1)).sum())}
        counts |= objective.counted
        return fit.finish(self.method, history, used, counts, maps=inputs.get("maps", ""))


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


def check_needs(
    method: Any,
    dataset: ImageDataset,
    evaluate_on: ImageDataset | None,
    *,
    maps: SaliencyMaps | None = None,
    answers: AnnotationSet | None = None,
) -> None:
    """See that a method gets what it needs, before any work.

    Args:
        method: One, or its class.
        dataset: The training set.
        evaluate_on: The pictures to evaluate on.
        maps: The maps that were answered.
        answers: All answers.

    Raises:
        AnswerError: It needs answers.
        DataError: It needs groups or masks of the training set, or groups of the pictures to evaluate on; or these are
            no data set.
        SettingsError: It needs maps, or pictures to evaluate on.
    """
    if evaluate_on is not None:
        as_dataset(evaluate_on)
    lacking: dict[str, tuple[bool, type[CrayonError], str]] = {
        "answers": (answers is None, AnswerError, "pass answers="),
        "neuron answers": (answers is None, AnswerError, "pass answers="),
        "maps": (maps is None, SettingsError, "pass maps= (Explainer.explain makes them)"),
        "groups": (
            not dataset.groups,
            DataError,
            "make the data set with groups (group_columns= of from_csv, groups= of from_torch)",
        ),
        "masks": (
            not dataset.has_masks,
            DataError,
            "make the data set with masks (masks= of from_folder and from_torch, mask_column= of from_csv)",
        ),
        "holdout": (evaluate_on is None, SettingsError, "pass evaluate_on= (never the test set)"),
        "holdout groups": (
            evaluate_on is None or not evaluate_on.groups,
            DataError,
            "make the data set of evaluate_on= with groups (group_columns= of from_csv, groups= of from_torch)",
        ),
    }
    for need in sorted(method.needs):
        missing, kind, remedy = lacking[need]
        if missing:
            raise kind(f"method {method.method!r} needs {NEEDS[need]}, and got none; {remedy}")


def made(
    method: str, model: nn.Module, values: Mapping[str, Any] | None = None, *, preset: str | None = None, **where: Any
) -> Any:
    """Make a method by name, from settings by name.

    Args:
        method: One of ``crayon_sdk.correct.methods``.
        model: The model to correct.
        values: Its settings; what is not named is the preset's, or its default.
        preset: Published settings to start from.
        **where: Seed, device, precision and checkpoint_dir.

    Raises:
        SettingsError: A name or a value is wrong, or there is no such method or preset.
    """
    kind, given = methods[method], dict(values or {})
    known = getattr(kind, "parts", ()) or settings_in(kind.settings_kind).keys() - {"seed"}
    check_names(given, known, f"setting of {kind.__name__}")
    return kind(model, **given, **where) if preset is None else kind.from_preset(preset, model, **given, **where)
