"""The result of a list of pairs: accuracy by the LFW protocol, ROC, TAR at FAR, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.bins import is_bin
from ...data.pairs import Pairs
from ...errors import count_of
from ...metrics import (
    FloatArray,
    Intervals,
    OperatingPoint,
    Roc,
    angular_fisher_score,
    auc,
    bootstrap,
    d_prime,
    equal_error_rate,
    roc,
    score_histogram,
    tar_at_far,
)
from ..charts import draw_folds, draw_roc, draw_scores
from ..embeddings import Embeddings
from ..labels import num_repeated_impostors
from ..lfw import Verification, pair_cosines
from ..people import people_of, people_of_names
from ..result import Chart, Example, Examples, Result, Rows
from ..variants import Variant, plain_variants
from ..words import (
    EXCHANGED,
    figure,
    finite,
    layman_rates,
    percent,
    plain_interval,
    plain_points,
    span,
    tar_headline,
    tar_rows,
    unscored,
)

HARDEST = 12
"""Number of pairs of each kind that reports show."""


@dataclass(frozen=True)
class PairsResult(Result):
    """The outcome of one list of pairs.

    Attributes:
        verification: scores, thresholds, accuracies.
        pairs: the tested pairs, as rows of the embeddings.
        embeddings: embeddings of the compared images (or templates).
        dev_train: in view 1, the list that gives the mean and the threshold.
        subtract_mean: the embeddings are centred, as the protocol requires.
        num_images: number of images of the set.
        templates: the list of templates; None for pairs of images.
        mirror: use of mirror images: ``"join"``, ``"add"`` or ``"none"``; None means that of
            ``embeddings``.
        first_image: (M,) the first image of each of ``pairs.names``, for templates; else None.
    """

    file_name: ClassVar[str] = "verification.json"
    key: ClassVar[str] = "verification"

    verification: Verification
    pairs: Pairs
    embeddings: Embeddings
    dev_train: Pairs | None = None
    subtract_mean: bool = True
    num_images: int = 0
    templates: Path | None = None
    mirror: str | None = None
    first_image: tuple[int, ...] | None = None

    @cached_property
    def curve(self) -> Roc:
        """ROC curve of all scores."""
        return roc(self.verification.scores, self.verification.same)

    @cached_property
    def points(self) -> tuple[OperatingPoint, ...]:
        """TAR at the usual false accept rates, including those that the pairs cannot resolve."""
        repeated = num_repeated_impostors(self.pairs, self.verification.scores)
        return tar_at_far(self.curve, num_repeated=repeated)

    @cached_property
    def intervals(self) -> Intervals:
        """Confidence intervals over people, or over pairs if the people are unknown."""
        return bootstrap(self.verification.scores, self.verification.same, people_of(self.pairs))

    @cached_property
    def cosines(self) -> FloatArray:
        """(P,) cosines of embeddings that are not centred, for a calibration."""
        return pair_cosines(np.asarray(self.embeddings.features(), dtype=np.float64), self.pairs)

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Accuracies by the rules of other code bases."""
        added = self.mirror == "add" and not self.embeddings.flip  # to the images of templates, before they are pooled
        return plain_variants(replace(self.embeddings, inside="add") if added else self.embeddings, self.pairs)

    @cached_property
    def fisher(self) -> float | None:
        """Angular Fisher score of the images; None if their names do not identify people."""
        people = people_of_names(self.pairs.names) if self.templates is None else None
        defined = ~self.embeddings.undefined()
        if people is None or not defined.any():
            return None
        return angular_fisher_score(self.embeddings.features()[defined], people[defined])

    def headline(self) -> tuple[str, float]:
        """Return the accuracy, or without folds TAR at the lowest FAR that the pairs resolve."""
        if len(self.verification.accuracies):
            return "accuracy", self.verification.mean
        return tar_headline(self.points, auc(self.curve))

    def line(self) -> str:
        """Return the headline with its standard error, and what makes it doubtful."""
        mean, error = self.verification.mean, self.verification.standard_error
        if math.isnan(error):
            return super().line()
        return " · ".join([f"accuracy {100 * mean:.2f} ± {100 * error:.2f} %", *self.doubts()])

    @property
    def exchanged(self) -> bool:
        """Whether the scores are worse than chance, as if the labels were exchanged."""
        return auc(self.curve) < 0.5 and self.intervals.auc.high < 0.5  # the intervals take time

    def doubts(self) -> list[str]:
        """Return the number of pairs without a score, and whether labels may be exchanged."""
        return unscored(self.verification.num_undefined) + [f"AUC is below 0.5: {EXCHANGED}"] * self.exchanged

    def scalars(self) -> dict[str, float]:
        """Return the headline and the accuracy of each fold."""
        folds = enumerate(self.verification.accuracies.tolist(), start=1)
        several = len(self.verification.accuracies) > 1
        return {**super().scalars(), **({f"fold_{k}": accuracy for k, accuracy in folds} if several else {})}

    def heading(self) -> list[str]:
        """Return what was compared, and by which rule."""
        return [
            f"{self.pairs.path.name}, {self._size()}, {count_of(self.num_images, 'image', 'images')}",
            mirror_line(self._mirror(), self.embeddings.inside),
            self._rule(),
        ]

    def summary(self) -> list[str]:
        """Return the rates at a threshold, in numbers of pairs."""
        return layman_rates(self.points)

    def rows(self) -> Sequence[Rows]:
        """Return key figures, TAR at FAR, folds, and the accuracies by other rules."""
        far = replace(tar_rows(self.points, self.intervals.tar), title="TAR at FAR")
        tables = [self._key_rows(), far, self._fold_rows()]
        if self.variants:
            cells = tuple((v.name, percent(v.accuracy, v.spread), v.rule) for v in self.variants)
            title = "Accuracies by the rules of other code bases"
            tables.append(Rows(("rule", "accuracy", "what it does"), cells, title))
        return [table for table in tables if table.rows]

    def figures(self) -> Sequence[Chart]:
        """Return the ROC curve, the histograms of the scores, and the folds."""
        result, curve = self.verification, self.curve
        counts = score_histogram(result.scores, result.same)
        repeated = self.points[0].num_repeated
        threshold = float(result.thresholds.mean()) if len(result.thresholds) else None
        charts = [
            Chart("roc", "ROC", lambda axes: draw_roc(axes, curve, num_repeated=repeated)),
            Chart("scores", "Scores", lambda axes: draw_scores(axes, *counts, threshold)),
        ]
        if len(result.accuracies) > 1:
            charts.append(Chart("folds", "Folds", lambda axes: draw_folds(axes, result.accuracies)))
        return charts

    def examples(self) -> Sequence[Examples]:
        """Return the hardest pairs of either kind."""
        note = "✓: correct at the threshold of its fold, ✗: wrong." if len(self.verification.thresholds) else ""
        if self.templates is not None:
            note += " The report shows the first image of each template."
        return (
            Examples("Hardest genuine pairs: one person, lowest scores", self._hardest(genuine=True), note),
            Examples("Hardest impostor pairs: two people, highest scores", self._hardest(genuine=False), note),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all figures; rates are fractions, and what the pairs cannot resolve is None."""
        result, curve, intervals = self.verification, self.curve, self.intervals
        folds = zip(result.thresholds.tolist(), result.accuracies.tolist(), strict=True)
        genuine, impostor = score_histogram(result.scores, result.same)
        return {
            "view": 2 if self.dev_train is None else 1,
            "pairs": str(self.pairs.path),
            "dev_train": None if self.dev_train is None else str(self.dev_train.path),
            "templates": None if self.templates is None else str(self.templates),
            "flip": self._mirror() != "none",
            "mirror": self._mirror(),
            "subtract_mean": self.subtract_mean,
            "num_images": self.num_images,
            "num_genuine": curve.num_genuine,
            "num_impostor": curve.num_impostor,
            "num_undefined": result.num_undefined,
            "accuracy": finite(result.mean),
            "standard_error": finite(result.standard_error),
            "folds": [{"fold": k, "threshold": t, "accuracy": a} for k, (t, a) in enumerate(folds, start=1)],
            "auc": finite(auc(curve)),
            "auc_interval": plain_interval(intervals.auc),
            "eer": finite(equal_error_rate(curve)),
            "eer_interval": plain_interval(intervals.eer),
            "tar_at_far": plain_points(self.points, intervals.tar),
            "intervals": {"level": 0.95, "unit": intervals.unit, "replicates": intervals.replicates},
            "d_prime": finite(d_prime(result.scores, result.same)),
            "angular_fisher_score": None if self.fisher is None else finite(self.fisher),
            "histogram": {"from": -1, "to": 1, "genuine": genuine.tolist(), "impostor": impostor.tolist()},
            "other_rules": [asdict(variant) for variant in self.variants],
        }

    def _mirror(self) -> str:
        return self.embeddings.mirrored if self.mirror is None else self.mirror

    def _size(self) -> str:
        pairs = self.pairs
        genuine, num_each = int(pairs.same.sum()), len(pairs) // 2 // max(1, pairs.num_folds)
        if self.dev_train is not None:
            return f"view 1, {num_each} + {num_each} pairs"
        of_kinds = (np.bincount(pairs.fold[pairs.same == kind], minlength=pairs.num_folds + 1)[1:] for kind in (0, 1))
        regular = all(bool((each == num_each).all()) for each in of_kinds)
        if pairs.num_folds and regular and self.templates is None and not is_bin(pairs.path):
            return f"{pairs.num_folds} folds of {num_each} + {num_each} pairs"
        folds = f" in {pairs.num_folds} folds" if pairs.num_folds else ", no folds"
        of = f" of {len(pairs.names):,} templates" if self.templates is not None else ""
        return f"{len(pairs):,} pairs{of}{folds}, {genuine:,} of one person"

    def _rule(self) -> str:
        if self.dev_train is not None:
            rule = f"threshold and mean from {self.dev_train.path.name}"
        elif self.pairs.num_folds:
            rule = "threshold and mean of each fold from the other folds"
        else:
            return "cosines without a mean subtracted; no folds, so no accuracy"
        return rule if self.subtract_mean else rule.replace("threshold and mean", "threshold") + "; NO mean subtracted"

    def _fold_rows(self) -> Rows:
        result = self.verification
        rows = enumerate(zip(result.thresholds, result.accuracies, strict=True), start=1)
        cells = tuple((str(k), f"{threshold:.5f}", f"{accuracy:.2%}") for k, (threshold, accuracy) in rows)
        return Rows(("fold", "threshold", "accuracy"), cells if len(cells) > 1 else (), "Folds")

    def _key_rows(self) -> Rows:
        result, intervals = self.verification, self.intervals
        figures = []
        if len(result.accuracies):
            several = len(result.accuracies) > 1
            note = "mean ± standard error of the folds" if several else f"at threshold {result.thresholds[0]:.5f}"
            figures.append(("accuracy", percent(result.mean, result.standard_error), note))
        figures += [
            ("AUC", figure(auc(self.curve), ".5f"), span(intervals.auc, ".5f")),
            ("EER", percent(equal_error_rate(self.curve)), span(intervals.eer, ".2%")),
            ("d′", figure(d_prime(result.scores, result.same), ".3f"), ""),
        ]
        if self.fisher is not None:
            figures.append(("AFS", figure(self.fisher, ".4f"), ""))
        note = f"[ ]: 95 % intervals, {intervals.replicates:,} bootstrap draws of {intervals.unit}."
        return Rows((), tuple(figures), "Figures", " ".join([note, *self.doubts()]), key=True)

    def _hardest(self, *, genuine: bool) -> tuple[Example, ...]:
        result, pairs = self.verification, self.pairs
        rows = np.flatnonzero((result.same == genuine) & ~np.isnan(result.scores))
        rows = rows[np.argsort(result.scores[rows] if genuine else -result.scores[rows], kind="stable")][:HARDEST]
        examples = []
        for row in rows.tolist():
            sides = (int(pairs.left[row]), int(pairs.right[row]))
            mark = "" if not len(result.thresholds) else " ✓" if result.correct[row] else " ✗"
            images = sides if self.first_image is None else tuple(self.first_image[side] for side in sides)
            text = [f"{result.scores[row]:z.3f}".replace("-", "−") + mark]
            if self.templates is not None:
                text.append(" · ".join(f"template {pairs.names[side]}" for side in sides))
            examples.append(Example(images, tuple(text)))
        return tuple(examples)


def mirror_line(mirror: str, inside: str) -> str:
    """Return the line of a heading that describes the use of mirror images.

    Args:
        mirror, inside: :attr:`.Embeddings.mirrored` and :attr:`.Embeddings.inside`.
    """
    if mirror == inside == "none":
        return "embeddings of the image only, NO mirror image"
    how = "joined" if "join" in (mirror, inside) else "added"
    return f"embeddings of image and mirror image, {how}{'' if inside == 'none' else ' by the network itself'}"
