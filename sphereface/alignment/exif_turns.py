"""Find landmarks that were made before the EXIF data of their image turned it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import count_of, printable
from ..files import regular_file
from .fit import LARGEST_ANGLE, LARGEST_RESIDUAL, Floats, fit, sample_of
from .similarity import Points

MOST_TURNED = 60.0
"""Degrees, for most faces of a file; a wrong order gives 90 or 180."""

_MOST_READ = 1000  # upright images whose EXIF data are read
_HEADER = 1 << 16  # bytes of an image that are read to find its size and orientation
_ORIENTATION = 0x0112  # a tag of EXIF data


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
    upright = [name for name, angle in zip(points, angles, strict=True) if abs(angle) <= MOST_TURNED]
    step = max(-(-len(upright) // _MOST_READ), 1)
    if not turned or step * sum(_exif_angle(folder / name) != 0 for name in upright[::step]) >= len(turned):
        return ""
    return (
        f"{file}: the landmarks of {count_of(len(turned), 'image', 'images')} look as if found before EXIF data turned "
        f"the image, so the face lies on its side, e.g. {printable(turned[0])} · look at the crops, and give landmarks "
        "of the turned image"
    )


def before_exif(names: Sequence[str], folder: Path, residuals: Floats, angles: Floats) -> str:
    """Return a sentence if most landmarks seem found before EXIF turned their images."""
    chosen = sample_of(len(names))
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
    if abs(angle) <= MOST_TURNED or not (turn := _exif_angle(path)):
        return False
    return abs((angle - turn + 180) % 360 - 180) <= MOST_TURNED


def _exif_angle(path: Path) -> int:
    """Return the degrees by which EXIF data turn a JPEG or PNG clockwise: 90, -90, 180 or 0."""
    data = exif_of(head_of(path))
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    directory = int.from_bytes(data[4:8], order)
    entries = min(int.from_bytes(data[directory : directory + 2], order), _HEADER // 12)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        if int.from_bytes(data[at : at + 2], order) == _ORIENTATION:
            return {3: 180, 6: 90, 8: -90}.get(int.from_bytes(data[at + 8 : at + 10], order), 0)
    return 0


def exif_of(data: bytes) -> bytes:
    """Return the EXIF data in the first bytes of an image, and what follows them; empty without."""
    return data.partition(b"eXIf" if data.startswith(b"\x89PNG") else b"Exif\0\0")[2]


def head_of(path: Path) -> bytes:
    """Return the first bytes of an image; none if it cannot be read."""
    try:
        with open(path, "rb", opener=regular_file) as file:
            return file.read(_HEADER)
    except OSError:
        return b""
