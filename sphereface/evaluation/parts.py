"""The parts of a set that lie in one folder: those of a suite, the groups of RFW."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from ..data.walking import is_of_the_system, what_lies_at
from ..errors import UserError, printable, shown_key

log = logging.getLogger(__name__)


def parts_of(directory: Path, is_part: Callable[[Path], bool], what: str) -> list[Path]:
    """List the parts in a folder, sorted. A warning counts the other entries; systems' own files
    are not counted.

    Args:
        directory: the folder.
        is_part: whether a path is a part.
        what: the parts, in the plural.

    Raises:
        UserError: the folder cannot be read, or an entry is a link that leads nowhere: a part would
            be missing.
    """
    try:
        found = sorted(path for path in directory.iterdir() if not is_of_the_system(path.name))
    except OSError as error:
        raise UserError(f"{directory}: cannot be read ({error.strerror}) · expected a folder of {what}") from None
    for path in found:
        if what_lies_at(path) == "nothing":
            target = shown_key(os.readlink(path)) if path.is_symlink() else "a file that is gone"  # noqa: PTH115
            raise UserError(
                f"{directory / shown_key(path.name)}: a link that leads nowhere, to {target} · put back what it leads "
                "to, or remove the link"
            )
    parts = [path for path in found if is_part(path)]
    if others := [path.name for path in found if path not in set(parts)]:
        log.warning("%s: %d entries are no %s, such as %s", directory, len(others), what, printable(others[0]))
    return parts
