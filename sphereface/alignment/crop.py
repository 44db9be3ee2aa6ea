"""Make one crop of one photograph, by known landmarks, a detector or the chosen fallback.

A crop by its own landmarks gets the modification time of its photograph, to the second. The
microseconds are a hash of the photograph's time, size and some of its bytes. A later run keeps the
crop while its time is right and the photograph's file did not change: it was not written, renamed
or copied, as its status change time shows. A photograph whose crop is a fallback
(``--on-failure``) is aligned again.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from ..data.images import BadImage, decode
from ..files import content_stamp, read_plain
from .detector import Detector, FoundFace, NoFace, SeveralFaces, find_face
from .fit import check_fit, looks_like_a_face
from .report import Earlier, Outcome, Status, explained, write_or_explain
from .similarity import BadLandmarks, Image, Points, align, template
from .templates import SPHEREFACE_SIZE, Size

_SAME_TIME = 1000  # nanoseconds: some file systems keep a time only to 100
_SECOND = 1_000_000_000  # nanoseconds
_ANOTHER_TIME = 3_600_000_000_000  # nanoseconds: an hour


@dataclass(frozen=True)
class CropSpec:
    """What a crop looks like.

    Args:
        size: (height, width) in pixels; without ``target`` a key of ``templates.TEMPLATES``.
        origin: the coordinate of the first pixel in the template, 0 or 1.
        quality: of the JPEG, 1 to 100.
        target: five (x, y) places for the landmarks, the first pixel at 0; None: the template's.
    """

    size: Size = SPHEREFACE_SIZE
    origin: int = 0
    quality: int = 95
    target: tuple[tuple[float, float], ...] | None = None

    @property
    def landmarks(self) -> Points:
        """The target landmarks: (5, 2) float64, (x, y) in crop pixels, the first pixel at 0."""
        return template(self.size, self.origin) if self.target is None else np.array(self.target, dtype=np.float64)


@dataclass(frozen=True)
class Finder:
    """How to find the face of an image.

    Args:
        detector: any face detector.
        pick: which of several faces to choose, one of ``choices.PICKS``.
        skip_several: reject an image with several faces.
    """

    detector: Detector
    pick: str = "centre"
    skip_several: bool = False

    def find(self, image: Image) -> FoundFace:
        """Find the one face of an image, (H, W, 3) uint8, BGR.

        Raises:
            NoFace: the image has no face.
            SeveralFaces: it has several, and ``skip_several`` is set.
            BadLandmarks: the detector's landmarks are not shaped like a face.
        """
        found = find_face(image, self.detector, self.pick)
        if self.skip_several and found.num_faces > 1:
            raise SeveralFaces(f"{found.num_faces} faces")
        check_fit(found.points, image.shape)
        return found


@dataclass(frozen=True, slots=True)
class Task:
    """One image to align.

    Each task carries its own landmarks, so that only the main process holds the whole table.

    Args:
        name: relative to the folder of images.
        points: its (5, 2) landmarks, if known.
        other_points: landmarks to use if there are none, none can be found, or they determine no
            crop.
        again: make the crop again, since somebody corrected its landmarks.
        made: whether an earlier run made the crop; None: it is not known, so a file there counts
            as its own. A file of somebody else is never deleted.
    """

    name: str
    points: Points | None
    other_points: Points | None = None
    again: bool = False
    made: bool | None = None


@dataclass(frozen=True)
class Cropper:
    """Make the crops of a folder; picklable, so that each worker gets its own copy.

    Args:
        source: folder of images.
        destination: folder for the crops.
        spec: what the crops look like.
        finder: finds the face of images without landmarks.
        centre: crop the centre of an image if nothing else works.
    """

    source: Path
    destination: Path
    spec: CropSpec
    finder: Finder | None = None
    centre: bool = False

    def __call__(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Align a chunk of images in this process."""
        return [self.make(task) for task in tasks]

    def make(self, task: Task) -> Outcome:
        """Align one image and write its crop, unless a current crop exists.

        If the image is read, but can no longer be aligned, its old crop is deleted.

        Raises:
            UserError: the crop cannot be written or deleted.
        """
        path, photograph = self.destination / crop_name(task.name), self.source / task.name
        known = task.points is not None and looks_like_a_face(task.points) and self.is_current(task.name)
        if known and not task.again and _is_whole_crop(path, self.spec.size):
            return Outcome(task.name, Status.KEPT, points=task.points)
        try:
            before = photograph.stat()
            time = _time_for_crop(photograph)
            outcome, crop = self._align(decode(read_plain(photograph)), task)
        except OSError as error:
            outcome, crop = Outcome(task.name, Status.UNREADABLE, error.strerror or str(error)), None
        except (BadImage, cv2.error) as error:  # some OpenCV versions cannot warp images over 32,767 pixels wide
            outcome, crop = Outcome(task.name, Status.UNREADABLE, str(error)), None
        if crop is None:
            return _without_crop(outcome, path, task.made is not False or self.is_current(task.name))
        data = _encode(crop, self.spec.quality)
        if _is_other_file(path, data):
            outcome = replace(outcome, earlier=Earlier.REPLACED)
        elif task.made and not path.exists():
            outcome = replace(outcome, earlier=Earlier.MISSING)
        write_or_explain(path, data)
        if outcome.status is Status.ALIGNED:
            with contextlib.suppress(OSError):  # then the next run repeats this crop
                _stamp(path, time, photograph, before)
        return outcome

    def is_current(self, name: str) -> bool:
        """Return whether an image has a crop by its own landmarks and did not change since."""
        try:
            photograph, crop = self.source / name, (self.destination / crop_name(name)).stat()
            same_time = abs(_time_for_crop(photograph) - crop.st_mtime_ns) < _SAME_TIME
            return same_time and photograph.stat().st_ctime_ns <= crop.st_ctime_ns
        except OSError:
            return False

    def _align(self, image: Image, task: Task) -> tuple[Outcome, Image | None]:
        try:
            points, num_faces = self._points(image, task)
            return Outcome(task.name, Status.ALIGNED, "", points, num_faces), self._cut(image, points)
        except SeveralFaces as error:
            return Outcome(task.name, Status.SEVERAL_FACES, str(error)), None
        except NoFace as error:
            status = Status.NO_FACE if self.finder else Status.NO_LANDMARKS
            reason = str(error).removeprefix(Status.NO_FACE.value).lstrip()
        except BadLandmarks as error:
            status, reason = Status.BAD_LANDMARKS, str(error)
        reason = f"{status.value}{reason and ': '}{reason}"
        if task.other_points is not None:
            try:
                check_fit(task.other_points, image.shape)
                crop = self._cut(image, task.other_points)
                return Outcome(task.name, Status.OTHER_LANDMARKS, reason, task.other_points), crop
            except BadLandmarks as error:
                return Outcome(task.name, Status.BAD_LANDMARKS, f"{reason}; landmarks of the other file: {error}"), None
        if self.centre:
            try:
                points = centre_points(image.shape[0], image.shape[1], self.spec)
                return Outcome(task.name, Status.CENTRED, reason, points), self._cut(image, points)
            except BadLandmarks:
                height, width = image.shape[:2]
                reason = f"{reason}; too small for a crop: {height}×{width} pixels"
        return Outcome(task.name, status, reason.removeprefix(status.value).lstrip(":; ")), None

    def _points(self, image: Image, task: Task) -> tuple[Points, int]:
        """Return the landmarks of the face to crop, and how many faces the image has."""
        if task.points is not None:
            check_fit(task.points, image.shape)
            return task.points, 1
        if self.finder is None:
            raise NoFace("")
        found = self.finder.find(image)
        return found.points, found.num_faces

    def _cut(self, image: Image, points: Points) -> Image:
        return align(image, points, size=self.spec.size, target=self.spec.landmarks)


def crop_name(name: str) -> str:
    """Return the name of an image's crop: the same name, with the suffix .jpg."""
    return str(PurePosixPath(name).with_suffix(".jpg"))


def crop_names(names: Iterable[str]) -> set[str]:
    """Return the names of images' crops; names that are no file's, as an empty one, have none."""
    return {crop_name(name) for name in names if PurePosixPath(name).name}


def centre_points(height: int, width: int, spec: CropSpec) -> Points:
    """Return landmarks whose crop is the largest centred rectangle of the crop's shape.

    Returns:
        (5, 2) float64, (x, y) in pixels of the image, to 1/100 pixel.
    """
    crop_height, crop_width = spec.size
    scale = min(height / crop_height, width / crop_width)  # image pixels per crop pixel
    from_middle = spec.landmarks - [(crop_width - 1) / 2, (crop_height - 1) / 2]
    return np.asarray(np.round(from_middle * scale + [(width - 1) / 2, (height - 1) / 2], 2))


def _without_crop(outcome: Outcome, path: Path, made: bool) -> Outcome:
    """Delete the crop of an image that gives none now, if ``align`` made it."""
    with explained(path):
        if not path.is_file():
            return outcome
        if not made:
            return replace(outcome, earlier=Earlier.NOT_KNOWN)
        if outcome.status is Status.UNREADABLE:  # perhaps only half of it is there for the moment
            return replace(outcome, earlier=Earlier.IMAGE_UNREADABLE)
        path.unlink()
        return replace(outcome, earlier=Earlier.DELETED)


def _encode(crop: Image, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(data.tobytes())


def _time_for_crop(photograph: Path) -> int:
    """Return the modification time for a photograph's crop, in nanoseconds.

    Folders may exchange their names while all images have one time, so the time alone is not
    enough.

    Raises:
        OSError: the photograph cannot be read.
    """
    size, mixed = content_stamp(photograph)
    second = photograph.stat().st_mtime_ns // _SECOND * _SECOND
    return second + zlib.crc32(f"{size} {mixed}".encode()) % 1_000_000 * 1000


def _stamp(crop: Path, time: int, photograph: Path, before: os.stat_result) -> None:
    """Give a crop its time, or another time if the photograph has changed.

    The crop is stamped before the second check: a photograph that is replaced after it has a later
    status change time.

    Args:
        time: what :func:`_time_for_crop` returned before the photograph was read.
        before: its status before it was read.

    Raises:
        OSError: the time cannot be set.
    """
    os.utime(crop, ns=(time, time))
    after = photograph.stat()
    if any(getattr(before, key) != getattr(after, key) for key in ("st_mtime_ns", "st_ctime_ns", "st_ino", "st_size")):
        another = after.st_mtime_ns + _ANOTHER_TIME
        os.utime(crop, ns=(another, another))


def _is_other_file(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and read_plain(path) != data
    except OSError:
        return False


def _is_whole_crop(path: Path, size: Size) -> bool:
    try:
        return decode(read_plain(path)).shape[:2] == size
    except (OSError, BadImage):
        return False
