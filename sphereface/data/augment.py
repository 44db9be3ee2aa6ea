"""Augment images on the device, each augmentation for all its images at once.

Images are (k, 3, H, W) float32 in [0, 255], BGR, and stay in that range; every function returns new
ones. ``strengths`` are drawn by the kinds in ``sphereface/augmentation.py`` and lie on the device
of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

WHITE = 255.0
MIDDLE_GREY = 127.5  # 0 after normalisation
LUMA_BGR = (0.114, 0.587, 0.299)  # ITU-R BT.601, OpenCV's and PIL's grey

OnDevice = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def augment(images: torch.Tensor, selected: OnDevice) -> torch.Tensor:
    """Augment the selected images of a batch, in the order of ``Augment``.

    Args:
        images: (B, 3, H, W) float32 in [0, 255], BGR; changed in place.
        selected: for each augmentation its rows (k,) int64 and strengths (k, columns) float32.

    Returns:
        ``images``.
    """
    for name, apply in ON_DEVICE.items():
        if name in selected:
            rows, strengths = selected[name]
            if len(rows):
                images[rows] = apply(images[rows], strengths)
    return images


def affine(images: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """Rotate counter-clockwise about the centre and zoom; bilinear, with a replicated border.

    Args:
        images: see above.
        strengths: (k, 2): angle in radians, zoom.
    """
    height, width = images.shape[2:]
    cos, sin = torch.cos(strengths[:, 0]) / strengths[:, 1], torch.sin(strengths[:, 0]) / strengths[:, 1]
    zero = torch.zeros_like(cos)  # maps output to input, in units of half the sides
    rows = [torch.stack([cos, -sin * (height / width), zero], 1), torch.stack([sin * (width / height), cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def low_resolution(images: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """Shrink by averaging and enlarge bilinearly: two matrix products for each image.

    Args:
        images: see above.
        strengths: (k, 1): fraction of the sides, in (0, 1]; the small image has whole pixels, at
            least one.
    """
    down = _shrink_and_enlarge(images.shape[2], strengths[:, 0])  # (k, H, H)
    across = _shrink_and_enlarge(images.shape[3], strengths[:, 0])  # (k, W, W)
    planes = images.contiguous()  # (k, 3, H, W), plane by plane
    planes = down[:, None] @ planes @ across.transpose(1, 2)[:, None]
    return planes.clamp_(0, WHITE)


def _shrink_and_enlarge(size: int, share: torch.Tensor) -> torch.Tensor:
    """Return (k, size, size) matrices that shrink and enlarge a line of pixels; rows sum to one."""
    small = (size * share).round().clamp_(min=1)[:, None, None]  # (k, 1, 1) pixels
    whole = torch.arange(size, device=share.device, dtype=share.dtype)
    i, j = whole[:, None], whole[None, :]  # pixels of the small and of the full line
    overlap = torch.minimum((i + 1) * size / small, j + 1) - torch.maximum(i * size / small, j)
    shrink = overlap.clamp_(min=0) * (small / size)  # (k, size, size), rows from ``small`` on unused
    place = torch.minimum(((whole[:, None] + 0.5) * small / size - 0.5).clamp_(min=0), small - 1)  # (k, size, 1)
    enlarge = (1 - (place - whole[None, :]).abs()).clamp_(min=0)  # (k, size, size): weight of small pixel i
    return enlarge @ shrink


def photometric(images: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast about the mean grey, and saturation; clip; then apply gamma.

    Args:
        images: see above.
        strengths: (k, 4): the four factors; 1 changes nothing.
    """
    brightness, contrast, saturation, gamma = (column[:, None, None, None] for column in strengths.unbind(1))
    luma = _luma(images)  # (k, 1, H, W)
    mean = luma.mean(dim=(2, 3), keepdim=True)
    colour = torch.lerp(luma, images, saturation)
    toned = torch.lerp(mean, colour, contrast).mul_(brightness / WHITE).clamp_(0, 1)
    return toned.pow_(gamma).mul_(WHITE)


def grey(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Copy the luma into all three channels."""
    return _luma(images).expand_as(images)


def erase(images: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """Fill a box of whole pixels with middle grey.

    Args:
        images: see above.
        strengths: (k, 4): top, left, bottom, right as fractions of the sides; edges are rounded to
            the nearest pixel edge.
    """
    height, width = images.shape[2:]
    top, left, bottom, right = (column[:, None] for column in strengths.unbind(1))
    y = torch.arange(height, device=images.device) + 0.5
    x = torch.arange(width, device=images.device) + 0.5
    rows = (y > top * height) & (y <= bottom * height)  # (k, H)
    columns = (x > left * width) & (x <= right * width)  # (k, W)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], MIDDLE_GREY)


def _luma(images: torch.Tensor) -> torch.Tensor:
    blue, green, red = LUMA_BGR
    return (images[:, :1] * blue).add_(images[:, 1:2], alpha=green).add_(images[:, 2:3], alpha=red)


ON_DEVICE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "affine": affine,
    "low_resolution": low_resolution,
    "photometric": photometric,
    "grey": grey,
    "erase": erase,
}
