"""Warn where a figure counts an image and a copy of it, byte for byte, as two images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.pairs import Pairs
from ..errors import count_of, shown_key
from ..metrics import IntArray
from .labels import repeated_pairs

log = logging.getLogger(__name__)

_ADVICE = "images of equal bytes are one image · leave the copies out"


def content_of(digests: Sequence[bytes]) -> IntArray:
    """Return (N,) a number for each image, equal for equal digests: the first row with it."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, row) for row, digest in enumerate(digests)], dtype=np.int64)


def warn_of_copies_in_pairs(pairs: Pairs, content: IntArray | None) -> None:
    """Warn of pairs of an image with a copy of it, and of pairs that repeat others through copies.

    Args:
        pairs: P pairs.
        content: for each of ``pairs.names``, see :func:`content_of`; None if it is unknown.
    """
    if content is None:
        return
    content = np.unique(content, return_inverse=True)[1]  # of some images of a set: small numbers
    if content.max(initial=0) + 1 >= len(content):
        return
    left, right = content[pairs.left], content[pairs.right]
    itself = (left == right) & (pairs.left != pairs.right)
    if itself.any():
        first = int(np.argmax(itself))
        a, b = (shown_key(pairs.names[side[first]]) for side in (pairs.left, pairs.right))
        impostors = int((itself & ~pairs.same).sum())
        log.warning(
            "%s: %s an image with a copy of it, such as %s with %s%s · %s",
            *(pairs.path, count_of(int(itself.sum()), "pair compares", "pairs compare"), a, b),
            *(f", {impostors:,} of them as two people" if impostors else "", _ADVICE),
        )
    named = repeated_pairs(pairs.left, pairs.right, len(pairs.names))
    if again := int((repeated_pairs(left, right, len(content)) & ~named).sum()):
        number = "pairs repeats" if again == 1 else "pairs repeat"
        log.warning(
            "%s: %s of %s %s an earlier pair with copies of its images · %s",
            *(pairs.path, f"{again:,}", f"{len(pairs):,}", number, _ADVICE),
        )


def warn_of_copies_between(
    root: Path,
    content: IntArray | None,
    names: Sequence[str],
    searched: IntArray,
    gallery: IntArray,
    *,
    what: str = "searched image",
) -> None:
    """Warn of searched images that have a copy in the gallery.

    Args:
        root: the folder, for messages.
        content: for each image, see :func:`content_of`; None if it is unknown.
        names: of the images.
        searched, gallery: rows of the images.
        what: one of ``searched``, for messages.
    """
    if content is None:
        return
    entry = dict(zip(content[gallery].tolist(), gallery.tolist(), strict=True))
    found = [(row, entry[key]) for row, key in zip(searched.tolist(), content[searched].tolist(), strict=True)
             if key in entry]  # fmt: skip
    if found:
        probe, enrolled = (shown_key(names[row]) for row in found[0])
        log.warning(
            "%s: %s in the gallery, such as %s of %s · %s",
            *(root, count_of(len(found), f"{what} has a copy", f"{what}s have copies"), probe, enrolled),
            _ADVICE,
        )


def warn_of_copies_of_people(root: Path, content: IntArray | None, names: Sequence[str], person: IntArray) -> None:
    """Warn of images that are copies of another image of the same person.

    Args:
        root: the folder, for messages.
        content: for each image, see :func:`content_of`; None if it is unknown.
        names: of the images.
        person: (N,) the person on each image.
    """
    if content is None:
        return
    keys = person * (content.max(initial=0) + 1) + content
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[number] != np.arange(len(keys)))
    if len(copies):
        copy, of = shown_key(names[copies[0]]), shown_key(names[first[number][copies[0]]])
        log.warning(
            "%s: %s of the same person, such as %s of %s · %s",
            *(root, count_of(len(copies), "image is a copy of another", "images are copies of others"), copy, of),
            _ADVICE,
        )
