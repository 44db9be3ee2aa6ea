"""Reports of ``sphereface align`` near crops: where they lie, and whether their runs finished."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..data.sources.listing import LIST_SUFFIXES, parse_list
from ..data.walking import is_system_file
from ..errors import UserError
from ..files import read_plain
from .earlier_report import settings_of_crops
from .report import REPORT_NAME

_SAMPLED = 1000  # folders of identities in which a report is looked for, while none is found


def folders_of(path: Path, root: str | Path | None) -> list[Path]:
    """Return the folders of crops that a list names; any other path is returned itself.

    A folder of crops is the nearest one with a report. The search goes from the folder above an
    image's own up to the list's folder, or up to the folder above all images if the list is
    elsewhere. Without a report, it is the first of these. If that has no report, but folders of
    identities have one, as after one ``align`` for each person, these folders are returned.

    Args:
        path: a folder of crops, or a file that holds or lists crops.
        root: the folder to which the paths of a list are relative; None: the list's own folder.
    """
    if path.is_dir():
        people = [] if report_near(path) else _of_people(_folders_in(path))
        return people or [path]
    if path.suffix.lower() not in LIST_SUFFIXES:
        return [path]
    base = path.parent if root is None else Path(root)
    try:
        names, _ = parse_list(read_plain(path), str(path))
    except (OSError, UserError):  # the reader of the data set reports it
        return [base]
    own = sorted({posixpath.dirname(name) for name in names})
    above = sorted(set(map(posixpath.dirname, own)))
    top, *absolute = (Path(os.path.abspath(base / folder)) for folder in ("", *above))  # noqa: PTH100 -- links stay
    shared = absolute[0]
    with contextlib.suppress(ValueError):  # Windows: they are on several drives
        shared = Path(os.path.commonpath(absolute))
    top = top if top in shared.parents else shared.parent

    @functools.cache  # many folders share the folders above them
    def with_report(folder: Path) -> Path | None:
        if folder != top and top not in folder.parents:
            return None
        return folder if (folder / REPORT_NAME).exists() else with_report(folder.parent)

    def found(folder: Path) -> Path | None:
        near = report_near(folder)
        return near.parent if near else with_report(folder.parent)

    places = {folder: found(place) for folder, place in zip(above, absolute, strict=True)}
    unknown = {folder: base / folder for folder, place in places.items() if place is None}
    people = _of_people([str(base / folder) for folder in own if posixpath.dirname(folder) in unknown])
    known = [place for place in places.values() if place is not None]
    return list(dict.fromkeys([*known, *(people or unknown.values())]))


def _folders_in(folder: Path) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # strings: there may be 100,000
        return sorted(each.path for each in entries if each.is_dir() and not is_system_file(each.name))
    return []


def _of_people(folders: Sequence[str]) -> list[Path]:
    """Return folders of identities, if some of them have a report; otherwise none."""
    some = folders[:: max(-(-len(folders) // _SAMPLED), 1)]
    return [Path(folder) for folder in folders] if any((Path(each) / REPORT_NAME).exists() for each in some) else []


def warn_of_unfinished_crops(path: Path, root: str | Path | None) -> None:
    """Log a warning for each folder of crops that ``sphereface align`` has not finished.

    Args:
        path, root: see :func:`folders_of`.
    """
    warn_of_unfinished(folders_of(path, root))


def warn_of_unfinished(folders: Iterable[Path]) -> None:
    """Log a warning for each report near some folders that says that the run has not finished."""
    places = {place for folder in folders for place in folders_of(folder, None)}
    for report in sorted({report for place in places if (report := report_near(place))}):
        with contextlib.suppress(UserError):  # a damaged report does not say whether it is finished
            settings_of_crops(report.parent)


def report_near(place: Path) -> Path | None:
    """Return the report of ``sphereface align`` in a folder, beside a file, or one level up."""
    folder = place if place.is_dir() else place.parent
    above = folder.parent
    if folder.name in ("", ".."):
        above = Path(os.path.abspath(folder)).parent  # noqa: PTH100 -- links stay
    reports = (folder / REPORT_NAME, above / REPORT_NAME)
    return next((path for path in reports if path.exists()), None)
