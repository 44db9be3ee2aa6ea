"""Write the files of a pack under temporary names, so that a pack is whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from glob import escape
from pathlib import Path

from ..errors import UserError
from ..files import flush_folder, locked, read_plain, temporary_name

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def packing_to(path: Path) -> Iterator[None]:
    """Keep other processes from packing to the same folder, and remove folders left empty.

    Raises:
        UserError: another process packs to it, or the block raises an OSError because nothing can
            be written.
    """
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        with locked(path.with_name(".pack.lock")) as alone:  # a lock of the folder, as it has one property file
            if not alone:
                raise UserError(
                    f"{path}: another process is packing to this folder · wait for it, or give another folder"
                )
            yield
    except OSError as error:
        why = "the disk is full" if error.errno in _DISK_FULL else error.strerror or str(error)
        raise UserError(f"{path}: cannot be written: {why} · make room, or give another folder") from error
    finally:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()


@contextlib.contextmanager
def renamed_together(texts: Mapping[Path, bytes]) -> Iterator[dict[Path, Path]]:
    """Write files under temporary names, and rename them when the block ends; or remove all.

    Args:
        texts: the first of the files.

    Yields:
        Temporary name → final name. The block adds the other files. They are renamed in this order,
        the last one when the others are on disk, so that it is never without them.

    Raises:
        OSError: the file system refuses.
    """
    parts = {temporary_name(path): path for path in texts}
    renamed: list[Path] = []
    try:
        for part, path in parts.items():
            part.write_bytes(texts[path])
        yield parts
        for part in parts:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        *_, last = parts.values()
        for part, path in parts.items():
            if path == last:
                flush_folder(last.parent)
            renamed.append(path)
            part.replace(path)
        renamed.clear()
        flush_folder(last.parent)
    finally:
        for left in (*parts, *renamed):
            with contextlib.suppress(OSError):
                left.unlink()


def left_by_killed(path: Path) -> list[Path]:
    """Return the temporary files of a file that killed packs left."""
    return list(path.parent.glob(f".{escape(path.name)}.*.part"))


def left_to_write(path: Path, texts: Mapping[Path, bytes], others: Iterable[Path] = ()) -> dict[Path, bytes]:
    """Return the texts that do not exist yet.

    Args:
        path: the file to pack.
        texts: files to write beside it.
        others: other files that must not exist.

    Raises:
        UserError: a text exists with other content, or one of the others exists, unless a killed
            pack to this place left it.
    """
    equal = {each for each, text in texts.items() if each.is_file() and read_plain(each) == text}
    for each in (*others, *texts):
        if os.path.lexists(each) and each not in equal and not left_by_killed(path):
            raise UserError(
                f"{each}: exists already and belongs to other images · move it away, or give another folder or name"
            )
    return {each: text for each, text in texts.items() if each not in equal}
