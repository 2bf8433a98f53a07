"""What people answered: an ordered collection of records, read, written, judged and compared.

Answers are facts and are kept as they came. Which images and neurons count as
relevant is a verdict, made on reading by a named rule
([`crayon_sdk.relevance`][crayon_sdk.relevance]).

On disk a collection is JSON Lines: UTF-8, one record a line, so that a program
can append answer by answer and a crash costs the last one at most.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import ClassVar

from pydantic import BaseModel
from pydantic_core import to_json

from crayon_sdk.aggregation import image_verdicts, neuron_verdicts
from crayon_sdk.answer_files import append_lines, read_lines
from crayon_sdk.answer_repository import OnTheHub
from crayon_sdk.errors import AnswerError, FileFormatError, MismatchError, SettingsError, first_few
from crayon_sdk.files import StrPath, sha256_of, write_text
from crayon_sdk.records import AnyAnswer, ImageAnswer, NeuronAnswer, parse_record
from crayon_sdk.relevance import (
    Agreement,
    Kind,
    NeuronRelevance,
    Relevance,
    Rule,
    agreement_of,
    check_kind,
    check_rule,
    group_votes,
)

__all__ = ["Agreement", "AnnotationSet", "ImageAnswer", "NeuronAnswer"]

_log = logging.getLogger(__name__)


class AnnotationSet(OnTheHub):
    """Answers in order; `add` changes the set, everything else returns new things.

    Args:
        answers: Records to start with.

    Attributes:
        torn_line: The cut-off last line of the file this was loaded from, or None.
        dropped: How many answers were left out on the way here by `strict=False`.

    Raises:
        AnswerError: One of them is not an ImageAnswer or a NeuronAnswer.

    >>> answers = AnnotationSet([ImageAnswer(id="1.jpg", answer="yes", annotator="ann")])
    >>> answers.add(ImageAnswer(id="1.jpg", answer="no", annotator="ben"))
    >>> answers.image_relevance()
    {'1.jpg': 'mixed'}
    """

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, answers: Iterable[AnyAnswer] = ()) -> None:
        self._answers: list[AnyAnswer] = []
        self.torn_line: str | None = None
        self.dropped = 0
        if isinstance(answers, (str, bytes, Mapping, BaseModel)) or not hasattr(answers, "__iter__"):
            raise AnswerError(f"expected a list of answers, got {type(answers).__name__}; use load() for a file")
        for answer in answers:
            self.add(answer)

    def add(self, answer: AnyAnswer) -> None:
        """Add one answer at the end.

        Raises:
            AnswerError: It is not an ImageAnswer or a NeuronAnswer.
        """
        if not isinstance(answer, (ImageAnswer, NeuronAnswer)):
            raise AnswerError(
                f"expected an ImageAnswer or a NeuronAnswer, got {type(answer).__name__}; "
                "use AnnotationSet.from_records for dictionaries"
            )
        self._answers.append(answer)

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[AnyAnswer]:
        return iter(tuple(self._answers))

    def __eq__(self, other: object) -> bool:
        return self._answers == other._answers if isinstance(other, AnnotationSet) else NotImplemented

    def __repr__(self) -> str:
        images, neurons = len(self.image_answers), len(self.neuron_answers)
        return f"AnnotationSet({images} image answers, {neurons} neuron answers, {len(self.annotators)} annotators)"

    @property
    def image_answers(self) -> tuple[ImageAnswer, ...]:
        """The answers about images, in order."""
        return tuple(answer for answer in self._answers if isinstance(answer, ImageAnswer))

    @property
    def neuron_answers(self) -> tuple[NeuronAnswer, ...]:
        """The answers about neurons, in order."""
        return tuple(answer for answer in self._answers if isinstance(answer, NeuronAnswer))

    @property
    def annotators(self) -> tuple[str, ...]:
        """Everybody who answered, in order of their first answer."""
        return tuple(dict.fromkeys(answer.annotator for answer in self._answers))

    @property
    def is_simulated(self) -> bool:
        """Whether any answer was made by a program in a person's place."""
        return any(answer.simulated for answer in self._answers)

    @property
    def all_simulated(self) -> bool:
        """Whether there are answers and all of them are simulated."""
        return bool(self._answers) and all(answer.simulated for answer in self._answers)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted records: 64 hex digits that do not depend on the order."""
        return sha256_of(*sorted(self._lines()))

    def counts(self, kind: Kind | None = None) -> dict[str, int]:
        """Count the answers of one kind, or of both.

        Returns:
            Numbers under "answers", "items" (distinct images and neurons),
            "yes", "no", "unsure", "annotators" and "simulated".

        Raises:
            SettingsError: `kind` is neither "image" nor "neuron".
        """
        if kind is not None:
            check_kind(kind)
        chosen = [answer for answer in self._answers if kind in (None, answer.kind)]
        words = Counter(answer.answer for answer in chosen)
        return {
            "answers": len(chosen),
            "items": len({answer.id if isinstance(answer, ImageAnswer) else answer.neuron for answer in chosen}),
            "yes": words["yes"],
            "no": words["no"],
            "unsure": words["unsure"],
            "annotators": len({answer.annotator for answer in chosen}),
            "simulated": sum(answer.simulated for answer in chosen),
        }

    def merge(self, *others: AnnotationSet) -> AnnotationSet:
        """Put sets together: nothing is lost, and exactly equal records are kept once.

        Of equal records in one set the last stays in place, so that a mind
        changed back counts; records of a later set that are already there are
        passed over. The numbers of dropped answers add up.
        """
        merged = AnnotationSet()
        seen: set[AnyAnswer] = set()
        for one in (self, *others):
            if not isinstance(one, AnnotationSet):
                raise AnswerError(f"expected an AnnotationSet to merge with, got {type(one).__name__}")
            last_first = dict.fromkeys(reversed(one._answers))
            merged._answers += [answer for answer in reversed(last_first) if answer not in seen]
            seen.update(last_first)
            merged.dropped += one.dropped
        return merged

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
                made._answers.append(parse_record(to_json(record)))
            except (AnswerError, ValueError) as error:  # noqa: PERF203 - the message needs the number
                raise AnswerError(f"record {number}: {error}") from error
        return made

    def _lines(self) -> list[str]:
        return [answer.model_dump_json() for answer in self._answers]

    def _text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines())

    def save(self, path: StrPath) -> None:
        """Write all answers as JSON Lines in one piece, replacing what was at `path`.

        Raises:
            OutputError: It cannot be written; what was there is unchanged.
        """
        write_text(path, self._text())

    def append_to(self, path: StrPath) -> None:
        """Add all answers to the end of a file, all of them or none.

        They are on the disk when this returns. A torn last line is first moved to `<path>.torn`.

        Raises:
            FileFormatError: What is there is not a file of answers; it is left alone.
            OutputError: It cannot be written; what was there is unchanged.
        """
        append_lines(path, self._text().encode())

    @classmethod
    def load(cls, path: StrPath, *, strict: bool = True) -> AnnotationSet:
        """Read a file of answers.

        A torn last line ([`crayon_sdk.answer_files`][crayon_sdk.answer_files]) is no
        error: it is kept as text in `torn_line`, and a warning is logged.

        Args:
            path: A file made by `save`, `append_to` or by hand.
            strict: Refuse a broken line; else leave it out and count it in `dropped`.

        Raises:
            FileFormatError: No such file, or a broken line; the message has its number.
        """
        lines = read_lines(path)
        made, first_problem = cls(), ""
        for number, line in lines.numbered:
            try:
                made._answers.append(parse_record(line))
            except AnswerError as error:  # noqa: PERF203 - each line fails on its own
                made.dropped += 1
                first_problem = first_problem or f"line {number}: {error}"
        if made.dropped:
            what = f"{str(path)!r}, {first_problem}. {made.dropped} of {len(lines.numbered)} lines are broken"
            if strict:
                raise FileFormatError(f"{what}. Correct them, or load with strict=False to leave them out.")
            _log.warning("%s and were left out.", what)
        if lines.torn is not None:
            made.torn_line = lines.torn.decode(errors="replace")
            _log.warning("%r: the last line was cut off and is not counted: %.80r", str(path), made.torn_line)
        return made

    def image_relevance(
        self,
        rule: Rule = "unanimous",
        *,
        yes_share: float = 0.7,
        maybe_share: float = 0.5,
        min_votes: int = 1,
        latest_only: bool = True,
    ) -> dict[str, Relevance]:
        """Judge every image that was answered, by a rule of [`crayon_sdk.relevance`][crayon_sdk.relevance].

        Args:
            rule: "unanimous", "majority", "share", or one that weighs people by how reliable they seem:
                "dawid-skene" or "mace" ([`crayon_sdk.aggregation`][crayon_sdk.aggregation]).
            yes_share: For "share": relevant above this share of yes.
            maybe_share: For "share": irrelevant below this share of yes.
            min_votes: Images with fewer answers are left out.
            latest_only: One annotator's latest answer counts: by `time` where all have one, else by order.

        Returns:
            Sample id -> "relevant", "irrelevant" or "mixed", in order of the first answer.

        Raises:
            SettingsError: An unknown rule, or a setting out of its range.
        """
        check_rule(rule, yes_share=yes_share, maybe_share=maybe_share, min_votes=min_votes)
        votes = group_votes(((answer.id, answer) for answer in self.image_answers), latest_only=latest_only)
        verdicts = image_verdicts(votes, rule, yes_share=yes_share, maybe_share=maybe_share)
        return {id_: verdict for id_, verdict in verdicts.items() if len(votes[id_]) >= min_votes}

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
                "dawid-skene" or "mace" ([`crayon_sdk.aggregation`][crayon_sdk.aggregation]).
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
        votes = group_votes((((a.neuron, a.patch), a) for a in self.neuron_answers), latest_only=latest_only)
        number = Counter(neuron for (neuron, _), own in votes.items() for _ in own)
        verdicts = neuron_verdicts(votes, rule, yes_share=yes_share, maybe_share=maybe_share)
        return {neuron: verdict for neuron, verdict in verdicts.items() if number[neuron] >= min_votes}

    def agreement(self, kind: Kind = "image") -> Agreement:
        """Measure how far the annotators agree, on images or on patches of neurons.

        Each annotator's latest answer to an item counts.

        Raises:
            SettingsError: `kind` is neither "image" nor "neuron".
        """
        check_kind(kind)
        chosen = self.image_answers if kind == "image" else self.neuron_answers
        votes = group_votes((a.id if isinstance(a, ImageAnswer) else (a.neuron, a.patch), a) for a in chosen)
        return agreement_of(({vote.annotator: vote.answer for vote in own} for own in votes.values()), kind=kind)

    def _keep(self, fits: Callable[[AnyAnswer], bool]) -> AnnotationSet:
        kept = AnnotationSet(answer for answer in self._answers if fits(answer))
        kept.dropped = self.dropped + len(self) - len(kept)
        return kept

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
        others = Counter(answer.model for answer in self._answers if answer.model not in ("", fingerprint))
        if others and strict:
            named = first_few([f"{model[:12]} ({number})" for model, number in others.most_common()])
            raise MismatchError(
                f"{others.total()} of {len(self)} answers were made for another model than {fingerprint[:12]}: "
                f"{named}. Use the model the pictures were made from{_or_leave_out(len(self) - others.total())}"
            )
        return self._keep(lambda answer: answer.model in ("", fingerprint))

    def for_ids(self, ids: Collection[str], *, strict: bool = True, where: str = "the data set") -> AnnotationSet:
        """Keep the answers about images that exist; answers about neurons stay.

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
        lacking = list(dict.fromkeys(answer.id for answer in self.image_answers if answer.id not in known))
        if lacking and strict:
            raise MismatchError(
                f"answers were given for {len(lacking)} images that are not in {where} ({len(known)} images): "
                f"{first_few(lacking)}. Ids there look like {min(known, default='')!r}: the path below the folder of "
                "from_folder, or what the table of from_csv says. Use the data set that was answered, read as it was "
                f"then{_or_leave_out(sum(answer.id in known for answer in self.image_answers))}"
            )
        return self._keep(lambda answer: isinstance(answer, NeuronAnswer) or answer.id in known)

    def for_neurons(self, num_neurons: int, *, strict: bool = True) -> AnnotationSet:
        """Keep the answers about neurons that exist; answers about images stay.

        Args:
            num_neurons: Number of neurons of the model, at least 1.
            strict: Refuse answers about other neurons; else leave them out and
                count them in `dropped`.

        Raises:
            MismatchError: Answers for neurons from `num_neurons` up.
        """
        if num_neurons < 1:
            raise SettingsError(f"num_neurons={num_neurons!r}; expected a whole number of at least 1")
        beyond = sorted({answer.neuron for answer in self.neuron_answers if answer.neuron >= num_neurons})
        if beyond and strict:
            raise MismatchError(
                f"answers were given for {len(beyond)} neurons the model does not have (it has {num_neurons}, "
                f"from 0): {first_few(beyond)}. Use the model that was answered"
                f"{_or_leave_out(sum(answer.neuron < num_neurons for answer in self.neuron_answers))}"
            )
        return self._keep(lambda answer: isinstance(answer, ImageAnswer) or answer.neuron < num_neurons)


def _or_leave_out(fitting: int) -> str:
    """Offer to leave answers out only where that leaves some."""
    if fitting:
        return f", or strict=False to leave those answers out and keep the {fitting} that fit."
    return "; none of these answers fits."
