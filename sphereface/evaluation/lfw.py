"""The LFW verification protocol of SphereFace, equal to the original's ``evaluation.m`` in float64.

Features are centred with their mean over the pairs that the threshold is chosen on, then compared by cosine.
View 2 reports: each fold is tested with the mean and the threshold of the others. View 1 chooses between
models: mean and threshold come from pairsDevTrain, the accuracy from pairsDevTest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..data.bins import is_bin, read_bin
from ..data.images import Picture
from ..data.pairs import Pairs, read_pairs
from ..errors import UserError
from ..metrics import BoolArray, FloatArray, IntArray, accuracy_at, best_threshold
from ..models import Backbone
from .embed import embed_files
from .templates import Templates

Features = npt.NDArray[np.floating[Any]]

_BLOCK = 256  # pairs whose two features are gathered at a time: they stay in the processor's cache
_VIEW1_TRAIN = "pairsDevTrain.txt"


@dataclass(frozen=True)
class Verification:
    """The outcome of one list of pairs.

    Attributes:
        thresholds: (K,) float64, chosen for each fold on the others; in view 1 the one of pairsDevTrain; (0,) for
            pairs without folds.
        accuracies: (K,) float64 in [0, 1], of each fold; in view 1 the one of pairsDevTest; (0,) likewise.
        scores: (P,) float64 cosines, each with the mean that its own fold is tested with. NaN where a feature
            has no direction: such a pair counts as wrong.
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
        """Mean of the folds' accuracies, in [0, 1]; NaN for pairs without folds, which have none."""
        return float(np.mean(self.accuracies)) if len(self.accuracies) else math.nan

    @property
    def standard_error(self) -> float:
        """Standard deviation of the folds' accuracies (ddof = 1) / √K; NaN in view 1, which has no folds."""
        folds = len(self.accuracies)
        return float(np.std(self.accuracies, ddof=1)) / math.sqrt(folds) if folds > 1 else math.nan

    @property
    def correct(self) -> BoolArray:
        """(P,) whether each pair is decided rightly at the threshold of its fold; both comparisons are strict."""
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
        features: (M, F) float, a row for each of the names, which both lists share (see :meth:`Pairs.over`).
        dev_train: pairsDevTrain.
        dev_test: pairsDevTest.
        subtract_mean: as for :func:`verify`.
    """
    features = _checked(features, dev_train, dev_test)
    if subtract_mean:
        features = features - _counts(dev_train) @ features / (2 * len(dev_train))
    threshold = best_threshold(pair_cosines(features, dev_train), dev_train.same)
    scores = pair_cosines(features, dev_test)
    accuracy = accuracy_at(scores, dev_test.same, threshold)
    return Verification(np.array([threshold]), np.array([accuracy]), scores, dev_test.same, dev_test.fold)


def verify_without_folds(features: Features, pairs: Pairs) -> Verification:
    """Uncentred cosines alone, as IJB reports: with no folds there is nothing to take a mean or a threshold from.

    Args:
        features: (M, F) float, a row for each of ``pairs.names``.
        pairs: a list without folds.
    """
    scores = pair_cosines(_checked(features, pairs), pairs)
    return Verification(np.empty(0), np.empty(0), scores, pairs.same, pairs.fold)


def fold_means(features: FloatArray, pairs: Pairs) -> FloatArray:
    """Mean feature of all folds but one, over both sides of their pairs.

    A picture counts once for each time it occurs.

    Args:
        features: (M, F) float64.
        pairs: a list with folds.

    Returns:
        (K, F) float64; row k leaves out fold k + 1.
    """
    counts = np.stack([_counts(pairs, pairs.fold != k + 1) for k in range(pairs.num_folds)])  # (K, M)
    means: FloatArray = counts @ features / counts.sum(axis=1, keepdims=True)
    return means


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


@dataclass(frozen=True)
class PairSet:
    """A verification set with its pictures found: read once, evaluated as often as a model changes.

    Attributes:
        name: what reports call it.
        root: folder of the pictures, or the ``.bin`` file that they are in.
        pairs: the pairs that are reported.
        files: (M,) the pictures, in the order of ``pairs.names``; none is read yet.
        dev_train: for view 1, the list that mean and threshold come from; it shares the names of ``pairs``.
        templates: for pairs of templates: which of the ``files`` make up each of ``pairs.names``.
    """

    name: str
    root: Path
    pairs: Pairs
    files: tuple[Picture, ...]
    dev_train: Pairs | None = None
    templates: Templates | None = None

    def compared(self, features: Features) -> Features:
        """What is compared, a row for each of ``pairs.names``: ``features`` (M, F), or the templates pooled of them."""
        return features if self.templates is None else self.templates.pool(features)

    def verify(self, features: Features, *, subtract_mean: bool = True) -> Verification:
        """Verify by the rule of this list's view. ``features``: (M, F) float, a row for each of ``files``."""
        features = self.compared(features)
        if self.dev_train is None:
            if not self.pairs.num_folds:
                return verify_without_folds(features, self.pairs)
            return verify(features, self.pairs, subtract_mean=subtract_mean)
        return verify_view1(features, self.dev_train, self.pairs, subtract_mean=subtract_mean)


def load_pair_set(name: str, root: str | Path, pairs: str | Path, *, dev_train: str | Path | None = None) -> PairSet:
    """Read a list of pairs and find its pictures, or read an InsightFace ``.bin``, which holds both.

    Args:
        name: what reports call it.
        root: folder of aligned crops, ``<root>/Name/Name_0001.jpg``; of no effect with a ``.bin``.
        pairs: a list of view 2, or pairsDevTest of view 1, or a ``.bin`` (see :func:`~sphereface.data.bins.read_bin`).
        dev_train: for view 1: pairsDevTrain. None looks for ``pairsDevTrain.txt`` beside ``pairs``.

    Raises:
        UserError: a list that is missing or malformed, missing pictures, or view 1 without its pairsDevTrain.
    """
    inside, test = read_bin(pairs) if is_bin(pairs) else (None, read_pairs(pairs))
    if test.num_folds:
        if dev_train is not None:
            raise UserError(f"{dev_train}: is for view 1, but {pairs} has folds · leave it out")
        if inside is not None:
            return PairSet(name, Path(pairs), test, inside)
        return PairSet(name, Path(root), test, tuple(test.resolve(root)))
    train = _read_dev_train(test, dev_train)
    found = dict(zip(test.names, test.resolve(root), strict=True))
    found.update(zip(train.names, train.resolve(root), strict=True))
    names = sorted(found)
    files = tuple(found[name] for name in names)
    return PairSet(name, Path(root), test.over(names), files, dev_train=train.over(names))


def evaluate(
    model: Backbone,
    pair_set: PairSet,
    *,
    device: torch.device | str,
    flip: bool = True,
    subtract_mean: bool = True,
    batch_size: int = 64,
    precision: str = "fp32",
    workers: int | None = None,
    progress: str | None = None,
    embed: Callable[..., Features] = embed_files,
) -> Verification:
    """Embed the pictures of a verification set and verify its pairs.

    ``subtract_mean`` is that of :func:`verify`, ``embed`` is :func:`embed_files` or what shares its work out over
    processes, every other argument that of :func:`embed_files`.
    """
    features = embed(
        model,
        pair_set.files,
        device=device,
        flip=flip,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
        progress=progress,
    )
    return pair_set.verify(features, subtract_mean=subtract_mean)


def _scores_by_fold(features: FloatArray, pairs: Pairs, subtract_mean: bool) -> Iterator[FloatArray]:
    """For each fold, the scores of all pairs with the mean of the other folds subtracted."""
    if subtract_mean:
        for mean in fold_means(features, pairs):
            yield pair_cosines(features - mean, pairs)
    else:
        yield from itertools.repeat(pair_cosines(features, pairs), pairs.num_folds)


def _checked(features: Features, *lists: Pairs) -> FloatArray:
    for pairs in lists:
        if features.ndim != 2 or len(features) != len(pairs.names):
            raise ValueError(f"features: got {features.shape}, expected ({len(pairs.names)} names, F)")
    return features.astype(np.float64, copy=False)


def _counts(pairs: Pairs, chosen: BoolArray | slice = slice(None)) -> IntArray:
    """(M,) int64: how often each picture occurs, on either side, in the chosen pairs."""
    sides = np.concatenate([pairs.left[chosen], pairs.right[chosen]])
    return np.bincount(sides, minlength=len(pairs.names))


def _read_dev_train(test: Pairs, given: str | Path | None) -> Pairs:
    path = test.path.with_name(_VIEW1_TRAIN) if given is None else Path(given)
    if not path.is_file():
        raise UserError(
            f"{test.path}: has no folds (view 1), so mean and threshold come from pairsDevTrain · "
            f"{path} is no such file · put it there, or name it (dev_train)"
        )
    if path.samefile(test.path):
        raise UserError(
            f"{test.path}: is also the list that the threshold is chosen on · test on pairsDevTest of view 1"
        )
    train = read_pairs(path)
    if train.num_folds:
        raise UserError(f"{path}: has folds (view 2) · expected pairsDevTrain of view 1")
    return train
