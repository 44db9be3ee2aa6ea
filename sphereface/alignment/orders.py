"""Refuse landmark files in another order before any output, and suggest their likely order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .exif_turns import MOST_TURNED, before_exif
from .fit import LARGE_MEDIAN, LARGEST_RESIDUAL, Floats, fit, has_same_points, sample_of, scales_to
from .image_bounds import FEWEST_TO_DOUBT, check_sizes
from .similarity import FARTHEST, SMALLEST_SPREAD, Points

_BETTER = 0.8  # another order is suggested if its median residual is below this fraction
_UPRIGHT = 45.0  # degrees: the largest median angle of a suggested order
_FEW = 16  # faces, below which the median of a right order reaches _LARGE_OF_FEW
_LARGE_OF_FEW = 7.0  # crop pixels; the largest median of 610 people of LFW with 4 to 530 images is 6.8

_NAMES = ("left eye", "right eye", "nose tip", "left mouth corner", "right mouth corner")
_EXPECTED = "x1 y1 … x5 y5 of left eye, right eye, nose tip, left and right mouth corner, as seen in the image"
_LAYOUTS: Mapping[str, Callable[[Floats], Floats]] = {
    "": lambda points: points,
    "x1 … x5 y1 … y5": lambda points: points.reshape(-1, 2, 5).transpose(0, 2, 1),
    "y1 x1 … y5 x5": lambda points: points[..., ::-1],
    "y1 … y5 x1 … x5": lambda points: points.reshape(-1, 2, 5).transpose(0, 2, 1)[..., ::-1],
    "y counted from the bottom": lambda points: points * [1, -1],
}
# The mean shape of dlib's five points, of width 1: both corners of the right eye and of the left
# eye, and the base of the nose.
_DLIB = np.array([(0.860, 0.213), (0.646, 0.229), (0.121, 0.214), (0.334, 0.229), (0.490, 0.628)])
_TRANSPOSED = ("y1 x1 … y5 x5", (0, 3, 2, 1, 4))  # mirrors about the diagonal; so a broad face may fit better
_DLIB_RESIDUAL = 0.08  # in widths; any other order leaves 0.2 or more


def refuse_wrong_landmarks(
    points: Mapping[str, Points], folder: Path, file: str, scores: Mapping[str, float] | None = None
) -> str:
    """Refuse landmarks of which most do not fit their images.

    Args:
        points: name of an image below ``folder`` → its (5, 2) landmarks.
        folder: folder of the images.
        file: the landmark file's name in messages.
        scores: name → the eleventh number of its line, if lines have one.

    Returns:
        A warning if the landmarks are all the same, fit badly, or seem to belong to images of
        another size; otherwise an empty string.

    Raises:
        UserError: most landmarks are unlike a face, turned, or outside the image. The message
            suggests the likely order, or says that EXIF data turned the images.
    """
    if not points:
        return ""
    stacked = np.stack([np.asarray(five, dtype=np.float64) for five in points.values()])
    residuals, angles = fit(stacked)
    turned = np.abs(angles) > MOST_TURNED
    wrong = (residuals > LARGEST_RESIDUAL) | turned | _is_in_one_place(stacked) | has_same_points(stacked)
    if wrong.mean() > 0.5:
        finite = np.isfinite(residuals)
        off = ""
        if finite.any():
            medians = np.median(residuals[finite]), np.median(np.abs(angles[finite]))
            off = f" (median {medians[0]:.0f} crop pixels off, turned by {medians[1]:.0f} degrees)"
        names = [name for name, is_wrong in zip(points, wrong.tolist(), strict=True) if is_wrong]
        advice = (
            _after_number(names, points, scores or {})
            or before_exif(names, folder, residuals[wrong], angles[wrong])
            or likely_order(stacked[wrong])
        )
        raise UserError(
            f"{file}: the landmarks of {wrong.sum():,} of {len(wrong):,} images are unlike a face"
            f"{off} · allowed: {_EXPECTED} · {advice}"
        )
    right = {name: five for name, five, is_wrong in zip(points, stacked, wrong.tolist(), strict=True) if not is_wrong}
    warning = check_sizes(right, folder, file)
    if len(stacked) >= FEWEST_TO_DOUBT and (stacked == stacked[0]).all():
        return f"{file}: all {len(stacked):,} images have the same landmarks: look at some crops"
    return warning or _check_order(stacked[~wrong], file)


def _after_number(names: Sequence[str], points: Mapping[str, Points], scores: Mapping[str, float]) -> str:
    """Return a sentence if the last ten of eleven numbers fit, as behind a label or a score."""
    chosen = [names[k] for k in sample_of(len(names)) if names[k] in scores]
    if not chosen:
        return ""
    moved = np.stack([np.append(np.ravel(points[name])[1:], scores[name]) for name in chosen]).reshape(-1, 5, 2)
    residuals, angles = fit(moved)
    if np.median(residuals) > LARGEST_RESIDUAL / 2 or np.median(np.abs(angles)) > _UPRIGHT:
        return ""
    return "the first number of each line seems to be a label or a score: delete it, or write it behind the points"


def _check_order(points: Floats, file: str) -> str:
    """Warn about (N, 5, 2) landmarks that fit badly on the whole, or better in another order."""
    if len(points) < FEWEST_TO_DOUBT:
        return ""
    median = float(np.median(fit(points)[0]))
    best = _best_order(_some(points))
    is_large = median > (_LARGE_OF_FEW if len(points) < _FEW else LARGE_MEDIAN)
    better = best is not None and best[1] < _BETTER * median and (is_large or best[0] != _TRANSPOSED)
    if not is_large and not better:
        return ""
    advice = f"; they look like {_describe(*best[0])}, which leaves {best[1]:.1f}" if best and better else ""
    return (
        f"{file}: the landmarks fit badly: median misfit {median:.1f} crop pixels (usual: 2 to 3){advice} · "
        "look at some crops"
    )


def likely_order(points: Floats) -> str:
    """Describe the known order in which (N, 5, 2) landmarks fit faces, or the likely fault."""
    points = _some(points)
    points = points[(np.abs(points) <= FARTHEST).all(axis=(1, 2))]  # nor NaN
    if not len(points):
        return f"they are not finite, or over {FARTHEST:,.0f}"
    if np.abs(points).max() <= 1.5:
        if not points.any():
            return "they are zeros"
        return "they look like fractions of the image's sides, 0 to 1: multiply them by the width and height"
    if np.median(has_same_points(points)) > 0:
        return "points of a face are the same"
    if np.median(_is_in_one_place(points)) > 0:
        return "they are only a pixel or two apart: scale them to pixels of these images"
    if np.median(np.nan_to_num(scales_to(_DLIB, points)[1], nan=np.inf)) < _DLIB_RESIDUAL:
        return "they look like dlib's five points (corners of the eyes, nose), without a mouth: use another detector"
    best = _best_order(points)
    if best is None or best[1] > LARGEST_RESIDUAL / 2:
        return "no order of five points fits them: do they belong to other images?"
    turned = ", or turn the images upright" if np.median(fit(points)[0]) <= LARGEST_RESIDUAL else ""
    return f"they look like {_describe(*best[0])}: rewrite them{turned}"


def _is_in_one_place(points: Floats) -> npt.NDArray[np.bool_]:
    """Return for each face of (N, 5, 2) whether :func:`.similarity` would find it in one place."""
    with np.errstate(all="ignore"):
        squares = ((points - points.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1)
    return np.asarray(squares < SMALLEST_SPREAD**2)


def _some(points: Floats) -> Floats:
    return np.asarray(points[sample_of(len(points))])


def _best_order(points: Floats) -> tuple[tuple[str, tuple[int, ...]], float] | None:
    """Return the layout and order that fit upright faces best, and their median residual."""
    medians = {}
    for (layout, arrange), order in product(_LAYOUTS.items(), permutations(range(5))):
        residuals, angles = fit(arrange(points)[:, order])
        if np.median(np.abs(angles)) <= _UPRIGHT:
            medians[layout, order] = float(np.median(residuals))
    return min(medians.items(), key=lambda item: item[1], default=None)


def _describe(layout: str, order: tuple[int, ...]) -> str:
    if order == tuple(range(5)) and layout:
        return layout
    named = ", ".join(_NAMES[order.index(k)] for k in range(5))  # the template's point i is the file's point order[i]
    return f"{layout + ' of ' if layout else ''}{named}"
