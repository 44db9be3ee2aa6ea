"""The protocol for measures of image quality: error-versus-discard curves on a list of pairs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.pair_lines import Line, quoted, unquoted, without_row_numbers
from ...data.pairs import Pairs
from ...data.text_files import read_text_lines
from ...errors import UserError, shown_key
from ...metrics import FloatArray, error_versus_discard, partial_area, roc, tar_at_far
from ..charts import draw_discard
from ..columns import finite_number
from ..copies import warn_of_copies_in_pairs
from ..embeddings import Embeddings
from ..images import Images, stem_of
from ..labels import num_repeated_impostors
from ..lfw import pair_cosines
from ..result import Chart, Result, Rows
from ..words import EXCHANGED, finite, percent, scientific, unscored
from .base import EvaluationSet, Rule, refuse_places, register_protocol
from .pairs import PairSet

FRACTIONS: FloatArray = np.arange(0, 51) / 100
"""Shares of the genuine pairs that are discarded."""
_QUALITY = re.compile(r"((face|image|img)[_ -]?)?(quality|score)s?([_ -]?(score|value)s?)?", re.IGNORECASE)
_SHOWN = (0, 5, 10, 20)
_DEVIATIONS = 3  # standard deviations from equal rates before labels may be exchanged
_AREA = 20  # per cent: the partial area covers 0 to 20 % discarded


@dataclass(frozen=True)
class Discard:
    """The curve at one threshold.

    Attributes:
        far: false accept rate of the threshold, over all impostor pairs.
        threshold: a cosine.
        error: (51,) share of the genuine pairs that are rejected (FNMR), at :data:`FRACTIONS`.
        best: (51,) the same for a perfect measure, which discards the rejected pairs first.
    """

    far: float
    threshold: float
    error: FloatArray
    best: FloatArray

    @property
    def area(self) -> float:
        """Mean error from 0 to 20 % discarded."""
        return partial_area(FRACTIONS[: _AREA + 1], self.error[: _AREA + 1])

    @property
    def best_area(self) -> float:
        """The same for a perfect measure."""
        return partial_area(FRACTIONS[: _AREA + 1], self.best[: _AREA + 1])


@dataclass(frozen=True)
class Quality(Result):
    """Error-versus-discard curves of one measure of quality.

    Attributes:
        measure: description of the measure.
        curves: one curve for each false accept rate that the pairs resolve.
        num_genuine: number of pairs of one person.
        pairs: the list.
        num_undefined: number of pairs without a score; they are not accepted.
    """

    key: ClassVar[str] = "quality"

    measure: str
    curves: tuple[Discard, ...]
    num_genuine: int
    pairs: Path
    num_undefined: int = 0

    def headline(self) -> tuple[str, float]:
        """Return the gain in area as a share of a perfect measure's, at the lowest FAR."""
        return "saved by quality", _saved(self.curves[-1]) if self.curves else math.nan

    def heading(self) -> list[str]:
        """Return what is discarded, by which measure."""
        return [
            f"quality: {self.measure}; the quality of a pair is the lower one of its two images",
            f"share of the {self.num_genuine:,} genuine pairs of {self.pairs.name} that are rejected, after pairs with "
            "the lowest quality are discarded; the threshold does not change; embeddings are not centred",
        ]

    def summary(self) -> list[str]:
        """Return the effect of discarding a tenth of the pairs."""
        if not self.curves:
            return ["This list has too few pairs of two people for a threshold."]
        before, after = self.curves[-1].error[0], self.curves[-1].error[10]
        return [
            f"At the threshold for 1 false accept in {round(1 / self.curves[-1].far):,}, the recogniser rejects "
            f"{before:.1%} of the pairs of one person. Without the tenth of lowest quality, it rejects {after:.1%}."
        ]

    def rows(self) -> Sequence[Rows]:
        """Return FNMR at some of the fractions, and the partial area."""
        header = ("FAR", "threshold", *(f"{n} % discarded" for n in _SHOWN), "mean of 0–20 %", "perfect", "saved")
        cells = tuple(
            (
                scientific(curve.far),
                f"{curve.threshold:.5f}",
                *(percent(float(curve.error[n])) for n in _SHOWN),
                percent(curve.area),
                percent(curve.best_area),
                "no error to save" if math.isnan(_saved(curve)) else f"{_saved(curve):.1%}",
            )
            for curve in self.curves
        )
        note = (
            "Error: share of genuine pairs rejected. Perfect: a measure that discards the rejected pairs first. Saved: "
            "0 % means no effect, 100 % a perfect measure; below 0, the measure does harm."
        )
        if not cells:
            few = "The list has too few pairs of two people for a threshold."
            return (Rows((), (("error", "not resolvable", few),), "Error versus discard", key=True),)
        return (Rows(header, cells, "Error versus discard", " ".join([note, *self.doubts()])),)

    def doubts(self) -> list[str]:
        """Return the number of pairs without a score, and whether labels may be exchanged."""
        exchanged = any(self._is_exchanged(curve) for curve in self.curves)
        more = [f"More pairs of two people are accepted than of one person: {EXCHANGED}"] if exchanged else []
        return unscored(self.num_undefined) + more

    def _is_exchanged(self, curve: Discard) -> bool:
        """Return whether more pairs of two people than of one are accepted, hardly by chance."""
        deviation = math.sqrt(curve.far * (1 - curve.far) / self.num_genuine)
        return bool(1 - curve.error[0] < curve.far - _DEVIATIONS * deviation)

    def figures(self) -> Sequence[Chart]:
        """Return the curves."""
        if not self.curves:
            return ()
        errors = {f"FAR {scientific(curve.far)}": curve.error for curve in self.curves}
        return (Chart("discard", "Error versus discard", lambda axes: draw_discard(axes, FRACTIONS, errors)),)

    def to_dict(self) -> dict[str, Any]:
        """Return all curves."""
        return {
            "measure": self.measure,
            "num_genuine": self.num_genuine,
            "fractions": FRACTIONS.tolist(),
            "curves": [
                {
                    "far": curve.far,
                    "threshold": finite(curve.threshold),
                    "fnmr": curve.error.tolist(),
                    "partial_area_20": curve.area,
                    "partial_area_20_perfect": curve.best_area,
                }
                for curve in self.curves
            ],
        }


def _saved(curve: Discard) -> float:
    """Return the share of the possible gain in partial area; NaN if no gain is possible."""
    possible = curve.error[0] - curve.best_area
    return float((curve.error[0] - curve.area) / possible) if possible > 0 else math.nan


@register_protocol("quality")
@dataclass(frozen=True)
class QualitySet(EvaluationSet):
    """A list of pairs, and the quality of its images.

    Attributes:
        name: name of the set in reports.
        images: images of the pairs.
        pairs: the pairs.
        quality: (M,) quality of each image, from a file. None means the quality in the table of
            embeddings, otherwise the length of the embedding before normalisation.
        source: name of the file.
    """

    name: str
    images: Images
    pairs: Pairs
    quality: FloatArray | None = None
    source: str = ""

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> QualitySet:
        """Read a list of pairs, and a file with a line ``image quality`` for each image.

        Raises:
            UserError: a list or the file is missing or malformed, or an image has no quality.
        """
        refuse_places(cls, name, places, 3)
        pair_set = PairSet.load(name, places[:2], find_images=find_images)
        return cls.of(pair_set, places[2] if len(places) == 3 else None)

    @classmethod
    def of(cls, pair_set: PairSet, file: Path | None) -> QualitySet:
        """Return the same pairs with the quality from a file; None: see :attr:`quality`."""
        quality = None if file is None else read_quality(file, pair_set.images.names, pair_set.images.root)
        return cls(pair_set.name, pair_set.images, pair_set.pairs, quality, "" if file is None else file.name)

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> Quality:  # noqa: ARG002 - thresholds of plain cosines
        """Compute the curves at the false accept rates that the pairs resolve."""
        warn_of_copies_in_pairs(self.pairs, embeddings.content)
        if self.quality is not None:
            quality, measure = self.quality, f"from {self.source}"
        elif embeddings.quality is not None:
            quality, measure = embeddings.quality, "from the table of embeddings"
        else:
            quality = np.linalg.norm(embeddings.image.astype(np.float64), axis=1)
            measure = "length of the embedding ‖x‖"
        quality = np.where(embeddings.undefined(), -np.inf, quality)
        scores = pair_cosines(np.asarray(embeddings.features(), dtype=np.float64), self.pairs)
        same = self.pairs.same
        of_pair = np.minimum(quality[self.pairs.left], quality[self.pairs.right])[same]
        curves = []
        for point in tar_at_far(roc(scores, same), num_repeated=num_repeated_impostors(self.pairs, scores)):
            if point.resolvable:
                errors = ~(scores[same] > point.threshold)
                curve = error_versus_discard(errors, of_pair, FRACTIONS)
                best = error_versus_discard(errors, (~errors).astype(np.float64), FRACTIONS)
                curves.append(Discard(point.far, point.threshold, curve, best))
        return Quality(measure, tuple(curves), int(same.sum()), self.pairs.path, int(np.isnan(scores).sum()))


def read_quality(path: Path, names: Sequence[str], root: Path | None = None) -> FloatArray:
    """Read the quality of images: lines ``image quality``, with a tab, a comma or spaces between.

    Args:
        path: the file. Its first line may be a header without digits, dots and slashes, with
            ``quality`` or ``score`` last.
        names: (M,) names of the images. Their suffixes may differ from those in the file. The file
            may also have absolute paths, or only the last parts of the names if these are unique.
        root: folder of the images.

    Returns:
        (M,) float64, in the order of ``names``.

    Raises:
        UserError: the file is missing, a line or the header has another form, or an image has no
            quality.
    """
    lines = read_text_lines(path, "lines 'image quality'", strict=True)
    found: dict[str, float] = {}
    filled = [Line(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    for index, (number, line) in enumerate((each.number, each.text) for each in without_row_numbers(filled)):
        where = f"{path}, line {number}"
        name, text = _split(line)
        value = finite_number(text)
        if value is None and index == 0 and not any(sign in line for sign in "./\\0123456789"):
            _check_column(where, line)  # column names: neither a file nor a number
            continue
        if value is None or not name:
            raise UserError(f"{where}: got {quoted(line)} · expected 'image quality', a finite decimal number")
        name = name.replace("\\", "/").removeprefix("./")
        if name in found:
            raise UserError(f"{where}: {quoted(name)} already has a quality · allowed: one for each image")
        found[name] = value
    stems: dict[str, float | None] = {}
    for name, value in found.items():  # a.png and a.jpg are the same image, unless the file has both
        stems[stem_of(name)] = None if stem_of(name) in stems else value
    for way in _ways(names, root or Path()):
        values = [found.get(name, stems.get(stem_of(name))) for name in way]
        if any(value is not None for value in values):
            break
    missing = [name for name, known in zip(names, values, strict=True) if known is None]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(names)} images have no quality, the first is {missing[0]} · "
            f"names in the file: {', '.join(map(shown_key, list(found)[:2]))}, … · allowed: those of the list of pairs"
        )
    return np.array(values, dtype=np.float64)


def _ways(names: Sequence[str], root: Path) -> Iterator[Sequence[str]]:
    """Yield the names that a file may use for the images, one form after the other."""
    yield names
    yield [os.path.normpath(root.absolute() / name).replace("\\", "/") for name in names]
    last = [name.rpartition("/")[2] for name in names]
    yield last if len(set(last)) == len(last) else names


def _check_column(where: str, line: str) -> None:
    """Refuse column names whose last one is not of a quality: a blur is low for a good image."""
    separator = next((each for each in "\t;," if each in line), " ")
    column = unquoted(line.strip().rpartition(separator)[2])
    if not _QUALITY.fullmatch(column):
        raise UserError(
            f"{where}: got the column {quoted(column)} · allowed: 'quality' or 'score' as its name, with higher "
            "numbers for better images · if lower is better, write the numbers with a minus; then rename the column"
        )


def _split(line: str) -> tuple[str, str]:
    separator = next((each for each in "\t;," if finite_number(unquoted(line.rpartition(each)[2])) is not None), " ")
    name, _, value = line.strip().rpartition(separator if separator in line else " ")
    return unquoted(name), unquoted(value)
