"""Read the lines of lists of face pairs, and check the names of images in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .text_files import read_text_lines

MOST_DIGITS = 9  # of a number, so that a product of two fits into int64
LONGEST_COMPONENT = 255  # bytes of one file name in UTF-8, on all common file systems
LONGEST_NAME = 4000  # bytes of a whole path

_LONGEST_QUOTE = 100  # characters of a bad line that a message shows
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')  # as spreadsheets write fields


@dataclass(frozen=True)
class Line:
    """One line that is not blank, stripped; ``number`` counts all lines from 1."""

    number: int
    text: str

    def fields(self, separator: str | None) -> list[str]:
        """Return the fields without quotes; the separator None means any number of spaces."""
        return [unquoted(field) for field in self.text.split(separator)]


def unquoted(field: str) -> str:
    """Return a field without space around it, and without the quotes that R and Excel write."""
    field = field.strip()
    return found.group(1).replace('""', '"') if (found := _QUOTED.fullmatch(field)) else field


def read_lines(path: Path) -> list[Line]:
    """Read the lines that are not blank, at least one.

    Line ends of any system and a byte order mark are allowed. A leading column of row numbers, as
    pandas and R write it, is removed: ``,left,right,same`` above ``0,a.jpg,b.jpg,1``. So is an
    empty last column, ``a.jpg,b.jpg,1,``, as spreadsheets write it.

    Raises:
        UserError: there is no such file, or it is not text, or empty.
    """
    text = read_text_lines(path, "a list of pairs such as LFW's pairs.txt", strict=True)
    lines = [Line(number, line.strip()) for number, line in enumerate(text, start=1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: is empty · allowed: a list of pairs such as LFW's pairs.txt")
    for comma in ",;":
        while all(line.text.endswith(comma) and line.text.strip(comma) for line in lines):
            lines = [Line(line.number, line.text[:-1].rstrip()) for line in lines]
    return without_row_numbers(lines)


def without_row_numbers(lines: list[Line]) -> list[Line]:
    """Return the lines without the row numbers that pandas and R write first, if there are some.

    They count from 0 or 1 below a line of column names, whose first name is empty (``,left,right``)
    or left out, as R's ``write.table`` does.
    """
    for separator in (",", ";", "\t", None) if len(lines) > 1 else ():
        first, *rows = ([*line.text.split(separator, 1), ""][:2] for line in lines)
        numbers = [unquoted(number) for number, _ in rows]
        if numbers[0] not in ("0", "1") or numbers != list(
            map(str, range(int(numbers[0]), int(numbers[0]) + len(rows)))
        ):
            continue
        names, fields = (line.fields(separator) for line in lines[:2])
        left_out = len(names) == len(fields) - 1 and not re.search("[0-9]", lines[0].text)
        if names[0] == "" or left_out:
            head = lines[0] if left_out else Line(lines[0].number, first[1])
            return [head, *(Line(line.number, rest.strip()) for line, (_, rest) in zip(lines[1:], rows, strict=True))]
    return lines


def is_number(field: str) -> bool:
    """Return whether a field is a whole number from 0 with at most nine ASCII digits."""
    return field.isascii() and field.isdecimal() and len(field) <= MOST_DIGITS


def plain_label(field: str) -> str:
    """Return 1 for true or yes and 0 for false or no, in any case; another field as it is.

    pandas writes ``True`` and ``False``, and ``1.0`` and ``0.0`` in a column that once had gaps.
    """
    plain = {"true": "1", "false": "0", "yes": "1", "no": "0", "1.0": "1", "0.0": "0"}
    return plain.get(field.lower(), field)


def quoted(text: str, longest: int = _LONGEST_QUOTE) -> str:
    """Return the start of a text between quotes, on one line, for a message."""
    return repr(text if len(text) <= longest else text[: longest - 1] + "…")


def image_name(path: Path, number: int, name: str) -> str:
    """Check the name of an image, which must lie below the folder of images.

    Args:
        path: the list, for messages.
        number: of the line, for messages.
        name: as listed; backslashes count as slashes.

    Returns:
        The name with forward slashes, without empty parts and ``.``.

    Raises:
        UserError: an absolute path, ``..``, control characters, or a name that is too long for file
            systems.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain) or ".." in parts or not parts:
        raise UserError(
            f"{path}, line {number}: got the image {quoted(name)} · allowed: names below the folder of images, "
            "no absolute path and no '..' · shorten the names to the part after that folder"
        )
    if _CONTROL.search(plain):
        raise UserError(
            f"{path}, line {number}: got the image {quoted(name)} · allowed: names without control characters"
        )
    longest = max(len(part.encode()) for part in parts)
    if longest > LONGEST_COMPONENT or len(plain.encode()) > LONGEST_NAME:
        raise UserError(
            f"{path}, line {number}: got an image's name of {len(plain.encode())} bytes, {quoted(name)} · allowed: "
            f"{LONGEST_COMPONENT} bytes for a file or a folder, {LONGEST_NAME} in all"
        )
    return "/".join(parts)
