"""The one way to walk a folder of images: for training, evaluation, alignment and search alike.

==========================================
========================================================================== what lies in the folder
what happens ==========================================
========================================================================== an image, by its suffix,
at any depth       taken a file of another suffix                    counted by its suffix a FIFO, a
socket, a device                  never opened, counted a link that leads nowhere
counted a link to a folder                          followed once; not followed and counted where it
leads back into the walk a folder that may not be read or entered    an error: the rest would be a
part taken for the whole a name that starts with a dot,              passed over in silence: systems
put them there ``Thumbs.db``, ``__MACOSX`` and the like ==========================================
==========================================================================
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

from ..errors import UserError, printable
from .images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

NO_SUFFIX, NO_FILE = "without a suffix", "that are no plain files"
DEAD_LINK, LOOPING_LINK = "links that lead nowhere", "links to folders that are read anyway"

_OF_THE_SYSTEM = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)
_OWN = frozenset({"align-report.json", "landmarks.txt", "pairs.txt", "people.txt", "names.tsv"})
"""What this package writes beside the images of a folder."""
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_HEIC = frozenset({".heic", ".heif"})  # what telephones write
_MOST_KINDS = 8
_LONGEST_SUFFIX = 12
_LONGEST_SHOWN = 200  # characters of a path that is too long


@dataclass(frozen=True)
class Walked:
    """What lies in a folder.

    Attributes:
        root: the folder.
        names: of all images, relative to ``root``, with forward slashes, sorted as texts.
        passed_over: what was not read: suffix in lower case, or one of the constants above → how
            many.
        folders: the folders in ``root`` that were entered.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[Path]:
        """The images as paths, in the order of ``names``."""
        return [self.root / name for name in self.names]

    @property
    def loose(self) -> list[str]:
        """The images that lie in no folder below ``root``."""
        return [name for name in self.names if "/" not in name]

    @property
    def empty(self) -> list[str]:
        """The folders in ``root`` that hold no image, at any depth."""
        return sorted(set(self.folders) - {name.partition("/")[0] for name in self.names})

    def identities(self) -> dict[str, list[str]]:
        """The images by identity: the first folder of each; whatever lies below it belongs to that
        identity.

        Returns:
            Identity → names of its images. Both are sorted by Unicode's composed form. Folders
            whose names differ in Unicode's form alone are one identity.
        """
        found: dict[str, list[str]] = {}
        for name in self.names:
            folder, slash, _ = name.partition("/")
            if slash:
                found.setdefault(nfc(folder), []).append(name)
        return {identity: sorted(found[identity], key=nfc) for identity in sorted(found)}

    def not_read(self) -> str:
        """Return '37 files were not read: 30 .heic, 7 .tiff' with what is allowed; empty where
        there are none.
        """
        total = self.passed_over.total()
        if not total:
            return ""
        kinds = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
        counts = [f"{count:,} {kind}" for kind, count in kinds[:_MOST_KINDS]]
        if rest := sum(count for _, count in kinds[_MOST_KINDS:]):
            counts.append(f"{rest:,} of {len(kinds) - _MOST_KINDS:,} other kinds")
        were = "file was" if total == 1 else "files were"
        remedy = " · convert HEIC first (heif-convert; sips on a Mac)" if _HEIC & set(self.passed_over) else ""
        return f"{total:,} {were} not read: {', '.join(counts)} · images are {' '.join(sorted(IMAGE_SUFFIXES))}{remedy}"


def walk_images(root: Path | str) -> Walked:
    """List every image below a folder, at any depth, and count what is not read. No file is opened.

    Memory: the names. Links to folders are followed; a link that leads back into the walk is
    counted.

    Args:
        root: the folder.

    Raises:
        UserError: it is no folder, or a folder in it may not be read or entered.
    """
    walked = Walked(Path(root))
    start = os.path.join(root, "")  # noqa: PTH118 -- texts: a path for each of a million files takes seconds
    left, entered = [""], set[tuple[str, str]]()
    while left:
        below = left.pop()
        entries = _entries(start + below)
        for entry in entries if below else sorted(entries, key=lambda entry: entry.name):  # of two links the first
            name = below + entry.name
            if is_of_the_system(entry.name):
                continue
            kind = _kind(entry)
            if kind == "folder" and _is_entered(entry, name, start, entered):
                left.append(f"{name}/")
                if not below:
                    walked.folders.append(name)
            elif kind == "file" and is_image(entry.name):
                walked.names.append(name)
            elif kind != "file" or name not in _OWN:
                walked.passed_over[LOOPING_LINK if kind == "folder" else what_is(name) if kind == "file" else kind] += 1
    walked.names.sort()
    return walked


def say_left_out(walked: Walked, *, loose: Sequence[str] = (), num_deeper: int = 0) -> None:
    """Log, a line each, what of a folder or a zip of identities is not taken, and what is taken
    from deeper folders.

    Args:
        walked: what lies there.
        loose: more images in no identity's folder.
        num_deeper: how many images lie in a folder of an identity's folder.
    """
    place, loose, empty = printable(str(walked.root)), [*walked.loose, *loose], walked.empty
    if loose:
        such = printable(loose[0])
        log.warning("data: %s: images in no identity's folder are left out: %d, such as %s", place, len(loose), such)
    if empty:
        log.warning("data: %s: folders without an image: %d, such as %s", place, len(empty), printable(empty[0]))
    if num_deeper:
        sentence = "images lie deeper than <identity>/<image>: the first folder is their identity"
        log.warning("data: %s: %d %s", place, num_deeper, sentence)
    if sentence := walked.not_read():
        log.warning("data: %s: %s", place, sentence)


def is_image(name: str) -> bool:
    """Say whether a file's name ends as an image's does."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 -- five times as fast as Path


def is_of_the_system(name: str) -> bool:
    """Say whether systems put a file or folder of this name beside images: hidden ones,
    ``Thumbs.db``, ``__MACOSX``.
    """
    return name.startswith(".") or name.lower() in _OF_THE_SYSTEM


def what_is(name: str) -> str:
    """Return how a file that is no image is counted: by its suffix in lower case, where it has a
    short one.
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if not suffix:
        return NO_SUFFIX
    return suffix if len(suffix) <= _LONGEST_SUFFIX and suffix.isprintable() else "with a long or odd suffix"


def what_lies_at(path: Path | str, key: str = "") -> str:
    """Say whether ``"folder"``, ``"file"``, ``"nothing"`` or ``"something else"`` (a FIFO, a
    device) is at a path.

    Args:
        path: any.
        key: the setting that names it, for messages.

    Raises:
        UserError: nobody can say: a folder above it may not be entered, or the path is too long or
            holds a NUL.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- a text may be given
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        shown = printable(str(path))
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
        raise UserError(f"{key and f'{key}: '}{shown}: cannot be read ({what})") from None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "something else"


def check_readable(path: Path | str, key: str) -> None:
    """Refuse a path that cannot be looked at, and a folder that may not be read or entered. Nothing
    there is allowed.

    Raises:
        UserError: see :func:`what_lies_at` and :func:`walk_images`.
    """
    if what_lies_at(path, key) == "folder":
        _entries(str(path))


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before hours of work. Folders that are not there yet
    are allowed.

    Raises:
        UserError: a folder is there, or the folder above is none, or may not be written to.
    """
    folder = next(above for above in path.absolute().parents if what_lies_at(above) != "nothing")
    if what_lies_at(path) == "folder" or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot be written · allowed: a file in a folder where this user may write")


def nfc(name: str) -> str:
    """Return a name in Unicode's composed form: macOS writes é as two characters, others as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        os.stat(os.path.join(folder, "."))  # noqa: PTH116, PTH118 -- a folder may be listed that may not be entered
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: str, error: OSError | ValueError) -> UserError:
    what = getattr(error, "strerror", None) or error
    remedy = " · let this user read and enter it, or move it elsewhere" if isinstance(error, PermissionError) else ""
    shown = printable(folder.rstrip("/")) or "/"
    return UserError(f"{shown}: cannot be read ({what}) · allowed: a folder of images{remedy}")


def _kind(entry: os.DirEntry[str]) -> str:
    """``"folder"``, ``"file"``, or how it is counted where it is neither."""
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
    """Whether a folder is entered: a link is not where it leads to a folder above it, or to one
    that is read anyway.
    """
    if not entry.is_symlink():
        return True
    target = os.path.join(os.path.realpath(entry.path), "")  # noqa: PTH118
    above = os.path.join(os.path.realpath(os.path.dirname(entry.path)), "")  # noqa: PTH118, PTH120
    root = os.path.join(os.path.realpath(start), "")  # noqa: PTH118
    identity, nested, _ = name.partition("/")
    key = (identity if nested else "", target)  # no two identities are links to one folder
    read = not any(map(is_of_the_system, target.removeprefix(root).split("/")))
    inside = target.startswith(root) and read
    if above.startswith(target) or inside or key in entered:
        return False
    entered.update({key, (identity, target)})
    return True
