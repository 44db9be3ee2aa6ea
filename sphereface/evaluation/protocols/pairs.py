"""The protocol for lists of pairs of images, such as LFW's two views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...data.bins import is_bin, read_bin
from ...data.pairs import Pairs, read_pairs
from ...data.walking import kind_of_path
from ...errors import UserError
from ..copies import warn_of_copies_in_pairs
from ..embeddings import Embeddings, Features
from ..images import Images, find_files
from ..labels import check_folders, check_labels, shared_pairs
from ..lfw import Verification, verify, verify_view1
from .base import EvaluationSet, Rule, refuse_places, register_protocol
from .pairs_result import PairsResult

_VIEW1_TRAIN = "pairsDevTrain.txt"


@register_protocol("pairs")
@dataclass(frozen=True)
class PairSet(EvaluationSet):
    """A list of pairs with its images.

    Attributes:
        name: name of the set in reports.
        images: the images of ``pairs.names``, in that order.
        pairs: the tested pairs.
        dev_train: in view 1, the list that gives the mean and the threshold; it shares the names of
            ``pairs``.
    """

    name: str
    images: Images
    pairs: Pairs
    dev_train: Pairs | None = None

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> PairSet:
        """Read a list of pairs and find its images (see :func:`load_pair_set`)."""
        refuse_places(cls, name, places, 3)
        place = places[0]
        if len(places) > 1:
            dev_train = places[2] if len(places) == 3 else None
            return load_pair_set(name, place, places[1], dev_train=dev_train, find_images=find_images)
        if place.is_file():  # a .bin, or a list beside its images
            return load_pair_set(name, place.parent, place, find_images=find_images)
        return load_pair_set(name, place, place / "pairs.txt", find_images=find_images)

    @classmethod
    def recognises(cls, places: Sequence[Path]) -> bool:
        """Return True: every set that no other protocol recognises is a list of pairs."""
        return bool(places)

    def verify(self, features: Features, *, subtract_mean: bool = True) -> Verification:
        """Verify by the rule of this list's view.

        Args:
            features: (M, F) float, a row for each image.
            subtract_mean: False does not centre the features.
        """
        if self.dev_train is not None:
            return verify_view1(features, self.dev_train, self.pairs, subtract_mean=subtract_mean)
        return verify(features, self.pairs, subtract_mean=subtract_mean)

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> PairsResult:
        """Verify the pairs."""
        features = embeddings.features()
        warn_of_copies_in_pairs(self.pairs, embeddings.content)
        return PairsResult(
            self.verify(features, subtract_mean=rule.subtract_mean),
            self.pairs,
            embeddings,
            dev_train=self.dev_train,
            subtract_mean=rule.subtract_mean,
            num_images=len(self.images),
        )


def load_pair_set(
    name: str, root: str | Path, pairs: str | Path, *, dev_train: str | Path | None = None, find_images: bool = True
) -> PairSet:
    """Read a list of pairs and find its images, or read an InsightFace ``.bin``, which holds both.

    Args:
        name: name of the set in reports.
        root: folder of aligned crops, ``<root>/Name/Name_0001.jpg``; not used with a ``.bin``.
        pairs: a list of view 2, or pairsDevTest of view 1, or a ``.bin`` (see
            :func:`~sphereface.data.bins.read_bin`).
        dev_train: pairsDevTrain of view 1. None means ``pairsDevTrain.txt`` beside ``pairs``.
        find_images: search the images on disk.

    Raises:
        UserError: a list is missing, malformed or contradicts itself, images are missing,
            pairsDevTrain is missing, or it shares pairs with the tested list.
    """
    inside, test = read_bin(pairs) if is_bin(pairs) else (None, read_pairs(pairs))
    check_labels(test.path, test.left, test.right, test.same, test.names, refuse=inside is None, fold=test.fold)
    check_folders(test.path, test.left, test.right, test.same, test.names)
    if test.num_folds:
        if dev_train is not None:
            raise UserError(f"{dev_train}: is for view 1, but {pairs} has folds · omit it")
        if inside is not None:
            return PairSet(name, Images(Path(pairs), test.names, inside), test)
        files = tuple(test.resolve(root)) if find_images else None
        return PairSet(name, Images(Path(root), test.names, files), test)
    train = _read_dev_train(test, dev_train)
    names = tuple(sorted({*test.names, *train.names}))
    files = find_files(root, names, (test, train)) if find_images else None
    test, train = test.over(names), train.over(names)
    if shared := shared_pairs((test.left, test.right), (train.left, train.right), len(names)):
        raise UserError(
            f"{train.path}: has {shared:,} of the {len(test):,} pairs of {test.path} · allowed: other pairs, since "
            "mean and threshold come from it"
        )
    return PairSet(name, Images(Path(root), names, files), test, train)


def _read_dev_train(test: Pairs, given: str | Path | None) -> Pairs:
    path = test.path.with_name(_VIEW1_TRAIN) if given is None else Path(given)
    if kind_of_path(path) != "file":
        raise UserError(
            f"{test.path}: has no folds (view 1), so mean and threshold come from pairsDevTrain · {path} does not "
            "exist · put it there, or give its path (dev_train)"
        )
    if path.samefile(test.path):
        raise UserError(
            f"{test.path}: is also the list that chooses the threshold · allowed for the test: pairsDevTest of view 1"
        )
    train = read_pairs(path)
    if train.num_folds:
        raise UserError(f"{path}: has folds (view 2) · expected pairsDevTrain of view 1")
    check_labels(path, train.left, train.right, train.same, train.names, fold=train.fold)
    return train
