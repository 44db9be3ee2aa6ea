"""Fit five landmarks to a template by a least-squares similarity, and warp the image by it.

A point (x, y) of the plane is the complex number z = x + iy. Rotation, scale and shift are then a·z
+ b with complex a and b: |a| is the scale, arg a the rotation, b the shift. A reflection would need
the conjugate of z, so it cannot occur.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .templates import SPHEREFACE_SIZE, TEMPLATES, Size

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

SMALLEST_SPREAD = 1.0  # pixels; closer points determine neither rotation nor scale
_SMALLEST_SCALE = 1e-3  # crop pixels per image pixel; below it the points are unlike a face


FARTHEST = 1e7
"""Pixels; squares of larger numbers may overflow."""


class BadLandmarks(ValueError):
    """Five points that determine no crop. The message gives the reason, not the image's name."""


def template(size: Size = SPHEREFACE_SIZE, origin: int = 0) -> Points:
    """Return the places of the five landmarks in a crop.

    The published numbers come from MATLAB, whose first pixel is 1. Nearly every Python port uses
    them unchanged although its first pixel is 0: that is ``origin=0``. ``origin=1`` uses MATLAB's
    convention, which puts the face one pixel further up and to the left.

    Args:
        size: (height, width) of the crop in pixels, a key of ``TEMPLATES``.
        origin: the coordinate, 0 or 1, of the first pixel in the template's numbers.

    Returns:
        (5, 2) float64, (x, y) in pixels, the first pixel's centre at 0.

    Raises:
        ValueError: there is no template of this size, or the origin is not 0 or 1.
    """
    if size not in TEMPLATES:
        raise ValueError(f"size · {size} · one of {', '.join(map(str, TEMPLATES))} (height, width)")
    if origin not in (0, 1):
        raise ValueError(f"origin · {origin} · 0 or 1")
    return np.array(TEMPLATES[size], dtype=np.float64) - origin


def similarity(points: Points, target: Points) -> npt.NDArray[np.float64]:
    """Return the rotation, scale and shift that bring ``points`` nearest to ``target``.

    Minimises Σ |a·z + b − w|² over complex a and b: a = Σ conj(z − z̄)(w − w̄) / Σ |z − z̄|², b =
    w̄ − a·z̄. The distance is measured in the crop (target) plane, as ArcFace and most Python ports
    do (Umeyama 1991). MATLAB's ``cp2tform`` of the original minimises it in the image, which
    enlarges a badly fitting face.

    Args:
        points: (5, 2) (x, y) in pixels of the image.
        target: (5, 2) (x, y) in pixels of the crop, as from :func:`template`.

    Returns:
        (2, 3) float64: [[Re a, −Im a, Re b], [Im a, Re a, Im b]], image to crop.

    Raises:
        BadLandmarks: not finite, all in one place, or unlike the target in any orientation.
    """
    z, w = _as_complex(points), _as_complex(target)
    z_mean, w_mean = z.mean(), w.mean()
    spread = float(np.sqrt(np.mean(np.abs(z - z_mean) ** 2)))
    if spread < SMALLEST_SPREAD:
        raise BadLandmarks(f"the landmarks lie in one place (spread {spread:.3g} pixels)")

    # vdot conjugates its first argument
    a = np.vdot(z - z_mean, w - w_mean) / np.vdot(z - z_mean, z - z_mean).real
    b = w_mean - a * z_mean
    if abs(a) < _SMALLEST_SCALE:
        raise BadLandmarks(f"the landmarks are unlike a face (fitted scale {abs(a):.3g})")
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(
    image: Image, points: Points, *, size: Size = SPHEREFACE_SIZE, origin: int = 0, target: Points | None = None
) -> Image:
    """Crop the face, upright and at the template's place and scale.

    The warp is bilinear. An image more than three times too large is first shrunk by area, so that
    every pixel counts. Outside the image the border pixels are repeated. A black border would be a
    strong edge that depends on the face's distance from the border.

    Args:
        image: (H, W, 3) or (H, W) uint8.
        points: (5, 2) (x, y) in pixels of ``image``, the first pixel's centre at 0; ordered as
            ``TEMPLATES``.
        size: (height, width) of the crop.
        origin: see :func:`template`.
        target: (5, 2) (x, y) in pixels of the crop; replaces the template of this size and origin.

    Returns:
        (*size, 3) or ``size`` uint8, channels in the order of ``image``.

    Raises:
        BadLandmarks: see :func:`similarity`.
    """
    if target is None:
        target = template(size, origin)
    matrix = similarity(points, target)
    shrink = int(1 / np.hypot(matrix[0, 0], matrix[1, 0]))  # image pixels per crop pixel
    if shrink > 2:  # up to two, bilinear interpolation uses every pixel
        small = (max(1, image.shape[1] // shrink), max(1, image.shape[0] // shrink))
        ratios = np.array([small[0] / image.shape[1], small[1] / image.shape[0]])
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        matrix = similarity((np.asarray(points) + 0.5) * ratios - 0.5, target)  # pixel edges scale
    height, width = size
    crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, dtype=np.uint8)


def _as_complex(points: Points) -> npt.NDArray[np.complex128]:
    """Convert (5, 2) of (x, y) to (5,) of x + iy."""
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (5, 2):
        raise BadLandmarks(f"landmarks of shape {points.shape}; allowed: (5, 2)")
    if not np.isfinite(points).all():
        raise BadLandmarks("the landmarks are not finite numbers")
    if np.abs(points).max() > FARTHEST:
        raise BadLandmarks(f"the landmarks are not pixels of an image (got {np.abs(points).max():.3g})")
    return points[:, 0] + 1j * points[:, 1]
