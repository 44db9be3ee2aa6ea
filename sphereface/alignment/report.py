"""What became of each picture of a folder that was aligned: counted, told, and kept beside the crops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from ..errors import UserError
from ..files import write_whole
from .similarity import Points

REPORT_NAME = "align-report.json"

Settings = Mapping[str, str | int]


class Status(str, Enum):
    """How it went with one picture; a failure's value is what the report calls it."""

    ALIGNED = "aligned"
    KEPT = "already there"
    CENTRED = "middle of the picture instead"
    OTHER_LANDMARKS = "landmarks of the other file instead"
    NO_LANDMARKS = "no landmarks for this picture"
    NO_FACE = "no face found"
    NO_PICTURE = "landmarks for a missing picture"
    UNREADABLE = "unreadable image"
    BAD_LANDMARKS = "landmarks that determine no crop"
    NAME_TAKEN = "crop name taken"
    UNWRITABLE_NAME = "name that a landmark file cannot hold"


FALLBACKS = frozenset({Status.CENTRED, Status.OTHER_LANDMARKS})


@dataclass(frozen=True)
class Outcome:
    """One picture: its name relative to the folder, how it went, why not better, and the crop's landmarks if any."""

    name: str
    status: Status
    detail: str = ""
    points: Points | None = None


@dataclass(frozen=True)
class Failure:
    """One picture without a crop, or with one made otherwise than asked, as the report's file lists it."""

    file: str
    reason: str
    detail: str


@dataclass
class AlignReport:
    """The counts and the failures of one run.

    Args:
        settings: whatever the crops depend on; crops of other settings must not be mixed with these.
        aligned: crops made in this run.
        kept: whole crops found there, made by an earlier run with the same settings.
        fallbacks: pictures whose crop was made as ``--on-failure`` says, in the order met.
        failures: pictures without a crop, in the order met.
    """

    settings: Settings
    aligned: int = 0
    kept: int = 0
    fallbacks: list[Failure] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def crops(self) -> int:
        """How many pictures have a crop now."""
        return self.aligned + self.kept + len(self.fallbacks)

    def add(self, outcome: Outcome) -> None:
        """Count one picture."""
        if outcome.status is Status.ALIGNED:
            self.aligned += 1
        elif outcome.status is Status.KEPT:
            self.kept += 1
        else:
            listed = self.fallbacks if outcome.status in FALLBACKS else self.failures
            listed.append(Failure(outcome.name, outcome.status.value, outcome.detail))

    def failed_by_reason(self) -> dict[str, int]:
        """Return reason → number of failures, the most frequent first."""
        return {reason: count for reason, count, _ in _rows(self.failures)}

    def save(self, folder: Path, *, finished: bool) -> Path:
        """Write ``align-report.json`` into ``folder``; an unfinished one tells the next run the settings."""
        path = folder / REPORT_NAME
        content = {
            "finished": finished,
            "settings": dict(self.settings),
            "aligned": self.aligned,
            "kept": self.kept,
            "fallback": len(self.fallbacks),
            "failed": len(self.failures),
            "failed_by_reason": self.failed_by_reason(),
            "fallbacks": _by_name(self.fallbacks),
            "failures": _by_name(self.failures),
        }
        write_or_explain(path, json.dumps(content, indent=1).encode())
        return path

    def table(self) -> str:
        """Return the summary for people: counts, and each reason with its number and one example."""
        rows = [("aligned", self.aligned, ""), ("already there", self.kept, "")]
        rows += _rows(self.fallbacks)
        rows.append(("not aligned", len(self.failures), ""))
        rows += [(f"  {reason}", count, example) for reason, count, example in _rows(self.failures)]
        width = max(len(label) for label, _, _ in rows)
        text = "\n".join(f"{label:{width}}  {count:>9,}{example}" for label, count, example in rows)
        return text.encode("utf-8", "backslashreplace").decode()  # file names need not be valid Unicode


def _by_name(listed: list[Failure]) -> list[dict[str, str]]:
    return [asdict(failure) for failure in sorted(listed, key=lambda failure: failure.file)]


def _rows(listed: list[Failure]) -> list[tuple[str, int, str]]:
    """Of each reason, the most frequent first: it, its number, and the first example by name."""
    counts = Counter(failure.reason for failure in listed)
    rows = []
    for reason, count in sorted(counts.items(), key=lambda row: (-row[1], row[0])):
        first = min((failure for failure in listed if failure.reason == reason), key=lambda failure: failure.file)
        rows.append((reason, count, f"   e.g. {first.file}" + (first.detail and f": {first.detail}")))
    return rows


def earlier_fallbacks(folder: Path) -> set[str]:
    """Return the pictures whose crop a finished run made as ``--on-failure`` says; the report is a readable one."""
    path = folder / REPORT_NAME
    report = json.loads(path.read_bytes()) if path.exists() else {}
    return {row["file"] for row in report.get("fallbacks", [])}


def earlier_settings(folder: Path) -> Settings | None:
    """Return the settings that an earlier run, finished or not, left in ``folder``; None where none ran.

    Raises:
        UserError: there is a report but it cannot be read.
    """
    path = folder / REPORT_NAME
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_bytes())["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a report of this program ({error}) · delete it and the crops beside it, "
            "or give another folder"
        ) from error


def write_or_explain(path: Path, data: bytes) -> None:
    """Write a file that is either whole or absent.

    Raises:
        UserError: the file system refuses (full, read-only, …).
    """
    try:
        write_whole(path, data, durable=False)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to say when the file system refuses (full, read-only, …)."""
    return UserError(
        f"{path}: cannot be written ({error.strerror}) · what was written before is whole"
        " · make room or give another folder, then run the same command again"
    )
