"""The door for protocols: a set knows its images and what to make of their embeddings."""

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
"""Kind → class, in the order in which a set's form is looked at. :func:`register_protocol` adds to it."""

S = TypeVar("S", bound="type[EvaluationSet]")


@dataclass(frozen=True)
class Rule:
    """How results are computed, the same for every set of a call.

    Attributes:
        subtract_mean: centre the embeddings, as SphereFace's protocol does, in every protocol that
            can.
    """

    subtract_mean: bool = True


class EvaluationSet(ABC):
    """A set of images under a protocol.

    A protocol of your own is a subclass in a module of its own, registered with
    :func:`register_protocol` (docs/extend.md). ``kind`` is set by that decorator.
    """

    kind: ClassVar[str]
    form: ClassVar[str]
    """What ``--sets NAME=…`` takes, for help texts and errors: ``DIR[,PAIRS]``."""
    name: str
    images: Images

    @classmethod
    @abstractmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> EvaluationSet:
        """Read the lists of a set.

        Args:
            name: what reports call it.
            places: the paths that follow ``NAME=``, one or more.
            find_images: look for the images on disk. False where embeddings come from a table.

        Raises:
            UserError: a list is missing or malformed, images are missing, or there are too many
                places.
        """

    @classmethod
    def recognises(cls, places: Sequence[Path]) -> bool:
        """Say whether places without ``KIND:`` before them are of this form. None are, unless a
        protocol says so.
        """
        return not places

    @abstractmethod
    def evaluate(self, embeddings: Embeddings, rule: Rule) -> Result:
        """Compute the result from the embeddings of ``images``, a row each."""


def register_protocol(kind: str) -> Callable[[S], S]:
    """Add a protocol under the name that ``--sets NAME=KIND:…`` and ``eval.sets`` use.

    Raises:
        UserError: the name is taken, or it is not small letters, digits and dashes after a letter,
            two or more.
    """
    if kind in PROTOCOLS or not is_kind(kind):
        allowed = "two or more small letters, digits and dashes, a letter first"
        taken = "already a protocol" if kind in PROTOCOLS else f"allowed: {allowed}"
        raise UserError(f"register_protocol: got {kind!r} · {taken} · choose another name")

    def register(protocol: S) -> S:
        protocol.kind = kind
        PROTOCOLS[kind] = protocol
        FORMS.setdefault(kind, protocol.form)
        return protocol

    return register


def refuse_places(cls: type[EvaluationSet], name: str, places: Sequence[Path], most: int, *, least: int = 1) -> None:
    """Raise the error for more or fewer places than a protocol takes."""
    if not least <= len(places) <= most:
        raise UserError(f"{name}: got {len(places)} paths · allowed: {cls.kind}:{cls.form}")
