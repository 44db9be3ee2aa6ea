"""Find the images or the people that sphereface search prints, exactly or by an index."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ..data.images import IMAGE_SUFFIXES
from ..errors import printable
from ..gallery import Gallery
from ..search import Found, Search, nearest, nearest_people
from ..search_index import LARGEST_EXACT, LEAST_RECALL, FaceIndex, open_index

_FACE = re.compile(rf"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})#[1-9][0-9]*$", re.IGNORECASE)
_MOST_ROWS = 4096  # that an index searches for people, before all images are compared


def find(args: argparse.Namespace, gallery: Gallery, query: npt.NDArray[np.float32]) -> tuple[list[Found], bool]:
    """Search for the images or people nearest to a query of (1, D).

    If an index finds fewer than ``args.top``, all images are compared.

    Returns:
        The results, the nearest first, and whether all images were compared.
    """
    found, is_exact = _search(args, gallery, query)
    if args.by == "person":
        sys.stderr.write(_note_on_nobody(sum(gallery.person(each.row) is None for each in found), len(found)))
        sys.stderr.write(_note_on_bystanders([gallery.paths[each.row] for each in found if gallery.person(each.row)]))
        if len(found) == 1 < min(args.top, len(gallery.paths)) and (person := gallery.person(found[0].row)):
            sys.stderr.write(
                f"note: --by person: all {len(gallery.paths):,} images are of one person, {printable(person)} · a "
                "person is <person>/<image> below the folder that was embedded\n"
            )
    return found, is_exact


def _search(args: argparse.Namespace, gallery: Gallery, query: npt.NDArray[np.float32]) -> tuple[list[Found], bool]:
    index = _index(args, gallery) if args.index == "faiss" else None
    if index is not None:
        most = min(len(gallery.paths), max(args.top, _MOST_ROWS))
        found = _results(args, gallery, partial(index.search, query), most)
        if len(found) == args.top:
            return found, False
        what = "people" if args.by == "person" else "images"
        sys.stderr.write(f"note: --index faiss: found {len(found)} of {args.top} {what}, so it compares all images\n")
    return _results(args, gallery, partial(nearest, gallery.embeddings, query), len(gallery.paths)), True


def _index(args: argparse.Namespace, gallery: Gallery) -> FaceIndex | None:
    """Return the index; None if this search must compare all images. Print a line about it."""
    if len(gallery.paths) <= LARGEST_EXACT:
        sys.stderr.write(
            f"note: --index faiss: the gallery has {len(gallery.paths):,} images, so this search compares all of them; "
            f"an index is for more than {LARGEST_EXACT:,}\n"
        )
        return None
    index = open_index(gallery, args.gallery if args.gallery.is_dir() else args.gallery.parent)
    sys.stderr.write(f"note: --index faiss: {index.facts.describe()}\n")
    if index.facts.is_good:
        return index
    sys.stderr.write(
        f"note: --index faiss: an index needs a recall of {LEAST_RECALL} and 64 different rows to measure it, so this "
        "search compares all images\n"
    )
    return None


def _results(args: argparse.Namespace, gallery: Gallery, search: Search, most: int) -> list[Found]:
    """Return the nearest images or people; for people, search for at most ``most`` rows."""
    if args.by == "person":
        return nearest_people(search, gallery.entry, args.top, most)
    rows, cosines = search(args.top)
    return [Found(row, cosine) for row, cosine in zip(rows[0].tolist(), cosines[0].tolist(), strict=True)]


def _note_on_nobody(num_nobody: int, num_found: int) -> str:
    """Return a line about results without a person; otherwise an empty text."""
    if not num_nobody:
        return ""
    return (
        f"note: --by person: {num_nobody} of {num_found} results are images in no person's folder, so each counts as "
        "one person · a person is <person>/<image> below the folder that was embedded\n"
    )


def _note_on_bystanders(paths: Sequence[str]) -> str:
    """Return a line about people whose nearest face is one of several of an image (``IMAGE#2``)."""
    faces = [path for path in paths if _FACE.search(path)]
    if not faces:
        return ""
    return (
        f"note: --by person: for {len(faces)} of {len(paths)} people the nearest face is one of several of an image, "
        f"such as {printable(faces[0])}: each counts as the person of the folder, also the face of somebody else\n"
    )
