"""The steps that make something of the inputs: explain, correct, evaluate, compare."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crayon_sdk._base.methods import checked_method, made_of, methods, settings_of
from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.controls import control as without_looking
from crayon_sdk.answers.relevance import Control
from crayon_sdk.correct.guidance import guidance_answers
from crayon_sdk.correct.method import check_needs, made
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import batches
from crayon_sdk.data.preprocessing import effective_preprocessing
from crayon_sdk.errors import AnswerError, DataError, FileFormatError, OutputExistsError, SettingsError, StaleError
from crayon_sdk.explain import contact_sheets
from crayon_sdk.explain.asking import how_far
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.groups import DiscoveredGroups, find_groups
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.passes import laid_out
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.card import Card
from crayon_sdk.results.comparison import Comparison, compare
from crayon_sdk.results.correction import Correction, load_correction
from crayon_sdk.results.evaluation import Evaluation, evaluate
from crayon_sdk.workspace.holdings import Holdings
from crayon_sdk.workspace.inputs import Inputs
from crayon_sdk.workspace.ledger import Ledger
from crayon_sdk.workspace.names import (
    DISCOVERED,
    GROUPS,
    MAPS,
    ORIGINAL,
    PATCHES,
    by_groups,
    checked_name,
    default_name,
    different,
    evaluations,
    plain,
)

__all__ = ["Steps"]

_BATCHES_PER_PART = 64
SPOTS = 20  # typical ones, which do what all answers do on the tasks tried
_FEW = 0.1  # of what can be asked: what the paper found to be nearly enough (docs/how-to/how-many-answers.md)
_ABOUT = {"image": "pictures", "neuron": "neurons", "spot": "spots"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Steps:
    """Makes the files of a workspace; what is up to date is left alone.

    Attributes:
        ledger: What was made from what.
        inputs: Model and pictures.
        holdings: What was made before.
    """

    ledger: Ledger
    inputs: Inputs
    holdings: Holdings

    def explain(
        self,
        *,
        target: str | int = "label",
        score: str = "margin",
        patches_per_neuron: int = 3,
        sheet: int = 8,
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
        channels_last: bool = False,
        compile: bool = False,
        cache: str | os.PathLike[str] | None = None,
        cache_gb: float = 50.0,
        again: bool = False,
    ) -> tuple[SaliencyMaps, NeuronPatches]:
        """Make maps, patches and a sheet of each; what is up to date is left alone.

        Args:
            target: Whose evidence a map shows: "label", "predicted" or a class index.
            score: "margin", which the corrections of this package were tuned with, or "logit", as in the paper.
            patches_per_neuron: How many samples to keep per neuron.
            sheet: How many pictures and neurons to draw; 0 draws none.
            batch_size: Pictures at a time.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
            channels_last: Keep tensors in the order in which many convolutions run faster; like the device, it moves
                results by rounding.
            compile: Run the trunk through ``torch.compile``, which takes minutes at first; it moves results likewise.
            cache: Folder in which decoded pictures are kept from run to run, relative to the workspace; it may be used
                by several.
            cache_gb: How much that may hold, in 10^9 bytes; what was not used for the longest time is deleted above it.
            again: Make them again also when they are up to date.

        Raises:
            SettingsError: A setting is out of range.
            WorkspaceBusyError: Another process works in the workspace.
        """
        with self.ledger.working("explain"), self.inputs.keeping(cache, cache_gb):
            explainer = Explainer(
                laid_out(self.inputs.model, channels_last, compile),
                target=target,
                score=score,
                batch_size=batch_size,
                device=device,
                precision=precision,
            )
            train = self.inputs.dataset()
            how = {"batch_size": batch_size, "precision": str(explainer.autocast or "float32")}
            wanted = {"target": target, "score": score} | how
            if again or not self.ledger.is_fresh(MAPS, self.ledger.base(), wanted):
                started = time.time()
                self._explain_in_parts(explainer, train)
                self.ledger.record(
                    MAPS, made_by="Explainer.explain", inputs=self.ledger.base(), settings=wanted, started=started
                )
                self.ledger.clear_runs("maps")
            wanted = {"patches_per_neuron": patches_per_neuron} | how
            if again or not self.ledger.is_fresh(PATCHES, self.ledger.base(), wanted):
                started = time.time()
                explainer.explain_neurons(train, patches_per_neuron).save(self.ledger.folder / PATCHES)
                self.ledger.record(
                    PATCHES,
                    made_by="Explainer.explain_neurons",
                    inputs=self.ledger.base(),
                    settings=wanted,
                    started=started,
                )
            maps, patches = self.holdings.maps(), self.holdings.patches()
            if sheet:
                self._draw_sheets(train, maps, patches, sheet)
        return maps, patches

    def _explain_in_parts(self, explainer: Explainer, train: ImageDataset) -> None:
        """Write the maps of all pictures; when it is stopped, the next run goes on with the part it was at."""
        size = _BATCHES_PER_PART * explainer.batch_size
        if len(train) <= size:
            explainer.explain(train, self.ledger.folder / MAPS)
            return
        how = {"target": explainer.target, "score": explainer.score, "precision": str(explainer.autocast), "size": size}
        run = self.ledger.run_folder("maps", self.ledger.base(), how)
        if train.pixel_folder is not None:  # all in one file, in which the parts find theirs
            batches(train, effective_preprocessing(train, explainer.model.preprocessing), batch_size=1)
        parts = []
        for start in range(0, len(train), size):
            path = run / f"{start:012}.safetensors"
            with suppress(FileFormatError):  # missing or broken: it is made again
                parts.append(SaliencyMaps.load(path))
                continue
            parts.append(explainer.explain(train.subset(train.ids[start : start + size]), path))
        SaliencyMaps.concatenate(parts, self.ledger.folder / MAPS)

    def _draw_sheets(self, train: ImageDataset, maps: SaliencyMaps, patches: NeuronPatches, count: int) -> None:
        for path, source in (("pictures/maps.png", MAPS), ("pictures/patches.png", PATCHES)):
            inputs, wanted, started = {source: self.ledger.digest(source)}, {"count": count}, time.time()
            if self.ledger.is_fresh(path, inputs, wanted):
                continue
            (self.ledger.folder / "pictures").mkdir(exist_ok=True)
            if source == MAPS:
                groups = zip(train.ids, train.group_labels, strict=True)
                chosen = contact_sheets.choose_ids(maps, maps, count=count, groups=dict(groups))
                contact_sheets.maps_sheet(train, maps, chosen, self.ledger.folder / path)
            else:
                contact_sheets.patches_sheet(
                    train, patches, range(min(count, patches.num_neurons)), self.ledger.folder / path
                )
            self.ledger.record(path, made_by="Workspace.explain", inputs=inputs, settings=wanted, started=started)

    def find_groups(
        self,
        *,
        names: Mapping[str, str] | None = None,
        sheet: int = 8,
        seed: int = 0,
        device: str = "auto",
        precision: str = "auto",
        again: bool = False,
    ) -> DiscoveredGroups:
        """Find groups without group labels in the training pictures, and draw a sheet of each.

        Args:
            names: What the usual surround of a class is called, after a look at the sheets, such as
                ``{"waterbird": "sea"}``.
            sheet: How many pictures of each group to draw; 0 draws none.
            seed: Of everything random.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
            again: Find them again also when they are up to date.

        Returns:
            The groups, which also lie in ``groups.safetensors``; ask whether they are ``reliable``.

        Raises:
            AnswerError: No map was found relevant, so that nothing is known of the object.
            StaleError: The maps are missing or stale.
        """
        with self.ledger.working("groups"):
            maps, answers, train = self.holdings.maps(), self.holdings.answers(), self.inputs.dataset()
            wanted = {"seed": seed, "precision": self._computed(precision, device)}
            inputs = self.holdings.groups_inputs()
            if again or not self.ledger.is_fresh(GROUPS, inputs, wanted):
                started = time.time()
                found = find_groups(
                    self.inputs.model, train, maps, answers, seed=seed, device=device, precision=precision
                )
                found.save(self.ledger.folder / GROUPS)
                self.ledger.record(
                    GROUPS, made_by="Workspace.find_groups", inputs=inputs, settings=wanted, started=started
                )
            found = DiscoveredGroups.load(self.ledger.folder / GROUPS)
            if names is not None and dict(names) != dict(found.names):
                started, found = time.time(), found.named(names)
                found.save(self.ledger.folder / GROUPS)
                self.ledger.record(
                    GROUPS, made_by="Workspace.find_groups", inputs=inputs, settings=wanted, started=started
                )
            if sheet:
                self._draw_groups(found, train, maps, sheet)
        return found

    def _draw_groups(self, groups: DiscoveredGroups, train: ImageDataset, maps: SaliencyMaps, count: int) -> None:
        inputs, wanted = {GROUPS: self.ledger.digest(GROUPS)}, {"count": count}
        for number, (name, members) in enumerate(groups.members.items(), 1):
            path = f"pictures/groups-{number}.png"  # names of classes need not be names of files
            if self.ledger.is_fresh(path, inputs, wanted):
                continue
            started = time.time()
            (self.ledger.folder / path).parent.mkdir(exist_ok=True)
            shown = maps.select(members)
            chosen = contact_sheets.choose_ids(shown, shown, count=count)
            title = f"Discovered group {name}: {len(members):,} of {len(groups):,} training pictures"
            contact_sheets.maps_sheet(train, maps, chosen, self.ledger.folder / path, title=title)
            self.ledger.record(path, made_by="Workspace.find_groups", inputs=inputs, settings=wanted, started=started)

    def _grouped(
        self, dataset: ImageDataset, split: str | None, groups: str, device: str, precision: str
    ) -> ImageDataset:
        """A data set by its own groups, or by those that were found in the training pictures."""
        if groups != DISCOVERED:
            return dataset
        found = self.holdings.groups()
        found.check()
        if split is not None:
            found = found.of(self.inputs.model, dataset, device=device, precision=precision)
        return found.on(dataset)

    def correct(
        self,
        method: str = "attention",
        *,
        name: str | None = None,
        preset: str | None = None,
        attention: Mapping[str, Any] | None = None,
        pruning: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        evaluate_on: str | None = None,
        groups: Literal["own", "discovered"] = "own",
        refit_on: str | None = None,
        seed: int = 0,
        device: str = "auto",
        precision: str = "auto",
        channels_last: bool = False,
        compile: bool = False,
        cache: str | os.PathLike[str] | None = None,
        cache_gb: float = 50.0,
        control: Control | None = None,
        strict: bool = True,
        overwrite: bool = False,
    ) -> Correction:
        """Correct the model; a run that was stopped goes on in the middle of its epoch.

        Args:
            method: "attention", "pruning", "both" (pruning, then attention), "erm", "unasked" (attention, with every
                map taken for right), or any other name in ``crayon_sdk.correct.methods``.
            name: What the correction is called; default the method, the preset and the control.
            preset: Published settings: "waterbirds", "biased-celeba" or "backgrounds".
            attention: Keywords of `AttentionCorrector` on top.
            pruning: Keywords of `NeuronPruner` on top.
            settings: Keywords of any other method.
            evaluate_on: A split to measure after every epoch, such as "val"; never "test" with keep="best".
            groups: What the method is told, and keep="best" chooses by: the group columns of the data ("own"), or the
                groups of `find_groups` ("discovered").
            refit_on: A split of fresh pictures, such as "val", to which the last layer is fitted in the end if that
                does no harm to any class, or any discovered group where ``groups`` says so; never "test".
            seed: Of everything random.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
            channels_last: Keep tensors in the order in which many convolutions run faster; like the device, it moves
                results by rounding.
            compile: Run the trunk through ``torch.compile``, which takes minutes at first; it moves results likewise.
            cache: Folder in which decoded pictures are kept from run to run, relative to the workspace; it may be used
                by several.
            cache_gb: How much that may hold, in 10^9 bytes; what was not used for the longest time is deleted above it.
            control: Correct with what people would have said who do not look, "yes", "no", "shuffled" or "inverted"
                ([`control`][crayon_sdk.answers.controls.control]), in the place of the answers there are.
            strict: Refuse answers that do not fit; else drop and count them.
            overwrite: Replace a correction of that name that was made with other settings.

        Returns:
            The correction, which also lies in ``corrections/NAME``.

        Raises:
            OutputExistsError: There is one of that name with other settings.
            StaleError: The maps are missing or stale.
            AnswerError: There are no answers for this method.
            NonFiniteLossError: The loss became NaN or infinite.
        """
        if control is not None and not _asked_by(checked_method(method)):
            raise SettingsError(f"expected a method that takes answers with control={control!r}, got {method!r}")
        name = checked_name(name or default_name(checked_method(method), preset, control))
        used = _sections(method)  # what is not used is no other setting
        given = {"attention": attention, "pruning": pruning} | ({"settings": settings} if "settings" in used else {})
        sections = {key: dict(values or {}) if key in used else {} for key, values in given.items()}
        # In the order of earlier versions, which named the folder of a run after it.
        typed = plain({"method": method, "preset": preset, **sections})
        typed |= {"evaluate_on": evaluate_on, "seed": seed, "precision": precision, "strict": strict}
        typed |= {} if control is None else {"control": control}
        typed |= {} if groups == "own" else {"groups": groups}
        typed |= {} if refit_on is None else {"refit_on": refit_on}
        if refit_on == "test":
            raise SettingsError(
                'refit_on learns from its pictures, and the test pictures may not be learned: take "val"'
            )
        path = f"corrections/{name}"
        with self.ledger.working(f"correct {name}"), self.inputs.keeping(cache, cache_gb):
            # Looked at also when the result is there already: it may have changed.
            original = laid_out(self.inputs.model, channels_last, compile)
            resolved = _settings(_corrector(original, typed, device))
            computed = self._computed(precision, device)
            wanted = self._counted(typed | {"precision": computed}, resolved)
            if evaluate_on == "test" and "best" in [wanted.get(f"{each}.keep") for each in resolved]:
                raise SettingsError('keep="best" chooses an epoch, and the test pictures may not: evaluate on "val"')
            if evaluate_on == "test" and "holdout" in methods[method].needs:
                raise SettingsError(
                    f"method {method!r} learns from the pictures to evaluate on, and may not from the test pictures: "
                    'evaluate on "val"'
                )
            self._check_answers(method)
            inputs = self.holdings.correction_inputs(method, evaluate_on, groups=groups, refit_on=refit_on)
            entry = self.ledger.manifest.files.get(path) if self.ledger.digest(path) else None
            there = None if entry is None else self._noted(entry.settings, device)
            if there is not None and precision == "auto":
                there["precision"] = computed  # it may be of another device
            fresh = self.ledger.status(path, inputs, "").state == "fresh"
            if fresh and there == wanted and not overwrite:
                self.ledger.clear_runs(f"corrections-{name}")  # of a process that was killed right before it did
                return load_correction(self.ledger.folder / path)
            if there is not None and there != wanted and not overwrite:
                raise OutputExistsError(
                    f"there is a correction {name!r} with other settings ({different(there, wanted)}); give "
                    "this one another name=, or replace it with overwrite=True"
                )
            self._say_how_few(method)
            started = time.time()
            run = self.ledger.run_folder(f"corrections-{name}", inputs, wanted)
            before = self.ledger.run_folder(f"corrections-{name}", inputs, typed)  # where earlier versions kept it
            run = before if before.exists() and not run.exists() else run
            found = self._corrected(original, typed, device, run)
            card = Card(
                base_model=self.inputs.base_model, evaluated_on=f"{evaluate_on} pictures" if evaluate_on else ""
            )
            found.save(self.ledger.folder / path, overwrite=True, card=card)
            typed["computed"] = computed
            typed["resolved"] = {each: asdict(values) for each, values in resolved.items()}
            self.ledger.record(
                path, made_by=f"Workspace.correct({method!r})", inputs=inputs, settings=typed, started=started
            )
            self.ledger.clear_runs(f"corrections-{name}")
        return found

    def _computed(self, precision: str, device: str) -> str:
        """What a precision is on a device here."""
        autocast = resolve_precision(precision, resolve_device(device, self.inputs.model.device))
        return str(autocast or "float32").removeprefix("torch.")

    def _noted(self, noted: Mapping[str, Any], device: str) -> dict[str, Any]:
        """The settings of an entry in the books as they count; those of earlier versions say what was typed only."""
        try:
            noted = {**noted, "precision": noted.get("computed") or self._computed(noted["precision"], device)}
            if "resolved" not in noted:
                return self._counted(noted, _settings(_corrector(self.inputs.model, noted, device)))
            resolved = {each: settings_of(each)(**values) for each, values in noted["resolved"].items()}
            return self._counted(noted, resolved)
        except SettingsError:  # of a version that had others
            return {"method": noted["method"]}

    def _counted(self, typed: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a correction as they count, in one row: whoever types a default changes nothing."""
        found = {name: typed[name] for name in ("method", "evaluate_on", "precision")}
        found |= {"strict": typed.get("strict", True), "control": typed.get("control")}
        found |= {"groups": typed.get("groups", "own"), "refit_on": typed.get("refit_on")}
        found |= {f"{each}.{key}": value for each, values in resolved.items() for key, value in asdict(values).items()}
        if found.get("attention.score") == "maps" and MAPS in self.ledger.manifest.files:
            found["attention.score"] = self.ledger.manifest.files[MAPS].settings["score"]
        return found

    def _corrected(self, model: SplitModel, typed: Mapping[str, Any], device: str, run: Path) -> Correction:
        needs, strict = methods[typed["method"]].needs, typed["strict"]
        train, answers = self.inputs.dataset(), self.holdings.answers()
        if "control" in typed:
            answers = without_looking(answers, typed["control"], seed=typed["seed"])
        given: dict[str, Any] = {"answers": answers} if _asked_by(typed["method"]) else {}
        if "maps" in needs:
            given["maps"] = self.holdings.maps()
            if "answers" in needs:
                self._check_guidance(given["maps"], answers, train, strict=strict)
        held_out = None if typed["evaluate_on"] is None else self.inputs.dataset(typed["evaluate_on"])
        groups, where = typed.get("groups", "own"), (device, typed["precision"])
        train = self._grouped(train, None, groups, *where)
        held_out = None if held_out is None else self._grouped(held_out, typed["evaluate_on"], groups, *where)
        corrector = _corrector(model, typed, device, run)
        check_needs(corrector, train, held_out, **given)
        found: Correction = corrector.fit(train, evaluate_on=held_out, **given, strict=strict)
        if "refit_on" not in typed:
            return found
        how = {"seed": typed["seed"], "device": device, "precision": typed["precision"]}
        refit = methods["refit"](found.model, guard="classes" if groups == "own" else "groups", **how)
        fresh = self._grouped(self.inputs.dataset(typed["refit_on"]), typed["refit_on"], groups, *where)
        refitted: Correction = refit.fit(train, fresh)
        return refitted

    def _check_answers(self, method: str) -> None:
        """See to it that a method has answers to work with, before anything is trained.

        Raises:
            AnswerError: There are none about pictures, or none about neurons, where they are needed.
            StaleError: There is nothing to answer about yet.
        """
        answers = self.holdings.answers()
        given = {"image": len(answers.only("image", "spot")), "neuron": len(answers.neuron_answers)}
        needed = [kind for kind in _asked_by(method) if not given[kind]]
        if not needed:
            return
        for each in needed:  # without anything to answer about, that comes first
            self.holdings.maps() if each == "image" else self.holdings.patches()
        there = " and ".join(f"{count:,} about {_ABOUT[kind]}" for kind, count in given.items())
        kind = needed[0] if len(needed) == 1 else "both"
        other = [name for name in ("attention", "pruning") if all(given[each] for each in _asked_by(name))]
        go_on = (
            f", or correct with those there are: {self.ledger.command('correct')} --method {other[0]}" if other else ""
        )
        about = " and ".join(_ABOUT[each] for each in _asked_by(method))
        ask = f"{self.ledger.command('annotate')} --kind {kind}"
        raise AnswerError(
            f"method {method!r} needs answers about {about}, and there are {there}. Ask for them: {ask}{go_on}"
        )

    def _say_how_few(self, method: str) -> None:
        """Warn before a training that has little to go by."""
        for kind in _asked_by(method):
            try:
                found = how_far(
                    self.holdings.maps() if kind == "image" else self.holdings.patches(), self.holdings.answers()
                )
            except StaleError:  # without patches a model can be pruned all the same
                continue
            spots = len(self.holdings.answers().spot_relevance()) if kind == "image" else 0
            if found.answered < _FEW * found.total and spots < SPOTS:
                what = "pictures" if kind == "image" else "patches of neurons"
                share = f"{100 * found.answered / found.total:.0f} %"
                said = f"{found.answered:,} of {found.total:,} {what} are answered ({share})"
                if spots:
                    said = f"{spots} spots are answered" + (f", and {said}" if found.answered else "")
                _log.warning(
                    "only %s: so few guide little, and the result can be worse than none; %s. To answer more first: "
                    "%s --kind %s",
                    said,
                    f"{SPOTS} typical spots are a good start" if kind == "image" else "a tenth is a good start",
                    self.ledger.command("annotate"),
                    f"spot --order typical --limit {SPOTS}" if kind == "image" else kind,
                )

    def _check_guidance(self, maps: SaliencyMaps, answers: AnnotationSet, train: ImageDataset, *, strict: bool) -> None:
        guidance_answers(answers, maps, train, num_classes=self.inputs.model.num_classes, strict=strict)
        asked = [entry["maps"] for entry in self.ledger.manifest.answers if entry.get("maps")]
        if asked and asked[-1] != self.ledger.digest(MAPS):
            _log.warning(
                "the last answers were given about other maps than those there are now (crayon explain made new ones "
                "since); look at the new ones: %s",
                self.ledger.command("suggest"),
            )

    def evaluate(
        self,
        names: Sequence[str] = (),
        *,
        split: str = "test",
        groups: Literal["own", "discovered"] = "own",
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
        channels_last: bool = False,
        compile: bool = False,
        cache: str | os.PathLike[str] | None = None,
        cache_gb: float = 50.0,
        again: bool = False,
    ) -> dict[str, Evaluation]:
        """Measure the model and its corrections; what is up to date is read from its file.

        Args:
            names: Of corrections, or "original"; none means all.
            split: "test", "val" or "train".
            groups: By the group columns of the data ("own"), or by the groups of `find_groups` ("discovered"), which
                are found in this split, too.
            batch_size: Pictures at a time.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
            channels_last: Keep tensors in the order in which many convolutions run faster; like the device, it moves
                results by rounding.
            compile: Run the trunk through ``torch.compile``, which takes minutes at first; it moves results likewise.
            cache: Folder in which decoded pictures are kept from run to run, relative to the workspace; it may be used
                by several.
            cache_gb: How much that may hold, in 10^9 bytes; what was not used for the longest time is deleted above it.
            again: Measure also what is up to date.

        Returns:
            Evaluations by name, which also lie in ``evaluations/SPLIT/NAME.json`` (``SPLIT-discovered`` for these).

        Raises:
            DataError: There is no such split.
            StaleError: There is no such correction, or it belongs to another model.
        """
        found: dict[str, Evaluation] = {}
        with self.ledger.working("evaluate"), self.inputs.keeping(cache, cache_gb):
            original, test, train = self.inputs.model, self.inputs.dataset(split), self.inputs.dataset()
            if groups == DISCOVERED:
                test = self._grouped(test, None if split == "train" else split, groups, device, precision)
                train = self._grouped(train, None, groups, device, precision)
            for name in names or (ORIGINAL, *self.holdings.usable_corrections()):
                path = f"{evaluations(split, groups)}/{name}.json"
                wanted = {"batch_size": batch_size, "precision": precision}
                model = original if name == ORIGINAL else self.holdings.correction(name).model
                inputs = self.holdings.evaluation_inputs(name, split, groups)
                if again or not self.ledger.is_fresh(path, inputs, wanted):
                    started = time.time()
                    made = evaluate(
                        laid_out(model, channels_last, compile),
                        test,
                        train=train,
                        batch_size=batch_size,
                        device=device,
                        precision=precision,
                    )
                    made.save(self.ledger.folder / path)
                    self.ledger.record(path, made_by="evaluate", inputs=inputs, settings=wanted, started=started)
                found[name] = Evaluation.load(self.ledger.folder / path)
        return found

    def compare(
        self,
        names: Sequence[str] = (),
        *,
        split: str = "test",
        groups: Literal["own", "discovered"] = "own",
        baseline: str | None = None,
        cluster_column: str | None = None,
        resamples: int = 2000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Comparison:
        """Put evaluated models side by side, with the noise of the test pictures.

        Args:
            names: Of corrections, or "original"; none means all.
            split: Which evaluations.
            groups: By the groups of the data ("own"), or by "discovered" ones.
            baseline: What the others are compared with; default the first.
            cluster_column: Column of the table that says which pictures belong together, such as the object that is
                shown on two backgrounds; they are drawn together.
            resamples: Of the paired bootstrap.
            confidence: Of its intervals.
            seed: Of its draws.

        Returns:
            The comparison, which also lies in ``evaluations/SPLIT/comparison.json``.

        Raises:
            StaleError: Something was not evaluated, or changed since.
            SettingsError: A setting is out of range, or there is nothing to compare.
            DataError: There is no such column, or it is empty for a picture.
        """
        clusters = None if cluster_column is None else self._clusters(cluster_column, split)
        with self.ledger.working("compare"):
            started = time.time()
            found: dict[str, Evaluation] = {}
            inputs: dict[str, str] = {}
            for name in names or (ORIGINAL, *self.holdings.usable_corrections()):
                path = f"{evaluations(split, groups)}/{name}.json"
                run = f"{self.ledger.command('evaluate')} --split {split}{by_groups(groups)} {name}"
                needed = self.holdings.evaluation_inputs(name, split, groups)
                found[name] = Evaluation.load(self.ledger.need(path, needed, run))
                inputs[path] = self.ledger.digest(path)
            settings: dict[str, Any] = {
                "baseline": baseline,
                "resamples": resamples,
                "confidence": confidence,
                "seed": seed,
            }
            made = compare(found, clusters=clusters, **settings)
            settings |= {} if cluster_column is None else {"cluster_column": cluster_column}
            path = f"{evaluations(split, groups)}/comparison.json"
            made.save(self.ledger.folder / path)
            self.ledger.record(path, made_by="compare", inputs=inputs, settings=settings, started=started)
        return made

    def _clusters(self, column: str, split: str) -> dict[str, str]:
        """A further column of the table by sample id: read as groups are, which is what it would be, too."""
        data = self.ledger.manifest.data
        if data.csv is None:
            raise SettingsError(
                f"cluster_column={column!r} names a column of a table, and the pictures of this "
                "workspace come from folders; make it from a table (crayon init --csv) "
                "(in Python: or call compare(clusters=))"
            )
        self.inputs.dataset(split)  # is there, and as it was
        try:
            found = data.model_copy(update={"group_columns": (column,)}).load(self.ledger.folder, split)
        except DataError as error:
            raise DataError(f"cluster_column={column!r}: {error}") from error
        return {sample: cells[0] for sample, cells in zip(found.ids, found.groups or (), strict=True)}


def _sections(method: str) -> tuple[str, ...]:
    """Where the settings of a method are, among the keywords of `Steps.correct`."""
    return tuple(each if each in ("attention", "pruning") else "settings" for each in made_of(method))


def _corrector(model: SplitModel, typed: Mapping[str, Any], device: str, run: Path | None = None) -> Any:
    """What corrects: a preset, and on top what was typed.

    Raises:
        SettingsError: A name or a value is wrong, or there is no such method or preset.
    """
    method = typed["method"]
    values = {each: typed.get(each, {}) for each in _sections(method)}
    if method != "both":
        (values,) = values.values()
    place = run if run is None or method == "both" else run / method
    where = {"seed": typed["seed"], "device": device, "precision": typed["precision"], "checkpoint_dir": place}
    return made(method, model, values, preset=typed.get("preset"), **where)


def _settings(corrector: Any) -> dict[str, Any]:
    """The settings as they count, by the method that they are of."""
    stages = getattr(corrector, "stages", {corrector.method: corrector})
    return {name: each.settings for name, each in stages.items()}


def _asked_by(method: str) -> list[str]:
    """Kinds of answers that a method needs."""
    needs = methods[method].needs
    return [kind for kind, need in (("image", "answers"), ("neuron", "neuron answers")) if need in needs]
