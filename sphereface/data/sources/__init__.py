"""Sources of training crops: index → (encoded bytes, label). They do not decode or shuffle.

The value of ``data.train`` selects the source:

- a folder: one folder for each identity (:class:`FolderSource`)
- ``….rec``, or a folder with ``train.rec``: RecordIO (:class:`RecordSource`)
- ``….txt``, ``….lst``, ``….csv``, ``….tsv``: a list with lines ``path label``, or of InsightFace
  or im2rec (:class:`ListSource`)
- ``….zip``: a zip of folders, or of images and a list (:class:`ZipSource`)
- ``….tar``: images with ``.cls``, ``.json`` or ``.txt``, or in folders (:class:`TarSource`)
- ``….parquet``: a table of images and labels (:class:`ParquetSource`)
- ``….arrow``: the same, as ``save_to_disk`` writes it (:class:`ArrowSource`)
- ``….lmdb``, ``data.mdb``: LMDB of ``[image, label]`` (:class:`LmdbSource`)
- a folder of ``.tar``, ``.parquet`` or ``.arrow`` files: all of them; or the folder of ``data.mdb``
- ``x-{000..099}.tar``: the same, named by a pattern
- a list of these: all of them as one set (:class:`JoinedSource`)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ...errors import UserError, count_of, printable
from ..walking import is_system_file, kind_of_path, nfc
from .apart import check_apart, log_beside, log_parts
from .arrow import ArrowSource
from .base import Source
from .cached import cached
from .excluding import dropped, excluding
from .folder import FolderSource
from .grouping import log_single
from .joined import JoinedSource, warn_of_spellings
from .listing import LIST_SUFFIXES, ListSource
from .lmdb import LmdbSource
from .outside import checked
from .parquet import ParquetSource
from .records import RecordSource
from .selection import shared_image, shared_names, with_images
from .shards import is_pattern
from .tar import TarSource
from .zipped import ZipSource

__all__ = [
    "FolderSource",
    "Source",
    "cached",
    "open_path",
    "open_source",
    "register_source",
    "shared_image",
    "shared_names",
]

log = logging.getLogger(__name__)

_ALLOWED = (
    f"a folder of identities (root/<id>/*.jpg), a .rec, a list ({', '.join(LIST_SUFFIXES)}), a .zip, .tar, .parquet, "
    ".arrow, .lmdb"
)
_SHARDS = (".tar", ".parquet", ".arrow")
"""Forms of which several files can be one set, in a folder or named by a pattern."""
_Open = TypeVar("_Open", bound=Callable[[Path], Source])
_FILES: dict[str, Callable[[Path], Source]] = {
    **{".rec": RecordSource, ".zip": ZipSource, ".tar": TarSource, ".parquet": ParquetSource, ".arrow": ArrowSource},
    **dict.fromkeys((".lmdb", ".mdb"), LmdbSource),
}


def register_source(suffix: str) -> Callable[[_Open], _Open]:
    """Register a class or a function that opens the files of a suffix; see docs/extend.md.

    What is opened is checked: the numbers of its images, labels and names must agree, and the names
    must be texts, each once. A ``read_each`` must yield what ``read`` returns.

    Args:
        suffix: in lower case, such as ``".sqlite"``.

    Raises:
        UserError: the suffix is none, or is taken.
    """
    if Path(f"x{suffix}").suffix != suffix or suffix != suffix.lower() or suffix in (*_FILES, *LIST_SUFFIXES):
        raise UserError(f"register_source: got {suffix!r} · allowed: a suffix such as '.sqlite' that no form has yet")

    def add(opener: _Open) -> _Open:
        _FILES[suffix] = lambda path: checked(path, opener(path))
        return opener

    return add


def open_source(
    train: Path | str | Sequence[Path | str],
    *,
    root: Path | str | None = None,
    merge: bool = False,
    exclude: Sequence[str] = (),
    exclude_file: Path | str | None = None,
    min_images: int = 1,
    least: int = 2,
) -> Source:
    """Open the training set that the section ``data`` describes, and log what is left out.

    Args:
        train: one path or several; each path shows its format.
        root: the folder to which the paths of a list are relative; None: the list's own folder.
            Allowed only with a list.
        merge: merge identities of the same name from several sources.
        exclude: identities to leave out, by the names in their own source.
        exclude_file: a file with more of them, such as LFW's ``people.txt``.
        min_images: identities with fewer images, in all sources together, are left out.
        least: the smallest number of identities to remain: 2, or 1 if labels are not used.

    Raises:
        UserError: a path is not a source, has no identity, or occurs twice, or too few identities
            remain.
    """
    paths = [Path(train)] if isinstance(train, (str, Path)) else [Path(path) for path in train]
    if not paths:
        raise UserError(f"data.train: got no source · allowed: {_ALLOWED}, or several of them")
    sources = [_open(path, root, "data.train") for path in paths]
    _check_root(root, sources, "data.root")
    for path, source in zip(paths, sources, strict=True):
        if len(paths) > 1 and len(source) == 0:
            raise UserError(
                f"data.train: {path}: got no identity · allowed: sources with one or more, in a folder as "
                "root/<identity>/<image> · check that its disk is mounted, or leave it out"
            )
    log_beside(paths)
    if not merge:
        log_parts(paths, sources)
    check_apart(paths, sources)
    if merge and len(sources) == 1:
        log.warning("data.merge: changes nothing, since data.train has one source")
    tags = _tags(paths)
    sources = excluding(sources, tags, {nfc(name) for name in exclude}, exclude_file)
    if len(sources) == 1:
        warn_of_spellings(sources[0], printable(str(paths[0])))
    source = sources[0] if len(sources) == 1 else JoinedSource(sources, tags, merge=merge)
    if least > 1 and min_images < 2:  # otherwise no label is used, or each identity has two images
        for each, place in [(source, ", ".join(tags))] if merge else zip(sources, map(str, paths), strict=True):
            log_single(each, printable(place))
    left = with_images(source, min_images)
    if left is not source:
        log.info("data: min_images %d: %s", min_images, dropped([source], [left]))
    if len(left.class_names) < least:
        raise UserError(
            f"data.train: {', '.join(map(str, paths))}: got "
            f"{count_of(len(left.class_names), 'identity', 'identities')} with {min_images} or more images, of "
            f"{len(source.class_names)} in all · allowed: two or more · a folder of identities "
            "has a folder for each, root/<identity>/<image>"
        )
    return left


def open_path(path: Path, *, root: Path | str | None = None, key: str = "data.train") -> Source:
    """Open one source whole; its path shows the format.

    Args:
        path: as in the list above.
        root: the folder to which the paths of a list are relative; None: the list's own folder.
        key: the setting's name in messages.

    Raises:
        UserError: nothing exists there, it is not a source, or ``root`` is given without a list.
    """
    source = _open(path, root, key)
    log_beside([path])
    _check_root(root, [source], "data.root" if key == "data.train" else "--root")
    return source


def _open(path: Path, root: Path | str | None, key: str) -> Source:
    kind, suffix = kind_of_path(path, key), path.suffix.lower()
    if kind == "folder":
        return _folder_form(path)(path)
    if path.suffix == ".rec" and kind == "nothing" and path.with_suffix(".idx").exists():
        raise UserError(f"{key}: {path}: only its .idx exists · allowed: the .rec, with the images, beside it")
    if kind == "nothing" and not (is_pattern(path) and suffix in _SHARDS):
        raise UserError(f"{key}: got {str(path)!r} (nothing there) · allowed: {_ALLOWED} · see data/README.md")
    if kind in ("file", "nothing") and suffix in _FILES:
        return _FILES[suffix](path)
    if kind == "file" and suffix in LIST_SUFFIXES:
        return ListSource(path, root)
    hint = {".idx": " · give the .rec beside it", ".gz": " · unpack it first", ".tgz": " · unpack it first"}
    raise UserError(
        f"{key}: got {str(path)!r} ({'a file' if kind == 'file' else kind}) · allowed: {_ALLOWED}{hint.get(suffix, '')}"
    )


def _folder_form(path: Path) -> Callable[[Path], Source]:
    """Return the form of a folder: that of a file or shards in it, else a folder of identities."""
    try:
        names = {entry.name: entry.is_dir() for entry in os.scandir(path) if not is_system_file(entry.name)}
    except OSError:  # the walk through the folder reports it in one line
        return FolderSource
    folders = [name for name, is_folder in names.items() if is_folder]
    is_rec = "train.rec" in names or "train.idx" in names
    if folders and (is_rec or "data.mdb" in names):
        log.warning(
            "data: %s: reads %s and ignores %s beside it, such as %s",
            *(path, "train.rec" if is_rec else "data.mdb"),
            *(count_of(len(folders), "folder", "folders"), printable(min(folders))),
        )
    if is_rec:
        return RecordSource
    if "dataset_dict.json" in names:
        raise UserError(
            f"{path}: contains several data sets · allowed: one of them: {', '.join(sorted(map(printable, folders)))}"
        )
    if "data.mdb" in names:
        return LmdbSource
    found = [suffix for suffix in _SHARDS if any(name.lower().endswith(suffix) for name in names)]
    if folders or not found:
        return FolderSource
    if len(found) > 1:
        raise UserError(f"{path}: got files {' and '.join(found)} · allowed: files of one form · give one of them")
    return _FILES[found[0]]


def _check_root(root: Path | str | None, sources: Sequence[Source], key: str) -> None:
    lists = [source for source in sources if isinstance(source, ListSource)]
    if root is not None and not any(source.relative for source in lists):
        what = "with a list of absolute paths elsewhere" if lists else "without a list"
        raise UserError(
            f"{key}: got {str(root)!r} {what} · allowed: only with a list ({', '.join(LIST_SUFFIXES)}), whose paths "
            "are relative to it · leave it out"
        )


def _tags(paths: Sequence[Path]) -> list[str]:
    """Return a distinct name for each source: that of its file or folder, numbered on repeats."""
    names = [path.stem if path.suffix and not path.is_dir() else path.name for path in map(Path.absolute, paths)]
    mark = "#"
    while not {f"{name}{mark}{i}" for i, name in enumerate(names, 1)}.isdisjoint(names):
        mark += "#"
    return [name if names.count(name) == 1 else f"{name}{mark}{i}" for i, name in enumerate(names, 1)]
