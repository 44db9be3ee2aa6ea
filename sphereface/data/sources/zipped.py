"""Read images inside a zip without extracting files."""

from __future__ import annotations

import logging
import posixpath
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import UserError, count_of, printable, shown
from ..disk_reads import DISK
from ..mapped import MappedFile
from ..walking import NO_FILE, OWN_FILES, Walked, is_image, kind_of_file, log_left_out, nfc
from .base import Encoded, Labelled, TextTable, read_one
from .grouping import by_folder, log_across
from .listing import LIST_SUFFIXES, read_listing
from .zip_lists import end_of, find_list, first_lines, member_for, without_captions
from .zip_members import LOCAL, is_special, zip_members

log = logging.getLogger(__name__)

_HEAD = 512  # bytes that nearly always contain the header of a member
_PLACE = np.dtype("i8, u4, u4, u4, ?")  # offset of the header, packed size, size, CRC, deflated
_ENCRYPTED = 0x1
_MAX_IMAGE = 2**26  # bytes; a larger member is not a face crop
_LIST_LINE = 100  # bytes of a list's line besides the image name: label, folders above, blanks
_LIST_REST = 2**16  # bytes of a list besides its lines
_FIRST = 2**14  # bytes that contain the first lines of a list
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipSource(Labelled):
    """A zip of folders (``…/<identity>/…/<image>``), or of images and one list (``path label``).

    As in a folder, classes and images are sorted by name, and files of operating systems are
    ignored. The first folder below the common one is the identity of every image below it. Members
    are checked by their CRC. Memory: the name and 29 bytes an image, about 1000 while opening.

    Args:
        path: the zip; members stored or deflated.

    Raises:
        UserError: the file is not a zip, is truncated or encrypted; a member's name leads out of
            it; there are no images.
    """

    mapped = True

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = MappedFile(self.path)
        found = zip_members(self.path)
        special = [name for name, info in found.items() if is_special(info)]
        members = {name: info for name, info in found.items() if not is_special(info)}
        images = {name: info for name, info in members.items() if is_image(name)}
        texts = without_captions(
            {name: info for name, info in members.items() if name.lower().endswith(LIST_SUFFIXES)}, images
        )
        self._check(images, texts, special)
        self._longest_list = _LIST_REST + sum(4 * len(name) + _LIST_LINE for name in members)
        whole = sum(info.file_size for info in texts.values()) <= self._longest_list
        composed = {nfc(name): name for name in members}  # the list may have é in another form
        lines = {name: self._first_lines(info, whole=whole) for name, info in texts.items()}
        listing = find_list(self.path, lines, images, composed)
        names = self._listed(listing, members, composed, special) if listing else self._grouped(members, special)
        infos = [members[name] for name in names]
        self._names = TextTable(names)
        self._places = np.array(list(map(_place, infos)), dtype=_PLACE)

    def read(self, index: int) -> bytes:
        offset, packed, size, crc, deflated = self._places[index].item()
        return _unpacked(self._packed_bytes(offset, packed, size, _MAX_IMAGE), size, crc, deflated=deflated)

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        """Return an iterator over images, each read when it is requested."""
        rows = np.asarray(indices, dtype=np.int64)
        for start, size, *_ in self._places[rows].tolist() if DISK.expected() else ():
            self._file.announce(start, min(_HEAD + size, _MAX_IMAGE))
        return map(partial(read_one, self), indices)

    def name(self, index: int) -> str:
        return printable(f"{self.path}/{self._names[index]}")

    def _packed_bytes(self, offset: int, packed: int, size: int, limit: int) -> bytes:
        if max(size, packed) > limit:
            raise OSError(f"{size:,} bytes, allowed: at most {limit:,}")
        buffer = self._file.view()
        if not 0 <= offset <= len(buffer) - LOCAL.size:
            raise OSError(f"the zip ends before it, at byte {len(buffer)}")
        signature, name_length, extra_length = LOCAL.unpack_from(buffer, offset)
        if signature != b"PK\x03\x04":
            raise OSError("damaged zip: no member begins at the place in its directory")
        start = offset + LOCAL.size + name_length + extra_length
        return buffer[start : start + packed]

    def _check(
        self, images: dict[str, zipfile.ZipInfo], texts: dict[str, zipfile.ZipInfo], special: Sequence[str]
    ) -> None:
        if not images:
            links = f", and {count_of(len(special), 'link or device', 'links or devices')}" if special else ""
            remedy = " · pack it again without zip -y" if special else ""
            allowed = f"<identity>/<image>, or images and a list{remedy}"
            raise UserError(f"{self.path}: got no images{links} · allowed: {allowed}")
        for name, info in (*images.items(), *texts.items()):
            if info.flag_bits & _ENCRYPTED:
                raise UserError(f"{self.path}: {name} is encrypted · allowed: a zip without password · pack it again")
            if info.compress_type not in _METHODS:
                raise UserError(
                    f"{self.path}: {name} is compressed by method {info.compress_type} · allowed: 0 (stored) and "
                    "8 (deflate) · pack it again, for example with zip -0 -r"
                )

    def _first_lines(self, info: zipfile.ZipInfo, *, whole: bool) -> list[str]:
        """Return the first lines of a text.

        Args:
            info: the text.
            whole: read all of it, to find any damage, not only its beginning.

        Raises:
            UserError: it is damaged. It may be the list, and without the list the labels would
                differ.
        """
        return first_lines(self._text(info) if whole else self._start(info))

    def _start(self, info: zipfile.ZipInfo) -> bytes:
        """Return a part of a member that contains its first lines."""
        try:
            start = self._packed_bytes(info.header_offset, min(info.compress_size, _FIRST), 0, _FIRST)
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(start, _FIRST) if deflated else start
        except (OSError, zlib.error) as error:
            raise UserError(f"{self.path}: {printable(info.filename)}: damaged zip: {error}") from error

    def _text(self, info: zipfile.ZipInfo) -> bytes:
        try:
            packed = self._packed_bytes(info.header_offset, info.compress_size, info.file_size, self._longest_list)
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            return _unpacked(packed, info.file_size, info.CRC, deflated=deflated)
        except OSError as error:
            raise UserError(f"{self.path}: {printable(info.filename)}: {error}") from error

    def _listed(
        self,
        name: str,
        members: Mapping[str, zipfile.ZipInfo],
        composed: Mapping[str, str],
        special: Sequence[str],
    ) -> list[str]:
        paths, grouped = read_listing(self._text(members[name]), f"{self.path}/{name}")
        below = [member_for(name, path) for path in paths]
        names = [path if path in members else composed.get(nfc(path), "") for path in below]
        for found, given, path in zip(names, paths, below, strict=True):
            if not found:
                if nfc(path) in map(nfc, special):
                    raise UserError(
                        f"{self.path}: {printable(name)} lists {shown(given)}, which is a link or a device · allowed: "
                        "images · pack the zip without zip -y, which stores links, or correct the list"
                    )
                place = "" if path == given else f" as {shown(path)}"
                like = next((member for member in members if is_image(member) and end_of(member) == end_of(path)), None)
                place = f", but {shown(like)} is" if like and not place else place
                raise UserError(
                    f"{self.path}: {printable(name)} lists {shown(given)}, which is not in the zip{place} · allowed: "
                    "paths relative to the list's folder, with the same suffix and upper case · pack the zip whole, "
                    "correct the list, or take it out"
                )
        if rest := sorted({member for member in members if is_image(member)} - set(names)):
            such = (len(rest), len(rest) + len(set(names)), printable(rest[0]))
            log.warning("data: %s: %s does not list %d of %d images, such as %s", self.path, printable(name), *such)
        self.labels, self.class_names, self.named = grouped.labels, grouped.class_names, grouped.named
        identities = count_of(len(self.class_names), "identity", "identities")
        log.info("data: %s: reads %s as its list: %s", self.path, printable(name), identities)
        log_across(names, grouped, printable(f"{self.path}/{name}"), "take this list out of the zip")
        return names

    def _grouped(self, members: Mapping[str, zipfile.ZipInfo], special: Sequence[str]) -> list[str]:
        """Group the images by identity, the first folder below the common one, as in a folder."""
        images = [name for name in members if is_image(name)]
        grouped, loose, deeper = by_folder(images)
        rest = [name for name in members if not is_image(name) and posixpath.basename(name) not in OWN_FILES]
        others = Counter([*map(kind_of_file, rest), *(NO_FILE for _ in special)])
        log_left_out(Walked(self.path, skipped=others), loose=loose, num_deeper=deeper)
        self.labels, self.class_names, self.named = grouped.labels, grouped.class_names, grouped.named
        return [images[row] for row in grouped.rows.tolist()]


def _place(info: zipfile.ZipInfo) -> tuple[int, int, int, int, bool]:
    packed, size = (min(size, 2**32 - 1) for size in (info.compress_size, info.file_size))
    return info.header_offset, packed, size, info.CRC, info.compress_type == zipfile.ZIP_DEFLATED


def _unpacked(packed: bytes, size: int, crc: int, *, deflated: bool) -> bytes:
    """Return the member's bytes, never more than it announces.

    Raises:
        OSError: its length or CRC is wrong.
    """
    data = packed
    if deflated:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
        except zlib.error as error:
            raise OSError(f"damaged zip: {error}") from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise OSError("damaged zip: the member's length or CRC differs from its directory")
    return data
