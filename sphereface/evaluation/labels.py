"""Check lists of pairs for contradictions and repetitions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.pairs import Pairs
from ..data.sources.selection import person_of
from ..errors import UserError, count_of, shown_key
from ..metrics import BoolArray, FloatArray, Ids, IntArray
from ..metrics.subjects import subjects_of
from ..metrics.verification import counted

if TYPE_CHECKING:
    from .ijb_files import ImageList, TemplatePairs

log = logging.getLogger(__name__)

_ONE_PERSON = {"folders": "each folder is one person", "names": "the name before the number is the person's"}
_CONTRADICTING = 0.25  # largest share of labels
_ROWS = 2**20  # pairs checked at a time: IJB-C has 15.7 million


def check_labels(
    path: Path,
    left: Ids,
    right: Ids,
    same: BoolArray,
    names: Sequence[object],
    *,
    refuse: bool = True,
    fold: IntArray | None = None,
) -> None:
    """Refuse pairs that are listed as one person and as two people; warn of uninformative pairs.

    Uninformative are pairs of an image with itself and, with ``fold``, repeated pairs. The order of
    the two images of a pair does not matter.

    Args:
        path: the list, for messages.
        left, right: (P,) rows of ``names``.
        same: (P,) bool, True for one person.
        names: names of the images or templates.
        refuse: False only warns of contradictory pairs, since a published ``.bin`` distinguishes
            images only by their content.
        fold: (P,) the fold of each pair.

    Raises:
        UserError: a pair has both labels, or a pair of an image with itself is labelled as two
            people.
    """
    itself = left == right
    wrong = np.flatnonzero(itself & ~same)
    if not len(wrong):
        wrong = np.flatnonzero(_contradicted(left, right, same, len(names)))
    if len(wrong):
        a, b = (shown_key(str(names[side[wrong[0]]])) for side in (left, right))
        got = f"{a} with itself as two people" if a == b else f"{a} with {b} as one person and as two people"
        number = count_of(len(wrong), "such pair", "such pairs")
        advice = "correct the list" if refuse else "images of equal bytes are one image"
        line = f"{path}: got {got}, {number} · allowed: one label for a pair · {advice}"
        if refuse:
            raise UserError(line)
        log.warning("%s", line)
    if itself.any():
        name = shown_key(str(names[left[int(np.argmax(itself))]]))
        number = count_of(int(itself.sum()), "pair compares", "pairs compare")
        log.warning("%s: %s an image with itself, such as %s", path, number, name)
    if fold is not None:
        _warn_of_repeats(path, _keys(left, right, len(names)), fold)


def check_folders(path: Path, left: Ids, right: Ids, same: BoolArray, names: Sequence[str]) -> None:
    """Warn of labels that contradict the folders of the images, where most labels agree with them.

    A person may have folders within folders, or be the last folder: the way counts in which the
    fewest labels disagree. If more than a quarter of one kind does, the folders are not people.
    Without folders, the name before a number counts, as in ``Ann_0001.jpg``.

    Args:
        path: the list, for messages.
        left, right: (P,) rows of ``names``.
        same: (P,) bool, True for one person.
        names: names of the images.
    """
    folders, what = [name.split("/")[:-1] for name in names], "folders"
    if not any(folders):
        folders, what = [[person_of(name)] for name in names], "names"
    if not all(map(any, folders)):
        return
    wrong = np.ones(len(same), dtype=bool)
    ways = [["/".join(each[:depth]) for each in folders] for depth in range(1, max(map(len, folders), default=0) + 1)]
    for way in (*ways, [each[-1] for each in folders]):
        person = np.unique(way, return_inverse=True)[1]
        found = (person[left] == person[right]) != same
        wrong = found if found.sum() < wrong.sum() else wrong
    if wrong.any() and all(wrong[same == kind].mean() <= _CONTRADICTING for kind in np.unique(same)):
        first = int(np.argmax(wrong))
        a, b = (shown_key(names[side[first]]) for side in (left, right))
        log.warning(
            "%s: %s of %s labels contradict the %s of their images, the first that of %s with %s as %s · if %s, "
            "correct the list",
            *(path, f"{int(wrong.sum()):,}", f"{len(wrong):,}", what, a, b),
            *("one person" if same[first] else "two people", _ONE_PERSON[what]),
        )


def check_both_kinds(path: Path, genuine: int, impostor: int, one: str = "one person", two: str = "two people") -> None:
    """Refuse pairs that are all of one kind.

    Args:
        path: the list, for messages.
        genuine, impostor: number of pairs of each kind.
        one, two: description of each kind.

    Raises:
        UserError: there are no pairs of one kind.
    """
    if not genuine or not impostor:
        got = f"{count_of(genuine, 'pair', 'pairs')} of {one} and {impostor:,} of {two}"
        raise UserError(f"{path}: got {got} · allowed: one or more of each")


def repeated_pairs(left: Ids, right: Ids, num_names: int) -> BoolArray:
    """Return (P,) bool: pairs that repeat an earlier pair of the list, in either order."""
    keys = _keys(left, right, num_names)
    found = np.zeros(len(keys), dtype=bool)
    ordered = np.sort(keys)
    if (ordered[1:] == ordered[:-1]).any():  # rare, and the order costs twice as much
        order = np.argsort(keys, kind="stable")
        found[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return found


def num_repeated_impostors(pairs: Pairs, scores: FloatArray) -> int:
    """Count the impostor pairs of a ROC curve that repeat an earlier pair of the list.

    Args:
        pairs: P pairs.
        scores: (P,) float, their scores.
    """
    rows = np.flatnonzero(~pairs.same & counted(scores, pairs.same))
    return int(repeated_pairs(pairs.left[rows], pairs.right[rows], len(pairs.names)).sum())


def check_groups(path: Path, groups: Sequence[tuple[str, Pairs]]) -> None:
    """Refuse pairs that two groups label differently; warn of pairs and images in two groups.

    Raises:
        UserError: two groups label a pair differently.
    """
    label = dict[tuple[str, str], tuple[str, bool]]()
    group_of = dict[str, str]()
    pairs_in_two, images_in_two = list[str](), set[str]()
    for group, pairs in groups:
        for a, b, same in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist(), strict=True):
            key = pairs.names[min(a, b)], pairs.names[max(a, b)]
            first, label_there = label.setdefault(key, (group, same))
            if first != group:
                text = f"{shown_key(key[0])} with {shown_key(key[1])} in {shown_key(first)} and {shown_key(group)}"
                if label_there != same:
                    raise UserError(
                        f"{path}: got {text}, as one person and as two people · allowed: one label for a pair · "
                        "correct the list"
                    )
                pairs_in_two.append(text)
        images_in_two.update(name for name in pairs.names if group_of.setdefault(name, group) != group)
    if pairs_in_two:
        number = count_of(len(pairs_in_two), "pair is", "pairs are")
        log.warning("%s: %s in two groups, such as %s", path, number, pairs_in_two[0])
    elif images_in_two:
        number = count_of(len(images_in_two), "image is", "images are")
        log.warning("%s: %s in pairs of two groups, such as %s", path, number, shown_key(min(images_in_two)))


def _repeated(number: int) -> str:
    one = "line repeats an earlier line, and counts again in its template"
    return count_of(number, one, "lines repeat an earlier line, and count again in their templates")


def image_doubts(name: str, images: Sequence[str], template: Ids, subjects: Callable[[], Ids]) -> list[str]:
    """Return a line for each doubt about a list: repeated images, and images of two people.

    Args:
        name: name of the list.
        images: (N,) names of the images.
        template: (N,) rows of their templates.
        subjects: returns (T,) the subject of each template.
    """
    lines = []
    _, number = np.unique(images, return_inverse=True)
    seen = np.unique(np.stack([number, template]), axis=1)
    if again := len(images) - seen.shape[1]:
        lines.append(f"{name}: {_repeated(again)}")
    if seen.shape[1] > number.max() + 1:  # an image is in several templates
        subject = subjects()
        people = np.bincount(np.unique(np.stack([number, subject[template]]), axis=1)[0])
        if shared := int((people > 1).sum()):
            lines.append(f"{name}: {count_of(shared, 'image is', 'images are')} in templates of two subjects or more")
    return lines


def list_doubts(images: ImageList, pairs: TemplatePairs, known: IntArray, paths: tuple[Path, Path]) -> list[str]:
    """Return a line for each contradiction within and between the lists of IJB, with counts.

    Args:
        images: the template of each image.
        pairs: the pairs of templates.
        known: (T,) subject of each template by the lists of 1:N search; −1 if unknown.
        paths: paths of the images and of the pairs, for messages.
    """
    lines = []
    unlike, alike = 0, 0
    for start in range(0, len(pairs.same), _ROWS):
        part = slice(start, start + _ROWS)
        left, right, same = known[pairs.left[part]], known[pairs.right[part]], pairs.same[part]
        both_known = (left >= 0) & (right >= 0)
        unlike += int((both_known & same & (left != right)).sum())
        alike += int((both_known & ~same & (left == right)).sum())
    if unlike or alike:
        lines.append(
            f"{paths[1].name}: by the lists of 1:N search, "
            f"{count_of(unlike, 'pair of one person is', 'pairs of one person are')} of two subjects, and "
            f"{count_of(alike, 'pair of two people is', 'pairs of two people are')} of one subject"
        )
    templates = images.templates
    subjects = partial(subjects_of, len(templates), pairs.left, pairs.right, pairs.same, known)
    row = np.searchsorted(templates, images.template)
    return lines + image_doubts(paths[0].name, images.images, row, subjects)


def _warn_of_repeats(path: Path, keys: IntArray, fold: IntArray) -> None:
    order = np.lexsort((fold, keys))
    again = keys[order][1:] == keys[order][:-1]
    across = int((again & (fold[order][1:] != fold[order][:-1])).sum())
    if again.any():
        other = f", {across:,} of them in a fold that chooses their threshold" if across else ""
        repeat = "pairs repeats" if again.sum() == 1 else "pairs repeat"
        log.warning("%s: %s of %s %s an earlier pair%s", path, f"{again.sum():,}", f"{len(keys):,}", repeat, other)


def shared_pairs(a: tuple[Ids, Ids], b: tuple[Ids, Ids], num_names: int) -> int:
    """Count the pairs of one list that another list contains too.

    Args:
        a, b: the lists, each (left, right): rows of the same names.
        num_names: number of these names.
    """
    return int(np.isin(_keys(*a, num_names), _keys(*b, num_names)).sum())


def _contradicted(left: Ids, right: Ids, same: BoolArray, num_names: int) -> BoolArray:
    """Return (P,) bool: pairs of two people that are also listed as one person."""
    genuine = np.unique(_keys(left[same], right[same], num_names))
    found = np.zeros(len(same), dtype=bool)
    for start in range(0, len(same) if len(genuine) else 0, _ROWS):
        part = slice(start, start + _ROWS)
        keys = _keys(left[part], right[part], num_names)
        nearest = np.minimum(np.searchsorted(genuine, keys), len(genuine) - 1)
        found[part] = ~same[part] & (genuine[nearest] == keys)
    return found


def _keys(left: Ids, right: Ids, num_names: int) -> IntArray:
    """Return (P,) a number for each pair, the same for (a, b) and (b, a)."""
    return np.minimum(left, right).astype(np.int64) * num_names + np.maximum(left, right)
