"""Every exception this package raises on purpose.

```
CrayonError
├── SettingsError (also ValueError)      a setting or an argument out of its range
├── UnsupportedModelError                the model has no (N, C, h, w) features or no linear classifier
├── ModelLoadError                       a model that cannot be found or read
├── DataError                            images, labels, masks or tables of a data set
├── AnswerError                          answers that are malformed or do not fit
├── FileFormatError                      a file that is truncated, corrupt or of another kind
├── MismatchError                        two inputs that were not made for each other
│   └── StaleError                       a file of a workspace that was made from other inputs
├── TrainingError                        training could not go on
│   ├── NonFiniteLossError               the loss became NaN or infinite
│   └── LostProcessError                 another of the processes that work together is gone
├── OutputError                          something could not be written
│   ├── OutputExistsError                the target exists and ``overwrite`` was not asked for
│   └── WorkspaceBusyError               another process works in the workspace
├── HubError                             the Hugging Face Hub refused, or cannot be reached
│   ├── HubAccessError                   no token, an unknown one, or one that may not do this
│   └── HubConflictError                 somebody else changed the repository at the same time
└── MissingExtraError (also ImportError) an optional dependency is not installed
```

A message says what was expected, what came, and what to do about it. Catching
`CrayonError` catches them all.
"""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

__all__ = [
    "AnswerError",
    "CrayonError",
    "DataError",
    "FileFormatError",
    "HubAccessError",
    "HubConflictError",
    "HubError",
    "LostProcessError",
    "MismatchError",
    "MissingExtraError",
    "ModelLoadError",
    "NonFiniteLossError",
    "OutputError",
    "OutputExistsError",
    "SettingsError",
    "StaleError",
    "TrainingError",
    "UnsupportedModelError",
    "WorkspaceBusyError",
]


_LONGEST = 4000  # characters of a message; an id or a cell in it can have any length


class CrayonError(Exception):
    """Base class of every error that crayon-sdk raises on purpose."""

    def __str__(self) -> str:
        return shortened(super().__str__(), _LONGEST)


class SettingsError(CrayonError, ValueError):
    """A setting or an argument lies outside its range."""


class UnsupportedModelError(CrayonError):
    """The model has no (N, C, h, w) features, no linear layer at its end, or gives NaN."""


class ModelLoadError(CrayonError):
    """A model could not be found, or its files could not be read."""


class DataError(CrayonError):
    """Images, labels, masks or the table of a data set are not usable."""


class AnswerError(CrayonError):
    """Answers are malformed, or do not fit what they are used with."""


class FileFormatError(CrayonError):
    """A file is truncated, corrupt, or not of the kind that was expected."""


class MismatchError(CrayonError):
    """Two inputs were not made for each other (other ids, another model)."""


class StaleError(MismatchError):
    """A file of a workspace is missing or was made from other inputs; the message says what to run again."""


class TrainingError(CrayonError):
    """Training could not go on."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite, or what the trained model makes of pictures.

    Attributes:
        step: Number of optimizer steps that were completed before it.
        epoch: Epoch (from 0) in which it happened.
        model: The model with the weights from before that step, when a corrector was at work; when
            the loss was finite and what came out was not, with those after it.
    """

    model: object = None

    def __init__(self, message: str, *, step: int, epoch: int) -> None:
        super().__init__(message)
        self.step = step
        self.epoch = epoch


class LostProcessError(TrainingError):
    """Another of the processes that were launched together has ended, or cannot be reached."""


class OutputError(CrayonError):
    """Something could not be written: no permission, no space, no such place."""


class OutputExistsError(OutputError):
    """The target exists already and ``overwrite=True`` was not given."""


class WorkspaceBusyError(OutputError):
    """Another process works in the workspace."""


class HubError(CrayonError):
    """The Hugging Face Hub refused what was asked, or cannot be reached."""


class HubAccessError(HubError):
    """There is no token of the Hub, or it may not do what was asked."""


class HubConflictError(HubError):
    """Somebody else changed the repository at the same time; nothing of theirs was overwritten."""


class MissingExtraError(CrayonError, ImportError):
    """An optional dependency is not installed; the message says how to install the extra that brings it."""


def install_extra(extra: str) -> str:
    """Write the pip command that adds an extra to this package, from the place that it was installed from."""
    try:
        origin = metadata.distribution("crayon-sdk").read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # used from a source folder that was never installed
        origin = json.dumps({"url": Path(__file__).resolve().parents[1].as_uri(), "dir_info": {}})
    return pip_command(extra, origin)


def pip_command(extra: str, origin: str | None) -> str:
    """Write the pip command for an extra of a package with a given origin.

    Args:
        extra: Name of the extra.
        origin: What pip noted in ``direct_url.json`` (PEP 610); ``None`` for a package from an index.

    >>> pip_command("report", None)
    "pip install 'crayon-sdk[report]'"
    >>> pip_command("report", '{"url": "file:///home/me/clone", "dir_info": {"editable": true}}')
    "pip install -e '/home/me/clone[report]'"
    """
    if origin is None:
        return f"pip install {shlex.quote(f'crayon-sdk[{extra}]')}"
    noted = json.loads(origin)
    url = noted["url"]
    if "dir_info" in noted:
        from urllib.request import url2pathname  # with all of HTTP, which no help text needs

        editable = "-e " if noted["dir_info"].get("editable") else ""
        return f"pip install {editable}{shlex.quote(f'{url2pathname(urlsplit(url).path)}[{extra}]')}"
    version = noted.get("vcs_info")
    source = f"{version['vcs']}+{url}@{version['commit_id']}" if version else url
    return f"pip install {shlex.quote(f'crayon-sdk[{extra}] @ {source}')}"


def shortened(text: str, limit: int) -> str:
    """Cut a long text in the middle: its end is kept, where messages say what to do.

    >>> shortened("abcdefghij", 7)
    'abc...j'
    """
    if len(text) <= limit:
        return text
    head = (limit - 3) * 3 // 4
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"
