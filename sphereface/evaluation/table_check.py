"""Compare the images of a set on disk with those from which a table of embeddings was made.

Images are found by their names, and another set may have the same names. Also, an image may have
been replaced since. A hash of a file tells this, or its size and time in the gallery of a folder.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.bins import is_bin
from ..data.images import EncodedImage, read_encoded
from ..data.pairs import find_image
from ..errors import UserError, count_of, printable
from ..files import content_number, content_stamp
from .images import Images

log = logging.getLogger(__name__)

_MOST = 20_000  # images that are compared: 0.6 s for crops in the page cache

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Origin:
    """The images from which a table of M rows was made.

    Attributes:
        path: of the table.
        root: folder of the images, or the ``.bin`` that holds them.
        hashes: (M,) uint64, see :func:`.files.content_number`; 0 if unknown. None without them.
        stamps: (M, 2) int64, see :func:`.files.content_stamp`; -1 if unknown. None without them.
        names: of the M images, whose suffixes tell their format.
        photographs: the images are photographs, and a set may have crops with the same names. So
            only an image in its own place is compared.
    """

    path: Path
    root: Path
    hashes: Array | None = None
    stamps: Array | None = None
    names: Sequence[str] = ()
    photographs: bool = False


def changed_rows(origin: Origin, images: Images, rows: npt.NDArray[np.int64], set_name: str) -> frozenset[int]:
    """Return the rows of a table whose images on disk are not those that were embedded.

    Log a warning about them. Nothing is compared if the table or the disk lacks what it takes. Of
    more than 20,000 images, so many are compared, evenly spread.

    Args:
        origin: of the table.
        images: N images of a set, on disk or not.
        rows: (N,) row of each image.
        set_name: for messages.

    Raises:
        UserError: most images are others.
    """
    if origin.hashes is None and (origin.stamps is None or is_bin(origin.root) != is_bin(images.root)):
        return frozenset()
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_MOST, len(images))).astype(np.int64)).tolist()
    compare = _by_stamp if origin.hashes is None else _by_hash
    found, folder_of = [], functools.cache(os.path.realpath)
    for number, file in zip(chosen, _files(images, chosen), strict=True):
        if origin.photographs and not _in_its_place(origin, int(rows[number]), file, folder_of):
            continue
        verdict = None if file is None else compare(origin, int(rows[number]), file, images.root)
        if file is not None and verdict is not None:  # another format may hold the same pixels
            name = origin.names[rows[number]] if origin.names else ""
            again = isinstance(file, Path) and Path(name).suffix.lower() not in ("", file.suffix.lower())
            found.append((number, (verdict[0], verdict[1] and not again)))
    changed = [number for number, (same, _) in found if not same]
    certain = [number for number, (_, other) in found if other]
    content, copied = "content", ""
    if origin.hashes is None:
        content, copied = "sizes, times or content", "; a copy keeps its times with cp -a"
    if len(certain) * 2 > len(found):
        raise UserError(
            f"{origin.path}: got {set_name}, but {len(certain):,} of the {count_of(len(found), 'image', 'images')} "
            f"compared in {images.root} have other content than those embedded, such as "
            f"{printable(images.names[certain[0]])} · allowed: the images that were embedded, of "
            f"{printable(str(origin.root))} · give these, or embed those in {images.root}"
        )
    if changed:
        log.warning(
            "%s: %s of the %s compared in %s have other %s than those embedded, such as %s · embed them again%s",
            origin.path, f"{len(changed):,}", count_of(len(found), "image", "images"), images.root, content,
            printable(images.names[changed[0]]), copied,
        )  # fmt: skip
    return frozenset(int(rows[number]) for number in changed)


def _files(images: Images, chosen: Sequence[int]) -> Iterator[EncodedImage | None]:
    """Yield the file of each chosen image, or None if it is not on disk."""
    if images.files is not None:
        yield from (images.files[number] for number in chosen)
        return
    names = [images.names[number].replace("\\", "/") for number in chosen]
    found = [find_image(images.root / name) for name in names]
    if not any(found):  # they may be in one flat folder
        found = [find_image(images.root / name.rpartition("/")[2]) for name in names]
    yield from found


def _in_its_place(origin: Origin, row: int, file: EncodedImage | None, folder_of: Callable[[str], str]) -> bool:
    """Return whether a file has the path of the image that was embedded."""
    if not isinstance(file, Path):
        return False
    (folder, name), (own_folder, own) = os.path.split(file), os.path.split(origin.root / origin.names[row])
    return name == own and folder_of(folder) == folder_of(own_folder)


def _by_hash(origin: Origin, row: int, file: EncodedImage, root: Path) -> tuple[bool, bool] | None:  # noqa: ARG001
    """Return whether an image is the embedded one, and whether it is certainly another one.

    None: this is unknown.
    """
    assert origin.hashes is not None
    try:
        number = content_number(read_encoded(file))
    except (OSError, UserError):
        return None
    known = int(origin.hashes[row])
    return (known == number, known != number) if known else None


def _by_stamp(origin: Origin, row: int, file: EncodedImage, root: Path) -> tuple[bool, bool] | None:
    """Compare like :func:`_by_hash`. Only another size is certainly another image."""
    assert origin.stamps is not None
    try:
        size, number = content_stamp(file if isinstance(file, Path) else root)
    except OSError:
        return None
    known = origin.stamps[row].tolist()
    return None if known[0] < 0 else ([size, number] == known, size != known[0])
