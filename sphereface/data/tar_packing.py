"""Any source into tar shards, as WebDataset reads them: ``<identity>/<number>.jpg`` and ``….cls``
for each image.
"""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from ..errors import UserError, shown
from ..files import flush_folder, temporary_name
from .packing import Encoding, left_by_killed, left_to_write, packed_image, packing_to
from .sources.base import Source
from .sources.listing import whole_number
from .sources.members import member_name

_BLOCK = 512
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"RI": ".webp", b"P5": ".pgm", b"P6": ".ppm"}
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

    The same source gives the same bytes. Images stay byte for byte, unless ``encoding`` is given.
    ``.cls`` holds the label; the folder holds the identity's name, where it has one. All files are
    written under names of their own, and
    renamed at the end: whatever interrupts this, no set is there that is read as a whole one. Of
    two processes that pack to one folder at once, the second ends at once.

    Args:
        source: of the images.
        tar: the file to write, or whose name the shards begin with.
        encoding: of new JPEGs; None: keep the images as they are.
        most_bytes: size of a shard; one image may be larger. None: one file.
        more: other files to write beside it: name → content.
        progress: show a bar on stderr.

    Returns:
        The files, in the order of the images.

    Raises:
        UserError: there are no images, a file is there already, an identity's name is no folder's,
            an image cannot be read, or the disk is full. What was begun is removed.
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
    """Return the shards of a name that are there, sorted."""
    form = re.compile(re.escape(tar.stem) + r"-\d{5,}-of-\d{5,}\.tar")
    return sorted(path for path in tar.parent.iterdir() if form.fullmatch(path.name))


def _check_target(tar: Path) -> None:
    """Refuse to replace a file. Shards of a pack that was killed while it renamed them are
    removed.
    """
    if left_by_killed(tar):
        for path in shards_of(tar):
            path.unlink()
    for path in (tar, *shards_of(tar)):
        if os.path.lexists(path):
            raise UserError(f"{path}: there already · move it away, or give another name")


def _folders(source: Source, tar: Path) -> list[str]:
    """The folder of each identity in the archive, empty without names."""
    if not source.named:
        return ["" for _ in source.class_names]
    for name in source.class_names:
        path = f"{name}/0.jpg"
        with contextlib.suppress(UserError):
            if name.isprintable() and name == name.strip() and member_name(path, tar) == path:
                continue
        raise UserError(
            f"{tar}: the identity {shown(name)} has no name that a folder may have · allowed: printable names without "
            "a dot in front or blanks at an end · rename it, or pack a .rec"
        )
    return [f"{name}/" for name in source.class_names]


def _numbers(source: Source) -> list[int]:
    """The number of each identity: the label that the source has, where it knows no names."""
    given = [] if source.named else [whole_number(name) for name in source.class_names]
    known = [number for number in given if number is not None]
    return known if known and len(known) == len(given) else list(range(len(source.class_names)))


def _members(row: int, folders: list[str], numbers: list[int], source: Source, encoding: Encoding | None) -> bytes:
    """An image and its label as they stand in the archive."""
    image, label = packed_image(source, row, encoding), int(source.labels[row])
    key = f"{folders[label]}{row:09d}"
    return _member(key + _SUFFIXES.get(image[:2], ".jpg"), image) + _member(f"{key}.cls", str(numbers[label]).encode())


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)  # of nobody, at the time 0: the same bytes each time
    info.size = len(content)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % _BLOCK)


def _write(tar: Path, members: Iterator[bytes], texts: Mapping[Path, bytes], most_bytes: int | None) -> list[Path]:
    """Write all files under other names, then rename them, the shards last."""
    parts = [temporary_name(path) for path in texts]
    shards: list[Path] = []
    renamed: list[Path] = []
    try:
        for part, text in zip(parts, texts.values(), strict=True):
            _write_shard(part, text, iter(()), None)
        first = next(members, None)
        while first is not None:
            shards.append(temporary_name(tar))
            first = _write_shard(shards[-1], first, members, most_bytes, end=_END)
        names = [f"{tar.stem}-{number:05d}-of-{len(shards):05d}.tar" for number in range(len(shards))]
        finals = [tar] if most_bytes is None else [tar.with_name(name) for name in names]
        for part, final in zip([*parts, *shards], [*texts, *finals], strict=True):
            renamed.append(final)
            part.replace(final)
        renamed.clear()
        flush_folder(tar.parent)
        return finals
    finally:
        for left in (*parts, *shards, *renamed):
            with contextlib.suppress(OSError):
                left.unlink()


def _write_shard(
    path: Path, first: bytes, members: Iterator[bytes], most_bytes: int | None, *, end: bytes = b""
) -> bytes | None:
    """Write a file to the disk, up to a size; return what comes first in the next one."""
    size = 0
    following: bytes | None = first
    with path.open("xb") as file:
        while following is not None and (
            not size or most_bytes is None or size + len(following) <= most_bytes - len(end)
        ):
            size += file.write(following)
            following = next(members, None)
        file.write(end)
        file.flush()
        os.fsync(file.fileno())
    return following
