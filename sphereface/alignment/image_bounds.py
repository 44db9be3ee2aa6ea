"""Compare landmarks with the sizes of their images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.image_size import image_size
from ..errors import UserError
from .exif_turns import exif_of, head_of
from .fit import LARGEST_OUTSIDE, Floats, far_outside, sample_of
from .similarity import Points

FEWEST_TO_DOUBT = 4
"""Images before equal landmarks, those in one quarter or beyond an edge give a warning."""

_OUTSIDE = 2.0  # pixels outside the image before a warning; a detector rarely has any
_LOWER_RIGHT = 0.9  # share of images; 1.5 times too large: 0.999 in LFW; right: 0, and 0.12 of faces in the background
_BEYOND = 0.05  # share of images with a point that far outside, right or below; right landmarks have none


def check_sizes(points: Mapping[str, Points], folder: Path, file: str) -> str:
    """Compare landmarks with the sizes of some images; see :func:`refuse_wrong_landmarks`."""
    names = list(points)
    chosen = [names[i] for i in sample_of(len(names))]
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
    if len(found) >= FEWEST_TO_DOUBT and (some < sizes[:, None, ::-1] / 2).all():
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
    if count < FEWEST_TO_DOUBT:
        return ""
    return (
        f"{file}: the landmarks of {count} of {len(points)} checked images lie {place} · look at some crops: if "
        "they belong to a larger version of the images, scale the landmarks to these images"
    )


def _size(path: Path) -> npt.NDArray[np.int_] | None:
    """Return (height, width) of an image from its first bytes.

    None if the size is unknown, or if EXIF data may turn the image.
    """
    data = head_of(path)
    size = None if exif_of(data) else image_size(data)
    return None if size is None else np.array(size)
