"""What report and card say about a correction: the same facts, in plain values and plain sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from crayon_sdk._base.methods import title_of
from crayon_sdk._base.text import one_line
from crayon_sdk.answers.annotations import Agreement, AnnotationSet
from crayon_sdk.answers.relevance import KINDS, Kind
from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.models.rebuild import how_to_load, is_timm
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.comparison import Comparison, compare
from crayon_sdk.results.evaluation import Evaluation, GroupResult

__all__ = [
    "DISCOVERED_GROUPS",
    "AnswerFacts",
    "Facts",
    "GroupRow",
    "answer_facts",
    "gather_facts",
    "group_rows",
    "summary",
]

DISCOVERED_GROUPS = (
    "Nobody labelled these groups: they were discovered from the answers, by what the original model sees around the "
    "object (class / the class in whose usual surround the picture stands). They are a hypothesis that held its tests."
)
_ABOUT: dict[Kind, str] = {"image": "picture", "neuron": "neuron", "spot": "bright spot"}


@dataclass(frozen=True)
class Facts:
    """A correction in plain values.

    Attributes:
        architecture: Of the model.
        class_names: May be empty.
        num_classes: Of the model.
        num_neurons: Inputs of its last layer.
        preprocessing: How pictures are prepared, by name.
        fingerprint: Of the corrected model.
        load: The Python that loads it without this package.
        records: Of the corrections, as JSON has them, oldest first; at least one.
        answers: Behind all of them.
        before: Measured before; ``None`` when it was not.
        after: Measured after.
        evaluated_on: What it was measured on, such as "test pictures"; "" when nobody said.
        library: What builds it by name: "timm", or "crayon-sdk" for everything else.
        license: Of the model it was made from, as its config says it; "" when it does not.
        base_model: Name on the Hub of the model it was made from, when its weights were read from there; "" else.
    """

    architecture: str
    class_names: tuple[str, ...]
    num_classes: int
    num_neurons: int
    preprocessing: Mapping[str, Any]
    fingerprint: str
    load: str
    records: tuple[Mapping[str, Any], ...]
    answers: AnnotationSet = field(repr=False)
    before: Evaluation | None = field(default=None, repr=False)
    after: Evaluation | None = field(default=None, repr=False)
    evaluated_on: str = ""
    library: str = "timm"
    license: str = ""
    base_model: str = ""

    @property
    def method(self) -> str:
        """What was done, in order."""
        return ", then ".join(title_of(record["method"]) for record in self.records)

    @property
    def pruned(self) -> tuple[int, ...]:
        """Neurons that are cut in the result."""
        return tuple(self.records[-1]["pruned_neurons"])

    @property
    def original(self) -> str:
        """Fingerprint of the model before the first correction."""
        return str(self.records[0]["original"])

    @property
    def place(self) -> str:
        """What it was measured on, in words."""
        return self.evaluated_on or "pictures"

    @cached_property
    def comparison(self) -> Comparison | None:
        """After against before, with the noise of the pictures; ``None`` when they cannot be compared."""
        if self.before is None or self.after is None:
            return None
        try:
            return compare({"before": self.before, "after": self.after})
        except MismatchError:
            return None


def gather_facts(
    model: SplitModel,
    records: Sequence[Mapping[str, Any]],
    answers: AnnotationSet,
    before: Evaluation | None = None,
    after: Evaluation | None = None,
    *,
    evaluated_on: str = "",
) -> Facts:
    """Gather the facts about a corrected model.

    Args:
        model: The corrected model.
        records: Of its corrections, as JSON has them, oldest first.
        answers: Behind them.
        before: Measured before.
        after: Measured after.
        evaluated_on: What it was measured on, in words.

    Raises:
        SettingsError: There is no record.
    """
    if not records:
        raise SettingsError("expected the record of at least one correction, got none")
    config = getattr(model.model, "pretrained_cfg", None) or {}
    # timm's own names have one too, whether their weights were read or not.
    base_model = config.get("hf_hub_id") if config.get("source") == "hf-hub" else ""
    return Facts(
        architecture=one_line(model.architecture),
        class_names=tuple(one_line(name) for name in model.class_names),
        num_classes=model.num_classes,
        num_neurons=model.num_neurons,
        preprocessing=model.preprocessing.to_dict(),
        fingerprint=model.fingerprint,
        load=how_to_load(model),
        records=tuple(records),
        answers=answers,
        before=before,
        after=after,
        evaluated_on=one_line(evaluated_on),
        library="timm" if is_timm(model) else "crayon-sdk",
        license=one_line(config.get("license") or ""),
        base_model=one_line(base_model or ""),
    )


@dataclass(frozen=True)
class GroupRow:
    """One group before and after.

    Attributes:
        name: Of the group.
        before: ``None`` when it was not measured.
        after: ``None`` when it was not measured.
    """

    name: str
    before: GroupResult | None
    after: GroupResult | None

    @property
    def total(self) -> str:
        """How many pictures; two numbers where they differ."""
        return " / ".join(dict.fromkeys(f"{each.total:,}" for each in (self.before, self.after) if each is not None))

    @property
    def rank(self) -> float:
        """Smaller for a group that is right less often; groups without pictures come last."""
        measured = self.after or self.before
        return measured.accuracy if measured is not None and measured.total else 2.0


def group_rows(before: Evaluation | None, after: Evaluation | None) -> tuple[GroupRow, ...]:
    """Put the groups of two evaluations side by side, by name."""
    found = [{group.name: group for group in each.groups} if each else {} for each in (before, after)]
    names = dict.fromkeys([*found[1], *found[0]])
    return tuple(GroupRow(one_line(name), found[0].get(name), found[1].get(name)) for name in names)


@dataclass(frozen=True)
class AnswerFacts:
    """The answers about pictures, those about neurons, or those about spots.

    Attributes:
        kind: "image", "neuron" or "spot".
        counts: As `AnnotationSet.counts` gives them.
        agreement: Between the people who answered the same things.
    """

    kind: Kind
    counts: Mapping[str, int]
    agreement: Agreement

    @property
    def what(self) -> str:
        """What they are about, in words: "12 pictures"."""
        items = self.counts["items"]
        return f"{items:,} {_plural(items, _ABOUT[self.kind])}"

    @property
    def by(self) -> str:
        """Who answered, in words."""
        people, simulated, answers = (self.counts[name] for name in ("annotators", "simulated", "answers"))
        if simulated == 0:
            return f"{people:,} {_plural(people, 'person', 'people')}"
        if simulated == answers:
            return f"{people:,} simulated {_plural(people, 'annotator')}, no person"
        return f"{people:,} annotators, of whom some are simulated ({simulated:,} of {answers:,} answers)"

    @property
    def agreed(self) -> str:
        """How far they agree, in words."""
        found = self.agreement
        if found.percent is None:
            return "nothing was answered twice"
        kappa = "" if found.kappa is None else f", {(found.kappa_kind or '').capitalize()}'s kappa {found.kappa:.2f}"
        return f"{found.percent:.1f} % on {found.items:,} that were answered twice or more{kappa}"


def answer_facts(answers: AnnotationSet) -> tuple[AnswerFacts, ...]:
    """Count answers and measure agreement, by what they are about; kinds without an answer are left out."""
    found = (AnswerFacts(kind, answers.counts(kind), answers.agreement(kind)) for kind in KINDS)
    return tuple(each for each in found if each.counts["answers"])


def summary(facts: Facts) -> tuple[str, str, str]:
    """Three sentences: what was done, what came out, and how far one can trust it."""
    return _done(facts), _measured(facts), _trust(facts)


def _done(facts: Facts) -> str:
    about = [each.what for each in answer_facts(facts.answers)]
    classes = f"{facts.num_classes:,} classes"
    if facts.class_names and facts.num_classes <= 5:
        classes += f": {', '.join(facts.class_names)}"
    number = len(facts.answers)
    who = "simulated " if facts.answers.all_simulated else "partly simulated " if facts.answers.is_simulated else ""
    given = f"{number:,} {who}yes/no {_plural(number, 'answer')} about {' and '.join(about)}" if about else "no answers"
    cut = f", and {len(facts.pruned):,} of its {facts.num_neurons:,} neurons were cut" if facts.pruned else ""
    return f"What this {facts.architecture} ({classes}) looks at was corrected by {facts.method} with {given}{cut}."


def _measured(facts: Facts) -> str:
    before, after = facts.before, facts.after
    if after is None:
        return "The corrected model was not evaluated, so nothing is known about its accuracy."
    worst = min((g for g in after.groups if g.total), key=lambda group: group.accuracy)
    total = sum(group.total for group in after.groups)
    kind, where = ("group" if after.grouped else "class"), f"on {total:,} {facts.place}"
    name = one_line(worst.name)
    if before is None:
        return (
            f"Its worst {kind} ({name}) is right in {_per_cent(after.worst_group)} and the mean over "
            f"{len(after.groups)} {_plural(len(after.groups), kind)} is {_per_cent(after.mean_group)} {where}; "
            "the model before was not evaluated."
        )
    return (
        f"The accuracy of its worst {kind} went from {_per_cent(before.worst_group)} to {_per_cent(after.worst_group)} "
        f"(now {name}) and the mean over {len(after.groups):,} {_plural(len(after.groups), kind)} from "
        f"{_per_cent(before.mean_group)} to {_per_cent(after.mean_group)} {where}."
    )


def _trust(facts: Facts) -> str:
    found = facts.comparison
    if found is None:
        return "Without evaluations before and after of the same pictures, no difference can be told from noise."
    worst = next(each for each in found.differences if each.number == "worst_group")
    does = "exceeds" if worst.exceeds_noise else "does not exceed"
    return (
        f"The difference of the worst-group accuracy, {100 * worst.value:+.1f} points (95 % interval "
        f"{100 * worst.low:+.1f} to {100 * worst.high:+.1f}, paired bootstrap), {does} the noise of the pictures; how "
        "much another seed of the training would change is not in this interval."
    )


def _plural(number: int, word: str, words: str = "") -> str:
    if number == 1:
        return word
    return words or (f"{word}es" if word.endswith("s") else f"{word}s")


def _per_cent(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{100 * value:.1f} %"
