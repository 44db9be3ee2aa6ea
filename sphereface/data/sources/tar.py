"""Read tar files of images from WebDataset, img2dataset, or ``tar`` of a folder of identities.

The identity of an image is in one of these:

- ``KEY.cls``: a number, as in WebDataset's own examples
- ``KEY.json``: ``identity``, ``label`` or ``cls``: a number or a name
- ``KEY.txt``: a number; other texts are captions
- the path: the first folder, as in a folder of identities

KEY is the image's name without its last suffix: ``J.Smith_0001.jpg`` and ``J.Smith_0001.cls``
belong together. One set uses one of these, and one key of JSON, the first that any image has.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, count_of, printable, shown
from ..mapped import MappedFile
from ..recordio import Buffer
from ..tar_members import Member, tar_members
from ..walking import NO_FILE, Walked, is_image, kind_of_file, log_left_out
from .grouping import Grouped, Label, by_folder, by_label, checked_label
from .listing import whole_number
from .members import member_name
from .shards import log_copies, log_empty, shard_paths
from .spans import SpanSource

log = logging.getLogger(__name__)

_SUFFIXES = (".cls", ".json", ".txt")
_JSON_KEYS = ("identity", "label", "cls")
_KINDS = (".cls", *(f".json with {key}" for key in _JSON_KEYS), ".txt")
_MOST_TEXT = 2**20  # bytes of a member with a label
_LONGEST_NUMBER = 64  # bytes


class TarSource(SpanSource):
    """The images of one or several tar files; nothing is extracted, and no link is followed.

    Identities with numbers are in ascending order, with gaps closed; those with names or folders
    are sorted by name. The images of an identity are sorted by name. Opening reads every header,
    and the members with labels. Memory: the name and 16 bytes an image, about 400 while opening.

    Args:
        path: a ``.tar``, a folder of them, or a pattern such as ``faces-{000000..000099}.tar``.

    Raises:
        UserError: a file is missing, truncated or not a tar file, a name leads out of it or occurs
            twice, a label is wrong, or some images have none; there are no images.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        paths = shard_paths(self.path, ".tar")
        index = _Index()
        for number, shard in enumerate(paths):
            _Shard(index, number, shard).read()
        grouped = index.grouped(self.path)
        if len(grouped.rows) == 0:
            say = f"{len(index.names):,} images, all without an identity" if index.names else "no images"
            raise UserError(f"{self.path}: got {say} · allowed: <identity>/<image>, or images with .cls, .json or .txt")
        index.log_files(self.path, paths)
        super().__init__(paths, index.files, index.starts, index.sizes, index.names.__getitem__, grouped)


class _Index:
    """The contents of all shards, an entry for each image, in their order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.files: list[int] = []
        self.starts: list[int] = []
        self.sizes: list[int] = []
        self.labels: dict[str, list[Label | None]] = {kind: [] for kind in _KINDS}
        self.others: Counter[str] = Counter()
        self.again: list[str] = []  # names that occurred earlier in the same file
        self.same_key: dict[int, int] = {}  # row of an image → row of the next image with its key

    def grouped(self, path: Path) -> Grouped:
        """Group the images by identity, and log what is left out."""
        kind = next((kind for kind in _KINDS if any(label is not None for label in self.labels[kind])), None)
        walked = Walked(path, skipped=self.others)
        if kind is None:
            grouped, loose, num_deeper = by_folder(self.names)
            log_left_out(walked, loose=loose, num_deeper=num_deeper)
            return grouped
        log_left_out(walked)
        if self.again:
            sentence = "images repeat the name of an earlier one in the same tar file, such as %s: each counts with its"
            log.warning(
                f"data: %s: %d {sentence} own label · if you meant tar -r to replace them, pack the set again",
                *(printable(str(path)), len(self.again), printable(self.again[0])),
            )
        labels = self.labels[kind]
        for row, other in self.same_key.items():
            if (labels[row] is None) != (labels[other] is None):
                number = count_of(len(self.same_key), "image has", "images have")
                raise UserError(
                    f"{path}: {number} the key of another image, such as {printable(self.names[other])} that of "
                    f"{printable(self.names[row])}, and one {kind} · allowed: one image for each key · pack the set "
                    "again, or with a label for each image"
                )
        instead = f"pack it again without members {_suffix(kind)}"
        return by_label(self.names, labels, str(path), f"a member {kind}", files=self.files, instead=instead)

    def log_files(self, path: Path, files: Sequence[Path]) -> None:
        """Log files without images, and images that two files have."""
        log_empty(path, [files[number] for number in sorted(set(range(len(files))) - set(self.files))])

        def content(row: int) -> bytes:
            return MappedFile(files[self.files[row]]).read(self.starts[row], self.sizes[row])

        log_copies(path, files, self.files, self.names, self.sizes, content)


class _Shard:
    """One tar file. A label may precede or follow its image."""

    def __init__(self, index: _Index, number: int, path: Path) -> None:
        self.index, self.number, self.path = index, number, path
        self.rows: dict[str, int] = {}  # row of the last image with this key
        self.names: dict[str, int] = {}  # row of the last image with this name
        self.early: dict[tuple[str, str], Label] = {}
        self._same: dict[str, str] = {}  # stores a repeated name once

    def read(self) -> None:
        """Add the contents of the file to the index."""
        buffer = MappedFile(self.path).view()
        for member in tar_members(buffer, self.path):
            name = member_name(member.name, self.path)
            key, suffix = os.path.splitext(name)  # noqa: PTH122 -- five times faster than Path
            if not member.plain:
                self.index.others.update([NO_FILE] if name else [])
            elif is_image(name):
                self._add_image(member, name, key)
            elif suffix.lower() in _SUFFIXES:
                self._add_label(buffer, member, key, suffix.lower())
            elif name:
                self.index.others[kind_of_file(name)] += 1
        for _, kind in self.early:
            self.index.others[f"{_suffix(kind)} without an image"] += 1

    def _add_image(self, member: Member, name: str, key: str) -> None:
        index, row = self.index, self.names.get(name)
        if row is not None:
            if all(of[row] is None for of in index.labels.values()):
                raise UserError(f"{self.path}: got two members named {shown(name)} · allowed: one · pack it again")
            index.again.append(name)
        if row is None and key in self.rows:
            index.same_key[self.rows[key]] = len(index.names)
        self.rows[key] = self.names[name] = len(index.names)  # WebDataset allows a key again after its label
        index.names.append(name)
        index.files.append(self.number)
        index.starts.append(member.start)
        index.sizes.append(member.size)
        for kind, labels in index.labels.items():
            labels.append(self.early.pop((key, kind), None) if self.early else None)

    def _add_label(self, buffer: Buffer, member: Member, key: str, suffix: str) -> None:
        label, kind = _label_in(buffer, member, suffix, f"{self.path}/{printable(member.name)}")
        row, labels = self.rows.get(key), self.index.labels[kind]
        if isinstance(label, str):
            label = self._same.setdefault(label, label)
        if label is None:
            self.index.others[f"{suffix} without an identity"] += 1
        elif row is not None and labels[row] is None:
            labels[row] = label
        else:
            self.early[key, kind] = label


def _suffix(kind: str) -> str:
    return kind.partition(" ")[0]


def _label_in(buffer: Buffer, member: Member, suffix: str, place: str) -> tuple[Label | None, str]:
    """Return the label in a member, None for a caption or JSON without a label, and its kind.

    Raises:
        UserError: a ``.cls`` has no number, or JSON is damaged or its identity is invalid.
    """
    content = bytes(buffer[member.start : member.start + min(member.size, _MOST_TEXT + 1)])
    if suffix != ".json":
        number = whole_number(content.decode("ascii", "replace").strip()) if len(content) <= _LONGEST_NUMBER else None
        if number is None and suffix == ".cls":
            raise UserError(f"{place}: got {shown(content[:_LONGEST_NUMBER])} · allowed: the number of an identity")
        return number, suffix
    if len(content) > _MOST_TEXT:
        raise UserError(f"{place}: got more than {_MOST_TEXT:,} bytes · allowed: JSON with identity, label or cls")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{place}: not JSON · allowed: an object with identity, label or cls · copy it again") from None
    key = next((key for key in _JSON_KEYS if isinstance(values, dict) and values.get(key) is not None), None)
    label = None if key is None else checked_label(values[key], f"{place}, {key}")
    return label, f".json with {key or _JSON_KEYS[0]}"
