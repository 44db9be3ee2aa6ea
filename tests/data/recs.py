"""A writer of RecordIO that owes nothing to the package: every number put down by hand, as mxnet's headers say."""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"\x0a\x23\xd7\xce"


def image_record(label, number: int, image: bytes = b"") -> bytes:
    """flag, label, id, id2 and, for a list of labels, as many floats; then the image."""
    if isinstance(label, list):
        floats = b"".join(struct.pack("<f", value) for value in label)
        return struct.pack("<I", len(label)) + struct.pack("<f", 0) + struct.pack("<QQ", number, 0) + floats + image
    return struct.pack("<I", 0) + struct.pack("<f", label) + struct.pack("<QQ", number, 0) + image


def framed(content: bytes) -> bytes:
    """The parts of one record, looked for word by word."""
    cuts = [i for i in range(0, len(content) // 4 * 4, 4) if content[i : i + 4] == MAGIC]
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(content)]
    out = b""
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if not cuts:
            kind = 0
        elif number == 0:
            kind = 1
        elif number == len(cuts):
            kind = 3
        else:
            kind = 2
        out += MAGIC + struct.pack("<I", kind * 2**29 + end - start) + content[start:end]
    while len(out) % 4:
        out += b"\0"
    return out


def write_rec(path: Path, records: list[tuple[int, bytes]], *, index: bool = True) -> Path:
    """``path`` and its ``.idx`` from (key, content)."""
    data, lines = b"", ""
    for key, content in records:
        lines += f"{key}\t{len(data)}\n"
        data += framed(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if index:
        path.with_suffix(".idx").write_text(lines)
    return path


def insightface_records(people: list[list[bytes]], *, arrays: bool = False) -> list[tuple[int, bytes]]:
    """Images 1 … N, the header record with key 0, then an identity record each."""
    records, ranges, key = [], [], 1
    for label, images in enumerate(people):
        first = key
        for image in images:
            records.append((key, image_record([float(label), 0.0] if arrays else float(label), key, image)))
            key += 1
        ranges.append([float(first), float(key)])
    records.append((0, image_record([float(key), float(key + len(people))], 0)))
    return records + [(key + i, image_record(both, key + i)) for i, both in enumerate(ranges)]
