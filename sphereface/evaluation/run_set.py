"""Evaluate one set by its protocol and embed each image once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .images import Images
from .protocols import EvaluationSet, Rule
from .result import Report
from .set_digest import digest_of
from .source import Source


def evaluate_set(
    source: Source, evaluation_set: EvaluationSet, *, rule: Rule | None = None, more: Sequence[EvaluationSet] = ()
) -> Report:
    """Evaluate the embeddings of a source on a set.

    Args:
        source: a checkpoint, an ONNX file or a table.
        evaluation_set: the set.
        rule: the rule for all protocols.
        more: other protocols on images of the same folder; shared images are embedded once.

    Raises:
        UserError: an image cannot be used or has no embedding.
    """
    sets = (evaluation_set, *more)
    digest = digest_of(evaluation_set)  # first, because a set may keep what its protocol computes
    images, rows = _union([each.images for each in sets])
    embeddings = source.embeddings(images, evaluation_set.name)
    results = tuple(
        each.evaluate(embeddings if len(sets) == 1 else embeddings.at(chosen), rule or Rule())
        for each, chosen in zip(sets, rows, strict=True)
    )
    undefined = int(embeddings.at(rows[0]).undefined().sum())
    own = evaluation_set.images
    changed = source.changed(own, evaluation_set.name)
    return Report(evaluation_set.name, own, results, source.about(), undefined, digest, changed)


def check_set(source: Source, evaluation_set: EvaluationSet, more: Sequence[EvaluationSet] = ()) -> None:
    """Refuse a set with images that have no embedding, before the first set is evaluated.

    Raises:
        UserError: an image has no embedding.
    """
    images, _ = _union([each.images for each in (evaluation_set, *more)])
    source.check(images, evaluation_set.name)


def _union(parts: Sequence[Images]) -> tuple[Images, list[Any]]:
    """Return all images once, and for each part the rows of its images."""
    if len(parts) == 1:
        return parts[0], [slice(None)]
    keys: list[tuple[Any, ...]] = [part.files or part.names for part in parts]
    row: dict[Any, int] = {key: number for number, key in enumerate(dict.fromkeys(itertools.chain(*keys)))}
    names: list[Any] = [None] * len(row)
    for part, own in zip(parts, keys, strict=True):
        for name, key in zip(part.names, own, strict=True):
            names[row[key]] = name
    files = None if parts[0].files is None else tuple(row)
    rows = [np.array([row[key] for key in own], dtype=np.int64) for own in keys]
    return Images(parts[0].root, tuple(names), files), rows
