"""Search TinyFace's probes in its gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...metrics import BoolArray, FloatArray, IntArray
from ...metrics.searches import TIE_FLOAT32, score_blocks
from ..embeddings import Features, undefined_rows
from ..people import mean_of, unit_rows

FOLDERS = ("Probe", "Gallery_Match", "Gallery_Distractor")
_CELLS = 2**24  # scores that are computed at a time: 64 MB


@dataclass(frozen=True)
class Roles:
    """The subjects of probes and gallery. The images are in the order of :data:`FOLDERS`.

    Attributes:
        probe_subject: (Q,) int64, subjects of the probes.
        match_subject: (M,) int64, subjects of the images of Gallery_Match.
        num_distractors: number of images of other people.
    """

    probe_subject: IntArray
    match_subject: IntArray
    num_distractors: int

    @property
    def num_probes(self) -> int:
        """Q, the number of probes."""
        return len(self.probe_subject)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of images in each of :data:`FOLDERS`."""
        return self.num_probes, len(self.match_subject), self.num_distractors

    @property
    def has_mate(self) -> BoolArray:
        """(Q,) bool: probes whose subject is in the gallery."""
        return np.isin(self.probe_subject, self.match_subject)

    @property
    def searched(self) -> IntArray:
        """Subjects of the probes that have a mate."""
        return self.probe_subject[self.has_mate]


@dataclass(frozen=True)
class Searches:
    """The outcome of searching Q probes, whose subjects are all in the gallery.

    Attributes:
        rank: (Q,) int64 from 1, of the best image of the right person. Ranks count images, not
            people: two images of one other person take two ranks. If no image of the right person
            is found, the rank is the size of the gallery plus one.
        precision: (Q,) float64 in [0, 1], average precision: the mean, over all images of the right
            person, of the share of right images from rank 1 to this image. An image that is not
            found adds 0.
        script_precision: (Q,) float64, average precision by TinyFace's script (``compute_AP.m``).
            It takes the mean of the precision at the image's rank and at the rank before it, which
            is 1 before rank 1.
    """

    rank: IntArray
    precision: FloatArray
    script_precision: FloatArray


def search(features: Features, roles: Roles, *, subtract_mean: bool = True) -> Searches:
    """Search every probe whose subject is in the gallery, by cosine.

    The mean is that of the gallery's images with distractors, which a real system knows before the
    search. An undefined embedding (zero or not finite) affects only its own searches: such a probe
    finds no image, and such an image of the gallery takes no rank. Scores that differ only by
    rounding tie, and ties count against the right person. Memory: 64 MB of scores and one float32
    copy of the gallery.

    Args:
        features: (N, F) float, probes, then Gallery_Match, then Gallery_Distractor.
        roles: the subjects of the images.
        subtract_mean: False does not centre the features, as in published code.
    """
    num_probes = roles.num_probes
    units = unit_rows(features, mean_of(features[num_probes:]) if subtract_mean else None)
    units[undefined_rows(features)] = np.nan
    own = _rows_of(roles.match_subject)
    found = [
        _measure(row, own[subject])
        for rows, scores in score_blocks(units[:num_probes][roles.has_mate], units[num_probes:], _CELLS)
        for row, subject in zip(scores, roles.searched[rows].tolist(), strict=True)
    ]
    rank, precision, script = (np.array(column) for column in zip(*found, strict=True))
    return Searches(rank.astype(np.int64), precision, script)


def _measure(scores: npt.NDArray[np.float32], right: IntArray) -> tuple[int, float, float]:
    """Return the rank of the best right image, average precision, and that of TinyFace's script.

    The function does not sort the gallery.

    Args:
        scores: (G,) scores of one probe with the gallery; −∞ if undefined.
        right: rows of the gallery with the right person.
    """
    own = np.sort(scores[right])[::-1]
    own = own[own > -np.inf]
    bars = own - np.float32(TIE_FLOAT32)
    above = np.array([np.count_nonzero(scores >= bar) - np.count_nonzero(own >= bar) for bar in bars])
    number = np.arange(1, len(own) + 1)
    rank = number + above
    precision = number / rank
    before = np.divide(number - 1, rank - 1, out=np.ones(len(own)), where=rank > 1)
    first = int(rank[0]) if len(own) else len(scores) + 1
    return first, float(precision.sum()) / len(right), float((precision + before).sum()) / 2 / len(right)


def _rows_of(subject: IntArray) -> dict[int, IntArray]:
    """Return the rows of each subject."""
    order = np.argsort(subject, kind="stable")
    names, first = np.unique(subject[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))
