"""The interface of protocols: a set has images and computes a result from their embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from ...errors import UserError
from ...places import FORMS, is_kind
from ..embeddings import Embeddings
from ..images import Images
from ..result import Result

PROTOCOLS: dict[str, type[EvaluationSet]] = {}
"""Kind → class. The first class that recognises a form reads the set."""

S = TypeVar("S", bound="type[EvaluationSet]")


@dataclass(frozen=True)
class Rule:
    """The rule for all results of a call.

    Attributes:
        subtract_mean: centre the embeddings, as SphereFace's protocol does, in every protocol that
            supports it.
    """

    subtract_mean: bool = True


class EvaluationSet(ABC):
    """A set of images and its protocol.

    Write your own protocol as a subclass in a separate module, and register it with
    :func:`register_protocol` (docs/extend.md). That decorator sets ``kind``.
    """

    kind: ClassVar[str]
    form: ClassVar[str]
    """Form of the paths for ``--sets NAME=…``, for help texts and errors: ``DIR[,PAIRS]``."""
    name: str
    images: Images

    @classmethod
    @abstractmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> EvaluationSet:
        """Read the lists of a set.

        Args:
            name: name of the set in reports.
            places: the paths after ``NAME=``, one or more.
            find_images: search the images on disk. False if the embeddings come from a table.

        Raises:
            UserError: a list is missing or malformed, images are missing, or there are too many
                places.
        """

    @classmethod
    def recognises(cls, places: Sequence[Path]) -> bool:
        """Return whether paths without ``KIND:`` have this form; by default, none have."""
        return not places

    @abstractmethod
    def evaluate(self, embeddings: Embeddings, rule: Rule) -> Result:
        """Compute the result from the embeddings of ``images``, one row for each image."""


def register_protocol(kind: str) -> Callable[[S], S]:
    """Add a protocol under the name that ``--sets NAME=KIND:…`` and ``eval.sets`` use.

    Raises:
        UserError: the name is in use, or it is not two or more lowercase letters, digits and
            dashes with a letter first.
    """
    if kind in PROTOCOLS or not is_kind(kind):
        allowed = "two or more lowercase letters, digits and dashes, a letter first"
        taken = "already a protocol" if kind in PROTOCOLS else f"allowed: {allowed}"
        raise UserError(f"register_protocol: got {kind!r} · {taken} · choose another name")

    def register(protocol: S) -> S:
        protocol.kind = kind
        if kind in FORMS:  # of this package; help texts show it before the protocol is imported
            protocol.form = FORMS[kind]
        FORMS[kind] = protocol.form
        PROTOCOLS[kind] = protocol
        return protocol

    return register


def refuse_places(cls: type[EvaluationSet], name: str, places: Sequence[Path], most: int, *, least: int = 1) -> None:
    """Raise a UserError if a protocol does not take this number of paths."""
    if not least <= len(places) <= most:
        raise UserError(f"{name}: got {len(places)} paths · allowed: {cls.kind}:{cls.form}")
