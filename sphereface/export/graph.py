"""A network with its normalisation inside, so that programs feed it plain pixels."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..data.transforms import to_input
from ..input_spec import InputSpec
from ..models import Backbone

INPUT_NAME, OUTPUT_NAME = "images", "embedding"

_SAME = 1e-5
"""Largest relative difference between a network and its copy for the other channel order."""


@dataclass(frozen=True)
class InputFormat:
    """How to feed pixels to an exported network: 0 to 255, in any type.

    Attributes:
        order: of the channels, ``"bgr"`` (OpenCV) or ``"rgb"``. The graph converts to the network's
            order.
        layout: ``"nhwc"``, as decoders return pixels, or ``"nchw"``, as OpenCV's ``blobFromImage``
            does.
        dtype: ``"uint8"``; ``"float32"`` for programs that cannot feed bytes, such as OpenCV's dnn;
            ``"float16"`` for a network that also computes in half precision.
    """

    order: str = "bgr"
    layout: str = "nhwc"
    dtype: str = "uint8"

    @property
    def half(self) -> bool:
        """Return whether weights and arithmetic are in half precision."""
        return self.dtype == "float16"

    def describe(self, size: tuple[int, int], batch: int | None = None) -> str:
        """Describe the input in one line: shape, type, range, order."""
        height, width = size
        number = "B" if batch is None else batch
        shape = f"({number}, {height}, {width}, 3)" if self.layout == "nhwc" else f"({number}, 3, {height}, {width})"
        return f"{shape} {self.dtype}, pixels 0 to 255, {self.order.upper()}"

    def feed(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        """Convert crops (B, H, W, 3) uint8 in BGR to this format."""
        pixels = crops[..., ::-1] if self.order == "rgb" else crops
        if self.layout == "nchw":
            pixels = pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels, dtype=self.dtype)


class PixelsToEmbedding(nn.Module):
    """Pixels in an :class:`InputFormat` → embeddings, float32, not normalised.

    The graph converts the channel order. Where the network begins with a convolution, it reorders
    that convolution's weights; otherwise it reverses the channels of the input.

    The mean is subtracted explicitly. Folded into the bias of a convolution that pads with zeros,
    it would turn the border from grey to black. The division is explicit too: weights 128 times
    smaller would lose digits in half precision.

    Args:
        model: in evaluation mode; left unchanged.
        form: of the pixels.
        mirror: ``"none"``; ``"add"`` adds the embedding of the mirror image: (B, D); ``"join"``
            appends it: (B, 2D).
    """

    mean: Tensor | float | None
    std: Tensor | float | None

    def __init__(self, model: Backbone, form: InputFormat, mirror: str = "none") -> None:
        super().__init__()
        spec: InputSpec = model.input_spec
        self.form, self.mirror = form, mirror
        other_order = form.order != spec.order
        reordered = reads_other_order(model) if other_order else None
        self.reverse = other_order and reordered is None
        self.network: nn.Module = reordered or model
        mean, std = spec.mean, spec.std
        if other_order and not self.reverse:
            mean, std = mean[::-1], std[::-1]
        if form.half:
            self.network = copy.deepcopy(self.network).half()
        self._add_numbers("mean", mean)
        self._add_numbers("std", std)

    def forward(self, images: Tensor) -> Tensor:
        """Embed pixels: reorder the channels, normalise as in training, run the network."""
        pixels = images.to(torch.float16 if self.form.half else torch.float32)
        if self.form.layout == "nhwc":
            pixels = pixels.permute(0, 3, 1, 2)
        if self.reverse:
            pixels = reversed_along(pixels, 1)
        if self.mean is not None:
            pixels = pixels - self.mean
        if self.std is not None:
            pixels = pixels / self.std
        embedding: Tensor = self.network(pixels)
        if self.mirror != "none":  # a second run, not a larger batch: some programs accept only batches of 1
            mirrored: Tensor = self.network(reversed_along(pixels, 3))
            embedding = embedding + mirrored if self.mirror == "add" else torch.cat([embedding, mirrored], dim=1)
        return embedding.float()

    def _add_numbers(self, name: str, values: tuple[float, ...]) -> None:
        """Set the mean or std: None where it changes nothing, one number, or (1, 3, 1, 1)."""
        value: Any = values[0] if len(set(values)) == 1 else None
        if value == {"mean": 0, "std": 1}[name]:
            setattr(self, name, None)
        elif value is not None:
            setattr(self, name, value)
        else:
            dtype = torch.float16 if self.form.half else torch.float32
            self.register_buffer(name, torch.tensor(values, dtype=dtype).view(1, 3, 1, 1), persistent=False)


def reversed_along(pixels: Tensor, axis: int) -> Tensor:
    """Reverse an axis; in ONNX by single elements, because OpenCV 4 fails on a slice of step −1."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return pixels.flip(axis)  # pnnx supports this, and not the other
    return pixels.index_select(axis, torch.arange(pixels.shape[axis] - 1, -1, -1))


def reads_other_order(model: Backbone) -> Backbone | None:
    """Return a copy that reads the other channel order: its first convolutions are reordered.

    Returns:
        None where the network uses its input in other ways than to convolve it.
    """
    images = torch.from_numpy(example_crops(model.input_spec.size, 1)).permute(0, 3, 1, 2).float() / 255
    changed = copy.deepcopy(model).eval()
    first: list[nn.Conv2d] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and inputs[0] is images and isinstance(module, nn.Conv2d) and module not in first:
            first.append(module)

    hooks = [layer.register_forward_pre_hook(note) for layer in changed.modules() if isinstance(layer, nn.Conv2d)]
    with torch.inference_mode():
        wanted = changed(images)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for conv in first:
            conv.weight.copy_(conv.weight.flip(1))
    with torch.inference_mode():
        found = changed(images.flip(1))
    same = bool((found - wanted).abs().max() <= _SAME * wanted.abs().max())
    return changed if first and same else None


def expected(model: Backbone, crops: npt.NDArray[np.uint8], mirror: str = "none") -> npt.NDArray[np.float32]:
    """Embed crops with PyTorch, in float32, as an export of the network must.

    Args:
        model: in evaluation mode.
        crops: (B, H, W, 3) uint8, BGR.
        mirror: see :class:`PixelsToEmbedding`.

    Returns:
        (B, D), or (B, 2D) for ``"join"``.
    """
    with torch.inference_mode():
        images = to_input(torch.from_numpy(crops), model.input_spec)
        embedding: Tensor = model(images)
        if mirror != "none":
            mirrored: Tensor = model(images.flip(3))
            embedding = embedding + mirrored if mirror == "add" else torch.cat([embedding, mirrored], dim=1)
        return embedding.float().numpy()


def example_crops(size: tuple[int, int], count: int = 3) -> npt.NDArray[np.uint8]:
    """Return (count, H, W, 3) uint8 of noise, always the same, to trace and compare with."""
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)
