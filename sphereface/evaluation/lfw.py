"""Verify pairs by SphereFace's LFW protocol, equal to the original ``evaluation.m`` in float64.

The protocol centres the features with their mean over the pairs that choose the threshold, and
compares them by cosine. View 2 is for reports: it tests each fold with the mean and the threshold
of the other folds. View 1 is for the choice between models: the mean and the threshold come from
pairsDevTrain, the accuracy from pairsDevTest.
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

_BLOCK = 256  # pairs whose two features are copied at a time: they fit into the processor's cache


@dataclass(frozen=True)
class Verification:
    """The outcome of one list of pairs.

    Attributes:
        thresholds: (K,) float64, chosen for each fold on the other folds; in view 1 (1,), chosen on
            pairsDevTrain; (0,) for pairs without folds.
        accuracies: (K,) float64 in [0, 1], of each fold; in view 1 (1,), on pairsDevTest; (0,) for
            pairs without folds.
        scores: (P,) float64 cosines, each centred with the mean of the other folds. A pair with an
            embedding that is zero or not finite has NaN and counts as wrong. The mean ignores such
            embeddings.
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
        """Mean of the folds' accuracies, in [0, 1]; NaN for pairs without folds."""
        return float(np.mean(self.accuracies)) if len(self.accuracies) else math.nan

    @property
    def standard_error(self) -> float:
        """Standard deviation of the folds' accuracies (ddof = 1) / √K; NaN without folds."""
        folds = len(self.accuracies)
        return float(np.std(self.accuracies, ddof=1)) / math.sqrt(folds) if folds > 1 else math.nan

    @property
    def correct(self) -> BoolArray:
        """(P,) bool: pairs decided correctly at the threshold of their fold; equal is wrong."""
        threshold = self.thresholds[np.maximum(self.fold, 1) - 1]
        return np.asarray(np.where(self.same, self.scores > threshold, self.scores < threshold))

    @property
    def num_undefined(self) -> int:
        """Number of pairs without a score (NaN)."""
        return int(np.isnan(self.scores).sum())


def verify(features: Features, pairs: Pairs, *, subtract_mean: bool = True) -> Verification:
    """Verify by view 2: test every fold with the mean and the threshold of the other folds.

    Without folds, no separate pairs can give a mean or a threshold. The outcome is then the cosines
    of features that are not centred, as for IJB.

    Args:
        features: (M, F) float, a row for each of ``pairs.names``; computations are in float64.
        pairs: a list with or without folds.
        subtract_mean: False compares features that are not centred, unlike the original protocol.
    """
    features = _checked(features, pairs)
    if not pairs.num_folds:
        return Verification(np.empty(0), np.empty(0), pair_cosines(features, pairs), pairs.same, pairs.fold)
    thresholds, accuracies = np.empty(pairs.num_folds), np.empty(pairs.num_folds)
    own_scores = np.empty(len(pairs))
    for k, scores in enumerate(_scores_by_fold(features, pairs, subtract_mean)):
        held_out = pairs.fold == k + 1
        thresholds[k] = best_threshold(scores[~held_out], pairs.same[~held_out])
        accuracies[k] = accuracy_at(scores[held_out], pairs.same[held_out], thresholds[k])
        own_scores[held_out] = scores[held_out]
    return Verification(thresholds, accuracies, own_scores, pairs.same, pairs.fold)


def verify_view1(features: Features, dev_train: Pairs, dev_test: Pairs, *, subtract_mean: bool = True) -> Verification:
    """Verify by view 1: mean and threshold from pairsDevTrain, accuracy on pairsDevTest.

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


def fold_means(features: FloatArray, pairs: Pairs) -> FloatArray:
    """Return the mean feature of all folds except one, for each fold, over both sides of the pairs.

    An image counts as often as it occurs.

    Args:
        features: (M, F) float64.
        pairs: a list with folds.

    Returns:
        (K, F) float64; row k excludes fold k + 1. The means ignore features that are zero or not
        finite.
    """
    counts = np.stack([_counts(pairs, pairs.fold != k + 1) for k in range(pairs.num_folds)])  # (K, M)
    return _means(features, counts)


def pair_cosines(features: FloatArray, pairs: Pairs) -> FloatArray:
    """Return the cosine of the two features of each pair.

    Args:
        features: (M, F) float64, already centred if the protocol centres.
        pairs: P pairs of rows of ``features``.

    Returns:
        (P,) float64; NaN if a feature is zero or not finite.
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
    """Yield for each fold the scores of all pairs, centred with the mean of the other folds."""
    if subtract_mean:
        for mean in fold_means(features, pairs):
            yield pair_cosines(_centred(features, mean), pairs)
    else:
        yield from itertools.repeat(pair_cosines(features, pairs), pairs.num_folds)


def _means(features: FloatArray, counts: IntArray) -> FloatArray:
    """Return the (K, F) means of features that count (K, M) times, without undefined features."""
    undefined = undefined_rows(features)
    if undefined.any():
        features = np.where(undefined[:, None], 0, features)
        counts = np.where(undefined, 0, counts)
    with np.errstate(invalid="ignore"):  # 0/0 if every feature is undefined
        means: FloatArray = counts @ features / counts.sum(axis=1, keepdims=True)
    return means


def _centred(features: FloatArray, mean: FloatArray) -> FloatArray:
    """Subtract a mean; undefined features stay undefined, since a zero would become −mean."""
    centred: FloatArray = features - mean
    centred[undefined_rows(features)] = np.nan
    return centred


def _checked(features: Features, *lists: Pairs) -> FloatArray:
    for pairs in lists:
        if features.ndim != 2 or len(features) != len(pairs.names):
            raise ValueError(f"features: got {features.shape}, expected ({len(pairs.names)} names, F)")
    return features.astype(np.float64, copy=False)


def _counts(pairs: Pairs, chosen: BoolArray | slice = slice(None)) -> IntArray:
    """Return (M,) int64: how often each image occurs in the chosen pairs, on either side."""
    sides = np.concatenate([pairs.left[chosen], pairs.right[chosen]])
    return np.bincount(sides, minlength=len(pairs.names))
