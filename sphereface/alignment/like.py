"""Measure where the landmarks lie in existing crops, to align other images in the same way.

Another detector, or the same one with other settings, moves the points by some pixels, in all crops
about alike. The shift is not visible in a crop. It costs accuracy if the test images do not have
the same shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..data.images import BadImage, decode
from ..errors import UserError
from .align import list_images
from .crop import Finder
from .crop_template import CropTemplate, template_of_settings
from .detector import NoFace
from .report import REPORT_NAME
from .similarity import BadLandmarks, Points
from .templates import Size

_FEWEST_FACES = 20  # their median is exact to some tenths if each point is off by about a pixel
_SCATTER = 0.1  # median distance from the median, in widths: aligned crops have 0.01 to 0.02
_SAME = 0.5  # pixels: a template moves by less if the folder grows or another build measures it


@dataclass(frozen=True)
class MeasuredTemplate:
    """The measured template of a folder of crops.

    Args:
        size: (height, width) of the crops in pixels.
        points: five (x, y), ordered as ``templates.TEMPLATES``: medians over the crops, to 1/100
            pixel.
        found: number of crops in which a face was found.
        searched: number of crops that were searched.
    """

    size: Size
    points: tuple[tuple[float, float], ...]
    found: int
    searched: int

    def describe(self) -> str:
        """Describe the template in one line, compared with a published one of this size."""
        return CropTemplate(self.size, self.points).compare(f" ({self.found} of {self.searched} crops)")


def measure_template(folder: Path, finder: Finder, *, count: int = 500, progress: bool = False) -> MeasuredTemplate:
    """Find the landmarks in a sample of a folder's crops, and return their medians.

    The sample is evenly spread over the sorted names.

    Args:
        folder: crops of one size, at any depth.
        finder: the detector that will also align the other images, so that its errors are the same
            in both.
        count: the largest number of crops to search; each takes some hundredths of a second.
        progress: show a progress bar on stderr.

    Raises:
        UserError: no such folder, crops of several sizes, fewer than 20 with a face, or faces at
            very different places.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder · allowed: a folder of crops for --like")
    names = list_images(folder).names
    chosen = [names[int(i)] for i in np.linspace(0, len(names) - 1, min(count, len(names)))]
    sizes: dict[Size, str] = {}
    points: list[Points] = []
    unreadable: list[str] = []
    for name in tqdm(chosen, unit="crop", disable=not progress):
        try:
            image = decode((folder / name).read_bytes())
            sizes.setdefault((image.shape[0], image.shape[1]), name)
            points.append(finder.find(image).points)
        except (NoFace, BadLandmarks):
            continue
        except (OSError, BadImage, cv2.error) as error:
            unreadable.append(f"{name}: {error}")
    if len(sizes) > 1:
        some = ", ".join(f"{name} {height}×{width}" for (height, width), name in list(sizes.items())[:2])
        raise UserError(f"{folder}: images of several sizes ({some}) · allowed: crops of one size")
    if len(points) < _FEWEST_FACES:
        reason = f" ({len(unreadable)} unreadable, the first {unreadable[0]})" if unreadable else ""
        raise UserError(
            f"{folder}: a face was found in {len(points)} of {len(chosen)} images{reason} · "
            f"allowed: {_FEWEST_FACES} or more · give a folder of more crops, or omit --like for a published template"
        )
    (size,) = sizes
    middle = np.median(points, axis=0).round(2)
    scatter = float(np.median(np.linalg.norm(np.array(points) - middle, axis=2)))
    if scatter > _SCATTER * size[1]:
        raise UserError(
            f"{folder}: landmarks lie {scatter:.0f} pixels from their median · allowed: {_SCATTER * size[1]:.0f} in "
            f"images of that width · give a folder of aligned crops, not of photographs"
        )
    return MeasuredTemplate(size, tuple((float(x), float(y)) for x, y in middle), len(points), len(chosen))


def template_for_resume(measured: MeasuredTemplate, earlier: Mapping[str, str | int] | None) -> MeasuredTemplate:
    """Return the template of the existing crops if it differs only by chance, else ``measured``.

    Args:
        measured: the template measured now.
        earlier: the settings in the ``align-report.json`` of the destination; None: no report.

    Raises:
        UserError: the template in the report is invalid.
    """
    if earlier is None or "template" not in earlier:
        return measured
    try:
        recorded = template_of_settings(earlier)
    except ValueError as error:
        raise UserError(f"{REPORT_NAME}: {error} · delete the crops, or give another folder") from error
    if recorded.size != measured.size or np.abs(recorded.array - measured.points).max() > _SAME:
        return measured
    return replace(measured, points=recorded.points)
