"""Pack any source into tar shards for WebDataset: ``<identity>/<number>.jpg`` and ``….cls``."""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from ..errors import UserError, shown
from ..files import temporary_name
from .images import suffix_of
from .pack_files import left_by_killed, left_to_write, packing_to, renamed_together
from .packing import Encoding, packed_image
from .sources.base import Source
from .sources.listing import whole_number
from .sources.members import member_name

_BLOCK = 512
_END = bytes(2 * _BLOCK)


def pack_tar(
    source: Source,
    tar: Path,
    encoding: Encoding | None = None,
    *,
    most_bytes: int | None = None,
    more: Mapping[str, bytes] | None = None,
    progress: bool = False,
) -> list[Path]:
    """Write a source to one tar file, or to shards called ``<name>-00000-of-00010.tar``.

    The same source gives the same bytes. Images are copied byte for byte, unless ``encoding`` is
    given. ``.cls`` contains the label; the folder is the identity's name, if it has one. All files
    are written under temporary names and renamed at the end. So an interruption never leaves a
    partial set that looks whole. If two processes pack to one folder, the second fails at once.

    Args:
        source: the images.
        tar: the file to write, or the beginning of the shards' names.
        encoding: of new JPEGs; None: keep the images unchanged.
        most_bytes: size of a shard; one image may be larger. None: one file.
        more: other files to write beside it: name → content.
        progress: show a progress bar on stderr.

    Returns:
        The files, in the order of the images.

    Raises:
        UserError: there are no images, a file exists already, an identity's name cannot be a
            folder's, an image cannot be read, or the disk is full. Partial output is removed.
    """
    if len(source) == 0:
        raise UserError(f"{tar}: got no images to pack · allowed: a source with one or more · nothing was written")
    if tar.suffix != ".tar":
        raise UserError(f"{tar}: got the ending {tar.suffix!r} · allowed: .rec, .tar")
    folders, numbers = _folders(source, tar), _numbers(source)
    with packing_to(tar):
        _check_target(tar)
        texts = left_to_write(tar, {tar.with_name(name): content for name, content in (more or {}).items()})
        for part in left_by_killed(tar):
            part.unlink()
        rows = tqdm(range(len(source)), unit=" images", disable=not progress)
        members = (_members(row, folders, numbers, source, encoding) for row in rows)
        return _write(tar, members, texts, most_bytes)


def shards_of(tar: Path) -> list[Path]:
    """Return the existing shards of a name, sorted."""
    form = re.compile(re.escape(tar.stem) + r"-\d{5,}-of-\d{5,}\.tar")
    return sorted(path for path in tar.parent.iterdir() if form.fullmatch(path.name))


def _check_target(tar: Path) -> None:
    """Refuse to replace a file, and remove the shards that a killed pack renamed."""
    if left_by_killed(tar):
        for path in shards_of(tar):
            path.unlink()
    for path in (tar, *shards_of(tar)):
        if os.path.lexists(path):
            raise UserError(f"{path}: exists already · move it away, or give another name")


def _folders(source: Source, tar: Path) -> list[str]:
    """Return the folder of each identity in the archive, empty without names."""
    if not source.named:
        return ["" for _ in source.class_names]
    for name in source.class_names:
        path = f"{name}/0.jpg"
        with contextlib.suppress(UserError):
            if name.isprintable() and name == name.strip() and member_name(path, tar) == path:
                continue
        raise UserError(
            f"{tar}: the identity {shown(name)} cannot be a folder's name · allowed: printable names without "
            "a dot at the start, a colon after the first letter or blanks at either end · rename it, or pack a .rec"
        )
    return [f"{name}/" for name in source.class_names]


def _numbers(source: Source) -> list[int]:
    """Return the number of each identity: the label in the source, if it has no names."""
    given = [] if source.named else [whole_number(name) for name in source.class_names]
    known = [number for number in given if number is not None]
    return known if known and len(known) == len(given) else list(range(len(source.class_names)))


def _members(row: int, folders: list[str], numbers: list[int], source: Source, encoding: Encoding | None) -> bytes:
    """Return an image and its label as members of the archive."""
    image, label = packed_image(source, row, encoding), int(source.labels[row])
    key = f"{folders[label]}{row:09d}"
    return _member(key + (suffix_of(image) or ".jpg"), image) + _member(f"{key}.cls", str(numbers[label]).encode())


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)  # without owner and time, so that the bytes are always the same
    info.size = len(content)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % _BLOCK)


def _write(tar: Path, members: Iterator[bytes], texts: Mapping[Path, bytes], most_bytes: int | None) -> list[Path]:
    """Write the texts, then the shards; return the shards."""
    with renamed_together(texts) as parts:
        first, shards = next(members, None), []
        while first is not None:
            shards.append(temporary_name(tar))
            parts[shards[-1]] = tar
            first = _write_shard(shards[-1], first, members, most_bytes)
        if most_bytes is not None:
            names = [f"{tar.stem}-{number:05d}-of-{len(shards):05d}.tar" for number in range(len(shards))]
            parts |= zip(shards, map(tar.with_name, names), strict=True)
        return [parts[shard] for shard in shards]


def _write_shard(path: Path, first: bytes, members: Iterator[bytes], most_bytes: int | None) -> bytes | None:
    """Write a file up to a size; return the first member of the next file."""
    size = 0
    following: bytes | None = first
    with path.open("xb") as file:
        while following is not None and (
            not size or most_bytes is None or size + len(following) <= most_bytes - len(_END)
        ):
            size += file.write(following)
            following = next(members, None)
        file.write(_END)
    return following
