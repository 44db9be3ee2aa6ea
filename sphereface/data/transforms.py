"""From a uint8 batch on the device to what the network reads."""

from __future__ import annotations

import torch

from .augment import OnDevice, augment

PIXEL_MEAN = 127.5
PIXEL_SCALE = 128.0


def to_input(
    images: torch.Tensor, mirror: torch.Tensor | None = None, selected: OnDevice | None = None
) -> torch.Tensor:
    """Mirror, augment, normalise and reorder a batch: (pixel − 127.5) / 128 (SphereFace recipe).

    Runs on the device the batch is on, so only bytes travel there.

    Args:
        images: (B, H, W, 3) uint8 in [0, 255], BGR.
        mirror: (B,) bool, which pictures to mirror left-right; None mirrors none.
        selected: the rows and strengths of each augmentation (see :func:`~sphereface.data.augment.augment`).

    Returns:
        (B, 3, H, W) float32 in [−0.996, 0.996], BGR, laid out channels-last in memory.
    """
    images = images.permute(0, 3, 1, 2)
    pixels = images.to(torch.float32)
    if mirror is not None:
        pixels = _mirrored(images, pixels, mirror)
    if selected:
        pixels = augment(pixels, selected)
    return pixels.sub_(PIXEL_MEAN).div_(PIXEL_SCALE)


def _mirrored(images: torch.Tensor, pixels: torch.Tensor, mirror: torch.Tensor) -> torch.Tensor:
    if images.device.type != "cpu":  # how many those are, the host would have to wait for
        return torch.where(mirror[:, None, None, None], pixels.flip(3), pixels)
    rows = mirror.nonzero().flatten()  # the bytes of those alone: a quarter of the time of flipping floats, or all
    pixels[rows] = images[rows].flip(3).to(torch.float32)
    return pixels


def to_pixels(inputs: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation of :func:`to_input`, to look at what the network sees.

    Args:
        inputs: (B, 3, H, W) float, BGR.

    Returns:
        (B, 3, H, W) uint8, RGB.
    """
    pixels = (inputs.float() * PIXEL_SCALE + PIXEL_MEAN).round().clamp(0, 255)
    return pixels.to(torch.uint8).flip(1)
