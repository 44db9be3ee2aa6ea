"""Join several sources into one."""

from __future__ import annotations

import contextlib
import itertools
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from ...errors import UserError, count_of, shown
from ..identities import Labels, Runs
from .base import Encoded, Labelled, Source, read_each, threads_of
from .selection import COMPARED, evenly, other_spellings, spelled

log = logging.getLogger(__name__)

_COMPARED = 8  # identities
_FIRST = 64  # images of each, compared by name or position
_ALL = 512  # images of each at most, compared with other identities


class JoinedSource(Labelled):
    """Several sources as one training set.

    Without ``merge``, the identities are those of the first source, then those of the second …,
    named ``<tag>/<name>``. With it, identities of one name become one, and classes are sorted by
    name. Memory: 8 bytes an identity, 24 more with ``merge``.

    Args:
        sources: two or more.
        tags: a distinct name for each.
        merge: merge identities of the same name.

    Attributes:
        numbered: the tags of sources that have only numbers of identities.

    Raises:
        UserError: ``merge`` with a source that has no names.
    """

    def __init__(self, sources: Sequence[Source], tags: Sequence[str], *, merge: bool) -> None:
        self._sources = list(sources)
        self._starts = [0, *itertools.accumulate(len(source) for source in sources)]
        self._order: Runs | None = None
        self.named = any(source.named for source in sources)
        self.numbered = frozenset(tag for tag, source in zip(tags, sources, strict=True) if not source.named)
        if merge:
            self._merge(tags)
        else:
            _warn_of_names(sources, tags)
            self.class_names = [f"{t}/{n}" for t, s in zip(tags, sources, strict=True) for n in s.class_names]
            self.labels = Labels.of_counts(np.concatenate([Labels.of(source.labels).counts for source in sources]))

    @property
    def threads(self) -> int:
        """How many threads may read it at once."""
        return min(map(threads_of, self._sources))

    @property
    def mapped(self) -> bool:
        return all(source.mapped for source in self._sources)

    def read(self, index: int) -> bytes:
        source, row = self._find(index)
        return source.read(row)

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        """Yield images, each read when it is requested."""
        rows = np.asarray(indices, dtype=np.int64)
        rows = rows if self._order is None else self._order.of(rows)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        parts = {
            number: iter(read_each(self._sources[number], (rows[numbers == number] - self._starts[number]).tolist()))
            for number in np.unique(numbers).tolist()
        }
        for number in numbers.tolist():
            yield next(parts[number])

    def name(self, index: int) -> str:
        source, row = self._find(index)
        return source.name(row)

    def _find(self, index: int) -> tuple[Source, int]:
        row = index if self._order is None else self._order[index]
        number = bisect_right(self._starts, row) - 1
        return self._sources[number], row - self._starts[number]

    def _merge(self, tags: Sequence[str]) -> None:
        for source, tag in zip(self._sources, tags, strict=True):
            if not source.named:
                raise UserError(
                    f"data.merge: {tag} has only numbers of identities, and numbers of two sets are unrelated · "
                    "allowed: sources with names · give it names (docs/data.md), or set data.merge to false"
                )
        _warn_of_merged_numbers(self._sources, tags)
        _warn_of_names(self._sources, tags, merged=True)
        self.class_names = sorted({name for source in self._sources for name in source.class_names})
        place = {name: row for row, name in enumerate(self.class_names)}
        classes = np.array([place[name] for source in self._sources for name in source.class_names])  # of each run
        counts = np.concatenate([Labels.of(source.labels).counts for source in self._sources])
        order = np.argsort(classes, kind="stable")
        self._order = Runs((np.cumsum(counts) - counts)[order], counts[order])
        self.labels = Labels.of_counts(np.bincount(classes, weights=counts).astype(np.int64))


def warn_of_spellings(source: Source, place: str, told: Container[str] = ()) -> None:
    """Warn of names in several spellings within a source, which are separate identities.

    Args:
        source: of identities.
        place: its name in messages.
        told: forms of names that have a warning, see :func:`~.selection.spelled`.
    """
    names = source.class_names
    found = [[names[row] for row in rows] for rows in (other_spellings(names) if source.named else [])]
    if found := [spellings for spellings in found if spelled(spellings[0]) not in told]:
        log.warning(
            "data: %s: %s in more than one spelling, such as %s: they are separate identities · if they are the same "
            "people, give each one spelling",
            *(place, count_of(len(found), "name is", "names are"), " and ".join(map(shown, found[0][:2]))),
        )


def _warn_of_names(sources: Sequence[Source], tags: Sequence[str], *, merged: bool = False) -> None:
    """Warn of people who stay apart, by the spelling of their names; each has one warning.

    Numbers of two sources are unrelated.

    Args:
        sources: of names.
        tags: names of the sources.
        merged: equal names are one identity, so that only other spellings stay apart.
    """
    names = [set(source.class_names) if source.named else set[str]() for source in sources]
    forms = {name: spelled(name) for name in sorted(set().union(*names))}
    counts = Counter(form for own in names for form in {forms[name] for name in own})
    several = {form for form, count in counts.items() if count > 1 and not form.isdecimal()}
    found: dict[str, list[str]] = {}
    for name, form in forms.items():
        if form in several:
            found.setdefault(form, []).append(name)
    apart = [spellings for spellings in found.values() if len(spellings) > 1 or not merged]
    if apart:
        number = count_of(len(apart), "name is", "names are")
        sentence = "data.train: %s in more than one of %s, such as %s: they are separate identities"
        alike = ["give each one spelling"] if any(len(spellings) > 1 for spellings in apart) else []
        remedy = " and ".join([*alike, *([] if merged else ["set data.merge to true"])])
        such = " and ".join(map(shown, apart[0][:2]))
        log.warning(f"{sentence} · if they are the same people, {remedy}", number, " and ".join(tags), such)
    for source, tag in zip(sources, tags, strict=True):
        warn_of_spellings(source, tag, several)


def _warn_of_merged_numbers(sources: Sequence[Source], tags: Sequence[str]) -> None:
    """Warn of two sources of which most of the common names are numbers."""
    names = [frozenset(source.class_names) for source in sources]
    merged, rows = set[str](), set[int]()
    for pair in itertools.combinations(range(len(names)), 2):
        common = names[pair[0]] & names[pair[1]]
        numbers = set(filter(str.isdecimal, common))
        if 2 * len(numbers) > len(common):
            merged |= numbers
            rows.update(pair)
    if merged:
        log.warning(
            "data.merge: makes one identity of each of %s, such as %s, in %s: a number may be another person in "
            "another set · if they are not the same people, set data.merge to false",
            *(count_of(len(merged), "number", "numbers"), shown(min(merged))),
            " and ".join(tags[row] for row in sorted(rows)),
        )


class Digests(NamedTuple):
    """SHA-256 digests of images of a source that show whether another one is a copy of it.

    Attributes:
        spread: digest → identity, of up to 4,096 images that are spread over all identities.
        few: the digests of all images, up to 512, of each of a few identities.
    """

    spread: dict[bytes, int]
    few: list[set[bytes]]


def num_copied(one: Source, other: Source, known: dict[int, Digests]) -> tuple[int, int]:
    """Return how many identities have a quarter of their images in both sources, of how many.

    The number is 0 if fewer than half of them have. It is the same for both orders of the sources.

    The first 64 images of identities of one name are compared, then of those at one position. If
    that finds none, all images of a few identities of each source are compared with images of every
    identity of the other one. Above 4,096 identities, the first 512 images are compared instead.
    Fewer than eight common names say nothing of the whole sets.

    Args:
        one, other: the sources.
        known: the digests of a source, by its id; added to.
    """
    by_name, by_position = [], []
    if one.named and other.named:
        place = {name: row for row, name in enumerate(other.class_names)}
        by_name = [(row, place[name]) for row, name in enumerate(one.class_names) if name in place]
        by_name.sort(key=lambda rows: one.class_names[rows[0]])
    if len(one.class_names) == len(other.class_names):
        by_position = [(row, row) for row in range(len(one.class_names))]
    if len(by_name) < min(_COMPARED, len(one.class_names), len(other.class_names)):
        by_name = []
    large, found = max(len(source.class_names) for source in (one, other)) > COMPARED, (0, 0)
    compared: list[list[tuple[int, int]]] = []
    for rows in (by_name, by_position):
        pairs = list(evenly(rows, _COMPARED))
        if pairs in compared:
            continue
        compared.append(pairs)
        own = _single([_of_identity(one, row, _ALL if large else _FIRST) for row, _ in pairs])
        others = _single([_of_identity(other, row, _ALL if large else _FIRST) for _, row in pairs])
        found = _at_least_half([_alike(len(a & b), len(a), len(b)) for a, b in zip(own, others, strict=True)])
        if found[0]:
            break
    if found[0] or large:
        return found
    for source in (one, other):
        if id(source) not in known:
            known[id(source)] = _digests(source)
    both = _found(known[id(one)], other, known[id(other)]), _found(known[id(other)], one, known[id(one)])
    return max(both, key=lambda found: found[0] / max(1, found[1]))


def _found(own: Digests, other: Source, spread: Digests) -> tuple[int, int]:
    """Return how many of the few identities have a quarter of their images in another source."""
    same = []
    for images in own.few:
        hits = {spread.spread[digest] for digest in images & spread.spread.keys()}
        theirs = (_of_identity(other, label, COMPARED) for label in hits)
        same.append(any(_alike(len(images & found), len(images), len(found)) for found in theirs))
    return _at_least_half(same)


def _digests(source: Source) -> Digests:
    labels, number = Labels.of(source.labels), len(source.class_names)
    rows = [evenly(range(*labels.firsts[label : label + 2].tolist()), COMPARED // number) for label in range(number)]
    spread = _single([{_digest(source, row) for row in own} for own in rows])
    return Digests(
        spread={digest: label for label, own in enumerate(spread) for digest in own},
        few=_single([_of_identity(source, row, _ALL) for row in evenly(range(number), _COMPARED)]),
    )


def _of_identity(source: Source, label: int, most: int) -> set[bytes]:
    """Return the digests of the first images of an identity."""
    start, stop = Labels.of(source.labels).firsts[label : label + 2].tolist()
    return {_digest(source, row) for row in range(start, min(stop, start + most))}


def _single(images: Sequence[set[bytes]]) -> list[set[bytes]]:
    """Return the digests that one identity has: others stand in place of missing images."""
    counts = Counter(itertools.chain.from_iterable(images))
    several = {digest for digest, count in counts.items() if count > 1} | {b""}
    return [own - several for own in images]


def _alike(common: int, *numbers: int) -> bool:
    """Return whether images in common are a quarter of those of the identity with fewer."""
    return common > 0 and 4 * common >= min(numbers)


def _at_least_half(same: Sequence[bool]) -> tuple[int, int]:
    return (count if 2 * (count := sum(same)) >= len(same) else 0), len(same)


def _digest(source: Source, row: int) -> bytes:
    """Return the SHA-256 digest of an image; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return sha256(source.read(row)).digest()
    return b""
