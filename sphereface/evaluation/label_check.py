"""Which labels of a set its embeddings doubt: numpy on embeddings and identities, nothing of
images.

All thresholds come from the set itself, so they fit any network: what two strangers reach, and what
two halves of one person reach. Embeddings are centred and of length 1. Memory: the embeddings, and
blocks of :data:`_BLOCK` identities.
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
"""Share of strangers who are less like an identity than an image has to be, to be unlike it."""
HALVES = 0.5
"""Share of identities whose halves are less alike than two identities have to be, to look like one person."""

_BLOCK = 2048
_FEWEST = 4  # images of an identity that is halved

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alike:
    """P pairs of rows that look like one person.

    Attributes:
        left, right: (P,) int64.
        cosine: (P,) float32, falling.
    """

    left: Indices
    right: Indices
    cosine: Floats


class People:
    """The embeddings of N images of C identities.

    Args:
        embeddings: (N, D) float32, as the network gives them.
        labels: (N,) identities, without gaps, never falling.

    Attributes:
        centre: (D,) mean of the embeddings.
        units: (N, D) float32, centred, of length 1; 0 where an embedding is not defined.
        sums: (C, D) float32 sum of each identity's units.
    """

    def __init__(self, embeddings: Floats, labels: Labels) -> None:
        self.labels = labels
        self.centre = mean_of(embeddings)
        self.units = unit_rows(embeddings, self.centre)
        self.sums = np.add.reduceat(self.units, labels.firsts[:-1], axis=0)

    def unlike(self) -> tuple[Indices, Floats, float]:
        """Find images that are no more like their own identity than strangers are.

        Returns:
            Rows, the most unlike first; the cosine of each with the mean of its identity's other
            images; the threshold.
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
        """Find the identity, other than its own, that each of these images is most like, and the
        cosine.
        """
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

        Identities of four images or more are halved: :data:`HALVES` of the pairs of halves are less
        alike. 1 where no identity has as many images.
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
        """Find pairs of identities whose means look like one person. Takes C² products, in
        blocks.
        """
        means = _unit(self.sums)
        return _joined(_pairs(means, means, threshold, within=True))

    def also_in(self, embeddings: Floats, person: Indices, threshold: float) -> Alike:
        """Find identities (left) whose means look like people of another set (right).

        Args:
            embeddings: (M, D) float32 of the other set's images, as the network gives them.
            person: (M,) who is on each, from 0 without gaps.
            threshold: least cosine.
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
