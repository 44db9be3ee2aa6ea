"""Read the report that an earlier run left beside its crops."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError, printable
from ..files import read_plain
from .report import REPORT_NAME, Earlier, Settings, Status

log = logging.getLogger(__name__)

T = TypeVar("T")

_LARGEST = 256 << 20  # bytes: enough for ten million images with one in ten listed
_MOST_SETTINGS = 50
_LONGEST = 1000  # characters of a setting
_WITHOUT_CROP = frozenset({Status.NO_FACE, Status.NO_LANDMARKS, Status.BAD_LANDMARKS, Status.SEVERAL_FACES})


@dataclass(frozen=True)
class EarlierRun:
    """The contents of the report of an earlier run, finished or not.

    Attributes:
        settings: settings of its crops.
        fallbacks: images whose crop was made by ``--on-failure``.
        several_faces: images with several faces, of which one was chosen.
        corrected: images with corrected landmarks, with the SHA-256 of the image.
        source: folder of the images; empty in a report of an earlier version.
        sample: some of its images, with the SHA-256 of each.
        finished: whether the run came to its end.
        without_crop: images, or their crops, to which ``align`` gave no crop, or whose crop it
            deleted.
        unreadable: images that could not be read, whose crop by ``align`` was kept.
        failed: all images without a crop, and names of landmarks without an image.
        made_none: whether the run came to its end, and no image had a crop then.
    """

    settings: Settings
    fallbacks: frozenset[str]
    several_faces: frozenset[str]
    corrected: Mapping[str, str]
    source: str
    sample: Mapping[str, str]
    finished: bool
    without_crop: frozenset[str]
    unreadable: frozenset[str]
    failed: frozenset[str]
    made_none: bool


def earlier_run(folder: Path) -> EarlierRun | None:
    """Read the report in ``folder``; return None if there is none.

    Raises:
        UserError: the report cannot be read, or is not one of this program.
    """
    path = folder / REPORT_NAME
    try:
        if path.exists() and path.stat().st_size > _LARGEST:
            raise ValueError(f"larger than {_LARGEST >> 20} MiB")
        report = _checked(json.loads(read_plain(path)), dict, "a mapping")
        settings = _settings_of(report["settings"])
        fallbacks = _names([row["file"] for row in _rows(report, "fallbacks")])
        failures = _rows(report, "failures")
        failed = _names([row["file"] for row in failures])
        tried = _names([row["file"] for row in failures if _was_tried(row)])
        kept = _checked(report.get("earlier_crops", {}), dict, "a mapping")
        unreadable = _names(kept.get(Earlier.IMAGE_UNREADABLE.value, []))
        several, others = (_names(report.get(key, [])) for key in ("several_faces", "without_crop"))
        corrected, sample = (_digests(report.get(key, {})) for key in ("corrected", "sample"))
        source = _checked(report.get("source", ""), str, "the path of a folder")
        finished = report.get("finished") is not False
        made_none = finished and all(report.get(key) == 0 for key in ("aligned", "kept", "fallback"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a report of this program ({_reason(error)}) · delete it and the crops beside it, "
            "or give another folder"
        ) from error
    without_crop = others | tried
    return EarlierRun(
        settings, fallbacks, several, corrected, source, sample, finished, without_crop, unreadable, failed, made_none
    )


def earlier_settings(folder: Path) -> Settings | None:
    """Return the settings that :func:`earlier_run` reads; None if there is no report."""
    earlier = earlier_run(folder)
    return None if earlier is None else earlier.settings


def settings_of_crops(folder: Path) -> Settings | None:
    """Return the settings of crops that are to be used; None if there is no report.

    Log a warning if the report is of a run that was stopped.

    Raises:
        UserError: see :func:`earlier_run`.
    """
    earlier = earlier_run(folder)
    if earlier and not earlier.finished:
        log.warning(
            "%s: sphereface align has not finished this folder, so crops may be missing · run the same sphereface "
            "align again, which keeps the crops that are there",
            printable(str(folder / REPORT_NAME)),
        )
    return None if earlier is None else earlier.settings


def _settings_of(value: Any) -> Settings:
    if not isinstance(value, dict) or len(value) > _MOST_SETTINGS:
        raise TypeError(f"settings: got {type(value).__name__}, allowed: up to {_MOST_SETTINGS} names and values")
    for name, setting in value.items():
        whole = isinstance(setting, int) and not isinstance(setting, bool) and abs(setting) < _LONGEST**3
        text = isinstance(setting, str) and len(setting) <= _LONGEST and setting.isprintable()
        if not (whole or text) or len(name) > _LONGEST or not name.isprintable():
            raise TypeError(f"settings: {name[:40]!r} is neither a whole number nor a text")
    return dict(value)


def _rows(report: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [_checked(row, dict, "a mapping for each image") for row in _checked(report.get(key, []), list, "a list")]


def _was_tried(failure: dict[str, Any]) -> bool:
    """Return whether an image was tried and gave no crop.

    One without landmarks is tried only for a substitute crop, and then the report has a detail.
    Otherwise another image may have its crop name.
    """
    reason = failure.get("reason")
    return reason in _WITHOUT_CROP and (reason != Status.NO_LANDMARKS.value or bool(failure.get("detail")))


def _names(value: Any) -> frozenset[str]:
    return frozenset(_checked(name, str, "the name of a file") for name in _checked(value, list, "a list"))


def _digests(value: Any) -> dict[str, str]:
    digests = _checked(value, dict, "a digest for each image")
    return {name: _checked(digest, str, "a digest") for name, digest in digests.items()}


def _checked(value: Any, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"got {type(value).__name__}, allowed: {what}")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    text = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0][:200] if text else type(error).__name__
