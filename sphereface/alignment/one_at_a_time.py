"""One process at a time writes crops into a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..files import locked
from .report import cannot_write

LOCK_NAME = ".align.lock"


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of crops, which is made if absent; a killed process holds it no
    longer.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    path = folder / LOCK_NAME
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path}: no plain file · delete it")
    with contextlib.ExitStack() as stack:
        try:
            alone = stack.enter_context(locked(path))
        except OSError as error:
            raise cannot_write(path, error) from error
        if not alone:
            raise UserError(f"{folder}: another align writes into it · wait for it, or give another folder")
        yield
