"""Find suspects in a training set, each with a number and the threshold that it passed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from .check import Findings, Inspection, Limits
from .near_duplicates import BITS, Indices, find_links, groups_of
from .sources import Source

KINDS = {
    "near-duplicates": "groups of near-duplicates within an identity",
    "near-duplicates-across": "groups of near-duplicates under several identities",
    "several-faces": "crops of images with several faces",
    "unlike-own": "images unlike their own identity",
    "same-person": "pairs of identities that look like one person",
    "in-verification": "pairs of an identity and a person of a verification set who look alike",
}
"""The name of each kind, for ``--leave-out`` and the report → its title."""

NEAR = 12
"""Largest Hamming distance of near-duplicates, of 128 bits; docs/data.md gives examples."""

_MOST_NAMED = 5  # images of a group in its text


@dataclass(frozen=True)
class Suspect:
    """One suspect for the user to look at.

    Attributes:
        number: its value of :attr:`Suspicion.number`.
        images: the images that show it.
        text: a description.
    """

    number: float
    images: list[int]
    text: str


@dataclass(frozen=True)
class Suspicion:
    """All suspects of one kind.

    Attributes:
        kind: of :data:`KINDS`.
        number: the meaning of a suspect's number.
        threshold: the range of the number that makes a suspect, in words.
        suspects: the most suspect first.
        rows: int64, the images that ``--leave-out`` excludes.
    """

    kind: str
    number: str
    threshold: str
    suspects: list[Suspect]
    rows: Indices

    @property
    def title(self) -> str:
        return KINDS[self.kind]


def near_duplicates(source: Source, seen: Inspection, findings: Findings) -> list[Suspicion]:
    """Find near-duplicates among the clean images of a source.

    In a group within an identity, all but the first are suspects. If a group has several
    identities, the right label is unknown, and all its images are suspects.
    """
    clean = np.flatnonzero(findings.keep)
    labels = np.asarray(source.labels)
    within: list[Suspect] = []
    across: list[Suspect] = []
    for rows, distance in groups_of(find_links(seen.hashes[clean], NEAR)):
        images = clean[rows].tolist()
        alone = len(set(labels[images].tolist())) == 1
        (within if alone else across).append(Suspect(distance, images, names(source, images)))
    number, threshold = f"largest Hamming distance of neighbours, of {BITS} bits", f"at most {NEAR}"
    return [
        Suspicion(kind, number, threshold, sorted(found, key=lambda suspect: suspect.number), _rows(parts))
        for kind, found, parts in (
            ("near-duplicates", within, [suspect.images[1:] for suspect in within]),
            ("near-duplicates-across", across, [suspect.images for suspect in across]),
        )
    ]


def several_faces(source: Source, paths: Sequence[str], several: Collection[str]) -> Suspicion:
    """List the crops of images with several faces: the crop may show the wrong person.

    Args:
        source: the crops.
        paths: N, of the crops, with slashes.
        several: paths of the images as ``sphereface align`` reports them, from the same folder on.
    """
    known = {PurePosixPath(name).with_suffix("") for name in several}
    rows = [row for row, path in enumerate(paths) if PurePosixPath(path).with_suffix("") in known]
    suspects = [Suspect(2, [row], source.name(row)) for row in rows]
    return Suspicion("several-faces", "faces in the image, at least", "2 or more", suspects, _rows([rows]))


def without(
    source: Source, findings: Findings, suspicions: Sequence[Suspicion], kinds: Collection[str], limits: Limits
) -> Findings:
    """Return the findings with a clean set that also excludes the suspects of these kinds.

    Identities that then have fewer than ``limits.min_images`` images are excluded as well.
    """
    keep = findings.keep.copy()
    for suspicion in suspicions:
        if suspicion.kind in kinds:
            keep[suspicion.rows] = False
    labels = np.asarray(source.labels)
    few = np.bincount(labels[keep], minlength=len(source.class_names)) < limits.min_images
    return replace(findings, keep=keep & ~few[labels])


def names(source: Source, images: Sequence[int]) -> str:
    """Return the names of similar images; of many, the first few and the number of the others."""
    more = [f"{len(images) - _MOST_NAMED:,} more"] if len(images) > _MOST_NAMED else []
    return " ≈ ".join([*map(source.name, images[:_MOST_NAMED]), *more])


def _rows(parts: Sequence[Sequence[int]]) -> Indices:
    return np.array(sorted(row for part in parts for row in part), dtype=np.int64)
