"""Settings by name: what the commands take, what ``crayon.toml`` may say, and how one is told of a mistake.

One model per section of the file; the options of the commands are made from the same
models, so that both say the same. Nothing here needs torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from crayon_sdk._base.files import read_whole
from crayon_sdk._base.methods import checked_method, methods, settings_of
from crayon_sdk._base.text import unknown_name
from crayon_sdk.correct.settings import (
    ATTENTION_DEFAULTS,
    PRUNING_DEFAULTS,
    AttentionSettings,
    PruningSettings,
    TrainingSettings,
)
from crayon_sdk.errors import FileFormatError, SettingsError, shortened

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CONFIG", "SECTIONS", "Options", "described", "merged", "parse_assignments", "read_config"]

CONFIG = "crayon.toml"
_LONGEST = 1_000_000  # bytes of it
OptionsT = TypeVar("OptionsT", bound="Options")
_SettingsT = TypeVar("_SettingsT", bound=TrainingSettings)


class Options(BaseModel):
    """Base of every section: frozen, nothing unknown, nothing turned from text into a number in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def _number_or_word(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _target(value: str | int) -> str | int:
    if value not in ("label", "predicted") and not (isinstance(value, int) and value >= 0):
        raise ValueError("expected 'label', 'predicted' or a class number from 0")
    return value


def _method(value: str) -> str:
    try:
        return checked_method(value)
    except SettingsError as error:
        raise ValueError(str(error)) from error


Target = Annotated[str | int, BeforeValidator(_number_or_word), AfterValidator(_target)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Split = Literal["train", "val", "test"]


class _Working(Options):
    batch_size: int = Field(64, ge=1, description="Pictures at a time.")
    device: str = Field("auto", description='"auto" (a GPU when there is one) or a torch device.')
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Of the trunk.")


class InitOptions(Options):
    """Model and pictures of a workspace."""

    model: str = Field(
        "", description="timm name, torchvision:NAME, hf-hub:USER/NAME[@REVISION], a folder, or a .safetensors file."
    )
    architecture: str | None = Field(None, description="timm name, for a .safetensors file.")
    num_classes: int | None = Field(None, ge=1, description="How many classes the weights must have.")
    preprocessing: dict[str, Any] | None = Field(
        None, description='What differs from the model\'s own; JSON such as {"size": [224, 224]}.'
    )
    allow_pickle: bool = Field(False, description="Read weights that exist only as a pickle; only if you trust them.")
    data: str | None = Field(None, description="Folder with a folder per class, or with train, val and test above.")
    csv: str | None = Field(None, description="In place of --data: a table with a row per picture.")
    val: str | None = Field(None, description="Another folder or table for the val split.")
    test: str | None = Field(None, description="Another folder or table for the test split.")
    root: str | None = Field(None, description="Where the paths in the table start; default its folder.")
    image_column: str | None = Field(
        None, description="Column of paths; usual names are recognised, as for the others."
    )
    label_column: str | None = Field(None, description="Column of class names or numbers.")
    id_column: str | None = Field(None, description="Column of sample ids; default the paths.")
    group_column: Names | None = Field(
        None, description="Column of an irrelevant attribute; may be given several times."
    )
    split_column: str | None = Field(None, description="Column of splits.")
    mask_column: str | None = Field(None, description="Column of paths to object masks.")
    masks: str | None = Field(None, description="With --data: folder of object masks with the same paths below it.")
    train_split: str = Field("train", description="What the train split is called in the data.")
    val_split: str = Field("val", description="What the val split is called.")
    test_split: str = Field("test", description="What the test split is called.")
    skip_bad: bool = Field(False, description="Leave unusable pictures out, and remember which.")
    min_images_per_class: int = Field(2, ge=0, description="Refuse classes with fewer training pictures.")
    class_map: dict[str, str | int] | None = Field(
        None,
        description="Where the model calls classes otherwise; JSON with its names or numbers for those of the data, "
        'such as {"bird": "waterbird"}.',
    )


class ExplainOptions(_Working):
    """Maps and patches."""

    target: Target = Field("label", description='Whose evidence a map shows: "label", "predicted" or a class number.')
    score: Literal["margin", "logit"] = Field(
        "margin", description="What is differentiated: the log odds of the target, or its logit as in the paper."
    )
    patches_per_neuron: int = Field(3, ge=1, description="Patches to keep per neuron.")
    sheet: int = Field(8, ge=0, description="Pictures and neurons to draw; 0 draws none.")


class SimulateOptions(Options):
    """Answers from object masks."""

    annotators: int = Field(2, ge=1, description="Simulated people who answer about pictures.")
    neuron_annotators: int = Field(1, ge=1, description="Simulated people who answer about patches.")
    noise: float = Field(0.0, ge=0, le=1, description="Probability that one answer is turned round.")
    coverage: float = Field(0.5, ge=0, le=1, description="Least covered share of a patch for a yes.")
    count: int | None = Field(None, ge=0, description="Answer about so many pictures only, drawn by the seed.")
    neuron_count: int | None = Field(None, ge=0, description="Answer about so many neurons only, drawn by the seed.")
    ids: Names | None = Field(None, description="Answer about this picture only; may be given several times.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the noise, and of what is drawn.")


class SuggestOptions(Options):
    """What to ask next."""

    count: int = Field(20, ge=1, description="How many at most.")
    kind: Literal["image", "neuron"] = Field("image", description="Pictures or patches.")
    votes: int = Field(1, ge=1, description="How many people are to answer each.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the order.")
    method: Literal["random", "coverage", "uncertain"] = Field(
        "random",
        description="In which order: by chance; what differs most from all before; or what the model expected least.",
    )


class AnnotateOptions(Options):
    """The annotation app."""

    kind: Literal["both", "image", "neuron"] = Field(
        "both", description="Ask about maps of pictures, patches of neurons, or pictures first and then patches."
    )
    votes: int = Field(1, ge=1, description="How many different people are to answer each.")
    order: Literal["random", "coverage", "uncertain"] = Field("random", description="What is asked first.")
    limit: int | None = Field(None, ge=1, description="Ask about the first so many of each kind only.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the order.")
    group_patches: bool = Field(False, description="Show all patches of a neuron together, and ask once.")
    question: str | None = Field(None, description='Other words, such as "Is it on the {label}?".')
    host: str = Field("127.0.0.1", description="Address to listen on; any but this machine's own needs the token.")
    port: int = Field(8730, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    people: Names = Field((), description="Name of a person, who gets a link; may be given several times.")
    require_token: bool = Field(False, description="Ask for the token on this machine too.")
    hold: float = Field(
        600.0, gt=0, allow_inf_nan=False, description="Seconds after which what was not answered is handed out again."
    )


class CorrectOptions(Options):
    """How to correct; details in the sections attention and pruning."""

    method: Annotated[str, AfterValidator(_method)] = Field(
        "attention",
        description="What to do: attention, pruning, both (pruning, then attention), erm (train on without answers), "
        "or a method that another package registers.",
    )
    preset: Literal["waterbirds", "biased-celeba", "backgrounds"] | None = Field(
        None, description="Start from the settings of the published runs."
    )
    evaluate_on: Split | None = Field(None, description="Split to measure after every epoch.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything random.")
    device: str = Field("auto", description='"auto" (a GPU when there is one) or a torch device.')
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Of the trunk.")


class EvaluateOptions(_Working):
    """What to measure on."""

    split: Split = Field("test", description="Pictures to measure on.")


class CompareOptions(Options):
    """The paired bootstrap."""

    split: Split = Field("test", description="Which evaluations.")
    baseline: str | None = Field(None, description="What the others are compared with; default the first.")
    cluster_column: str | None = Field(
        None, description="Column of the table that says which pictures belong together, such as the same object twice."
    )
    resamples: int = Field(2000, ge=100, description="Test sets to draw.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Of the intervals.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the draws.")


class ReportOptions(Options):
    """What a report shows."""

    split: Split | None = Field(
        None, description="Pictures to measure on and to show; default test, or val where there is none."
    )
    pictures: int = Field(4, ge=1, le=20, description="Pictures to show for each rule.")
    candidates: int = Field(
        1000, ge=1, description="Pictures the rules choose from; of more, so many are drawn at random."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything that is drawn at random.")
    device: str = Field("auto", description='"auto" (a GPU when there is one) or a torch device.')


def _attribute_docs(kind: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say about attributes, by name."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(r"Attributes:\n(.*?)(?:\n\n|\n {4}Raises:|\Z)", base.__doc__ or "", re.DOTALL)
        for entry in re.split(r"\n(?= {8}\w)", section.group(1)) if section else ():
            name, _, text = entry.strip().partition(": ")
            found[name] = " ".join(text.split())
    return found


def _settings_model(name: str, kind: type[_SettingsT], defaults: _SettingsT, without: Iterable[str]) -> type[Options]:
    hints, docs = get_type_hints(kind), _attribute_docs(kind)
    made: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in without:
            hint = Target if field.name == "target" else hints[field.name]
            text = f"{docs.get(field.name, '')} Default {getattr(defaults, field.name)!r}."
            made[field.name] = (hint | None, Field(None, description=text))

    def in_range(options: Options) -> Options:
        """Each has its range there; said here, it is said before any work is done."""
        replace(defaults, **{name: value for name, value in options.model_dump().items() if value is not None})
        return options

    checks: Any = {"in_range": model_validator(mode="after")(in_range)}
    return create_model(name, __base__=Options, __validators__=checks, **made)


AttentionOptions = _settings_model("AttentionOptions", AttentionSettings, ATTENTION_DEFAULTS, ["seed"])
PruningOptions = _settings_model(
    "PruningOptions", PruningSettings, PRUNING_DEFAULTS, ["seed", "warmup_epochs", "average_decay", "clip_norm"]
)

SECTIONS: dict[str, type[Options]] = {
    "init": InitOptions,
    "explain": ExplainOptions,
    "simulate": SimulateOptions,
    "suggest": SuggestOptions,
    "annotate": AnnotateOptions,
    "correct": CorrectOptions,
    "attention": AttentionOptions,
    "pruning": PruningOptions,
    "evaluate": EvaluateOptions,
    "compare": CompareOptions,
    "report": ReportOptions,
}
"""Sections of ``crayon.toml``; every further method has one of its name, too."""


def section_model(name: str) -> type[Options]:
    """The model of a section.

    Raises:
        SettingsError: There is no such section.
    """
    if name in SECTIONS:
        return SECTIONS[name]
    if name not in methods or name == "both":
        raise SettingsError(unknown_name(name, {*SECTIONS, *methods} - {"both"}, "section"))
    kind = settings_of(name)
    return _settings_model(f"{kind.__name__}Options", kind, kind(), ["seed"])


def read_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read a ``crayon.toml`` and check every section and key in it.

    Args:
        path: The file; ``None`` for none.

    Returns:
        What it says, by section.

    Raises:
        FileFormatError: It is missing, or not TOML.
        SettingsError: A section, a key or a value is wrong; the message names the nearest that would be right.
    """
    if path is None:
        return {}
    try:
        values = tomllib.loads(read_whole(path, _LONGEST).decode())
    except OSError as error:
        raise FileFormatError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise FileFormatError(f"{str(path)!r} is not a TOML file: {error}") from error
    for name, section in values.items():
        try:
            section_model(name)
        except SettingsError as error:
            raise SettingsError(f"{path.name}: {error}") from error
        if not isinstance(section, dict):
            raise SettingsError(f"{path.name}: expected a section [{name}], got {name} = {section!r}")
        merged(name, section, {}, where=f"{path.name}: ")
    return values


def merged(section: str, config: Mapping[str, Any], given: Mapping[str, Any], *, where: str = "") -> Options:
    """Put a section of the file and what the command line says together; the command line wins.

    Args:
        section: One of `SECTIONS`, or the name of a method.
        config: What the file says.
        given: What the command line says; ``None`` means nothing.
        where: For the message.

    Raises:
        SettingsError: A key or a value is wrong.

    Example:
        >>> merged("explain", {"batch_size": 8, "score": "logit"}, {"batch_size": 16}).batch_size
        16
    """
    model = section_model(section)
    values = {**config, **{name: value for name, value in given.items() if value is not None}}
    for name in values:
        if name not in model.model_fields:
            raise SettingsError(where + unknown_name(name, model.model_fields, f"setting in [{section}]"))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if not name:  # of several settings; it names them
            raise SettingsError(f"{where}{section}: {message}") from error
        value = shortened(repr(problem["input"]), 200)
        # What was typed as an option is named as one.
        typed = given.get(name) is not None
        what = f"--{name.replace('_', '-')} {value}" if typed else f"{where}{section}.{name} = {value}"
        raise SettingsError(f"{what}: {message}") from error


def parse_assignments(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``method.key=value``, with the value as in TOML; a bare word is text.

    Args:
        assignments: Such as ``attention.epochs=3``.

    Raises:
        SettingsError: It is none, or there is no such key.

    Example:
        >>> parse_assignments(["attention.lr=1e-3", "attention.scheduler=none"])
        {'attention': {'lr': 0.001, 'scheduler': 'none'}}
    """
    found: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot or section not in methods or section == "both":
            allowed = [each for each in methods if each != "both"]
            raise SettingsError(
                f"expected SECTION.KEY=VALUE with the section {' or '.join(allowed)}, got {assignment!r}; "
                f"for instance {allowed[0]}.epochs=3"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except ValueError:
            value = text.strip()
        found.setdefault(section, {})[key] = value
    for section, values in found.items():
        merged(section, values, {})
    return found


def described(section: str) -> list[tuple[str, str]]:
    """Name and description of every key of a section."""
    return [(name, field.description or "") for name, field in section_model(section).model_fields.items()]
