"""Check five landmarks: shaped like a face, in the expected order, and inside the image.

A similarity fits the points to the published template as it looks when the head turns to the left
or right, in steps of 15 degrees. So a face seen from the side fits as well as one seen from the
front. A wrong order leaves a large residual, since a similarity cannot reflect, or a large angle.
docs/alignment.md gives the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .similarity import BadLandmarks, Points, similarity, template
from .templates import SPHEREFACE_SIZE

Floats = npt.NDArray[np.float64]

LARGEST_RESIDUAL = 9.0
"""Crop pixels, root mean square over the five points; the largest of 11,331 correct fits is 7.9."""
LARGE_MEDIAN = 5.0
"""Crop pixels, the median of a folder's images.

The median of 11,331 correct fits is 2.3, that of 70 faces seen from the side is 1.9.
"""
LARGEST_ANGLE = 120.0
"""Degrees, for one image. People lie down but do not stand on their head.

The largest angle of 11,331 faces is 47.
"""
LARGEST_OUTSIDE = 20.0
"""Crop pixels that a point may lie outside its image.

MTCNN places points up to 12 outside if the edge cuts the face.
"""

# crop pixels in front of the eyes: nose tip 40 mm, mouth 12 mm, for eyes 63 mm apart
_DEPTHS = (0.0, 0.0, 22.0, 7.0, 7.0)
_SAMPLE = 100  # faces on which orders are tried, and images whose size is read
_TURNS = np.radians(np.arange(-90, 91, 15))


def _views() -> npt.NDArray[np.complex128]:
    """Return the template for each turn of the head, (K, 5), centred at 0."""
    x, y = template(SPHEREFACE_SIZE).T
    across = np.outer(np.cos(_TURNS), x - x[:2].mean()) + np.outer(np.sin(_TURNS), _DEPTHS)
    views = across + 1j * y
    return np.asarray(views - views.mean(axis=1, keepdims=True))


_VIEWS = _views()


def fit(points: Floats) -> tuple[Floats, Floats]:
    """Fit the landmarks of many faces to the template.

    Args:
        points: (N, 5, 2) float64, (x, y) in pixels of the images.

    Returns:
        (N,) residuals: root mean squares over the five points in pixels of a 112×96 crop, infinity
        if the points are not finite or all in one place. (N,) angles in degrees, in [-180, 180]:
        the rotation of the face from upright.
    """
    with np.errstate(all="ignore"):
        z = points[..., 0] + 1j * points[..., 1]
        z = z - z.mean(axis=1, keepdims=True)
        z = z / np.abs(z).max(axis=1, keepdims=True)  # avoids overflow; the residual does not depend on the scale
        products = z.conj() @ _VIEWS.T  # (N, K)
        lost = np.abs(products) ** 2 / (np.abs(z) ** 2).sum(axis=1, keepdims=True)
        squares = (np.abs(_VIEWS) ** 2).sum(axis=1) - lost  # Σ|a·z − w|² of the best a
    squares = np.where(np.isfinite(squares), np.maximum(squares, 0), np.inf)
    best = squares.argmin(axis=1)
    rows = np.arange(len(points))
    angles = np.degrees(np.angle(np.nan_to_num(products[rows, best])))
    return np.sqrt(squares[rows, best] / points.shape[1]), angles


def looks_like_a_face(points: Points, image_size: Sequence[int] | None = None) -> bool:
    """Return whether :func:`check_fit` accepts five points."""
    try:
        check_fit(points, image_size)
    except BadLandmarks:
        return False
    return True


def check_fit(points: Points, image_size: Sequence[int] | None = None) -> None:
    """Refuse five points that are unlike a face, upside down, or outside their image.

    Args:
        points: (5, 2), (x, y) in pixels of the image.
        image_size: (height, width, …) of the image; None: unknown.

    Raises:
        BadLandmarks: one of these is true; the message gives the reason.
    """
    similarity(points, template(SPHEREFACE_SIZE))  # refuses points that are not finite or all in one place
    if has_same_points(points[None])[0]:
        raise BadLandmarks("two of the landmarks are the same point")
    (residual,), (angle,) = fit(np.asarray(points, dtype=np.float64)[None])
    if residual > LARGEST_RESIDUAL:
        raise BadLandmarks(
            f"the landmarks are unlike a face: they lie {residual:.1f} crop pixels from the template "
            f"(allowed: {LARGEST_RESIDUAL:g}); is their order wrong?"
        )
    if abs(angle) > LARGEST_ANGLE:
        raise BadLandmarks(
            f"the landmarks are turned by {angle:.0f} degrees (allowed: {LARGEST_ANGLE:g}); "
            "is the mouth above the eyes?"
        )
    if image_size is None:
        return
    (outside,), (in_crop,) = far_outside(points[None], np.array([image_size[:2]]))
    if in_crop > LARGEST_OUTSIDE:
        height, width = image_size[:2]
        raise BadLandmarks(
            f"a landmark lies {outside:.4g} pixels outside the image of {width}x{height}; "
            "do the landmarks belong to another image or size?"
        )


def has_same_points(points: Floats) -> npt.NDArray[np.bool_]:
    """Return for each face of (N, 5, 2) whether two of its landmarks are the same point."""
    first, second = np.triu_indices(points.shape[1], k=1)
    return np.asarray((points[:, first] == points[:, second]).all(axis=2).any(axis=1))


def far_outside(points: Floats, sizes: npt.NDArray[np.int_]) -> tuple[Floats, Floats]:
    """Return how far the farthest landmark of each image lies outside it, 0 if none does.

    Args:
        points: (N, 5, 2), (x, y), finite.
        sizes: (N, 2), (height, width).

    Returns:
        (N,) in pixels of the image, (N,) in pixels of a 112×96 crop.
    """
    last = sizes[:, None, ::-1] - 1.0
    pixels = np.asarray(np.maximum(0, np.maximum(-points, points - last)).max(axis=(1, 2)))
    scales, _ = scales_to(template(SPHEREFACE_SIZE), points)
    return pixels, pixels * np.nan_to_num(np.abs(scales))


def scales_to(target: Floats, points: Floats) -> tuple[npt.NDArray[np.complex128], Floats]:
    """Fit faces to five points as :func:`.similarity` does, without its checks.

    Args:
        target: (5, 2).
        points: (N, 5, 2).

    Returns:
        (N,) the rotation and scale as one complex number, and (N,) the root mean square of what
        remains; NaN if all points are the same.
    """
    z, w = (five[..., 0] + 1j * five[..., 1] for five in (points, target))
    z, w = z - z.mean(axis=1, keepdims=True), w - w.mean()
    with np.errstate(all="ignore"):
        scales = z.conj() @ w / (np.abs(z) ** 2).sum(axis=1)
        return scales, np.sqrt((np.abs(scales[:, None] * z - w) ** 2).mean(axis=1))


def sample_of(count: int) -> npt.NDArray[np.int_]:
    """Return the indices of at most 100 of so many faces, evenly spaced."""
    return np.linspace(0, count - 1, min(_SAMPLE, count)).astype(int)
