"""Settings of the augmentations of training crops, and random strengths for each image. No torch.

Each augmentation turns uniform random numbers into the strengths for one image. ``data/augment.py``
applies most of them on the device; ``data/loader.py`` applies those that only a worker can apply.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .options import option

Numbers = npt.NDArray[np.float32]

_SMALLEST_AREA = 0.02
_BEST_QUALITY = 95


@dataclass(frozen=True)
class Kind:
    """One augmentation, applied with probability ``p`` at a strength of ``columns`` numbers."""

    p: float = option(0.0, low=0, high=1)
    columns: ClassVar[int]

    def strengths(self, u: Numbers) -> Numbers:
        """Convert (k, columns) uniform numbers in [0, 1) to parameters, float32."""
        raise NotImplementedError


@dataclass(frozen=True)
class Jpeg(Kind):
    """Compress at a quality in [quality, 95]; applied where images are decoded."""

    quality: int = option(30, low=1, high=_BEST_QUALITY)
    columns: ClassVar[int] = 1

    def strengths(self, u: Numbers) -> Numbers:
        """Convert (k, 1) uniform numbers to (k, 1) whole qualities."""
        qualities = np.floor(self.quality + u * (_BEST_QUALITY + 1 - self.quality))
        return np.minimum(qualities, _BEST_QUALITY, dtype=np.float32)  # rounding may lift the largest u


@dataclass(frozen=True)
class Affine(Kind):
    """Rotate about the centre by up to ±``degrees``, and zoom by 1/(1 + scale) to 1 + scale."""

    degrees: float = option(10.0, low=0, high=45)
    scale: float = option(0.1, low=0, high=1)
    columns: ClassVar[int] = 2

    def strengths(self, u: Numbers) -> Numbers:
        """Convert (k, 2) uniform numbers to angle (radians, counter-clockwise as seen) and zoom."""
        angle = np.deg2rad(self.degrees) * (2 * u[:, 0] - 1)
        return np.stack([angle, _factor(self.scale, u[:, 1])], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class LowResolution(Kind):
    """Shrink to a share in [scale, 1] of the sides, and enlarge again (AdaFace, CVPR 2022)."""

    scale: float = option(0.25, low=0.05, high=1)
    columns: ClassVar[int] = 1

    def strengths(self, u: Numbers) -> Numbers:
        """Convert (k, 1) uniform numbers to (k, 1) shares of the side."""
        return (self.scale + u * (1 - self.scale)).astype(np.float32)


@dataclass(frozen=True)
class Photometric(Kind):
    """Scale brightness, contrast, saturation and gamma.

    Each gets a factor from 1/(1 + strength) to 1 + strength.
    """

    brightness: float = option(0.3, low=0, high=4)
    contrast: float = option(0.3, low=0, high=4)
    saturation: float = option(0.3, low=0, high=4)
    gamma: float = option(0.3, low=0, high=4)
    columns: ClassVar[int] = 4

    def strengths(self, u: Numbers) -> Numbers:
        """Convert (k, 4) uniform numbers to (k, 4) factors in the order of the fields."""
        return _factor(np.array([self.brightness, self.contrast, self.saturation, self.gamma]), u)


@dataclass(frozen=True)
class Grey(Kind):
    """Remove the colour."""

    columns: ClassVar[int] = 0

    def strengths(self, u: Numbers) -> Numbers:
        """Return (k, 0), because this augmentation has no strength."""
        return u


@dataclass(frozen=True)
class Erase(Kind):
    """Cover a box with middle grey, on a share in [0.02, area] of the image.

    The box's ratio of sides is from ½ to 2 times the image's.
    """

    area: float = option(0.2, low=_SMALLEST_AREA, high=0.5)
    columns: ClassVar[int] = 4

    def strengths(self, u: Numbers) -> Numbers:
        """Convert (k, 4) uniform numbers to top, left, bottom, right as shares of the sides."""
        area = _SMALLEST_AREA + u[:, 0] * (self.area - _SMALLEST_AREA)
        ratio = _factor(1.0, u[:, 1])
        height, width = np.sqrt(area * ratio), np.sqrt(area / ratio)
        top, left = u[:, 2] * (1 - height), u[:, 3] * (1 - width)
        return np.stack([top, left, top + height, left + width], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class Augment:
    """All augmentations, in the order in which they are applied; the paper uses none."""

    jpeg: Jpeg = field(default_factory=Jpeg)
    affine: Affine = field(default_factory=Affine)
    low_resolution: LowResolution = field(default_factory=LowResolution)
    photometric: Photometric = field(default_factory=Photometric)
    grey: Grey = field(default_factory=Grey)
    erase: Erase = field(default_factory=Erase)

    def kinds(self) -> dict[str, Kind]:
        """Return each augmentation by its name, in order."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def enabled(self) -> dict[str, Kind]:
        """Return the augmentations with a probability above 0."""
        return {name: kind for name, kind in self.kinds().items() if kind.p > 0}

    def only(self, name: str) -> Augment:
        """Return one augmentation alone, applied to every image, to inspect it."""
        return Augment(**{name: dataclasses.replace(getattr(self, name), p=1.0)})


def _factor(strength: float | npt.NDArray[np.float64], u: Numbers) -> Numbers:
    """Convert uniform numbers to 1/(1 + strength) … 1 + strength, uniform in the logarithm."""
    return np.asarray((1 + strength) ** (2 * u - 1), dtype=np.float32)
