"""Find suspicious labels of a training set by its embeddings, each with its value and threshold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.check import Findings, Inspection
from ..data.identities import Labels
from ..data.sources import Source
from ..data.suspicions import Suspect, Suspicion
from ..errors import printable
from ..metrics.subjects import subjects_of
from .embed_source import embed_source
from .embedder import Embedder
from .label_check import HALVES, STRANGERS, Alike, People
from .people import people_of_names
from .protocols import EvaluationSet
from .protocols.pairs import PairSet

Indices = npt.NDArray[np.int64]

_SHOWN = 3  # images of each identity of a pair
_SIMILARITY = "cosine of the two means, minus that of either with similar people"


class LabelSuspicions:
    """Embeds the clean images of a source and finds suspicious labels.

    Args:
        source: N images.
        seen, findings: the results of a check of these images.
        embedder: see :func:`.embed_source.embed_source`.
        kept: folder for the embeddings.

    Raises:
        UserError: an image has become unusable since the check.
    """

    def __init__(self, source: Source, seen: Inspection, findings: Findings, embedder: Embedder, kept: Path) -> None:
        self.source, self.embedder = source, embedder
        self.rows = np.flatnonzero(findings.keep)
        self.known, labels = np.unique(np.asarray(source.labels)[self.rows], return_inverse=True)
        embeddings = embed_source(embedder, source, self.rows, seen.digests[self.rows], kept)
        self.people = People(embeddings, Labels.of(labels))
        self.same = self.people.same_person()
        self._threshold = f"at least {self.same:.3f}, which {1 - HALVES:.0%} of the identities' own halves reach"

    def all(self, sets: Sequence[EvaluationSet]) -> list[Suspicion]:
        """Return the suspicions within the set, and those against verification sets."""
        return [self.unlike(), self.same_person(), *([self.in_verification(sets)] if sets else [])]

    def unlike(self) -> Suspicion:
        """Find images that are unlike their own identity."""
        rows, cosine, threshold = self.people.unlike()
        other, nearer = self.people.nearest(rows)
        images = self.rows[rows].tolist()
        suspects = [
            Suspect(
                number,
                [image],
                f"{self.source.name(image)}: more like {self._name(label)} ({like:.3f})"
                if like > number
                else self.source.name(image),
            )
            for image, number, label, like in zip(images, cosine.tolist(), other.tolist(), nearer.tolist(), strict=True)
        ]
        return Suspicion(
            "unlike-own", "cosine with the mean of the other images of the identity",
            f"below {threshold:.3f}, which {1 - STRANGERS:.0%} of strangers exceed", suspects, np.sort(self.rows[rows]),
        )  # fmt: skip

    def same_person(self) -> Suspicion:
        """Find identities that look like one person; the rows are of the smaller of each pair."""
        pairs = self.people.alike(self.same)
        suspects = [
            Suspect(number, self._images(a) + self._images(b), f"{self._name(a)} ≈ {self._name(b)}")
            for a, b, number in _listed(pairs)
        ]
        counts = self.people.labels.counts
        fewer = np.where(counts[pairs.left] < counts[pairs.right], pairs.left, pairs.right)
        return Suspicion("same-person", _SIMILARITY, self._threshold, suspects, self._rows_of(fewer))

    def in_verification(self, sets: Sequence[EvaluationSet]) -> Suspicion:
        """Find identities that look like a person of a verification set."""
        suspects: list[Suspect] = []
        found = []
        for other in sets:
            person = _people_of(other)
            embeddings = self.embedder.embed(other.images.found())
            pairs = self.people.also_in(embeddings, person, self.same)
            first = np.unique(person, return_index=True)[1]
            suspects += [
                Suspect(
                    number,
                    self._images(a),
                    f"{self._name(a)} ≈ {printable(other.images.label(int(first[b])))} of {other.name}",
                )
                for a, b, number in _listed(pairs)
            ]
            found.append(pairs.left)
        suspects.sort(key=lambda suspect: -suspect.number)
        rows = self._rows_of(np.concatenate(found))
        return Suspicion("in-verification", _SIMILARITY, self._threshold, suspects, rows)

    def _name(self, person: int) -> str:
        return printable(self.source.class_names[int(self.known[person])])

    def _images(self, person: int) -> list[int]:
        start, end = self.people.labels.firsts[person : person + 2].tolist()
        images: list[int] = self.rows[start : min(end, start + _SHOWN)].tolist()
        return images

    def _rows_of(self, people: Indices) -> Indices:
        chosen = np.zeros(len(self.known), bool)
        chosen[people] = True
        rows: Indices = self.rows[chosen[np.asarray(self.people.labels)]]
        return rows


def _listed(pairs: Alike) -> list[tuple[int, int, float]]:
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.similarity.tolist(), strict=True))


def _people_of(loaded: EvaluationSet) -> Indices:
    """Return the person on each image of a set, by its folders and its genuine pairs."""
    known = people_of_names(loaded.images.names)
    if not isinstance(loaded, PairSet):
        return np.arange(len(loaded.images)) if known is None else known
    pairs = loaded.pairs
    return subjects_of(len(loaded.images), pairs.left, pairs.right, pairs.same, known)
