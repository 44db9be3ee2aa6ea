"""Count and describe the results of an aligned folder, in a report beside the crops."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from ..errors import printable, refusing
from ..files import write_whole
from .fit import LARGE_MEDIAN, LARGEST_RESIDUAL, fit
from .similarity import Points

REPORT_NAME = "align-report.json"

Settings = Mapping[str, str | int]


class Status(str, Enum):
    """The result of one image; the report shows the value of a failure."""

    ALIGNED = "aligned"
    KEPT = "already there"
    CENTRED = "middle of the image instead"
    OTHER_LANDMARKS = "landmarks of the other file instead"
    NO_LANDMARKS = "no landmarks for this image"
    NO_FACE = "no face found"
    NO_IMAGE = "landmarks for a missing image"
    UNREADABLE = "unreadable image"
    BAD_LANDMARKS = "landmarks unlike a face"
    SEVERAL_FACES = "several faces"
    NAME_TAKEN = "crop name taken"
    UNWRITABLE_NAME = "name that a landmark file cannot hold"


FALLBACKS = frozenset({Status.CENTRED, Status.OTHER_LANDMARKS})


class Earlier(str, Enum):
    """What became of a file at the place of a crop, or of a place where one is missing."""

    REPLACED = "replaced"
    MISSING = "missing, made again"
    DELETED = "deleted"
    IMAGE_UNREADABLE = "kept, image unreadable"
    NOT_KNOWN = "kept, not known to be made by align"


_TOLD = {
    Earlier.REPLACED: (
        "earlier crops that were replaced by different ones",
        " · if you changed one by hand: correct the landmarks of its image instead",
    ),
    Earlier.MISSING: (
        "crops of an earlier run that were missing and are made again",
        " · to leave out an image, delete or move the image itself, not its crop",
    ),
    Earlier.DELETED: ("crops that were deleted, since their images give none now", ""),
    Earlier.IMAGE_UNREADABLE: ("crops that were kept, since their images cannot be read now", ""),
    Earlier.NOT_KNOWN: ("crops that were kept, since no earlier run of align is known to have made them", ""),
}


@dataclass(frozen=True)
class Outcome:
    """The result of one image.

    Args:
        name: relative to the folder.
        status: the result.
        detail: the reason of a failure or fallback.
        points: (5, 2), the landmarks of the crop, if it has any.
        num_faces: number of faces in the image; 1 if no detector was used.
        earlier: what became of an earlier crop, if the summary names it.
    """

    name: str
    status: Status
    detail: str = ""
    points: Points | None = None
    num_faces: int = 1
    earlier: Earlier | None = None


@dataclass(frozen=True)
class Failure:
    """One image without a crop, or with a fallback crop, as the report file lists it."""

    file: str
    reason: str
    detail: str


@dataclass
class AlignReport:
    """The counts and the failures of one run.

    Lists are in the order of processing.

    Args:
        settings: everything that the crops depend on; crops of other settings must not be mixed
            with these.
        aligned: number of crops made in this run.
        kept: number of whole crops that an earlier run made with the same settings.
        fallbacks: images whose crop was made by ``--on-failure``.
        failures: images without a crop.
        several_faces: images with several faces, of which one was chosen.
        not_read: a sentence about files that are not images; empty if there are none.
        warnings: sentences for the user.
        corrected: images whose landmarks somebody corrected in ``landmarks.txt``, with the SHA-256
            of the image.
        source: folder of the images.
        sample: some images of ``source``, with the SHA-256 of each.
        without_crop: crops known not to be made by ``align`` before this run, besides those of the
            failures. A file at such a place is somebody's own.
        earlier_crops: images with an earlier crop, or a file in its place, by what became of it.
    """

    settings: Settings
    aligned: int = 0
    kept: int = 0
    fallbacks: list[Failure] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    several_faces: list[str] = field(default_factory=list)
    not_read: str = ""
    warnings: list[str] = field(default_factory=list)
    corrected: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    sample: Mapping[str, str] = field(default_factory=dict)
    without_crop: Collection[str] = ()
    earlier_crops: dict[Earlier, list[str]] = field(default_factory=dict)
    _points: list[Points] = field(default_factory=list)

    @property
    def crops(self) -> int:
        """The number of images that have a crop now."""
        return self.aligned + self.kept + len(self.fallbacks)

    def add(self, outcome: Outcome) -> None:
        """Count one image."""
        if outcome.status is Status.ALIGNED:
            self.aligned += 1
        elif outcome.status is Status.KEPT:
            self.kept += 1
        else:
            listed = self.fallbacks if outcome.status in FALLBACKS else self.failures
            listed.append(Failure(outcome.name, outcome.status.value, outcome.detail))
        if outcome.earlier:
            self.earlier_crops.setdefault(outcome.earlier, []).append(outcome.name)
        if outcome.points is not None and outcome.status in (Status.ALIGNED, Status.KEPT):
            self._points.append(outcome.points)
            if outcome.num_faces > 1:
                self.several_faces.append(outcome.name)

    def median_residual(self) -> float | None:
        """Return the median residual of the crops, in crop pixels; see ``fit.fit``."""
        return round(float(np.median(fit(np.stack(self._points))[0])), 2) if self._points else None

    def failed_by_reason(self) -> dict[str, int]:
        """Return reason → number of failures, the most frequent first."""
        return {reason: count for reason, count, _ in _rows(self.failures)}

    def save(self, folder: Path, *, finished: bool) -> None:
        """Write ``align-report.json`` into ``folder``.

        The report of an unfinished run gives the next run the settings.
        """
        content = {
            "finished": finished,
            "settings": dict(self.settings),
            "source": self.source,
            "sample": dict(self.sample),
            "aligned": self.aligned,
            "kept": self.kept,
            "fallback": len(self.fallbacks),
            "failed": len(self.failures),
            "failed_by_reason": self.failed_by_reason(),
            "median_residual": self.median_residual(),
            "several_faces": sorted(self.several_faces),
            "not_read": self.not_read,
            "warnings": self.warnings,
            "corrected": dict(self.corrected),
            "without_crop": sorted(self.without_crop),
            "earlier_crops": {what.value: sorted(names) for what, names in sorted(self.earlier_crops.items())},
            "fallbacks": _by_name(self.fallbacks),
            "failures": _by_name(self.failures),
        }
        write_or_explain(folder / REPORT_NAME, json.dumps(content, indent=1).encode())

    def table(self) -> str:
        """Return a text summary: counts, and each reason with its number and one example."""
        rows = [("aligned", self.aligned, ""), ("already there", self.kept, "")]
        rows += _rows(self.fallbacks)
        rows.append(("not aligned", len(self.failures), ""))
        rows += [(f"  {reason}", count, example) for reason, count, example in _rows(self.failures)]
        width = max(len(label) for label, _, _ in rows)
        lines = [f"{label:{width}}  {count:>9,}{example}" for label, count, example in rows]
        return "\n".join(map(printable, [*lines, *self._notes()]))  # file names may hold control characters

    def _notes(self) -> list[str]:
        notes = [*self.warnings, self.not_read] if self.not_read else list(self.warnings)
        notes += [
            f"{told}: {len(names):,}, e.g. that of {min(names)}{advice}"
            for what, (told, advice) in _TOLD.items()
            if (names := self.earlier_crops.get(what))
        ]
        if self.several_faces:
            pick = "largest" if self.settings.get("pick") == "largest" else "one nearest the centre"
            notes.append(
                f"several faces in {len(self.several_faces):,} images: the {pick} was chosen   "
                f"e.g. {min(self.several_faces)} · to skip such images: --on-several skip"
            )
        if (residual := self.median_residual()) is not None:
            notes.append(
                f"median misfit of the landmarks: {residual:.1f} crop pixels (usual: 2 to 3, allowed: "
                f"{LARGEST_RESIDUAL:g})" + " · that is large: look at some crops" * (residual > LARGE_MEDIAN)
            )
        return notes


def _by_name(listed: list[Failure]) -> list[dict[str, str]]:
    return [asdict(failure) for failure in sorted(listed, key=lambda failure: failure.file)]


def _rows(listed: list[Failure]) -> list[tuple[str, int, str]]:
    """Return (reason, count, first example by name) of each reason, the most frequent first."""
    counts = Counter(failure.reason for failure in listed)
    rows = []
    for reason, count in sorted(counts.items(), key=lambda row: (-row[1], row[0])):
        first = min((failure for failure in listed if failure.reason == reason), key=lambda failure: failure.file)
        rows.append((reason, count, f"   e.g. {first.file}" + (first.detail and f": {first.detail}")))
    return rows


def write_or_explain(path: Path, data: bytes) -> None:
    """Write a file that is either whole or absent. Raises UserError as :func:`explained` does."""
    with explained(path):
        write_whole(path, data, durable=False)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Explain an error of a block that writes a file.

    Raises:
        UserError: the file system refuses (full, read-only, …).
    """
    advice = "earlier files are complete · make room or give another folder, then run the same command again"
    with refusing(f"{path}: cannot be written", advice):
        yield
