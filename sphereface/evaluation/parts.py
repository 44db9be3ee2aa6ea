"""List the parts of a set that lie in one folder: the sets of a suite, the groups of RFW."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from ..data.walking import is_system_file, kind_of_path
from ..errors import UserError, count_of, printable, refusing, shown_key

log = logging.getLogger(__name__)


def parts_of(directory: Path, is_part: Callable[[Path], bool], what: str) -> list[Path]:
    """Return the parts in a folder, sorted; a warning counts the other entries.

    The warning does not count files of the operating system.

    Args:
        directory: the folder.
        is_part: returns whether a path is a part.
        what: name of the parts for messages, in the plural.

    Raises:
        UserError: the folder cannot be read, or an entry is a broken link, so a part would be
            missing.
    """
    with refusing(f"{directory}: cannot be read", f"expected a folder of {what}"):
        found = sorted(path for path in directory.iterdir() if not is_system_file(path.name))
    for path in found:
        if kind_of_path(path) == "nothing":
            target = shown_key(os.readlink(path)) if path.is_symlink() else "a deleted file"  # noqa: PTH115
            raise UserError(
                f"{directory / shown_key(path.name)}: a broken link to {target} · restore its target, or remove the "
                "link"
            )
    parts = [path for path in found if is_part(path)]
    if others := [path.name for path in found if path not in set(parts)]:
        number = count_of(len(others), "entry is", "entries are")
        log.warning("%s: %s not among the %s, such as %s", directory, number, what, printable(others[0]))
    return parts
