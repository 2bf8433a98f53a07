"""What happens to a picture before the model sees it: one geometry, one normalisation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from crayon_sdk.errors import DataError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Preprocessing", "binary_mask", "effective_preprocessing", "eight_bit", "to_rgb"]

CROP_MODES = ("center", "squash", "border")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_WHITES = {"bool": 1.0, "uint8": 255.0, "uint16": 65535.0}
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF; a photometric interpretation of 0 has white at zero


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How pictures become model inputs, in the terms of a timm data config.

    The published Waterbirds runs feed values in [0, 1]: that is the default
    mean and std.

    Args:
        size: Height and width in pixels of what the model gets.
        mean: Per channel, in [0, 1] units; subtracted after division by 255.
        std: Per channel, above zero; divides what the mean leaves.
        crop_pct: Share of the resized picture that the crop keeps, in [0.1, 2].
        crop_mode: ``"center"`` (shorter side to size / crop_pct, centre crop),
            ``"squash"`` (both sides, proportions change) or ``"border"``
            (longer side, padded with the mean).
        interpolation: A Pillow filter: nearest, bilinear, bicubic, box,
            hamming or lanczos.

    Raises:
        SettingsError: A value is out of its range.

    Example:
        >>> preprocessing = Preprocessing(size=(4, 6), crop_pct=0.5)
        >>> preprocessing.geometry(Image.new("L", (30, 20))).size
        (6, 4)
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop_pct: float = 1.0
    crop_mode: str = "center"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        set_field = functools.partial(object.__setattr__, self)
        set_field("size", _numbers("size", self.size, 2, whole=True))
        set_field("mean", _numbers("mean", self.mean, 3))
        set_field("std", _numbers("std", self.std, 3))
        set_field("crop_pct", _numbers("crop_pct", (self.crop_pct,), 1)[0])
        if not all(1 <= side <= 16384 for side in self.size):
            raise SettingsError(f"size must be (height, width) from 1 to 16384 pixels, got {self.size}")
        if min(self.std) <= 0:
            raise SettingsError(f"std must be above 0 in every channel, got {self.std}")
        if not 0.1 <= self.crop_pct <= 2:
            raise SettingsError(f"crop_pct must lie in [0.1, 2], got {self.crop_pct}")
        if self.crop_mode not in CROP_MODES:
            raise SettingsError(f"crop_mode must be one of {', '.join(CROP_MODES)}, got {self.crop_mode!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise SettingsError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Take over a timm data config.

        Args:
            config: What ``timm.data.resolve_model_data_config(model)`` gives;
                ``input_size`` must be there, timm's defaults fill the rest.

        Returns:
            The same preprocessing.

        Raises:
            SettingsError: ``input_size`` is not (3, H, W), or a value is out
                of its range.

        Example:
            >>> Preprocessing.from_config({"input_size": (3, 32, 32), "crop_pct": 0.9}).crop_pct
            0.9
        """
        from timm.data.config import resolve_data_config

        shape = config.get("input_size")
        if not isinstance(shape, (tuple, list)) or len(shape) != 3 or shape[0] != 3:
            raise SettingsError(f"input_size must be (3, height, width): models of RGB pictures only, got {shape!r}")
        full: dict[str, Any] = resolve_data_config(pretrained_cfg=dict(config))
        return cls(
            size=tuple(shape[1:]),
            mean=full["mean"],
            std=full["std"],
            crop_pct=full["crop_pct"],
            crop_mode=full["crop_mode"],
            interpolation=full["interpolation"],
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Make it again from what [`to_dict`][crayon_sdk.data.preprocessing.Preprocessing.to_dict] gave.

        Raises:
            SettingsError: A key is missing or unknown, or a value is out of
                its range.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown or "size" not in values:
            raise SettingsError(
                f"preprocessing needs 'size' and may have {', '.join(list(cls.__dataclass_fields__)[1:])}; "
                f"got {', '.join(sorted(values)) or 'nothing'}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold.

        Example:
            >>> Preprocessing(size=(8, 8)).to_dict()["size"]
            [8, 8]
        """
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def geometry(self, image: Image.Image) -> Image.Image:
        """Resize and crop a picture, exactly as timm's evaluation transform does.

        Args:
            image: Any mode and size; an EXIF rotation is not applied here.

        Returns:
            RGB, uint8, of exactly ``size``.

        Raises:
            DataError: It does not say which value is white, or holds values out of range or NaN.
        """
        return _geometry(self)(to_rgb(image))

    def geometry_mask(self, mask: Image.Image) -> Image.Image:
        """Resize and crop an object mask the way its picture is.

        Args:
            mask: Made binary first: on where it is brighter than half of its
                brightest value.

        Returns:
            Mode ``"L"``, 0 or 255, of exactly ``size``; padding is 0.
        """
        # Nearest keeps it binary; a zero mean pads with "not the object".
        plain = Preprocessing(size=self.size, crop_pct=self.crop_pct, crop_mode=self.crop_mode, interpolation="nearest")
        return _geometry(plain)(binary_mask(mask).convert("RGB")).getchannel(0)

    def view(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Which part of a picture the model sees.

        Args:
            width: Of the whole picture, in pixels.
            height: Of the whole picture.

        Returns:
            (left, top, right, bottom) as shares of the picture's sides; below 0 and above 1
            where it is padded.

        Example:
            >>> Preprocessing(size=(100, 100), crop_pct=0.5).view(400, 200)
            (0.375, 0.25, 0.625, 0.75)
        """
        rows, columns = (math.floor(side / self.crop_pct) for side in self.size)
        along, down = columns / width, rows / height  # what brings a side to its resized length
        if self.crop_mode != "squash":
            along = down = min(along, down) if self.crop_mode == "border" else max(along, down)
        half = self.size[1] / (2 * width * along), self.size[0] / (2 * height * down)
        return 0.5 - half[0], 0.5 - half[1], 0.5 + half[0], 0.5 + half[1]

    def same_geometry(self, other: Preprocessing) -> bool:
        """Tell whether both show the same part of every picture, whatever their sizes in pixels."""
        aspects = [one.size[0] / one.size[1] for one in (self, other)]
        return (
            self.crop_mode == other.crop_mode
            and math.isclose(self.crop_pct, other.crop_pct, rel_tol=0.01)
            and math.isclose(*aspects, rel_tol=0.01)
        )

    def normalize(self, images: Tensor) -> Tensor:
        """Turn pixels into what the model takes, on the device they are on.

        Args:
            images: (N, 3, H, W) or (3, H, W), uint8. Floating-point images are
                taken as preprocessed already and only become float32.

        Returns:
            float32, same shape and device: (images / 255 - mean) / std.

        Raises:
            SettingsError: Another dtype.

        Example:
            >>> import torch
            >>> Preprocessing(size=(1, 1)).normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).max().item()
            1.0
        """
        import torch

        if images.is_floating_point():
            return images.to(torch.float32)
        if images.dtype != torch.uint8:
            raise SettingsError(f"images must be uint8 (0 to 255) or already preprocessed floats, got {images.dtype}")
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device).view(3, 1, 1)
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)

    def denormalize(self, images: Tensor) -> Tensor:
        """Undo [`normalize`][crayon_sdk.data.preprocessing.Preprocessing.normalize], to look at inputs.

        Args:
            images: (N, 3, H, W) or (3, H, W), floating point.

        Returns:
            uint8, same shape; values outside the picture range are cut off.
        """
        import torch

        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return images.float().mul(std).add(mean).mul(255).round().clamp(0, 255).to(torch.uint8)


class _HasPreprocessing(Protocol):
    @property
    def preprocessing(self) -> Preprocessing | None: ...


def effective_preprocessing(dataset: _HasPreprocessing, model_preprocessing: Preprocessing) -> Preprocessing:
    """Return the preprocessing to use: that of the data set if it has one, else the model's.

    Args:
        dataset: An [`ImageDataset`][crayon_sdk.data.dataset.ImageDataset].
        model_preprocessing: What the model was trained with.
    """
    return model_preprocessing if dataset.preprocessing is None else dataset.preprocessing


def _numbers(name: str, value: Any, length: int, *, whole: bool = False) -> tuple[Any, ...]:
    try:
        numbers = tuple(value)
        converted = tuple(int(number) if whole else float(number) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        converted = ()
        numbers = ()
    fits = len(converted) == length and all(math.isfinite(number) for number in converted)
    if not fits or (whole and converted != numbers):
        kind = "whole" if whole else "finite"
        raise SettingsError(f"{name} must be {length} {kind} number{'s' * (length > 1)}, got {value!r}")
    return converted


@functools.lru_cache(maxsize=64)
def _geometry(preprocessing: Preprocessing) -> Callable[[Image.Image], Image.Image]:
    """Build timm's evaluation transform without its conversion to a tensor: equal by construction."""
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose, Normalize, ToTensor

    whole = create_transform(
        input_size=(3, *preprocessing.size),
        is_training=False,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        interpolation=preprocessing.interpolation,
    )
    geometry: Callable[[Image.Image], Image.Image] = Compose(
        [step for step in whole.transforms if not isinstance(step, (ToTensor, Normalize))]
    )
    return geometry


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to 8-bit RGB; transparency is dropped.

    What counts as white depends on the mode and the bit depth of the file, never on the values in it: 65535 in
    16-bit grey, 1.0 in floating point.

    Raises:
        DataError: Its values have no known range, lie outside it, or are not numbers.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow cuts these off at 255: 16-bit grey turns white, floating point black.
        values, white = np.asarray(image), _white(image)
        tags = getattr(image, "tag_v2", {})
        image = Image.fromarray(eight_bit(white - values if tags.get(_PHOTOMETRIC) == 0 else values, white))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def _white(image: Image.Image) -> float:
    """The value of white in a picture of one deep channel."""
    if image.mode == "F":
        return 1.0
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(_BITS, (16,))[0]  # 12-bit TIFF comes in this mode too
        return float(2**bits - 1)
    if image.format in ("PNG", "PPM"):  # they have 16 bits at most, and Pillow spreads PPM over all of them
        return 65535.0
    raise DataError(
        f"a picture of 32-bit or signed integers (mode {image.mode!r}) does not say which value is white; save it with "
        "8 or 16 unsigned bits, or as floating point in [0, 1]"
    )


def eight_bit(values: np.ndarray[Any, Any], white: float | None = None) -> np.ndarray[Any, Any]:
    """Bring values to 8 bits; white is 255, whatever the brightest value is.

    Args:
        values: Of any shape; bool, uint8, uint16 or floating point.
        white: The value of white; default by type: True, 255, 65535, or 1.0.

    Returns:
        uint8, same shape.

    Raises:
        DataError: Another type, or values that lie outside [0, white] or are not numbers.

    Example:
        >>> eight_bit(np.array([0.0, 0.5, 1.0])).tolist(), eight_bit(np.array([257], dtype=np.uint16)).tolist()
        ([0, 128, 255], [1])
    """
    if white is None:
        white = _WHITES.get(values.dtype.name, 1.0 if values.dtype.kind == "f" else None)
    if white is None:
        raise DataError(
            f"an image must be uint8, uint16, bool, or float in [0, 1], got {values.dtype}, which does not say which "
            "value is white"
        )
    if (values.dtype == np.uint8 and white == 255) or not values.size:
        return values.astype(np.uint8, copy=False)
    values = values.astype(np.promote_types(values.dtype, np.float32))
    low, high = float(values.min()), float(values.max())  # NaN if any value is
    if math.isnan(low):
        raise DataError("an image must hold numbers only, got NaN (not a number) in it")
    if not (low >= 0 and high <= white):
        floats = "float images must lie in [0, 1]" if white == 1 else f"values must lie in [0, {white:g}]"
        raise DataError(f"{floats}, got {low:.4g} to {high:.4g}")
    scaled: np.ndarray[Any, Any] = (values * (255 / white)).round().astype(np.uint8)
    return scaled


def binary_mask(mask: Image.Image) -> Image.Image:
    """Return a mask as ``"L"`` with 255 where it is brighter than half of its brightest value, else 0.

    Raises:
        DataError: It holds something that is not a number.
    """
    numeric = mask.mode in ("1", "L", "F") or mask.mode.startswith("I")
    values = np.asarray(mask if numeric else to_rgb(mask).convert("L"), dtype=np.float64)
    if np.isnan(values).any():
        raise DataError("a mask must hold numbers only, got NaN (not a number) in it")
    on = values > values.max(initial=0.0) / 2
    return Image.fromarray(on.astype(np.uint8) * 255)
