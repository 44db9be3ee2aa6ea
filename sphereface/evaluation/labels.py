"""Are lists possible? No pair is of one person and of two people, and no image is of two people."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError, shown_key
from ..metrics import BoolArray, IntArray
from ..metrics.subjects import subjects_of

if TYPE_CHECKING:
    from .ijb_files import ImageList, TemplatePairs

log = logging.getLogger(__name__)

_ROWS = 2**20  # pairs looked at at a time: IJB-C has 15.7 million
Rows = npt.NDArray[np.integer[Any]]


def check_labels(
    path: Path,
    left: Rows,
    right: Rows,
    same: BoolArray,
    names: Sequence[object],
    *,
    refuse: bool = True,
    fold: IntArray | None = None,
) -> None:
    """Refuse a pair that is listed as one person and as two people; warn of pairs that tell less than they seem to.

    These are pairs of an image with itself and, with ``fold``, pairs that occur again.

    Args:
        path: the list, for messages.
        left, right: (P,) rows into ``names``. Which of the two sides an image is on makes no difference.
        same: (P,) bool, True for one person.
        names: of the images or templates.
        refuse: False warns of such pairs: a published ``.bin`` tells images apart by their content alone.
        fold: (P,) the fold of each pair.

    Raises:
        UserError: such a pair, or an image with itself as two people.
    """
    itself = left == right
    wrong = np.flatnonzero(itself & ~same)
    if not len(wrong):
        wrong = np.flatnonzero(_contradicted(left, right, same, len(names)))
    if len(wrong):
        a, b = (shown_key(str(names[side[wrong[0]]])) for side in (left, right))
        got = f"{a} with itself as two people" if a == b else f"{a} with {b} as one person and as two people"
        line = f"{path}: got {got}, {len(wrong):,} such pairs · allowed: one label for a pair · correct the list"
        if refuse:
            raise UserError(line)
        log.warning("%s", line)
    if itself.any():
        name = shown_key(str(names[left[int(np.argmax(itself))]]))
        log.warning("%s: %s pairs are of an image with itself, such as %s", path, f"{itself.sum():,}", name)
    if fold is not None:
        _warn_of_repeats(path, _keys(left, right, len(names)), fold)


def list_doubts(images: ImageList, pairs: TemplatePairs, known: IntArray, paths: tuple[Path, Path]) -> list[str]:
    """Say, a line each, where the lists of IJB contradict each other or themselves, with counts.

    Args:
        images: which of them make up which template.
        pairs: of templates.
        known: (T,) subject of each template by the lists of 1:N search; −1 where they do not say.
        paths: of the images and of the pairs, for messages.
    """
    lines = []
    unlike, alike = 0, 0
    for start in range(0, len(pairs.same), _ROWS):
        part = slice(start, start + _ROWS)
        left, right, same = known[pairs.left[part]], known[pairs.right[part]], pairs.same[part]
        told = (left >= 0) & (right >= 0)
        unlike += int((told & same & (left != right)).sum())
        alike += int((told & ~same & (left == right)).sum())
    if unlike or alike:
        lines.append(
            f"{paths[1].name}: {unlike:,} pairs of one person are of two subjects, and {alike:,} pairs of two people "
            "of one subject, by the lists of 1:N search"
        )
    _, number = np.unique(images.images, return_inverse=True)
    row = np.searchsorted(images.templates, images.template)
    seen = np.stack([number, row, images.media])
    if again := seen.shape[1] - np.unique(seen, axis=1).shape[1]:
        lines.append(f"{paths[0].name}: {again:,} lines are there already, and count again in their templates")
    if seen.shape[1] > number.max() + 1:  # an image has several lines
        subject = subjects_of(len(images.templates), pairs.left, pairs.right, pairs.same, known)
        people = np.bincount(np.unique(np.stack([number, subject[row]]), axis=1)[0])
        if shared := int((people > 1).sum()):
            lines.append(f"{paths[0].name}: {shared:,} images are in templates of two subjects or more")
    return lines


def _warn_of_repeats(path: Path, keys: IntArray, fold: IntArray) -> None:
    order = np.lexsort((fold, keys))
    again = keys[order][1:] == keys[order][:-1]
    across = int((again & (fold[order][1:] != fold[order][:-1])).sum())
    if again.any():
        other = f", {across:,} of them in another fold, which chooses the threshold for them" if across else ""
        log.warning("%s: %s of %s pairs are there already%s", path, f"{again.sum():,}", f"{len(keys):,}", other)


def shared_pairs(a: tuple[Rows, Rows], b: tuple[Rows, Rows], num_names: int) -> int:
    """Count the pairs of one list, (left, right), that another one has as well. Both are rows into the same names."""
    return int(np.isin(_keys(*a, num_names), _keys(*b, num_names)).sum())


def _contradicted(left: Rows, right: Rows, same: BoolArray, num_names: int) -> BoolArray:
    """(P,) bool: pairs of two people that are listed as one person too."""
    genuine = np.unique(_keys(left[same], right[same], num_names))
    found = np.zeros(len(same), dtype=bool)
    for start in range(0, len(same) if len(genuine) else 0, _ROWS):
        part = slice(start, start + _ROWS)
        keys = _keys(left[part], right[part], num_names)
        nearest = np.minimum(np.searchsorted(genuine, keys), len(genuine) - 1)
        found[part] = ~same[part] & (genuine[nearest] == keys)
    return found


def _keys(left: Rows, right: Rows, num_names: int) -> IntArray:
    """(P,) a number for each pair, the same for (a, b) and (b, a)."""
    return np.minimum(left, right).astype(np.int64) * num_names + np.maximum(left, right)
