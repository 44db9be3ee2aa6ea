"""One folder an identity."""

from __future__ import annotations

import logging
import os
from itertools import groupby
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..images import IMAGE_SUFFIXES
from .base import TextTable, nfc, printable, read_file

log = logging.getLogger(__name__)


class FolderSource:
    """``root/<identity>/<picture>``: one folder an identity, classes and their pictures sorted by name.

    Names that start with a dot are passed over. Names are compared in Unicode's composed form, so folders that
    differ in that form alone are one identity. Memory: the path below the root and 8 bytes a picture.

    Args:
        root: the folder of identities.

    Raises:
        UserError: no such folder, or one cannot be read.
    """

    named = True
    mapped = False

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            kind = "a file" if self.root.exists() else "nothing there"
            raise UserError(f"{self.root}: got {kind} · allowed: a folder of identities, root/<identity>/*.jpg")
        self._prefix = os.path.join(self.root, "")  # noqa: PTH118 -- a text, that a path takes no time to make
        self.class_names: list[str] = []
        counts: list[int] = []
        paths: list[str] = []
        folders = _names(self.root, folders=True)
        for identity, same in groupby(folders, key=nfc):
            found = sorted((f"{folder}/{file}" for folder in same for file in _names(self.root / folder)), key=nfc)
            if found:
                self.class_names.append(identity)
                counts.append(len(found))
                paths += found
        if len(set(map(nfc, folders))) < len(folders):
            log.info("data: %s: folders that differ in Unicode's form alone count as one identity", self.root)
        self._paths = TextTable(paths)
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        return read_file(self._prefix + self._paths[index])

    def name(self, index: int) -> str:
        return printable(str(self.root / self._paths[index]))


def _names(folder: Path, *, folders: bool = False) -> list[str]:
    """Names of the folders, or of the pictures, in a folder; those of folders sorted by their composed form."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and (not folders or e.is_dir())]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    return sorted(names, key=nfc) if folders else [name for name in names if is_picture(name)]


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 -- five times as fast as Path
