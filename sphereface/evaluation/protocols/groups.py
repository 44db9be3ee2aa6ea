"""The protocol for pairs in groups of people, such as RFW's: it compares the groups' accuracies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...data.pair_folds import NUM_FOLDS, consecutive_folds
from ...data.pair_forms import check_column_names, is_heading
from ...data.pair_lines import Line, image_name, is_number, plain_label, quoted, read_lines
from ...data.pairs import Pairs
from ...data.walking import is_system_file, kind_of_path
from ...errors import UserError, count_of, shown_key
from ...metrics import IntArray
from ..copies import warn_of_copies_in_pairs
from ..embeddings import Embeddings
from ..images import Images, find_files
from ..labels import check_folders, check_groups, check_labels, num_repeated_impostors
from ..lfw import pair_cosines, verify
from ..parts import parts_of
from ..people import people_of
from .base import EvaluationSet, Rule, refuse_places, register_protocol
from .groups_result import Groups
from .groups_scores import GroupScores

log = logging.getLogger(__name__)

_LIST_FORM = "'image image 0|1 GROUP [fold]'"


@dataclass(frozen=True)
class Group:
    """The pairs of one group.

    Attributes:
        name: name of the group.
        pairs: pairs of the group's images, with folds.
        rows: (M,) rows of the group's images among all images of the set.
    """

    name: str
    pairs: Pairs
    rows: IntArray


@register_protocol("groups")
@dataclass(frozen=True)
class GroupSet(EvaluationSet):
    """Pairs in groups. Both images of a pair belong to the same group.

    Attributes:
        name: name of the set in reports.
        images: images of all groups, sorted by their names relative to the folder.
        source: the list, or the folder of lists.
        groups: two groups or more, sorted by name.
    """

    name: str
    images: Images
    source: Path
    groups: tuple[Group, ...]

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> GroupSet:
        """Read the lists of all groups.

        Raises:
            UserError: a list is missing or malformed, there is only one group, a fold of a group
                lacks pairs of one kind, or images are missing.
        """
        refuse_places(cls, name, places, 2)
        root, source = places[0], places[-1]
        lists = read_group_list(source) if len(places) == 2 else _read_rfw(root)
        if len(lists) < 2:
            raise UserError(
                f"{source}: got the groups {', '.join(map(shown_key, lists)) or 'none'} · allowed: two groups or more"
            )
        check_groups(source, sorted(lists.items()))
        names = tuple(sorted({name for pairs in lists.values() for name in pairs.names}))
        row = {name: number for number, name in enumerate(names)}
        groups = tuple(
            Group(group, pairs, np.array([row[name] for name in pairs.names], dtype=np.int64))
            for group, pairs in sorted(lists.items())
        )
        files = find_files(root, names, lists.values()) if find_images else None
        return cls(name, Images(root, names, files), source, groups)

    @classmethod
    def recognises(cls, places: Sequence[Path]) -> bool:
        """Return whether this is RFW's folder. A list needs ``groups:`` before it."""
        return len(places) == 1 and any(places[0].glob("txts/*/*_pairs.txt"))

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> Groups:
        """Verify the pairs of each group."""
        features = embeddings.features()
        scores = []
        for group in self.groups:
            own = features[group.rows].astype(np.float64)
            warn_of_copies_in_pairs(group.pairs, None if embeddings.content is None else embeddings.content[group.rows])
            outcome = verify(own, group.pairs, subtract_mean=rule.subtract_mean)
            cosines = pair_cosines(own, group.pairs)
            repeated = num_repeated_impostors(group.pairs, cosines)
            scores.append(GroupScores(group.name, outcome, cosines, people_of(group.pairs), repeated))
        return Groups(self.source, tuple(scores), embeddings, rule.subtract_mean)


def read_group_list(path: Path) -> dict[str, Pairs]:
    """Read a list with one pair in each line: ``image image 0|1 GROUP [fold]``.

    The label is 1 for one person and 0 for two. Tabs, commas, semicolons or spaces separate the
    fields, the same in all lines. Without folds, each group gets ten. The first line may hold
    column names.

    Returns:
        Group → its pairs, in the order of the list.

    Raises:
        UserError: the file is missing, a line has another form, or a group lacks pairs.
    """
    lines = read_lines(path)
    separator = next((each for each in ("\t", ",", ";") if each in lines[0].text), None)
    num_fields = len(lines[0].fields(separator))
    if len(lines) > 1 and is_heading(names := lines[0].fields(separator), lines[1].fields(separator)):
        check_column_names(path, lines[0].number, names, ("image", "image", "label", "group", "fold"))
        lines = lines[1:]
    found: dict[str, list[_Row]] = {}
    for line in lines:
        group, row = _parse_line(path, line, separator, num_fields)
        found.setdefault(group, []).append(row)
    return {group: _pairs(path, group, rows) for group, rows in found.items()}


class _Row(NamedTuple):
    left: str
    right: str
    same: bool
    fold: int | None = None


def _parse_line(path: Path, line: Line, separator: str | None, num_fields: int) -> tuple[str, _Row]:
    where, fields = f"{path}, line {line.number}", line.fields(separator)
    if len(fields) != num_fields or len(fields) not in (4, 5) or not all(fields):
        raise UserError(
            f"{where}: got {quoted(line.text)} · expected {_LIST_FORM}, separated by tabs, commas or spaces, with a "
            "fold in all lines or in none"
        )
    left, right, label, group, *fold = fields
    label = plain_label(label)
    if not group.isprintable():
        raise UserError(f"{where}: got the group {quoted(group)} · allowed: names without control characters")
    if label not in ("0", "1"):
        raise UserError(f"{where}: got the label {quoted(label)} · allowed: 1 for one person, 0 for two people")
    if fold and not is_number(fold[0]):
        raise UserError(f"{where}: got the fold {quoted(fold[0])} · allowed: whole numbers from 0")
    left, right = (image_name(path, line.number, side) for side in (left, right))
    return group, _Row(left, right, label == "1", int(fold[0]) if fold else None)


def _read_rfw(root: Path) -> dict[str, Pairs]:
    """Read the lists of RFW: lines ``name n1 n2`` or ``name1 n1 name2 n2``, no header."""
    lists = root / "txts"
    folders = parts_of(lists, lambda path: kind_of_path(path) == "folder", "groups") if lists.is_dir() else []
    if not folders:
        raise UserError(
            f"{root}: has no folder txts with a folder for each group · allowed: RFW's folder 'test', or DIR,LIST with "
            f"a list of lines {_LIST_FORM}"
        )
    shown = {folder.name for folder in (root / "data").glob("*/") if not is_system_file(folder.name)}
    without = shown - {folder.name for folder in folders}
    if without:
        log.warning("%s: has no list for these groups: %s", lists, ", ".join(map(shown_key, sorted(without))))
    found = {}
    for folder in folders:
        path = folder / f"{folder.name}_pairs.txt"
        rows = [_parse_rfw(path, line, f"data/{folder.name}") for line in read_lines(path)]
        found[folder.name] = _pairs(path, folder.name, rows)
    return found


def _parse_rfw(path: Path, line: Line, folder: str) -> _Row:
    fields = line.fields("\t" if "\t" in line.text else None)
    numbers = [fields[at] for at in ((1, 2) if len(fields) == 3 else (1, 3)) if at < len(fields)]
    if len(fields) not in (3, 4) or not all(is_number(number) and int(number) for number in numbers):
        raise UserError(
            f"{path}, line {line.number}: got {quoted(line.text)} · expected RFW's 'name n1 n2' or "
            "'name1 n1 name2 n2' with image numbers from 1"
        )
    people = (fields[0], fields[0] if len(fields) == 3 else fields[2])
    left, right = (
        image_name(path, line.number, f"{folder}/{name}/{name}_{int(number):04d}.jpg")
        for name, number in zip(people, numbers, strict=True)
    )
    return _Row(left, right, len(fields) == 3)


def _pairs(path: Path, group: str, rows: Sequence[_Row]) -> Pairs:
    """Check that a group has pairs of both kinds in each fold, and number its images."""
    same = np.array([row.same for row in rows], dtype=bool)
    given = [row.fold for row in rows if row.fold is not None]
    if given:
        folds, number = np.unique(given, return_inverse=True)
        fold, num_folds = number.astype(np.int64) + 1, len(folds)
    else:
        # RFW's lists alternate 300 pairs of each kind: these folds are its ten blocks of 600 lines
        fold, num_folds = consecutive_folds(same, NUM_FOLDS), NUM_FOLDS
    for kind, what in ((True, "one person"), (False, "two people")):
        filled = len(np.unique(fold[same == kind]))
        if filled < max(num_folds, 2):
            got = f"{count_of(int(np.count_nonzero(same == kind)), 'pair', 'pairs')} of {what}, in "
            got += count_of(filled, "fold", "folds")
            raise UserError(
                f"{path}: group {shown_key(group)} has {got} · allowed: pairs of one person and of two people in every "
                f"fold ({max(num_folds, 2)}) of each group · add pairs, or remove this group"
            )
    names = tuple(sorted({name for row in rows for name in (row.left, row.right)}))
    at = {name: number for number, name in enumerate(names)}
    sides = zip(*(row[:2] for row in rows), strict=True)
    left, right = (np.array([at[name] for name in side], dtype=np.int64) for side in sides)
    check_labels(path, left, right, same, names, fold=fold)
    check_folders(path, left, right, same, names)
    return Pairs(path, names, left, right, same, fold, num_folds)
