"""Answers as a data set on the Hugging Face Hub: our JSON Lines as they are, and a card that says what they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from crayon_sdk._base.fetching import PREFIXES, fetch, is_on_hub
from crayon_sdk._base.files import StrPath, write_text
from crayon_sdk._base.hub import checked_repo_id, refuse_token
from crayon_sdk._base.publishing import Published, find_target, publish
from crayon_sdk.answers.records import AnyAnswer
from crayon_sdk.errors import AnswerError, HubError

__all__ = ["OnTheHub"]

_FILE = "answers.jsonl"
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
| `kind` | `image`: about the highlight on a picture; `neuron`: about a patch that a neuron responds to |
| `id` | the picture |
| `answer` | `yes`: it lies on what matters; `no`; `unsure` |
| `annotator`, `time`, `seconds` | who answered, when, how long it took |
| `question`, `target` | what was asked, and about which class |
| `model` | fingerprint of the model whose map or neuron was shown |
| `neuron`, `patch` | which neuron, and which of its patches |
| `simulated` | whether a program answered in a person's place |
| `source`, `extra` | where the answer came from, and what else was said there |
"""


class _Answers(Protocol):
    """What this module uses of an `AnnotationSet`."""

    def __iter__(self) -> Any: ...

    def counts(self) -> dict[str, int]: ...

    def save(self, path: StrPath) -> None: ...


class _Loads(Protocol):
    @classmethod
    def load(cls, path: StrPath, *, strict: bool = True) -> Any: ...


_Set = TypeVar("_Set", bound=_Loads)


class OnTheHub:
    """Answers that can be published as a data set, and read back."""

    def push_to_hub(
        self: _Answers,
        repo_id: str,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        commit_message: str | None = None,
        dry_run: bool = False,
        token: None = None,
    ) -> Published:
        """Publish all answers as a data set that ``datasets.load_dataset`` reads, in one commit.

        The names of annotators are part of the answers, and are published with them.

        Args:
            repo_id: "me/birds-answers"; made when it is missing.
            private: For a new repository: whether others cannot see it; ``None`` takes the Hub's default.
            create_pr: Open a pull request instead of changing main.
            revision: The branch; made when it is missing. Default main.
            commit_message: Default "Upload answers with crayon-sdk".
            dry_run: List the files; the Hub is not asked anything.
            token: Refused, with a word on where the token comes from.

        Raises:
            AnswerError: There are none.
            HubError: As of a model
                ([`Correction.push_to_hub`][crayon_sdk.results.correction.Correction.push_to_hub]).
        """
        refuse_token(token)
        if not self.counts()["answers"]:
            raise AnswerError("there are no answers to publish")
        target = find_target(
            repo_id,
            kind="dataset",
            private=private,
            create_pr=create_pr,
            revision=revision,
            commit_message=commit_message,
            dry_run=dry_run,
        )
        with tempfile.TemporaryDirectory(prefix="crayon-push-") as place:
            folder = Path(place)
            self.save(folder / _FILE)
            write_text(folder / "README.md", answer_card(self, target.repo_id, self.counts()))
            return publish(folder, target)

    @classmethod
    def from_hub(cls: type[_Set], repo_id: str, *, revision: str | None = None, strict: bool = True) -> _Set:
        """Read answers that were published.

        Args:
            repo_id: "me/birds-answers".
            revision: A branch, a tag or a commit; default main.
            strict: Refuse a broken line; else leave it out and count it in `dropped`.

        Raises:
            HubError: There is no such data set, it holds no answers, or it may not be read.
            FileFormatError: A line is broken, or the file is not what the Hub lists.
        """
        name = repo_id.partition(":")[2] if is_on_hub(repo_id) else repo_id
        checked_repo_id(name.partition("@")[0])
        source = f"{PREFIXES[0]}{name}" + (f"@{revision}" if revision else "")
        found = fetch(source, (_FILE,), kind="dataset", needed=(_FILE,), error_type=HubError)
        loaded: _Set = cls.load(found.folder / _FILE, strict=strict)
        return loaded


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
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": _FILE}]}],
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
