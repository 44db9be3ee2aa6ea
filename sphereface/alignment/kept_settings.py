"""Settings that aligned the crops of a gallery.

The gallery keeps them, so that a search can align a query photograph in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line, printable
from .crop_template import CropTemplate, template_of_meta, template_of_settings
from .earlier_report import earlier_settings, settings_of_crops
from .near_reports import report_near
from .templates import Size

_KEPT = ("size", "template", "template_origin", "detector", "pick")
_LONGEST = 4096  # characters
LEAST_APART = 1.0  # pixels between templates that a note tells


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


def note_on_template(settings: str, place: str | Path, meta: Mapping[str, Any], size: Size, network: Path) -> str:
    """Return a line if some crops were aligned unlike the training crops of a network.

    Args:
        settings: of the crops, see :func:`settings_near`.
        place: the crops, for messages.
        meta: metadata of the checkpoint.
        size: (height, width) that the network reads.
        network: the checkpoint, for messages.

    Returns:
        The line; an empty text if the templates agree to a pixel, or one is unknown.
    """
    try:
        theirs = template_of_meta(meta, size, network)
        ours = read_settings(settings, size, Path(place)).template if theirs else None
    except UserError:  # no settings, or damaged ones
        return ""
    apart = 0.0 if theirs is None or ours is None else ours.apart(theirs)
    if apart < LEAST_APART:
        return ""
    return (
        f"note: {printable(str(place))}: sphereface align put its landmarks up to {apart:.1f} pixels from those of the "
        f"training crops of {printable(str(network))}, which may lower the accuracy · to align like them, give "
        "sphereface align --like and the training crops, or use photographs, which are aligned like them\n"
    )


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
