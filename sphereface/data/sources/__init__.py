"""Where training crops come from: index → (encoded bytes, label). Nothing here decodes or shuffles.

==================================  ==================================================================================
``data.train``                      what it is
==================================  ==================================================================================
a folder                            one folder an identity (:class:`FolderSource`)
a folder with ``train.rec`` in it   RecordIO (:class:`RecordSource`)
``….rec``                           the same
``….txt``, ``….lst``                a list: ``path label`` a line, or InsightFace's or im2rec's (:class:`ListSource`)
``….zip``                           a zip of folders, or of pictures and a list (:class:`ZipSource`)
a list of these                     all of them as one set (:class:`JoinedSource`)
==================================  ==================================================================================
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import UserError, printable
from ..walking import is_of_the_system, nfc, what_lies_at
from .base import Source
from .folder import FolderSource
from .joined import JoinedSource
from .kept import KeptSource, kept
from .listing import ListSource
from .records import RecordSource
from .selection import SelectedSource, check_names, read_names, shared_names, with_pictures, without
from .zipped import ZipSource

__all__ = [
    "FolderSource",
    "JoinedSource",
    "KeptSource",
    "ListSource",
    "RecordSource",
    "SelectedSource",
    "Source",
    "ZipSource",
    "kept",
    "open_path",
    "open_source",
    "shared_names",
]

log = logging.getLogger(__name__)

_ALLOWED = "a folder of identities (root/<identity>/*.jpg), a .rec, a list (.txt, .lst), a .zip"


def open_source(
    train: Path | str | Sequence[Path | str],
    *,
    root: Path | str | None = None,
    merge: bool = False,
    exclude: Sequence[str] = (),
    exclude_file: Path | str | None = None,
    min_images: int = 1,
) -> Source:
    """The training set that the section ``data`` describes. What is left out is logged.

    Args:
        train: one path or several; the format is told from each.
        root: what the paths of a list are relative to; None: its folder.
        merge: of several sources, take identities of the same name for one.
        exclude: identities to leave out, by the names they have in their own source.
        exclude_file: a file of more of them, such as LFW's ``people.txt``.
        min_images: identities with fewer pictures, all sources together, are left out.

    Raises:
        UserError: something is no source, or fewer than two identities are left.
    """
    paths = [Path(train)] if isinstance(train, (str, Path)) else [Path(path) for path in train]
    sources = [open_path(path, root=root) for path in paths]
    sources = _exclude(sources, {nfc(name) for name in exclude}, exclude_file)
    source = sources[0] if len(sources) == 1 else JoinedSource(sources, _tags(paths), merge=merge)
    left = with_pictures(source, min_images)
    if left is not source:
        log.info("data: min_images %d: %s", min_images, _dropped([source], [left]))
    if len(left.class_names) < 2:
        raise UserError(
            f"data.train: {', '.join(map(str, paths))}: got {len(left.class_names)} identities with {min_images} or "
            f"more pictures, of {len(source.class_names)} in all · allowed: two or more · a folder of identities "
            "has a folder for each, root/<identity>/<picture>"
        )
    return left


def open_path(path: Path, *, root: Path | str | None = None, key: str = "data.train") -> Source:
    """One source, whole; its format told from the path.

    Args:
        path: as the table above.
        root: what the paths of a list are relative to; None: its folder.
        key: what to call the setting in a message.

    Raises:
        UserError: nothing is there, or it is no source.
    """
    kind = what_lies_at(path, key)
    if kind == "folder":
        in_records = (path / "train.rec").exists() or (path / "train.idx").exists()
        if not in_records:
            return FolderSource(path)
        if folders := [entry.name for entry in os.scandir(path) if entry.is_dir() and not is_of_the_system(entry.name)]:
            such = printable(min(folders))
            log.warning(
                "data: %s: train.rec is read, not the folders beside it: %d, such as %s", path, len(folders), such
            )
        return RecordSource(path)
    if path.suffix == ".rec" and kind == "nothing" and path.with_suffix(".idx").exists():
        raise UserError(f"{key}: {path}: only its .idx is there · allowed: the .rec, with the pictures, beside it")
    if kind == "nothing":
        raise UserError(f"{key}: got {str(path)!r} (nothing there) · allowed: {_ALLOWED} · see data/README.md")
    kinds: dict[str, Callable[[Path], Source]] = {".rec": RecordSource, ".zip": ZipSource}
    if kind == "file" and path.suffix.lower() in kinds:
        return kinds[path.suffix.lower()](path)
    if kind == "file" and path.suffix.lower() in (".txt", ".lst"):
        return ListSource(path, root)
    hint = " · give the .rec beside it" if path.suffix == ".idx" else ""
    raise UserError(f"{key}: got {str(path)!r} ({'a file' if kind == 'file' else kind}) · allowed: {_ALLOWED}{hint}")


def _exclude(sources: list[Source], names: set[str], file: Path | str | None) -> list[Source]:
    """The sources less the identities of these names and of those in a file.

    Raises:
        UserError: nobody in the file is in data.train, or a name differs from one there in blanks or upper case alone.
    """
    from_file = set() if file is None else set(read_names(file))
    if not names and not from_file:
        return sources
    found = check_names(names, "data.exclude", sources)
    found |= check_names(from_file, f"data.exclude_file: {file}", sources, required=True)
    left = [without(source, names | from_file) for source in sources]
    log.info(
        "data: exclude: %s; %d of %d listed are there", _dropped(sources, left), len(found), len(names | from_file)
    )
    return left


def _dropped(before: Sequence[Source], after: Sequence[Source]) -> str:
    classes = sum(len(b.class_names) - len(a.class_names) for b, a in zip(before, after, strict=True))
    pictures = sum(len(b) - len(a) for b, a in zip(before, after, strict=True))
    return f"{classes:,} identities with {pictures:,} pictures left out"


def _tags(paths: Sequence[Path]) -> list[str]:
    """A name for each source: that of its file or folder, numbered where two are alike."""
    names = [path.stem if path.suffix and not path.is_dir() else path.name for path in map(Path.absolute, paths)]
    return [name if names.count(name) == 1 else f"{name}#{i}" for i, name in enumerate(names, 1)]
