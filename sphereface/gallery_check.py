"""Look for rows of a gallery in a ``.npz`` that were joined or reordered after it was made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import count_of, printable
from .evaluation.mirror_check import check_mirror

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.float32]

_TIE = 1e-5  # largest difference of unit vectors by rounding, if one image was embedded twice
_ROUNDING = 0.01  # of a length; float16 rounds by 0.001


def check_arrays(
    path: Path, names: Sequence[str], image: Rows, mirror: Rows | None, quality: npt.NDArray[Any] | None
) -> None:
    """Warn of arrays whose rows do not belong together, as where numpy sorted only some of them.

    ``sphereface embed`` stores the length of each embedding as its quality. Without it, mirror rows
    are compared with the embeddings.

    Args:
        path: of the gallery.
        names: of the N images.
        image, mirror: (N, D) float32.
        quality: (N,) float; None if the gallery has none.

    Raises:
        UserError: see :func:`.mirror_check.check_mirror`.
    """
    if quality is None:
        if mirror is not None:
            check_mirror(path, names, image, mirror, way_out="embed the images again")
        return
    squares = sum(np.einsum("ij,ij->i", rows, rows) for rows in (image, mirror) if rows is not None)
    lengths = np.sqrt(squares)
    other = np.flatnonzero(np.abs(lengths - quality) > _ROUNDING * lengths)
    if len(other):
        row = int(other[0])
        log.warning(
            "%s: in %s the quality is not the length of the embedding, such as %s (%.4g, and the length is %.4g): its "
            "arrays may be in different orders · sort all arrays alike, or embed the images again",
            *(path, f"{len(other):,} of {count_of(len(names), 'row', 'rows')}", printable(names[row])),
            *(float(quality[row]), float(lengths[row])),
        )


def warn_of_repeated(path: Path, paths: Sequence[str], rows: Rows) -> None:
    """Warn of images that have several rows, as in two galleries joined by numpy.

    Each face of an image has a name of its own, see ``--all-faces``.

    Args:
        path: of the gallery.
        paths: of the images.
        rows: (N, D) unit vectors.
    """
    if len(set(paths)) == len(paths):
        return
    first = dict[str, int]()
    again = [row for row, name in enumerate(paths) if first.setdefault(name, row) != row]
    other = [row for row in again if not np.allclose(rows[row], rows[first[paths[row]]], atol=_TIE)]
    same = len(again) - len(other)
    text = " and ".join(
        f"{number:,} with {which} embedding"
        for number, which in ((same, "the same"), (len(other), "another"))
        if number
    )
    log.warning(
        "%s: %s the name of an earlier row (%s), such as %s: a search compares and shows each row · to "
        "compare each image once, leave out these rows, or embed the images again",
        *(path, count_of(len(again), "row has", "rows have"), text, printable(paths[again[0]])),
    )
