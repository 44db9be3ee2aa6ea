"""Tell from the system's counters whether images still come from a disk."""

from __future__ import annotations

import sys
from collections.abc import Callable

_MOST_PATIENT = 1024


def reads_so_far() -> int:
    """Return a number that grows whenever this process reads a file's data or waits for them."""
    if sys.platform == "win32":  # has no such counter, and no announcements either
        return 0
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_majflt + usage.ru_inblock


class DiskReads:
    """Decide for each group of images whether to announce them to the system first.

    Announcing costs 4 % of decoding, and gains nothing where the system has all images in memory
    already. That is assumed after groups during which this process read nothing, until it waits for
    data again. A network disk counts only such waits: announced images then look as if they were in
    memory. So each wrong assumption doubles the number of groups before the next one.

    Args:
        count: returns a number that grows with each read.
    """

    def __init__(self, count: Callable[[], int] = reads_so_far) -> None:
        self._count = count
        self._last = -1
        self._quiet = 0  # groups in a row without a read
        self._patience = 1  # of these, before the images are taken to be in memory

    def expected(self) -> bool:
        """Return whether to announce the next group; call it once for each."""
        now, before = self._count(), self._last
        self._last = now
        if now == before:
            self._quiet += 1
        else:
            if self._quiet >= self._patience:
                self._patience = min(2 * self._patience, _MOST_PATIENT)
            self._quiet = 0
        return self._quiet < self._patience


DISK = DiskReads()
"""Of this process."""
