"""Read the directory of an untrusted zip."""

from __future__ import annotations

import logging
import shlex
import stat
import struct
import zipfile
from pathlib import Path

from ...archives import DAMAGED, check_directory
from ...errors import UserError, first_line, printable, shown
from ..mapped import MappedFile
from ..walking import is_image
from .members import member_name

log = logging.getLogger(__name__)

LOCAL = struct.Struct("<4s22xHH")  # PKWARE APPNOTE 4.3.7: signature … length of name, length of extra field
_LONGEST_END = 76 + 22 + 2**16  # bytes of the two records of zip64, and of the end record with its comment
_END = struct.Struct("<4s6xHI6x")  # signature … number of members, bytes of their directory …
_SEARCHED = 2**20  # bytes of a file's beginning that may hold a program before the first member
_UNIX, _MACOS = 3, 19  # systems whose attributes begin with the mode of Unix
_SPECIAL = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


def zip_members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files of a zip by name.

    Raises:
        UserError: it is not a zip, or a part of one, or another zip precedes it; a name leads out
            of it or occurs twice; members overlap.
    """
    try:
        _check_whole(path)
        with zipfile.ZipFile(path) as file:
            check_directory(file)
            infos = file.infolist()
            end = file.start_dir
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · give yourself read permission") from error
    except (*DAMAGED, OSError) as error:
        raise UserError(f"{path}: not a whole zip ({first_line(error)}) · copy it again, or test: unzip -t") from error
    _check_places(path, infos, end)
    _check_start(path, min((info.header_offset for info in infos), default=0))
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if "\0" in info.orig_filename:  # zipfile truncates it there
            got = shown(info.orig_filename)
            raise UserError(f"{path}: got a member {got} · allowed: names that stay inside the zip")
        if name := member_name(_utf8_name(info), path):
            if name in members:
                twice = shown(name)
                raise UserError(f"{path}: got two members named {twice} · allowed: one · pack it again")
            members[name] = info
    return members


def is_special(info: zipfile.ZipInfo) -> bool:
    """Return whether a member is a link, a FIFO, a socket or a device (``zip -y``), and no file."""
    return info.create_system in (_UNIX, _MACOS) and stat.S_IFMT(info.external_attr >> 16) in _SPECIAL


def _check_whole(path: Path) -> None:
    """Check that a file is no part of a split zip (``zip -s``), as far as parts show it.

    The last part has its number in its end record, and the first one has a mark of its own.
    """
    with path.open("rb") as file:
        first = file.read(4) == b"PK\x07\x08"
        file.seek(max(0, path.stat().st_size - _LONGEST_END))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    number = struct.unpack_from("<H", tail, at + 4)[0] if 0 <= at <= len(tail) - 6 else 0
    zip64 = tail[max(0, at - 76) : max(0, at)]
    if number == 0xFFFF and zip64[:4] == b"PK\x06\x06":
        number = struct.unpack_from("<I", zip64, 16)[0]
    if number or (first and at < 0):
        last = shlex.quote(printable(str(path))) if number else "LAST_PART.zip"
        raise UserError(
            f"{path}: got part {number + 1} of a split zip · allowed: a whole zip · join the parts: zip -s 0 {last} "
            "--out joined.zip"
        )


def _check_places(path: Path, infos: list[zipfile.ZipInfo], end: int) -> None:
    """Check that members lie in the file and do not overlap; overlaps can unpack to huge sizes."""
    reached = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < reached:
            why = "begins before the file" if info.header_offset < 0 else "overlaps another one"
            raise UserError(f"{path}: its member {shown(info.filename)} {why} · copy it again")
        reached = info.header_offset + LOCAL.size + info.compress_size
        if reached > end:
            raise UserError(
                f"{path}: its member {shown(info.filename)} ends at byte {reached}, after the end of "
                f"all members, {end} · copy it again"
            )


def _check_start(path: Path, first: int) -> None:
    """Check that no other zip lies before the first member, as after ``cat``; a program may."""
    if not first:
        return
    view = MappedFile(path).view()
    at = view.rfind(b"PK\x05\x06", max(0, first - _LONGEST_END), first)
    if 0 <= at <= first - _END.size:
        _, count, size = _END.unpack_from(view, at)
        zip64 = view[max(0, at - 20) : max(0, at - 16)] == b"PK\x06\x07"
        directory = view[max(0, at - size) : at]
        if zip64 or (count and directory[:4] == b"PK\x01\x02" and _lists_images(bytes(directory))):
            raise UserError(
                f"{path}: its first {first:,} bytes are another zip, whose images would be left out · allowed: one "
                "zip, not several joined by cat · give each in data.train, [a.zip, b.zip], or unpack them into one "
                "folder"
            )
    at, end = -1, max(0, min(first, _SEARCHED) - LOCAL.size + 4)
    while (at := view.find(b"PK\x03\x04", at + 1, end)) >= 0:
        _, length, _ = LOCAL.unpack_from(view, at)
        name = view[at + LOCAL.size : at + LOCAL.size + length].decode("utf-8", "replace")
        if is_image(name):
            log.warning(
                "data: %s: its directory leaves out images before its first member, at byte %s, such as %s: was a "
                "broken zip joined to it by cat? · copy both again",
                *(printable(str(path)), f"{first:,}", shown(name)),
            )
            return


def _lists_images(directory: bytes) -> bool:
    """Return whether a central directory has the name of an image (PKWARE APPNOTE 4.3.12)."""
    at = 0
    while directory[at : at + 4] == b"PK\x01\x02" and at + 46 <= len(directory):
        name, extra, comment = struct.unpack_from("<HHH", directory, at + 28)
        if is_image(directory[at + 46 : at + 46 + name].decode("utf-8", "replace")):
            return True
        at += 46 + name + extra + comment
    return False


def _utf8_name(info: zipfile.ZipInfo) -> str:
    """Return the member's name.

    macOS and other systems write UTF-8 without the flag for it; zipfile then decodes code page 437.
    """
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
