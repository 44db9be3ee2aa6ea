"""List the images that a user names: a folder, a ``.bin`` of InsightFace, or a list of paths."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .alignment.align import list_images
from .data.bins import BinImage, is_bin, read_bin
from .data.images import IMAGE_SUFFIXES
from .data.pair_lines import unquoted
from .data.text_files import read_text_lines
from .errors import UserError, count_of, printable, refusing, shown
from .faces import Image
from .files import content_number, content_stamp, read_plain

_SETS = (".zip", ".rec", ".idx", ".tar", ".parquet", ".arrow", ".lmdb")  # training sets, not folders of images
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class ImageList:
    """N images.

    Attributes:
        place: the path that the user gave.
        root: folder of the images, or the file that holds them, as the user wrote it. It is
            absolute if a list has absolute paths, so that the result does not depend on the current
            folder.
        names: (N,) paths relative to ``root``.
        images: (N,) the images.
        not_read: a line about folders without an image and files that are not images, or lines
            that repeat one; empty if there are none.
    """

    place: Path
    root: Path
    names: Sequence[str]
    images: Sequence[Image]
    not_read: str = ""

    def people_root(self) -> str:
        """Return the folder of the people's folders, written like ``root``; empty: it is ``root``.

        A list may lie anywhere: its people are in the folder that all its images share, as if that
        folder were named. If that is ``root`` or above it, ``root`` counts.
        """
        if self.root == self.place:
            return ""
        root = os.path.abspath(self.root)  # noqa: PTH100 -- links stay
        paths = (os.path.join(root, name) for name in self.names)  # noqa: PTH118 -- Path costs 20 times as much
        folders = {os.path.dirname(os.path.normpath(path)) for path in paths}  # noqa: PTH120
        common = os.path.commonpath(folders)
        if len(folders) == 1:
            common = os.path.dirname(common)  # noqa: PTH120
        if os.path.commonpath([root, common]) == common:
            return ""
        return str(self.root / os.path.relpath(common, root))

    def stamps(self) -> npt.NDArray[np.int64]:
        """Return (N, 2) sizes in bytes, and numbers that mix modification times and some content.

        They show whether an image was replaced, or has exchanged its name with another one. All
        images of a ``.bin`` have the values of that file. Both values are -1 if a file cannot
        be read.
        """
        if isinstance(self.images, _Bytes):
            return np.array([_stamp(self.root)] * len(self.names), dtype=np.int64)
        return np.array([_stamp(image) for image in self.images], dtype=np.int64).reshape(-1, 2)


def list_named(place: Path) -> ImageList:
    """List the images of a folder, of a ``.bin``, or of a text file.

    A folder may have subfolders. A text file has one path on each line; each line has a row, also
    one that repeats an image.

    Raises:
        UserError: there are no images, or ``place`` has another form.
    """
    if place.is_dir():
        walked = list_images(place)
        not_read = "; ".join(filter(None, (walked.without_images(), walked.not_read())))
        return ImageList(place, place, walked.names, walked.images, not_read)
    if is_bin(place):
        images, pairs = read_bin(place)
        return ImageList(place, place, pairs.names, _Bytes(images))
    if place.suffix.lower() in {*IMAGE_SUFFIXES, *_SETS} or not place.is_file():
        raise UserError(f"{place}: not a folder · allowed: a folder of images, a .bin, or a list of images")
    root = place.parent
    names, note = _read_list(place), ""
    if any(map(os.path.isabs, names)):
        root = root.absolute()
    if repeated := _repeated(names, root):
        number = count_of(len(repeated), "line repeats", "lines repeat")
        note = f"{number} an image of an earlier line, such as {printable(repeated[0])}: each line has a row"
    return ImageList(place, root, names, [root / name for name in names], note)


def _read_list(path: Path) -> list[str]:
    """Read a path from each line that is not blank."""
    lines = read_text_lines(path, "a list of images", strict=True)
    names = [unquoted(line) for line in lines if line.strip()]
    missing = [name for name in names if not os.path.isfile(path.parent / name)]  # noqa: PTH113 -- never raises
    if not names or missing:
        got = (
            f"{len(missing):,} of {len(names):,} lines name no file: {shown(missing[0])}" if missing else "got no lines"
        )
        raise UserError(f"{path}: {got} · allowed: the path of an image on each line, relative to the list's folder")
    return names


def _repeated(names: Sequence[str], root: Path) -> list[str]:
    """Return the names that mean the image of an earlier name.

    ``a/b.jpg``, ``./a/b.jpg`` and the absolute path mean one image. A link counts as an image of
    its own, as in a folder.
    """
    folder_of = functools.cache(os.path.realpath)
    seen: set[tuple[str, str]] = set()
    repeated = []
    for name in names:
        folder, file = os.path.split(root / name)
        image = (folder_of(folder), file)
        if image in seen:
            repeated.append(name)
        seen.add(image)
    return repeated


class _Bytes(Sequence[Image]):
    """The encoded images of a ``.bin``. Each is read when it is needed."""

    def __init__(self, images: Sequence[BinImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> bytes:  # type: ignore[override]  # no slices
        with refusing(f"{self.images[row]}: cannot be read"):
            return self.images[row].read_bytes()


class Hashed(Sequence[Image]):
    """The encoded images of a list. Each is hashed when it is read.

    Attributes:
        hashes: (N,) uint64, see :func:`.files.content_number`; 0 for an image that was not read.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        self._images = images
        self.hashes = np.zeros(len(images), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> Image:  # type: ignore[override]  # no slices
        image = self._images[row]
        try:
            data = image if isinstance(image, bytes) else read_plain(Path(str(image)))
        except (OSError, ValueError):  # the reader of the path gives the reason
            return image
        self.hashes[row] = content_number(data)
        return data


def _stamp(file: Image) -> tuple[int, int]:
    try:
        size, number = content_stamp(file)  # type: ignore[arg-type]  # a path
    except OSError:
        return -1, -1
    return size, max(_INT64.min, min(number, _INT64.max))  # a time before 1677 or after 2262 does not fit
