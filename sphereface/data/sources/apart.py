"""Compare the sources of one training set: images in common, and parts of one set."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, count_of, printable, shown, shown_key
from ..walking import kind_of_path
from .arrow import ArrowSource
from .base import FileSource, Source
from .joined import Digests, num_copied
from .label_folders import SPLITS
from .listing import ListSource
from .parquet import ParquetSource
from .records import RecordSource
from .shards import NUMBER_OF, expanded
from .spans import SpanSource
from .tar import TarSource

log = logging.getLogger(__name__)

_SHARDS = (".tar", ".parquet", ".arrow")
_NUMBER = re.compile(r"(.*?)(?<![vV\d])(\d{1,9})(\D*)")  # the last one in a name, unless it is a version
_PIECE = re.compile(r"[^\W\d_]+|\d+|[\W_]")


def check_apart(paths: Sequence[Path], sources: Sequence[Source]) -> None:
    """Check that no two paths lead to the same images.

    Such images would count twice, or belong to two identities. Copies of a set elsewhere, in any
    form, are a warning.

    Raises:
        UserError: two paths lead to one place, also through a link, one is a folder inside another,
            or two folders or lists have images in common.
    """
    places = [
        Path(os.path.realpath(source.path if isinstance(source, RecordSource) else path))
        for path, source in zip(paths, sources, strict=True)
    ]
    files = [_real_files(source) for source in sources] if len(sources) > 1 else []
    for one, other in itertools.permutations(range(len(paths)), 2):
        outer, inner = places[one], places[other]
        both = " and ".join(shown_key(str(paths[row])) for row in sorted((one, other)))
        if outer == inner or (inner.is_dir() and outer in inner.parents):
            how = "the same place" if outer == inner else f"of which {shown_key(str(paths[other]))} is inside the other"
            raise UserError(
                f"data.train: got {both}, {how} · allowed: sets without common images · leave one of them out"
            )
        if shared := files[one] & files[other]:
            raise UserError(
                f"data.train: got {both}, which have files in common, such as {shown(min(shared))} · "
                "allowed: sets without common images · leave the files out of one of them"
            )
    known: dict[int, Digests] = {}
    for one, other in itertools.combinations(range(len(paths)), 2):
        both = " and ".join(shown_key(str(paths[row])) for row in (one, other))
        if shared := _shared_images(sources[one], sources[other]):
            raise UserError(
                f"data.train: got {both}, which have {count_of(len(shared), 'image', 'images')} in common, such as "
                f"{shown(min(shared))} · allowed: sets without common images, as each would count twice · leave them "
                "out of one of the two"
            )
        count, compared = num_copied(sources[one], sources[other], known)
        if count:
            sentence = "data.train: %s contain the same images: an image of %d of %d compared identities is in both"
            log.warning(f"{sentence} · leave one of them out", both, count, compared)


def _shared_images(one: Source, other: Source) -> set[str]:
    """Return the images that two folders or lists have in common, also through links to folders."""
    if not (isinstance(one, FileSource) and isinstance(other, FileSource)):
        return set()
    common = set(one.real_folders().values()) & set(other.real_folders().values())
    return one.files_in(common) & other.files_in(common) if common else set()


def _real_files(source: Source) -> set[str]:
    """Return the files of a set of shards; several paths of data.train may share them."""
    files = source.files if isinstance(source, (SpanSource, ParquetSource)) else []
    return set(map(os.path.realpath, files))


def log_parts(paths: Sequence[Path], sources: Sequence[Source]) -> None:
    """Log sources that may be parts of one set, given one by one: their paths differ in a part.

    Each of them is a set then, and a person of several becomes several identities. Only sources of
    numbers are compared, since names may be. Sets of their own have numbers without gaps, and
    hardly ever equally many. Files ``-00003-of-00010`` have a warning of their own.
    """
    alike: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        alike.setdefault(_without_part(path), []).append(row)
    for rows in alike.values():
        of = NUMBER_OF.fullmatch(paths[rows[0]].name)
        names = [sources[row].class_names for row in rows]
        if len(rows) < 2 or (of and int(of[3][:9]) > 1) or not all(all(map(str.isdecimal, own)) for own in names):
            continue
        numbers = [set(map(int, own)) for own in names]
        least = min(map(min, numbers))
        counts = {len(own) if own == set(range(least, least + len(own))) else 0 for own in numbers}  # 0: a part
        common = sorted(number for number, count in Counter(itertools.chain(*numbers)).items() if count > 1)
        if common and (0 in counts or len(counts) == 1):
            both = [paths[row] for row, own in zip(rows, numbers, strict=True) if common[0] in own]
            log.warning(
                "data.train: %d sources, such as %s and %s, differ only in the name of a part, and number %d of each "
                "is an identity of its own · if they are parts of one set, %s",
                *(len(rows), printable(str(both[0])), printable(str(both[1])), common[0]),
                _as_one([paths[row] for row in rows], [sources[row] for row in rows]),
            )


def _without_part(path: Path) -> str:
    """Return a path without numbers, single letters, and parts of a set such as ``train``."""
    pieces = _PIECE.findall(str(path).lower())
    return "".join("#" if p.isdecimal() or p in SPLITS or (len(p) == 1 and p.isalpha()) else p for p in pieces)


def _as_one(paths: Sequence[Path], sources: Sequence[Source]) -> str:
    """Return what to do with the parts of one set, for messages."""
    if all(source.named for source in sources):
        return "set data.merge to true"
    if isinstance(sources[0], (TarSource, ParquetSource, ArrowSource)):
        found = [match for match in map(_NUMBER.fullmatch, (path.name for path in paths)) if match]
        if (
            len(found) < len(paths)
            or len({(path.parent, m[1], m[3]) for path, m in zip(paths, found, strict=True)}) > 1
        ):
            return "move their files into a folder of their own, and give that"
        first, last = (by(found, key=lambda match: int(match[2])) for by in (min, max))
        pattern = f"{first[1]}{{{first[2]}..{last[2]}}}{first[3]}"
        return f"give their folder, or a pattern such as {printable(pattern)}"
    if isinstance(sources[0], ListSource):
        return "join them to one list"
    return "give their identities names, and set data.merge to true (docs/data.md)"


def log_beside(paths: Sequence[Path]) -> None:
    """Log files beside those of a set that continue their numbers, and that no source reads.

    Files ``-00003-of-00010`` have a warning of their own.
    """
    files = [expanded(path) for path in paths if path.suffix.lower() in _SHARDS and kind_of_path(path) != "folder"]
    given = {_real(file) for file in itertools.chain(*files)}
    told: set[Path] = set()
    for own in files:
        found = _NUMBER.fullmatch(own[0].name)
        if not found or NUMBER_OF.fullmatch(found[0]):
            continue
        numbers: dict[int, Path] = {}
        with contextlib.suppress(OSError):
            matches = [match for file in own[0].parent.iterdir() if (match := _NUMBER.fullmatch(file.name))]
            numbers = {int(m[2]): own[0].with_name(m[0]) for m in matches if (m[1], m[3]) == (found[1], found[3])}
        folder = os.path.realpath(own[0].parent)
        read = {number for number, file in numbers.items() if (folder, file.name) in given}
        beside = [f for n, f in sorted(numbers.items()) if n not in read and read & {n - 1, n + 1} and f not in told]
        if beside:
            told.update(beside)
            log.warning(
                "data: %s: %s beside it is not read, and differs only in the number · if it is a part of the set, give "
                "their folder, or a pattern of all parts",
                *(printable(str(own[0])), printable(beside[0].name)),
            )


def _real(file: Path) -> tuple[str, str]:
    """Return the folder of a file without links and ``..``, and its name."""
    return os.path.realpath(file.parent), file.name
