"""The report: one HTML file that can be read, printed and sent on by itself, with its pictures beside it.

It holds its pictures itself, loads nothing, and runs no script. What is lacking is said in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from crayon_sdk import __version__
from crayon_sdk._base.files import free_path, replace_file, write_text
from crayon_sdk._base.methods import paper_of, title_of
from crayon_sdk._base.text import one_line
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import MismatchError
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.split import SplitModel, as_split_model
from crayon_sdk.results.evaluation import Evaluation, GroupResult, evaluate, per_cent
from crayon_sdk.results.exhibits import Exhibit, map_pair, map_sentences, map_sheets, neuron_sheet
from crayon_sdk.results.facts import DISCOVERED_GROUPS, Facts, GroupRow, answer_facts, group_rows, summary
from crayon_sdk.results.plots import MOST_GROUPS, group_plot, training_plot
from crayon_sdk.results.weight_changes import weight_changes
from crayon_sdk.show.style import needs_matplotlib

__all__ = ["Material", "Report", "explaining", "make_report"]

Keep = Callable[[Exhibit], Exhibit]
_NUMBERS = {"worst_group": "worst", "mean_group": "mean", "accuracy": "all pictures together"}
_NAMES = ("groups", "training", "maps-largest-change", "maps-random", "maps-still-wrong", "neurons")


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a report shows beyond what the correction knows itself.

    Attributes:
        dataset: Pictures to measure on and to show maps of; best such that nobody trained on.
        original: The model before the first correction.
        train: The training pictures, in which the patches lie.
        patches: Of the original model.
        commands: What was typed.
        pictures: How many to show for each rule.
        candidates: How many pictures the rules may choose from; more are drawn at random.
        seed: Of everything that is drawn at random.
        device: Where to work.
        title: Of the page; "" makes one.
        discovered: Evaluations by discovered groups, before and after; either may be ``None``.
    """

    dataset: ImageDataset | None = None
    original: SplitModel | None = None
    train: ImageDataset | None = None
    patches: NeuronPatches | None = None
    commands: Sequence[str] = ()
    pictures: int = 4
    candidates: int = 1000
    seed: int = 0
    device: str = "auto"
    title: str = ""
    discovered: tuple[Evaluation | None, Evaluation | None] = (None, None)


@dataclass(frozen=True)
class Report:
    """A report in memory.

    Attributes:
        html: The page.
        pictures: Every picture of it as PNG, by name.
    """

    html: str = field(repr=False)
    pictures: Mapping[str, bytes] = field(repr=False)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the page, and its pictures beside it as ``STEM-NAME.png``.

        Args:
            path: Ends in ".html".
            overwrite: Replace the page when it exists, and the pictures of the one before.

        Raises:
            OutputExistsError: The page exists.
            OutputError: It cannot be written.
            SettingsError: Another ending.
        """
        page = free_path(path, ".html", overwrite=overwrite)
        for name in _NAMES:
            beside = page.with_name(f"{page.stem}-{name}.png")
            if name in self.pictures:
                with replace_file(beside) as temporary:
                    temporary.write_bytes(self.pictures[name])
            elif overwrite:
                beside.unlink(missing_ok=True)
        write_text(page, self.html)
        return page


def make_report(facts: Facts, model: SplitModel, material: Material) -> Report:
    """Gather everything, draw every picture, and write the page.

    Args:
        facts: About the correction.
        model: The corrected model.
        material: What is to be shown.

    Raises:
        MismatchError: The original or the patches belong to another correction.
        MissingExtraError: matplotlib is not installed.
        SettingsError: A setting is out of range.
    """
    needs_matplotlib()
    original = None if material.original is None else as_split_model(material.original)
    _check_belongs(facts, original, material)
    facts = _measured(facts, model, original, material)
    pictures: dict[str, bytes] = {}

    def keep(shown: Exhibit) -> Exhibit:
        pictures[shown.name] = shown.png
        return shown

    sections = {
        "page": _page(facts, material),
        "accuracy": _accuracy(facts, material, keep),
        "maps": _maps(facts, model, original, material, keep),
        "neurons": _neurons(facts, material, keep),
        "answers": _answers(facts),
        "training": _training(facts, keep),
        "made": _made(facts, material) | {"weights": _weights(model, original)},
    }
    return Report(_template().render(**sections), pictures)


def _template() -> Any:
    import jinja2

    text = (resources.files("crayon_sdk.results") / "templates" / "report.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)


def _check_belongs(facts: Facts, original: SplitModel | None, material: Material) -> None:
    known = {str(record["original"]) for record in facts.records}
    if original is not None and original.fingerprint not in known:
        raise MismatchError(
            f"original= is not the model that was corrected (fingerprint {original.fingerprint[:12]}, expected "
            f"{facts.original[:12]}); pass the model as it was before the correction"
        )
    patches = material.patches
    if patches is not None and patches.model not in ("", facts.original, *known):
        raise MismatchError(
            f"the patches are of another model (fingerprint {patches.model[:12]}) than the one that was corrected "
            f"({facts.original[:12]}); make them again with Explainer(original).explain_neurons(train)"
        )


def _measured(facts: Facts, model: SplitModel, original: SplitModel | None, material: Material) -> Facts:
    """Evaluate on the data set what was not evaluated on it yet."""
    if material.dataset is None:
        return facts
    labels = dict(zip(material.dataset.ids, material.dataset.labels.tolist(), strict=True))
    index, names = material.dataset.group_index()
    membership = dict(zip(material.dataset.ids, index.tolist(), strict=True))

    def on_it(found: Evaluation | None, measured: SplitModel | None) -> Evaluation | None:
        same = found is not None and (found.labels, found.membership) == (labels, membership)
        if found is not None and same and [group.name for group in found.groups] == list(names):
            return found
        return None if measured is None else evaluate(measured, material.dataset, device=material.device)  # type: ignore[arg-type]

    return replace(facts, before=on_it(facts.before, original), after=on_it(facts.after, model))


def _page(facts: Facts, material: Material) -> dict[str, Any]:
    last = facts.records[-1]
    return {
        "title": one_line(material.title) or f"{facts.architecture}, corrected",
        "subtitle": f"{facts.method}; made {last['created']} with crayon-sdk {last['versions'].get('crayon-sdk', '?')}",
        "summary": summary(facts),
        "grouped": (facts.after or facts.before or Evaluation(())).grouped,
        "version": __version__,
    }


def _accuracy(facts: Facts, material: Material, keep: Keep) -> dict[str, Any]:
    rows = group_rows(facts.before, facts.after)
    return {
        "lacking": _unmeasured(facts),
        "plot": keep(_group_exhibit(rows)) if rows else None,
        "rows": _table(rows),
        "discovered": _table(group_rows(*material.discovered)),
        "discovered_words": DISCOVERED_GROUPS,
        "place": _place(facts),
        **_differences(facts),
    }


def _table(rows: Sequence[GroupRow]) -> list[dict[str, Any]]:
    return [{"name": row.name, "total": row.total, "cells": [_cell(row.before), _cell(row.after)]} for row in rows]


def _place(facts: Facts) -> str:
    measured = facts.after or facts.before
    return f"{sum(group.total for group in measured.groups):,} {facts.place}" if measured is not None else ""


def _unmeasured(facts: Facts) -> list[str]:
    measured = facts.after or facts.before
    if measured is None:
        return ["There is no evaluation: pass dataset= (and original=) to report(), or evaluate_on= when correcting."]
    found = [
        f"The model {name} the correction was not evaluated."
        for name, each in (("before", facts.before), ("after", facts.after))
        if each is None
    ]
    if not measured.grouped:
        found.append("The pictures have no group columns, so the groups are the classes.")
    return found


def _group_exhibit(rows: Sequence[GroupRow]) -> Exhibit:
    words = "Accuracy of each group before and after, with 95 % Wilson intervals and n, the number of pictures."
    more = (
        f" Shown are the {MOST_GROUPS} of {len(rows):,} that are right least often." if len(rows) > MOST_GROUPS else ""
    )
    return Exhibit("groups", group_plot(rows), caption=words + more, alt=f"{words} The table has the numbers.")


def _differences(facts: Facts) -> dict[str, Any]:
    found = facts.comparison
    if found is None:
        return {"numbers": [], "bootstrap": ""}
    numbers = []
    for each in found.differences:
        ends = {name: per_cent(found.evaluations[name].summary()[each.number]) for name in ("before", "after")}
        span = f"{100 * each.value:+.1f} [{100 * each.low:+.1f}, {100 * each.high:+.1f}]"
        verdict = "yes" if each.exceeds_noise else "no"
        numbers.append({"name": _NUMBERS[each.number], **ends, "difference": span, "exceeds": verdict})
    words = (
        f"95 % intervals of the differences from {found.resamples:,} paired resamples of the pictures "
        f"(seed {found.seed}); the noise of training is not in them."
    )
    return {"numbers": numbers, "bootstrap": words}


def _cell(found: GroupResult | None) -> dict[str, str]:
    if found is None or not found.total:
        return {"accuracy": "-", "interval": ""}
    low, high = found.interval
    return {"accuracy": per_cent(found.accuracy), "interval": f"[{per_cent(low)}, {per_cent(high)}]"}


def _maps(
    facts: Facts, model: SplitModel, original: SplitModel | None, material: Material, keep: Keep
) -> dict[str, Any]:
    dataset = material.dataset
    if dataset is None or original is None or facts.before is None or facts.after is None:
        lacks = " and ".join(name for name, found in (("dataset=", dataset), ("original=", original)) if found is None)
        return {"lacking": [f"There are no maps: report() was not given {lacks}."], "note": "", "sheets": []}
    settings = explaining(facts) | {"device": material.device}
    pair = map_pair(
        original,
        model,
        dataset,
        facts.after,
        settings=settings,
        count=material.pictures,
        candidates=material.candidates,
        seed=material.seed,
    )
    sheets, lacking = map_sheets(pair, dataset, facts.before, facts.after, count=material.pictures)
    what = f" ({facts.evaluated_on})" if facts.evaluated_on else ""
    note = (
        f"Maps show the evidence for the true class (score: {settings['score']}); orange is where the model looks. The "
        f"pictures are chosen by rules, not by hand, from {pair.pool}{what}. {map_sentences(pair, dataset)}"
    )
    return {"lacking": lacking, "note": note, "sheets": [keep(sheet) for sheet in sheets]}


def explaining(facts: Facts) -> dict[str, Any]:
    """Explain as the maps of the last guided correction were made."""
    guided = [record["settings"] for record in facts.records if record["method"] == "attention"]
    score = guided[-1].get("score") if guided else None
    return {"score": score if score in ("logit", "margin") and facts.num_classes > 1 else "margin"}


def _neurons(facts: Facts, material: Material, keep: Keep) -> dict[str, Any]:
    found: dict[str, Any] = {"lacking": [], "cut": "", "sentence": "", "sheet": None}
    if not facts.pruned:
        return found | {"lacking": ["No neuron was cut."]}
    found["cut"] = ", ".join(map(str, facts.pruned))
    found["sentence"] = (
        f"{len(facts.pruned):,} of {facts.num_neurons:,} neurons are cut: the last layer no longer uses them."
    )
    if material.patches is None or material.train is None:
        lacks = "patches= and train=" if material.patches is None else "train="
        return found | {"lacking": [f"There are no patches to show: report() was not given {lacks}."]}
    sheet = neuron_sheet(facts, material.patches, material.train, count=material.pictures, seed=material.seed)
    return found | {"sheet": keep(sheet)}


def _answers(facts: Facts) -> dict[str, Any]:
    found = answer_facts(facts.answers)
    if not found:
        return {"lacking": ["There are no answers behind this correction."], "heads": [], "rows": []}
    lacking = []
    if facts.answers.is_simulated:
        what = "All" if facts.answers.all_simulated else "Some"
        lacking.append(f"{what} answers are simulated: a program gave them in the place of people.")
    about = {"image": "about pictures", "neuron": "about patches of neurons", "spot": "about bright spots"}
    heads = [about[each.kind] for each in found]
    rows = [
        ["answers", *(f"{each.counts['answers']:,}" for each in found)],
        ["about how many", *(f"{each.counts['items']:,}" for each in found)],
        ["yes / no / unsure", *(" / ".join(f"{each.counts[w]:,}" for w in ("yes", "no", "unsure")) for each in found)],
        ["answered by", *(each.by for each in found)],
        ["agreement", *(each.agreed for each in found)],
    ]
    return {"lacking": lacking, "heads": heads, "rows": rows}


def _training(facts: Facts, keep: Keep) -> dict[str, Any]:
    if not any(record["history"] for record in facts.records):
        return {"lacking": ["Nothing was trained: no correction has an epoch."], "plot": None}
    words = "Loss after every epoch, and accuracy where it was measured (evaluate_on=)"
    plot = Exhibit("training", training_plot(facts.records), caption=f"{words}.", alt=f"{words}, as curves.")
    return {"lacking": [], "plot": keep(plot)}


def _weights(model: SplitModel, original: SplitModel | None) -> str:
    if original is None:
        return ""
    found = weight_changes(original.plain_state_dict(), model.plain_state_dict()).sentence()
    return f"Against the original, {found}."


def _made(facts: Facts, material: Material) -> dict[str, Any]:
    tables = []
    for record in facts.records:
        seconds = f"{record['seconds']:.1f} seconds, ended {record['created']}"
        rows = [*record["settings"].items(), *((f"count: {name}", value) for name, value in record["counts"].items())]
        rows += [(f"left out: {one_line(name)}", one_line(why)) for name, why in list(record["skipped"].items())[:20]]
        paper = paper_of(record["method"])
        rows += [("published", paper)] if paper else []
        title = f"{title_of(record['method'])}: settings and counts"
        tables.append({"title": title, "heads": ["", "value"], "rows": [*rows, ("took", seconds)]})
    prints = [("corrected model", facts.fingerprint), ("original model", facts.original)]
    last = facts.records[-1]
    prints += [("training data", last["dataset"]), ("answers", last["answers"])]
    prints += [("maps", last["maps"])] if last["maps"] else []
    tables.append({"title": "Fingerprints (sha256)", "heads": ["of", "fingerprint"], "rows": prints})
    rows = [*facts.preprocessing.items(), ("classes", ", ".join(facts.class_names) or str(facts.num_classes))]
    tables.append({"title": "Preprocessing and classes", "heads": ["", "value"], "rows": rows})
    tables.append({"title": "Versions", "heads": ["", "version"], "rows": list(last["versions"].items())})
    commands = "\n".join(one_line(command, limit=2000) for command in material.commands)
    return {"commands": commands, "load": facts.load, "tables": tables}
