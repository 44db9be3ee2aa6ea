"""A file that is read at random places by many processes: mapped into memory, opened anew in each
of them.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import regular_file


class MappedFile:
    """A file mapped for reading, opened at the first use in each process.

    Nothing open travels: a pickle holds path and size alone, and a forked child opens the file for
    itself. There is no file position and no lock, so threads and processes read without waiting for
    each other, and what they read is held once by the system, however many they are. A file that is
    cut short while it is mapped ends the process that reads behind its end (SIGBUS), so a set that
    is trained on is never written to, but replaced.

    Args:
        path: the file.
        size: the bytes that it must have; None: as it is now.

    Raises:
        UserError: no such file, or an empty one; with ``size`` only :meth:`view` says so.
    """

    def __init__(self, path: Path, *, size: int | None = None) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._process = 0
        if size is not None:
            self.size = size
            return
        try:
            self.size = path.stat().st_size if path.is_file() else -1
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if self.size <= 0:
            other = "no plain file" if path.exists() else "nothing there"
            kind = "0 bytes" if self.size == 0 else "a folder" if path.is_dir() else other
            raise UserError(f"{path}: got {kind} · allowed: a file with images in it")

    def view(self) -> mmap.mmap:
        """The bytes of the file. Raises OSError where it cannot be opened, or is no longer as long
        as it was.
        """
        if self._map is None or self._process != os.getpid():
            with open(self.path, "rb", opener=regular_file) as file:
                if os.fstat(file.fileno()).st_size != self.size:
                    raise OSError(f"{self.path} has changed since it was opened")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._process = os.getpid()
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_process": 0}
