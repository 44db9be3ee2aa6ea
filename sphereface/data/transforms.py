"""Convert a uint8 batch on the device to the input of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..input_spec import InputSpec
from .augment import OnDevice, augment


def to_input(
    images: torch.Tensor,
    spec: InputSpec,
    mirror: torch.Tensor | None = None,
    selected: OnDevice | None = None,
    size: Sequence[int] | None = None,
) -> torch.Tensor:
    """Mirror, shrink, augment, normalise and reorder a batch into the input of a network.

    This runs on the device of the batch, so only bytes are copied there.

    Args:
        images: (B, H, W, 3) uint8 in [0, 255], BGR.
        spec: channel order and scale of the network's input; SphereFace's is BGR, (pixel − 127.5) /
            128.
        mirror: (B,) bool, which images to mirror left-right; None mirrors none.
        size: (h, w) to shrink to, at most (H, W); None leaves the size as it is.
        selected: the rows and strengths of each augmentation (see
            :func:`~sphereface.data.augment.augment`).

    Returns:
        (B, 3, h, w) float32 as ``spec`` describes, channels-last in memory.
    """
    images = images.permute(0, 3, 1, 2)
    pixels = _mirrored(images, mirror)
    if size is not None and tuple(size) != tuple(pixels.shape[2:]):
        pixels = shrunk(pixels.to(torch.float32), size)
    if selected:
        pixels = augment(pixels.to(torch.float32), selected)
    if spec.order == "rgb":  # reversed within each pixel, so that memory stays channels-last
        pixels = pixels.permute(0, 2, 3, 1).flip(3).permute(0, 3, 1, 2)
    mean, std = _per_channel(spec.mean, pixels), _per_channel(spec.std, pixels)
    return (pixels.sub_(mean) if pixels.is_floating_point() else pixels - mean).div_(std)


def _per_channel(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor | float:
    """Return one number, or three as (3, 1, 1) on the device of ``like``."""
    return values[0] if len(values) == 1 else torch.tensor(values, device=like.device).view(3, 1, 1)


def _mirrored(images: torch.Tensor, mirror: torch.Tensor | None) -> torch.Tensor:
    """Return new float32 pixels on a CPU; on other devices bytes, which are converted later."""
    if images.device.type != "cpu":  # the host would have to wait for the number of mirrored images
        return images if mirror is None else mirrored_without_waiting(images, mirror)
    pixels = images.to(torch.float32)
    if mirror is None:
        return pixels
    rows = mirror.nonzero().flatten()  # flip only their bytes: a quarter of the time of flipping floats, or all
    pixels[rows] = images[rows].flip(3).to(torch.float32)
    return pixels


def mirrored_without_waiting(images: torch.Tensor, mirror: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen images without waiting for their number.

    (B, 3, H, W), (B,) bool → (B, 3, H, W).
    """
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def shrunk(images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Replace pixels by the mean of each area: (B, 3, H, W) floating point → (B, 3, h, w)."""
    height, width = size
    return F.interpolate(images, (height, width), mode="area")


def to_pixels(inputs: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Undo the normalisation of :func:`to_input`, to show what the network sees.

    Args:
        inputs: (B, 3, H, W) float, as ``spec`` describes.
        spec: of :func:`to_input`.

    Returns:
        (B, 3, H, W) uint8, RGB.
    """
    pixels = inputs.float() * _per_channel(spec.std, inputs) + _per_channel(spec.mean, inputs)
    pixels = pixels.round().clamp(0, 255).to(torch.uint8)
    return pixels if spec.order == "rgb" else pixels.flip(1)
