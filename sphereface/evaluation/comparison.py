"""Compare two recognisers on one verification set: test whether B is better than A."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..metrics import Interval, mcnemar, mean_difference
from .lfw import Verification
from .protocols import PairsResult
from .replaced import origin_of_results, replaced_comparison, results_in
from .result import Report, Result
from .words import EXCHANGED
from .write import json_text, make_folder, to_dict, write_result

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """The comparison of A and B on the same pairs.

    Attributes:
        accuracy_a, accuracy_b: mean accuracies of the folds, in [0, 1].
        only_a, only_b: numbers of pairs that only A, or only B, decides correctly.
        p_value: p-value of McNemar's exact test.
        difference: accuracy_b − accuracy_a.
        interval: 95 % bootstrap interval of the difference.
        unit: what the bootstrap draws: ``"folds"``, or ``"pairs"`` if there is only one fold.
        pairs_without_score: numbers of pairs of A and of B; such a pair counts as wrong.
        undefined_embeddings: numbers of images of A and of B whose embedding is zero or not finite.
        exchanged: whether the scores of A, and of B, are worse than chance.
    """

    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int
    p_value: float
    difference: float
    interval: Interval
    unit: str
    pairs_without_score: tuple[int, int] = (0, 0)
    undefined_embeddings: tuple[int, int] = (0, 0)
    exchanged: tuple[bool, bool] = (False, False)

    @property
    def verdict(self) -> str:
        """Which one is better, if both tests are significant."""
        sure = self.p_value < SIGNIFICANT and (self.interval.low > 0 or self.interval.high < 0)
        if not sure:
            return "noise: these pairs show no significant difference"
        return "B beats A" if self.difference > 0 else "A beats B"


def compare(a: Result, b: Result, undefined_embeddings: tuple[int, int] = (0, 0)) -> Comparison:
    """Compare the results of two recognisers on the same pairs.

    Args:
        a, b: the results.
        undefined_embeddings: numbers of images of A and of B whose embedding is zero or not finite.

    Raises:
        UserError: the results are not of pairs, or the list has neither folds nor view 1, so there
            is no accuracy to compare.
    """
    if not isinstance(a, PairsResult) or not isinstance(b, PairsResult):
        raise UserError("--compare: got a set that is not a list of pairs · allowed: lists that give an accuracy")
    result, exchanged = compare_verifications(a.verification, b.verification), (a.exchanged, b.exchanged)
    return replace(result, undefined_embeddings=undefined_embeddings, exchanged=exchanged)


def compare_verifications(a: Verification, b: Verification) -> Comparison:
    """Compare two verifications as :func:`compare` does."""
    if not len(a.accuracies):
        raise UserError("--compare: got pairs without folds · allowed: lists that give an accuracy")
    only_a, only_b, p_value = mcnemar(a.correct, b.correct)
    folds = len(a.accuracies) > 1
    differences = b.accuracies - a.accuracies if folds else b.correct.astype(np.float64) - a.correct
    difference, interval = mean_difference(differences)
    undefined = (a.num_undefined, b.num_undefined)
    unit = "folds" if folds else "pairs"
    return Comparison(a.mean, b.mean, only_a, only_b, p_value, difference, interval, unit, undefined)


def format_comparison(name: str, result: Comparison) -> str:
    """Return the comparison as text."""
    low, high = 100 * result.interval.low, 100 * result.interval.high
    undefined = [
        f"  undefined    {name}: {images:,} images have an embedding that is zero or not finite; {pairs:,} pairs have "
        "no score and count as wrong"
        for name, images, pairs in zip("AB", result.undefined_embeddings, result.pairs_without_score, strict=True)
        if images or pairs
    ]
    worse = [
        f"  AUC          {name} is below 0.5: {EXCHANGED}"
        for name, is_so in zip("AB", result.exchanged, strict=True)
        if is_so
    ]
    return "\n".join(
        [
            f"{name}: {result.verdict}",
            f"  accuracy     A {result.accuracy_a:.2%}   B {result.accuracy_b:.2%}",
            f"  B − A        {100 * result.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} "
            f"({result.unit} resampled)",
            f"  McNemar      correct only by A {result.only_a}, only by B {result.only_b}: p = {result.p_value:.2g}",
            *undefined,
            *worse,
        ]
    )


def write_comparison(result: Comparison, name: str, directory: Path, reports: Sequence[Report] = ()) -> str:
    """Write ``compare.json`` to a folder, which is created if missing.

    Args:
        result: the comparison.
        name: of the set.
        directory: the folder.
        reports: of A and of B; the file then says of which files, images and rule they are.

    Returns:
        A line on a replaced comparison of other files, another set or rule; "" if there is none.
    """
    make_folder(directory)
    before = results_in(directory, ("compare.json",))
    sides = {side: origin_of_results(to_dict(report)) for side, report in zip("ab", reports, strict=False)}
    text = json_text({"name": name, **sides, **asdict(result), "verdict": result.verdict})
    write_result(directory / "compare.json", text)
    return replaced_comparison(before, results_in(directory, ("compare.json",)))
