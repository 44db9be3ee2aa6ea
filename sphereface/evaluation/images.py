"""The images of a set: their names and their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.images import IMAGE_SUFFIXES, EncodedImage
from ..data.pairs import Pairs


@dataclass(frozen=True)
class Images:
    """The images of a set.

    Attributes:
        root: folder of the images, or the file that contains them.
        names: (N,) names of the images, relative to ``root``; a table of embeddings names its rows
            in the same way.
        files: (N,) the images; None if the embeddings come from a table, which needs no images.
    """

    root: Path
    names: tuple[str, ...]
    files: tuple[EncodedImage, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def found(self) -> tuple[EncodedImage, ...]:
        """Return the images on disk; the set must be loaded with ``find_images``."""
        if self.files is None:
            raise ValueError(f"{self.root}: the set was loaded without its images")
        return self.files

    def label(self, row: int) -> str:
        """Return the file of an image relative to ``root``, or its name if it has no own file."""
        file = None if self.files is None else self.files[row]
        if isinstance(file, Path) and file.is_relative_to(self.root):
            return file.relative_to(self.root).as_posix()
        return with_slashes(self.names[row])


def find_files(root: str | Path, names: Sequence[str], lists: Iterable[Pairs]) -> tuple[Path, ...]:
    """Find the images of several lists under a folder; see :meth:`Pairs.resolve`.

    Args:
        root: the folder.
        names: the names of all lists, each once.
        lists: the lists.
    """
    found = dict[str, Path]()
    for pairs in lists:
        found.update(zip(pairs.names, pairs.resolve(root), strict=True))
    return tuple(found[name] for name in names)


def with_slashes(name: str) -> str:
    """Replace the backslashes of a path by slashes."""
    return name.replace("\\", "/")


def row_name(name: str, *, slashes: bool = True) -> str:
    """Return the name of a table's row as a set would name the image, without a leading ``./``."""
    return (with_slashes(name) if slashes else name).removeprefix("./")


def stem_of(name: str) -> str:
    """Return a name without the suffix of an image; it keeps other dots, as in ``frame.0001``."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
