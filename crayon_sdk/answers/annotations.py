"""What people answered: an ordered collection of records, read, written, judged and compared.

Answers are facts and are kept as they came. Which images and neurons count as
relevant is a verdict, made on reading by a named rule
([`crayon_sdk.answers.relevance`][crayon_sdk.answers.relevance]).

On disk a collection is JSON Lines: UTF-8, one record a line, so that a program
can append answer by answer and a crash costs the last one at most.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import BaseModel
from pydantic_core import to_json
from typing_extensions import Unpack  # in typing from Python 3.11 on

from crayon_sdk._base.files import StrPath, replace_file, sha256_of_each, write_text
from crayon_sdk._base.publishing import HubOptions, Published, find_target, publish, takes_hub_options
from crayon_sdk._base.showing import as_html
from crayon_sdk._base.text import first_few
from crayon_sdk.answers.consensus import image_verdicts, neuron_verdicts
from crayon_sdk.answers.lines import append_lines, read_lines
from crayon_sdk.answers.on_hub import FILE, answer_card, fetch_answers
from crayon_sdk.answers.records import AnyAnswer, ImageAnswer, NeuronAnswer, SpotAnswer, parse_record
from crayon_sdk.answers.relevance import (
    ANSWERS,
    CROWD_RULES,
    KINDS,
    Agreement,
    Answer,
    Kind,
    NeuronRelevance,
    Relevance,
    Rule,
    agreement_of,
    check_kind,
    check_rule,
    group_votes,
    neuron_relevance_of,
    verdict_of,
)
from crayon_sdk.answers.table import AnswerTable, Mask, Rows, distinct
from crayon_sdk.errors import AnswerError, FileFormatError, MismatchError, SettingsError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Agreement", "AnnotationSet", "ImageAnswer", "NeuronAnswer", "SpotAnswer", "as_answers"]

_log = logging.getLogger(__name__)


class AnnotationSet:
    """Answers in order; `add` changes the set, everything else returns new things.

    Iterating gives the answers in order. ``answers[id]`` are those about one picture, its spot included, ``id in
    answers`` asks whether there are any, and ``answers + others`` is `merge`. Positions are refused.

    A million answers take some 30 MB and every text once
    ([`crayon_sdk.answers.table`][crayon_sdk.answers.table]); records are made as one goes through them.

    Args:
        answers: Records to start with.

    Attributes:
        torn_line: The cut-off last line of the file this was loaded from, or None.
        dropped: How many answers were left out on the way here by `strict=False`.

    Raises:
        AnswerError: One of them is not an ImageAnswer, a NeuronAnswer or a SpotAnswer.

    >>> answers = AnnotationSet([ImageAnswer(id="1.jpg", answer="yes", annotator="ann")])
    >>> answers.add(ImageAnswer(id="1.jpg", answer="no", annotator="ben"))
    >>> answers.image_relevance()
    {'1.jpg': 'mixed'}
    """

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, answers: Iterable[AnyAnswer] = ()) -> None:
        self._table = AnswerTable()
        self.torn_line: str | None = None
        self.dropped = 0
        if isinstance(answers, (str, bytes, Mapping, BaseModel)) or not hasattr(answers, "__iter__"):
            raise AnswerError(f"expected a list of answers, got {type(answers).__name__}; {_advice(answers)}")
        for answer in answers:
            self.add(answer)

    def add(self, answer: AnyAnswer) -> None:
        """Add one answer at the end.

        Raises:
            AnswerError: It is not an ImageAnswer, a NeuronAnswer or a SpotAnswer.
        """
        if not isinstance(answer, (ImageAnswer, NeuronAnswer, SpotAnswer)):
            raise AnswerError(
                f"expected an ImageAnswer, a NeuronAnswer or a SpotAnswer, got {type(answer).__name__}; "
                "use AnnotationSet.from_records for dictionaries"
            )
        self._table.add(answer)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[AnyAnswer]:
        return self._table.records(self._table.rows())

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str):
            return bool(len(self._about(item)))
        return any(answer == item for answer in self)

    def __getitem__(self, sample: str) -> tuple[ImageAnswer | SpotAnswer, ...]:
        if not isinstance(sample, str):
            raise AnswerError(
                f"answers are looked up by the id of a picture, which is a text, got {sample!r}; tuple(answers) has "
                "all of them in order, answers.neuron_answers those about neurons"
            )
        found = tuple(self._table.records(self._about(sample)))
        if not found:
            raise AnswerError(f"nobody answered about {sample!r}; ask with: {sample!r} in answers")
        return cast("tuple[ImageAnswer | SpotAnswer, ...]", found)

    def _about(self, sample: str) -> Rows:
        """Rows of the answers about one picture, in order."""
        rows = self._table.rows()
        rows = rows[self._table.of_ids(rows, sample.__eq__)]
        return rows[~self._table.of_kind(rows, "neuron")]

    def __add__(self, other: AnnotationSet) -> AnnotationSet:
        return self.merge(other) if isinstance(other, AnnotationSet) else NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AnnotationSet):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self._table.keys(), other._table.keys()))

    def __repr__(self) -> str:
        images, neurons = len(self.only("image")), len(self.only("neuron"))
        spots = len(self.only("spot"))
        about_spots = f"{spots} spot answers, " if spots else ""
        return (
            f"AnnotationSet({images} image answers, {neurons} neuron answers, {about_spots}"
            f"{len(self.annotators)} annotators)"
        )

    def only(self, *kinds: Kind) -> AnnotationSet:
        """The answers of these kinds, in order.

        Raises:
            SettingsError: There is no such kind.
        """
        for kind in kinds:
            check_kind(kind)
        rows = self._table.rows()
        return self._of(rows[self._table.of_kind(rows, *kinds)])

    def _of(self, rows: Rows, dropped: int = 0) -> AnnotationSet:
        made = AnnotationSet()
        made._table, made.dropped = AnswerTable(self._table, rows), dropped
        return made

    def table(self, title: str = "Answers") -> Table:
        """A rich table for the terminal: how many answers of which kind, by how many people, and how far they agree."""
        from rich.table import Table

        table = Table(title=title or None)
        names = ("answers", "items", "yes", "no", "unsure", "annotators", "simulated")
        for name in ("about", *names, "agreement %", "kappa"):
            table.add_column(name, justify="left" if name == "about" else "right")
        for kind in KINDS:
            counts, agreed = self.counts(kind), self.agreement(kind)
            if kind == "spot" and not counts["answers"]:  # most people never ask about them
                continue
            measured = (agreed.percent, 1), (agreed.kappa, 2)
            cells = ("-" if value is None else f"{value:.{digits}f}" for value, digits in measured)
            table.add_row(f"{kind}s", *(f"{counts[name]:,}" for name in names), *cells)
        return table

    def _repr_html_(self) -> str:
        return as_html(self.table())

    @property
    def image_answers(self) -> tuple[ImageAnswer, ...]:
        """The answers about images, in order; `only` makes no records."""
        return cast("tuple[ImageAnswer, ...]", tuple(self.only("image")))

    @property
    def neuron_answers(self) -> tuple[NeuronAnswer, ...]:
        """The answers about neurons, in order."""
        return cast("tuple[NeuronAnswer, ...]", tuple(self.only("neuron")))

    @property
    def spot_answers(self) -> tuple[SpotAnswer, ...]:
        """The answers about the brightest spots of images, in order."""
        return cast("tuple[SpotAnswer, ...]", tuple(self.only("spot")))

    @property
    def annotators(self) -> tuple[str, ...]:
        """Everybody who answered, in order of their first answer."""
        return tuple(dict.fromkeys(about.annotator for about, _ in self._table.abouts(self._table.rows())))

    @property
    def targets(self) -> frozenset[int]:
        """The class indices that answers name."""
        abouts = self._table.abouts(self._table.rows())
        return frozenset(about.target for about, _ in abouts if about.target is not None)

    @property
    def is_simulated(self) -> bool:
        """Whether any answer was made by a program in a person's place."""
        return any(about.simulated for about, _ in self._table.abouts(self._table.rows()))

    @property
    def all_simulated(self) -> bool:
        """Whether there are answers and all of them are simulated."""
        return bool(len(self)) and all(about.simulated for about, _ in self._table.abouts(self._table.rows()))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted records: 64 hex digits that do not depend on the order."""
        return sha256_of_each(self._table.sorted_lines())

    def counts(self, kind: Kind | None = None) -> dict[str, int]:
        """Count the answers of one kind, or of all.

        Returns:
            Numbers under "answers", "items" (distinct images, neurons and spots),
            "yes", "no", "unsure", "annotators" and "simulated".

        Raises:
            SettingsError: There is no such `kind`.
        """
        if kind is not None:
            check_kind(kind)
        chosen = self if kind is None else self.only(kind)
        rows = chosen._table.rows()
        abouts = chosen._table.abouts(rows)
        words: Counter[str] = Counter()
        for about, number in abouts:
            words[about.answer] += number
        about_pictures = (chosen._table.of_kind(rows, "image"), chosen._table.of_kind(rows, "spot"))
        neurons = {about.neuron for about, _ in abouts if about.kind == "neuron"}
        return {
            "answers": len(chosen),
            "items": sum(len(np.unique(rows["id"][of_kind])) for of_kind in about_pictures) + len(neurons),
            "yes": words["yes"],
            "no": words["no"],
            "unsure": words["unsure"],
            "annotators": len({about.annotator for about, _ in abouts}),
            "simulated": sum(number for about, number in abouts if about.simulated),
        }

    def merge(self, *others: AnnotationSet) -> AnnotationSet:
        """Put sets together: nothing is lost, and exactly equal records are kept once.

        Of equal records in one set the last stays in place, so that a mind
        changed back counts; records of a later set that are already there are
        passed over. The numbers of dropped answers add up.
        """
        for one in others:
            if not isinstance(one, AnnotationSet):
                raise AnswerError(f"expected an AnnotationSet to merge with, got {type(one).__name__}")
        parts = [self._table.rows(), *(self._table.adopt(one._table) for one in others)]
        rows = distinct(parts)
        rows["line"] = 0  # lines of several files say nothing
        return self._of(rows, sum(one.dropped for one in (self, *others)))

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, object]]) -> AnnotationSet:
        """Make a set from dictionaries, each with the fields of one record and its "kind".

        Args:
            records: Values as in the file; `time` as text in ISO 8601 or as a datetime.

        Raises:
            AnswerError: A record is malformed; the message has its number, from 0.

        >>> len(AnnotationSet.from_records([{"kind": "image", "id": "1", "answer": "no", "annotator": "ann"}]))
        1
        """
        made = cls()
        for number, record in enumerate(records):
            try:
                made._table.add(parse_record(to_json(record)))
            except (AnswerError, ValueError) as error:  # noqa: PERF203 - the message needs the number
                raise AnswerError(f"record {number}: {error}") from error
        return made

    @classmethod
    def from_dict(
        cls,
        answers: Mapping[str, Answer | bool],
        *,
        annotator: str,
        model: str = "",
        simulated: bool = False,
        kind: Literal["image", "spot"] = "image",
    ) -> AnnotationSet:
        """Make a set from sample ids and answers about their maps, or about the brightest spots of these.

        Args:
            answers: "yes", "no" or "unsure", or true for yes and false for no, by sample id.
            annotator: Who answered.
            model: Fingerprint of the model that made the maps (``maps.model``); empty where it is not known.
            simulated: Whether a program answered in a person's place.
            kind: "image", or "spot" for answers about the brightest spots.

        Raises:
            AnswerError: An id is no text, or an answer is something else; the message has the id.
            SettingsError: Another kind.

        >>> AnnotationSet.from_dict({"1.jpg": "yes", "2.jpg": False}, annotator="ann").image_relevance()
        {'1.jpg': 'relevant', '2.jpg': 'irrelevant'}
        """
        if not isinstance(answers, Mapping):
            raise AnswerError(f"expected a dict of sample ids and answers, got {type(answers).__name__}")
        if kind not in ("image", "spot"):
            raise SettingsError(f"expected kind 'image' or 'spot', got {kind!r}")
        made, record = cls(), ImageAnswer if kind == "image" else SpotAnswer
        for sample, answer in answers.items():
            word = ("no", "yes")[answer] if isinstance(answer, bool) else answer
            try:
                made.add(record(id=sample, answer=word, annotator=annotator, model=model, simulated=simulated))
            except AnswerError as error:
                raise AnswerError(f"the answer to {sample!r}: {error}") from error
        return made

    def save(self, path: StrPath) -> None:
        """Write all answers as JSON Lines in one piece, replacing what was at `path`.

        Raises:
            OutputError: It cannot be written; what was there is unchanged.
        """
        with replace_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in self._table.lines())

    def append_to(self, path: StrPath) -> None:
        """Add all answers to the end of a file, all of them or none.

        They are on the disk when this returns. A torn last line is first moved to `<path>.torn`.

        Raises:
            FileFormatError: What is there is not a file of answers; it is left alone.
            OutputError: It cannot be written; what was there is unchanged.
        """
        append_lines(path, "".join(f"{line}\n" for line in self._table.lines()).encode())

    @classmethod
    def load(cls, path: StrPath, *, strict: bool = True) -> AnnotationSet:
        """Read a file of answers.

        A torn last line ([`crayon_sdk.answers.lines`][crayon_sdk.answers.lines]) is no
        error: it is kept as text in `torn_line`, and a warning is logged.

        Args:
            path: A file made by `save`, `append_to` or by hand.
            strict: Refuse a broken line; else leave it out and count it in `dropped`.

        Raises:
            FileFormatError: No such file, or a broken line; the message has its number.
        """
        lines = read_lines(path)
        made = cls()
        total, made.dropped, first_problem = made._table.read(lines)
        if made.dropped:
            what = f"{str(path)!r}, {first_problem}. {made.dropped} of {total} lines are broken"
            if strict:
                raise FileFormatError(f"{what}. Correct them, or load with strict=False to leave them out.")
            _log.warning("%s and were left out.", what)
        if lines.torn is not None:
            made.torn_line = lines.torn.decode(errors="replace")
            _log.warning("%r: the last line was cut off and is not counted: %.80r", str(path), made.torn_line)
        return made

    @takes_hub_options
    def push_to_hub(self, repo_id: str, **hub: Unpack[HubOptions]) -> Published:
        """Publish all answers as a data set that ``datasets.load_dataset`` reads, in one commit.

        The names of annotators are part of the answers, and are published with them.

        Args:
            repo_id: "me/birds-answers"; made when it is missing.
            **hub: As in [`HubOptions`][crayon_sdk._base.publishing.HubOptions].

        Raises:
            AnswerError: There are none.
            HubError: As of a model
                ([`Correction.push_to_hub`][crayon_sdk.results.correction.Correction.push_to_hub]).
        """
        if not self.counts()["answers"]:
            raise AnswerError("there are no answers to publish")
        target = find_target(repo_id, kind="dataset", **hub)
        with tempfile.TemporaryDirectory(prefix="crayon-push-") as place:
            self.save(Path(place) / FILE)
            write_text(Path(place) / "README.md", answer_card(self, target.repo_id, self.counts()))
            return publish(Path(place), target)

    @classmethod
    def from_hub(cls, repo_id: str, *, revision: str | None = None, strict: bool = True) -> AnnotationSet:
        """Read answers that were published.

        Args:
            repo_id: "me/birds-answers".
            revision: A branch, a tag or a commit; default main.
            strict: Refuse a broken line; else leave it out and count it in `dropped`.

        Raises:
            HubError: There is no such data set, it holds no answers, or it may not be read.
            FileFormatError: A line is broken, or the file is not what the Hub lists.
        """
        return cls.load(fetch_answers(repo_id, revision), strict=strict)

    def image_relevance(
        self,
        rule: Rule = "unanimous",
        *,
        yes_share: float = 0.7,
        maybe_share: float = 0.5,
        min_votes: int = 1,
        latest_only: bool = True,
    ) -> dict[str, Relevance]:
        """Judge every image that was answered, by a rule of [`relevance`][crayon_sdk.answers.relevance].

        Args:
            rule: "unanimous", "majority", "share", or one that weighs people by how reliable they seem:
                "dawid-skene" or "mace" ([`crayon_sdk.answers.consensus`][crayon_sdk.answers.consensus]).
            yes_share: For "share": relevant above this share of yes.
            maybe_share: For "share": irrelevant below this share of yes.
            min_votes: Images with fewer answers are left out.
            latest_only: One annotator's latest answer counts: by `time` where all have one, else by order.

        Returns:
            Sample id -> "relevant", "irrelevant" or "mixed", in order of the first answer.

        Raises:
            SettingsError: An unknown rule, or a setting out of its range.
        """
        shares = {"yes_share": yes_share, "maybe_share": maybe_share}
        return self._picture_relevance("image", rule, min_votes=min_votes, latest_only=latest_only, **shares)

    def spot_relevance(
        self,
        rule: Rule = "unanimous",
        *,
        yes_share: float = 0.7,
        maybe_share: float = 0.5,
        min_votes: int = 1,
        latest_only: bool = True,
    ) -> dict[str, Relevance]:
        """Judge the brightest spot of every image whose spot was answered.

        Args:
            rule: As for `image_relevance`.
            yes_share: As for `image_relevance`.
            maybe_share: As for `image_relevance`.
            min_votes: Spots with fewer answers are left out.
            latest_only: As for `image_relevance`.

        Returns:
            Sample id -> "relevant", "irrelevant" or "mixed", in order of the first answer.

        Raises:
            SettingsError: An unknown rule, or a setting out of its range.

        >>> AnnotationSet([SpotAnswer(id="1.jpg", answer="yes", annotator="ann")]).spot_relevance()
        {'1.jpg': 'relevant'}
        """
        shares = {"yes_share": yes_share, "maybe_share": maybe_share}
        return self._picture_relevance("spot", rule, min_votes=min_votes, latest_only=latest_only, **shares)

    def yes_shares(self, kind: Kind = "spot", *, latest_only: bool = True) -> dict[str, float]:
        """Share of those who were asked about a picture, or its spot, that said yes; unsure counts half.

        Args:
            kind: "spot" or "image".
            latest_only: As for `image_relevance`.

        Returns:
            Sample id -> share in [0, 1], in order of the first answer.

        Raises:
            SettingsError: There is no such kind, or it is "neuron".

        >>> AnnotationSet([SpotAnswer(id="1.jpg", answer="yes", annotator=each) for each in "ab"]).yes_shares()
        {'1.jpg': 1.0}
        """
        check_kind(kind)
        if kind == "neuron":
            raise SettingsError("expected kind 'spot' or 'image', got 'neuron'; neuron_relevance judges neurons")
        found = self._table.votes(kind, latest_only=latest_only)
        counts = zip(found.items, found.counts(), strict=True)
        return {id_: (yes + unsure / 2) / (yes + no + unsure) for id_, (yes, no, unsure) in counts}

    def _picture_relevance(
        self, kind: Kind, rule: Rule, *, min_votes: int, latest_only: bool, yes_share: float, maybe_share: float
    ) -> dict[str, Relevance]:
        check_rule(rule, yes_share=yes_share, maybe_share=maybe_share, min_votes=min_votes)
        if rule in CROWD_RULES:
            votes = group_votes(((answer.id, answer) for answer in self.only(kind)), latest_only=latest_only)
            verdicts = image_verdicts(votes, rule, yes_share=yes_share, maybe_share=maybe_share)
            return {id_: verdict for id_, verdict in verdicts.items() if len(votes[id_]) >= min_votes}
        found = self._table.votes(kind, latest_only=latest_only)
        return {
            id_: verdict_of(*counts, rule, yes_share=yes_share, maybe_share=maybe_share)
            for id_, counts in zip(found.items, found.counts(), strict=True)
            if sum(counts) >= min_votes
        }

    def neuron_relevance(
        self,
        rule: Rule = "majority",
        *,
        yes_share: float = 0.7,
        maybe_share: float = 0.5,
        min_votes: int = 1,
        latest_only: bool = True,
    ) -> dict[int, NeuronRelevance]:
        """Judge every neuron that was answered; in doubt it is relevant and stays.

        Args:
            rule: "majority" of the patches, "unanimous" (irrelevant only if all are no), "share", or
                "dawid-skene" or "mace" ([`crayon_sdk.answers.consensus`][crayon_sdk.answers.consensus]).
            yes_share: Only checked: at least `maybe_share`.
            maybe_share: For "share": irrelevant below this share of yes.
            min_votes: Neurons with fewer answers (over all patches) are left out.
            latest_only: As for images, per patch.

        Returns:
            Neuron -> "relevant" or "irrelevant", in order of the first answer.

        Raises:
            SettingsError: An unknown rule, or a setting out of its range.
        """
        check_rule(rule, yes_share=yes_share, maybe_share=maybe_share, min_votes=min_votes)
        shares = {"yes_share": yes_share, "maybe_share": maybe_share}
        if rule in CROWD_RULES:
            votes = group_votes((((a.neuron, a.patch), a) for a in self.neuron_answers), latest_only=latest_only)
            number = Counter(neuron for (neuron, _), own in votes.items() for _ in own)
            verdicts = neuron_verdicts(votes, rule, **shares)
            return {neuron: verdict for neuron, verdict in verdicts.items() if number[neuron] >= min_votes}
        found = self._table.votes("neuron", latest_only=latest_only)
        patches: dict[int, list[list[str]]] = {}
        for (neuron, _), counts in zip(found.items, found.counts(), strict=True):
            words = [word for word, count in zip(ANSWERS, counts, strict=True) for _ in range(count)]
            patches.setdefault(neuron, []).append(words)
        return {
            neuron: neuron_relevance_of(own, rule, **shares)
            for neuron, own in patches.items()
            if sum(map(len, own)) >= min_votes
        }

    def agreement(self, kind: Kind = "image") -> Agreement:
        """Measure how far the annotators agree, on images, on patches of neurons, or on spots.

        Each annotator's latest answer to an item counts.

        Raises:
            SettingsError: There is no such `kind`.
        """
        check_kind(kind)
        return agreement_of(self._table.votes(kind).by_person(), kind=kind)

    def voters(self, kind: Kind = "image") -> dict[Any, frozenset[str]]:
        """Who answered about what: sample id, or (neuron, patch) -> people.

        Raises:
            SettingsError: There is no such `kind`.
        """
        check_kind(kind)
        return self._table.votes(kind).voters()

    def _keep(self, rows: Rows, fits: Mask) -> AnnotationSet:
        kept = rows[fits]
        return self._of(kept, self.dropped + len(rows) - len(kept))

    def for_model(self, fingerprint: str, *, strict: bool = True) -> AnnotationSet:
        """Keep the answers that fit a model: made for it, or with no model recorded.

        Args:
            fingerprint: Fingerprint of the model.
            strict: Refuse answers for another model; else leave them out and
                count them in `dropped`.

        Raises:
            MismatchError: Answers were made for another model.
        """
        if not fingerprint:
            raise SettingsError(f"fingerprint={fingerprint!r}; expected the fingerprint of a model")
        rows = self._table.rows()
        others: Counter[str] = Counter()
        for about, number in self._table.abouts(rows):
            if about.model not in ("", fingerprint):
                others[about.model] += number
        if others and strict:
            named = first_few([f"{model[:12]} ({number})" for model, number in others.most_common()])
            raise MismatchError(
                f"{others.total()} of {len(self)} answers were made for another model than {fingerprint[:12]}: "
                f"{named}. Use the model the pictures were made from{_or_leave_out(len(self) - others.total())}"
            )
        return self._keep(rows, self._table.of_abouts(rows, lambda about: about.model in ("", fingerprint)))

    def for_ids(self, ids: Collection[str], *, strict: bool = True, where: str = "the data set") -> AnnotationSet:
        """Keep the answers about images, and their spots, that exist; answers about neurons stay.

        Args:
            ids: All sample ids there are.
            strict: Refuse answers about other images; else leave them out and
                count them in `dropped`.
            where: Where the ids come from, for the message.

        Raises:
            MismatchError: Answers for images that are lacking.
        """
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise SettingsError(f"ids: expected a collection of sample ids, got {type(ids).__name__}")
        known = frozenset(ids)
        rows = self._table.rows()
        about_neurons = self._table.of_kind(rows, "neuron")
        fits = self._table.of_ids(rows, known.__contains__) | about_neurons
        if strict and (lacking := self._table.ids(rows[~fits])):
            raise MismatchError(
                f"answers were given for {len(lacking)} images that are not in {where} ({len(known)} images): "
                f"{first_few(lacking)}. Ids there look like {min(known, default='')!r}: the path below the folder of "
                "from_folder, or what the table of from_csv says. Use the data set that was answered, read as it was "
                f"then{_or_leave_out(int((fits & ~about_neurons).sum()))}"
            )
        return self._keep(rows, fits)

    def for_classes(self, num_classes: int, *, strict: bool = True) -> AnnotationSet:
        """Keep the answers about classes that exist, and those that name none.

        Args:
            num_classes: Number of classes of the model, at least 1.
            strict: Refuse answers about other classes; else leave them out and
                count them in `dropped`.

        Raises:
            MismatchError: Answers whose `target` is `num_classes` or more; the message has their ids and lines.
        """
        if num_classes < 1:
            raise SettingsError(f"num_classes={num_classes!r}; expected a whole number of at least 1")
        rows = self._table.rows()
        fits = self._table.of_abouts(rows, lambda about: about.target is None or about.target < num_classes)
        if strict and not fits.all():
            raise MismatchError(
                f"{np.sum(~fits)} of {len(self)} answers are about classes the model does not have (it has "
                f"{num_classes}, from 0): {self._named(rows[~fits], 'target')}. Use the model that was "
                f"answered{_or_leave_out(int(fits.sum()))}"
            )
        return self._keep(rows, fits)

    def _named(self, rows: Rows, field: str) -> str:
        """A few answers: what they say in a field, about what, and where they were read."""
        few = rows[:5]
        named = [
            f"{field} {getattr(answer, field)} of {answer.id or f'neuron {answer.neuron}'!r} by {answer.annotator}"  # type: ignore[union-attr]
            + (f" (line {line})" if line else "")
            for answer, line in zip(self._table.records(few), few["line"].tolist(), strict=True)
        ]
        return ", ".join(named) + (f" and {len(rows) - len(few)} more" if len(rows) > len(few) else "")

    def for_neurons(self, num_neurons: int, *, num_patches: int | None = None, strict: bool = True) -> AnnotationSet:
        """Keep the answers about neurons that exist; answers about images and spots stay.

        Args:
            num_neurons: Number of neurons of the model, at least 1.
            num_patches: Number of patches a neuron has at most, at least 1; ``None`` = not known.
            strict: Refuse answers about other neurons; else leave them out and
                count them in `dropped`.

        Raises:
            MismatchError: Answers for neurons from `num_neurons` up, or patches from `num_patches` up.
        """
        if num_neurons < 1 or (num_patches is not None and num_patches < 1):
            raise SettingsError(
                f"num_neurons={num_neurons!r}, num_patches={num_patches!r}; expected whole numbers of at least 1"
            )
        rows = self._table.rows()
        fits = self._table.of_abouts(rows, lambda about: about.neuron is None or about.neuron < num_neurons)
        beyond = sorted({about.neuron or 0 for about, _ in self._table.abouts(rows[~fits])})
        if beyond and strict:
            raise MismatchError(
                f"answers were given for {len(beyond)} neurons the model does not have (it has {num_neurons}, "
                f"from 0): {first_few(beyond)}. Use the model that was answered"
                f"{_or_leave_out(sum(answer.neuron < num_neurons for answer in self.neuron_answers))}"
            )
        if num_patches is not None:
            there = self._table.of_abouts(rows, lambda about: about.patch is None or about.patch < num_patches)
            lacking = fits & ~there
            if strict and lacking.any():
                raise MismatchError(
                    f"{lacking.sum()} of {len(self)} answers are about patches that no neuron has (a neuron has "
                    f"{num_patches} at most, from 0): {self._named(rows[lacking], 'patch')}. Use the patches that were "
                    f"answered{_or_leave_out(int((fits & there).sum()))}"
                )
            fits &= there
        return self._keep(rows, fits)


def as_answers(value: object) -> AnnotationSet:
    """Give ``value`` itself when it is an AnnotationSet.

    Raises:
        AnswerError: It is something else; the message says how to make an AnnotationSet of it.
    """
    if isinstance(value, AnnotationSet):
        return value
    raise AnswerError(f"expected an AnnotationSet, got {type(value).__name__}; {_advice(value)}")


def _advice(value: object) -> str:
    if isinstance(value, Mapping):
        return "write AnnotationSet.from_dict({'1.jpg': 'yes', ...}, annotator='ann') for answers by sample id"
    if isinstance(value, (ImageAnswer, NeuronAnswer, SpotAnswer)):
        return "write AnnotationSet([answer])"
    if isinstance(value, (list, tuple)):
        return "write AnnotationSet(answers), or AnnotationSet.from_records(answers) for dictionaries"
    return "use load() for a file: AnnotationSet.load('answers.jsonl')"


def _or_leave_out(fitting: int) -> str:
    """Offer to leave answers out only where that leaves some."""
    if fitting:
        return f", or strict=False to leave those answers out and keep the {fitting} that fit."
    return "; none of these answers fits."
