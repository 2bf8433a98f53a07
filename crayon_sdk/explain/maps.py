"""`SaliencyMaps`: the maps that people answer about, in one file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from crayon_sdk._base.files import read_tensors, sha256_of, tensors_in_parts, write_tensors
from crayon_sdk._base.process import Processes
from crayon_sdk._base.text import first_few
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import FileFormatError, MismatchError, SettingsError
from crayon_sdk.functional.saliency import brightest_spot, normalize_maps, resize_maps
from crayon_sdk.show.gallery import Gallery, Order, gallery, strips
from crayon_sdk.show.overlays import Style, bare

__all__ = ["SaliencyMaps", "as_maps", "read_manifest", "readable", "write_manifest"]

_FORMAT = "crayon-saliency-maps"
_GLANCE = 12  # maps that a notebook shows when it is asked for nothing


@dataclass(frozen=True)
class SaliencyMaps:
    """Normalised Grad-CAM maps of one model on one data set.

    A map is known by the id of its sample: ``maps[id]`` is the map (h, w), ``for id in maps`` goes through the ids,
    and ``maps + other`` puts maps of different samples together. Positions are refused.

    Attributes:
        ids: N sample ids.
        values: (N, h, w) float32 in [0, 1], every map with a maximum of one.
        targets: (N,) int64, the class that every map is for.
        evidence: (N,) bool, false for a map without positive evidence, whose
            values are all ones and mean nothing.
        model: Fingerprint of the model that was explained.
        target_rule: "label", "predicted", or the number of a class.
        score: "logit" or "margin", what was differentiated.
        class_names: Names of the classes, may be empty.
        preprocessing: How pictures were resized and cropped before, so that the maps
            can be laid over them; ``None`` when not known.

    Raises:
        SettingsError: The lengths or shapes do not fit together.

    Example:
        >>> maps = SaliencyMaps(("a", "b"), torch.rand(2, 5, 5), torch.tensor([0, 1]))
        >>> maps.select(["b"]).ids
        ('b',)
        >>> list(maps), "b" in maps, maps["b"].shape
        (['a', 'b'], True, torch.Size([5, 5]))
    """

    ids: tuple[str, ...]
    values: Tensor
    targets: Tensor
    evidence: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    model: str = ""
    target_rule: str = "label"
    score: str = "logit"
    class_names: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        if not len(self.evidence) and len(self.ids):
            object.__setattr__(self, "evidence", torch.ones(len(self.ids), dtype=torch.bool))
        lengths = {len(self.ids), len(self.values), len(self.targets), len(self.evidence)}
        if self.values.ndim != 3 or len(lengths) != 1 or len(set(self.ids)) != len(self.ids):
            raise SettingsError(
                f"expected N different ids, values (N, h, w) and N targets, got {len(self.ids)} ids "
                f"({len(set(self.ids))} different), values {tuple(self.values.shape)}, {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, sample: object) -> bool:
        return isinstance(sample, str) and sample in self._positions

    def __getitem__(self, sample: str) -> Tensor:
        if not isinstance(sample, str):
            raise SettingsError(
                f"maps are known by sample ids, which are texts, got {sample!r}; maps.ids has them in the order of "
                "maps.values, and maps.select(ids) takes several"
            )
        return self.select([sample]).values[0]

    def __add__(self, other: SaliencyMaps) -> SaliencyMaps:
        return SaliencyMaps.concatenate([self, other]) if isinstance(other, SaliencyMaps) else NotImplemented

    def __repr__(self) -> str:
        height, width = self.size
        return f"SaliencyMaps({len(self)} maps of {height}x{width}, target {self.target_rule}, {self.num_empty} empty)"

    def _repr_html_(self) -> str:
        """The first maps; the pictures are not here, `gallery` has them."""
        rows = range(min(len(self), _GLANCE) if self.values.numel() else 0)
        # A map without evidence is all ones, which would claim the opposite of what it means.
        shown = [(self._said(row), bare(self.values[row] * self.evidence[row], 80)) for row in rows]
        how_many = f"The first {len(rows)}" if len(rows) < len(self) else "All of them"
        note = f"{how_many}, without their pictures; .gallery(dataset) shows maps on pictures."
        return strips(repr(self), [("", shown)], note)

    def _said(self, row: int) -> str:
        return self.ids[row] + ("" if self.evidence[row] else ", no evidence")

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of every map."""
        return int(self.values.shape[1]), int(self.values.shape[2])

    @property
    def num_empty(self) -> int:
        """How many maps have no positive evidence."""
        return int((~self.evidence).sum())

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {sample: position for position, sample in enumerate(self.ids)}

    @property
    def fingerprint(self) -> str:
        """sha256 over ids, values and targets."""
        values = self.values.contiguous().view(torch.uint8).numpy().tobytes() if len(self) else b""
        return sha256_of(*self.ids, values, repr(self.targets.tolist()))

    def select(self, ids: Sequence[str]) -> SaliencyMaps:
        """The maps of these samples, in this order.

        Raises:
            MismatchError: There is no map for some of them.
            SettingsError: A text in the place of a list of ids.
        """
        if isinstance(ids, str):
            raise SettingsError(f"expected a list of sample ids, got the text {ids!r}; write [{ids!r}]")
        missing = [sample for sample in ids if sample not in self._positions]
        if missing:
            raise MismatchError(
                f"no saliency map for {len(missing)} of {len(ids)} samples ({first_few(missing)}); "
                "explain the data set that the answers are about"
            )
        rows = torch.tensor([self._positions[sample] for sample in ids], dtype=torch.int64)
        return replace(
            self, ids=tuple(ids), values=self.values[rows], targets=self.targets[rows], evidence=self.evidence[rows]
        )

    @classmethod
    def concatenate(cls, parts: Sequence[SaliencyMaps], path: str | os.PathLike[str] | None = None) -> SaliencyMaps:
        """Put maps of different samples of one explanation together, in this order.

        Args:
            parts: As they were made, or loaded.
            path: The file of [`save`][crayon_sdk.explain.maps.SaliencyMaps.save]: they are written into it one after
                the other and come from it when they are looked at, so that parts which were loaded need no memory.

        Raises:
            MismatchError: They were not made in the same way, or there are none.
            OutputError: The file cannot be written.
            SettingsError: A sample is in two of them.

        Example:
            >>> one, two = (SaliencyMaps((name,), torch.ones(1, 5, 5), torch.tensor([0])) for name in "ab")
            >>> SaliencyMaps.concatenate([one, two]).ids
            ('a', 'b')
        """
        same = {(part.size, part.model, part.target_rule, part.score, part.class_names) for part in parts}
        if len(same) != 1:
            raise MismatchError(
                f"expected maps that were made in one way, got {len(same)} ways among {len(parts)} parts"
            )
        ids = tuple(sample for part in parts for sample in part.ids)
        if path is None:
            values, targets, evidence = (
                torch.cat([part._tensors[name] for part in parts]) for name in ("values", "targets", "evidence")
            )
            return replace(parts[0], ids=ids, values=values, targets=targets, evidence=evidence)
        with parts[0].only_shapes(ids).saved_in_parts(path) as put:
            row = 0
            for part in parts:
                put(row, part.values, part.targets, part.evidence)
                row += len(part)
        Processes.found().wait()  # until the main process has written it
        return cls.load(path)

    def only_shapes(self, ids: Sequence[str]) -> SaliencyMaps:
        """As many maps of this kind, all of them zero and in no memory, for `saved_in_parts`."""
        count, (height, width) = len(ids), self.size
        return replace(
            self,
            ids=tuple(ids),
            values=torch.zeros(1, 1, 1).expand(count, height, width),
            targets=torch.zeros(1, dtype=torch.int64).expand(count),
            evidence=torch.zeros(1, dtype=torch.bool).expand(count),
        )

    def resize(self, h: int, w: int) -> SaliencyMaps:
        """The same maps on another grid: area when shrinking, bilinear when growing, normalised again.

        Example:
            >>> maps = SaliencyMaps(("a",), torch.ones(1, 5, 5), torch.tensor([0]))
            >>> maps.resize(7, 7).size
            (7, 7)
        """
        return replace(self, values=normalize_maps(resize_maps(self.values, (h, w))))

    def spots(self) -> SaliencyMaps:
        """Of every map its brightest spot only, on a grid of twice as many rows and columns.

        What people are shown who are asked whether the bright spot is on the object
        ([`brightest_spot`][crayon_sdk.functional.saliency.brightest_spot]).

        Example:
            >>> maps = SaliencyMaps(("a",), torch.tensor([[[1.0, 0.2], [0.2, 0.2]]]), torch.tensor([0]))
            >>> maps.spots().size, maps.spots()["a"].count_nonzero().item()
            ((4, 4), 4)
        """
        height, width = self.size
        return replace(self, values=brightest_spot(self.values, (2 * height, 2 * width)))

    def gallery(
        self,
        dataset: ImageDataset,
        path: str | os.PathLike[str] | None = None,
        *,
        ids: Sequence[str] | None = None,
        limit: int | None = 24,
        order: Order = "given",
        seed: int = 0,
        style: Style = "orange",
        title: str = "What the model looks at",
        cell: int = 192,
    ) -> Gallery:
        """Show pictures beside their maps: in a notebook, on one HTML page, or on a PNG sheet.

        Args:
            dataset: Has the pictures.
            path: A file to write: ``.html``, which holds its pictures and needs nothing else, or ``.png``.
            ids: Which samples; default all.
            limit: How many at most; ``None`` shows all.
            order: "given", "random", or "widest": maps that highlight the most come first.
            seed: Of "random".
            style: Of the third panel: "orange" on grey, which colour-blind people tell apart too, or "red".
            title: First line.
            cell: Longer side of a panel in pixels, at least 48.

        Returns:
            The gallery; the last line of a notebook cell shows it.

        Raises:
            MismatchError: There is no map, or no picture, for a sample.
            OutputError: The file cannot be written.
            SettingsError: A setting is out of range, or it is not known how the pictures were cropped.

        Example:
            >>> from crayon_sdk import ImageDataset, Preprocessing
            >>> dataset = ImageDataset.from_torch([(torch.rand(3, 64, 64), 0)], ids=["a"])
            >>> view = Preprocessing(size=(64, 64))
            >>> maps = SaliencyMaps(("a",), torch.rand(1, 5, 5), torch.tensor([0]), preprocessing=view)
            >>> maps.gallery(dataset)
            Gallery(1 of 1 pictures, in the order given)
        """
        return gallery(
            self,
            dataset,
            path,
            ids=ids,
            limit=limit,
            order=order,
            seed=seed,
            style=style,
            title=title,
            cell=cell,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file: values, targets and evidence, with the rest as metadata.

        Raises:
            OutputError: It cannot be written.
        """
        write_manifest(path, _FORMAT, self._tensors, self._manifest)

    @contextlib.contextmanager
    def saved_in_parts(self, path: str | os.PathLike[str]) -> Iterator[Callable[[int, Tensor, Tensor, Tensor], None]]:
        """Write the same file part by part, so that the maps need not all be in memory.

        Args:
            path: The file; it gets its name when the block ends well.

        Yields:
            A function that writes a part: the number of its first map, values (n, h, w) float32, targets (n,) int64 and
            evidence (n,) bool. Those of this object say how many there are and how large, and nothing else.

        Raises:
            OutputError: It cannot be written.
            SettingsError: A part does not fit.

        Example:
            >>> import tempfile
            >>> like = torch.zeros(1, 5, 5).expand(2, 5, 5)
            >>> maps = SaliencyMaps(("a", "b"), like, torch.zeros(2, dtype=torch.int64))
            >>> path = tempfile.mkdtemp() + "/maps.safetensors"
            >>> with maps.saved_in_parts(path) as put:
            ...     for row in range(2):
            ...         put(row, torch.ones(1, 5, 5), torch.tensor([row]), torch.tensor([True]))
            >>> SaliencyMaps.load(path).targets.tolist()
            [0, 1]
        """
        kinds = {"values": torch.float32, "targets": torch.int64, "evidence": torch.bool}
        like = {name: tensor.to(kinds[name]) for name, tensor in self._tensors.items()}
        with tensors_in_parts(path, like, _metadata(_FORMAT, self._manifest)) as write:

            def put(row: int, values: Tensor, targets: Tensor, evidence: Tensor) -> None:
                for name, part in (("values", values), ("targets", targets), ("evidence", evidence)):
                    write(name, row, part)

            yield put

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {"values": self.values, "targets": self.targets, "evidence": self.evidence}

    @property
    def _manifest(self) -> dict[str, Any]:
        return {
            "ids": list(self.ids),
            "model": self.model,
            "target_rule": self.target_rule,
            "score": self.score,
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing and self.preprocessing.to_dict(),
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SaliencyMaps:
        """Read what [`save`][crayon_sdk.explain.maps.SaliencyMaps.save] wrote; values are read when they are looked at.

        Raises:
            FileFormatError: The file is truncated, or holds something else.
        """
        tensors, manifest = read_manifest(path, _FORMAT, ("values", "targets", "evidence"))
        with readable(path):
            return cls(
                ids=tuple(manifest["ids"]),
                values=tensors["values"],
                targets=tensors["targets"],
                evidence=tensors["evidence"],
                model=manifest["model"],
                target_rule=manifest["target_rule"],
                score=manifest["score"],
                class_names=tuple(manifest["class_names"]),
                preprocessing=manifest["preprocessing"] and Preprocessing.from_dict(manifest["preprocessing"]),
            )


def as_maps(value: object) -> SaliencyMaps:
    """Give ``value`` itself when it is a SaliencyMaps.

    Raises:
        SettingsError: It is something else.
    """
    if isinstance(value, SaliencyMaps):
        return value
    raise SettingsError(
        f"expected SaliencyMaps, got {type(value).__name__}; Explainer(model).explain(dataset) makes them, "
        "SaliencyMaps.load(path) reads them"
    )


@contextlib.contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever is wrong with a manifest into one plain error.

    Raises:
        FileFormatError: The block failed because an entry is missing, or does not fit the others.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"the manifest of {os.fspath(path)!r} is damaged ({type(error).__name__}: {error}); make the file again"
        ) from error


def write_manifest(
    path: str | os.PathLike[str], format: str, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]
) -> None:
    """Write a safetensors file with a manifest of ours in its header, as `read_manifest` takes it.

    Raises:
        OutputError: It cannot be written.
    """
    write_tensors(path, tensors, _metadata(format, manifest))


def _metadata(format: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    return {"format": format, "version": "1", "manifest": json.dumps(manifest)}


def read_manifest(
    path: str | os.PathLike[str], expected: str, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file of ours: its tensors, and its manifest from the metadata.

    Raises:
        FileFormatError: Truncated, or not a file of the ``expected`` format.
    """
    tensors, metadata = read_tensors(path)
    found = metadata.get("format")
    if found != expected or any(name not in tensors for name in names):
        raise FileFormatError(f"{os.fspath(path)!r} is not a {expected} file (its format is {found!r})")
    if metadata.get("version") != "1":
        raise FileFormatError(
            f"{os.fspath(path)!r} has version {metadata.get('version')!r}, expected version '1'; upgrade crayon-sdk"
        )
    try:
        manifest = json.loads(metadata["manifest"])
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{os.fspath(path)!r} has no readable manifest; make it again") from error
    return tensors, manifest
