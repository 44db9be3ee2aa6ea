"""Where training crops come from: index → (encoded bytes, label). Nothing here decodes or shuffles.

==================================
================================================================================== ``data.train``
what it is ==================================
================================================================================== a folder
one folder an identity (:class:`FolderSource`) a folder with ``train.rec`` in it   RecordIO
(:class:`RecordSource`) ``….rec``                           the same ``….txt``, ``….lst``
a list: ``path label`` a line, or InsightFace's or im2rec's (:class:`ListSource`) ``….zip``
a zip of folders, or of images and a list (:class:`ZipSource`) ``….tar``
images with ``.cls``, ``.json`` or ``.txt``, or in folders (:class:`TarSource`) ``….parquet``
a table of images and labels (:class:`ParquetSource`) ``….arrow``                         the same,
as ``save_to_disk`` writes it (:class:`ArrowSource`) ``….lmdb``, ``data.mdb``            LMDB of
``[image, label]`` (:class:`LmdbSource`) a folder of ``.tar`` …              all of them: ``.tar``,
``.parquet``, ``.arrow``; or the folder of ``data.mdb`` ``x-{000..099}.tar``                the
same, named by a pattern a list of these                     all of them as one set
(:class:`JoinedSource`) ==================================
==================================================================================
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import UserError, printable, shown, shown_key
from ..walking import is_of_the_system, nfc, what_lies_at
from .arrow import ArrowSource
from .base import Source
from .folder import FolderSource
from .joined import JoinedSource, num_copied
from .kept import KeptSource, kept
from .listing import ListSource
from .lmdb import LmdbSource
from .parquet import ParquetSource
from .records import RecordSource
from .selection import SelectedSource, check_names, read_names, shared_names, with_images, without
from .shards import is_pattern
from .spans import SpanSource
from .tar import TarSource
from .zipped import ZipSource

__all__ = [
    "ArrowSource",
    "FolderSource",
    "JoinedSource",
    "KeptSource",
    "ListSource",
    "LmdbSource",
    "ParquetSource",
    "RecordSource",
    "SelectedSource",
    "Source",
    "TarSource",
    "ZipSource",
    "kept",
    "open_path",
    "open_source",
    "shared_names",
]

log = logging.getLogger(__name__)

_ALLOWED = (
    "a folder of identities (root/<id>/*.jpg), a .rec, a list (.txt, .lst), a .zip, .tar, .parquet, .arrow, .lmdb"
)
_SHARDS = (".tar", ".parquet", ".arrow")
"""Forms of which several files may be one set: in a folder, or named by a pattern."""
_FILES: dict[str, Callable[[Path], Source]] = {
    **{".rec": RecordSource, ".zip": ZipSource, ".tar": TarSource, ".parquet": ParquetSource, ".arrow": ArrowSource},
    **dict.fromkeys((".lmdb", ".mdb"), LmdbSource),
}


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
    """The training set that the section ``data`` describes. What is left out is logged.

    Args:
        train: one path or several; the format is told from each.
        root: what the paths of a list are relative to; None: its folder. Allowed with a list alone.
        merge: of several sources, take identities of the same name for one.
        exclude: identities to leave out, by the names they have in their own source.
        exclude_file: a file of more of them, such as LFW's ``people.txt``.
        min_images: identities with fewer images, all sources together, are left out.
        least: identities that have to be left: 2, or 1 where labels are not used.

    Raises:
        UserError: something is no source, or is there twice, or too few identities are left.
    """
    paths = [Path(train)] if isinstance(train, (str, Path)) else [Path(path) for path in train]
    if not paths:
        raise UserError(f"data.train: got no source · allowed: {_ALLOWED}, or several of them")
    sources = [_open(path, root, "data.train") for path in paths]
    _check_root(root, sources, "data.root")
    _check_apart(paths, sources)
    if merge and len(sources) == 1:
        log.warning("data.merge: changes nothing, since data.train has one source")
    sources = _exclude(sources, {nfc(name) for name in exclude}, exclude_file)
    source = sources[0] if len(sources) == 1 else JoinedSource(sources, _tags(paths), merge=merge)
    left = with_images(source, min_images)
    if left is not source:
        log.info("data: min_images %d: %s", min_images, _dropped([source], [left]))
    if len(left.class_names) < least:
        raise UserError(
            f"data.train: {', '.join(map(str, paths))}: got {len(left.class_names)} identities with {min_images} or "
            f"more images, of {len(source.class_names)} in all · allowed: two or more · a folder of identities "
            "has a folder for each, root/<identity>/<image>"
        )
    return left


def open_path(path: Path, *, root: Path | str | None = None, key: str = "data.train") -> Source:
    """One source, whole; its format told from the path.

    Args:
        path: as the table above.
        root: what the paths of a list are relative to; None: its folder.
        key: what to call the setting in a message.

    Raises:
        UserError: nothing is there, it is no source, or ``root`` is given and it is no list.
    """
    source = _open(path, root, key)
    _check_root(root, [source], "data.root" if key == "data.train" else "--root")
    return source


def _open(path: Path, root: Path | str | None, key: str) -> Source:
    kind, suffix = what_lies_at(path, key), path.suffix.lower()
    if kind == "folder":
        return _folder_form(path)(path)
    if path.suffix == ".rec" and kind == "nothing" and path.with_suffix(".idx").exists():
        raise UserError(f"{key}: {path}: only its .idx is there · allowed: the .rec, with the images, beside it")
    if kind == "nothing" and not (is_pattern(path) and suffix in _SHARDS):
        raise UserError(f"{key}: got {str(path)!r} (nothing there) · allowed: {_ALLOWED} · see data/README.md")
    if kind in ("file", "nothing") and suffix in _FILES:
        return _FILES[suffix](path)
    if kind == "file" and suffix in (".txt", ".lst"):
        return ListSource(path, root)
    hint = {".idx": " · give the .rec beside it", ".gz": " · unpack it first", ".tgz": " · unpack it first"}
    raise UserError(
        f"{key}: got {str(path)!r} ({'a file' if kind == 'file' else kind}) · allowed: {_ALLOWED}{hint.get(suffix, '')}"
    )


def _folder_form(path: Path) -> Callable[[Path], Source]:
    """What a folder is: one file or shards in it say so; else it is one of identities."""
    try:
        names = {entry.name: entry.is_dir() for entry in os.scandir(path) if not is_of_the_system(entry.name)}
    except OSError:  # which the walk through a folder tells in one line
        return FolderSource
    folders = [name for name, is_folder in names.items() if is_folder]
    if "train.rec" in names or "train.idx" in names:
        if folders:
            such = printable(min(folders))
            log.warning(
                "data: %s: train.rec is read, not the folders beside it: %d, such as %s", path, len(folders), such
            )
        return RecordSource
    if "dataset_dict.json" in names:
        raise UserError(
            f"{path}: holds several data sets · allowed: one of them: {', '.join(sorted(map(printable, folders)))}"
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
    if root is not None and not any(isinstance(source, ListSource) for source in sources):
        raise UserError(
            f"{key}: got {str(root)!r}, and there is no list whose paths it could be for · allowed: with a list (.txt, "
            ".lst) alone · leave it out"
        )


def _check_apart(paths: Sequence[Path], sources: Sequence[Source]) -> None:
    """See that no two paths lead to the same images: each would count twice, or be of two
    identities.

    Copies of a set elsewhere, in whatever form, are a warning.

    Raises:
        UserError: two lead to one place, be it through a link, or one is a folder inside another.
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
                f"data.train: got {both}, {how} · allowed: sets that have no image in common · leave one of them out"
            )
        if shared := files[one] & files[other]:
            raise UserError(
                f"data.train: got {both}, which have files in common, such as {shown(printable(min(shared)))} · "
                "allowed: sets that have no image in common · leave the files out of one of them"
            )
        if one < other and (count := num_copied(sources[one], sources[other])):
            sentence = (
                "data.train: %s hold the same images: the first image of %d of %d identities compared is the same"
            )
            log.warning(f"{sentence} · leave one of them out", both, count, count)


def _real_files(source: Source) -> set[str]:
    """Return the files of a set of shards, which two patterns, or a folder and a file in it, may
    have in common.
    """
    files = source.files if isinstance(source, (SpanSource, ParquetSource)) else []
    return set(map(os.path.realpath, files))


def _exclude(sources: list[Source], names: set[str], file: Path | str | None) -> list[Source]:
    """The sources less the identities of these names and of those in a file.

    Raises:
        UserError: nobody in the file is in data.train, a name differs from one there in blanks or
            upper case alone, or a line may be a name or a count.
    """
    listed, counts = ([], []) if file is None else read_names(file)
    if not names and not listed:
        return sources
    from_file = set(listed)
    found = check_names(names, "data.exclude", sources)
    found |= check_names(from_file, f"data.exclude_file: {file}", sources, required=True)
    known = {name for source in sources for name in source.class_names}
    if doubtful := next((count for count in counts if count.strip() in known), None):
        raise UserError(
            f"data.exclude_file: {file}: got a line {shown(doubtful)} without a tab beside lines with tabs, where "
            "it is a count, and data.train has an identity of that name · allowed: a tab behind each name, or no tabs "
            "at all · add the tab, or delete the line if it is a count"
        )
    left = [without(source, names | from_file) for source in sources]
    log.info(
        "data: exclude: %s; %d of %d listed are there", _dropped(sources, left), len(found), len(names | from_file)
    )
    return left


def _dropped(before: Sequence[Source], after: Sequence[Source]) -> str:
    classes = sum(len(b.class_names) - len(a.class_names) for b, a in zip(before, after, strict=True))
    images = sum(len(b) - len(a) for b, a in zip(before, after, strict=True))
    return f"{classes:,} identities with {images:,} images left out"


def _tags(paths: Sequence[Path]) -> list[str]:
    """A name for each source, no two alike: that of its file or folder, numbered where two are
    alike.
    """
    names = [path.stem if path.suffix and not path.is_dir() else path.name for path in map(Path.absolute, paths)]
    mark = "#"
    while not {f"{name}{mark}{i}" for i, name in enumerate(names, 1)}.isdisjoint(names):
        mark += "#"
    return [name if names.count(name) == 1 else f"{name}{mark}{i}" for i, name in enumerate(names, 1)]
