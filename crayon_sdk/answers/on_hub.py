"""Answers as a data set on the Hugging Face Hub: our JSON Lines as they are, and a card that says what they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crayon_sdk._base.fetching import PREFIXES, fetch, is_on_hub
from crayon_sdk._base.hub import checked_repo_id
from crayon_sdk.answers.records import AnyAnswer
from crayon_sdk.errors import HubError

__all__ = ["FILE", "answer_card", "fetch_answers"]

FILE = "answers.jsonl"
_COLUMNS = {
    "kind": "string",
    "id": "string",
    "answer": "string",
    "annotator": "string",
    "question": "string",
    "model": "string",
    "time": "string",
    "seconds": "float64",
    "simulated": "bool",
    "source": "string",
    "target": "int64",
    "neuron": "int64",
    "patch": "int64",
}
_MEANING = """\
| column | what it is |
| --- | --- |
| `kind` | `image`: about the highlight on a picture; `neuron`: about a patch that a neuron responds to; \
`spot`: about the brightest spot of that highlight |
| `id` | the picture |
| `answer` | `yes`: it lies on what matters; `no`; `unsure` |
| `annotator`, `time`, `seconds` | who answered, when, how long it took |
| `question`, `target` | what was asked, and about which class |
| `model` | fingerprint of the model whose map or neuron was shown |
| `neuron`, `patch` | which neuron, and which of its patches |
| `simulated` | whether a program answered in a person's place |
| `source`, `extra` | where the answer came from, and what else was said there |
"""


def fetch_answers(repo_id: str, revision: str | None = None) -> Path:
    """Fetch the file of a data set of answers.

    Args:
        repo_id: "me/birds-answers", with or without "hf-hub:" before it.
        revision: A branch, a tag or a commit; default main.

    Raises:
        HubError: There is no such data set, it holds no answers, or it may not be read.
        FileFormatError: The file is not what the Hub lists.
    """
    name = repo_id.partition(":")[2] if is_on_hub(repo_id) else repo_id
    checked_repo_id(name.partition("@")[0])
    source = f"{PREFIXES[0]}{name}" + (f"@{revision}" if revision else "")
    return fetch(source, (FILE,), kind="dataset", needed=(FILE,), error_type=HubError).folder / FILE


def answer_card(answers: Iterable[AnyAnswer], repo_id: str, counts: dict[str, int]) -> str:
    """Write the card of a data set of answers.

    Args:
        answers: The answers.
        repo_id: Where they will be.
        counts: `AnnotationSet.counts()`.

    Returns:
        README.md: columns for the Hub and for ``datasets``, and the numbers for people.
    """
    from huggingface_hub import DatasetCardData

    extra = sorted({name for answer in answers for name, _ in answer.extra})
    features: list[dict[str, Any]] = [{"name": name, "dtype": kind} for name, kind in _COLUMNS.items()]
    if extra:
        features.append({"name": "extra", "struct": [{"name": name, "dtype": "string"} for name in extra]})
    about = DatasetCardData(
        tags=["crayon-sdk", "model-attention", "yes-no-answers"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": FILE}]}],
        dataset_info={"config_name": "default", "features": features},
    )
    simulated = counts["simulated"]
    origin = (
        "All were made by a program in the place of people (simulated)."
        if simulated and simulated == counts["answers"]
        else f"{simulated:,} of them were made by a program in the place of people (simulated)."
        if simulated
        else "All were given by people."
    )
    return f"""---
{about.to_yaml()}
---

# {repo_id.split("/")[-1]}

{counts["answers"]:,} yes/no answers by {counts["annotators"]:,} annotators about what an image classifier looks at:
{counts["yes"]:,} yes, {counts["no"]:,} no, {counts["unsure"]:,} unsure. {origin}

```python
from datasets import load_dataset
answers = load_dataset("{repo_id}", split="train")
```

To correct a model with them, crayon-sdk reads the same file:

```python
from crayon_sdk import AnnotationSet
answers = AnnotationSet.from_hub("{repo_id}")
```

{_MEANING}"""
