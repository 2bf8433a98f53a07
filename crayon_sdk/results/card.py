"""The model card: ``README.md`` of a saved correction, with a head of YAML that the Hub indexes.

Names come from data sets and models of other people. In the head they are values of YAML, in the
text they are escaped one by one: none of them can become markup, or another key.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from operator import attrgetter
from pathlib import Path
from typing import Any

from crayon_sdk._base.files import write_text
from crayon_sdk._base.methods import paper_of, title_of
from crayon_sdk._base.text import one_line
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.results.evaluation import Evaluation, GroupResult, per_cent
from crayon_sdk.results.facts import DISCOVERED_GROUPS, Facts, GroupRow, answer_facts, group_rows, summary

__all__ = ["CARD", "Card", "escaped", "model_card", "write_card"]

CARD = "README.md"
_MOST_GROUPS = 30
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
# What Markdown reads as markup, and the beginnings of what GitHub's makes links of by itself.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$@]|:(?=//)|(?<=www)\.)")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says that a correction does not know itself.

    Attributes:
        title: Heading; "" makes one of the architecture.
        repo_id: Name on the Hub under which it is published; "" leaves a gap in the lines that load it.
        base_model: Name on the Hub of the model that was corrected, such as "timm/resnet50.a1_in1k"; "" takes
            what is known, when it was loaded from there.
        license: Identifier as the Hub has them, such as "apache-2.0"; "" takes what the model's config says.
        datasets: Names on the Hub of the data sets behind it.
        evaluated_on: What the accuracies were measured on, such as "test pictures".
        discovered: Evaluations of the same pictures by discovered groups, before and after; either may be ``None``.
        images: PNG files that are copied beside the card and shown in it; none unless named, for
            pictures may be private.

    Raises:
        SettingsError: A name is none that the Hub could have.
    """

    title: str = ""
    repo_id: str = ""
    base_model: str = ""
    license: str = ""
    datasets: tuple[str, ...] = ()
    evaluated_on: str = ""
    discovered: tuple[Evaluation | None, Evaluation | None] = (None, None)
    images: tuple[str | os.PathLike[str], ...] = ()

    def __repr__(self) -> str:
        given = {
            each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) != each.default
        }
        shown = (f"{name}={one_line(repr(value), 60)}" for name, value in given.items())
        return f"Card({', '.join(shown)})"

    def __post_init__(self) -> None:
        given = {"repo_id": (self.repo_id,), "base_model": (self.base_model,), "datasets": self.datasets}
        for field, names in given.items():
            for name in names:
                if name and not _HUB_NAME.fullmatch(name):
                    raise SettingsError(f"expected {field} as on the Hub, such as 'user/name', got {name!r}")
        if self.license and not _LICENSE.fullmatch(self.license):
            raise SettingsError(f"expected a license identifier such as 'apache-2.0', got {self.license!r}")


class _Markup(str):
    """Text that is Markdown already."""


def escaped(text: object) -> str:
    r"""Write text so that Markdown shows it as it is, on one line.

    Args:
        text: Anything; numbers too.

    Example:
        >>> print(escaped("a|b <script>"))
        a\|b \<script\>
    """
    return text if isinstance(text, _Markup) else _SPECIAL.sub(r"\\\1", one_line(text, limit=1000))


def model_card(facts: Facts, card: Card | None = None, *, images: Sequence[str] = ()) -> str:
    """Write the card of a corrected model.

    Args:
        facts: About the correction.
        card: What it does not know itself.
        images: Names of the pictures beside it.

    Returns:
        A head of YAML between two lines of dashes, and Markdown.

    Raises:
        SettingsError: A picture's name is not a plain file name.
    """
    import jinja2

    card = card or Card()
    for name in images:
        if not re.fullmatch(r"[\w-]+\.png", name, re.ASCII):
            raise SettingsError(f"expected pictures beside the card with plain names that end in .png, got {name!r}")
    text = (resources.files("crayon_sdk.results") / "templates" / "card.md").read_text(encoding="utf-8")
    # Whatever the template shows goes through `escaped`, so that no name can be forgotten. HTML's escaping is not
    # Markdown's: it would show in code and leave the rest.
    rules: dict[str, Any] = {"finalize": escaped, "undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}
    environment = jinja2.Environment(**rules, autoescape=False)  # noqa: S701
    body = environment.from_string(text).render(**_context(facts, card, images))
    return f"---\n{_head(facts, card)}\n---\n\n{body}"


def write_card(folder: Path, facts: Facts, card: Card | None = None) -> None:
    """Write the card into a folder, and copy its pictures there as ``picture-1.png`` and so on.

    Raises:
        DataError: A picture is no PNG file.
        OutputError: It cannot be written.
    """
    card = card or Card()
    names = []
    for number, image in enumerate(card.images, start=1):
        names.append(f"picture-{number}.png")
        _check_png(image)
        shutil.copyfile(image, folder / names[-1])
    write_text(folder / CARD, model_card(facts, card, images=names))


def _check_png(path: str | os.PathLike[str]) -> None:
    try:
        with open(path, "rb") as file:
            found = file.read(8)
    except OSError as error:
        raise DataError(f"cannot read the picture {os.fspath(path)!r} for the card: {error.strerror}") from error
    if found != b"\x89PNG\r\n\x1a\n":
        raise DataError(f"expected a PNG file for the card, got {os.fspath(path)!r}")


def _title(facts: Facts, card: Card) -> str:
    return one_line(card.title) or f"{facts.architecture}, corrected with yes/no answers"


def _head(facts: Facts, card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    license_ = card.license or facts.license.lower()
    known: dict[str, Any] = {
        "library_name": facts.library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "crayon-sdk", "saliency", "yes-no-answers"],
        "license": license_ if _LICENSE.fullmatch(license_) else ("other" if license_ else None),
        "datasets": list(card.datasets) or None,
        "metrics": ["accuracy"],
    }
    if facts.answers.is_simulated:
        known["tags"].append("simulated-answers")
    base_model = card.base_model or facts.base_model
    if _HUB_NAME.fullmatch(base_model):
        known |= {"base_model": base_model, "base_model_relation": "finetune"}
    if facts.after is not None:
        names = {"worst_group": "Worst-group accuracy", "mean_group": "Mean-group accuracy", "accuracy": "Accuracy"}
        measured = facts.after.summary()
        known |= {
            "model_name": _title(facts, card),
            "eval_results": [
                EvalResult(
                    task_type="image-classification",
                    dataset_type=card.datasets[0] if card.datasets else "image-classification",
                    dataset_name=facts.place,
                    metric_type="accuracy",
                    metric_name=name,
                    metric_value=round(float(measured[key]), 6),
                )
                for key, name in names.items()
                if key in measured
            ],
        }
    return str(ModelCardData(**known).to_yaml()).rstrip("\n")


def _context(facts: Facts, card: Card, images: Sequence[str]) -> dict[str, Any]:
    rows = group_rows(facts.before, facts.after)
    shown = rows
    if len(rows) > _MOST_GROUPS:
        ranked = sorted(rows, key=attrgetter("rank"))
        shown = tuple(ranked[:_MOST_GROUPS])
    measured = facts.after or facts.before
    return {
        "title": _title(facts, card),
        "summary": summary(facts),
        "simulated": _simulated(facts),
        "wrong": _wrong(facts),
        "steps": [_step(record) for record in facts.records],
        "rows": _rows(shown),
        "numbers": _numbers(facts.before, facts.after),
        "discovered": _rows(group_rows(*card.discovered)),
        "discovered_numbers": _numbers(*card.discovered),
        "discovered_words": DISCOVERED_GROUPS,
        "total": f"{sum(group.total for group in measured.groups):,}" if measured else "",
        "place": facts.place,
        "worst_of": f"; the {len(shown)} of {len(rows):,} that are right least often" if shown != rows else "",
        "kind": "group" if measured is not None and measured.grouped else "class",
        "images": [{"file": _Markup(name), "alt": "Pictures with their maps before and after"} for name in images],
        "answers": [_answers(each) for each in answer_facts(facts.answers)],
        "limits": _limits(facts),
        **_loading(facts, card.repo_id or "USER/NAME"),
    }


def _cell(found: GroupResult | None) -> str:
    if found is None or not found.total:
        return "-"
    low, high = found.interval
    return f"{per_cent(found.accuracy)} ({per_cent(low)} to {per_cent(high)})"


def _rows(rows: Sequence[GroupRow]) -> list[dict[str, Any]]:
    return [{"name": r.name, "n": r.total, "before": _cell(r.before), "after": _cell(r.after)} for r in rows]


def _numbers(before: Evaluation | None, after: Evaluation | None) -> list[dict[str, str]]:
    measured = {"before": before, "after": after}
    found = []
    for key, name in (("worst_group", "worst"), ("mean_group", "mean"), ("accuracy", "all pictures")):
        cells = {when: per_cent(None if each is None else each.summary().get(key)) for when, each in measured.items()}
        found.append({"name": name, **cells})
    return found


def _simulated(facts: Facts) -> str:
    if facts.answers.all_simulated:
        return "All answers are simulated: a program gave them in the place of people."
    return "Some of the answers are simulated." if facts.answers.is_simulated else ""


def _wrong(facts: Facts) -> str:
    said, what = facts.answers.counts("image"), "a map's highlight lies"
    if not said["answers"]:
        said, what = facts.answers.counts("spot"), "the brightest spot of a map lies"
    if not said["answers"]:
        about = facts.answers.counts("neuron")["answers"]
        judged = "The neurons of its last layer were judged by the patches of pictures that excite them most."
        return judged if about else "No answers are behind it."
    share = 100 * said["no"] / said["answers"]
    return f"To the question whether {what} on what matters, {share:.0f} % of the {said['answers']:,} answers were no."


def _step(record: Mapping[str, Any]) -> dict[str, str]:
    settings, counts = record["settings"], record["counts"]
    training, guidance = ("epochs", "lr", "batch_size", "optimizer"), ("alpha", "beta", "spread", "background_swap")
    kept = (*training, *guidance, "answer_rule", "seed")
    words = [f"{name} {settings[name]}" for name in kept if name in settings]
    number = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    return {
        "method": title_of(record["method"]),
        "paper": paper_of(record["method"]),
        "words": f"{', '.join(words)}. {number or 'nothing counted'}.",
    }


def _answers(each: Any) -> dict[str, str]:
    counts = each.counts
    return {
        "about": each.what,
        "count": f"{counts['answers']:,}",
        "words": ", ".join(f"{counts[word]:,} {word}" for word in ("yes", "no", "unsure")),
        "by": each.by,
        "agreed": each.agreed,
    }


def _limits(facts: Facts) -> list[str]:
    limits = []
    if facts.after is None:
        limits.append("Nobody measured this model; measure it before you use it.")
    else:
        limits.append("The accuracies hold for the pictures in the table; measure on your own before you rely on it.")
    limits += [
        "It was corrected for what people were asked about; attributes without a group above were not looked at.",
        "A map shows roughly where the evidence lies, not why; a good map does not prove that the reason is right.",
        "Intervals hold the noise of the pictures, not that of another training.",
    ]
    if facts.answers.is_simulated:
        limits.append("With answers of people instead of simulated ones, numbers differ.")
    return limits


def _loading(facts: Facts, repo_id: str) -> dict[str, Any]:
    with_timm = facts.library == "timm"
    code = facts.load
    if with_timm:
        code = (
            "import timm\n\n"
            f'model = timm.create_model("hf-hub:{repo_id}", pretrained=True).eval()  # or "local-dir:FOLDER"\n'
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n"
            'logits = model(transform(image.convert("RGB")).unsqueeze(0))'
        )
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    own = 'The settings, answers and history come back with `crayon_sdk.load_correction("FOLDER")`.'
    needs = "Plain timm is all that it needs." if with_timm else "timm cannot build it; this loads it:"
    size = facts.preprocessing["size"]
    return {
        "load_words": _Markup(f"{needs} {own}"),
        "load": _Markup(f"{fence}python\n{code}\n{fence}"),
        "classes": _classes(facts),
        "size": f"{size[0]} x {size[1]}",
        "crop": f"crop {facts.preprocessing['crop_mode']}, {facts.preprocessing['crop_pct']:g}",
        "fingerprint": facts.fingerprint,
    }


def _classes(facts: Facts) -> str:
    if not facts.class_names:
        return f"{facts.num_classes:,}, without names"
    more = f" and {facts.num_classes - 50:,} more (config.json)" if facts.num_classes > 50 else ""
    return ", ".join(facts.class_names[:50]) + more
