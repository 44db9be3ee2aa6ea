"""The LFW verification protocol of SphereFace, equal to the original's ``evaluation.m`` in float64.

Features are centred with their mean over the pairs that the threshold is chosen on, then compared
by cosine.
View 2 reports: each fold is tested with the mean and the threshold of the others. View 1 chooses
between
models: mean and threshold come from pairsDevTrain, the accuracy from pairsDevTest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.pairs import Pairs
from ..metrics import BoolArray, FloatArray, IntArray, accuracy_at, best_threshold
from .embeddings import Features, undefined_rows

_BLOCK = 256  # pairs whose two features are gathered at a time: they stay in the processor's cache


@dataclass(frozen=True)
class Verification:
    """The outcome of one list of pairs.

    Attributes:
        thresholds: (K,) float64, chosen for each fold on the others; in view 1 the one of
            pairsDevTrain; (0,) for pairs without folds.
        accuracies: (K,) float64 in [0, 1], of each fold; in view 1 the one of pairsDevTest; (0,)
            likewise.
        scores: (P,) float64 cosines, each with the mean that its own fold is tested with. NaN where
            an embedding is zero or not finite: such a pair counts as wrong, and the mean leaves the
            embedding out.
        same: (P,) bool.
        fold: (P,) int64 from 1 to K; all 0 in view 1.
    """

    thresholds: FloatArray
    accuracies: FloatArray
    scores: FloatArray
    same: BoolArray
    fold: IntArray

    @property
    def mean(self) -> float:
        """Mean of the folds' accuracies, in [0, 1]; NaN for pairs without folds, which have
        none.
        """
        return float(np.mean(self.accuracies)) if len(self.accuracies) else math.nan

    @property
    def standard_error(self) -> float:
        """Standard deviation of the folds' accuracies (ddof = 1) / √K; NaN in view 1, which has no
        folds.
        """
        folds = len(self.accuracies)
        return float(np.std(self.accuracies, ddof=1)) / math.sqrt(folds) if folds > 1 else math.nan

    @property
    def correct(self) -> BoolArray:
        """(P,) whether each pair is decided rightly at the threshold of its fold; both comparisons
        are strict.
        """
        threshold = self.thresholds[np.maximum(self.fold, 1) - 1]
        return np.asarray(np.where(self.same, self.scores > threshold, self.scores < threshold))

    @property
    def num_undefined(self) -> int:
        """Pairs without a score (NaN)."""
        return int(np.isnan(self.scores).sum())


def verify(features: Features, pairs: Pairs, *, subtract_mean: bool = True) -> Verification:
    """View 2: every fold with the mean and the threshold of the other folds.

    Args:
        features: (M, F) float, a row for each of ``pairs.names``; computed with in float64.
        pairs: a list with folds.
        subtract_mean: False compares uncentred features, which is not the original's protocol.
    """
    features = _checked(features, pairs)
    thresholds, accuracies = np.empty(pairs.num_folds), np.empty(pairs.num_folds)
    own_scores = np.empty(len(pairs))
    for k, scores in enumerate(_scores_by_fold(features, pairs, subtract_mean)):
        held_out = pairs.fold == k + 1
        thresholds[k] = best_threshold(scores[~held_out], pairs.same[~held_out])
        accuracies[k] = accuracy_at(scores[held_out], pairs.same[held_out], thresholds[k])
        own_scores[held_out] = scores[held_out]
    return Verification(thresholds, accuracies, own_scores, pairs.same, pairs.fold)


def verify_view1(features: Features, dev_train: Pairs, dev_test: Pairs, *, subtract_mean: bool = True) -> Verification:
    """View 1: mean and threshold from pairsDevTrain, accuracy on pairsDevTest.

    Args:
        features: (M, F) float, a row for each of the names, which both lists share (see
            :meth:`Pairs.over`).
        dev_train: pairsDevTrain.
        dev_test: pairsDevTest.
        subtract_mean: as for :func:`verify`.
    """
    features = _checked(features, dev_train, dev_test)
    if subtract_mean:
        features = _centred(features, _means(features, _counts(dev_train)[None])[0])
    threshold = best_threshold(pair_cosines(features, dev_train), dev_train.same)
    scores = pair_cosines(features, dev_test)
    accuracy = accuracy_at(scores, dev_test.same, threshold)
    return Verification(np.array([threshold]), np.array([accuracy]), scores, dev_test.same, dev_test.fold)


def verify_without_folds(features: Features, pairs: Pairs) -> Verification:
    """Uncentred cosines alone, as IJB reports: with no folds there is nothing to take a mean or a
    threshold from.

    Args:
        features: (M, F) float, a row for each of ``pairs.names``.
        pairs: a list without folds.
    """
    scores = pair_cosines(_checked(features, pairs), pairs)
    return Verification(np.empty(0), np.empty(0), scores, pairs.same, pairs.fold)


def fold_means(features: FloatArray, pairs: Pairs) -> FloatArray:
    """Mean feature of all folds but one, over both sides of their pairs.

    An image counts once for each time it occurs.

    Args:
        features: (M, F) float64.
        pairs: a list with folds.

    Returns:
        (K, F) float64; row k leaves out fold k + 1. Features that are zero or not finite are left
        out of all.
    """
    counts = np.stack([_counts(pairs, pairs.fold != k + 1) for k in range(pairs.num_folds)])  # (K, M)
    return _means(features, counts)


def pair_cosines(features: FloatArray, pairs: Pairs) -> FloatArray:
    """Cosine of each pair's two features.

    Args:
        features: (M, F) float64, centred if they should be.
        pairs: rows into them.

    Returns:
        (P,) float64; NaN where a feature is zero or not finite.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", features, features))
    dots = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        block = slice(start, start + _BLOCK)
        dots[block] = np.einsum("ij,ij->i", features[pairs.left[block]], features[pairs.right[block]])
    with np.errstate(invalid="ignore"):  # 0/0 is the NaN that the protocol counts as wrong
        cosines: FloatArray = dots / (norms[pairs.left] * norms[pairs.right])
    return cosines


def _scores_by_fold(features: FloatArray, pairs: Pairs, subtract_mean: bool) -> Iterator[FloatArray]:
    """For each fold, the scores of all pairs with the mean of the other folds subtracted."""
    if subtract_mean:
        for mean in fold_means(features, pairs):
            yield pair_cosines(_centred(features, mean), pairs)
    else:
        yield from itertools.repeat(pair_cosines(features, pairs), pairs.num_folds)


def _means(features: FloatArray, counts: IntArray) -> FloatArray:
    """Return the (K, F) means of features that count (K, M) times; undefined features count
    nowhere.
    """
    undefined = undefined_rows(features)
    if undefined.any():
        features = np.where(undefined[:, None], 0, features)
        counts = np.where(undefined, 0, counts)
    with np.errstate(invalid="ignore"):  # 0/0 where every feature is undefined
        means: FloatArray = counts @ features / counts.sum(axis=1, keepdims=True)
    return means


def _centred(features: FloatArray, mean: FloatArray) -> FloatArray:
    """Subtract a mean, and leave features undefined that were so before: a zero feature would
    become −mean.
    """
    centred: FloatArray = features - mean
    centred[undefined_rows(features)] = np.nan
    return centred


def _checked(features: Features, *lists: Pairs) -> FloatArray:
    for pairs in lists:
        if features.ndim != 2 or len(features) != len(pairs.names):
            raise ValueError(f"features: got {features.shape}, expected ({len(pairs.names)} names, F)")
    return features.astype(np.float64, copy=False)


def _counts(pairs: Pairs, chosen: BoolArray | slice = slice(None)) -> IntArray:
    """(M,) int64: how often each image occurs, on either side, in the chosen pairs."""
    sides = np.concatenate([pairs.left[chosen], pairs.right[chosen]])
    return np.bincount(sides, minlength=len(pairs.names))
