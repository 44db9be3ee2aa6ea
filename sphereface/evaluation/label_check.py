"""Find labels of a set that its embeddings contradict.

All thresholds come from the set itself, so they suit any network. One is the cosine that strangers
reach; the other is the cosine that two halves of one identity reach. The embeddings are centred and
normalised. Memory: the embeddings, and blocks of :data:`_BLOCK` identities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.identities import Labels
from .people import mean_of, unit_rows

STRANGERS = 0.95
"""Quantile of the strangers' cosines: an image is unlike its identity if its cosine is lower."""
HALVES = 0.5
"""Quantile of the cosines of halves: two identities look like one person if theirs is higher."""

_BLOCK = 2048
_FEWEST = 4  # images that an identity needs to be divided into halves

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alike:
    """P pairs of rows that look like one person.

    Attributes:
        left, right: (P,) int64.
        cosine: (P,) float32, descending.
    """

    left: Indices
    right: Indices
    cosine: Floats


class People:
    """The embeddings of N images of C identities.

    Args:
        embeddings: (N, D) float32, as the network computes them.
        labels: (N,) identities, in ascending order, without gaps.

    Attributes:
        centre: (D,) mean of the embeddings.
        units: (N, D) float32, centred, of length 1; 0 for an undefined embedding.
        sums: (C, D) float32 sum of each identity's units.
    """

    def __init__(self, embeddings: Floats, labels: Labels) -> None:
        self.labels = labels
        self.centre = mean_of(embeddings)
        self.units = unit_rows(embeddings, self.centre)
        self.sums = np.add.reduceat(self.units, labels.firsts[:-1], axis=0)

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
        means = _unit(self.sums)
        best, cosine = np.zeros(len(rows), np.int64), np.full(len(rows), -1, np.float32)
        own = self.labels[rows]
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            scores = self.units[rows[part]] @ means.T
            scores[np.arange(len(scores)), own[part]] = -1
            best[part] = scores.argmax(axis=1)
            cosine[part] = scores.max(axis=1)
        return best, cosine

    def same_person(self) -> float:
        """Return the cosine above which two means look like one person.

        It divides each identity of four images or more into halves. The result is the quantile
        :data:`HALVES` of the cosines of these halves; 1 if no identity has four images.
        """
        first = np.arange(len(self.units)) % 2 == 0
        halves = [
            np.add.reduceat(np.where(part[:, None], self.units, 0), self.labels.firsts[:-1], axis=0)
            for part in (first, ~first)
        ]
        many = self.labels.counts >= _FEWEST
        if not many.any():
            return 1.0
        cosines = np.einsum("ij,ij->i", _unit(halves[0][many]), _unit(halves[1][many]))
        return float(np.quantile(cosines, HALVES))

    def alike(self, threshold: float) -> Alike:
        """Find pairs of identities whose means look like one person, by C² products in blocks."""
        means = _unit(self.sums)
        return _joined(_pairs(means, means, threshold, within=True))

    def also_in(self, embeddings: Floats, person: Indices, threshold: float) -> Alike:
        """Find identities (left) whose means look like people of another set (right).

        Args:
            embeddings: (M, D) float32 of the other set's images, as the network computes them.
            person: (M,) the person on each image, from 0 without gaps.
            threshold: lowest cosine.
        """
        sums = np.zeros((int(person.max(initial=-1)) + 1, self.sums.shape[1]), np.float32)
        np.add.at(sums, person, unit_rows(embeddings, self.centre))
        return _joined(_pairs(_unit(self.sums), _unit(sums), threshold, within=False))

    def _cosines(self, sums: Floats) -> Floats:
        cosines: Floats = np.einsum("ij,ij->i", self.units, _unit(sums))
        return cosines


def _unit(rows: Floats) -> Floats:
    return unit_rows(rows, None)


def _pairs(left: Floats, right: Floats, threshold: float, *, within: bool) -> Iterator[tuple[Any, Any, Any]]:
    for i in range(0, len(left), _BLOCK):
        for j in range(i if within else 0, len(right), _BLOCK):
            scores = left[i : i + _BLOCK] @ right[j : j + _BLOCK].T
            rows, columns = np.nonzero(scores >= threshold)
            if within:
                above = rows + i < columns + j
                rows, columns = rows[above], columns[above]
            yield rows + i, columns + j, scores[rows, columns]


def _joined(parts: Iterator[tuple[Any, Any, Any]]) -> Alike:
    left, right, cosine = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-cosine, kind="stable")
    return Alike(left[order], right[order], cosine[order])
