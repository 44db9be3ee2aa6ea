"""Give several new files their names together, once all of them are complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..files import flush_folder, locked, temporary_name


@contextlib.contextmanager
def staged(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary name beside each path; rename the files when the block succeeds.

    Earlier files stay as they are where the block raises. While the block runs, no other process
    can stage the first path.

    Args:
        paths: files of one folder, which is made if need be.

    Raises:
        UserError: the file system refuses, another process writes these files, or the block raises
            one. Temporary names in its message are replaced by the final ones.
    """
    first, parts = paths[0], [temporary_name(path) for path in paths]
    try:
        with locked(first.with_name(f".{first.name}.lck")) as alone:
            if not alone:
                raise UserError(f"{first}: another process is writing it · wait for it, or give another name")
            yield parts
            for part, path in zip(parts, paths, strict=True):
                part.replace(path)
            flush_folder(first.parent)
    except UserError as error:
        text = str(error)
        for part, path in zip(parts, paths, strict=True):
            text = text.replace(str(part), str(path))
        raise UserError(text) from error
    except OSError as error:
        raise UserError(f"{first}: cannot be written ({error.strerror})") from error
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
