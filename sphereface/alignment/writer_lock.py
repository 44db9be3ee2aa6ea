"""Let one process at a time write crops into a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..files import locked
from .report import cannot_write

LOCK_NAME = ".align.lock"


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of crops, which is created if absent.

    The lock of a killed process ends with it.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """
    path = folder / LOCK_NAME
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path}: not a regular file · delete it")
    with contextlib.ExitStack() as stack:
        try:
            alone = stack.enter_context(locked(path))
        except OSError as error:
            raise cannot_write(path, error) from error
        if not alone:
            raise UserError(f"{folder}: another align writes into it · wait for it, or give another folder")
        yield
