"""What the benchmarks compare with, each written as a good engineer or its own documentation would write it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from crayon_sdk import ImageDataset, Preprocessing


class PlainFineTuning:
    """Fine-tuning by cross entropy: pixels decoded once, channels last, a fused Adam, nothing else.

    Args:
        model: Gives logits; it is trained.
        pixels: (N, 3, H, W) uint8.
        labels: (N,) int64.
        view: Has mean and standard deviation.
        batch: Pictures per step.
        device: Where to work; pixels are kept there.
        dtype: Of autocast, or ``None``.
    """

    def __init__(
        self,
        model: nn.Module,
        pixels: Tensor,
        labels: Tensor,
        view: Preprocessing,
        *,
        batch: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, weight_decay=1e-4, fused=True)
        self.pixels, self.labels = pixels.to(device), labels.to(device)
        self.mean, self.std = (255 * torch.tensor(each, device=device).view(3, 1, 1) for each in (view.mean, view.std))
        self.batch, self.device, self.dtype = batch, device, dtype

    def epoch(self) -> None:
        """Every picture once."""
        for rows in torch.randperm(len(self.pixels)).to(self.device).split(self.batch):
            images = ((self.pixels[rows].float() - self.mean) / self.std).to(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
                loss = F.cross_entropy(self.model(images), self.labels[rows])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


class _Decoded(Dataset):
    def __init__(self, dataset: ImageDataset, view: Preprocessing, root: str) -> None:
        self.dataset, self.root = dataset, root
        steps = [transforms.Resize(view.size), transforms.ToTensor(), transforms.Normalize(view.mean, view.std)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        with Image.open(f"{self.root}/{self.dataset.ids[index]}") as picture:
            return self.transform(picture.convert("RGB")), int(self.dataset.labels[index]), index


class TwoForwards:
    """The authors' way, from the description of the method: the pictures go through the network once for the prediction
    and once for the map, in float32, and are decoded again in every epoch.

    Args:
        trunk: From pictures to features.
        head: From features to logits.
        parameters: What is trained.
        pixels: (N, 3, H, W) float32 finished inputs in memory, or a data set in files.
        labels: (N,) int64.
        maps: (N, h, w) of the original model.
        relevant: (N,) bool; the others are irrelevant.
        batch: Pictures per step.
        device: Where to work.
        root: Folder of the files.
        view: How they are decoded.
    """

    def __init__(
        self,
        trunk: Callable[[Tensor], Tensor],
        head: Callable[[Tensor], Tensor],
        parameters: list[nn.Parameter],
        pixels: Tensor | ImageDataset,
        labels: Tensor,
        maps: Tensor,
        relevant: Tensor,
        *,
        batch: int,
        device: torch.device,
        root: str = "",
        view: Preprocessing | None = None,
    ) -> None:
        self.trunk, self.head = trunk, head
        self.optimizer = torch.optim.Adam(parameters, lr=1e-5, weight_decay=1e-4)
        self.maps, self.relevant, self.device = maps, relevant, device
        if isinstance(pixels, Tensor):
            numbers = torch.arange(len(pixels))
            data: Dataset = torch.utils.data.TensorDataset(pixels, labels, numbers)
        else:
            data = _Decoded(pixels, view or Preprocessing(size=(224, 224)), root)
        self.loader = DataLoader(data, batch_size=batch, shuffle=True, num_workers=0)

    def epoch(self) -> None:
        """Every picture once; twice through the network."""
        count = max(int(self.relevant.sum()), 1), max(int((~self.relevant).sum()), 1)
        for images, labels, rows in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            reference = self.maps[rows].to(self.device)
            relevant = self.relevant[rows].to(self.device)[:, None, None]
            prediction = F.cross_entropy(self.head(self.trunk(images)), labels, reduction="sum")
            features = self.trunk(images)
            scores = self.head(features).gather(1, labels[:, None]).sum()
            (gradient,) = torch.autograd.grad(scores, features, create_graph=True)
            cams = F.relu((gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)) + 1e-10
            cams = cams / cams.amax(dim=(1, 2), keepdim=True)
            outside = torch.where(relevant, cams * (1 - reference), 0.0).sum()
            inside = torch.where(relevant, 0.0, cams * reference).sum()
            loss = prediction + 10.0 / count[0] * outside + 10.0 / count[1] * inside
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def captum_maps(model: nn.Module, layer: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """captum: a layer, an input, a target."""
    from captum.attr import LayerGradCam

    grad_cam = LayerGradCam(model, layer)
    return lambda images, targets: grad_cam.attribute(images, target=targets, relu_attributions=True)[:, 0].detach()


def pytorch_grad_cam_maps(model: nn.Module, layer: nn.Module) -> Callable[[Tensor, Tensor], np.ndarray] | None:
    """pytorch-grad-cam (grad-cam), if it is there; its maps have the size of the pictures."""
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        return None
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = GradCAM(model=model, target_layers=[layer])
    return lambda images, targets: cam(
        input_tensor=images, targets=[ClassifierOutputTarget(each) for each in targets.tolist()]
    )


def torchcam_maps(model: nn.Module, layer: nn.Module) -> Callable[[Tensor, Tensor], Tensor] | None:
    """torchcam, if it is there."""
    if importlib.util.find_spec("torchcam") is None:
        return None
    from torchcam.methods import GradCAM

    cam = GradCAM(model, layer)

    def maps(images: Tensor, targets: Tensor) -> Tensor:
        return cam(targets.tolist(), model(images))[0]

    return maps
