"""Find people of an evaluation set whose names are those of identities in the training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..checkpoint_meta import numbered_tags
from ..data.sources import shared_names
from ..data.sources.selection import Identities
from ..errors import count_of, shown


@dataclass(frozen=True)
class TrainedOn:
    """The identities of a checkpoint's training set.

    Attributes:
        class_names: their names.
        named: whether any of them has a name that is not only a number.
        numbered: the tags of joined sources that have only numbers.
    """

    class_names: Sequence[str]
    named: bool
    numbered: frozenset[str]


def shared_people(source: Identities, images: Sequence[str], where: str) -> str:
    """Return the start of a warning of people in both sets; "" if there are none.

    Args:
        source: the training set.
        images: names of images of the evaluation set.
        where: the training set, in words.
    """
    if not (shared := shared_names(source, images)):
        return ""
    people = count_of(len(shared), "person has the name of an identity", "people have the names of identities")
    return f"{people} in {where}, such as {shown(shared[0])}: if they are the same people, its figures will be too good"


def identities_of(meta: Mapping[str, Any]) -> TrainedOn:
    """Return the identities of a checkpoint's training set, as :func:`shared_people` needs them.

    Numbers say nothing about other sets. People of an earlier training set, or of that of another
    network that was joined, count too.
    """
    numbered, names = numbered_tags(meta), meta.get("class_names", ())
    if not (more := [f"/{name}" for name in meta.get("more_people", ())]):
        return TrainedOn(names, numbered != [""], frozenset(numbered))
    return TrainedOn([*names, *more] if numbered != [""] else more, True, frozenset(numbered) - {""})
