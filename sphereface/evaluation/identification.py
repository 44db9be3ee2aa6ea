"""Who is it: closed-set and open-set identification on a folder of people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..metrics import FAR_TARGETS, IntArray, OperatingPoint, roc, tar_at_far
from .people import Features, People, unit_rows

_BLOCK = 512  # probes compared at a time


@dataclass(frozen=True)
class Identification:
    """The outcome of searching every probe in the gallery.

    Attributes:
        num_gallery: people enrolled, each with one picture.
        num_probes: other pictures of these people.
        num_impostors: pictures of people who are not enrolled.
        rank1, rank5: share of the probes whose person is the first, or among the first five, of the gallery.
        open_set: at each false alarm rate, the share of probes found at rank 1 with a score over the threshold
            (DIR, as ``tar``); ``far`` is the share of impostors whose best score is over it.
        subtract_mean: features were centred with the mean of the gallery's pictures.
    """

    num_gallery: int
    num_probes: int
    num_impostors: int
    rank1: float
    rank5: float
    open_set: tuple[OperatingPoint, ...]
    subtract_mean: bool


def identify(features: Features, people: People, *, subtract_mean: bool = True) -> Identification:
    """Picture 1 of everyone with two or more pictures is the gallery, their others are probes, all else impostors.

    Scores are cosines, centred with the mean of the gallery's pictures: what a system knows before anyone is searched.
    Where scores tie, the true person stands last.

    Args:
        features: (N, F) float, a row for each of ``people.files``.
        people: who is on them.
        subtract_mean: False compares uncentred features.

    Raises:
        UserError: nobody has two pictures, or nobody has only one.
    """
    gallery, probes, impostors = roles(people)
    mean = features[gallery].mean(axis=0, dtype=np.float64) if subtract_mean else None
    enrolled = unit_rows(features[gallery], mean)
    top, rank = _search(unit_rows(features[probes], mean), enrolled, _place(people, gallery, probes))
    best, _ = _search(unit_rows(features[impostors], mean), enrolled, np.zeros(len(impostors), dtype=np.int64))
    found = np.where(rank == 1, top, -np.inf)  # a probe found as somebody else is not found at any threshold
    same = np.arange(len(probes) + len(impostors)) < len(probes)
    curve = roc(np.concatenate([found, best]).astype(np.float64), same)
    return Identification(
        num_gallery=len(gallery),
        num_probes=len(probes),
        num_impostors=len(impostors),
        rank1=float(np.mean(rank <= 1)),
        rank5=float(np.mean(rank <= 5)),
        open_set=tar_at_far(curve, FAR_TARGETS),
        subtract_mean=subtract_mean,
    )


def roles(people: People) -> tuple[IntArray, IntArray, IntArray]:
    """Which rows of ``people.files`` are gallery, probes and impostors.

    Raises:
        UserError: nobody has two pictures, or nobody has only one.
    """
    several = people.pictures > 1
    gallery, probes = np.flatnonzero(several & people.first), np.flatnonzero(several & ~people.first)
    impostors = np.flatnonzero(~several)
    if not len(gallery) or not len(impostors):
        raise UserError(
            f"{people.root}: {len(gallery)} people with two or more pictures and {len(impostors)} with one · "
            "identification needs both: the first are enrolled, the others are not to be found"
        )
    return gallery, probes, impostors


def _place(people: People, gallery: IntArray, probes: IntArray) -> IntArray:
    """Where in the gallery the person of each probe is."""
    place = np.full(len(people.names), -1, dtype=np.int64)
    place[people.person[gallery]] = np.arange(len(gallery))
    return place[people.person[probes]]


def _search(probes: Features, gallery: Features, own: IntArray) -> tuple[Features, IntArray]:
    """The best score of each probe, and the rank of row ``own`` of the gallery for it, from 1."""
    top, rank = np.empty(len(probes), dtype=np.float32), np.empty(len(probes), dtype=np.int64)
    for start in range(0, len(probes), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = probes[block] @ gallery.T  # (block, gallery)
        top[block] = scores.max(axis=1)
        rank[block] = (scores >= np.take_along_axis(scores, own[block, None], axis=1)).sum(axis=1)
    return top, rank
