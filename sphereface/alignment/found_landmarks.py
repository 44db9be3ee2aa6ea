"""Keep the landmarks that a detector finds, so that a killed run can resume without loss.

During a run, the line of each image is appended to ``align-progress.txt``, with the number of faces
as the score. At the end, the lines are sorted by name and written to ``landmarks.txt``, without
that number and whole or not at all. Failures and fallback crops are not kept; the next run tries
them again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import count_of
from ..files import regular_file, sha256_of_open
from .crop import crop_names
from .earlier_landmarks import (
    LANDMARKS_NAME,
    PROGRESS_NAME,
    WRITTEN_NAME,
    earlier_points,
    points_of,
    written_points,
)
from .earlier_report import earlier_run
from .fit import looks_like_a_face
from .landmarks import can_hold, landmark_line
from .report import Outcome, Status, explained, write_or_explain
from .similarity import Points


class FoundLandmarks:
    """The landmarks of one destination folder, including those of earlier runs.

    Somebody may correct lines of ``landmarks.txt``. The file is compared with a copy of what was
    written, ``.landmarks.txt``, so a corrected line is known whatever the times of the files are,
    and after a kill.

    Args:
        folder: folder of the crops.
        is_current: image name → whether its crop exists and the image did not change since. The
            landmarks of other images are dropped, and so are points that are unlike a face.
        names: of the images.
        source: folder of the images.

    Attributes:
        known: image name → its points.
        made: names of the crops that an earlier run made.
        edited: image name → points that somebody corrected since the last run that was not killed.
            They replace those in ``known``.
        stamps: image name → SHA-256 of an image whose points were corrected before an earlier run.
            Its points are known until the image has another content.
        changed: images whose corrected points are dropped, since they have another content.
        moved: new name → old name of an image with corrected points, known by its content.
        missing: image name → corrected points of an image that is not there. They are kept.

    Raises:
        UserError: a file of an earlier run cannot be read, or nothing can be written.
    """

    def __init__(
        self,
        folder: Path,
        is_current: Callable[[str], bool] = lambda _: True,
        names: Collection[str] = (),
        source: Path = Path(),
    ) -> None:
        self._folder, self._source, self._names = folder, source, names
        earlier = earlier_run(folder)
        self._digest = content_digest(folder / LANDMARKS_NAME)
        self._table = table = points_of(folder / LANDMARKS_NAME, names, source)
        written = written_points(folder, table, earlier)
        known, self._num_faces = earlier_points(folder, table, earlier)
        found = known if (folder / PROGRESS_NAME).exists() else {}  # a run may end between both landmark files
        self.edited = {
            name: points
            for name, points in table.items()
            if not _same(points, written.get(name)) and not _same(points, found.get(name))
        }
        without_crop, unreadable = (earlier.without_crop, earlier.unreadable) if earlier else ((), ())
        # An image without a crop may keep a line that somebody corrected.
        self.made = crop_names({*written, *unreadable}) - crop_names(without_crop) | crop_names(found)
        stamps = earlier.corrected if earlier else {}
        self.stamps = {name: stamp for name, stamp in stamps.items() if name in table and name not in self.edited}
        self._follow(set(names))
        left_out = {*self.edited, *self.changed, *(written.keys() - table.keys() if table else ())}
        self.known = {
            name: points
            for name, points in known.items()
            if name not in left_out and is_current(name) and looks_like_a_face(points)
        }
        self.known |= self._corrected
        self._crops: dict[str, Points] = {}
        self._aligned = set[str]()
        lines = [landmark_line(name, points, self.num_faces(name)) for name, points in self.known.items()]
        write_or_explain(folder / PROGRESS_NAME, "".join(lines).encode())  # drops a half-written last line
        with explained(folder / PROGRESS_NAME):
            self._file: IO[bytes] = (folder / PROGRESS_NAME).open("ab")

    def num_faces(self, name: str) -> int:
        """Return the number of faces in an image by an earlier run.

        It is 1 if it is unknown, or if somebody chose the face by a correction.
        """
        return 1 if name in self.edited or name in self._corrected else self._num_faces.get(name, 1)

    def _follow(self, names: Collection[str]) -> None:
        """Compare the images of earlier corrections with those that are there now.

        Only the content of ``names`` is read: a report of a stranger may name any file.
        """
        self.changed = [
            name for name, stamp in self.stamps.items() if name in names and self._stamp(name) not in (stamp, "")
        ]
        gone = [name for name in self.stamps if name not in names]
        self.moved = self._new_names(gone, names)
        moved, unused = set(self.moved.values()), {*self.changed, *gone}
        self.missing = {name: self._table[name] for name in gone if name not in moved}
        used = {name: name for name in self.stamps if name not in unused} | self.moved
        self._corrected = {name: self._table[old] for name, old in used.items()}
        self._stamps = {name: self.stamps[used.get(name, name)] for name in (*self.missing, *used)}

    def _new_names(self, gone: Collection[str], names: Collection[str]) -> dict[str, str]:
        """Return new name → old name of images with equal content, if only one new one fits."""
        old = Counter(self.stamps[name] for name in gone)
        new = sorted(name for name in names if name not in self._table and can_hold(name)) if old else []
        found = [(stamp, name) for name in new if (stamp := self._stamp(name)) and stamp in old]
        count = Counter(stamp for stamp, _ in found)
        by_stamp = {self.stamps[name]: name for name in gone}
        return {name: by_stamp[stamp] for stamp, name in found if old[stamp] == count[stamp] == 1}

    def _stamp(self, name: str) -> str:
        """Return the SHA-256 of an image; empty if it cannot be read."""
        return content_digest(self._source / name)

    def warnings(self) -> list[str]:
        """Return sentences about corrected points that are not used, or are under a new name."""
        warnings = []
        if self.changed:
            images = count_of(len(self.changed), "image", "images")
            warnings.append(
                f"the corrected landmarks of {images} are not used, since the image has another content now, e.g. "
                f"{min(self.changed)} · look at the crop, and correct or delete its line in {LANDMARKS_NAME}"
            )
        if self.moved:
            new, images = min(self.moved), count_of(len(self.moved), "image", "images")
            warnings.append(
                f"the corrected landmarks of {images} are used under a new name: the content of {new} is that of "
                f"{self.moved[new]}, which is not there now"
            )
        if self.missing:
            images = count_of(len(self.missing), "image", "images")
            warnings.append(
                f"the corrected landmarks of {images} are kept, but there is no image of that name now, e.g. "
                f"{min(self.missing)} · if it has a new name, copy the numbers to the line of that name in "
                f"{LANDMARKS_NAME} · delete the old line if the image does not return"
            )
        return warnings

    def add(self, outcome: Outcome) -> Outcome:
        """Keep the landmarks of one image; return its outcome, with the number of faces.

        Raises:
            UserError: they cannot be written.
        """
        kept = outcome.name in self.known or outcome.name in self.edited
        if outcome.points is not None:
            self._crops[outcome.name] = outcome.points
            if outcome.status in (Status.ALIGNED, Status.KEPT):
                self._aligned.add(outcome.name)
            if outcome.status is Status.ALIGNED and not kept:
                with explained(self._folder / PROGRESS_NAME):
                    self._file.write(landmark_line(outcome.name, outcome.points, outcome.num_faces).encode())
                    self._file.flush()
        return replace(outcome, num_faces=self.num_faces(outcome.name)) if kept else outcome

    def close(self) -> None:
        """Close the file; a failure loses only unwritten lines."""
        with contextlib.suppress(OSError):  # add has already reported the full disk
            self._file.close()

    def corrected(self) -> dict[str, str]:
        """Return image name → SHA-256 of the image, of all used and all kept corrections.

        The report must hold them before :meth:`write_landmarks`: after that, the corrected lines do
        not differ from the copy.
        """
        edited = {name: self._stamp(name) for name in self.edited if name in self._aligned}
        return {
            **{name: self.stamps[name] for name in self.changed if name not in self._crops},
            **self._stamps,
            **edited,
        }

    def write_landmarks(self) -> list[str]:
        """Write the landmarks of all crops, sorted by name.

        A corrected line that gave no crop stays in the file. So does a line that somebody changed
        during this run: the next run uses it.

        Returns:
            A warning if there are such changes.

        Raises:
            UserError: somebody damaged the file during this run, or it cannot be written.
        """
        unaligned = {name: points for name, points in self._corrected.items() if name not in self._aligned}
        replaced = {name: self._table[name] for name in self.changed}  # or damaged: a crop decides
        written = {**replaced, **self._crops, **self.missing, **unaligned}
        own = {**written, **{name: points for name, points in self.edited.items() if name not in self._aligned}}
        files = {name: _lines(points) for name, points in ((LANDMARKS_NAME, own), (WRITTEN_NAME, written))}
        late, deleted = self._changed_meanwhile()  # as late as possible: many lines take seconds
        if late or deleted:
            files[LANDMARKS_NAME] = _lines({name: own[name] for name in own if name not in deleted} | late)
        for name, data in files.items():
            write_or_explain(self._folder / name, data)
        if not (late or deleted):
            return []
        return [
            f"{count_of(len(late) + len(deleted), 'line', 'lines')} of {LANDMARKS_NAME} changed during this run, "
            f"e.g. of {min({*late, *deleted})} · run the same command again to use the changes"
        ]

    def _changed_meanwhile(self) -> tuple[dict[str, Points], set[str]]:
        """Return the lines that somebody changed since the start, and the names of deleted ones."""
        path = self._folder / LANDMARKS_NAME
        if content_digest(path) == self._digest:
            return {}, set()
        now = points_of(path, self._names, self._source)
        late = {name: points for name, points in now.items() if not _same(points, self._table.get(name))}
        return late, set(self._table.keys() - now.keys() if now else ())

    def forget(self) -> None:
        """Delete the file that only a resumed run needs."""
        self.close()
        with explained(self._folder / PROGRESS_NAME):
            (self._folder / PROGRESS_NAME).unlink(missing_ok=True)


def _lines(points: Mapping[str, Points]) -> bytes:
    return "".join(landmark_line(name, five) for name, five in sorted(points.items())).encode()


def _same(points: Points, written: Points | None) -> bool:
    return written is not None and np.array_equal(points, written)


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read."""
    try:
        with open(path, "rb", opener=regular_file) as file:
            return sha256_of_open(file)
    except OSError:
        return ""
