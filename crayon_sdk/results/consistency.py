"""Whether what a checkpoint says of itself is true: its files against each other, and against the weights.

What no tensor can prove (a time, a version, a name) is checked for its shape alone.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from crayon_sdk._base.files import read_json, read_shapes, sha256_of
from crayon_sdk._base.methods import GROUP, methods, settings_of
from crayon_sdk._base.settings import settings_in
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import FileFormatError, MismatchError, SettingsError
from crayon_sdk.models.load import WEIGHTS, check_arguments, check_timm_config
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.evaluation import Evaluation

__all__ = ["check_answers", "check_before_building", "check_evaluations", "check_model", "check_records", "description"]

_log = logging.getLogger(__name__)
_LARGEST = 4096**2  # pixels; a picture of more fills the memory before anything else can be said about it
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+")
_BASE = ("architecture", "model", "license")
_DESCRIBED = ("architecture", "class_names", "model_args", "preprocessing")
_RECORDED = {"alpha", "beta", "epochs", "batch_size", "lr"}  # in every record; earlier ones lack later settings
_GEOMETRY = ("mean", "std", "crop_pct", "crop_mode", "interpolation")


def description(manifest: Mapping[str, Any]) -> str:
    """Hash of what a manifest says about how the model is built and fed; it lies beside the weights, in their file."""
    return sha256_of(json.dumps({name: manifest.get(name) for name in _DESCRIBED}, sort_keys=True))


def check_before_building(place: Path, manifest: Mapping[str, Any]) -> None:
    """Compare ``crayon.json``, ``config.json`` and the header of the weights, before a model is built from them.

    Args:
        place: The folder.
        manifest: What ``crayon.json`` holds.

    Raises:
        FileFormatError: A file is missing, or a value is none that could be.
        MismatchError: Two files contradict each other.
    """
    about = place / "crayon.json"
    if not (place / WEIGHTS).is_file():
        raise FileFormatError(
            f"{WEIGHTS} is missing in {str(place)!r}, a correction without its weights: copy the whole folder again, "
            "or save the correction again"
        )
    shapes, metadata = read_shapes(place / WEIGHTS, remedy="Copy the folder again, or save the correction again.")
    if metadata.get("crayon_model", description(manifest)) != description(manifest):
        raise MismatchError(
            f"{str(about)!r} says something else about the model ({', '.join(_DESCRIBED)}) than the file of its "
            "weights: it was altered, or one of the two was replaced. Copy the folder again, or save the correction "
            "again"
        )
    check_arguments(about, manifest["model_args"])
    base = manifest.get("base", {})
    if set(base) - set(_BASE) or base.get("architecture", manifest["architecture"]) != manifest["architecture"]:
        raise MismatchError(f"{str(about)!r} contradicts itself: base is {base!r}, of {manifest['architecture']!r}")
    if base.get("model") and not _REPOSITORY.fullmatch(base["model"]):
        raise FileFormatError(f"{str(about)!r}: base names {base['model']!r}, which is no repository")
    preprocessing = _preprocessing(about, manifest["preprocessing"])
    if (place / "config.json").is_file():
        check_timm_config(place / "config.json")
        _check_config(place, manifest, preprocessing, shapes)


def _preprocessing(about: Path, values: Any) -> Preprocessing:
    try:
        found = Preprocessing.from_dict(values)
    except (SettingsError, TypeError) as error:
        raise FileFormatError(f"{str(about)!r}: preprocessing is none that can be: {error}") from error
    if math.prod(found.size) > _LARGEST:
        raise FileFormatError(f"{str(about)!r}: pictures of {found.size[0]} x {found.size[1]} pixels are too large")
    return found


def _check_config(
    place: Path, manifest: Mapping[str, Any], preprocessing: Preprocessing, shapes: Mapping[str, Sequence[int]]
) -> None:
    config = read_json(place / "config.json")
    about = config.get("pretrained_cfg", config)
    classes = config.get("num_classes")
    if not any(shape[:1] == [classes] for shape in map(list, shapes.values())):
        raise MismatchError(
            f"{str(place / 'config.json')!r} says num_classes = {classes!r}, and the weights have others"
        )
    names = config.get("label_names") or []
    expected: list[tuple[str, Any, Any]] = [
        ("architecture", config["architecture"], manifest["architecture"]),
        ("label_names", list(names.values() if isinstance(names, dict) else names), manifest["class_names"]),
        ("pretrained_cfg.num_classes", about.get("num_classes", classes), classes),
        ("pretrained_cfg.input_size", list(about.get("input_size", [])), [3, *preprocessing.size]),
        ("pretrained_cfg.license", about.get("license") or "", manifest.get("base", {}).get("license", "")),
    ]
    shown = preprocessing.to_dict()
    expected += [(f"pretrained_cfg.{name}", about.get(name), shown[name]) for name in _GEOMETRY]
    if manifest["model_args"]:  # empty in checkpoints of before it was written for timm
        expected.append(("model_args", config.get("model_args"), manifest["model_args"]))
    else:
        expected.append(
            ("model_args.num_classes", (config.get("model_args") or {}).get("num_classes", classes), classes)
        )
    for name, found, wanted in expected:
        if found != wanted:
            raise MismatchError(
                f"config.json and crayon.json in {str(place)!r} contradict each other: {name} is {_short(found)} in "
                f"the one, and should be {_short(wanted)} after the other; one of the two was altered or replaced"
            )


def check_model(place: Path, manifest: Mapping[str, Any], model: SplitModel) -> None:
    """Compare what was built with what the files say.

    Raises:
        MismatchError: It is something else.
    """
    if model.fingerprint != manifest["fingerprint"]:
        raise MismatchError(
            f"the weights in {str(place)!r} are not those that crayon.json describes "
            f"(fingerprint {model.fingerprint[:12]}, expected {manifest['fingerprint'][:12]}); one of the two was "
            "replaced"
        )
    expected: list[tuple[str, Any, Any]] = [
        ("architecture", manifest["architecture"], model.architecture),
        ("class_names", manifest["class_names"], list(model.class_names)),
        ("preprocessing", manifest["preprocessing"], model.preprocessing.to_dict()),
        ("feature_shape", manifest.get("feature_shape", list(model.feature_shape)), list(model.feature_shape)),
    ]
    if (place / "config.json").is_file():
        config = read_json(place / "config.json")
        for name in ("num_features", "global_pool"):
            own = getattr(model.model, name, None)
            if isinstance(own, int | str):
                expected.append((f"{name} (config.json)", config.get(name, own), own))
    for name, found, wanted in expected:
        if found != wanted:
            raise MismatchError(
                f"{str(place)!r} says {name} = {_short(found)}, and the model has {_short(wanted)}; its files were "
                "altered. Copy the folder again, or save the correction again"
            )


def check_records(path: Path, records: Sequence[Mapping[str, Any]], model: SplitModel, answers: AnnotationSet) -> None:
    """Compare the records of corrections with each other, with the weights and with the answers.

    Args:
        path: Of ``crayon.json``.
        records: As JSON has them, oldest first.
        model: What came out.
        answers: Behind all of them.

    Raises:
        FileFormatError: A value is none that could be.
        MismatchError: Two of them contradict each other.
    """
    before: Mapping[str, Any] | None = None
    for number, record in enumerate(records):
        wrong = _impossible(record, model.num_neurons, alone=len(records) == 1)
        if wrong:
            raise FileFormatError(f"{str(path)!r} is incomplete or altered: {wrong} of correction {number + 1}")
        wrong = _contradiction(record, before, model)
        if wrong:
            raise MismatchError(f"{str(path)!r} contradicts itself in correction {number + 1}: {wrong}; it was altered")
        if record["method"] not in (*methods, "none"):
            _log.warning(
                "%s was made by the method %r, which no package that is installed here registers (entry points of the "
                "group %s); it is loaded all the same",
                path.parent,
                record["method"],
                GROUP,
            )
        before = record
    last, cut = records[-1], list(records[-1]["pruned_neurons"])
    if model.dtype.itemsize >= 4 and last["corrected"] != model.fingerprint:  # halved after it was corrected: fine
        raise MismatchError(
            f"{str(path)!r}: its last correction made {last['corrected'][:12]}, and the weights are "
            f"{model.fingerprint[:12]}"
        )
    if cut and any(bool(layer.weight.detach()[:, cut].any()) for layer in model.final_layers):
        raise MismatchError(f"{str(path)!r} names pruned neurons that the weights still use; it was altered")
    if any(record["simulated"] for record in records) != answers.is_simulated:
        raise MismatchError(
            f"{str(path)!r} and answers.jsonl contradict each other about whether answers are simulated"
        )


def _impossible(record: Mapping[str, Any], num_neurons: int, *, alone: bool) -> str:
    method, cut = record["method"], record["pruned_neurons"]
    if cut and not 0 <= min(cut) <= max(cut) < num_neurons:
        return f"it names pruned neurons that the model's {num_neurons} do not include, by the record"
    # What another package made can be loaded without it; then nobody here knows its settings.
    if method in methods or (method == "none" and not alone):
        try:
            kind = settings_of(method)
            kind(**record["settings"])
            missing = _RECORDED & settings_in(kind).keys() - record["settings"].keys()
            if missing:
                raise SettingsError(f"without {', '.join(sorted(missing))}")
        except (SettingsError, TypeError) as error:
            return f"settings ({error})"
    counted = [entry.get("epoch") for entry in record["history"]]
    # Training that had enough says so, and has fewer epochs than were asked for.
    most = record["settings"].get("epochs", len(counted))
    epochs = min(most, len(counted)) if counted and "enough" in record["history"][-1] else most
    if len(counted) != epochs or counted != list(range(1, len(counted) + 1)):
        return f"history, which does not have the {epochs} epochs in order,"
    for entry in record["history"]:
        for name, value in entry.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return f"{name} = {value!r} in the history"
    if any(count < 0 for count in record["counts"].values()):
        return "counts below zero"
    if method == "pruning" and not {"pruned", "neurons"} <= record["counts"].keys():
        return "no count of neurons"
    for name in ("original", "corrected", "dataset", "maps", "answers"):
        if not _DIGEST.fullmatch(record[name]) and (record[name] or name in ("original", "corrected")):
            return f"{name}, which is no fingerprint,"
    if not 0 <= record["seconds"] < math.inf:
        return f"seconds = {record['seconds']}"
    try:
        datetime.fromisoformat(record["created"] or "2026-01-01")
    except ValueError:
        return f"created = {record['created']!r}"
    return ""


def _contradiction(record: Mapping[str, Any], before: Mapping[str, Any] | None, model: SplitModel) -> str:
    cut, earlier = record["pruned_neurons"], before["pruned_neurons"] if before else []
    if before is not None and record["original"] != before["corrected"]:
        return "it began with another model than the one before it made"
    if list(cut) != sorted(set(cut)):
        return "its pruned neurons are not in order"
    if set(earlier) - set(cut):
        return "neurons that were pruned before are not pruned any more"
    counts = record["counts"]
    if record["method"] == "attention" and before is not None and list(cut) != list(earlier):
        return "guiding attention prunes no neurons"
    if record["method"] == "pruning":
        new = len(cut) - len(earlier)
        if not new <= counts["pruned"] <= len(cut) or (before is None and counts["pruned"] != len(cut)):
            return f"it counts {counts['pruned']} pruned neurons, and names {len(cut)}"
    if counts.get("neurons", model.num_neurons) != model.num_neurons:
        return f"it counts {counts['neurons']} neurons, and the model has {model.num_neurons}"
    return ""


def check_answers(place: Path, manifest: Mapping[str, Any], answers: AnnotationSet) -> None:
    """Compare the answers with their hashes.

    Raises:
        MismatchError: They are others.
    """
    found = answers.fingerprint
    if manifest.get("answers", found) != found:
        raise MismatchError(
            f"the answers in {str(place / 'answers.jsonl')!r} are not those that crayon.json describes: one of the two "
            "was replaced. Copy the folder again, or save the correction again"
        )
    record = manifest["record"]
    if not manifest["parents"] and record["method"] != "none" and record["answers"] not in ("", found):
        raise MismatchError(
            f"the correction in {str(place)!r} was made with other answers than those in answers.jsonl; one of the two "
            "was replaced. Copy the folder again, or save the correction again"
        )


def check_evaluations(path: Path, evaluations: Mapping[str, Evaluation], model: SplitModel) -> None:
    """See that evaluations can be of this model.

    Raises:
        FileFormatError: One names classes that it does not have, or is called something else than "before" or "after".
    """
    for name, found in evaluations.items():
        if name not in ("before", "after"):
            raise FileFormatError(f"{str(path)!r} is incomplete or altered: there is no evaluation called {name!r}")
        highest = max((*found.predictions.values(), *found.labels.values()), default=-1)
        if highest >= model.num_classes:
            raise FileFormatError(
                f"{str(path)!r} is incomplete or altered: the evaluation {name!r} has class {highest}, and the model "
                f"{model.num_classes} classes"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
