"""Map a file into memory for random reads by many processes; each process opens it itself."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import regular_file

_WILL_NEED: int | None = getattr(mmap, "MADV_WILLNEED", None)


class MappedFile:
    """A file mapped for reading, opened at the first use in each process.

    A pickle holds only path and size, and a forked child opens the file itself. There is no file
    position and no lock, so threads and processes never wait for each other. The system holds the
    data once for all of them. If a mapped file is truncated, a read behind its new end kills the
    process (SIGBUS). So replace a training set, and never write into it.

    A look at a page that is not in memory waits for the disk, and makes Linux read about 200 kB
    around it. :meth:`announce` lets the disk fetch many small pieces at once, and only these.

    Args:
        path: the file.
        size: its required number of bytes; None: its present size.

    Raises:
        UserError: there is no such file, or it is empty; with ``size``, only :meth:`view` raises.
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
            other = "not a regular file" if path.exists() else "nothing there"
            kind = "0 bytes" if self.size == 0 else "a folder" if path.is_dir() else other
            raise UserError(f"{path}: got {kind} · allowed: a file that contains images")

    def view(self) -> mmap.mmap:
        """Return the file's bytes. Raises OSError if it cannot be opened or its size differs."""
        if self._map is None or self._process != os.getpid():
            with open(self.path, "rb", opener=regular_file) as file:
                if os.fstat(file.fileno()).st_size != self.size:
                    raise OSError(f"{self.path} has changed since it was opened")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._process = os.getpid()
        return self._map

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the view, fewer at its end. Raises OSError as :meth:`view`."""
        return self.view()[start : start + size]

    def announce(self, start: int, size: int) -> None:
        """Let the system fetch bytes of the view that will be read soon; nothing on Windows.

        Errors are left to reading.
        """
        try:
            view = self.view()
            if _WILL_NEED is not None and 0 <= start < len(view):
                page = start & -mmap.PAGESIZE
                view.madvise(_WILL_NEED, page, start + size - page)
        except OSError:
            pass

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_process": 0}
