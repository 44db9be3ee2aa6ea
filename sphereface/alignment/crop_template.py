"""The template of the training crops: read from their report and kept in checkpoints.

``sphereface align`` writes the template into ``align-report.json``. Training copies it into the
checkpoint. Verify, embed and search then align new photographs as the network's training crops.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .earlier_report import settings_of_crops
from .fit import looks_like_a_face
from .near_reports import folders_of, report_near
from .report import REPORT_NAME, Settings
from .similarity import Points, similarity, template
from .templates import TEMPLATES, Size

log = logging.getLogger(__name__)

_LONGEST_SIDE = 4096  # pixels of a crop
_SHOWN = 5
_OF_TEMPLATE = ("size", "template", "template_origin")  # settings
_SAME = 0.01  # pixels: reports hold six significant digits


@dataclass(frozen=True)
class CropTemplate:
    """The places of the five landmarks in crops.

    Args:
        size: (height, width) of the crops in pixels.
        points: five (x, y) in pixels, the first pixel at 0, ordered as ``templates.TEMPLATES``.

    Raises:
        ValueError: the size is not allowed, or the points are not finite, outside the crop or
            unlike a face.
    """

    size: Size
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        height, width = self.size
        if not (8 <= height <= _LONGEST_SIDE and 8 <= width <= _LONGEST_SIDE):
            raise ValueError(f"size {height}x{width}, allowed: 8 to {_LONGEST_SIDE}")
        points = self.array
        if points.shape != (5, 2) or not np.isfinite(points).all():
            raise ValueError("not five points with a finite x and y each")
        if (points < -width).any() or (points > [2 * width, 2 * height]).any() or not looks_like_a_face(points):
            raise ValueError(f"points unlike a face in a crop of {height}x{width}")

    @property
    def array(self) -> Points:
        """The points as (5, 2) float64."""
        return np.array(self.points, dtype=np.float64)

    @property
    def origin(self) -> int | None:
        """The origin, 0 or 1, if this is the published template; None for any other template."""
        known = (0, 1) if self.size in TEMPLATES else ()
        near = (origin for origin in known if np.abs(self.array - template(self.size, origin)).max() <= _SAME)
        return next(near, None)

    def cut_to(self, size: Size) -> CropTemplate:
        """Return the template of the centre of the crops.

        Training and evaluation cut 112×112 crops to 112×96 in this way.

        Raises:
            ValueError: such crops are not cut to this size, see :func:`.images.centre_crop`.
        """
        (height, width), (high, wide) = self.size, size
        if height < high or width < wide or (height > high and width > wide):
            raise ValueError(f"crops of {height}×{width}, but the network reads {high}×{wide}")
        top, left = (height - high) // 2, (width - wide) // 2
        return CropTemplate(size, tuple((x - left, y - top) for x, y in self.points))

    def apart(self, other: CropTemplate) -> float:
        """Return the largest distance to the same landmark of another template, in pixels.

        The larger crops are cut to the size of the others; 0 if crops are not cut so.
        """
        for one, two in ((self, other), (other, self)):
            with suppress(ValueError):
                return float(np.hypot(*(one.cut_to(two.size).array - two.array).T).max())
        return 0.0

    def to_meta(self) -> dict[str, Any]:
        """Return the template as a checkpoint keeps it."""
        return {"size": list(self.size), "points": [list(point) for point in self.points]}

    def compare(self, more: str = "") -> str:
        """Describe the points, then ``more``, then the difference from the published template."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        text = f"crops of {self.size[0]}×{self.size[1]}, landmarks at {places}{more}"
        if self.size not in TEMPLATES:
            return text
        published = template(self.size)
        right, down = (self.array - published).mean(axis=0)
        matrix = similarity(published, self.array)
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        return (
            f"{text}: {abs(right):.1f} pixels {'right' if right >= 0 else 'left'} of the template, "
            f"{abs(down):.1f} {'below' if down >= 0 else 'above'}, {scale:.3f} times as large"
        )

    def describe(self) -> str:
        """Return a few words that distinguish it from other templates."""
        if self.origin is not None:
            return f"template origin {self.origin}"
        return "template " + " ".join(f"{x:g},{y:g}" for x, y in self.points)


def published_template(size: Size, origin: int) -> CropTemplate:
    """Return the published template of a size that has one; see ``similarity.template``."""
    return CropTemplate(size, tuple((float(x), float(y)) for x, y in template(size, origin)))


def template_for(meta: Mapping[str, Any], size: Size, path: Path, origin: int | None) -> CropTemplate | None:
    """Return the template by which photographs are aligned for a network.

    Args:
        meta, size, path: see :func:`template_of_meta`.
        origin: the user's choice of the published template, 0 or 1; None: the checkpoint's
            template.

    Returns:
        The template; None if the checkpoint has none, or none of this size was published.

    Raises:
        UserError: see :func:`template_of_meta`.
    """
    if origin is None:
        return template_of_meta(meta, size, path)
    return published_template(size, origin) if size in TEMPLATES else None


def template_of_meta(meta: Mapping[str, Any], size: Size, path: Path) -> CropTemplate | None:
    """Return the template of a checkpoint; None if it has none.

    Args:
        meta: metadata of the checkpoint.
        size: (height, width) of the network's input.
        path: the checkpoint's name in messages.

    Raises:
        UserError: the template is invalid, or of crops of another size.
    """
    value = meta.get("template")
    if value is None:
        return None
    try:
        height, width = (int(side) for side in value["size"])
        if (height, width) != size:
            raise ValueError(f"size {height}x{width}, but the network reads {size[0]}x{size[1]}")
        return CropTemplate(size, tuple((float(x), float(y)) for x, y in value["points"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: meta.template: {str(error)[:200]} · allowed: size and points of the training crops · "
            "align the images with sphereface align and use --aligned"
        ) from error


def template_of_settings(settings: Settings) -> CropTemplate:
    """Return the template in the settings of ``align-report.json``.

    Raises:
        ValueError: the settings contain no template, or an invalid one.
    """
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", str(settings.get("size")), re.ASCII)
    if found is None:
        raise ValueError("settings.size is not a height and a width, such as 112x96")
    size = (int(found[1]), int(found[2]))
    if "template" not in settings:
        origin = settings.get("template_origin")
        if size not in TEMPLATES or origin not in (0, 1):
            raise ValueError(f"settings: no template of {size[0]}x{size[1]} with origin {origin}")
        return published_template(size, int(origin))
    pairs = [text.split(",") for text in str(settings["template"]).split()]
    try:
        points = tuple((float(x), float(y)) for x, y in pairs)
    except ValueError:
        raise ValueError("settings.template is not five pairs x,y") from None
    return CropTemplate(size, points)


def training_template(train: str | Sequence[str], root: str | Path | None, size: Size) -> CropTemplate | None:
    """Return the template of the training crops, from the reports of ``sphereface align``.

    Each report lies in the folder of crops or in its parent, or else in the folders of identities.
    An unknown template is a warning, never an error: training does not depend on it.

    Args:
        train: folders of crops, and files that hold or list crops.
        root: the folder to which the paths of lists are relative; None: the list's own folder.
        size: (height, width) of the network's input.

    Returns:
        The template, cut to ``size``; None if there is no report, or the reports do not agree.
    """
    paths = [Path(path) for path in ([train] if isinstance(train, str) else train)]
    found = {place: _template_near(place, size) for path in paths for place in folders_of(path, root)}
    known = [one for one in found.values() if one is not None]
    if not known:
        return None
    if len(known) == len(found) and all(np.abs(one.array - known[0].array).max() <= _SAME for one in known):
        return known[0]
    first: dict[str, Path] = {}  # of each template
    for place, one in found.items():
        first.setdefault(one.describe() if one else f"no {REPORT_NAME}", place)
    listed = "; ".join(f"{place}: {text}" for text, place in list(first.items())[:_SHOWN])
    log.warning("data.train: the crops have different templates (%s) · the checkpoint records no template", listed)
    return None


@functools.lru_cache  # many reports have the same settings, and the check takes milliseconds
def _template_of(settings: tuple[tuple[str, str | int], ...], size: Size) -> CropTemplate:
    return template_of_settings(dict(settings)).cut_to(size)


def _template_near(place: Path, size: Size) -> CropTemplate | None:
    path = report_near(place)
    settings = None
    try:
        if path is not None:
            settings = settings_of_crops(path.parent)
        if settings is None:
            return None
        return _template_of(tuple((key, settings[key]) for key in _OF_TEMPLATE if key in settings), size)
    except (UserError, ValueError) as error:
        log.warning("data.train: the template of the crops is unknown: %s: %s", path, error)
        return None
