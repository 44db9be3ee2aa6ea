"""Check that the mirror rows of a table of embeddings belong to its embeddings.

A program of one's own may write such a table. Its loop may end early, forget the flip, or embed the
mirror images in another order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError, count_of, printable
from .embeddings import undefined_rows

log = logging.getLogger(__name__)

_SAMPLE = 2000  # rows, evenly spread
_PARTS = 8  # of the table, in its order, which are judged alone
_ROWS_OF_A_PART = 100  # at least
_FEWEST = 50  # rows that tell an order
_SHIFTS = [shift for far in range(1, 9) for shift in (far, -far)]
_MOST_EQUAL = 0.9  # share of rows; few images are equal to their mirror images
_WAY_OUT = "leave out the mirror images (eval: --mirror none)"
_TIE = 1e-6  # of cosines, by rounding
_LEAST_AUC = 0.65  # in a part: 0.79 and more after 16 steps of training, at most 0.56 in another order
_LEAST_NEARER = 0.3  # share, against a row near by: 0.73 and more after 16 steps; after a shift at most 0.26

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


def check_mirror(path: Path, names: Sequence[str], image: Array, mirror: Array, *, way_out: str = _WAY_OUT) -> None:
    """Refuse mirror rows of zeros beside an embedding, and warn of rows that are no mirror images.

    Rows that are not finite are left to the evaluation, which counts them. The warnings use up
    to 2,000 rows, evenly spread, in up to eight parts of the table.

    Args:
        path: of the table.
        names: of the N images.
        image, mirror: (N, D) float.
        way_out: what else to do, for messages.

    Raises:
        UserError: one row is zero, and the other one is not.
    """
    whole, lost = undefined_rows(image), undefined_rows(mirror)
    one = np.flatnonzero(whole != lost)
    _check_zeros(path, names, one[~undefined_rows(image[one], mirror[one])], way_out)
    defined = np.flatnonzero(~whole & ~lost)
    if len(defined) < 2:
        return
    chosen = np.unique(defined[np.linspace(0, len(defined) - 1, min(_SAMPLE, len(defined))).astype(np.int64)])
    parts = np.array_split(chosen, max(1, min(_PARTS, len(chosen) // _ROWS_OF_A_PART)))
    text = _unflipped(image, mirror, parts)
    text = text or _shifted(names, image, mirror, parts) or _in_another_order(names, image, mirror, parts)
    if text:
        log.warning("%s: mirror: %s, or %s", path, text, way_out)


def _check_zeros(path: Path, names: Sequence[str], wrong: Rows, way_out: str) -> None:
    """Refuse rows of which one half is zero, because a score would tell which images have both."""
    if len(wrong):
        raise UserError(
            f"{path}: {len(wrong):,} of {count_of(len(names), 'image has', 'images have')} zeros in only one of the "
            f"arrays embeddings and mirror, such as row {wrong[0]}, {printable(names[wrong[0]])} · allowed: both "
            f"embeddings, or zeros in both arrays · embed these images again, or {way_out}"
        )


def _unflipped(image: Array, mirror: Array, parts: Sequence[Rows]) -> str:
    """Return what is wrong if a part has the same numbers for images and mirror images."""
    equal = [(image[part] == mirror[part]).all(axis=1) for part in parts]
    if max(float(part.mean()) for part in equal) < _MOST_EQUAL:
        return ""
    every = np.concatenate(equal)
    return (
        f"{int(every.sum()):,} of {len(every):,} compared rows are equal to those of embeddings: it seems that the "
        "images were not flipped · unless the network embeds the mirror image itself, embed the flipped images"
    )


def _shifted(names: Sequence[str], image: Array, mirror: Array, parts: Sequence[Rows]) -> str:
    """Return what is wrong if embeddings are nearer to a mirror row up to eight rows away."""
    for part in parts:
        found = {shift: _nearer(image, mirror, part, shift) for shift in _SHIFTS}
        shift = min(found, key=lambda each: found[each])
        if found[shift] < _LEAST_NEARER:
            return (
                f"{1 - found[shift]:.0%} of the embeddings from row {part[0]}, {printable(names[part[0]])}, to row "
                f"{part[-1]} are nearer to the mirror row {abs(shift)} {'after' if shift > 0 else 'before'} their own "
                "· check that each mirror row belongs to its name"
            )
    return ""


def _nearer(image: Array, mirror: Array, part: Rows, shift: int) -> float:
    """Return the share of rows whose mirror row is at least as near as the one ``shift`` after it.

    It is 1 if there are too few rows.
    """
    rows = part[(part + shift >= 0) & (part + shift < len(image))]
    own, other = _cosines(image[rows], mirror[rows]), _cosines(image[rows], mirror[rows + shift])
    defined = np.isfinite(other)
    return float(np.mean((own >= other - _TIE)[defined])) if np.count_nonzero(defined) >= _FEWEST else 1.0


def _in_another_order(names: Sequence[str], image: Array, mirror: Array, parts: Sequence[Rows]) -> str:
    """Return what is wrong if the mirror rows of a part are hardly nearer to their own images."""
    chosen = np.concatenate(parts)
    if len(chosen) < _FEWEST:
        return ""
    others = _unit(mirror[chosen])
    starts = np.cumsum([0, *map(len, parts)])
    areas = []
    for start, part in zip(starts[:-1].tolist(), parts, strict=True):
        cosines = _unit(image[part]) @ others.T  # (rows of the part, rows of the sample)
        own = cosines[np.arange(len(part)), start + np.arange(len(part)), None]
        areas.append(float(((own >= cosines - _TIE).sum(axis=1) - 1).mean()) / (len(chosen) - 1))
    worst = int(np.argmin(areas))
    if areas[worst] >= _LEAST_AUC:
        return ""
    first, last = parts[worst][[0, -1]].tolist()
    return (
        f"the rows are hardly nearer to their own embeddings than those of other images: AUC {areas[worst]:.3f} from "
        f"row {first}, {printable(names[first])}, to row {last} (0.5: by chance; face recognisers: 0.8 and more) · "
        "unless the network is not trained, check that each mirror row belongs to its name"
    )


def _cosines(rows: Array, others: Array) -> npt.NDArray[np.float64]:
    cosines: npt.NDArray[np.float64] = np.einsum("ij,ij->i", _unit(rows), _unit(others))
    return cosines


def _unit(rows: Array) -> npt.NDArray[np.float64]:
    """Return rows divided by their lengths; a row of zeros becomes NaN."""
    rows = rows.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
