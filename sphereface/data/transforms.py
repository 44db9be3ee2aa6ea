"""From a uint8 batch on the device to what the network reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .augment import OnDevice, augment

PIXEL_MEAN = 127.5
PIXEL_SCALE = 128.0


def to_input(
    images: torch.Tensor,
    mirror: torch.Tensor | None = None,
    selected: OnDevice | None = None,
    size: Sequence[int] | None = None,
) -> torch.Tensor:
    """Mirror, shrink, augment, normalise and reorder a batch: (pixel − 127.5) / 128 (SphereFace recipe).

    Runs on the device the batch is on, so only bytes travel there.

    Args:
        images: (B, H, W, 3) uint8 in [0, 255], BGR.
        mirror: (B,) bool, which pictures to mirror left-right; None mirrors none.
        size: (h, w) to shrink to, at most (H, W); None leaves the size as it is.
        selected: the rows and strengths of each augmentation (see :func:`~sphereface.data.augment.augment`).

    Returns:
        (B, 3, h, w) float32 in [−0.996, 0.996], BGR, laid out channels-last in memory.
    """
    images = images.permute(0, 3, 1, 2)
    pixels = images.to(torch.float32)
    if mirror is not None:
        pixels = _mirrored(images, pixels, mirror)
    if size is not None and tuple(size) != tuple(pixels.shape[2:]):
        pixels = shrunk(pixels, size)
    if selected:
        pixels = augment(pixels, selected)
    return pixels.sub_(PIXEL_MEAN).div_(PIXEL_SCALE)


def _mirrored(images: torch.Tensor, pixels: torch.Tensor, mirror: torch.Tensor) -> torch.Tensor:
    if images.device.type != "cpu":  # how many those are, the host would have to wait for
        return torch.where(mirror[:, None, None, None], pixels.flip(3), pixels)
    rows = mirror.nonzero().flatten()  # the bytes of those alone: a quarter of the time of flipping floats, or all
    pixels[rows] = images[rows].flip(3).to(torch.float32)
    return pixels


def shrunk(images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Each pixel the mean of those that it stands for. (B, 3, H, W) floating point → (B, 3, h, w)."""
    height, width = size
    return F.interpolate(images, (height, width), mode="area")


def to_pixels(inputs: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation of :func:`to_input`, to look at what the network sees.

    Args:
        inputs: (B, 3, H, W) float, BGR.

    Returns:
        (B, 3, H, W) uint8, RGB.
    """
    pixels = (inputs.float() * PIXEL_SCALE + PIXEL_MEAN).round().clamp(0, 255)
    return pixels.to(torch.uint8).flip(1)
