"""`Workspace`: a whole correction in one folder that can be stopped, copied, resumed and audited.

```
workspace.json           what each file was made from, how and when
crayon.toml              settings of yours (optional; read by the command line)
maps.safetensors         a map for every training picture
patches.safetensors      the strongest patches of every neuron
answers.jsonl            yes, no and unsure
corrections/NAME/        a timm checkpoint each
evaluations/SPLIT/       NAME.json, "original" for the model before, and comparison.json
reports/NAME.html        all about a correction on one page, with its pictures beside it
pictures/                sheets to look at
runs/                    what an unfinished correction continues from
```

Every step can be called again: what is up to date is left alone, what was stopped goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crayon_sdk import __version__
from crayon_sdk._base.files import describe_write_failure
from crayon_sdk._base.locking import locked
from crayon_sdk._base.methods import checked_method, methods
from crayon_sdk.correct.method import check_needs, made
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError, OutputError, OutputExistsError, SettingsError
from crayon_sdk.explain import contact_sheets
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.comparison import Comparison, compare
from crayon_sdk.results.correction import Correction, load_correction
from crayon_sdk.results.evaluation import Evaluation, evaluate
from crayon_sdk.workspace.books import ORIGINAL, checked_name, default_name, different, plain
from crayon_sdk.workspace.holdings import MAPS, PATCHES
from crayon_sdk.workspace.inputs import behaviour_of, is_same, look_at_data
from crayon_sdk.workspace.ledger import now
from crayon_sdk.workspace.manifest import MANIFEST, DataSource, Manifest, ModelSource, portable
from crayon_sdk.workspace.shipping import Shipping

__all__ = ["ORIGINAL", "Workspace"]


class Workspace(Shipping):
    """A folder that holds a model's correction from the first map to the last evaluation.

    Args:
        folder: Made by [`create`][crayon_sdk.workspace.workspace.Workspace.create].
        lock_timeout: Seconds to wait while another process works in it.

    Raises:
        FileFormatError: It is not a workspace, or another version is needed.
    """

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], model: ModelSource, data: DataSource, *, again: bool = False
    ) -> Workspace:
        """Make a workspace, after a look at the model and at every picture.

        Args:
            folder: Where; made when it is missing. Other files in it stay.
            model: Where the model comes from.
            data: Where the pictures come from; a train split is needed, val and test are welcome.
            again: Take new inputs into a workspace that exists; what was made from others is stale then.

        Raises:
            OutputExistsError: It is a workspace, and ``again`` is false.
            ModelLoadError: There is no such model.
            DataError: Pictures are not usable, a class has too few, or labels are not classes of the model.
        """
        place = Path(folder)
        if (place / MANIFEST).exists() and not again:
            raise OutputExistsError(
                f"{str(place)!r} is a workspace already; go on with it (crayon info {place}), or take other inputs "
                "into it with again=True"
            )
        kept = Manifest.load(place) if (place / MANIFEST).exists() else None
        # What is stored counts from the workspace already, what is new from where one is.
        if kept is None or model.source != kept.model.source:
            model = model.model_copy(update={"source": portable(model.source, place)})
        paths = {name: getattr(data, name) for name in ("folder", "csv", "val", "test", "root", "masks")}
        new = {name: path for name, path in paths.items() if path and (not kept or path != getattr(kept.data, name))}
        data = data.model_copy(update={name: portable(path, place) for name, path in new.items()})
        loaded = model.load(place)
        splits, classes = look_at_data(data, place, loaded)
        behaviour = behaviour_of(loaded)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(describe_write_failure(place, error)) from error
        with locked(place, doing="init"):
            fresh = Manifest(
                written_by=__version__,
                created=now(),
                model=model,
                model_fingerprint=loaded.fingerprint,
                preprocessing=loaded.preprocessing.to_dict(),
                behaviour=behaviour,
                classes=classes,
                data=data,
                splits=splits,
            )
            if (place / MANIFEST).exists():
                if not again:
                    raise OutputExistsError(f"{str(place)!r} became a workspace in the meantime; nothing was changed")
                kept = Manifest.load(place)
                fresh = fresh.model_copy(update={name: getattr(kept, name) for name in ("created", "files", "answers")})
                if kept.behaviour is not None and is_same(kept.behaviour, behaviour):
                    fresh = fresh.model_copy(update={"behaviour": kept.behaviour})  # up to rounding
            fresh.save(place)
        return cls(place)

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
            again: Make them again also when they are up to date.

        Raises:
            SettingsError: A setting is out of range.
            WorkspaceBusyError: Another process works in the workspace.
        """
        with self._working("explain"):
            explainer = Explainer(
                self.model, target=target, score=score, batch_size=batch_size, device=device, precision=precision
            )
            train = self.dataset()
            how = {"batch_size": batch_size, "precision": str(explainer.autocast or "float32")}
            wanted = {"target": target, "score": score} | how
            if again or not self._is_fresh(MAPS, self._base(), wanted):
                started = time.time()
                self._explain_in_parts(explainer, train).save(self.folder / MAPS)
                self._note(MAPS, "Explainer.explain", self._base(), wanted, started)
                self._clear_runs("maps")
            wanted = {"patches_per_neuron": patches_per_neuron} | how
            if again or not self._is_fresh(PATCHES, self._base(), wanted):
                started = time.time()
                explainer.explain_neurons(train, patches_per_neuron).save(self.folder / PATCHES)
                self._note(PATCHES, "Explainer.explain_neurons", self._base(), wanted, started)
            maps, patches = self.maps(), self.patches()
            if sheet:
                self._draw_sheets(train, maps, patches, sheet)
        return maps, patches

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
        seed: int = 0,
        device: str = "auto",
        precision: str = "auto",
        strict: bool = True,
        overwrite: bool = False,
    ) -> Correction:
        """Correct the model; a run that was stopped goes on in the middle of its epoch.

        Args:
            method: "attention", "pruning", "both" (pruning, then attention), "erm", or any other name in
                ``crayon_sdk.correct.methods``.
            name: What the correction is called; default the method and the preset.
            preset: Published settings: "waterbirds", "biased-celeba" or "backgrounds".
            attention: Keywords of `AttentionCorrector` on top.
            pruning: Keywords of `NeuronPruner` on top.
            settings: Keywords of any other method.
            evaluate_on: A split to measure after every epoch, such as "val"; never "test" with keep="best".
            seed: Of everything random.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
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
        name = checked_name(name or default_name(checked_method(method), preset))
        own = method not in ("attention", "pruning", "both")
        attention = dict(attention or {}) if method in ("attention", "both") else {}  # what is not used is no setting
        pruning = dict(pruning or {}) if method in ("pruning", "both") else {}
        settings = dict(settings or {}) if own else {}
        if evaluate_on == "test" and "best" in (attention.get("keep"), settings.get("keep")):
            raise SettingsError('keep="best" chooses an epoch, and the test pictures may not: evaluate on "val"')
        wanted = plain({"method": method, "preset": preset, "attention": attention, "pruning": pruning})
        wanted |= {"evaluate_on": evaluate_on, "seed": seed, "precision": precision, "strict": strict}
        wanted |= plain({"settings": settings}) if own else {}
        path = f"corrections/{name}"
        with self._working(f"correct {name}"):
            original = self.model  # looked at also when the result is there already: it may have changed
            self._check_answers(method)
            inputs = self._correction_inputs(method, evaluate_on)
            if self._is_fresh(path, inputs, wanted) and not overwrite:
                return load_correction(self.folder / path)
            entry = self.manifest.files.get(path) if self._ledger.digest(path) else None
            if entry is not None and entry.settings != wanted and not overwrite:
                raise OutputExistsError(
                    f"there is a correction {name!r} with other settings ({different(entry.settings, wanted)}); give "
                    "this one another name=, or replace it with overwrite=True"
                )
            self._say_how_few(method)
            started = time.time()
            run = self._run_folder(f"corrections-{name}", inputs, wanted)
            shared: dict[str, Any] = {"preset": preset, "seed": seed, "device": device, "precision": precision}
            values = (
                {"attention": attention, "pruning": pruning} if method == "both" else attention | pruning | settings
            )
            found = self._corrected(original, method, values, evaluate_on, shared, run, strict=strict)
            card = self._card(f"{evaluate_on} pictures" if evaluate_on else "")
            found.save(self.folder / path, overwrite=True, card=card)
            self._note(path, f"Workspace.correct({method!r})", inputs, wanted, started)
            self._clear_runs(f"corrections-{name}")
        return found

    def _corrected(
        self,
        model: SplitModel,
        method: str,
        values: Mapping[str, Any],
        evaluate_on: str | None,
        shared: Mapping[str, Any],
        run: Path,
        *,
        strict: bool,
    ) -> Correction:
        needs, train, answers = methods[method].needs, self.dataset(), self.answers()
        given: dict[str, Any] = {"answers": answers} if {"answers", "neuron answers"} & needs else {}
        if "maps" in needs:
            given["maps"] = self.maps()
            self._check_guidance(given["maps"], answers, train, strict=strict)
        held_out = None if evaluate_on is None else self.dataset(evaluate_on)
        check_needs(methods[method], train, held_out, **given)
        place = run if method == "both" else run / method
        corrector = made(method, model, values, **shared, checkpoint_dir=place)
        found: Correction = corrector.fit(train, evaluate_on=held_out, **given, strict=strict)
        return found

    def evaluate(
        self,
        names: Sequence[str] = (),
        *,
        split: str = "test",
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
        again: bool = False,
    ) -> dict[str, Evaluation]:
        """Measure the model and its corrections; what is up to date is read from its file.

        Args:
            names: Of corrections, or "original"; none means all.
            split: "test", "val" or "train".
            batch_size: Pictures at a time.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
            again: Measure also what is up to date.

        Returns:
            Evaluations by name, which also lie in ``evaluations/SPLIT/NAME.json``.

        Raises:
            DataError: There is no such split.
            StaleError: There is no such correction, or it belongs to another model.
        """
        found: dict[str, Evaluation] = {}
        with self._working("evaluate"):
            original, test, train = self.model, self.dataset(split), self.dataset()
            for name in names or (ORIGINAL, *self._usable_corrections()):
                path = f"evaluations/{split}/{name}.json"
                wanted = {"batch_size": batch_size, "precision": precision}
                model = original if name == ORIGINAL else self.correction(name).model
                inputs = self._evaluation_inputs(name, split)
                if again or not self._is_fresh(path, inputs, wanted):
                    started = time.time()
                    made = evaluate(
                        model,
                        test,
                        train=train,
                        batch_size=batch_size,
                        device=device,
                        precision=precision,
                    )
                    made.save(self.folder / path)
                    self._note(path, "evaluate", inputs, wanted, started)
                found[name] = Evaluation.load(self.folder / path)
        return found

    def compare(
        self,
        names: Sequence[str] = (),
        *,
        split: str = "test",
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
        with self._working("compare"):
            started = time.time()
            found: dict[str, Evaluation] = {}
            inputs: dict[str, str] = {}
            for name in names or (ORIGINAL, *self._usable_corrections()):
                path = f"evaluations/{split}/{name}.json"
                run = f"{self.command('evaluate')} --split {split} {name}"
                found[name] = Evaluation.load(self._ledger.need(path, self._evaluation_inputs(name, split), run))
                inputs[path] = self._ledger.digest(path)
            settings: dict[str, Any] = {
                "baseline": baseline,
                "resamples": resamples,
                "confidence": confidence,
                "seed": seed,
            }
            made = compare(found, clusters=clusters, **settings)
            settings |= {} if cluster_column is None else {"cluster_column": cluster_column}
            path = f"evaluations/{split}/comparison.json"
            made.save(self.folder / path)
            self._note(path, "compare", inputs, settings, started)
        return made

    def _clusters(self, column: str, split: str) -> dict[str, str]:
        """A further column of the table by sample id: read as groups are, which is what it would be, too."""
        data = self.manifest.data
        if data.csv is None:
            raise SettingsError(
                f"--cluster-column {column!r} (cluster_column=) names a column of a table, and the pictures of this "
                "workspace come from folders; make it from a table (crayon init --csv), or call compare(clusters=)"
            )
        self.dataset(split)  # is there, and as it was
        try:
            found = data.model_copy(update={"group_columns": (column,)}).load(self.folder, split)
        except DataError as error:
            raise DataError(f"--cluster-column {column!r} (cluster_column=): {error}") from error
        return {sample: cells[0] for sample, cells in zip(found.ids, found.groups or (), strict=True)}

    def _draw_sheets(self, train: ImageDataset, maps: SaliencyMaps, patches: NeuronPatches, count: int) -> None:
        for path, source in (("pictures/maps.png", MAPS), ("pictures/patches.png", PATCHES)):
            inputs, wanted, started = {source: self._ledger.digest(source)}, {"count": count}, time.time()
            if self._is_fresh(path, inputs, wanted):
                continue
            (self.folder / "pictures").mkdir(exist_ok=True)
            if source == MAPS:
                groups = zip(train.ids, train.group_labels, strict=True)
                chosen = contact_sheets.choose_ids(maps, maps, count=count, groups=dict(groups))
                contact_sheets.maps_sheet(train, maps, chosen, self.folder / path)
            else:
                contact_sheets.patches_sheet(train, patches, range(min(count, patches.num_neurons)), self.folder / path)
            self._note(path, "Workspace.explain", inputs, wanted, started)
