"""Which weights a correction changed, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from crayon_sdk._base.showing import as_html, as_text, plain
from crayon_sdk.functional.weights import change_norms, relative_of

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["TensorChange", "WeightChanges", "weight_changes"]

State = Literal["same", "changed", "added", "removed", "reshaped"]


@dataclass(frozen=True)
class TensorChange:
    """One tensor of a state dict, before and after.

    Attributes:
        name: In the state dict, as timm names it.
        shape: Of the tensor after; before, where it was removed.
        state: "same", "changed", "reshaped", or "added" or "removed".
        relative: Norm of the difference over the norm before; infinity where all was zero before,
            and for tensors that cannot be compared.
        largest: Largest absolute difference of one entry; infinity where they cannot be compared.
    """

    name: str
    shape: tuple[int, ...]
    state: State
    relative: float
    largest: float


@dataclass(frozen=True)
class WeightChanges:
    """A state dict against another, tensor by tensor.

    Attributes:
        tensors: In the order of the state dict after; removed ones last.
        relative: Of all floating-point tensors that can be compared, taken as one vector.
    """

    tensors: tuple[TensorChange, ...]
    relative: float

    @property
    def changed(self) -> tuple[TensorChange, ...]:
        """Those that are not the same, the most changed first."""
        different = [each for each in self.tensors if each.state != "same"]
        return tuple(sorted(different, key=lambda each: -math.inf if math.isnan(each.relative) else -each.relative))

    def sentence(self) -> str:
        """What one says about it in a line."""
        if not self.changed:
            return f"none of {len(self.tensors):,} tensors changed"
        return (
            f"{len(self.changed):,} of {len(self.tensors):,} tensors changed, together by {_share(self.relative)} of "
            "their norm"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; infinity and NaN, which JSON lacks, are ``None``."""
        rows = [asdict(each) for each in self.tensors]
        for row in rows:
            row |= {name: row[name] if math.isfinite(row[name]) else None for name in ("relative", "largest")}
        return {"relative": self.relative if math.isfinite(self.relative) else None, "tensors": rows}

    def table(self, title: str = "") -> Table:
        """A rich table for the terminal, the most changed first."""
        from rich import box
        from rich.table import Table

        table = Table(title=title or None, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
        table.add_column("tensor", overflow="fold")
        for name in ("shape", "state", "relative", "largest"):
            table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
        for each in self.changed:
            shape = " x ".join(map(str, each.shape)) or "1"
            table.add_row(plain(each.name), shape, each.state, _share(each.relative), f"{each.largest:.3g}")
        table.caption = f"{self.sentence()}; relative: norm of the difference over the norm before"
        return table

    def __repr__(self) -> str:
        return f"WeightChanges({self.sentence()})"

    def __str__(self) -> str:
        return as_text(self.table())

    def _repr_html_(self) -> str:
        return as_html(self.table())


def _share(value: float) -> str:
    return f"{100 * value:.3g} %" if math.isfinite(value) else str(value)


def weight_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> WeightChanges:
    """Compare two state dicts, tensor by tensor.

    Args:
        before: Tensors by name.
        after: Tensors by name.

    Returns:
        Every name that either has, with how far it moved.

    Example:
        >>> import torch
        >>> before = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2)}
        >>> found = weight_changes(before, before | {"a": torch.tensor([3.0, 3.0])})
        >>> [(each.name, each.relative) for each in found.changed]
        [('a', 0.2)]
    """
    names = [*after, *(name for name in before if name not in after)]
    found, moved, size = [], 0.0, 0.0
    for name in names:
        old, new = before.get(name), after.get(name)
        if old is None or new is None or old.shape != new.shape:
            found.append(_incomparable(name, old, new))
            continue
        own = change_norms(old, new)
        state: State = "same" if own[2] == 0 else "changed"  # a NaN is not 0
        found.append(TensorChange(name, tuple(new.shape), state, relative_of(*own[:2]), own[2]))
        if new.is_floating_point():  # counters are no weights
            moved, size = moved + own[0] ** 2, size + own[1] ** 2
    return WeightChanges(tuple(found), relative_of(moved**0.5, size**0.5))


def _incomparable(name: str, before: Tensor | None, after: Tensor | None) -> TensorChange:
    state: State = "added" if before is None else "removed" if after is None else "reshaped"
    shown = before if after is None else after
    return TensorChange(name, () if shown is None else tuple(shown.shape), state, math.inf, math.inf)
