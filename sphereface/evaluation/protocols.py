"""One verification set through every protocol that was asked for, each picture embedded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..checkpoint import sha256_of
from ..data.images import Picture
from ..errors import UserError
from ..metrics import angular_fisher_score
from .all_pairs import all_pairs, check_kinds
from .embedder import Embedder
from .identification import identify, roles
from .lfw import PairSet, pair_cosines
from .people import Features, list_people
from .report import Report
from .sets import people_of_names
from .variants import plain_variants


def evaluate_set(
    embedder: Embedder,
    pair_set: PairSet,
    *,
    subtract_mean: bool = True,
    identification: bool = False,
    every_pair: bool = False,
) -> Report:
    """Verify a set, and search or compare all the people in its folder where that is wanted.

    Args:
        embedder: the network; whether mirror images count is its ``flip``.
        pair_set: the set.
        subtract_mean: False compares uncentred features in every protocol.
        identification: run :func:`identify` on the folder of the set's pictures.
        every_pair: run :func:`all_pairs` on it.

    Raises:
        UserError: pictures that cannot be used, or these protocols on a set that is no folder of people.
    """
    wants_people = identification or every_pair
    if wants_people and (not pair_set.root.is_dir() or pair_set.templates is not None):
        raise UserError(
            f"{pair_set.name}: got {pair_set.root} · allowed with --identification and --all-pairs: a folder of "
            "people, DIR/<person>/<picture>, no templates and no .bin"
        )
    people = list_people(pair_set.root) if wants_people else None
    if people is not None:  # what they cannot be used for is said before they are embedded
        if identification:
            roles(people)
        if every_pair:
            check_kinds(people)
    features, of_people = _embed(embedder, pair_set.files, people.files if people else ())
    compared = pair_set.compared(features)
    return Report(
        pair_set,
        pair_set.verify(features, subtract_mean=subtract_mean),
        flip=embedder.flip,
        subtract_mean=subtract_mean,
        about=_about(embedder),
        variants=plain_variants(compared, pair_set.pairs, flip=embedder.flip),
        fisher=_fisher(features, pair_set),
        cosines=pair_cosines(np.asarray(compared, dtype=np.float64), pair_set.pairs),
        identification=identify(of_people, people, subtract_mean=subtract_mean) if people and identification else None,
        all_pairs=all_pairs(of_people, people, subtract_mean=subtract_mean) if people and every_pair else None,
    )


def _embed(embedder: Embedder, files: tuple[Picture, ...], more: tuple[Picture, ...]) -> tuple[Features, Features]:
    """Features of both lists, which share most of their pictures."""
    row = {file: index for index, file in enumerate(dict.fromkeys((*files, *more)))}
    features = embedder.embed(list(row))
    return features[[row[file] for file in files]], features[[row[file] for file in more]]


def _fisher(features: Features, pair_set: PairSet) -> float | None:
    people = people_of_names(pair_set.pairs.names) if pair_set.templates is None else None
    return None if people is None else angular_fisher_score(features, people)


def _about(embedder: Embedder) -> Mapping[str, Any]:
    meta = embedder.loaded.meta
    return {
        "checkpoint": str(embedder.checkpoint),
        "checkpoint_sha256": sha256_of(embedder.checkpoint),
        "step": meta.get("step"),
        "run": meta.get("run"),
        "precision": embedder.precision,
        "config": meta.get("config"),
    }
