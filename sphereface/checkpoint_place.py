"""The place of a new checkpoint: no file is replaced, and only one process writes to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError
from .files import locked
from .small_files import read_json


def occupied(path: Path) -> Path | None:
    """Return the file that a new checkpoint of this name would replace; None if there is none.

    A ``.json`` that a killed save left without its ``.pt`` does not count.
    """
    beside = path.with_suffix(".json")
    if path.exists():
        return path
    try:
        left = {"id", "sha256", "bytes"} <= read_json(beside).keys()
    except (OSError, ValueError):
        left = False
    return beside if beside.exists() and not left else None


def check_new(path: Path, key: str) -> None:
    """Refuse a name under which saving would replace a file.

    Args:
        path: ``….pt``.
        key: the option or argument that names it, for messages.

    Raises:
        UserError: see :func:`occupied`.
    """
    if (there := occupied(path)) is not None:
        raise UserError(f"{key}: {there} exists already · allowed: the name of a new checkpoint")


@contextlib.contextmanager
def new_checkpoint(path: Path, key: str) -> Iterator[None]:
    """Reserve the name of a new checkpoint for this process while a block writes it.

    Where the block raises, the checkpoint is removed.

    Args:
        path: ``….pt``.
        key: the option or argument that names it, for messages.

    Raises:
        UserError: a checkpoint exists, or another process is writing it.
        OSError: the file system refuses.
    """
    with locked(path.with_name(f".{path.stem}.lck")) as alone:
        if not alone:
            raise UserError(f"{key}: another process is writing {path} · wait for it, or give another name")
        check_new(path, key)  # under the lock: another process may have saved it since an earlier check
        try:
            yield
        except BaseException:
            for file in (path, path.with_suffix(".json")):
                file.unlink(missing_ok=True)
            raise
