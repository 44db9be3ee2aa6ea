"""Read a folder that contains one folder for each identity."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from ...errors import UserError, count_of, printable
from ..identities import Labels
from ..walking import kind_of_path, log_left_out, nfc, walk_images
from .base import FileSource

log = logging.getLogger(__name__)


class FolderSource(FileSource):
    """``root/<identity>/…/<image>``: one folder per identity; classes and images sorted by name.

    The first folder is the identity of every image below it, at any depth. Names are compared in
    Unicode's composed form, so folders that differ only in that form are one identity. Files that
    are not read are logged, see :mod:`sphereface.data.walking`. Memory: the path below the root and
    8 bytes an image.

    Args:
        root: the folder of identities.

    Raises:
        UserError: there is no such folder, or one of its folders cannot be read or entered.
    """

    named = True

    def __init__(self, root: Path | str) -> None:
        if (kind := kind_of_path(root)) != "folder":
            got = "nothing there" if kind == "nothing" else "a file"
            raise UserError(f"{root}: got {got} · allowed: a folder of identities, root/<identity>/*.jpg")
        walked = walk_images(root)
        identities = walked.identities()
        super().__init__(Path(root), (name for names in identities.values() for name in names))
        self.class_names = list(identities)
        self.labels = Labels.of_counts([len(names) for names in identities.values()])
        log_forms({name.partition("/")[0] for name in walked.names if "/" in name})
        log_left_out(walked, num_deeper=sum(name.count("/") > 1 for name in walked.names))


def first_folders(names: Sequence[str]) -> tuple[list[str], int]:
    """Return the identity of each image by its path: the first folder below the common one.

    The common folder contains the folders of all identities. A folder with only folders of other
    images is not an identity. An image directly in it, or above, has no identity, given as ``""``.

    Args:
        names: paths with forward slashes, in normal form.

    Returns:
        The identities, and the number of images deeper than the first folder.
    """
    folders = {name.rpartition("/")[0] for name in names}
    ordered = sorted(f"{folder}/" for folder in folders if folder)  # a folder is followed by its contents
    above = {folder[:-1] for folder, following in pairwise(ordered) if following.startswith(folder)}
    shared = _common([folder.rpartition("/")[0] for folder in folders - above - {""}])
    prefix = f"{shared}/" if shared else ""
    below = [name.removeprefix(prefix) if name.startswith(prefix) else "" for name in names]
    deeper = sum(name.count("/") > 1 for name in below)
    identities = [name.partition("/")[0] if "/" in name else "" for name in below]
    log_forms(set(identities))
    return list(map(nfc, identities)), deeper


def log_forms(names: Iterable[str]) -> None:
    """Log identities with names that are equal in Unicode's composed form."""
    several = [name for name, count in Counter(map(nfc, names)).items() if count > 1]
    if several:
        number = count_of(len(several), "identity has", "identities have")
        sentence = "data: %s names that differ only in Unicode's form, such as %s: each is one identity"
        log.warning(sentence, number, printable(several[0]))


def _common(folders: Sequence[str]) -> str:
    """Return the deepest folder that contains or equals all of these; empty for the top."""
    parts: list[str] = []
    for level in zip(*(folder.split("/") for folder in folders), strict=False):
        if len(set(level)) > 1:
            break
        parts.append(level[0])
    return "/".join(parts)
