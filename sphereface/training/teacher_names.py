"""The rows of the training images in a table of a teacher's embeddings, found by their names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.sources import Source
from ..data.sources.base import read_each
from ..errors import UserError
from ..evaluation.embedding_table import EmbeddingTable
from ..evaluation.images import Images
from ..files import content_number

log = logging.getLogger(__name__)

_SAMPLE = 1000  # images that are compared with the hashes of a table

Array = npt.NDArray[np.floating[Any]]


def rows_by_name(
    table: EmbeddingTable, train: str | Sequence[str], source: Source
) -> tuple[Array, Array | None, npt.NDArray[np.int64]]:
    """Find the rows of the training images by their names inside their source.

    If several sources contain the same name, those images are found by their whole names. Images
    that a list names are in no source, so their names are paths.

    Args:
        table: of the teacher.
        train: ``data.train``.
        source: N images.

    Returns:
        (M, T) embeddings; (M, T) of the mirrored images, or None; and (N,) the row of each image.

    Raises:
        UserError: an image has no row, two images have one name, or another image had a name when
            the table was made.
    """
    roots = [f"{Path(root)}/" for root in ([train] if isinstance(train, str) else train)]  # image names start so

    def below(name: str) -> str:
        return next((name[len(root) :] for root in roots if name.startswith(root)), name)

    whole = [source.name(index) for index in range(len(source))]
    _check_apart(whole, source)
    names = tuple(map(below, whole))
    if len(roots) > 1:
        times = Counter(names)
        names = tuple(short if times[short] == 1 else name for short, name in zip(names, whole, strict=True))
    folder = Path(roots[0]) if len(roots) == 1 and names != tuple(whole) else Path()  # names are relative to it
    image, mirror, index = table.located(Images(folder, names), "data.train")
    _check_hashes(table, index, source)
    return image, mirror, index


def _check_apart(names: Sequence[str], source: Source) -> None:
    """Refuse two different images with one name, because a row could be of either.

    A list may name one file twice.
    """
    first = dict[str, int]()
    for index, name in enumerate(names if len(set(names)) < len(names) else ()):
        other = first.setdefault(name, index)
        if other != index and source.read(other) != source.read(index):
            raise UserError(
                f"train.teacher.embeddings: data.train has two images named {name}, and a table has one row for them · "
                "allowed: a name for each image · pack the images with names of their own, or give "
                "train.teacher.checkpoint"
            )


def _check_hashes(table: EmbeddingTable, index: npt.NDArray[np.int64], source: Source) -> None:
    """Check on a sample that no image has the name that another one had when the table was made.

    Images may have changed, since a table may come from larger crops or from photographs: a warning
    counts them. A table of another program has no hashes.

    Args:
        table: of the teacher.
        index: (N,) the row of each image.
        source: N images.
    """
    if table.image_hash is None:
        return
    other: dict[str, int] = {}  # images whose content is not that of their row
    sample = np.unique(np.linspace(0, len(index) - 1, _SAMPLE).astype(np.int64)).tolist()
    for image, data in zip(sample, read_each(source, sample), strict=True):
        if isinstance(data, bytes) and table.image_hash[index[image]] != (content := content_number(data)):
            other[source.name(image)] = content
    known = np.isin(np.array([*other.values()], dtype=np.uint64), table.image_hash)
    moved = [name for name, is_known in zip(other, known.tolist(), strict=True) if is_known]
    if moved:
        raise UserError(
            f"train.teacher.embeddings: {table.path}: {len(moved):,} of {len(sample):,} sampled images of data.train "
            f"had another name when the table was made, such as {moved[0]} · allowed: the names of that time · embed "
            "data.train again"
        )
    if other:
        log.warning(
            "train.teacher.embeddings: %s: %s of %s sampled images of data.train have other content than when the "
            "table was made, such as %s · allowed: other crops of the same photographs · otherwise embed data.train "
            "again",
            *(table.path, f"{len(other):,}", f"{len(sample):,}", next(iter(other))),
        )
