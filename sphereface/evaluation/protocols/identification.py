"""Who is it: closed-set and open-set identification on a folder of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import UserError
from ...metrics import FAR_TARGETS, BoolArray, IntArray, OperatingPoint, roc, tar_at_far
from ...metrics.identification import TIE_FLOAT32
from ...places import FORMS
from ..embeddings import Embeddings, Features
from ..images import Images
from ..people import People, list_people, mean_of, unit_rows
from ..result import Result, Rows
from ..words import percent, plain_point, tar_rows
from .base import EvaluationSet, Rule, refuse_places, register_protocol

_BLOCK = 512  # probes compared at a time


@dataclass(frozen=True)
class Identification(Result):
    """The outcome of searching every probe in the gallery.

    Attributes:
        num_gallery: people enrolled, each with one image.
        num_probes: other images of these people.
        num_impostors: images of people who are not enrolled.
        rank1, rank5: share of the probes whose person is the first, or among the first five, of the
            gallery.
        open_set: at each false alarm rate, the share of probes found at rank 1 with a score over
            the threshold (DIR, as ``tar``); ``far`` is the share of impostors whose best score is
            over it. ``num_impostor`` leaves out impostors whose embedding is undefined.
        subtract_mean: features were centred with the mean of the gallery's images.
    """

    key: ClassVar[str] = "identification"

    num_gallery: int
    num_probes: int
    num_impostors: int
    rank1: float
    rank5: float
    open_set: tuple[OperatingPoint, ...]
    subtract_mean: bool

    def headline(self) -> tuple[str, float]:
        """Rank 1."""
        return "rank 1", self.rank1

    def heading(self) -> list[str]:
        """Who is searched among whom."""
        mean = "centred with the gallery's mean" if self.subtract_mean else "NO mean subtracted"
        return [
            f"identification: {self.num_gallery:,} people enrolled with one image, {self.num_probes:,} probes, "
            f"{self.num_impostors:,} impostors; {mean}"
        ]

    def summary(self) -> list[str]:
        """How many searches find the right person."""
        return [
            f"Each of {self.num_probes:,} images is compared with one image each of {self.num_gallery:,} people. For "
            f"{self.rank1:.0%} of them the right person comes first, for {self.rank5:.0%} among the first five."
        ]

    def rows(self) -> Sequence[Rows]:
        """Ranks, and DIR at FAR."""
        ranks = (
            ("rank 1", percent(self.rank1), "the right person has the highest score"),
            ("rank 5", percent(self.rank5), "the right person is among the five highest scores"),
        )
        note = (
            "DIR: share of probes found at rank 1 with a score above the threshold. FAR: share of impostors above it."
        )
        points = replace(tar_rows(self.open_set, rates=("FAR", "DIR")), title="DIR at FAR", note=note)
        return Rows((), ranks, "Identification", key=True), points

    def to_dict(self) -> dict[str, Any]:
        """All figures."""
        return {**asdict(self), "open_set": [plain_point(point) for point in self.open_set]}


@register_protocol("identification")
@dataclass(frozen=True)
class IdentificationSet(EvaluationSet):
    """A folder of people, searched in itself: see :func:`identify`."""

    form = FORMS["identification"]

    name: str
    images: Images
    people: People

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> IdentificationSet:  # noqa: ARG003
        """List the people of a folder.

        Raises:
            UserError: no such folder, or it lacks people with two images or people with one.
        """
        refuse_places(cls, name, places, 1)
        people = list_people(places[0])
        roles(people)
        return cls(name, people.images, people)

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> Identification:
        """Search every probe in the gallery."""
        return identify(embeddings.features(), self.people, subtract_mean=rule.subtract_mean)


def identify(features: Features, people: People, *, subtract_mean: bool = True) -> Identification:
    """Image 1 of everyone with two or more images is the gallery, their others are probes, all else
    impostors.

    Scores are cosines, centred with the mean of the gallery's images: what a system knows before
    anyone is searched. Where scores tie, or differ by rounding alone, the true person stands last.
    An undefined embedding (zero or not
    finite) costs only its own searches: a probe finds nobody, a person of the gallery is not found
    and takes no rank, and an impostor is left out. If all impostors are undefined, no threshold
    keeps them out.

    Args:
        features: (N, F) float, a row for each of ``people.files``.
        people: who is on them.
        subtract_mean: False compares uncentred features.

    Raises:
        UserError: nobody has two images, or nobody has only one.
    """
    gallery, probes, impostors = roles(people)
    units = unit_rows(features, mean_of(features[gallery]) if subtract_mean else None)
    enrolled = units[gallery]
    top, rank = _search(units[probes], enrolled, _place(people, gallery, probes))
    best, _ = _search(units[impostors], enrolled, np.zeros(len(impostors), dtype=np.int64))
    found = np.where(rank == 1, top, -np.inf)  # a probe found as somebody else is not found at any threshold
    same = np.arange(len(probes) + len(impostors)) < len(probes)
    curve = roc(np.concatenate([found, best]).astype(np.float64), same)
    return Identification(
        num_gallery=len(gallery),
        num_probes=len(probes),
        num_impostors=len(impostors),
        rank1=float(np.mean(rank <= 1)),
        rank5=float(np.mean(rank <= min(5, len(gallery)))),  # a probe that is not found has a rank after the last
        open_set=tar_at_far(curve, FAR_TARGETS),
        subtract_mean=subtract_mean,
    )


def roles(people: People) -> tuple[IntArray, IntArray, IntArray]:
    """Which rows of ``people.files`` are gallery, probes and impostors.

    Raises:
        UserError: nobody has two images, or nobody has only one.
    """
    several = people.num_images > 1
    gallery, probes = np.flatnonzero(several & people.first), np.flatnonzero(several & ~people.first)
    impostors = np.flatnonzero(~several)
    if not len(gallery) or not len(impostors):
        raise UserError(
            f"{people.root}: {len(gallery)} people with two or more images and {len(impostors)} with one · "
            "identification needs both: the first are enrolled, the others are not to be found"
        )
    return gallery, probes, impostors


def _place(people: People, gallery: IntArray, probes: IntArray) -> IntArray:
    """Where in the gallery the person of each probe is."""
    place = np.full(len(people.names), -1, dtype=np.int64)
    place[people.person[gallery]] = np.arange(len(gallery))
    return place[people.person[probes]]


def _search(probes: Features, gallery: Features, own: IntArray) -> tuple[Features, IntArray]:
    """Search unit vectors; those without a direction are 0 or NaN.

    Returns:
        The best score of each probe, and the rank of row ``own`` of the gallery for it, from 1. A
        probe without a direction has the score NaN. One more than the gallery holds is the rank
        where either has no direction.
    """
    top, rank = np.empty(len(probes), dtype=np.float32), np.empty(len(probes), dtype=np.int64)
    undefined = _without_direction(gallery)
    for start in range(0, len(probes), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = probes[block] @ gallery.T  # (block, gallery)
        scores[:, undefined] = -np.inf
        mate = np.take_along_axis(scores, own[block, None], axis=1)
        top[block] = scores.max(axis=1)
        rank[block] = (scores >= mate - np.float32(TIE_FLOAT32)).sum(axis=1)
    lost = _without_direction(probes)
    top[lost] = np.nan
    rank[lost | undefined[own]] = len(gallery) + 1
    return top, rank


def _without_direction(units: Features) -> BoolArray:
    """(N,) bool: rows of unit vectors that are 0 or NaN instead."""
    return np.asarray(~(np.einsum("ij,ij->i", units, units) > 0))
