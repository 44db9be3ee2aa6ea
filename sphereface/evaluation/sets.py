"""Verification sets as the command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.bins import is_bin
from ..data.pairs import Pairs
from ..errors import UserError
from ..metrics import IntArray
from .lfw import PairSet, load_pair_set
from .templates import read_template_pairs, read_templates

ALLOWED = (
    "name=DIR (with DIR/pairs.txt), name=DIR,PAIRS, name=FILE.bin, or name=DIR,TEMPLATES,PAIRS for lists of templates"
)


def parse_sets(given: Sequence[str]) -> list[PairSet]:
    """Read the sets that ``--sets`` names, each as one of :data:`ALLOWED`.

    Raises:
        UserError: another form, a name given twice, or what :func:`load_pair_set` raises.
    """
    sets: dict[str, PairSet] = {}
    for text in given:
        name, _, places = text.partition("=")
        parts = places.split(",")
        if not name or not all(parts) or len(parts) > 3 or "/" in name or name.startswith("."):
            raise UserError(f"--sets: got {text!r} · allowed: {ALLOWED}")
        if name in sets:
            raise UserError(f"--sets: got {name!r} twice · allowed: each name once, since it names a folder of results")
        sets[name] = _load(name, [Path(part) for part in parts])
    return list(sets.values())


def people_of(pairs: Pairs) -> tuple[IntArray, IntArray] | None:
    """Who is on the left and on the right of each pair, by the folders of the pictures (``Name/Name_0001.jpg``).

    Returns:
        Two arrays (P,) of numbers from 0; None where the names do not say, or say something else than ``pairs.same``.
    """
    person = people_of_names(pairs.names)
    if person is None:
        return None
    left, right = person[pairs.left], person[pairs.right]
    return (left, right) if ((left == right) == pairs.same).all() else None


def people_of_names(names: Sequence[str]) -> IntArray | None:
    """(M,) int64 who is on each picture, numbered by name; None where a name has no folder."""
    folders = [name.rpartition("/")[0] for name in names]
    if not all(folders):
        return None
    number = {folder: index for index, folder in enumerate(sorted(set(folders)))}
    return np.array([number[folder] for folder in folders], dtype=np.int64)


def _load(name: str, places: Sequence[Path]) -> PairSet:
    if len(places) == 3:
        root, templates_list, pairs = places
        templates, files = read_templates(root, templates_list)
        return PairSet(name, root, read_template_pairs(pairs, templates), files, templates=templates)
    if len(places) == 2:
        return load_pair_set(name, *places)
    (place,) = places
    return load_pair_set(name, place, place if is_bin(place) else place / "pairs.txt")
