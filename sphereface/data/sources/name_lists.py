"""Read and write files of names, such as LFW's ``people.txt``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

from ...errors import UserError, shown
from ..text_files import read_text_lines, text_lines
from ..walking import nfc

_LONGEST_COUNT = 20  # characters
_WHOLE = re.compile(r"^([0-9]+)\.0$")  # a whole number among numbers with a point


def read_names(path: Path | str, known: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Read identities from a file, one name a line; blanks are part of a name.

    A name ends at the first tab. In a file with tabs, such as LFW's ``people.txt`` (``Name <tab>
    images`` below lines with counts), a number alone on its line is a count.

    Args:
        path: the file.
        known: the identities of the training set.

    Returns:
        The names, and the counts as texts.

    Raises:
        UserError: the file cannot be read, is not text, contains no names or fewer than it
            announces, or another column may have them.
    """
    try:
        lines = read_text_lines(Path(path), "a name a line, or 'name<tab>…'")
    except UserError as error:
        raise UserError(f"data.exclude_file: {error}") from None
    if _are_pairs(lines):
        raise UserError(
            f"data.exclude_file: {path}: got pairs, with two people in some lines · allowed: a name a line, or "
            "'name<tab>…' · give the list of these people, such as people.txt"
        )
    names, counts = _names(lines)
    if not names:
        raise UserError(f"data.exclude_file: {path}: got no name · allowed: a name a line, or 'name<tab>…'")
    if line := _doubtful(lines, known):
        raise UserError(
            f"data.exclude_file: {path}: got several columns, of which two may have the names, such as "
            f"{' and '.join(map(shown, line))} · allowed: a name a line, or 'name<tab>…' · delete the column without "
            "names, such as row numbers"
        )
    if not any(count.strip() in known for count in counts) and (short := _cut(lines)):
        raise UserError(
            f"data.exclude_file: {path}: {short} · allowed: as many names as the counts announce · copy the file again "
            "if it is cut off, or delete the lines of counts"
        )
    return names, counts


def _are_pairs(lines: Sequence[str]) -> bool:
    """Return whether lines are ``name n1 n2``, and others ``name1 n1 name2 n2``, with tabs."""
    rows = [[field.strip() for field in line.split("\t")] for line in lines]
    one = any(len(row) == 3 and row[1].isdecimal() and row[2].isdecimal() for row in rows)
    return one and any(len(row) == 4 and row[1].isdecimal() and row[3].isdecimal() for row in rows)


def _cut(lines: Sequence[str]) -> str:
    """Return what is missing in a file such as LFW's ``people.txt``; empty if nothing is.

    It begins with the number of names that follow, or with the number of such lists. Several such
    files may follow each other.
    """
    rows = [line for line in lines if line.strip()]
    if not any("\t" in line for line in rows):
        return ""
    parts: list[list[int]] = []  # announced, found
    for line in rows:
        if "\t" not in line and line.strip().isdecimal() and len(line) <= _LONGEST_COUNT:
            parts.append([int(line), 0])
        elif parts:
            parts[-1][1] += 1
        else:
            return ""
    if any(one[1] == other[1] == 0 for one, other in pairwise(parts[:-1])):
        return ""  # sorted lines
    after = expected = 0  # lists since the number of lists, and that number
    short = ""
    for (announced, found), following in zip(parts, [*parts[1:], None], strict=True):
        if not found and following:
            if after < expected:
                break
            after, expected = 0, announced
            continue
        after += 1
        if found < announced:
            short = short or f"got {found:,} of {announced:,} names"
    if after < expected:
        return f"got {after} of {expected:,} lists of names"
    if short:
        return short
    named = [row for row in rows if "\t" in row or not row.strip().isdecimal()]
    if "\t" not in named[-1] and all("\t" in row for row in named[:-1]):
        return f"its last line, {shown(named[-1])}, has no tab"
    return ""


def _doubtful(lines: Sequence[str], known: Collection[str]) -> list[str]:
    """Return two fields of a line that may be the name; empty if only the first one may.

    The first number of each line may be that of a row if their column has no heading, as pandas and
    R write it; if the numbers of another column are different identities in nearly every line; or
    if they count from 0 or 1 beside other numbers. Numbers of images repeat.
    """
    rows = [[_WHOLE.sub(r"\1", field.strip(' "')) for field in line.split("\t")] for line in lines if line.strip()]
    heading = rows.pop(0) if len(rows) > 1 and not rows[0][-1].isdecimal() else None
    if not all(len(row) > 1 and row[0].isdecimal() for row in rows):
        return []
    if heading and (heading[0] == "" or (len(heading) == len(rows[0]) - 1 and heading[0][0] != "#")):
        return rows[0][:2]
    counted = [row[0] for row in rows] in ([str(first + k) for k in range(len(rows))] for first in (0, 1))
    for column, fields in enumerate(list(zip(*rows, strict=False))[1:], start=1):
        different = set(fields)
        people = len(different) == len(rows) and 10 * len(different.difference(known)) <= len(rows)
        if len(rows) > 1 and all(map(str.isdecimal, fields)) and (people or (counted and column == 1)):
            return [rows[0][0], rows[0][column]]
    return []


def names_text(names: Sequence[str], place: Path) -> bytes:
    """Return the file from which :func:`read_names` reads these names.

    Args:
        names: of identities.
        place: the file's path, for messages.

    Raises:
        UserError: no line can contain a name, because it has a line break or a tab, or is blank.
    """
    for name in names:
        if _names(text_lines(_encoded(name), ""))[0] != [nfc(name)]:
            raise UserError(
                f"{place}: cannot list the identity {shown(name)} · allowed: names that are one line of text, without "
                "tabs · rename its folder"
            )
    return b"".join(map(_encoded, names))


def _names(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return names and counts: in a file with tabs, a number alone on its line is a count."""
    tabs = any("\t" in line for line in lines)
    names: list[str] = []
    counts: list[str] = []
    for line in lines:
        name = nfc(line.partition("\t")[0])
        is_count = tabs and "\t" not in line and name.strip().isdecimal()
        if name.strip():
            (counts if is_count else names).append(name)
    return names, counts


def _encoded(name: str) -> bytes:
    return f"{name}\n".encode("utf-8", "surrogateescape")
