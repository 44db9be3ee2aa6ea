"""Show several sets in one table with their mean: the five verification sets that papers report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.bins import is_bin
from ..data.walking import kind_of_path
from ..errors import UserError, shown_key
from ..metrics import auc
from ..places import Places, check_set_names
from .parts import parts_of
from .protocols import EvaluationSet, PairsResult, load_set
from .protocols.pairs_result import mirror_line
from .result import Report, Rows
from .set_digest import digest_of
from .table import format_rows
from .words import figure, finite, percent, scientific
from .write import json_text, make_folder, write_result

log = logging.getLogger(__name__)

FIVE = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")
"""The five sets, by the names of InsightFace's files."""
_FAR = 1e-2


@dataclass(frozen=True)
class Suite:
    """The results of several lists of pairs, by the names of the sets.

    Attributes:
        results: of each set.
        about: origin of the embeddings, as in a :class:`.Report`.
    """

    results: dict[str, PairsResult]
    about: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> Rows:
        """Return a row for each set, then the means."""
        header = ("set", "pairs", "accuracy", "InsightFace's rule", "AUC", f"TAR at FAR {scientific(_FAR)}")
        cells = []
        for name, result in self.results.items():
            accuracy, other, area = _figures(result)
            spread = result.verification.standard_error
            size = f"{len(result.pairs):,}"
            cells.append((name, size, percent(accuracy, spread), _known(other), figure(area, ".5f"), _tar(result)))
        for label, names in self.means().items():
            accuracy, other, area = self._mean(names)
            cells.append((label, "", percent(accuracy), _known(other), figure(area, ".5f"), ""))
        note = "InsightFace's rule: not centred, threshold on the distance; most papers report this one."
        return Rows(header, tuple(cells), "", f"{self._rule()}{note}")

    def _rule(self) -> str:
        """Return the rule of the accuracies, which is the same for all sets."""
        if not self.results:
            return ""
        first = next(iter(self.results.values()))
        by = "mean and threshold of each fold from the other folds"
        if not first.subtract_mean:
            by = f"{by.removeprefix('mean and ')}; NO mean subtracted"
        mirror = (first.embeddings.mirrored, first.embeddings.inside)
        own = "SphereFace's protocol, " if first.subtract_mean and "join" in mirror else ""
        return f"accuracy: {own}{by}; {mirror_line(*mirror)}. "

    def means(self) -> dict[str, tuple[str, ...]]:
        """Return the sets of each mean: the five, if all are present, and all sets."""
        names = {_plain(name): name for name in self.results}
        five = tuple(names[name] for name in FIVE if name in names)
        means = {"mean of the five": five} if len(five) == len(FIVE) else {}
        if not means or len(five) < len(self.results):
            means[f"mean of all {len(self.results)}"] = tuple(self.results)
        return means

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain types for JSON."""
        sets, means = {}, {}
        for name, result in self.results.items():
            accuracy, other, area = map(finite, _figures(result))
            error = finite(result.verification.standard_error)
            sets[name] = {"accuracy": accuracy, "standard_error": error, "insightface": other, "auc": area}
        for label, names in self.means().items():
            accuracy, other, _ = map(finite, self._mean(names))
            means[label] = {"sets": list(names), "accuracy": accuracy, "insightface": other}
        about = {key: value for key, value in self.about.items() if key != "config"}
        for result in self.results.values():  # one rule for all
            about |= {"mirror": result.embeddings.mirrored, "subtract_mean": result.subtract_mean}
        return {**about, "sets": sets, "means": means}

    def _mean(self, names: Sequence[str]) -> list[float]:
        """Return the mean of each of :func:`_figures` over some sets."""
        columns = zip(*(_figures(self.results[name]) for name in names), strict=True)
        return [float(np.mean(column)) for column in columns]


def suite_sets(directory: Path, *, find_images: bool = True) -> list[EvaluationSet]:
    """Load the ``.bin`` files of a folder and its folders with a ``pairs.txt``; the five first.

    Raises:
        UserError: there is no such folder, or it holds no set.
    """
    found = parts_of(directory, lambda path: is_bin(path) or _has_pairs(path), "sets")
    places = {path.stem if is_bin(path) else path.name: path for path in found}
    if len({_plain(name) for name in places}) < len(found):
        names = ", ".join(path.name for path in found)
        raise UserError(f"{directory}: holds {names} · allowed: one of each name; lfw.bin, lfw/ and LFW.bin are equal")
    try:
        check_set_names(places)
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None
    if not places:
        raise UserError(f"{directory}: holds no .bin file and no folder with a pairs.txt · expected {', '.join(FIVE)}")
    order = sorted(places, key=lambda name: (FIVE.index(_plain(name)) if _plain(name) in FIVE else len(FIVE), name))
    sets = [load_set(name, Places("pairs", (places[name],)), find_images=find_images) for name in order]
    first = dict[str, str]()
    for each in sets if find_images else ():  # without images, a digest is of the lists alone
        other = first.setdefault(digest_of(each), each.name)
        if other != each.name:
            log.warning(
                "%s: %s and %s have equal images and pairs, so a mean counts them twice · leave one out",
                directory, shown_key(other), shown_key(each.name),
            )  # fmt: skip
    return sets


def suite_of(reports: Sequence[Report]) -> Suite:
    """Return the reports that are lists of pairs with an accuracy."""
    found = {}
    for report in reports:
        result = report.results[0]
        if isinstance(result, PairsResult) and len(result.verification.accuracies):
            found[report.name] = result
    return Suite(found, reports[0].about if reports else {})


def write_suite(suite: Suite, directory: Path) -> None:
    """Write ``suite.txt`` and ``suite.json`` to a folder, which is created if missing.

    Raises:
        UserError: a file cannot be written.
    """
    make_folder(directory)
    write_result(directory / "suite.json", json_text(suite.to_dict()))
    write_result(directory / "suite.txt", format_rows(suite.rows()) + "\n")


def _has_pairs(path: Path) -> bool:
    return kind_of_path(path) == "folder" and kind_of_path(path / "pairs.txt") == "file"


def _plain(name: str) -> str:
    """Return a plain form of a set's name: agedb-30 and AgeDB_30 are the same set."""
    return name.lower().replace("-", "_")


def _figures(result: PairsResult) -> tuple[float, float, float]:
    """Return the accuracy, the accuracy by InsightFace's rule (NaN if there is none), and AUC."""
    other = next((v.accuracy for v in result.variants if v.name == "insightface"), float("nan"))
    return result.verification.mean, other, auc(result.curve)


def _known(share: float) -> str:
    return "" if np.isnan(share) else percent(share)


def _tar(result: PairsResult) -> str:
    point = next(point for point in result.points if point.far == _FAR)
    return f"{point.tar:.2%}" if point.resolvable else "not resolvable"
