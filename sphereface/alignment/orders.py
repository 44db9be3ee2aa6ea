"""Refuse landmark files in another order before any output, and suggest their likely order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..data.image_size import image_size
from ..errors import UserError, count_of, printable
from ..files import regular_file
from .fit import (
    LARGE_MEDIAN,
    LARGEST_ANGLE,
    LARGEST_OUTSIDE,
    LARGEST_RESIDUAL,
    Floats,
    far_outside,
    fit,
    has_same_points,
    scales_to,
)
from .similarity import FARTHEST, SMALLEST_SPREAD, Points

_BETTER = 0.8  # another order is suggested if its median residual is below this fraction
_MOST_TURNED = 60.0  # degrees, for most faces of a file; a wrong order gives 90 or 180
_UPRIGHT = 45.0  # degrees: the largest median angle of a suggested order
_OUTSIDE = 2.0  # pixels outside the image before a warning; a detector rarely has any
_SAMPLE = 100  # faces on which orders are tried, and images whose size is read
_MOST_READ = 1000  # upright images whose EXIF data are read
_FEWEST_TO_DOUBT = 4  # images before equal landmarks, those in one quarter or beyond an edge give a warning
_LOWER_RIGHT = 0.9  # share of images; 1.5 times too large: 0.999 in LFW; right: 0, and 0.12 of faces in the background
_BEYOND = 0.05  # share of images with a point that far outside, right or below; right landmarks have none
_HEADER = 1 << 16  # bytes of an image that are read to find its size and orientation
_ORIENTATION = 0x0112  # a tag of EXIF data

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
_DLIB_RESIDUAL = 0.08  # in widths; any other order leaves 0.2 or more


def refuse_wrong_landmarks(points: Mapping[str, Points], folder: Path, file: str) -> str:
    """Refuse landmarks of which most do not fit their images.

    Args:
        points: name of an image below ``folder`` → its (5, 2) landmarks.
        folder: folder of the images.
        file: the landmark file's name in messages.

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
    turned = np.abs(angles) > _MOST_TURNED
    wrong = (residuals > LARGEST_RESIDUAL) | turned | _is_in_one_place(stacked) | has_same_points(stacked)
    if wrong.mean() > 0.5:
        finite = np.isfinite(residuals)
        off = ""
        if finite.any():
            medians = np.median(residuals[finite]), np.median(np.abs(angles[finite]))
            off = f" (median {medians[0]:.0f} crop pixels off, turned by {medians[1]:.0f} degrees)"
        names = [name for name, is_wrong in zip(points, wrong.tolist(), strict=True) if is_wrong]
        advice = _before_exif(names, folder, residuals[wrong], angles[wrong]) or likely_order(stacked[wrong])
        raise UserError(
            f"{file}: the landmarks of {wrong.sum():,} of {len(wrong):,} images are unlike a face"
            f"{off} · allowed: {_EXPECTED} · {advice}"
        )
    right = {name: five for name, five, is_wrong in zip(points, stacked, wrong.tolist(), strict=True) if not is_wrong}
    warning = _check_sizes(right, folder, file)
    if len(stacked) >= _FEWEST_TO_DOUBT and (stacked == stacked[0]).all():
        return f"{file}: all {len(stacked):,} images have the same landmarks: look at some crops"
    return warning or _check_order(stacked[~wrong], file)


def warn_of_exif(points: Mapping[str, Points], folder: Path, file: str) -> str:
    """Return a warning about landmarks that seem found before EXIF turned their images, if any.

    These faces lie on the side that the EXIF data of their own image give. If more images with such
    data have upright faces, people lie down.
    """
    angles = fit(np.stack(list(points.values())))[1].tolist() if points else []
    turned = [
        name
        for name, angle in zip(points, angles, strict=True)
        if abs(angle) <= LARGEST_ANGLE and _is_before_exif(folder / name, angle)
    ]
    upright = [name for name, angle in zip(points, angles, strict=True) if abs(angle) <= _MOST_TURNED]
    step = max(-(-len(upright) // _MOST_READ), 1)
    if not turned or step * sum(_exif_angle(folder / name) != 0 for name in upright[::step]) >= len(turned):
        return ""
    return (
        f"{file}: the landmarks of {count_of(len(turned), 'image', 'images')} look as if found before EXIF data turned "
        f"the image, so the face lies on its side, e.g. {printable(turned[0])} · look at the crops, and give landmarks "
        "of the turned image"
    )


def _before_exif(names: Sequence[str], folder: Path, residuals: Floats, angles: Floats) -> str:
    """Return a sentence if most landmarks seem found before EXIF turned their images."""
    chosen = _sample(len(names))
    found = [
        names[k]
        for k in chosen
        if residuals[k] <= LARGEST_RESIDUAL and _is_before_exif(folder / names[k], float(angles[k]))
    ]
    if 2 * len(found) <= len(chosen):
        return ""
    return (
        f"they look as if found before EXIF data turned the image, e.g. {printable(found[0])}: give landmarks of the "
        "turned image"
    )


def _is_before_exif(path: Path, angle: float) -> bool:
    """Return whether a face turned by so many degrees is upright after EXIF data turn it."""
    if abs(angle) <= _MOST_TURNED or not (turn := _exif_angle(path)):
        return False
    return abs((angle - turn + 180) % 360 - 180) <= _MOST_TURNED


def _exif_angle(path: Path) -> int:
    """Return the degrees by which EXIF data turn a JPEG or PNG clockwise: 90, -90, 180 or 0."""
    data = _exif(_head(path))
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    directory = int.from_bytes(data[4:8], order)
    entries = min(int.from_bytes(data[directory : directory + 2], order), _HEADER // 12)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        if int.from_bytes(data[at : at + 2], order) == _ORIENTATION:
            return {3: 180, 6: 90, 8: -90}.get(int.from_bytes(data[at + 8 : at + 10], order), 0)
    return 0


def _exif(data: bytes) -> bytes:
    """Return the EXIF data in the first bytes of an image, and what follows them; empty without."""
    return data.partition(b"eXIf" if data.startswith(b"\x89PNG") else b"Exif\0\0")[2]


def _check_order(points: Floats, file: str) -> str:
    """Warn about (N, 5, 2) landmarks that fit badly on the whole, or better in another order."""
    median = float(np.median(fit(points)[0]))
    best = _best_order(_some(points)) if len(points) >= _FEWEST_TO_DOUBT else None
    better = best is not None and best[1] < _BETTER * median
    if median <= LARGE_MEDIAN and not better:
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
    return np.asarray(points[_sample(len(points))])


def _sample(count: int) -> npt.NDArray[np.int_]:
    return np.linspace(0, count - 1, min(_SAMPLE, count)).astype(int)


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


def _check_sizes(points: Mapping[str, Points], folder: Path, file: str) -> str:
    """Compare landmarks with the sizes of some images; see :func:`refuse_wrong_landmarks`."""
    names = list(points)
    chosen = [names[i] for i in _sample(len(names))]
    found = {name: size for name in chosen if (size := _size(folder / name)) is not None}
    if not found:
        return ""
    sizes = np.array(list(found.values()))
    some = np.stack([points[name] for name in found])
    outside, in_crop = far_outside(some, sizes)
    if (outside > _OUTSIDE).mean() > 0.5:
        name = list(found)[int(np.argmax(outside))]
        height, width = found[name]
        what = (
            f"{file}: the landmarks of {(outside > _OUTSIDE).sum()} of {len(found)} checked images lie outside "
            f"the image, e.g. {name} of {width}x{height} by {outside.max():.4g} pixels"
        )
        if (in_crop > LARGEST_OUTSIDE).mean() <= 0.5:  # the edge may cut the faces
            return f"{what} · look at some crops: unless edges cut the faces, the images had another size"
        raise UserError(f"{what} · allowed: pixels of these images · scale landmarks that belong to another size")
    if len(found) >= _FEWEST_TO_DOUBT and (some < sizes[:, None, ::-1] / 2).all():
        return (
            f"{file}: all landmarks of {len(found)} checked images lie in the upper left quarter · "
            "look at some crops: the landmarks may belong to images of half the size"
        )
    return _check_larger(some, sizes, in_crop, file)


def _check_larger(points: Floats, sizes: npt.NDArray[np.int_], in_crop: Floats, file: str) -> str:
    """Warn of landmarks that seem to belong to a larger version of their images.

    Args:
        points: (N, 5, 2).
        sizes: (N, 2), (height, width).
        in_crop: (N,) how far a point lies outside, see :func:`.far_outside`.
        file: the landmark file's name in messages.
    """
    width_height = sizes[:, None, ::-1]
    past = (points - width_height + 1).max(axis=(1, 2))  # the right or lower edge
    beyond = (in_crop > LARGEST_OUTSIDE) & (past >= (-points).max(axis=(1, 2)))
    in_quarter = (points > width_height / 2).all(axis=(1, 2))
    if in_quarter.mean() >= _LOWER_RIGHT:
        count, place = int(in_quarter.sum()), "in the lower right quarter"
    elif beyond.mean() >= _BEYOND:
        count, place = int(beyond.sum()), "beyond the right or lower edge"
    else:
        return ""
    if count < _FEWEST_TO_DOUBT:
        return ""
    return (
        f"{file}: the landmarks of {count} of {len(points)} checked images lie {place} · look at some crops: if "
        "they belong to a larger version of the images, scale the landmarks to these images"
    )


def _size(path: Path) -> npt.NDArray[np.int_] | None:
    """Return (height, width) of an image from its first bytes.

    None if the size is unknown, or if EXIF data may turn the image.
    """
    data = _head(path)
    size = None if _exif(data) else image_size(data)
    return None if size is None else np.array(size)


def _head(path: Path) -> bytes:
    """Return the first bytes of an image; none if it cannot be read."""
    try:
        with open(path, "rb", opener=regular_file) as file:
            return file.read(_HEADER)
    except OSError:
        return b""
