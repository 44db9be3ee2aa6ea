"""What may happen to a training crop, and how much of it: settings, and numbers drawn for each
image. No torch.

Each augmentation says here how uniform random numbers become the strengths for one image;
``data/augment.py`` applies them on the device, ``data/loader.py`` what only a worker can do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from .options import option

Numbers = npt.NDArray[np.float32]

_SMALLEST_AREA = 0.02
_BEST_QUALITY = 95


class Kind(Protocol):
    """One augmentation: with probability ``p`` it happens to an image, as strongly as its
    ``columns`` numbers say.
    """

    columns: ClassVar[int]

    @property
    def p(self) -> float: ...

    def strengths(self, u: Numbers) -> Numbers:
        """(k, columns) uniform in [0, 1) → what the augmentation takes, float32."""
        ...


@dataclass(frozen=True)
class Jpeg:
    """Compressed again at a quality of [quality, 95]. The one that happens where images are
    decoded.
    """

    p: float = option(0.0, low=0, high=1)
    quality: int = option(30, low=1, high=_BEST_QUALITY)
    columns: ClassVar[int] = 1

    def strengths(self, u: Numbers) -> Numbers:
        """(k, 1) uniform → (k, 1) whole qualities."""
        qualities = np.floor(self.quality + u * (_BEST_QUALITY + 1 - self.quality))
        return np.minimum(qualities, _BEST_QUALITY, dtype=np.float32)  # the largest u may round up


@dataclass(frozen=True)
class Affine:
    """Turned about the centre by up to ``degrees`` either way, and zoomed by 1/(1 + scale) to 1 +
    scale.
    """

    p: float = option(0.0, low=0, high=1)
    degrees: float = option(10.0, low=0, high=45)
    scale: float = option(0.1, low=0, high=1)
    columns: ClassVar[int] = 2

    def strengths(self, u: Numbers) -> Numbers:
        """(k, 2) uniform → (k, 2): angle in radians, counter-clockwise as seen; zoom."""
        angle = np.deg2rad(self.degrees) * (2 * u[:, 0] - 1)
        return np.stack([angle, _factor(self.scale, u[:, 1])], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class LowResolution:
    """Shrunk to a share of [scale, 1] of its height and width, and enlarged again (after AdaFace,
    CVPR 2022).
    """

    p: float = option(0.0, low=0, high=1)
    scale: float = option(0.25, low=0.05, high=1)
    columns: ClassVar[int] = 1

    def strengths(self, u: Numbers) -> Numbers:
        """(k, 1) uniform → (k, 1) shares of the side."""
        return (self.scale + u * (1 - self.scale)).astype(np.float32)


@dataclass(frozen=True)
class Photometric:
    """Brightness, contrast, saturation and gamma times a factor of 1/(1 + strength) to 1 + strength
    each.
    """

    p: float = option(0.0, low=0, high=1)
    brightness: float = option(0.3, low=0, high=4)
    contrast: float = option(0.3, low=0, high=4)
    saturation: float = option(0.3, low=0, high=4)
    gamma: float = option(0.3, low=0, high=4)
    columns: ClassVar[int] = 4

    def strengths(self, u: Numbers) -> Numbers:
        """(k, 4) uniform → (k, 4) factors in the order of the fields."""
        return _factor(np.array([self.brightness, self.contrast, self.saturation, self.gamma]), u)


@dataclass(frozen=True)
class Grey:
    """Without colour."""

    p: float = option(0.0, low=0, high=1)
    columns: ClassVar[int] = 0

    def strengths(self, u: Numbers) -> Numbers:
        """Nothing to draw: (k, 0)."""
        return u


@dataclass(frozen=True)
class Erase:
    """A box of middle grey over [0.02, area] of the image, its sides' ratio from ½ to 2 times the
    image's.
    """

    p: float = option(0.0, low=0, high=1)
    area: float = option(0.2, low=_SMALLEST_AREA, high=0.5)
    columns: ClassVar[int] = 4

    def strengths(self, u: Numbers) -> Numbers:
        """(k, 4) uniform → (k, 4): top, left, bottom, right of the box as shares of the image's
        sides.
        """
        area = _SMALLEST_AREA + u[:, 0] * (self.area - _SMALLEST_AREA)
        ratio = _factor(1.0, u[:, 1])
        height, width = np.sqrt(area * ratio), np.sqrt(area / ratio)
        top, left = u[:, 2] * (1 - height), u[:, 3] * (1 - width)
        return np.stack([top, left, top + height, left + width], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class Augment:
    """All of them, in the order in which they happen; the paper has none."""

    jpeg: Jpeg = field(default_factory=Jpeg)
    affine: Affine = field(default_factory=Affine)
    low_resolution: LowResolution = field(default_factory=LowResolution)
    photometric: Photometric = field(default_factory=Photometric)
    grey: Grey = field(default_factory=Grey)
    erase: Erase = field(default_factory=Erase)

    def kinds(self) -> dict[str, Kind]:
        """Each by its name, in order."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def enabled(self) -> dict[str, Kind]:
        """Those that can happen at all."""
        return {name: kind for name, kind in self.kinds().items() if kind.p > 0}

    def only(self, name: str) -> Augment:
        """One of them alone, and on every image: to look at it."""
        return Augment(**{name: dataclasses.replace(getattr(self, name), p=1.0)})


def _factor(strength: float | npt.NDArray[np.float64], u: Numbers) -> Numbers:
    """From 1/(1 + strength) to 1 + strength, even in the logarithm."""
    return np.asarray((1 + strength) ** (2 * u - 1), dtype=np.float32)
