"""What may be wrong with a training set: each suspicion with its number, and the threshold that it
passed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from .check import Findings, Limits, Seen
from .near_duplicates import BITS, Indices, find_links, groups_of
from .sources import Source

KINDS = {
    "near-duplicates": "groups of near-duplicates within an identity",
    "near-duplicates-across": "groups of near-duplicates under several identities",
    "several-faces": "crops of images with several faces",
    "unlike-own": "images unlike their own identity",
    "same-person": "pairs of identities that look like one person",
    "in-verification": "identities that look like a person of a verification set",
}
"""What ``--leave-out`` and the report call each kind, and its title."""

NEAR = 12
"""Largest Hamming distance of near-duplicates, of 128 bits. See docs/data.md for what is found at which distance."""


@dataclass(frozen=True)
class Suspect:
    """One thing to look at.

    Attributes:
        number: what :attr:`Suspicion.number` names.
        images: the images that show it.
        text: what it is, for people.
    """

    number: float
    images: list[int]
    text: str


@dataclass(frozen=True)
class Suspicion:
    """All suspects of one kind.

    Attributes:
        kind: of :data:`KINDS`.
        number: what the number of a suspect is.
        threshold: which number makes a suspect, in words.
        suspects: the most suspect first.
        rows: int64, the images that ``--leave-out`` leaves out.
    """

    kind: str
    number: str
    threshold: str
    suspects: list[Suspect]
    rows: Indices

    @property
    def title(self) -> str:
        return KINDS[self.kind]


def near_duplicates(source: Source, seen: Seen, findings: Findings) -> list[Suspicion]:
    """Find near-duplicates among the clean images of a source.

    Of a group within an identity, all but the first are to be left out. If a group has several
    identities, it is not
    known which label is right: all its images are to be left out.
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
    """List the crops of images with several faces: the face of another person may have been taken.

    Args:
        source: the crops.
        paths: N, of the crops relative to their folder, with slashes.
        several: names of the images, relative to their folder, as ``sphereface align`` reports
            them.
    """
    known = {PurePosixPath(name).with_suffix("") for name in several}
    rows = [row for row, path in enumerate(paths) if PurePosixPath(path).with_suffix("") in known]
    suspects = [Suspect(2, [row], source.name(row)) for row in rows]
    return Suspicion("several-faces", "faces in the image, at least", "2 or more", suspects, _rows([rows]))


def without(
    source: Source, findings: Findings, suspicions: Sequence[Suspicion], kinds: Collection[str], limits: Limits
) -> Findings:
    """Return the findings with a clean set that leaves out the suspects of these kinds too.

    Identities that have fewer than ``limits.min_images`` images then go as well.
    """
    keep = findings.keep.copy()
    for suspicion in suspicions:
        if suspicion.kind in kinds:
            keep[suspicion.rows] = False
    labels = np.asarray(source.labels)
    few = np.bincount(labels[keep], minlength=len(source.class_names)) < limits.min_images
    return replace(findings, keep=keep & ~few[labels])


def names(source: Source, images: Sequence[int]) -> str:
    """Return the names of images that are alike."""
    return " ≈ ".join(map(source.name, images))


def _rows(parts: Sequence[Sequence[int]]) -> Indices:
    return np.array(sorted(row for part in parts for row in part), dtype=np.int64)
