"""Settings by name: what the commands take, what ``crayon.toml`` may say, and how one is told of a mistake.

One class of settings per section of the file; the options of the commands are made from the same
classes, so that both say the same. Sections of the methods are the settings of these. Nothing here needs torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from crayon_sdk._base.files import read_whole
from crayon_sdk._base.methods import checked_method, settings_of, with_settings
from crayon_sdk._base.settings import Count, OneOrMore, Setting, Share, refusal, settings, settings_in
from crayon_sdk._base.text import unknown_name
from crayon_sdk.answers.relevance import Control
from crayon_sdk.errors import FileFormatError, SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CONFIG", "keys", "merged", "parse_assignments", "read_config", "said", "sections"]

CONFIG = "crayon.toml"
_LONGEST = 1_000_000  # bytes of it


def _number_or_word(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _method(value: str) -> str:
    try:
        return checked_method(value)
    except SettingsError as error:
        raise ValueError(str(error)) from error


Target = Annotated[Literal["label", "predicted"] | Count, BeforeValidator(_number_or_word)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Split = Literal["train", "val", "test"]
Groups = Literal["own", "discovered"]


@settings
class _Working:
    batch_size: OneOrMore = 64
    """Pictures at a time."""
    device: str = "auto"
    """"auto" (a GPU when there is one) or a torch device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the trunk."""
    channels_last: bool = False
    """Keep tensors channels last: on a CPU faster for many models; results differ by rounding."""
    compile: bool = False
    """Run the trunk through torch.compile: minutes at first, faster from then on; results differ by rounding."""
    cache: str | None = None
    """Folder in which decoded pictures are kept from run to run, relative to the workspace; several may use it."""
    cache_gb: Annotated[float, Field(gt=0)] = 50.0
    """How many GB that may hold; what was not used for the longest time is deleted above it."""


@settings
class InitOptions:
    """Model and pictures of a workspace."""

    model: str = ""
    """timm name, torchvision:NAME, hf-hub:USER/NAME[@REVISION], a folder, or a .safetensors file."""
    architecture: str | None = None
    """timm name, for a .safetensors file."""
    num_classes: OneOrMore | None = None
    """How many classes the weights must have."""
    preprocessing: dict[str, Any] | None = None
    """What differs from the model's own; JSON such as {"size": [224, 224]}."""
    allow_pickle: bool = False
    """Read weights that exist only as a pickle; only if you trust them."""
    data: str | None = None
    """Folder with a folder per class, or with train, val and test above; or with shards (.tar, .parquet), in folders or
    with names like that."""
    csv: str | None = None
    """In place of --data: a table with a row per picture."""
    val: str | None = None
    """Another folder, of classes or shards, or table for the val split."""
    test: str | None = None
    """Another folder, of classes or shards, or table for the test split."""
    root: str | None = None
    """Where the paths in the table start; default its folder."""
    image_column: str | None = None
    """Column of paths; usual names are recognised, as for the others. Of shards: column, or ending in a tar file, of
    pictures; the others likewise."""
    label_column: str | None = None
    """Column of class names or numbers."""
    id_column: str | None = None
    """Column of sample ids; default the paths."""
    group_column: Names | None = None
    """Column of an irrelevant attribute; may be given several times."""
    split_column: str | None = None
    """Column of splits."""
    mask_column: str | None = None
    """Column of paths to object masks."""
    masks: str | None = None
    """With --data: folder of object masks with the same paths below it."""
    train_split: str = "train"
    """What the train split is called in the data."""
    val_split: str = "val"
    """What the val split is called."""
    test_split: str = "test"
    """What the test split is called."""
    skip_bad: bool = False
    """Leave unusable pictures out, and remember which."""
    min_images_per_class: Count = 2
    """Refuse classes with fewer training pictures."""
    class_map: dict[str, str | int] | None = None
    """Where the model calls classes otherwise; JSON with its names or numbers for those of the data, such as {"bird":
    "waterbird"}."""


@settings
class ExplainOptions(_Working):
    """Maps and patches."""

    target: Target = "label"
    """Whose evidence a map shows: "label", "predicted" or a class number."""
    score: Literal["margin", "logit"] = "margin"
    """What is differentiated: the log odds of the target, or its logit as in the paper."""
    patches_per_neuron: OneOrMore = 3
    """Patches to keep per neuron."""
    sheet: Count = 8
    """Pictures and neurons to draw; 0 draws none."""


@settings
class SimulateOptions:
    """Answers from object masks."""

    kind: Literal["both", "image", "neuron", "spot"] = "both"
    """Answer about maps of pictures, patches of neurons, both of them, or the brightest spots of the maps."""
    annotators: OneOrMore = 2
    """Simulated people who answer about pictures, or spots."""
    neuron_annotators: OneOrMore = 1
    """Simulated people who answer about patches."""
    noise: Share = 0.0
    """Probability that one answer is turned round."""
    coverage: Share = 0.5
    """Least covered share of a patch for a yes."""
    count: Count | None = None
    """Answer about so many pictures (or spots) only, drawn by the seed."""
    neuron_count: Count | None = None
    """Answer about so many neurons only, drawn by the seed."""
    ids: Names | None = None
    """Answer about this picture only; may be given several times."""
    seed: Seed = 0
    """Of the noise, and of what is drawn."""


@settings
class SuggestOptions:
    """What to ask next."""

    count: OneOrMore = 20
    """How many at most."""
    kind: Literal["image", "neuron", "spot"] = "image"
    """Pictures, patches, or the brightest spots of the maps."""
    votes: OneOrMore = 1
    """How many people are to answer each."""
    seed: Seed = 0
    """Of the order."""
    method: Literal["random", "coverage", "uncertain", "typical", "active"] = "random"
    """In which order: by chance; what differs most from all before; what the model expected least; what is typical
    of what the maps show; or twenty typical ones, then those whose answer can be foretold least."""


@settings
class GroupsOptions:
    """Groups without group labels."""

    names: dict[str, str] | None = None
    """What the usual surround of a class is called, after a look at the pictures; JSON such as {"waterbird": "sea"}."""
    sheet: Count = 8
    """Pictures of each group to draw; 0 draws none."""
    seed: Seed = 0
    """Of everything random."""
    device: str = "auto"
    """"auto" (a GPU when there is one) or a torch device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the trunk."""


@settings
class AnnotateOptions:
    """The annotation app."""

    kind: Literal["both", "image", "neuron", "spot"] = "both"
    """Ask about maps of pictures, patches of neurons, pictures first and then patches, or the brightest spots of the
    maps."""
    votes: OneOrMore = 1
    """How many different people are to answer each."""
    order: Literal["random", "coverage", "uncertain", "typical", "active"] = "random"
    """What is asked first; see "crayon suggest". With "active" it is chosen anew after every answer."""
    limit: OneOrMore | None = None
    """Ask about the first so many of each kind only; with --order active so many in all."""
    seed: Seed = 0
    """Of the order."""
    group_patches: bool = False
    """Show all patches of a neuron together, and ask once."""
    question: str | None = None
    """Other words, such as "Is it on the {label}?"."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs the token."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8730
    """Port to listen on; 0 takes a free one."""
    people: Names = ()
    """Name of a person, who gets a link; may be given several times."""
    require_token: bool = False
    """Ask for the token on this machine too."""
    hold: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which what was not answered is handed out again."""
    store: str | None = None
    """Keep the answers in a PostgreSQL database, postgresql://USER@HOST/DATABASE, for several apps at once; default a
    file in the workspace."""


@settings
class CorrectOptions:
    """How to correct; details in the sections of the methods, such as attention."""

    method: Annotated[str, AfterValidator(_method)] = "attention"
    """What to do: attention, pruning, both (pruning, then attention), unasked (attention, with every map taken for
    right), erm (train on without answers), or any other that "crayon methods" lists."""
    preset: str | None = None
    """Start from the settings of published runs: "waterbirds", "biased-celeba", "backgrounds", or another one of the
    method."""
    evaluate_on: Split | None = None
    """Split to measure after every epoch."""
    groups: Groups = "own"
    """What a method is told that needs groups, and what keep="best" chooses by: the group columns of the data, or the
    groups that "crayon groups" found."""
    refit_on: Split | None = None
    """Split of fresh pictures to which the last layer is fitted in the end, if that does no harm; never test."""
    seed: Seed = 0
    """Of everything random."""
    device: str = "auto"
    """"auto" (a GPU when there is one) or a torch device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the trunk."""
    channels_last: bool = False
    """Keep tensors channels last: on a CPU faster for many models; results differ by rounding."""
    compile: bool = False
    """Run the trunk through torch.compile: minutes at first, faster from then on; results differ by rounding."""
    cache: str | None = None
    """Folder in which decoded pictures are kept from run to run, relative to the workspace; several may use it."""
    cache_gb: Annotated[float, Field(gt=0)] = 50.0
    """How many GB that may hold; what was not used for the longest time is deleted above it."""
    control: Control | None = None
    """Correct with what people would have said who do not look, in the place of the answers there are."""


@settings
class EvaluateOptions(_Working):
    """What to measure on."""

    split: Split = "test"
    """Pictures to measure on."""
    groups: Groups = "own"
    """By the group columns of the data, or by the groups that "crayon groups" found."""


@settings
class CompareOptions:
    """The paired bootstrap."""

    split: Split = "test"
    """Which evaluations."""
    groups: Groups = "own"
    """By the groups of the data, or by discovered ones."""
    baseline: str | None = None
    """What the others are compared with; default the first."""
    cluster_column: str | None = None
    """Column of the table that says which pictures belong together, such as the same object twice."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Test sets to draw."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the intervals."""
    seed: Seed = 0
    """Of the draws."""


@settings
class ReportOptions:
    """What a report shows."""

    split: Split | None = None
    """Pictures to measure on and to show; default test, or val where there is none."""
    pictures: Annotated[int, Field(ge=1, le=20)] = 4
    """Pictures to show for each rule."""
    candidates: OneOrMore = 1000
    """Pictures the rules choose from; of more, so many are drawn at random."""
    seed: Seed = 0
    """Of everything that is drawn at random."""
    device: str = "auto"
    """"auto" (a GPU when there is one) or a torch device."""


_SECTIONS: dict[str, type] = {
    "init": InitOptions,
    "explain": ExplainOptions,
    "simulate": SimulateOptions,
    "suggest": SuggestOptions,
    "groups": GroupsOptions,
    "annotate": AnnotateOptions,
    "correct": CorrectOptions,
    "evaluate": EvaluateOptions,
    "compare": CompareOptions,
    "report": ReportOptions,
}


def sections() -> tuple[str, ...]:
    """Names of the sections of ``crayon.toml``: of the commands, and of the methods of correction."""
    return (*_SECTIONS, *with_settings())


def keys(section: str) -> dict[str, Setting]:
    """What can be set in a section, by name; of a method all that is not set for every method in [correct].

    Args:
        section: One of `sections`.
    """
    if section in _SECTIONS:
        return settings_in(_SECTIONS[section])
    shared = settings_in(CorrectOptions)
    return {name: setting for name, setting in settings_in(settings_of(section)).items() if name not in shared}


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
        values: dict[str, Any] = tomllib.loads(read_whole(path, _LONGEST).decode())
    except OSError as error:
        raise FileFormatError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise FileFormatError(f"{str(path)!r} is not a TOML file: {error}") from error
    for name, section in values.items():
        if name not in sections():
            raise SettingsError(f"{path.name}: {unknown_name(name, sections(), 'section')}")
        if not isinstance(section, dict):
            raise SettingsError(f"{path.name}: expected a section [{name}], got {name} = {section!r}")
        merged(name, section, {}, where=f"{path.name}: ")
    return values


def merged(section: str, config: Mapping[str, Any], given: Mapping[str, Any], *, where: str = "") -> Any:
    """Put a section of the file and what the command line says together; the command line wins.

    Args:
        section: One of `sections`.
        config: What the file says.
        given: What the command line says; ``None`` means nothing.
        where: For the message.

    Returns:
        The settings of the section, of its class.

    Raises:
        SettingsError: A key or a value is wrong.

    Example:
        >>> merged("explain", {"batch_size": 8, "score": "logit"}, {"batch_size": 16}).batch_size
        16
    """
    values = said(config, given)
    for name in values:
        if name not in keys(section):
            raise SettingsError(where + unknown_name(name, keys(section), f"setting in [{section}]"))

    def called(name: str) -> str:  # what was typed as an option is named as one
        return f"--{name.replace('_', '-')}" if given.get(name) is not None else f"{section}.{name}"

    kind = _SECTIONS.get(section) or settings_of(section)
    try:
        return kind(**values)
    except SettingsError as error:
        if isinstance(error.__cause__, ValidationError):
            raise SettingsError(where + refusal(error.__cause__, kind, called)) from error
        raise


def said(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the file and the command line say, without defaults."""
    return {**config, **{name: value for name, value in given.items() if value is not None}}


def parse_assignments(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``section.key=value``, with the value as in TOML; a bare word is text.

    Args:
        assignments: Such as ``attention.epochs=3``; the sections are those of the methods.

    Raises:
        SettingsError: It is none, or there is no such key.

    Example:
        >>> parse_assignments(["attention.lr=1e-3", "attention.scheduler=none"])
        {'attention': {'lr': 0.001, 'scheduler': 'none'}}
    """
    found: dict[str, dict[str, Any]] = {}
    allowed = with_settings()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot or section not in allowed:
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
