"""Pictures of any kind to aligned crops: files, encoded bytes or pixels, photographs or crops already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .alignment.detector import PICKS, Detector, NoFace, find_face
from .alignment.mtcnn import Mtcnn
from .alignment.similarity import TEMPLATES, BadLandmarks, Size, align
from .data.images import BadImage, centre_crop, decode
from .errors import UserError

Pixels = npt.NDArray[np.uint8]
Image = str | Path | bytes | Pixels
"""A picture: the path of a file, its encoded bytes, or its pixels (H, W, 3) uint8 in BGR."""


class BadPicture(UserError):
    """A picture that cannot be used: unreadable, without a face, or of a wrong size. The message says which and why."""


@dataclass(frozen=True)
class Face:
    """The face of a picture.

    Attributes:
        crop: (H, W, 3) uint8, BGR, of the network's size.
        num_faces: among how many it was chosen; 1 where nothing was searched.
    """

    crop: Pixels
    num_faces: int


class FaceReader:
    """Makes crops of one size.

    Args:
        size: (height, width) of the crops in pixels.
        aligned: pictures are crops of that size already (112×112 ones are cut to 112×96 where need be).
        pick: of several faces on a photograph, the one nearest its ``"centre"``, or the ``"largest"``.
        detector: for photographs; None: MTCNN.
        template_origin: of the alignment, 0 or 1.

    Raises:
        UserError: an argument is not allowed, or MTCNN is not installed.
    """

    def __init__(
        self, size: Size, *, aligned: bool, pick: str = "centre", detector: Detector | None, template_origin: int = 0
    ) -> None:
        if pick not in PICKS:
            raise UserError(f"pick: got {pick!r} · allowed: {', '.join(PICKS)}")
        if template_origin not in (0, 1):
            raise UserError(f"template_origin: got {template_origin} · allowed: 0, 1")
        if not aligned and size not in TEMPLATES:
            raise UserError(
                f"the network reads {size[0]}×{size[1]} crops (height × width), for which there is no template · "
                "give it crops of that size and align=False (--aligned)"
            )
        self.size, self.pick, self.origin = size, pick, template_origin
        self._detector = None if aligned else detector or Mtcnn()

    @property
    def settings(self) -> str:
        """All that a crop depends on besides the picture, in a line."""
        if self._detector is None:
            return "aligned crops"
        return f"{self._detector.name}, pick {self.pick}, template origin {self.origin}"

    def read(self, image: Image, name: str) -> Face:
        """Find, align and cut out the face of a picture, turned as its EXIF says; or check that it is a crop.

        Args:
            image: the picture.
            name: what messages call it.

        Raises:
            BadPicture: unreadable, without a face, or a crop of a wrong size.
        """
        try:
            pixels = _pixels(image)
            if self._detector is None:
                return Face(self._checked(pixels), 1)
            found = find_face(pixels, self._detector, self.pick)
            return Face(align(pixels, found.points, size=self.size, origin=self.origin), found.num_faces)
        except OSError as error:
            raise BadPicture(f"{name}: cannot be read ({error.strerror or error})") from error
        except (BadImage, NoFace, BadLandmarks, cv2.error) as error:
            raise BadPicture(f"{name}: {error}") from error

    def _checked(self, pixels: Pixels) -> Pixels:
        try:
            return centre_crop(pixels, self.size)
        except BadImage as error:
            raise BadImage(f"{error} · a photograph? leave --aligned out (align=True)") from None


def _pixels(image: Image) -> Pixels:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise BadImage(f"got an array {image.shape} {image.dtype} · allowed: (H, W, 3) uint8, BGR")
        return np.ascontiguousarray(image)
    return decode(image if isinstance(image, bytes) else Path(image).read_bytes())
