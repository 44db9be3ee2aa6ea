"""Settings that aligned the crops of a gallery.

The gallery keeps them, so that a search can align a query photograph in the same way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, first_line
from .crop_template import CropTemplate, report_near, template_of_settings
from .report import earlier_settings, settings_of_crops
from .templates import Size

_KEPT = ("size", "template", "template_origin", "detector", "pick")
_LONGEST = 4096  # characters


@dataclass(frozen=True)
class KeptSettings:
    """Settings that aligned the crops of a gallery.

    Attributes:
        template: places of the landmarks in crops of the network's size.
        detector: name of the detector; None if a file gave the landmarks.
        pick: which of several faces was taken; None if a file gave the landmarks.
    """

    template: CropTemplate
    detector: str | None
    pick: str | None


def settings_near(crops: Path, *, warn: bool = True) -> str:
    """Return the settings of the ``sphereface align`` report beside some crops, as JSON.

    Args:
        crops: a folder of crops, or a file that lists or holds crops.
        warn: log a warning if the report is of a run that was stopped.

    Returns:
        The settings, or an empty text if there is no report.

    Raises:
        UserError: the report is damaged.
    """
    report = report_near(crops)
    read = settings_of_crops if warn else earlier_settings
    settings = None if report is None else read(report.parent)
    if settings is None:
        return ""
    return json.dumps({key: settings[key] for key in _KEPT if key in settings})


def read_settings(text: str, size: Size, place: Path) -> KeptSettings:
    """Read settings that :func:`settings_near` returned.

    Args:
        text: the settings.
        size: (height, width) that the network reads.
        place: path of the gallery, for messages.

    Raises:
        UserError: the settings are damaged.
    """
    try:
        values = json.loads(text) if len(text) <= _LONGEST else None
        if not isinstance(values, dict) or not all(isinstance(value, str | int) for value in values.values()):
            raise ValueError("no settings of sphereface align")
        template = template_of_settings(values).cut_to(size)
        detector, pick = (None if key not in values else str(values[key]) for key in ("detector", "pick"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{place}: alignment: {first_line(error)} · allowed: the settings in an align-report.json · "
            "embed the crops again, or give a crop as query, with --aligned"
        ) from None
    return KeptSettings(template, detector, pick)
