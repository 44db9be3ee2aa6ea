"""Do what ``sphereface embed`` says; its options are in
:mod:`sphereface.commands.parsers.embed`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..alignment.align import list_images
from ..api import Embedded, FaceEmbedder
from ..data.bins import BinImage, is_bin, read_bin
from ..data.images import IMAGE_SUFFIXES
from ..data.text_files import read_text_lines
from ..data.walking import check_writable
from ..errors import UserError, listed, shown
from ..evaluation.embedding_table import SUFFIX, write_table
from ..faces import Image
from ..search import Gallery, make_gallery
from ..small_files import check_replaceable
from .face_options import chosen_on_several, make_embedder, note_on_several

FORMAT = 2
"""Of the file: 1 had unit vectors and whole paths."""

_SETS = (".zip", ".rec", ".idx", ".tar", ".parquet", ".arrow", ".lmdb")  # training sets, which are no galleries


@dataclass(frozen=True)
class EmbeddedImages:
    """Embeddings of N images as the network gives them.

    Attributes:
        root: folder of the images, or the file that they are in, as the user wrote it.
        names: relative to ``root``.
        image: (N, D) float32.
        mirror: (N, D) float32, of the mirror images; None without.
    """

    root: str
    names: tuple[str, ...]
    image: npt.NDArray[np.float32]
    mirror: npt.NDArray[np.float32] | None


def run(args: argparse.Namespace) -> int:
    """Embed, write, report."""
    if args.output.suffix != SUFFIX:
        raise UserError(f"{args.output}: got suffix {args.output.suffix!r} · allowed: {SUFFIX}")
    if is_bin(args.images) and not args.aligned:
        raise UserError(f"{args.images}: a .bin holds aligned crops · add --aligned")
    check_writable(args.output)
    check_replaceable(args.output, b"checkpoint_sha256", "OUT.npz")
    embedder = make_embedder(args, on_several=chosen_on_several(args))
    found = embed_images(embedder, args.images)
    write_table(
        args.output, found.names, found.image, found.mirror,
        root=found.root, checkpoint_sha256=embedder.sha256, settings=embedder.settings, format=FORMAT,
    )  # fmt: skip
    both = "" if found.mirror is None else ", and as many of mirror images"
    print(f"{args.output}: {len(found.names):,} embeddings of {found.image.shape[1]} numbers{both}")
    return 0


def embed_images(embedder: FaceEmbedder, place: Path) -> EmbeddedImages:
    """Embed the images of a folder, a ``.bin`` or a list. Those that cannot be used are listed on
    stderr.

    Raises:
        UserError: there are no images, or none that can be used.
    """
    root, names, images = _find(place)
    result = embedder.try_embed(images, progress="embedding", normalise=False)
    problems = list(result.problems.values())
    if problems:
        print(f"left out {len(problems)} of {len(names)} images:{listed(problems)}", file=sys.stderr)
    sys.stderr.write(note_on_several(names, result, embedder))
    if not len(result.rows):
        advice = "" if embedder.reader.template is None else " · add --aligned if they are crops"
        raise UserError(f"{place}: none of its {len(names)} images can be used{advice}")
    parts = np.split(result.embeddings, 2, axis=1) if embedder.flip else [result.embeddings, None]
    return EmbeddedImages(str(root), _names_of_rows(names, result), *parts)


def _names_of_rows(names: Sequence[str], result: Embedded) -> tuple[str, ...]:
    """Name each row by its image; of several rows of one image, add their numbers."""
    rows = result.rows.tolist()
    count, seen = Counter(rows), Counter[int]()
    named = []
    for row in rows:
        seen[row] += 1
        named.append(names[row] if count[row] == 1 else f"{names[row]}#{seen[row]}")
    return tuple(named)


def embed_folder(embedder: FaceEmbedder, folder: Path) -> Gallery:
    """Embed the images of a folder for one search; see :func:`embed_images`."""
    found = embed_images(embedder, folder)
    return make_gallery(
        found.root, found.names, found.image, found.mirror,
        checkpoint_sha256=embedder.sha256, settings=embedder.settings,
    )  # fmt: skip


def _find(place: Path) -> tuple[Path, Sequence[str], Sequence[Image]]:
    """Return the root, the names and the images of a folder, a ``.bin`` or a list."""
    if place.is_dir():
        walked = list_images(place)
        if not_read := walked.not_read():
            print(f"{place}: {not_read}", file=sys.stderr)
        return place, walked.names, walked.images
    if is_bin(place):
        images, pairs = read_bin(place)
        return place, pairs.names, _Bytes(images)
    if place.suffix.lower() in {*IMAGE_SUFFIXES, *_SETS} or not place.is_file():
        raise UserError(f"{place}: not a folder · allowed: a folder of images, a .bin, or a list of images")
    names = _read_list(place)
    return place.parent, names, [place.parent / name for name in names]


def _read_list(path: Path) -> list[str]:
    """Read a path from each line that is not blank."""
    lines = read_text_lines(path, "a list of images", strict=True)
    names = [line.strip() for line in lines if line.strip()]
    missing = [name for name in names if not os.path.isfile(path.parent / name)]  # noqa: PTH113 -- never raises
    if not names or missing:
        got = f"{len(missing):,} of {len(names):,} lines name no file: {shown(missing[0])}" if missing else "no lines"
        raise UserError(f"{path}: {got} · allowed: the path of an image on each line, relative to the list's folder")
    return names


class _Bytes(Sequence[Image]):
    """The encoded images of a ``.bin``, each read when it is needed."""

    def __init__(self, images: Sequence[BinImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> bytes:  # type: ignore[override]  # no slices
        try:
            return self.images[row].read_bytes()
        except OSError as error:
            raise UserError(f"{self.images[row]}: cannot be read ({error.strerror})") from error
