"""Walk a folder of images, in the same way for training, evaluation, alignment and search.

- An image, by its suffix, at any depth: listed.
- A file of another suffix: counted by its suffix.
- A FIFO, a socket, a device: counted, never opened.
- A link without a target: counted.
- A link to a folder: followed once; counted instead if it leads back into the walk.
- A folder without permission to read or enter it: an error, since the set would be incomplete.
- ``.NAME.icloud``, a file that iCloud has not downloaded: counted.
- Other names that start with a dot, ``Thumbs.db``, ``__MACOSX`` and the like: ignored, since
  operating systems create them.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError, count_of, printable
from .heic import HEIC_SUFFIXES
from .images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

NO_SUFFIX, NO_FILE = "without a suffix", "that are not regular files"
DEAD_LINK, LOOPING_LINK = "links without a target", "links to folders that are read anyway"

_OF_THE_SYSTEM = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)
OWN_FILES = frozenset({"align-report.json", "landmarks.txt", "pairs.txt", "people.txt", "names.tsv"})
"""Files that this package writes beside the images of a folder."""
_OF_ALIGN = frozenset({"align-report.json", "landmarks.txt"})  # perhaps in the folder of each identity
_OTHER_IMAGES = frozenset({".gif", ".tif", ".tiff", ".avif", ".jp2"})
_ICLOUD = ".icloud"
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_MOST_KINDS = 8
_LONGEST_SUFFIX = 12
_LONGEST_SHOWN = 200  # characters of a long path


@dataclass(frozen=True)
class Walked:
    """The contents of a folder.

    Attributes:
        root: the folder.
        names: of all images, relative to ``root``, with forward slashes, sorted as strings.
        skipped: counts of files that were not read, by suffix in lower case or one of the
            constants above.
        folders: the folders in ``root`` that were entered.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[Path]:
        """The images as paths, in the order of ``names``."""
        return [self.root / name for name in self.names]

    @property
    def loose(self) -> list[str]:
        """The images directly in ``root``."""
        return [name for name in self.names if "/" not in name]

    @property
    def empty(self) -> list[str]:
        """The folders in ``root`` that contain no image, at any depth."""
        return sorted(set(self.folders) - {name.partition("/")[0] for name in self.names})

    def without_images(self) -> str:
        """Return a sentence about the folders of :attr:`empty`, or an empty string."""
        empty = self.empty
        return f"folders without an image: {len(empty)}, such as {printable(empty[0])}" if empty else ""

    def identities(self) -> dict[str, list[str]]:
        """Return the images by identity: all images below the first folder belong to that identity.

        Returns:
            Identity → names of its images. Both are sorted by Unicode's composed form. Folders
            whose names differ only in Unicode's form are one identity.
        """
        found: dict[str, list[str]] = {}
        for name in self.names:
            folder, slash, _ = name.partition("/")
            if slash:
                found.setdefault(nfc(folder), []).append(name)
        return {identity: sorted(found[identity], key=nfc) for identity in sorted(found)}

    def not_read(self) -> str:
        """Return a sentence about the files that were not read, or an empty string.

        Example: '37 files were not read: 30 .heic, 7 .tiff', then the allowed suffixes.
        """
        total = self.skipped.total()
        if not total:
            return ""
        kinds = sorted(self.skipped.items(), key=lambda item: (-item[1], item[0]))
        counts = [f"{count:,} {kind}" for kind, count in kinds[:_MOST_KINDS]]
        if rest := sum(count for _, count in kinds[_MOST_KINDS:]):
            counts.append(f"{rest:,} of {len(kinds) - _MOST_KINDS:,} other kinds")
        were = "file was" if total == 1 else "files were"
        heic, images = HEIC_SUFFIXES & set(self.skipped), sorted(_OTHER_IMAGES & set(self.skipped))
        remedy = f" · convert {' and '.join(images)} to JPEG or PNG first" if images else ""
        remedy += " · iCloud has not downloaded the .icloud files: download them first" if self.skipped[_ICLOUD] else ""
        remedy += " · to read HEIC: pip install '.[heic]' in this project's folder" if heic else ""
        return f"{total:,} {were} not read: {', '.join(counts)} · images are {' '.join(sorted(IMAGE_SUFFIXES))}{remedy}"


def walk_images(root: Path | str) -> Walked:
    """List every image below a folder, at any depth, and count what is not read. No file is opened.

    Memory: the names. Links to folders are followed; a link that leads back into the walk is
    counted.

    Args:
        root: the folder.

    Raises:
        UserError: it is not a folder, or a folder in it cannot be read or entered.
    """
    walked = Walked(Path(root))
    start = os.path.join(root, "")  # noqa: PTH118 -- strings: a million Path objects take seconds
    left, entered = [""], set[tuple[str, str]]()
    while left:
        below = left.pop()
        entries = _entries(start + below)
        # sorted at the top, so that the first of two links is followed
        for entry in entries if below else sorted(entries, key=lambda entry: entry.name):
            name = below + entry.name
            if is_system_file(entry.name):
                if entry.name[1:].endswith(_ICLOUD) and _kind(entry) == "file":
                    walked.skipped[_ICLOUD] += 1
                continue
            kind = _kind(entry)
            if kind == "folder" and _is_entered(entry, name, start, entered):
                left.append(f"{name}/")
                if not below:
                    walked.folders.append(name)
            elif kind == "file" and is_image(entry.name):
                walked.names.append(name)
            elif kind != "file" or entry.name not in (_OF_ALIGN if below else OWN_FILES):
                reason = LOOPING_LINK if kind == "folder" else kind_of_file(name) if kind == "file" else kind
                walked.skipped[reason] += 1
    walked.names.sort()
    return walked


def log_left_out(walked: Walked, *, loose: Sequence[str] = (), num_deeper: int = 0) -> None:
    """Log the images of a folder or zip that are excluded, and those in deeper folders.

    Args:
        walked: the contents of the folder.
        loose: more images outside the folders of identities.
        num_deeper: number of images in a subfolder of an identity's folder.
    """
    place, loose = printable(str(walked.root)), [*walked.loose, *loose]
    if loose:
        such = printable(loose[0])
        log.warning("data: %s: images in no identity's folder are left out: %d, such as %s", place, len(loose), such)
    if sentence := walked.without_images():
        log.warning("data: %s: %s", place, sentence)
    if num_deeper:
        one = "image is in a subfolder of an identity's folder: the first folder is its identity"
        several = "images are in subfolders of an identity's folder: the first folder is their identity"
        log.warning("data: %s: %s", place, count_of(num_deeper, one, several))
    if sentence := walked.not_read():
        log.warning("data: %s: %s", place, sentence)


def is_image(name: str) -> bool:
    """Return whether a file's name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 -- five times faster than Path


def is_system_file(name: str) -> bool:
    """Return whether operating systems create files or folders of this name beside images.

    These are hidden files, ``Thumbs.db``, ``__MACOSX`` and the like.
    """
    return name.startswith(".") or name.lower() in _OF_THE_SYSTEM


def kind_of_file(name: str) -> str:
    """Return how a file that is not an image is counted: by its short suffix in lower case."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if not suffix:
        return NO_SUFFIX
    return suffix if len(suffix) <= _LONGEST_SUFFIX and suffix.isprintable() else "with a long or odd suffix"


def kind_of_path(path: Path | str, key: str = "") -> str:
    """Return whether a path is a ``"folder"``, ``"file"``, ``"nothing"`` or ``"something else"``.

    Something else is a FIFO or a device.

    Args:
        path: any.
        key: the setting that names it, for messages.

    Raises:
        UserError: it cannot be determined, because a folder above it cannot be entered, or the path
            is too long or contains a NUL.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- it may be a string
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        shown = printable(str(path))
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
        raise UserError(f"{key and f'{key}: '}{shown}: cannot be read ({what})") from None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "something else"


def check_readable(path: Path | str, key: str) -> None:
    """Refuse a path that cannot be examined, and a folder that cannot be read or entered.

    A path where nothing exists is allowed.

    Raises:
        UserError: see :func:`kind_of_path` and :func:`walk_images`.
    """
    if kind_of_path(path, key) == "folder":
        _entries(str(path))


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before hours of work. Its folder may be missing.

    Raises:
        UserError: the path is a folder, or the folder above is not a folder or not writable.
    """
    folder = next(above for above in path.absolute().parents if kind_of_path(above) != "nothing")
    if kind_of_path(path) == "folder" or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot be written · allowed: a file in a folder that you can write to")


def nfc(name: str) -> str:
    """Return a name in Unicode's composed form: macOS writes é as two characters, others as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        os.stat(os.path.join(folder, "."))  # noqa: PTH116, PTH118 -- to read is not to enter
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: str, error: OSError | ValueError) -> UserError:
    what = getattr(error, "strerror", None) or error
    remedy = " · give yourself read permission, or move it elsewhere" if isinstance(error, PermissionError) else ""
    shown = printable(folder.rstrip("/")) or "/"
    return UserError(f"{shown}: cannot be read ({what}) · allowed: a folder of images{remedy}")


def _kind(entry: os.DirEntry[str]) -> str:
    """Return ``"folder"``, ``"file"``, or the name under which anything else is counted."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise _unreadable(entry.path, error) from error
        return DEAD_LINK
    return DEAD_LINK if entry.is_symlink() and not os.path.exists(entry.path) else NO_FILE  # noqa: PTH110


def _is_entered(entry: os.DirEntry[str], name: str, start: str, entered: set[tuple[str, str]]) -> bool:
    """Return whether to enter a folder.

    A link is not entered if its target is a folder above it, or is read anyway.
    """
    if not entry.is_symlink():
        return True
    target = os.path.join(os.path.realpath(entry.path), "")  # noqa: PTH118
    above = os.path.join(os.path.realpath(os.path.dirname(entry.path)), "")  # noqa: PTH118, PTH120
    root = os.path.join(os.path.realpath(start), "")  # noqa: PTH118
    identity, nested, _ = name.partition("/")
    key = (identity if nested else "", target)  # no two identities are links to one folder
    read = not any(map(is_system_file, target.removeprefix(root).split("/")))
    inside = target.startswith(root) and read
    if above.startswith(target) or inside or key in entered:
        return False
    entered.update({key, (identity, target)})
    return True
