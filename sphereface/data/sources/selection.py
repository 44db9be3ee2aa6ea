"""Select identities of a source, and read and compare their names."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..identities import Labels, Runs
from ..images import EncodedImage, read_encoded
from .base import Encoded, Labelled, Source, read_each, threads_of

T = TypeVar("T")

COMPARED = 4096  # images on each side, which bounds the time of reading
_MADE = re.compile(r"(?:.*/)?([^/]+)/\1_([0-9]{1,9})(?:\.\w+)?")  # by make-pairs, 17/17_0001.png
_NUMBERED = re.compile(r"(?:.*/)?([^/]+)_[0-9]+(?:\.\w+)?")  # an image of LFW, Ann_0001.jpg


class Identities(Protocol):
    """The identities of a training set: those of a source, or those that a checkpoint names."""

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def named(self) -> bool: ...


class SelectedSource(Labelled):
    """Some identities of a source, with labels without gaps. Memory: 24 more bytes an identity.

    Args:
        source: the whole.
        keep: (C,) bool, the classes to keep.
    """

    def __init__(self, source: Source, keep: npt.NDArray[np.bool_]) -> None:
        self._source = source
        labels = Labels.of(source.labels)
        self.labels = Labels.of_counts(labels.counts[keep])
        self._rows = Runs(labels.firsts[:-1][keep], labels.counts[keep])
        self.class_names = [name for name, stays in zip(source.class_names, keep.tolist(), strict=True) if stays]
        self.named = source.named
        self.numbered = numbered_of(source)

    @property
    def threads(self) -> int:
        """How many threads may read it at once."""
        return threads_of(self._source)

    @property
    def mapped(self) -> bool:
        return self._source.mapped

    def read(self, index: int) -> bytes:
        return self._source.read(self._rows[index])

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        return read_each(self._source, self._rows.of(np.asarray(indices, dtype=np.int64)).tolist())

    def name(self, index: int) -> str:
        return self._source.name(self._rows[index])


def numbered_of(source: Identities) -> frozenset[str]:
    """Return the tags of joined sources that have only numbers; see ``JoinedSource``."""
    numbered: frozenset[str] = getattr(source, "numbered", frozenset())
    return numbered


def without(source: Source, names: Collection[str]) -> Source:
    """Return the source without the identities of these names (in Unicode's composed form)."""
    return _selected(source, np.array([name not in names for name in source.class_names], dtype=np.bool_))


def with_images(source: Source, least: int) -> Source:
    """Return the source without the identities that have fewer images."""
    return _selected(source, Labels.of(source.labels).counts >= least)


def _selected(source: Source, keep: npt.NDArray[np.bool_]) -> Source:
    return source if keep.all() else SelectedSource(source, keep)


def person_of(image: str) -> str:
    """Return the name before the number of an image such as ``Ann_0001.jpg``; "" without one."""
    match = _NUMBERED.fullmatch(image)
    return match[1] if match else ""


def shared_names(source: Identities, images: Sequence[str]) -> list[str]:
    """Return the identities of a training set whose names people of images have, sorted.

    Names are compared without upper case, and an underscore is a blank.

    Args:
        source: the training set; identities with only numbers have no names in common.
        images: names of images. The first and the last folder of one may name its person, and one
            between them where these do not. If all are in one folder, the name before a number may,
            as in LFW.
    """
    if not source.named:
        return []
    folders = {tuple(map(spelled, image.split("/")[:-1])) for image in images}
    flat: set[str] = set()
    if len({image.rpartition("/")[0] for image in images}) == 1:
        names = {person_of(image) for image in images} - {""}
        flat = {spelled(name) for name in names if not name.isdecimal()}
    forms, found, numbered = flat.union(*folders), dict[str, str](), numbered_of(source)
    for name in source.class_names:
        own = name.rpartition("/")[2]  # in a joined source, the tag comes first
        if own and (form := spelled(own)) in forms and name.partition("/")[0] not in numbered:
            found.setdefault(form, own)
    people = flat & found.keys()
    for of_image in folders:
        people |= ({*of_image[:1], *of_image[-1:]} & found.keys()) or (set(of_image) & found.keys())
    return sorted(found[form] for form in people)


def shared_image(source: Source, names: Sequence[str], images: Sequence[EncodedImage]) -> str:
    """Return an identity whose image is one of a set of ``make-pairs``; "" if none is found.

    Names do not tell everything: equal numbers of two sets may be two people, and one person may
    have two names or numbers. So up to 4,096 images of the training set, the first and, of few
    identities, more of each, are compared with up to 4,096 images of the set. Identities with names
    of its people are left to :func:`shared_names`. A set with names is only compared if its
    ``names.tsv`` is there.

    Args:
        source: the training set.
        names: names of the set's images, such as ``17/17_0001.png``: the first of identity 17.
        images: the set's images.
    """
    made = sorted((int(match[2]), row, match[1]) for row, name in enumerate(names) if (match := _MADE.fullmatch(name)))
    people, wanted = {person for _, _, person in made}, set[bytes]()
    numbers = set(filter(str.isdecimal, people))
    if made and not numbers and not _has_table(images[made[0][1]]):
        return ""
    for _, row, _ in made[:COMPARED]:
        with contextlib.suppress(OSError):
            wanted.add(sha256(read_encoded(images[row])).digest())
    own = [name.rpartition("/")[2] for name in source.class_names] if wanted else []
    alike = evenly([label for label, name in enumerate(own) if name in numbers], COMPARED // 2)
    others = evenly([label for label, name in enumerate(own) if name not in numbers], COMPARED - len(alike))
    forms = set(map(spelled, people - numbers))
    labels = [*alike, *(label for label in others if spelled(own[label]) not in forms)]
    label = first_among(source, labels, wanted, each=max(1, COMPARED // max(1, len(labels))))
    return "" if label is None else own[label]


def _has_table(image: EncodedImage) -> bool:
    """Return whether an image is in a set that ``make-pairs`` wrote, by its table of names."""
    return isinstance(image, Path) and (image.parent.parent / "names.tsv").is_file()


def first_among(source: Source, labels: Iterable[int], digests: Container[bytes], each: int = 1) -> int | None:
    """Return the first of the identities with an image that has one of the SHA-256 digests.

    Of an identity, up to ``each`` images are read: the first one, and others evenly spread.
    """
    firsts = Labels.of(source.labels).firsts
    for label in labels:
        for index in evenly(range(*firsts[label : label + 2].tolist()), each):
            with contextlib.suppress(OSError):
                if sha256(source.read(index)).digest() in digests:
                    return label
    return None


def evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """Return at most so many of the items, evenly spread."""
    return items[:: -(-len(items) // most) or 1]


def spelled(name: str) -> str:
    """Return a name without upper case, ligatures and wide letters; a blank is an underscore."""
    return "_".join(unicodedata.normalize("NFKC", name).casefold().split())


def other_spellings(names: Sequence[str]) -> list[list[int]]:
    """Return the positions of names that are one name in several spellings, in groups.

    Args:
        names: of the identities of a source, no two the same.
    """
    text = "\n".join(names)
    simple = text.isascii() and text.count("\n") == len(names) - 1 and not re.search(r"[^\S\n]", text)
    folded = text.lower()
    if simple and text == folded:  # each is its own form
        return []
    forms = folded.split("\n") if simple else list(map(spelled, names))
    if len(set(forms)) == len(forms):
        return []
    several = {form for form, count in Counter(forms).items() if count > 1}
    rows: dict[str, list[int]] = {}
    for row, form in enumerate(forms):
        if form in several:
            rows.setdefault(form, []).append(row)
    return list(rows.values())
