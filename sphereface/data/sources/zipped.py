"""Pictures inside a zip, read where they stand: nothing is extracted."""

from __future__ import annotations

import logging
import posixpath
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..mapped import MappedFile
from .base import TextTable, nfc, printable
from .folder import is_picture
from .listing import Listing, parse_list

log = logging.getLogger(__name__)

_LOCAL = struct.Struct("<4s22xHH")  # PKWARE APPNOTE 4.3.7: signature … length of name, length of extra field
_ENCRYPTED = 0x1
_MAX_PICTURE = 2**26  # bytes; what says it is larger is no face crop
_MAX_LIST = 2**30
_FIRST = 2**14  # bytes that hold the first line of a list
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipSource:
    """A zip of folders (``…/<identity>/<picture>``) or of pictures and one list file (``path label`` a line).

    As in a folder, classes and pictures are sorted by name, and names that start with a dot are passed over, as is
    macOS's ``__MACOSX``. The identity is the path of a picture's folder below what all have in common.
    Members are checked against their CRC. Memory: the name and 29 bytes a picture, about 1000 while opening.

    Args:
        path: the zip; members stored or deflated.

    Raises:
        UserError: no zip, a truncated or an encrypted one; a member's name leads out of it; no pictures.
    """

    mapped = True

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = MappedFile(self.path)
        members = _members(self.path)
        pictures = {name: info for name, info in members.items() if is_picture(name)}
        self._check(pictures)
        lists = [name for name in members if name.lower().endswith(".txt") and self._is_list(name, members)]
        if len(lists) > 1:
            raise UserError(f"{self.path}: got {len(lists)} list files ({', '.join(lists[:3])}) · allowed: one")
        names = self._listed(lists[0], members) if lists else self._grouped(pictures)
        infos = [members[name] for name in names]
        self._names = TextTable(names)
        self._offsets = np.array([info.header_offset for info in infos], dtype=np.int64)
        self._packed = np.array([min(info.compress_size, 2**32 - 1) for info in infos], dtype=np.uint32)
        self._sizes = np.array([min(info.file_size, 2**32 - 1) for info in infos], dtype=np.uint32)
        self._crcs = np.array([info.CRC for info in infos], dtype=np.uint32)
        self._deflated = np.array([info.compress_type == zipfile.ZIP_DEFLATED for info in infos])

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        size = int(self._sizes[index])
        packed = self._packed_bytes(int(self._offsets[index]), int(self._packed[index]), size, _MAX_PICTURE)
        return _unpacked(packed, size, int(self._crcs[index]), deflated=bool(self._deflated[index]))

    def name(self, index: int) -> str:
        return printable(f"{self.path}/{self._names[index]}")

    def _packed_bytes(self, offset: int, packed: int, size: int, limit: int) -> bytes:
        if max(size, packed) > limit:
            raise OSError(f"{size:,} bytes where at most {limit:,} are allowed")
        buffer = self._file.view()
        if offset + _LOCAL.size > len(buffer):
            raise OSError(f"the zip ends before it, at byte {len(buffer)}")
        signature, name_length, extra_length = _LOCAL.unpack_from(buffer, offset)
        if signature != b"PK\x03\x04":
            raise OSError("damaged zip: no member begins where its directory says")
        start = offset + _LOCAL.size + name_length + extra_length
        return buffer[start : start + packed]

    def _check(self, pictures: dict[str, zipfile.ZipInfo]) -> None:
        if not pictures:
            raise UserError(f"{self.path}: got no pictures · allowed: <identity>/<picture>, or pictures and a list")
        for name, info in pictures.items():
            if info.flag_bits & _ENCRYPTED:
                raise UserError(f"{self.path}: {name} is encrypted · allowed: a zip without password: pack it anew")
            if info.compress_type not in _METHODS:
                raise UserError(
                    f"{self.path}: {name} is compressed by method {info.compress_type} · allowed: 0 (stored) and "
                    "8 (deflate): pack it anew, for example with zip -0 -r"
                )

    def _is_list(self, name: str, members: dict[str, zipfile.ZipInfo]) -> bool:
        """Whether its first line names a member: a text beside folders of pictures mostly does not."""
        info = members[name]
        try:
            start = self._packed_bytes(info.header_offset, min(info.compress_size, _FIRST), 0, _FIRST)
            if info.compress_type == zipfile.ZIP_DEFLATED:
                start = zlib.decompressobj(-zlib.MAX_WBITS).decompress(start, _FIRST)
            (path,), _ = parse_list(start.lstrip(b"\xef\xbb\xbf \r\n").partition(b"\n")[0], name)
        except (UserError, OSError, zlib.error):
            return False
        return _below(name, path) in members

    def _text(self, info: zipfile.ZipInfo) -> bytes:
        try:
            packed = self._packed_bytes(info.header_offset, info.compress_size, info.file_size, _MAX_LIST)
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            return _unpacked(packed, info.file_size, info.CRC, deflated=deflated)
        except OSError as error:
            raise UserError(f"{self.path}: {info.filename}: {error}") from error

    def _listed(self, name: str, members: dict[str, zipfile.ZipInfo]) -> list[str]:
        listing = Listing(self._text(members[name]), f"{self.path}/{name}")
        names = [_below(name, path) for path in listing.paths]
        for path in names:
            if path not in members:
                raise UserError(f"{self.path}: {name} lists {path!r}, which is not in the zip · pack it whole")
        self.labels, self.class_names, self.named = listing.labels, listing.class_names, listing.named
        return names

    def _grouped(self, pictures: dict[str, zipfile.ZipInfo]) -> list[str]:
        folders = {posixpath.dirname(name) for name in pictures}
        above = {parent for folder in folders for parent in _parents(folder)}
        loose = [name for name in pictures if posixpath.dirname(name) in above or "/" not in name]
        if loose:
            log.info("data: %s: passed over %d pictures that lie in no identity's folder", self.path, len(loose))
        root = posixpath.commonpath([f"/{posixpath.dirname(folder)}" for folder in folders - above - {""}] or ["/"])
        by_identity: dict[str, list[str]] = {}
        for name in pictures.keys() - set(loose):
            identity = posixpath.relpath(f"/{posixpath.dirname(name)}", root)
            by_identity.setdefault(nfc(identity), []).append(name)
        self.class_names = sorted(by_identity)
        self.named = True
        counts = [len(by_identity[name]) for name in self.class_names]
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return [name for each in self.class_names for name in sorted(by_identity[each], key=lambda n: (nfc(n), n))]


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by name.

    Raises:
        UserError: no zip, or a name that leads out of it.
    """
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise UserError(f"{path}: no whole zip ({error}) · copy it again, or test it with: unzip -t") from error
    members = {}
    for info in infos:
        name = _utf8_name(info).replace("\\", "/")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
            raise UserError(f"{path}: got a member {printable(name)!r} · allowed: names that stay inside the zip")
        parts = [part for part in parts if part != "."]
        if not any(part.startswith(".") for part in parts) and "__MACOSX" not in parts and parts[-1]:
            members["/".join(parts)] = info
    return members


def _utf8_name(info: zipfile.ZipInfo) -> str:
    """The member's name. macOS and others write UTF-8 without saying so; then it is read as code page 437 at first."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _unpacked(packed: bytes, size: int, crc: int, *, deflated: bool) -> bytes:
    """The member's bytes; never more than it announces. Raises OSError where it does not hold what it says."""
    data = packed
    if deflated:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
        except zlib.error as error:
            raise OSError(f"damaged zip: {error}") from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise OSError("damaged zip: the member's length or CRC is not what its directory says")
    return data


def _below(list_name: str, path: str) -> str:
    """The member that a list in the zip means: its paths are relative to the list's own folder."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(list_name), path))


def _parents(folder: str) -> list[str]:
    """All folders above one, but the top: 'a/b/c' → 'a/b', 'a'."""
    parts = folder.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
