"""One photograph to one crop: by known landmarks, by a detector, or as was asked where neither helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from ..data.images import BadImage, decode
from ..files import read_plain
from .detector import Detector, FoundFace, NoFace, SeveralFaces, find_face
from .fit import check_fit, looks_like_a_face
from .report import Outcome, Status, write_or_explain
from .similarity import SPHEREFACE_SIZE, BadLandmarks, Image, Points, Size, align, template


@dataclass(frozen=True)
class CropSpec:
    """What a crop looks like.

    Args:
        size: (height, width) in pixels; without ``target`` a key of ``similarity.TEMPLATES``.
        origin: what the template's numbers call the first pixel, 0 or 1.
        quality: of the JPEG, 1 to 100.
        target: five (x, y) where the landmarks are to lie, the first pixel at 0; None: the template's.
    """

    size: Size = SPHEREFACE_SIZE
    origin: int = 0
    quality: int = 95
    target: tuple[tuple[float, float], ...] | None = None

    @property
    def landmarks(self) -> Points:
        """Where the landmarks are to lie: (5, 2) float64, (x, y) in pixels of the crop, the first pixel at 0."""
        return template(self.size, self.origin) if self.target is None else np.array(self.target, dtype=np.float64)


@dataclass(frozen=True)
class Finder:
    """How to find the face of an image.

    Args:
        detector: any.
        pick: which of several faces to take, a key of ``detector.PICKS``.
        skip_several: leave an image with several faces out.
    """

    detector: Detector
    pick: str = "centre"
    skip_several: bool = False

    def find(self, image: Image) -> FoundFace:
        """Find the one face of an image, (H, W, 3) uint8, BGR.

        Raises:
            NoFace: there is none.
            SeveralFaces: there are several, and ``skip_several``.
            BadLandmarks: the detector's landmarks do not lie like a face.
        """
        found = find_face(image, self.detector, self.pick)
        if self.skip_several and found.num_faces > 1:
            raise SeveralFaces(f"{found.num_faces} faces")
        check_fit(found.points, image.shape)
        return found


@dataclass(frozen=True, slots=True)
class Task:
    """One picture to align.

    The landmarks travel with the task, so that the table of all is held once, not in every worker.

    Args:
        name: relative to the folder of pictures.
        points: its (5, 2) landmarks, where known.
        other_points: those to use where there are none, none can be found, or they determine no crop.
    """

    name: str
    points: Points | None
    other_points: Points | None = None


@dataclass(frozen=True)
class Cropper:
    """Makes the crops of a folder; picklable, so that each worker gets its own.

    Args:
        source: folder of pictures.
        destination: folder for the crops.
        spec: what they look like.
        finder: for pictures without landmarks.
        centre: take the middle of a picture where nothing else helps.
    """

    source: Path
    destination: Path
    spec: CropSpec
    finder: Finder | None = None
    centre: bool = False

    def __call__(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Align some pictures one after the other; the work of one process."""
        return [self.make(task) for task in tasks]

    def make(self, task: Task) -> Outcome:
        """Align one picture and write its crop, unless a whole one by the same landmarks is there.

        Raises:
            UserError: the crop cannot be written.
        """
        path = self.destination / crop_name(task.name)
        known = task.points is not None and looks_like_a_face(task.points)
        if known and _is_whole_crop(path, self.spec.size):
            return Outcome(task.name, Status.KEPT, points=task.points)
        try:
            image = decode(read_plain(self.source / task.name))
            outcome, crop = self._align(image, task)
        except OSError as error:
            return Outcome(task.name, Status.UNREADABLE, error.strerror or str(error))
        except (BadImage, cv2.error) as error:  # some OpenCV cannot warp what is over 32,767 pixels wide
            return Outcome(task.name, Status.UNREADABLE, str(error))
        if crop is not None:
            write_or_explain(path, _encode(crop, self.spec.quality))
        return outcome

    def _align(self, image: Image, task: Task) -> tuple[Outcome, Image | None]:
        try:
            points, num_faces = self._points(image, task)
            return Outcome(task.name, Status.ALIGNED, "", points, num_faces), self._cut(image, points)
        except SeveralFaces as error:
            return Outcome(task.name, Status.SEVERAL_FACES, str(error)), None
        except NoFace as error:
            status, reason = (Status.NO_FACE if self.finder else Status.NO_LANDMARKS), str(error)
        except BadLandmarks as error:
            status, reason = Status.BAD_LANDMARKS, str(error)
        reason = f"{status.value}{reason and ': '}{reason}"
        if task.other_points is not None:
            try:
                check_fit(task.other_points, image.shape)
                crop = self._cut(image, task.other_points)
                return Outcome(task.name, Status.OTHER_LANDMARKS, reason, task.other_points), crop
            except BadLandmarks as error:
                return Outcome(task.name, Status.BAD_LANDMARKS, f"{reason}; of the other file: {error}"), None
        if self.centre:
            try:
                points = centre_points(image.shape[0], image.shape[1], self.spec)
                return Outcome(task.name, Status.CENTRED, reason, points), self._cut(image, points)
            except BadLandmarks:
                height, width = image.shape[:2]
                reason = f"{reason}; too small for a crop: {height}×{width} pixels"
        return Outcome(task.name, status, reason.removeprefix(status.value).lstrip(":; ")), None

    def _points(self, image: Image, task: Task) -> tuple[Points, int]:
        """Return the landmarks of the face to crop, and how many faces there were to choose from."""
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
    """Return the crop's name for a picture's: the same, ending in .jpg."""
    return str(PurePosixPath(name).with_suffix(".jpg"))


def centre_points(height: int, width: int, spec: CropSpec) -> Points:
    """Landmarks whose crop is the largest rectangle of its shape about a picture's middle.

    Returns:
        (5, 2) float64, (x, y) in pixels of the picture, to 1/100 pixel.
    """
    crop_height, crop_width = spec.size
    scale = min(height / crop_height, width / crop_width)  # picture pixels a crop pixel
    from_middle = spec.landmarks - [(crop_width - 1) / 2, (crop_height - 1) / 2]
    return np.asarray(np.round(from_middle * scale + [(width - 1) / 2, (height - 1) / 2], 2))


def _encode(crop: Image, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(data.tobytes())


def _is_whole_crop(path: Path, size: Size) -> bool:
    try:
        return decode(read_plain(path)).shape[:2] == size
    except (OSError, BadImage):
        return False
