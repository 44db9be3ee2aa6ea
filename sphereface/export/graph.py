"""The network with its normalisation inside, so that whoever runs it feeds plain pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..data.transforms import PIXEL_MEAN, PIXEL_SCALE

ORDERS, LAYOUTS, DTYPES = ("bgr", "rgb"), ("nhwc", "nchw"), ("uint8", "float32")
INPUT_NAME, OUTPUT_NAME = "images", "embedding"


@dataclass(frozen=True)
class InputFormat:
    """How pixels are fed to an exported network: 0 to 255, whatever their type.

    Attributes:
        order: of the channels, ``"bgr"`` (OpenCV) or ``"rgb"``.
        layout: ``"nhwc"``, as decoders give pixels, or ``"nchw"``, as OpenCV's ``blobFromImage`` does.
        dtype: ``"uint8"``, or ``"float32"`` for what cannot feed bytes, such as OpenCV's dnn.
    """

    order: str = "bgr"
    layout: str = "nhwc"
    dtype: str = "uint8"

    def describe(self, size: tuple[int, int]) -> str:
        """A line for people: shape, type, range, order."""
        height, width = size
        shape = f"(B, {height}, {width}, 3)" if self.layout == "nhwc" else f"(B, 3, {height}, {width})"
        return f"{shape} {self.dtype}, pixels 0 to 255, {self.order.upper()}"

    def feed(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        """Bring crops (B, H, W, 3) uint8 in BGR to this format."""
        pixels = crops[..., ::-1] if self.order == "rgb" else crops
        if self.layout == "nchw":
            pixels = pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels, dtype=self.dtype)


class PixelsToEmbedding(nn.Module):
    """Pixels in an :class:`InputFormat` → (B, D) float32, the network's embedding, not normalised."""

    def __init__(self, model: nn.Module, form: InputFormat) -> None:
        super().__init__()
        self.model, self.form = model, form

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reorder, normalise as in training, embed."""
        pixels = images.to(torch.float32)
        if self.form.layout == "nhwc":
            pixels = pixels.permute(0, 3, 1, 2)
        if self.form.order == "rgb":
            pixels = pixels.flip(1)
        embedding: torch.Tensor = self.model((pixels - PIXEL_MEAN) / PIXEL_SCALE)
        return embedding


def example_crops(size: tuple[int, int], count: int = 3) -> npt.NDArray[np.uint8]:
    """(count, H, W, 3) uint8 of noise, always the same: to trace with, and to compare results on."""
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)
