"""The answers of a workspace: taken in, handed out, made up, and what to ask next.

What looks at maps, patches or the model is imported where it is used: who takes answers in or out does not wait for
torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crayon_sdk._base.files import check_writable, free_folder, read_shapes
from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.controls import control as without_looking
from crayon_sdk.answers.formats import read_answers, write_answers
from crayon_sdk.answers.relevance import KINDS, Control, Kind, Rule, check_kind
from crayon_sdk.errors import AnswerError, FileFormatError, OutputError, OutputExistsError, StaleError
from crayon_sdk.workspace.holdings import Holdings
from crayon_sdk.workspace.inputs import Inputs
from crayon_sdk.workspace.ledger import Ledger, now
from crayon_sdk.workspace.names import ANSWERS, MAPS, OBJECTS, PATCHES, plain

if TYPE_CHECKING:
    from crayon_sdk.explain.asking import Asked, Foresight, Method, Outlook, Question
    from crayon_sdk.explain.maps import SaliencyMaps
    from crayon_sdk.explain.objects import Worth
    from crayon_sdk.explain.patches import NeuronPatches

__all__ = ["Answering", "Intake"]

_ALL = 2**31
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intake:
    """What came of answers that were taken in.

    Attributes:
        new: How many were not there before.
        known: How many were, or came twice.
        total: How many there are now.
    """

    new: int
    known: int
    total: int


@dataclass(frozen=True, eq=False)
class Answering:
    """Takes answers in and out, and says what to ask.

    Attributes:
        ledger: What was made from what.
        inputs: Model and pictures, which answers have to fit.
        holdings: What there is to answer about, and the answers so far.
    """

    ledger: Ledger
    inputs: Inputs
    holdings: Holdings

    def take_in(self, answers: AnnotationSet, *, source: str, strict: bool = True) -> Intake:
        """As `add_answers`, and say also how many are there already."""
        as_answers(answers)
        with self.ledger.working("answer"):
            fitting = self._fitting(answers, strict=strict)
            return self._take_in(fitting, self.holdings.answers(missing_ok=True), source)

    def _fitting(self, answers: AnnotationSet, *, strict: bool) -> AnnotationSet:
        """The answers that are about what there is here."""
        train = self.inputs.dataset()
        fitting = answers.for_model(self.ledger.manifest.model_fingerprint, strict=strict)
        fitting = fitting.for_ids(train.ids, strict=strict, where="the training pictures")
        if any(target >= train.num_classes for target in fitting.targets):
            # The model may have more classes than there are pictures of, and is loaded to know.
            fitting = fitting.for_classes(self.inputs.model.num_classes, strict=strict)
        if len(fitting.only("neuron")):
            neurons, patches = self._neurons_and_patches()
            fitting = fitting.for_neurons(neurons, num_patches=patches, strict=strict)
        if fitting.dropped:
            _log.warning("%d answers were left out, because they are about something else", fitting.dropped)
        return fitting

    def _take_in(self, fitting: AnnotationSet, before: AnnotationSet, source: str) -> Intake:
        new, total = self._keep_answers(before, fitting, source, is_there=True, dropped=fitting.dropped)
        return Intake(new, len(fitting) - new, total)

    def _neurons_and_patches(self) -> tuple[int, int | None]:
        """How many neurons the model has, and patches each at most: what the file of patches says, else the model."""
        run = self.ledger.command("explain")
        try:
            path = self.ledger.need(PATCHES, self.ledger.base(), run)
        except StaleError:
            return self.inputs.model.num_neurons, None  # the patches were answered elsewhere
        shapes, _ = read_shapes(path, remedy=f"Run: {run} --again")
        neurons, patches = shapes["neurons"]
        return neurons, patches

    def add_answers(self, answers: AnnotationSet, *, source: str, strict: bool = True) -> int:
        """Take answers in: all of them or none; what is there already is passed over.

        Args:
            answers: About the maps or patches of this workspace.
            source: Where they come from, for the record.
            strict: Refuse answers that do not belong here; else leave them out.

        Returns:
            How many were new.

        Raises:
            MismatchError: Answers about other pictures, neurons, patches or classes, or another model.
        """
        return self.take_in(answers, source=source, strict=strict).new

    def take_answers(self, given: AnnotationSet, *, withdrawn: AnnotationSet, source: str) -> int:
        """Take in what a program collected that lets people take answers back.

        Args:
            given: All answers that count; those that are there already are passed over.
            withdrawn: Answers that were taken back: those of them that were taken in before are removed.
            source: Where they come from, for the record.

        Returns:
            How many were new.

        Raises:
            MismatchError: Answers about other pictures or neurons.
        """
        with self.ledger.working("answer"):
            # Answers about an earlier model of this workspace stay in the store, and out of its answers.
            fitting = given.for_model(self.ledger.manifest.model_fingerprint, strict=False)
            fitting = fitting.for_ids(self.inputs.dataset().ids, where="the training pictures")
            there, gone = self.holdings.answers(missing_ok=True), frozenset(withdrawn) - frozenset(given)
            kept = AnnotationSet(answer for answer in there if answer not in gone)
            if len(kept) == len(there) and not frozenset(fitting) - frozenset(there):
                return 0
            return self._keep_answers(kept, fitting, source, removed=len(there) - len(kept))[0]

    def import_answers(self, path: str | os.PathLike[str], *, annotator: str = "published", strict: bool = True) -> int:
        """Take answers from a file: our JSON Lines, or any that `formats.read_answers` knows.

        Args:
            path: The file.
            annotator: Who answered, where the file does not say it.
            strict: Refuse answers that do not belong here, and broken lines; else leave them out.

        Returns:
            How many were new.

        Raises:
            FileFormatError: The file is broken or of another kind.
            MismatchError: Answers about other pictures, neurons or another model.
        """
        return self.import_file(path, annotator=annotator, strict=strict).new

    def import_file(self, path: str | os.PathLike[str], *, annotator: str = "published", strict: bool = True) -> Intake:
        """As `import_answers`, and say also how many are there already."""
        with self.ledger.working("answer"):
            if self.ledger.is_copy(ANSWERS, Path(path)):  # read once, as what is given and as what is there
                there = self.holdings.answers()
                return self._take_in(self._fitting(there, strict=strict), there, str(path))
        found = read_answers(path, self.inputs.dataset().ids, annotator=annotator, strict=strict)
        if found.dropped:
            _log.warning("%d lines of %s are bad and were left out", found.dropped, os.fspath(path))
        return self.take_in(found, source=str(path), strict=strict)

    def export_answers(
        self,
        path: str | os.PathLike[str],
        kind: str = "jsonl",
        *,
        control: Control | None = None,
        seed: int = 0,
        overwrite: bool = False,
    ) -> int:
        """Write all answers as a file of another tool.

        Args:
            path: The file.
            kind: One of `names.ANSWER_FORMATS`.
            control: Write what people would have said who do not look, "yes", "no", "shuffled" or "inverted"
                ([`control`][crayon_sdk.answers.controls.control]), in the place of the answers there are.
            seed: Of "shuffled".
            overwrite: Replace the file when it exists.

        Returns:
            How many answers there are.

        Raises:
            AnswerError: There are none.
            MismatchError: For a published list: pictures or neurons without an answer.
            OutputExistsError: The file exists, and ``overwrite`` is false.
            OutputError: It cannot be written.
            SettingsError: An unknown kind.
        """
        answers = self.holdings.answers()
        if not len(answers):
            raise AnswerError("there are no answers yet; nothing was written")
        if Path(path).exists() and not overwrite:
            raise OutputExistsError(
                f"{os.fspath(path)!r} exists; choose another name, or replace it with overwrite=True"
            )
        if control is not None:
            answers = without_looking(answers, control, seed=seed)
        neurons = self._neurons_and_patches()[0] if kind == "published-neurons" else 0
        write_answers(answers, path, kind, self.inputs.dataset().ids, num_neurons=neurons)
        return len(answers)

    def export_crowd(
        self,
        folder: str | os.PathLike[str],
        *,
        kind: Kind = "image",
        count: int | None = None,
        votes: int = 1,
        seed: int = 0,
        method: Method = "random",
        question: str | None = None,
        base_url: str = "",
        overwrite: bool = False,
    ) -> int:
        """Write pictures and task files for MTurk and Label Studio ([`export_crowd`][crayon_sdk.annotate.export]).

        Args:
            folder: The folder to make.
            kind: "image", "neuron", or "spot": the brightest spots of the maps.
            count: How many questions at most; ``None`` asks all that are open.
            votes: Ask what fewer people than this have answered.
            seed: Of the order.
            method: In which order, as for `suggest`.
            question: The words, with ``{label}``.
            base_url: Where the pictures will be served.
            overwrite: Replace the folder when it exists.

        Returns:
            How many questions were written.

        Raises:
            OutputExistsError: The folder exists.
            SettingsError: A setting is out of range, or nothing is open.
            StaleError: There is nothing to ask about yet.
        """
        from crayon_sdk.annotate.export import export_crowd

        free_folder(folder, overwrite=overwrite)
        asked = self.suggest(count=_ALL if count is None else count, kind=kind, votes=votes, seed=seed, method=method)
        how: dict[str, Any] = {"question": question, "base_url": base_url, "overwrite": overwrite}
        export_crowd(folder, self.inputs.dataset(), self._shown(kind), asked, **how)
        return len(asked)

    def simulate_answers(
        self,
        *,
        annotators: int = 2,
        neuron_annotators: int = 1,
        noise: float = 0.0,
        coverage: float = 0.5,
        count: int | None = None,
        neuron_count: int | None = None,
        ids: Sequence[str] | None = None,
        seed: int = 0,
        kind: Literal["both", "image", "neuron", "spot"] = "both",
    ) -> AnnotationSet:
        """Answer from the object masks of the training pictures; earlier simulated answers of the kind are replaced.

        Args:
            annotators: How many answer about pictures, or about spots.
            neuron_annotators: How many answer about patches.
            noise: Probability in [0, 1] that one answer is turned round.
            coverage: Least covered share of a patch for a yes.
            count: Answer about so many pictures (or spots) only, drawn by the seed: those of a smaller count are among
                those of a larger one. ``None`` answers about all.
            neuron_count: Likewise, about so many neurons.
            ids: Answer about these pictures only.
            seed: Of the noise, and of what is drawn.
            kind: Answer about "image" maps, about "neuron" patches, about "both" of them, or about the "spot" of
                every map.

        Returns:
            The new answers, each marked as simulated. Those of people stay as they are.

        Raises:
            DataError: The pictures have no masks, or there is no picture of such an id.
            SettingsError: A setting is out of range.
            StaleError: There are no maps or patches yet.
        """
        from crayon_sdk.explain.masks import drawn, simulate_answers, simulate_neuron_answers, simulate_spot_answers

        if kind != "both":
            check_kind(kind)
        kinds = ("image", "neuron") if kind == "both" else (kind,)
        with self.ledger.working("answer simulate"):
            train = self.inputs.dataset()
            made, about_patches = AnnotationSet(), AnnotationSet()
            if kind != "neuron":
                about_pictures = simulate_spot_answers if kind == "spot" else simulate_answers
                made = about_pictures(self.holdings.maps(), train, annotators=annotators, noise=noise, seed=seed)
            if "neuron" in kinds:
                how_often: dict[str, Any] = {"annotators": neuron_annotators, "noise": noise, "seed": seed}
                about_patches = simulate_neuron_answers(self.holdings.patches(), train, coverage=coverage, **how_often)
            if ids is not None:
                for sample in ids:
                    train.index_of(sample)  # raises for one that there is not
                made = AnnotationSet(answer for answer in made if answer.id in set(ids))
            made = drawn(made, count, seed=seed).merge(drawn(about_patches, neuron_count, seed=seed))
            before = self.holdings.answers(missing_ok=True)
            people = AnnotationSet(each for each in before if not (each.simulated and each.kind in kinds))
            how: dict[str, Any] = {
                "annotators": annotators,
                "neuron_annotators": neuron_annotators,
                "coverage": coverage,
            }
            how |= {} if kind == "both" else {"kind": kind}
            how |= {"count": count, "neuron_count": neuron_count, "ids": None if ids is None else list(ids)}
            self._keep_answers(people, made, "simulated", seed=seed, noise=noise, **how)
        return made

    def suggest(
        self,
        *,
        count: int = 20,
        kind: Kind = "image",
        votes: int = 1,
        seed: int = 0,
        method: Method = "random",
    ) -> tuple[Question, ...]:
        """What to ask next.

        Args:
            count: How many at most.
            kind: "image", "neuron", or "spot": the brightest spots of the maps.
            votes: How many people are to answer each.
            seed: Of the order.
            method: "random"; for pictures and spots also "coverage", every next one being that whose neurons differ
                most from all before; "uncertain", that first whose class the model expected least; "typical", the
                most typical of every cluster of what the brightest spots show, with as many clusters as questions; or
                "active", twenty typical ones, then those first whose answer can be foretold least from the others.
                These run the model once over the training pictures, and keep what they saw in ``runs/``.

        Raises:
            SettingsError: A setting is out of range, or patches are to be chosen by anything but chance.
            StaleError: There is nothing to ask about yet.
        """
        from crayon_sdk.explain.asking import suggest

        source, answers = self._shown(kind), self.holdings.answers()
        return suggest(source, answers, self.outlook, count=count, votes=votes, seed=seed, method=method, kind=kind)

    def foresight(self, kind: Kind = "image", *, look: bool = False) -> Foresight | None:
        """What can be foretold from the answers so far, and whether there are enough; ``None`` where nobody has looked.

        Args:
            kind: "image", or "spot": the brightest spots of the maps.
            look: Run the model once over the pictures where that was not done yet; else it takes milliseconds.

        Raises:
            SettingsError: An unknown kind, or "neuron".
            StaleError: The maps are missing or stale.
        """
        from crayon_sdk.explain.asking import foresee

        check_kind(kind)
        maps, answers = self.holdings.maps(), self.holdings.answers()
        seen = self.outlook() if look else self.known_outlook()
        return None if seen is None else foresee(maps, answers, seen, kind=kind)

    def _shown(self, kind: Kind) -> SaliencyMaps | NeuronPatches:
        """What people look at who are asked about a kind.

        Raises:
            SettingsError: There is no such kind.
            StaleError: There is nothing to ask about yet.
        """
        check_kind(kind)
        return self.holdings.patches() if kind == "neuron" else self.holdings.maps()

    def asked(self) -> dict[Kind, Asked]:
        """How far people are with the pictures ("image"), the patches of neurons ("neuron") and the spots ("spot").

        Raises:
            StaleError: There is nothing to ask about yet.
        """
        from crayon_sdk.explain.asking import how_far

        answers = self.holdings.answers()
        return {kind: how_far(self._shown(kind), answers, kind=kind) for kind in KINDS}

    def worth(self, *, rule: Rule = "unanimous", device: str = "auto", sheet: int = 8) -> Worth:
        """Say what the answers about pictures and spots are worth: whether they go together, by a probe of cells.

        One pass of the model over the training pictures. What the answers call the object is drawn into
        ``pictures/objects.png``: whether yes and no were exchanged can be seen there, and nowhere else.

        Args:
            rule: From votes to verdicts.
            device: "auto" or a torch device.
            sheet: How many pictures to draw; 0 draws none.

        Raises:
            AnswerError: There are no answers about pictures or spots, or none is a clear yes.
            OutputError: The sheet cannot be written.
            StaleError: The maps are missing or stale.
            UnsupportedModelError: The model does not give its intermediate features.
        """
        from crayon_sdk.explain.contact_sheets import choose_ids, objects_sheet
        from crayon_sdk.explain.objects import find_objects

        maps, answers = self.holdings.maps(), self.holdings.answers()
        if not len(answers.only("image", "spot")):
            raise AnswerError(
                f"there are no answers about pictures or spots yet. Ask for them: {self.ledger.command('annotate')}"
            )
        path, train = self.ledger.folder / OBJECTS, self.inputs.dataset()
        if sheet:
            check_writable(path.parent)
        found = find_objects(self.inputs.model, train, maps, answers, rule=rule, device=device)
        if sheet:
            path.parent.mkdir(exist_ok=True)
            shown = maps.select(found.ids)
            chosen = choose_ids(shown, shown, count=sheet, groups=dict(zip(train.ids, train.group_labels, strict=True)))
            objects_sheet(train, maps, found, chosen, path)
        return found.worth

    def _outlook_file(self) -> Path:
        folder = self.ledger.run_folder("outlook", self.ledger.base() | {"maps": self.ledger.digest(MAPS)}, {})
        return folder / "outlook.safetensors"

    def known_outlook(self) -> Outlook | None:
        """What the model makes of the training pictures, where that was seen already, about the maps there are."""
        from crayon_sdk.explain.asking import Outlook

        path = self._outlook_file()
        if path.is_file():
            with contextlib.suppress(FileFormatError):
                return Outlook.load(path)
        return None

    def outlook(self) -> Outlook:
        """What the model makes of the training pictures: seen once, kept as long as the maps are the same."""
        from crayon_sdk._base.process import resolve_device, resolve_precision
        from crayon_sdk.explain.asking import look

        known, path = self.known_outlook(), self._outlook_file()
        if known is not None:
            return known
        model, train = self.inputs.model, self.inputs.dataset()
        device = resolve_device("auto", model.device)
        autocast = resolve_precision("auto", device)
        seen = look(model, train, self.holdings.maps(), device=device, autocast=autocast)
        self.ledger.clear_runs("outlook")
        try:
            seen.save(path)
        except OutputError as error:
            _log.warning("the next call looks at the pictures again: %s", error)
        return seen

    def _keep_answers(
        self, before: AnnotationSet, added: AnnotationSet, source: str, *, is_there: bool = False, **about: object
    ) -> tuple[int, int]:
        """How many are new, and how many there are; where ``before`` is the file, it is written only if it changes."""
        path = self.ledger.folder / ANSWERS
        once = before.merge()  # what people put together by hand may hold an answer twice
        everything = once.merge(added)
        new = len(everything) - len(once)
        there = path.exists()
        if there:
            AnnotationSet().append_to(path)  # a torn last line is put aside, not lost
        if not (there and is_there and len(everything) == len(before) == len(once)):
            everything.save(path)
        entry = {"time": now(), "source": source, "added": new, "simulated": added.is_simulated} | about
        entry["output"] = self.ledger.digest(ANSWERS)
        entry |= {"maps": self.ledger.digest(MAPS), "patches": self.ledger.digest(PATCHES)}
        self.ledger.update(answers=(*self.ledger.manifest.answers, plain(entry)))
        return new, len(everything)
