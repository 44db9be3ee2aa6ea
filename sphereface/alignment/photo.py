"""One photograph to one aligned face, in memory: what verifying two photographs needs."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.images import decode
from .crop import CropSpec, Finder
from .detector import FoundFace, NoFace, SeveralFaces
from .similarity import BadLandmarks, Image, align


@dataclass(frozen=True)
class CroppedFace:
    """The face of a photograph.

    Args:
        crop: (*size, 3) uint8, BGR.
        found: its landmarks in the photograph, the detector's score, and among how many faces it
            was chosen.
    """

    crop: Image
    found: FoundFace


def crop_photo(data: bytes, finder: Finder, spec: CropSpec) -> CroppedFace:
    """Find, align and cut out the face of one encoded photograph (JPEG, PNG, …), turned as its EXIF
    says.

    Raises:
        BadImage: not a whole image.
        NoFace: no face was found, or its landmarks determine no crop.
    """
    image = decode(data)
    try:
        found = finder.find(image)
        crop = align(image, found.points, size=spec.size, target=spec.landmarks)
    except (BadLandmarks, SeveralFaces) as error:
        raise NoFace(str(error)) from error
    return CroppedFace(crop, found)
