"""Choose people to hold out, and pairs of their images, by the numbers of their images."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError

LFW_PAIRS = 300  # pairs of each kind in a fold of LFW
_SHARE_HELD_OUT = 0.1

Side = tuple[int, int]  # a person of the fold, and the number of an image, both from 0
Pair = tuple[Side, Side]


@dataclass(frozen=True)
class Split:
    """The held-out people, and the pairs of their images.

    Attributes:
        folds: for each fold the labels of its people; no person is in two folds.
        same: for each fold its pairs of one person, people as places in ``folds``.
        different: for each fold as many pairs of two people.
    """

    folds: list[list[int]]
    same: list[list[Pair]]
    different: list[list[Pair]]

    @property
    def people(self) -> list[int]:
        """The labels of all held-out people, sorted."""
        return sorted(itertools.chain(*self.folds))


def split(
    counts: Sequence[int], *, folds: int = 10, people: int | None = None, pairs: int | None = None, seed: int = 0
) -> Split:
    """Choose people and pairs.

    People with two images or more are drawn at random. They are distributed over the folds by their
    number of images, so that the folds are alike. Pairs of one person are chosen in rounds over the
    fold's people, so that people with many images do not dominate. No pair is chosen twice.

    Args:
        counts: number of images of each identity.
        folds: number of folds.
        people: number of people to hold out; None: a tenth of all, but at least two per fold.
        pairs: pairs of each kind in a fold; None: as many as the smallest fold has, at most LFW's
            300.
        seed: of every choice.

    Raises:
        UserError: there are too few people or images; the message gives the number needed.
    """
    rng = random.Random(seed)  # noqa: S311 -- no secret
    able = [label for label, count in enumerate(counts) if count >= 2]
    wanted = people or max(2 * folds, round(_SHARE_HELD_OUT * len(able)))
    _check_people(len(counts), len(able), wanted, folds)
    chosen = rng.sample(able, wanted)
    chosen.sort(key=lambda label: -counts[label])  # stable: ties keep the order of the draw
    groups = [chosen[fold::folds] for fold in range(folds)]
    sizes = [[counts[label] for label in group] for group in groups]
    most = min(min(sum(math.comb(n, 2) for n in size), _num_different(size)) for size in sizes)
    if pairs is not None and pairs > most:
        raise UserError(
            f"--pairs: got {pairs} of each kind in a fold · allowed with these {wanted} people: at most {most} · "
            f"use about {-(-wanted * pairs // most)} people, other --folds, or fewer --pairs"
        )
    num = min(most, LFW_PAIRS) if pairs is None else pairs
    return Split(groups, [_same(size, num, rng) for size in sizes], [_different(size, num, rng) for size in sizes])


def _check_people(total: int, able: int, wanted: int, folds: int) -> None:
    if folds < 2:
        raise UserError(f"--folds: got {folds} · allowed: 2 or more, since a fold's threshold comes from the others")
    if wanted < 2 * folds:
        raise UserError(f"--people: got {wanted} · allowed: {2 * folds} or more, two in each of {folds} folds")
    free = min(able, total - 2)
    if wanted > free:
        raise UserError(
            f"SRC: has {total} people, {able} of them with two or more different images · allowed: {wanted} or more of "
            f"those to hold out (two or more per fold), and 2 others to train on · add people{_advice(free, folds)}"
        )


def _advice(free: int, folds: int) -> str:
    """Return which options would fit ``free`` people that can be held out."""
    if free >= 2 * folds:
        return f", or hold out fewer: --people {free}"
    return f", or use fewer folds: --folds {free // 2}" if free >= 4 else ""


def _num_different(size: Sequence[int]) -> int:
    return (sum(size) ** 2 - sum(n * n for n in size)) // 2


def _same(size: Sequence[int], num: int, rng: random.Random) -> list[Pair]:
    """Return ``num`` pairs of one person: each round takes one of every person who has one left."""
    drawn = [rng.sample(range(own := math.comb(n, 2)), min(own, num)) for n in size]
    pairs: list[Pair] = []
    for number in itertools.count():
        for person in rng.sample(range(len(size)), len(size)):
            if number < len(drawn[person]):
                i, j = _two_of(drawn[person][number])
                pairs.append(((person, i), (person, j)))
                if len(pairs) == num:
                    return pairs
    raise AssertionError("callers request at most as many pairs as exist")


def _two_of(number: int) -> tuple[int, int]:
    """Return a pair by its number, from 0.

    The sequence is (0, 1), (0, 2), (1, 2), (0, 3) and so on.
    """
    second = (1 + math.isqrt(1 + 8 * number)) // 2
    return number - second * (second - 1) // 2, second


def _different(size: Sequence[int], num: int, rng: random.Random) -> list[Pair]:
    """Return ``num`` pairs of two people: draw people first, then an image of each."""
    if 2 * num > _num_different(size):  # repeated draws would take long: draw from the whole list
        sides = [(person, i) for person, n in enumerate(size) for i in range(n)]
        every = [(a, b) for a, b in itertools.combinations(sides, 2) if a[0] != b[0]]
        return rng.sample(every, num)
    pairs: dict[Pair, None] = {}
    while len(pairs) < num:
        a, b = sorted(rng.sample(range(len(size)), 2))
        pairs[((a, rng.randrange(size[a])), (b, rng.randrange(size[b])))] = None
    return list(pairs)
