"""`Workspace`: a whole correction in one folder that can be stopped, copied, resumed and audited.

```
workspace.json           what each file was made from, how and when
crayon.toml              settings of yours (optional; read by the command line)
maps.safetensors         a map for every training picture
patches.safetensors      the strongest patches of every neuron
answers.jsonl            yes, no and unsure
groups.safetensors       groups that were found, without group labels
corrections/NAME/        a timm checkpoint each
evaluations/SPLIT/       NAME.json, "original" for the model before, and comparison.json; SPLIT-discovered/ by groups
                         that were found
reports/NAME.html        all about a correction on one page, with its pictures beside it
pictures/                sheets to look at
runs/                    what an unfinished correction continues from
```

Every step can be called again: what is up to date is left alone, what was stopped goes on.

The work is done in rooms that share one ledger and do not know of `Workspace`:

```
                         Workspace
        ┌────────────────────┼────────────────────┐
      steps              answering             shipping
 explain, groups,     answers in and out,   report, save, push,
correct, evaluate,     what to ask next          changes
     compare
        └────────────┬───────┴───────┬────────────┘
                  inputs          holdings
             model, pictures   what was made, and how it stands
                     └───────┬───────┘
                           ledger
             workspace.json, lock, hashes, freshness
```
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from crayon_sdk import __version__
from crayon_sdk._base.files import describe_write_failure, locked
from crayon_sdk.errors import OutputError, OutputExistsError
from crayon_sdk.models.split import SplitModel
from crayon_sdk.workspace.answering import Answering
from crayon_sdk.workspace.holdings import Holdings
from crayon_sdk.workspace.inputs import Inputs, behaviour_of, is_same, look_at_data
from crayon_sdk.workspace.ledger import Ledger, now
from crayon_sdk.workspace.manifest import MANIFEST, DataSource, Manifest, ModelSource, portable
from crayon_sdk.workspace.names import ORIGINAL
from crayon_sdk.workspace.shipping import Shipping
from crayon_sdk.workspace.steps import Steps

__all__ = ["ORIGINAL", "Workspace"]

P = ParamSpec("P")
R = TypeVar("R")


def _done_by(room: str, method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method that passes everything on to a room; signature, types and docstring are the room's."""

    @functools.wraps(method)
    def forward(self: Workspace, /, *args: P.args, **kwargs: P.kwargs) -> R:
        done: R = getattr(getattr(self, room), method.__name__)(*args, **kwargs)
        return done

    forward.__qualname__ = f"Workspace.{method.__name__}"
    return forward


class Workspace:
    """A folder that holds a model's correction from the first map to the last evaluation.

    Args:
        folder: Made by [`create`][crayon_sdk.workspace.workspace.Workspace.create].
        lock_timeout: Seconds to wait while another process works in it; default 10.

    Attributes:
        ledger: ``workspace.json``, the lock, and what was made from what.
        inputs: The model and the pictures.
        holdings: What was made, and how it stands.
        steps: Explains, corrects, evaluates and compares.
        answering: Takes answers in and out, and says what to ask.
        shipping: Reports, saves and publishes.

    Raises:
        FileFormatError: It is not a workspace, or another version is needed.
    """

    def __init__(self, folder: str | os.PathLike[str] = ".", *, lock_timeout: float | None = None) -> None:
        self.ledger = Ledger(Path(folder), lock_timeout=lock_timeout)
        self.inputs = Inputs(self.ledger)
        self.holdings = Holdings(self.ledger)
        self.steps = Steps(self.ledger, self.inputs, self.holdings)
        self.answering = Answering(self.ledger, self.inputs, self.holdings)
        self.shipping = Shipping(self.ledger, self.inputs, self.holdings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

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

    @property
    def folder(self) -> Path:
        """The folder, as it was named."""
        return self.ledger.folder

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait while another process works in it."""
        return self.ledger.lock_timeout

    @lock_timeout.setter
    def lock_timeout(self, seconds: float) -> None:
        self.ledger.lock_timeout = seconds

    @property
    def manifest(self) -> Manifest:
        """What ``workspace.json`` says."""
        return self.ledger.manifest

    command = _done_by("ledger", Ledger.command)

    # --- what it was made for ---

    @property
    def model(self) -> SplitModel:
        """The model as it was before any correction.

        Raises:
            MismatchError: It is not the one that the workspace was made for.
        """
        return self.inputs.model

    dataset = _done_by("inputs", Inputs.dataset)

    # --- the steps ---

    explain = _done_by("steps", Steps.explain)
    find_groups = _done_by("steps", Steps.find_groups)
    correct = _done_by("steps", Steps.correct)
    evaluate = _done_by("steps", Steps.evaluate)
    compare = _done_by("steps", Steps.compare)

    # --- answers ---

    suggest = _done_by("answering", Answering.suggest)
    asked = _done_by("answering", Answering.asked)
    worth = _done_by("answering", Answering.worth)
    foresight = _done_by("answering", Answering.foresight)
    add_answers = _done_by("answering", Answering.add_answers)
    take_in = _done_by("answering", Answering.take_in)
    take_answers = _done_by("answering", Answering.take_answers)
    import_answers = _done_by("answering", Answering.import_answers)
    import_file = _done_by("answering", Answering.import_file)
    export_answers = _done_by("answering", Answering.export_answers)
    export_crowd = _done_by("answering", Answering.export_crowd)
    simulate_answers = _done_by("answering", Answering.simulate_answers)

    # --- what there is ---

    maps = _done_by("holdings", Holdings.maps)
    patches = _done_by("holdings", Holdings.patches)
    answers = _done_by("holdings", Holdings.answers)
    correction = _done_by("holdings", Holdings.correction)

    @property
    def corrections(self) -> tuple[str, ...]:
        """Names of the corrections that are recorded, in the order in which they were made."""
        return self.holdings.corrections

    status = _done_by("holdings", Holdings.status)

    # --- what goes out ---

    report = _done_by("shipping", Shipping.report)
    changes = _done_by("shipping", Shipping.changes)
    save = _done_by("shipping", Shipping.save)
    push = _done_by("shipping", Shipping.push)
