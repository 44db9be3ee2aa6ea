"""Join several sources into one."""

from __future__ import annotations

import contextlib
import itertools
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from hashlib import sha256

import numpy as np

from ...errors import UserError, count_of, shown
from ..identities import Labels, Runs
from .base import Encoded, Labelled, Source, read_each, threads_of
from .selection import COMPARED, evenly, other_spellings, spelled

log = logging.getLogger(__name__)

_COMPARED = 8  # identities


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


def num_copied(one: Source, other: Source, known: dict[int, set[bytes]]) -> tuple[int, int]:
    """Return how many identities have an image in both sources, and how many were compared.

    The number is 0 if fewer than half of them have.

    The first images are compared, of identities of one name, then of as many by position. If that
    finds none, all images of a few identities are compared with the first one of each identity of
    the source that has more, up to 4,096.

    Args:
        one, other: the sources.
        known: the digests of the first images of a source, by its id; added to.
    """
    few, many = sorted((one, other), key=lambda source: len(source.class_names))
    by_name, by_position = [], []
    if one.named and other.named:
        place = {name: row for row, name in enumerate(other.class_names)}
        by_name = [(row, place[name]) for row, name in enumerate(one.class_names) if name in place]
    if len(few.class_names) == len(many.class_names):
        by_position = [(row, row) for row in range(len(one.class_names))]
    found = 0, 0
    for rows in (by_name, by_position):
        found = _at_least_half([_first(one, a) == _first(other, b) != b"" for a, b in evenly(rows, _COMPARED)])
        if found[0]:
            break
    if found[0] or len(many.class_names) > COMPARED:
        return found
    if id(many) not in known:
        known[id(many)] = _single([_first(many, row)] for row in range(len(many.class_names)))
    firsts, most = Labels.of(few.labels).firsts, COMPARED // _COMPARED
    labels = evenly(range(len(few.class_names)), _COMPARED)
    images = [
        {_digest(few, row) for row in range(firsts[label], min(firsts[label] + most, firsts[label + 1]))}
        for label in labels
    ]
    common = _single(images) & known[id(many)]
    return _at_least_half([not each.isdisjoint(common) for each in images])


def _single(images: Iterable[Collection[bytes]]) -> set[bytes]:
    """Return the digests that one identity has: others stand in place of missing images."""
    counts = Counter(itertools.chain.from_iterable(images))
    return {digest for digest, count in counts.items() if count == 1} - {b""}


def _at_least_half(same: Sequence[bool]) -> tuple[int, int]:
    return (count if 2 * (count := sum(same)) >= len(same) else 0), len(same)


def _first(source: Source, label: int) -> bytes:
    return _digest(source, int(Labels.of(source.labels).firsts[label]))


def _digest(source: Source, row: int) -> bytes:
    """Return the SHA-256 digest of an image; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return sha256(source.read(row)).digest()
    return b""
