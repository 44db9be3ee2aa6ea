"""The protocol of TinyFace: search low-resolution probes in a gallery with many distractors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data.walking import walk_images
from ...errors import UserError, listed, printable
from ...metrics import IntArray
from ..copies import warn_of_copies_between
from ..embeddings import Embeddings
from ..images import Images
from .base import EvaluationSet, Rule, refuse_places, register_protocol
from .tinyface_result import TinyFace
from .tinyface_search import FOLDERS, Roles, search

log = logging.getLogger(__name__)


@register_protocol("tinyface")
@dataclass(frozen=True)
class TinyFaceSet(EvaluationSet):
    """A folder with the structure of TinyFace: see :func:`search`."""

    name: str
    images: Images
    roles: Roles

    @classmethod
    def load(cls, name: str, places: Sequence[Path], *, find_images: bool = True) -> TinyFaceSet:  # noqa: ARG003
        """List the images of the three folders; their names identify the people.

        Raises:
            UserError: a folder is missing or empty, a file's name does not start with a number, or
                no probe has an image of the same person in the gallery.
        """
        refuse_places(cls, name, places, 1)
        root = places[0]
        test = _test_folder(root)
        if test is None:
            missing = [folder for folder in FOLDERS if not (root / folder).is_dir()]
            raise UserError(
                f"{name}: {root} has no {', '.join(missing)} · allowed: a folder with {', '.join(FOLDERS)}, or with "
                "these in Testing_Set · give the folder of TinyFace, or of its aligned copy"
            )
        parts = [_list_images(test / folder) for folder in FOLDERS]
        probe, match = (_subjects(part) for part in parts[:2])
        files = tuple(file for part in parts for file in part)
        roles = Roles(probe, match, len(parts[2]))
        if not len(roles.searched):
            raise UserError(f"{test}: no probe has an image of the same person in Gallery_Match · compare their names")
        return cls(name, Images(root, tuple(file.relative_to(root).as_posix() for file in files), files), roles)

    @classmethod
    def recognises(cls, places: Sequence[Path]) -> bool:
        """Return whether this is one folder with TinyFace's three folders."""
        return len(places) == 1 and _test_folder(places[0]) is not None

    def evaluate(self, embeddings: Embeddings, rule: Rule) -> TinyFace:
        """Search every probe; with centred embeddings, search again without centring."""
        features = embeddings.features()
        rows = np.arange(len(self.images))
        mated, gallery = np.flatnonzero(self.roles.has_mate), rows[self.roles.num_probes :]
        known = self.images.root, embeddings.content, self.images.names
        warn_of_copies_between(*known, mated, gallery)
        match, distractors = np.split(gallery, [len(self.roles.match_subject)])
        warn_of_copies_between(*known, distractors, match, what="distractor")
        field = search(features, self.roles, subtract_mean=False)
        own = search(features, self.roles) if rule.subtract_mean else field
        return TinyFace(self.roles, embeddings, rule.subtract_mean, own, field)


def _test_folder(root: Path) -> Path | None:
    """Return the folder that holds the three folders, if there is one."""
    for folder in (root, root / "Testing_Set"):
        if all((folder / part).is_dir() for part in FOLDERS):
            return folder
    return None


def _list_images(folder: Path) -> list[Path]:
    """Return all images below a folder, sorted by path."""
    walked = walk_images(folder)
    if sentence := walked.not_read():
        log.warning("%s: %s", folder, sentence)
    if not walked.names:
        raise UserError(f"{folder}: holds no images · expected those of TinyFace")
    return sorted(walked.images)


def _subjects(files: Sequence[Path]) -> IntArray:
    """Return (N,) the person on each image: the number before the first underscore of its name."""
    numbers = [file.name.partition("_")[0] for file in files]
    wrong = [
        printable(file.name)
        for file, number in zip(files, numbers, strict=True)
        if not (number.isascii() and number.isdecimal() and len(number) < 19 and "_" in file.name)
    ]
    if wrong:
        raise UserError(
            f"{files[0].parent}: got {len(wrong)} names without a person's number · allowed: names such as 17_1.jpg, "
            f"where 17 is the person:{listed(wrong)}"
        )
    return np.array([int(number) for number in numbers], dtype=np.int64)
