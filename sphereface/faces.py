"""Read images of any form and return aligned crops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .alignment.crop import Finder
from .alignment.crop_template import CropTemplate, published_template
from .alignment.detector import Detector, FoundFace, NoFace, SeveralFaces, find_faces
from .alignment.fit import check_fit, looks_like_a_face
from .alignment.mtcnn import Mtcnn
from .alignment.similarity import BadLandmarks, align
from .alignment.templates import TEMPLATES, Size
from .choices import ON_SEVERAL, PICKS
from .data.images import BadImage, centre_crop, decode
from .errors import UserError, printable, shown
from .files import read_plain

ALIGNED = "aligned crops"
"""The settings of images that are crops."""
Pixels = npt.NDArray[np.uint8]
Image = str | Path | bytes | bytearray | memoryview | Pixels
"""An image: the path of a file, its encoded bytes, or its pixels (H, W, 3) uint8 in BGR."""


class ReadFile:
    """An image file, read at once. Its error, if any, is raised when its bytes are needed."""

    def __init__(self, path: str | Path) -> None:
        self.name, self._bytes = str(path), b""
        self._error: BadImage | OSError | None = None
        try:
            self._bytes = _read(path)
        except (BadImage, OSError) as error:
            self._error = error

    def __bytes__(self) -> bytes:
        if self._error is not None:
            raise self._error
        return self._bytes


class UnusableImage(UserError):
    """An image that is unreadable, has no face, or has a wrong size."""


@dataclass(frozen=True)
class Face:
    """The face of an image.

    Attributes:
        crop: (H, W, 3) uint8, BGR, of the network's size.
        num_faces: number of faces in the image; 1 for a crop.
        place: number of this face, counted from the left; the first is 1.
        box: x1, y1, x2, y2 in pixels of the image; None for a crop.
        score: of the detector, in [0, 1]; None for a crop.
    """

    crop: Pixels
    num_faces: int
    place: int = 1
    box: tuple[float, float, float, float] | None = None
    score: float | None = None


class FaceReader:
    """Read images and return crops of one size.

    Args:
        size: (height, width) of the crops in pixels.
        aligned: the images are crops of that size. If it is 112×96, 112×112 crops are cut to it.
        pick: which of several faces to take: the one nearest the ``"centre"`` of the photograph, or
            the ``"largest"``.
        detector: finds the faces on photographs; None: MTCNN.
        template: places of the landmarks in a crop; None: the published template with origin 0.
        on_several: what to do with a photograph of several faces: ``"take"`` the one that ``pick``
            chooses, ``"skip"`` (refuse) the photograph, or return ``"all"`` in :meth:`read_faces`.

    Raises:
        UserError: an argument is not allowed, or MTCNN is not installed.
    """

    def __init__(
        self,
        size: Size,
        *,
        aligned: bool,
        pick: str = "centre",
        detector: Detector | None,
        template: CropTemplate | None = None,
        on_several: str = "take",
    ) -> None:
        if on_several not in ON_SEVERAL:
            raise UserError(f"on_several: got {on_several!r} · allowed: {', '.join(ON_SEVERAL)}")
        if pick not in PICKS:
            raise UserError(f"pick: got {pick!r} · allowed: {', '.join(PICKS)}")
        if not aligned and template is None and size not in TEMPLATES:
            raise UserError(
                f"the network reads {size[0]}×{size[1]} crops (height × width), for which there is no template · "
                "give it crops of that size and align=False (--aligned)"
            )
        self.size, self.template = size, None if aligned else template or published_template(size, 0)
        self._finder = None if aligned else Finder(detector or Mtcnn(), pick, on_several == "skip")
        self.pick, self.on_several = pick, on_several

    @property
    def detector(self) -> Detector | None:
        """The detector that finds the faces; None for crops."""
        return None if self._finder is None else self._finder.detector

    @property
    def settings(self) -> str:
        """Everything that a crop depends on besides the image, in one line.

        Raises:
            UserError: the detector has no name.
        """
        if self._finder is None or self.template is None:
            return ALIGNED
        name = getattr(self._finder.detector, "name", None)
        if not isinstance(name, str):
            raise UserError(
                f"detector: got {shown(self._finder.detector)} without a name · the settings of embeddings need the "
                "attribute name: one line with everything that affects the detector's results"
            )
        return f"{name}, pick {self._finder.pick}, {self.template.describe()}"

    def read(self, image: Image | ReadFile, name: str) -> Face:
        """Find the face of a photograph and align it, or check the size of a crop.

        An image file is turned as its EXIF data require.

        Args:
            image: the image.
            name: of the image, for messages.

        Raises:
            UnusableImage: the image is unreadable, has no face, or is a crop of a wrong size.
        """
        with _explained(name):
            pixels = _pixels(image)
            if self._finder is None:
                return Face(self._checked(pixels), 1)
            return self._cut(pixels, self._finder.find(pixels))

    def read_faces(self, image: Image | ReadFile, name: str) -> list[Face]:
        """Read one face like :meth:`read`; with ``on_several="all"`` read all, from left to right.

        Faces with implausible landmarks are left out. If no face remains, the image is unusable.
        """
        if self._finder is None or self.on_several != "all":
            return [self.read(image, name)]
        with _explained(name):
            pixels = _pixels(image)
            faces = find_faces(pixels, self._finder.detector)
            good = [found for found in faces if looks_like_a_face(found.points, pixels.shape)]
            if not good:
                check_fit(faces[0].points, pixels.shape)
            return [self._cut(pixels, found) for found in good]

    def _cut(self, pixels: Pixels, found: FoundFace) -> Face:
        assert self.template is not None
        crop = align(pixels, found.points, size=self.size, target=self.template.array)
        return Face(crop, found.num_faces, found.place, found.box, found.score)

    def _checked(self, pixels: Pixels) -> Pixels:
        try:
            return np.array(centre_crop(pixels, self.size))  # the caller may fill its array with another image
        except BadImage as error:
            raise BadImage(f"{error} · a photograph? omit --aligned (align=True)") from None


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnusableImage(f"{printable(name)}: cannot be read ({error.strerror or error})") from error
    except (BadImage, NoFace, SeveralFaces, BadLandmarks, cv2.error) as error:
        raise UnusableImage(f"{printable(name)}: {error}") from error


def _pixels(image: Image | ReadFile) -> Pixels:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise BadImage(f"got an array {image.shape} {image.dtype} · allowed: (H, W, 3) uint8, BGR")
        return np.ascontiguousarray(image)
    if isinstance(image, ReadFile | bytes | bytearray | memoryview):
        return decode(bytes(image))
    if not isinstance(image, str | Path):
        raise BadImage(f"got {shown(image)} · allowed: the path of a file, its bytes, or its pixels (H, W, 3) uint8")
    return decode(_read(image))


def _read(path: str | Path) -> bytes:
    if "\0" in str(path):
        raise BadImage("holds a NUL character · allowed: the path of a file")
    return read_plain(Path(path))
