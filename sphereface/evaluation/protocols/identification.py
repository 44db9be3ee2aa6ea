"""The protocol for closed-set and open-set identification on a folder of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import UserError, count_of
from ...metrics import FAR_TARGETS, IntArray, OperatingPoint, roc, tar_at_far
from ...metrics.searches import mates, search
from ..copies import warn_of_copies_between
from ..embeddings import Embeddings, Features
from ..images import Images
from ..people import People, list_people, mean_of, unit_rows
from ..result import Result, Rows
from ..words import percent, plain_point, tar_rows
from .base import EvaluationSet, Rule, refuse_places, register_protocol


@dataclass(frozen=True)
class Identification(Result):
    """The outcome of searching every probe in the gallery.

    Attributes:
        num_gallery: number of people in the gallery, each with one image.
        num_probes: number of other images of these people.
        num_impostors: number of images of people who are not in the gallery.
        rank1, rank5: share of the probes whose person is the first, or among the first five, of the
            gallery.
        open_set: for each false accept rate, the share of probes found at rank 1 with a score above
            the threshold (DIR, as ``tar``). ``far`` is the share of impostors whose best score is
            above it. ``num_impostor`` excludes impostors with an undefined embedding.
        subtract_mean: the features are centred with the mean of the gallery's images.
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
        """Return the rate at rank 1."""
        return "rank 1", self.rank1

    def heading(self) -> list[str]:
        """Return the sizes of the gallery and of the probes."""
        mean = "centred with the gallery's mean" if self.subtract_mean else "NO mean subtracted"
        return [
            f"identification: {self.num_gallery:,} people enrolled with one image, {self.num_probes:,} probes, "
            f"{self.num_impostors:,} impostors; {mean}"
        ]

    def summary(self) -> list[str]:
        """Return how many searches find the right person."""
        return [
            f"Each of {self.num_probes:,} images is compared with one image each of {self.num_gallery:,} people. The "
            f"right person is first for {self.rank1:.0%} of them, and among the first five for {self.rank5:.0%}."
        ]

    def rows(self) -> Sequence[Rows]:
        """Return the ranks, and DIR at FAR."""
        ranks = (
            ("rank 1", percent(self.rank1), "the right person has the highest score"),
            ("rank 5", percent(self.rank5), "the right person is among the five highest scores"),
        )
        note = "DIR: share of probes found at rank 1, above the threshold. FAR: share of impostors above it."
        points = replace(tar_rows(self.open_set, rates=("FAR", "DIR")), title="DIR at FAR", note=note)
        return Rows((), ranks, "Identification", key=True), points

    def to_dict(self) -> dict[str, Any]:
        """Return all figures."""
        return {**asdict(self), "open_set": [plain_point(point) for point in self.open_set]}


@register_protocol("identification")
@dataclass(frozen=True)
class IdentificationSet(EvaluationSet):
    """A folder of people, divided into gallery, probes and impostors: see :func:`identify`."""

    name: str
    images: Images
    people: People

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> IdentificationSet:  # noqa: ARG003
        """List the people of a folder.

        Raises:
            UserError: there is no such folder, or it lacks people with two images or people with
                one.
        """
        refuse_places(cls, name, places, 1)
        people = list_people(places[0])
        roles(people)
        return cls(name, people.images, people)

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> Identification:
        """Search every probe in the gallery."""
        gallery, *searched = roles(self.people)
        rows = np.concatenate(searched)
        warn_of_copies_between(self.people.root, embeddings.content, self.images.names, rows, gallery)
        return identify(embeddings.features(), self.people, subtract_mean=rule.subtract_mean)


def identify(features: Features, people: People, *, subtract_mean: bool = True) -> Identification:
    """Search the probes of a folder in its gallery.

    The gallery holds the first image of each person with two or more images. The other images of
    these people are probes; the images of all other people are impostors. Scores are cosines,
    centred with the mean of the gallery's images, which a real system knows before the search.
    Scores that tie, or differ only by rounding, count against the right person.

    An undefined embedding (zero or not finite) affects only its own searches. A probe finds no
    entry; a person of the gallery is not found and takes no rank; an impostor does not count. If
    all impostors are undefined, all of them pass every threshold.

    Args:
        features: (N, F) float, a row for each of ``people.files``.
        people: the people on the images.
        subtract_mean: False does not centre the features.

    Raises:
        UserError: no person has two images, or no person has only one.
    """
    gallery, probes, impostors = roles(people)
    units = unit_rows(features, mean_of(features[gallery]) if subtract_mean else None)
    units[~units.any(axis=1)] = np.nan  # without a direction
    searched = np.concatenate([probes, impostors])
    mate = mates(people.person[searched], people.person[gallery])
    found = search(units[searched], units[gallery], mate)
    rank = found.rank[: len(probes)]  # a probe that is not found has a rank after the last
    top = np.where(found.is_mated & (found.rank > 1), -np.inf, found.best)  # a wrong best match is never accepted
    curve = roc(top, found.is_mated)
    return Identification(
        num_gallery=len(gallery),
        num_probes=len(probes),
        num_impostors=len(impostors),
        rank1=float(np.mean(rank <= 1)),
        rank5=float(np.mean(rank <= min(5, len(gallery)))),
        open_set=tar_at_far(curve, FAR_TARGETS),
        subtract_mean=subtract_mean,
    )


def roles(people: People) -> tuple[IntArray, IntArray, IntArray]:
    """Return the rows of ``people.files`` that are gallery, probes and impostors.

    Raises:
        UserError: no person has two images, or no person has only one.
    """
    several = np.bincount(people.person)[people.person] > 1
    first = np.append(True, people.person[1:] != people.person[:-1])
    gallery, probes = np.flatnonzero(several & first), np.flatnonzero(several & ~first)
    impostors = np.flatnonzero(~several)
    if not len(gallery) or not len(impostors):
        raise UserError(
            f"{people.root}: got {count_of(len(gallery), 'person', 'people')} with two or more images and "
            f"{len(impostors)} with one · "
            "allowed: one or more of each; the first are in the gallery, the others are impostors"
        )
    return gallery, probes, impostors
