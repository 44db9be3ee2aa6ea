"""Find labels of a set that its embeddings contradict.

All thresholds come from the set itself, so they suit any network. One is the cosine that strangers
reach; the other is the similarity that two halves of one identity reach. The similarity of two
people is the cosine of their means, minus the level of the two: a network finds some kinds of
people, such as children, more alike than others. The embeddings are centred and normalised. Memory:
the embeddings, and blocks of :data:`_BLOCK` identities. docs/data.md gives the share of right
suspicions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.identities import Labels
from .people import mean_of, unit_rows

STRANGERS = 0.9
"""Quantile of the strangers' cosines: an image is unlike its identity if its cosine is lower."""
HALVES = 0.2
"""Quantile of the halves' similarity: two identities look like one person if theirs is higher."""
NEIGHBOURS = 10
"""The level of a person is the cosine with the NEIGHBOURS-th most similar other identity."""

_BLOCK = 2048
_FEWEST = 4  # images that an identity needs to be divided into halves
_NEVER = 2.0  # a similarity that no two people reach

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alike:
    """P pairs of rows that look like one person.

    Attributes:
        left, right: (P,) int64.
        similarity: (P,) float32, descending.
    """

    left: Indices
    right: Indices
    similarity: Floats


class People:
    """The embeddings of N images of C identities.

    Args:
        embeddings: (N, D) float32, as the network computes them.
        labels: (N,) identities, in ascending order, without gaps.

    Attributes:
        centre: (D,) mean of the embeddings.
        units: (N, D) float32, centred, of length 1; 0 for an undefined embedding.
        sums: (C, D) float32 sum of each identity's units.
        means: (C, D) float32, the same, of length 1.
    """

    def __init__(self, embeddings: Floats, labels: Labels) -> None:
        self.labels = labels
        self.centre = mean_of(embeddings)
        self.units = unit_rows(embeddings, self.centre)
        self.sums = np.add.reduceat(self.units, labels.firsts[:-1], axis=0)
        self.means = _unit(self.sums)

    @cached_property
    def levels(self) -> Floats:
        """(C,) level of each identity, by C² products in blocks."""
        return self._levels_of(self.means, np.arange(len(self.means)))

    def unlike(self) -> tuple[Indices, Floats, float]:
        """Find images that are not more similar to their own identity than strangers are.

        Returns:
            The rows, the lowest cosine first; the cosine of each with the mean of its identity's
            other images; the threshold.
        """
        label = np.asarray(self.labels)
        own = self._cosines(self.sums[label] - self.units)
        own[(self.labels.counts == 1)[label]] = np.nan
        rng = np.random.default_rng(0)
        stranger = (label + rng.integers(1, max(len(self.sums), 2), len(label))) % len(self.sums)
        threshold = float(np.quantile(self._cosines(self.sums[stranger]), STRANGERS)) if len(self.sums) > 1 else -1.0
        rows = np.flatnonzero(own < threshold)
        rows = rows[np.argsort(own[rows], kind="stable")]
        return rows, own[rows], threshold

    def nearest(self, rows: Indices) -> tuple[Indices, Floats]:
        """Return the most similar other identity of each of these images, and the cosine."""
        best, cosine = np.zeros(len(rows), np.int64), np.full(len(rows), -1, np.float32)
        own = self.labels[rows]
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            scores = self.units[rows[part]] @ self.means.T
            scores[np.arange(len(scores)), own[part]] = -1
            best[part] = scores.argmax(axis=1)
            cosine[part] = scores.max(axis=1)
        return best, cosine

    def same_person(self) -> float:
        """Return the similarity from which on two identities look like one person.

        It divides each identity of four images or more into halves. The result is the quantile
        :data:`HALVES` of the similarity of these halves. It is :data:`_NEVER` if no identity has
        four images.
        """
        first = np.arange(len(self.units)) % 2 == 0
        many = np.flatnonzero(self.labels.counts >= _FEWEST)
        if not len(many):
            return _NEVER
        one, other = (
            _unit(np.add.reduceat(np.where(part[:, None], self.units, 0), self.labels.firsts[:-1], axis=0)[many])
            for part in (first, ~first)
        )
        levels = self._levels_of(one, many) + self._levels_of(other, many)
        return float(np.quantile(np.einsum("ij,ij->i", one, other) - levels / 2, HALVES))

    def alike(self, threshold: float) -> Alike:
        """Find pairs of identities that are at least as alike, by C² products in blocks."""
        return _joined(_pairs((self.means, self.levels), (self.means, self.levels), threshold, within=True))

    def also_in(self, embeddings: Floats, person: Indices, threshold: float) -> Alike:
        """Find identities (left) that are at least as alike to people of another set (right).

        Args:
            embeddings: (M, D) float32 of the other set's images, as the network computes them.
            person: (M,) the person on each image, from 0 without gaps.
            threshold: lowest similarity.
        """
        sums = np.zeros((int(person.max(initial=-1)) + 1, self.sums.shape[1]), np.float32)
        np.add.at(sums, person, unit_rows(embeddings, self.centre))
        means = _unit(sums)
        levels = self._levels_of(means, None)
        return _joined(_pairs((self.means, self.levels), (means, levels), threshold, within=False))

    def _levels_of(self, means: Floats, own: Indices | None) -> Floats:
        """Return the (P,) levels of people with these means, without each one's own identity.

        The identity that is most similar may be the same person, so it never gives the level.
        """
        levels = np.zeros(len(means), np.float32)
        rank = min(NEIGHBOURS, len(self.means) - 1)
        if rank < 2:
            return levels
        for start in range(0, len(means), _BLOCK):
            part = slice(start, start + _BLOCK)
            scores = means[part] @ self.means.T
            if own is not None:
                scores[np.arange(len(scores)), own[part]] = -1
            levels[part] = np.partition(scores, -rank, axis=1)[:, -rank]
        return np.maximum(levels, 0)

    def _cosines(self, sums: Floats) -> Floats:
        cosines: Floats = np.einsum("ij,ij->i", self.units, _unit(sums))
        return cosines


def _unit(rows: Floats) -> Floats:
    return unit_rows(rows, None)


def _pairs(
    left: tuple[Floats, Floats], right: tuple[Floats, Floats], threshold: float, *, within: bool
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield rows, columns and similarity of the pairs of people, each given by means and levels."""
    for i in range(0, len(left[0]), _BLOCK):
        for j in range(i if within else 0, len(right[0]), _BLOCK):
            scores = left[0][i : i + _BLOCK] @ right[0][j : j + _BLOCK].T
            scores -= (left[1][i : i + _BLOCK, None] + right[1][j : j + _BLOCK]) / 2
            rows, columns = np.nonzero(scores >= threshold)
            if within:
                above = rows + i < columns + j
                rows, columns = rows[above], columns[above]
            yield rows + i, columns + j, scores[rows, columns]


def _joined(parts: Iterator[tuple[Any, Any, Any]]) -> Alike:
    left, right, similarity = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-similarity, kind="stable")
    return Alike(left[order], right[order], similarity[order])
