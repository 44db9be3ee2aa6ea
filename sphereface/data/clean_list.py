"""Write the clean images of a training set as a list for ``data.train``."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError, count_of, shown
from .check import Findings
from .identities import Labels
from .sources import Source
from .sources.base import numbers_of
from .sources.label_folders import folder_names
from .sources.listing import BY_LABEL, last_folder, parse_list
from .walking import nfc

log = logging.getLogger(__name__)


def clean_list(source: Source, findings: Findings, folder: Path) -> bytes:
    """Return the clean images as a list for ``data.train``: lines ``path label``.

    Identities that have only numbers keep them, also where each has its own folder among the clean
    images; others are numbered without gaps. A warning counts those that reading names otherwise.

    Args:
        source: images that are separate files.
        findings: which of them are clean.
        folder: the folder of the list; paths are relative to it.

    Raises:
        UserError: no image is clean, or no line of a list can name an image.
    """
    rows = np.flatnonzero(findings.keep)
    if len(rows) == 0:
        raise UserError("--write-list: no image is clean · allowed: one or more clean images · see the report")
    kept, classes = np.unique(source.labels[rows], return_inverse=True)
    labels = classes if source.named else numbers_of(source)[kept][classes]
    start = os.path.realpath(folder)  # only here: an identity's folder may be a link, and keeps its name
    paths = [_listed(os.path.relpath(source.name(row), start)) for row in rows.tolist()]
    text = "".join(f"{path} {label}\n" for path, label in zip(paths, labels.tolist(), strict=True)).encode()
    read, read_labels = parse_list(text, "--write-list")
    if read != paths or not np.array_equal(read_labels, labels):
        raise UserError(
            f"--write-list: {folder}: no list in this folder can name the images · give a file in another folder"
        )
    return _head(source, kept.tolist(), paths, Labels.of(classes)) + text


def _head(source: Source, kept: Sequence[int], paths: Sequence[str], labels: Labels) -> bytes:
    """Return the line that keeps labels as names, if the list needs it; log other changes of names.

    Args:
        source: the images that were checked.
        kept: the identities with clean images.
        paths: of the clean images, as the list names them.
        labels: of these images, positions in ``kept``.
    """
    names = [source.class_names[label] for label in kept]
    read = folder_names([nfc(posixpath.normpath(path)) for path in paths], labels, last_folder)
    if not source.named:
        return b"" if read in (None, names) else f"{BY_LABEL}\n".encode()
    read = read or list(map(str, range(len(names))))
    if changed := [(new, name) for new, name in zip(read, names, strict=True) if new != name]:
        number = count_of(len(changed), "identity has", "identities have")
        such = " for ".join(map(shown, changed[0]))
        log.warning("--write-list: %s another name in the list, such as %s · use it in data.exclude", number, such)
    return b""


def _listed(path: str) -> str:
    """Return a relative path as a line of a list.

    Reading strips blanks, a byte order mark and quotes at the start of a line, so ``./`` protects
    them.
    """
    return f"./{path}" if path[0].isspace() or path[0] in '\ufeff"' else path


def check_listable(source: Source) -> None:
    """Check that a list can name the images of a source, before all of them are read.

    Raises:
        UserError: the images are inside another file, or no line of a list can contain a name.
    """
    names = list(map(source.name, range(len(source))))
    inside = next((name for name in names if source.mapped), "") or _inside_a_file(names)
    if inside:
        raise UserError(
            f"--write-list: {inside} is not a separate file, so no list can name it · allowed: a folder or "
            "a list · for other forms, exclude whole identities with data.exclude"
        )
    for name in names:
        if "\\" in name and not os.path.isfile(name):  # noqa: PTH113 -- an escaped name
            raise UserError(
                f"--write-list: {name}: no line of a list can contain this name · allowed: names in UTF-8 without line "
                "breaks and other control characters · rename it"
            )


def _inside_a_file(names: Sequence[str]) -> str:
    """Return an image inside a file, such as ``x.parquet/row 3``; empty if there is none."""
    folders = {os.path.dirname(name): name for name in names}  # noqa: PTH120 -- strings, for speed
    return next(
        (
            name
            for folder, name in folders.items()
            if any(os.path.isfile(part) for part in (Path(folder), *Path(folder).parents))  # noqa: PTH113 -- never raises
        ),
        "",
    )
