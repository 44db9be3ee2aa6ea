"""Find people of an evaluation set whose names are those of identities in the training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    Earlier versions did not record which names are only numbers. Then names of digits count as
    numbers, which say nothing about other sets.
    """
    names = meta.get("class_names", ())
    if (numbered := meta.get("numbered")) is None:
        tags = {name.partition("/")[0] for name in names}
        named = {name.partition("/")[0] for name in names if not name.rpartition("/")[2].isdecimal()}
        numbered = [""] if not named else sorted(tags - named)
    return TrainedOn(names, numbered != [""], frozenset(numbered))
