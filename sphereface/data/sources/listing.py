"""A text file with a line ``path label`` for each picture."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from .base import TextTable, nfc, printable, read_file, without_gaps

_MAX_LABEL = 2**31 - 1
_SAMPLED = 8


class ListSource:
    """Pictures that a list file names, as the original's ``CASIA-WebFace-112X96.txt`` does.

    Classes are in the order of the labels, gaps closed; their pictures are sorted by path. Where the pictures of
    each label lie in a folder of their own, its name is the identity's; else the label is.
    Memory: the path and 8 bytes a picture, about 300 while reading.

    Args:
        path: the list: a line ``path label`` a picture; paths may hold spaces.
        root: what paths are relative to; None: the folder of the list.

    Raises:
        UserError: it cannot be read, a line is wrong, or none of the first files is there.
    """

    mapped = False

    def __init__(self, path: Path | str, root: Path | str | None = None) -> None:
        self.path = Path(path)
        self.root = self.path.parent if root is None else Path(root)
        try:
            text = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from error
        listing = Listing(text, str(self.path))
        self.labels, self.class_names, self.named = listing.labels, listing.class_names, listing.named
        self._paths = TextTable(listing.paths)
        self._check_some()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        return read_file(os.path.join(self.root, self._paths[index]))  # noqa: PTH118 -- a third of the time of /

    def name(self, index: int) -> str:
        return printable(str(self.root / self._paths[index]))

    def _check_some(self) -> None:
        sample = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int)).tolist()
        if not any((self.root / self._paths[index]).is_file() for index in sample):
            raise UserError(
                f"{self.path}: none of {len(sample)} sampled pictures is there, the first: {self.name(sample[0])} · "
                "paths are relative to the list's folder · put it there, or name another with data.root (--root)"
            )


class Listing:
    """The lines of a list, ordered by label and path.

    Args:
        text, name: as for :func:`parse_list`, with its errors.

    Attributes:
        paths, labels, class_names, named: as a source has them.
    """

    def __init__(self, text: bytes, name: str) -> None:
        paths, given = parse_list(text, name)
        composed = [nfc(posixpath.normpath(path)) for path in paths]
        order = sorted(range(len(paths)), key=lambda row: (given[row], composed[row]))
        self.paths = [paths[row] for row in order]
        self.labels, values = without_gaps(given[order], name)
        starts = np.searchsorted(self.labels, np.arange(len(values))).tolist()
        parents = [posixpath.basename(posixpath.dirname(composed[row])) for row in order]
        folders = [parents[start] for start in starts]
        self.named = len({*folders, ""}) > len(folders) and all(
            parent == folders[label] for parent, label in zip(parents, self.labels.tolist(), strict=True)
        )
        self.class_names = folders if self.named else [str(value) for value in values.tolist()]


def parse_list(text: bytes, name: str) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Paths and labels of the lines ``path label``; empty lines are passed over.

    Args:
        text: the file, UTF-8.
        name: what to call it in a message.

    Raises:
        UserError: a line has no whole label of 0 or more, or there is no line.
    """
    paths: list[str] = []
    labels: list[int] = []
    lines = text.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n")
    for number, line in enumerate(lines, 1):
        fields = line.strip().rsplit(None, 1)
        if not fields:
            continue
        label = int(fields[-1]) if fields[-1].isascii() and fields[-1].removeprefix("-").isdigit() else -1
        if len(fields) != 2 or not 0 <= label <= _MAX_LABEL:
            raise UserError(
                f"{name}, line {number}: got {printable(line.strip())[:200]!r} · allowed: 'path label', "
                f"the label a whole number from 0 to {_MAX_LABEL}"
            )
        paths.append(fields[0])
        labels.append(label)
    if not paths:
        raise UserError(f"{name}: got no line · allowed: a line 'path label' for each picture")
    return paths, np.array(labels, dtype=np.int64)
