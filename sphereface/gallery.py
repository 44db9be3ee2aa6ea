"""Open a gallery for a search: the ``.npz`` file or the folder that ``sphereface embed`` writes."""

from __future__ import annotations

import logging
import os
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .archives import DAMAGED
from .errors import UserError, printable, shown_key
from .evaluation.embeddings import joined_unit_rows
from .evaluation.gallery_folder import FolderPaths, FolderRows, is_gallery_folder, read_gallery_folder, read_list
from .evaluation.gallery_shard import FORMAT, path_of
from .evaluation.mapped_array import map_arrays
from .evaluation.table_file import NotATable, as_float32, read_table
from .gallery_check import check_arrays, warn_of_repeated

log = logging.getLogger(__name__)

Embeddings = npt.NDArray[np.float32]

_FACE = re.compile(r"#[1-9][0-9]*\Z")  # of an image with several rows, see sphereface embed --all-faces
_ROWS = 4096  # rows normalised at a time


class RowBlocks(Protocol):
    """N unit vectors that are read block by block. An array is an example."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Embeddings: ...


@dataclass(frozen=True)
class Gallery:
    """Embeddings of one checkpoint and the paths of their images.

    This is biometric data: protect it.

    Attributes:
        paths: (N,) paths of the images.
        embeddings: (N, D) float32 unit vectors.
        checkpoint_sha256: SHA-256 of the checkpoint that computed the embeddings.
        settings: how images became crops: ``"aligned crops"``, or detector, pick and template
            origin.
        root: the folder that the paths start with; None if it is unknown.
        alignment: the settings that aligned the crops, as JSON, see
            :mod:`sphereface.alignment.kept_settings`; empty if they are unknown.
        absolute_root: the root with links resolved, when the gallery was made; empty if unknown.
        people_root: the folder of the people's folders; empty: ``root``.
    """

    paths: Sequence[str]
    embeddings: RowBlocks
    checkpoint_sha256: str
    settings: str
    root: str | None = None
    alignment: str = ""
    absolute_root: str = ""
    people_root: str = ""

    def file(self, row: int) -> str:
        """Return the path of a row's image, an absolute one if the absolute root is known."""
        path = self.paths[row]
        if not self.absolute_root or self.root is None:
            return path
        return path_of(self.absolute_root, path.removeprefix(path_of(self.root, "")))

    def person(self, row: int) -> str | None:
        """Return the person of a row: the first folder below ``people_root`` on the image's path.

        Only the texts of the paths count, so the result does not depend on the current folder.

        Returns:
            The name of that folder; None if there is no such folder.
        """
        if self.root is None:
            return None
        root, path = os.path.normpath(self.people_root or self.root or "."), os.path.normpath(self.paths[row])
        start = "" if root == "." else os.path.join(root, "")  # noqa: PTH118 -- Path costs 20 times as much
        if not path.startswith(start):
            return None
        folder, below, _ = path[len(start) :].replace(os.sep, "/").partition("/")
        return unicodedata.normalize("NFC", folder) if below and folder not in ("", "..") else None

    def entry(self, row: int) -> str:
        """Return the person of a row, or the path of the image if it belongs to no person."""
        return self.person(row) or self.paths[row]


def make_gallery(
    root: str,
    names: Sequence[str],
    image: Embeddings,
    mirror: Embeddings | None,
    *,
    checkpoint_sha256: str,
    settings: str,
    alignment: str = "",
    absolute_root: str = "",
    people_root: str = "",
) -> Gallery:
    """Join the embeddings of images and mirror images and divide them by their lengths.

    Args:
        root: folder of the images.
        names: N paths relative to ``root``.
        image, mirror: (N, D) float32 each, as the network returns them.
        checkpoint_sha256, settings, alignment, absolute_root, people_root: see :class:`Gallery`.
    """
    parts = [image] if mirror is None else [image, mirror]
    units = np.empty((len(names), sum(part.shape[1] for part in parts)), dtype=np.float32)
    for start in range(0, len(units), _ROWS):
        units[start : start + _ROWS] = joined_unit_rows([part[start : start + _ROWS] for part in parts])
    paths = tuple(path_of(root, name) for name in names)
    return Gallery(paths, units, checkpoint_sha256, settings, root, alignment, absolute_root, people_root)


def _how_to_make(path: Path) -> str:
    """Return the command that makes a gallery, of this file if it holds or lists images."""
    own = shlex.quote(str(path))
    source = {".bin": f"--aligned {own}", ".txt": own}.get(path.suffix.lower(), "DIR")
    return f"sphereface embed {source} {shlex.quote(path.with_suffix('.npz').name if path.suffix else path.name)}"


def check_exists(path: Path) -> None:
    """Refuse a gallery that does not exist.

    Raises:
        UserError: there is no such file or folder.
    """
    if not path.exists():
        made = path if path.suffix in ("", ".npz") else path.with_suffix(".npz")
        raise UserError(
            f"{path}: no such file or folder · make a gallery: sphereface embed DIR {shlex.quote(str(made))}"
        )


def load_gallery(path: Path, *, checkpoint_sha256: str, settings: str) -> Gallery:
    """Read a gallery for queries that use the same checkpoint and the same settings.

    Raises:
        UserError: the gallery is missing or damaged, or its checkpoint or settings differ.
    """
    check_exists(path)
    if path.is_dir():
        folder = read_gallery_folder(path)
        kind = folder.kind
        _check_made_alike(path, kind.checkpoint_sha256, kind.settings, checkpoint_sha256, settings)
        return Gallery(
            FolderPaths(folder), FolderRows(folder), checkpoint_sha256, settings, kind.root, kind.alignment,
            folder.absolute_root, folder.people_root,
        )  # fmt: skip
    try:
        table = read_table(path, slashes=False)
        _check_format(table)
    except (NotATable, ValueError) as error:
        reason = error.reason if isinstance(error, NotATable) else str(error)
        raise UserError(f"{path}: not a gallery ({reason}) · make one: {_how_to_make(path)}") from error
    _check_made_alike(path, table["checkpoint_sha256"], table["settings"], checkpoint_sha256, settings)
    more = {key: table.get(key, "") for key in ("alignment", "absolute_root", "people_root")}
    image, mirror = as_float32(table["embeddings"]), as_float32(table["mirror"]) if "mirror" in table else None
    gallery = make_gallery(
        table.get("root", "."), table["names"], image, mirror, checkpoint_sha256=checkpoint_sha256, settings=settings,
        **more,
    )  # fmt: skip
    wrong = ~np.isfinite(gallery.embeddings[:][:, 0])  # joined_unit_rows makes a bad row NaN throughout
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{path}: row {row}, {printable(gallery.paths[row])}: got an embedding of zeros, or numbers that are not "
            "finite or beyond what networks give · embed the images again"
        )
    check_arrays(path, table["names"], image, mirror, table.get("quality"))
    warn_of_repeated(path, gallery.paths, gallery.embeddings[:])
    return gallery


def how_crops_were_made(path: Path) -> tuple[str, str]:
    """Return the texts ``settings`` and ``alignment`` of a gallery.

    A text is empty if the gallery does not have it or is damaged. :func:`load_gallery` then raises
    the error.
    """
    if path.is_dir():
        kind = read_gallery_folder(path).kind
        return kind.settings, kind.alignment
    return _text_in(path, "settings"), _text_in(path, "alignment")


def place_of_images(path: Path) -> str:
    """Return the absolute folder of the images of a gallery in a ``.npz``; "" if it is unknown."""
    return _text_in(path, "absolute_root")


def images_in(path: Path, root: str) -> set[str]:
    """Return the paths of the images of a gallery in a ``.npz``, without the number of a face.

    ``root`` is their folder. The set is empty if the file is missing, damaged or no gallery.
    """
    try:
        names = map_arrays(path, ("names",), ())["names"].astype(np.str_).reshape(-1).tolist()
        return {os.path.normpath(os.path.join(root, _FACE.sub("", name))) for name in names}  # noqa: PTH118
    except (OSError, MemoryError, *DAMAGED):
        return set()


def folder_of_images(path: Path) -> str:
    """Return the absolute folder whose images a gallery holds; "" if it is unknown.

    It is also unknown if a list named the images and they share another folder than the list's.
    """
    if path.is_dir():
        about = read_list(path) if is_gallery_folder(path) else None
        return about.absolute_root if about and not about.people_root else ""
    return "" if _text_in(path, "people_root") else place_of_images(path)


def _text_in(path: Path, key: str) -> str:
    try:
        return str(map_arrays(path, (key,), optional=(key,)).get(key, ""))
    except (OSError, MemoryError, *DAMAGED):
        return ""


def _check_made_alike(path: Path, sha256: str, settings: str, own_sha256: str, own_settings: str) -> None:
    """Refuse a gallery that cannot be compared with a query."""
    if sha256 != own_sha256:
        raise UserError(
            f"{path}: another checkpoint computed it (SHA-256 {shown_key(sha256[:12])}…, this one has "
            f"{own_sha256[:12]}…) · embed its images again"
        )
    if settings != own_settings:
        theirs, ours = differing_parts(settings, own_settings)
        way_out = "give the same options for both"
        if "network by plugin" in f"{theirs}{ours}":
            way_out = f"{way_out}, and embed its images again if the code of the network changed"
        raise UserError(f"{path}: its settings differ: {shown_key(theirs)}; the query: {ours} · {way_out}")


def differing_parts(first: str, second: str) -> tuple[str, str]:
    """Return the parts, between commas, that only one of two settings has.

    If their parts are equal, return both settings whole.
    """
    parts = first.split(", "), second.split(", ")
    only = [", ".join(part for part in own if part not in other) for own, other in (parts, parts[::-1])]
    return only[0] or first, only[1] or second


def _check_format(table: Mapping[str, Any]) -> None:
    """Raise a ValueError for a table that is not a gallery or has an unknown format."""
    for key in ("format", "checkpoint_sha256", "settings"):
        if key not in table:
            raise ValueError(f"has no array {key}")
    if table["format"] != FORMAT:
        raise ValueError(f"format {table['format']}, another version wrote it")
