"""Where the landmarks lie in crops that others have made: the template by which other images become
like them.

A detector of another make, or the same one run otherwise, places the points elsewhere by some
pixels, in all crops about alike. That is not seen in a crop, and costs accuracy once test images
are not displaced alike.
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

_FEWEST_FACES = 20  # the median of so many points, each off by a pixel or so, is good to some tenths
_SCATTER = 0.1  # of the width, the median distance from the median: aligned crops have 0.01 to 0.02
_SAME = 0.5  # pixels: measured on a folder that has grown, or by another build, a template moves by less


@dataclass(frozen=True)
class MeasuredTemplate:
    """What a folder of crops looks like.

    Args:
        size: (height, width) of the crops in pixels.
        points: five (x, y), ordered as ``templates.TEMPLATES``: medians over the crops, to 1/100
            pixel.
        found: crops in which a face was found.
        searched: crops that were looked at.
    """

    size: Size
    points: tuple[tuple[float, float], ...]
    found: int
    searched: int

    def describe(self) -> str:
        """One line: where the faces lie and, where there is a published template of this size,
        beside it.
        """
        return CropTemplate(self.size, self.points).compare(f" ({self.found} of {self.searched} crops)")


def measure_template(folder: Path, finder: Finder, *, count: int = 500, progress: bool = False) -> MeasuredTemplate:
    """Find the landmarks in some crops of a folder, evenly spread over its sorted names, and take
    their medians.

    Args:
        folder: of crops of one size, of any depth.
        finder: the detector that will also align the other images: most of what it does wrong, it
            does in both.
        count: crops to look at, at most; each takes some hundredths of a second.
        progress: show a bar on stderr.

    Raises:
        UserError: no such folder, crops of several sizes, fewer than 20 with a face, or faces that
            lie all over.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder · allowed: the folder of crops to align like")
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
        raise UserError(f"{folder}: images of several sizes ({some}) · allowed: crops, all of one size")
    if len(points) < _FEWEST_FACES:
        reason = f" ({len(unreadable)} unreadable, the first {unreadable[0]})" if unreadable else ""
        raise UserError(
            f"{folder}: a face was found in {len(points)} of {len(chosen)} images{reason} · "
            f"allowed: {_FEWEST_FACES} or more · give a folder of more crops, or --size for a published template"
        )
    (size,) = sizes
    middle = np.median(points, axis=0).round(2)
    scatter = float(np.median(np.linalg.norm(np.array(points) - middle, axis=2)))
    if scatter > _SCATTER * size[1]:
        raise UserError(
            f"{folder}: landmarks lie {scatter:.0f} pixels about their median · allowed: {_SCATTER * size[1]:.0f} in "
            f"images of that width · give a folder of aligned crops, not of photographs"
        )
    return MeasuredTemplate(size, tuple((float(x), float(y)) for x, y in middle), len(points), len(chosen))


def template_to_go_on_with(measured: MeasuredTemplate, earlier: Mapping[str, str | int] | None) -> MeasuredTemplate:
    """The template of the crops that are there already, if this one is the same but for chance;
    else this one.

    Args:
        measured: now.
        earlier: the settings that ``align-report.json`` of the destination tells, if there is one.

    Raises:
        UserError: that template is not possible.
    """
    if earlier is None or "template" not in earlier:
        return measured
    try:
        recorded = template_of_settings(earlier)
    except ValueError as error:
        raise UserError(f"{REPORT_NAME} of the crops: {error} · delete the crops, or give another folder") from error
    if recorded.size != measured.size or np.abs(recorded.array - measured.points).max() > _SAME:
        return measured
    return replace(measured, points=recorded.points)
