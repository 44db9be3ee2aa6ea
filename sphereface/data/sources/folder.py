"""One folder an identity."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from ...errors import UserError, printable
from ..identities import Labels
from ..walking import nfc, say_left_out, walk_images, what_lies_at
from .base import TextTable, read_file

log = logging.getLogger(__name__)


class FolderSource:
    """``root/<identity>/…/<image>``: one folder an identity, classes and their images sorted by
    name.

    The first folder is the identity. Every image below it, at any depth, is of that identity. Names
    are compared in Unicode's composed form, so folders that differ in that form alone are one
    identity. What is not read, and why, is
    logged: see :mod:`sphereface.data.walking`. Memory: the path below the root and 8 bytes an
    image.

    Args:
        root: the folder of identities.

    Raises:
        UserError: no such folder, or one of its folders may not be read or entered.
    """

    named = True
    mapped = False

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if (kind := what_lies_at(self.root)) != "folder":
            got = "nothing there" if kind == "nothing" else "a file"
            raise UserError(f"{self.root}: got {got} · allowed: a folder of identities, root/<identity>/*.jpg")
        self._prefix = os.path.join(self.root, "")  # noqa: PTH118 -- a text, that a path takes no time to make
        walked = walk_images(self.root)
        identities = walked.identities()
        self.class_names = list(identities)
        self._paths = TextTable(name for names in identities.values() for name in names)
        counts = [len(names) for names in identities.values()]
        self.labels = Labels.of_counts(counts)
        say_forms({name.partition("/")[0] for name in walked.names if "/" in name})
        deeper = sum(name.count("/") > 1 for name in walked.names)
        say_left_out(walked, num_deeper=deeper)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        return read_file(self._prefix + self._paths[index])

    def name(self, index: int) -> str:
        return printable(str(self.root / self._paths[index]))


def first_folders(names: Sequence[str]) -> tuple[list[str], int]:
    """The identity of each image by its path: the first folder below the one that all identities'
    folders share.

    A folder that has only folders of other images below it is no identity's. An image that lies in
    it, or above, is nobody's: its identity is ``""``.

    Args:
        names: paths with forward slashes, in normal form.

    Returns:
        The identities, and how many images lie deeper than in the first folder.
    """
    folders = {name.rpartition("/")[0] for name in names}
    ordered = sorted(f"{folder}/" for folder in folders if folder)  # what lies in a folder comes right after it
    above = {folder[:-1] for folder, following in pairwise(ordered) if following.startswith(folder)}
    shared = _common([folder.rpartition("/")[0] for folder in folders - above - {""}])
    prefix = f"{shared}/" if shared else ""
    below = [name.removeprefix(prefix) if name.startswith(prefix) else "" for name in names]
    deeper = sum(name.count("/") > 1 for name in below)
    identities = [name.partition("/")[0] if "/" in name else "" for name in below]
    say_forms(set(identities))
    return list(map(nfc, identities)), deeper


def say_forms(names: Iterable[str]) -> None:
    """Log where different names of identities are one in Unicode's composed form."""
    several = [name for name, count in Counter(map(nfc, names)).items() if count > 1]
    if several:
        sentence = (
            "data: %d identities have names that differ in Unicode's form alone, such as %s: each is one identity"
        )
        log.warning(sentence, len(several), printable(several[0]))


def _common(folders: Sequence[str]) -> str:
    """The longest folder that all of these are or lie in; empty for the top."""
    parts: list[str] = []
    for level in zip(*(folder.split("/") for folder in folders), strict=False):
        if len(set(level)) > 1:
            break
        parts.append(level[0])
    return "/".join(parts)
