"""Read the crops that a figure of a search shows, as the gallery's embeddings were made."""

from __future__ import annotations

import copy
import functools
import os
import re
import sys
from collections.abc import Callable, Sequence

import numpy as np

from ..api import FaceEmbedder
from ..data.bins import BinImage, is_bin, read_bin
from ..errors import UserError, printable
from ..faces import ALIGNED, FaceReader, Pixels, UnusableImage
from ..gallery import Gallery

PICK = re.compile(", pick (centre|largest), ")
"""In the settings of a gallery."""

_NUMBER = re.compile("[1-9][0-9]{0,5}")  # number of a face in an image, see sphereface embed --on-several all
_SAME = 0.99  # cosine of a crop and its own row; float16, another device or decoder change it less


def crops_of(embedder: FaceEmbedder, gallery: Gallery, rows: Sequence[int]) -> list[Pixels | None]:
    """Return the crops of some rows.

    None means an image that cannot be read any more, or that changed since it was embedded.
    Print a line about each kind on stderr.
    """
    reader, files = _reader_of(gallery, embedder.reader), [gallery.file(row) for row in rows]
    crops = read_crops(reader, files)
    shown = [place for place, crop in enumerate(crops) if crop is not None]
    if not shown:
        return crops
    changed = []
    now = embedder.embed_crops(np.stack([crop for crop in crops if crop is not None]))
    for place, embedding in zip(shown, now, strict=True):
        cosine = float(embedding @ gallery.embeddings[rows[place] : rows[place] + 1][0])
        if cosine < _SAME:
            crops[place] = None
            path = printable(files[place])
            changed.append(f"{path} changed since it was embedded (cosine {cosine:.2f} with its row)")
    if changed:
        sys.stderr.write(f"note: {len(changed)} of {len(rows)} images are not shown: {changed[0]} · embed them again\n")
    return crops


def _reader_of(gallery: Gallery, reader: FaceReader) -> FaceReader:
    """Return the reader for the images of a gallery.

    They may be crops even if the query is a photograph, or photographs of which another face was
    picked.
    """
    if reader.template is None:
        return reader
    if gallery.settings.startswith(ALIGNED):
        return FaceReader(reader.size, aligned=True, detector=None)
    picked = PICK.search(gallery.settings)
    if picked is None or picked[1] == reader.pick:
        return reader
    return FaceReader(reader.size, aligned=False, pick=picked[1], detector=reader.detector, template=reader.template)


def read_crops(reader: FaceReader, paths: Sequence[str]) -> list[Pixels | None]:
    """Return the crops of the results; None for an image that cannot be read any more.

    Print a line about such images on stderr.
    """
    crops: list[Pixels | None] = []
    problems = []
    opened = functools.cache(_images_in)
    for path in paths:
        try:
            crops.append(_crop(reader, path, opened))
        except (UserError, OSError) as error:
            crops.append(None)
            problems.append(str(error))
    if problems:
        reason = f"{printable(problems[0])} · if they moved, embed them again"
        sys.stderr.write(f"note: {len(problems)} of {len(paths)} images cannot be shown: {reason}\n")
    return crops


def _images_in(file: str) -> dict[str, BinImage]:
    images, pairs = read_bin(file)
    return dict(zip(pairs.names, images, strict=True))


def _crop(reader: FaceReader, path: str, opened: Callable[[str], dict[str, BinImage]]) -> Pixels:
    """Read the image of a gallery's row.

    The path names a file, one of several faces of a file (``IMAGE#2``), or an image of a ``.bin``.
    ``opened`` returns the images of a ``.bin`` by their names, and reads each ``.bin`` once.

    Raises:
        UnusableImage: the image or the face cannot be found.
    """
    file, _, number = path.rpartition("#")
    parent, name = os.path.split(path)
    if _NUMBER.fullmatch(number) and os.path.isfile(file) and not os.path.isfile(path):  # noqa: PTH113 -- never raises
        every = copy.copy(reader)
        every.on_several = "all"
        faces = every.read_faces(file, path)
        if int(number) <= len(faces):
            return faces[int(number) - 1].crop
        raise UnusableImage(f"{path}: the image has {len(faces)} faces")
    if is_bin(parent) and os.path.isfile(parent):  # noqa: PTH113
        image = opened(parent).get(name)
        if image is None:
            raise UnusableImage(f"{path}: the .bin has no such image")
        return reader.read(image.read_bytes(), path).crop
    return reader.read(path, path).crop
