"""Where training crops come from: index → (encoded bytes, label). Nothing here decodes or shuffles."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)


class Source(Protocol):
    """A set of labelled pictures with random access.

    Attributes:
        labels: (N,) int64 in [0, C), the class of each picture, without gaps.
        class_names: the C identities, sorted; label = position.
    """

    labels: npt.NDArray[np.int64]
    class_names: list[str]

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded picture. Raises OSError where it cannot be read."""
        ...

    def name(self, index: int) -> str:
        """What to call this picture in a message: its path."""
        ...


def open_source(path: Path | str, *, exclude: Sequence[str] = (), min_images: int = 1) -> Source:
    """The source that ``data.train`` names; see :class:`FolderSource` for the arguments and errors."""
    return FolderSource(path, exclude=exclude, min_images=min_images)


class FolderSource:
    """``root/<identity>/<picture>``: one folder an identity, classes sorted by name.

    Holds one file name a picture: O(N) memory. Folders and files whose name starts with a dot are passed over.

    Args:
        root: the folder of identities.
        exclude: identities to leave out, by folder name; how many of them were there is logged.
        min_images: identities with fewer pictures are left out.

    Raises:
        UserError: no such folder, or fewer than two identities with enough pictures.
    """

    def __init__(self, root: Path | str, *, exclude: Sequence[str] = (), min_images: int = 1) -> None:
        self.root = Path(root)
        folders = self._identity_folders(exclude)
        self.class_names: list[str] = []
        self._files: list[str] = []
        labels: list[npt.NDArray[np.int64]] = []
        too_few = 0
        for name in folders:
            files = _picture_names(self.root / name)
            if len(files) < max(min_images, 1):
                too_few += 1
                continue
            labels.append(np.full(len(files), len(self.class_names), dtype=np.int64))
            self.class_names.append(name)
            self._files += files
        self._check(len(folders), min_images)
        if too_few:
            log.info("data: left out %d identities with fewer than %d pictures", too_few, max(min_images, 1))
        self.labels = np.concatenate(labels)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> bytes:
        return self._path(index).read_bytes()

    def name(self, index: int) -> str:
        return str(self._path(index))

    def _path(self, index: int) -> Path:
        return self.root / self.class_names[int(self.labels[index])] / self._files[index]

    def _identity_folders(self, exclude: Sequence[str]) -> list[str]:
        if not self.root.is_dir():
            kind = "a file" if self.root.exists() else "nothing there"
            raise UserError(
                f"data.train: got {str(self.root)!r} ({kind}) · allowed: a folder of identities, "
                "root/<identity>/*.jpg · see data/README.md for what goes where"
            )
        with os.scandir(self.root) as entries:
            folders = {e.name for e in entries if e.is_dir() and not e.name.startswith(".")}
        dropped = folders & set(exclude)
        if exclude:
            log.info("data: excluded %d of %d listed identities", len(dropped), len(exclude))
        return sorted(folders - dropped)

    def _check(self, num_folders: int, min_images: int) -> None:
        if len(self.class_names) >= 2:
            return
        raise UserError(
            f"data.train: {self.root} has {num_folders} folders, of which {len(self.class_names)} hold "
            f"{max(min_images, 1)} or more pictures ({', '.join(sorted(IMAGE_SUFFIXES))}) · "
            "allowed: at least two identities, root/<identity>/<picture>"
        )


def _picture_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            e.name
            for e in entries
            if os.path.splitext(e.name)[1].lower() in IMAGE_SUFFIXES and not e.name.startswith(".")  # noqa: PTH122
        )
