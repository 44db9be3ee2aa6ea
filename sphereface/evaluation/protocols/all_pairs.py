"""Compare every image with every other, to resolve lower false accept rates than lists of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...metrics import IntArray, OperatingPoint, Roc, auc, equal_error_rate, tar_at_far
from ..charts import draw_roc
from ..copies import warn_of_copies_of_people
from ..embeddings import Embeddings, Features
from ..images import Images
from ..labels import check_both_kinds
from ..near_equal import nearly_equal
from ..people import People, list_people, mean_of, unit_rows
from ..result import Chart, Result, Rows
from ..words import figure, finite, layman_rates, percent, plain_point, tar_headline, tar_rows
from .base import EvaluationSet, Rule, refuse_places, register_protocol

FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
BINS = 1 << 16
"""Number of bins for the scores; a bin is 2 / 65,536 = 3.1e-5 wide."""
_MOST_LISTED = 20
_ROWS = 256  # images that are compared with all later ones at a time: 256 × 13,233 scores are 14 MB


@dataclass(frozen=True)
class AllPairs(Result):
    """The outcome of comparing N images with each other, N (N − 1) / 2 pairs.

    Attributes:
        curve: the ROC curve of the binned scores. It has the points of the exact curve at the edges
            of the bins, so its TAR at a FAR is at most the exact value.
        points: TAR at each of :data:`FAR_TARGETS`.
        num_images: N.
        subtract_mean: the features are centred with the mean of all N images.
        twins: (correlation, image, image): pairs of images of two people that show one photograph,
            see :func:`~sphereface.evaluation.near_equal.nearly_equal`.
    """

    key: ClassVar[str] = "all_pairs"

    curve: Roc
    points: tuple[OperatingPoint, ...]
    num_images: int
    subtract_mean: bool
    twins: tuple[tuple[float, str, str], ...] = ()

    @property
    def auc(self) -> float:
        """Area under the curve; two pairs in one bin count half."""
        return auc(self.curve)

    @property
    def eer(self) -> float:
        """Equal error rate."""
        return equal_error_rate(self.curve)

    def headline(self) -> tuple[str, float]:
        """Return TAR at the lowest FAR that the pairs resolve."""
        return tar_headline(self.points, self.auc)

    def heading(self) -> list[str]:
        """Return the numbers of images and pairs."""
        mean = "centred with the mean of all these images" if self.subtract_mean else "NO mean subtracted"
        pairs = f"{self.curve.num_genuine:,} + {self.curve.num_impostor:,} pairs"
        return [f"all pairs: {self.num_images:,} images, {pairs}; {mean}"]

    def summary(self) -> list[str]:
        """Return the rates at a threshold, in numbers of pairs."""
        return layman_rates(self.points)

    def rows(self) -> Sequence[Rows]:
        """Return AUC, EER, TAR at FAR, and images that are nearly equal."""
        key = (("AUC", figure(self.auc, ".5f"), ""), ("EER", percent(self.eer), ""))
        tables = [Rows((), key, "All pairs", key=True), replace(tar_rows(self.points), title="TAR at FAR, all pairs")]
        if self.twins:
            shown = self.twins[:_MOST_LISTED]
            cells = tuple((f"{value:.3f}", left, right) for value, left, right in shown)
            more = f" {len(self.twins) - len(shown)} more are in the JSON file." if len(self.twins) > len(shown) else ""
            note = f"They count as pairs of two people, so each costs a false accept.{more}"
            header = ("correlation", "image", "image of another name")
            tables.append(Rows(header, cells, "One photograph under two names", note))
        return tables

    def figures(self) -> Sequence[Chart]:
        """Return the ROC curve."""
        return (Chart("roc-all-pairs", "ROC of all pairs", lambda axes: draw_roc(axes, self.curve)),)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "num_images": self.num_images,
            "num_genuine": self.curve.num_genuine,
            "num_impostor": self.curve.num_impostor,
            "subtract_mean": self.subtract_mean,
            "auc": finite(self.auc),
            "eer": finite(self.eer),
            "tar_at_far": [plain_point(point) for point in self.points],
            "nearly_equal": [{"correlation": c, "left": left, "right": right} for c, left, right in self.twins],
        }


@register_protocol("all-pairs")
@dataclass(frozen=True)
class AllPairsSet(EvaluationSet):
    """A folder of people whose images are all compared with each other: see :func:`all_pairs`."""

    name: str
    images: Images
    people: People

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> AllPairsSet:  # noqa: ARG003
        """List the people of a folder.

        Raises:
            UserError: there is no such folder, or it lacks pairs of one person or of two people.
        """
        refuse_places(cls, name, places, 1)
        people = list_people(places[0])
        check_kinds(people)
        return cls(name, people.images, people)

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> AllPairs:
        """Compare all images, and search for photographs under two names."""
        people = self.people
        warn_of_copies_of_people(people.root, embeddings.content, self.images.names, people.person)
        result = all_pairs(embeddings.features(), people, subtract_mean=rule.subtract_mean)
        return replace(result, twins=self._twins)

    @cached_property
    def _twins(self) -> tuple[tuple[float, str, str], ...]:
        names = self.images.names
        found = nearly_equal(self.people.files, self.people.person)
        return tuple((value, names[left], names[right]) for value, left, right in found)


def all_pairs(features: Features, people: People, *, subtract_mean: bool = True) -> AllPairs:
    """Compare all images by cosine, centred with the mean of all of them.

    Unlike the fold means of the LFW protocol, this mean includes the tested images. Do not mix
    results with and without it. The function stores 2 × :data:`BINS` counts and one block of
    scores, but no pairs.

    Args:
        features: (N, F) float, a row for each of ``people.files``. A row without a direction scores
            0 with all others.
        people: the people on the images; the images of one person are consecutive.
        subtract_mean: False does not centre the features.

    Raises:
        UserError: the people lack pairs of one person or of two people.
    """
    check_kinds(people)
    rows = unit_rows(features, mean_of(features) if subtract_mean else None)
    every, genuine = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    ends = np.searchsorted(people.person, people.person, side="right")  # first image of the next person
    for start, bins in _binned_blocks(rows):
        every += np.bincount(bins.ravel(), minlength=BINS)
        genuine += np.bincount(_genuine(bins, start, ends), minlength=BINS)
        square = bins[:, : len(bins)]  # holds each image with itself, and the second order of each pair
        every -= np.bincount(square[np.tril_indices(len(bins))], minlength=BINS)
    curve = _curve(genuine, every - genuine) if rows.any() else _undefined(genuine, every - genuine)
    return AllPairs(curve, tar_at_far(curve, FAR_TARGETS), len(rows), subtract_mean)


def check_kinds(people: People) -> None:
    """Refuse people without pairs of both kinds.

    Raises:
        UserError: no two images are of one person, or all are of one person.
    """
    images = np.bincount(people.person)
    genuine, every = int((images * (images - 1)).sum()) // 2, len(people.files) * (len(people.files) - 1) // 2
    check_both_kinds(people.root, genuine, every - genuine)


def _binned_blocks(rows: Features) -> Iterator[tuple[int, IntArray]]:
    """Yield (first row, bins of up to ``_ROWS`` images with this and all later rows)."""
    for start in range(0, len(rows), _ROWS):
        scores = (rows[start : start + _ROWS] * np.float32(BINS / 2)) @ rows[start:].T
        scores += np.float32(BINS / 2)  # −1 … 1 is now 0 … BINS
        np.clip(scores, 0, BINS - 1, out=scores)
        yield start, scores.astype(np.int64)


def _genuine(bins: IntArray, start: int, ends: IntArray) -> IntArray:
    """Return the bins of the pairs of one person, each pair once."""
    spans = [bins[row, row + 1 : ends[start + row] - start] for row in range(len(bins))]
    return np.concatenate(spans)


def _undefined(genuine: IntArray, impostor: IntArray) -> Roc:
    """Return the curve of :func:`~sphereface.metrics.roc` for pairs that all lack a score."""
    threshold = np.array([np.inf, -np.inf, -np.inf])
    return Roc(threshold, impostor.sum() * np.array([0, 1, 1]), genuine.sum() * np.array([0, 0, 1]))


def _curve(genuine: IntArray, impostor: IntArray) -> Roc:
    """Return the curve that accepts a bin and all higher bins, for each bin with a score."""
    used = np.flatnonzero(genuine + impostor)[::-1]
    return Roc(
        threshold=np.append(np.inf, used * (2 / BINS) - 1),  # lower edges of the bins
        false_accepts=np.append(0, np.cumsum(impostor[used])),
        true_accepts=np.append(0, np.cumsum(genuine[used])),
    )
