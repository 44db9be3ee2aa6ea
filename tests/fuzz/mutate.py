"""Damage a file: single bytes, lengths and counts, whole runs, lines and tokens of a text, leaves of a container."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from .containers import replace_leaf

_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_RUNS = (b"\0" * 8, b"\xff" * 8, b"\n", b"\r\n", b"[" * 10_000, b"A" * 5_000, b"\xef\xbb\xbf", b"\x1b[2J", b"PK\3\4")
_TEXT_SUFFIXES = frozenset({".txt", ".csv", ".json", ".yaml", ".lst", ".idx", ".property", ".names", ".tsv", ".jsonl"})
_TOKENS = (
    *("nan", "inf", "-inf", "-1", "0", "1e999", "0x10", "1_000", "010", "²", "١", "1" * 5_000, "9" * 19, "-0.0"),
    *("", "a" * 300, "a" * 100_000, "../../x", "/x", "C:\\x", "a\0b", "a\x1b[31mb", "\ufeff", "\udc80", ".", "..", "~"),
    *("null", "true", "[]", "{}", "[" * 10_000, "{a: " * 300, "&a [*a]", "!!python/object:os.system {}", "2:30"),
    *("a/" * 3_000, "a b", "a\tb", "a,b", '"', "'", "#", "%s", "{0}", "\u2028", "e\u0301", "COM1", "-"),
)  # fmt: skip
_TOKEN = re.compile(r"[^\s,;:\[\]{}\"']+")


def mutated(path: Path, others: Sequence[Path], random: Random) -> bytes:
    """Return the content of a valid file with one to four mutations."""
    data = path.read_bytes()
    if random.random() < 0.5 and (changed := replace_leaf(path, data, random)) is not None:
        return changed
    for _ in range(random.choice((1, 1, 1, 2, 2, 4))):
        if path.suffix in _TEXT_SUFFIXES and random.random() < 0.7:
            data = random.choice(_OF_TEXTS)(data, random)
        else:
            data = _of_bytes(data, others, random)
    return _repaired(data) if random.random() < 0.5 else data


def _of_bytes(data: bytes, others: Sequence[Path], random: Random) -> bytes:
    if random.random() < 0.1:
        return _spliced(data, random.choice(others).read_bytes(), random)
    return random.choice(_OF_BYTES)(data, random)


def _span(data: bytes, random: Random) -> slice:
    start = random.randint(0, len(data))
    return slice(start, min(len(data), start + random.choice((1, 2, 4, 8, 64, len(data)))))


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return b"\0"
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.choice((0, 1, len(data) - 1, len(data) // 2, random.randint(0, len(data))))]


def _remove(data: bytes, random: Random) -> bytes:
    span = _span(data, random)
    return data[: span.start] + data[span.stop :]


def _repeat(data: bytes, random: Random) -> bytes:
    span = _span(data, random)
    return data[: span.start] + data[span] * random.choice((2, 3, 100)) + data[span.stop :]


def _insert(data: bytes, random: Random) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + random.choice(_RUNS) + data[at:]


def _number(data: bytes, random: Random) -> bytes:
    """Write a number over what may be a length, a count or an offset."""
    code = random.choice(["<B", ">H", "<H", ">I", "<I", "<I", ">I", "<Q", "<Q", "<d", "<f"])
    at = random.randint(0, max(0, min(len(data), random.choice((64, len(data)))) - struct.calcsize(code)))
    value = random.choice((*_NUMBERS, len(data), len(data) - 1, len(data) + 1))
    size = struct.calcsize(code)
    if code[1] in "fd":
        packed = struct.pack(code, random.choice((float("nan"), float("inf"), -1.0, 1e30, -0.0)))
    else:
        packed = struct.pack(code, value % 256**size)
    return data[:at] + packed + data[at + size :]


def _spliced(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


def _changed_text(change: Callable[[str, Random], str]) -> Callable[[bytes, Random], bytes]:
    def changed(data: bytes, random: Random) -> bytes:
        return change(data.decode("utf-8", "surrogateescape"), random).encode("utf-8", "surrogatepass")

    return changed


def _token(text: str, random: Random) -> str:
    found = list(_TOKEN.finditer(text))
    if not found:
        return random.choice(_TOKENS)
    token = random.choice(found)
    return text[: token.start()] + random.choice(_TOKENS) + text[token.end() :]


def _swapped_tokens(text: str, random: Random) -> str:
    found = [token.group() for token in _TOKEN.finditer(text)] or [""]
    one, other = random.choice(found), random.choice(found)
    return text.replace(one, other, random.choice((1, -1))) if one else text


def _line(text: str, random: Random) -> str:
    """Remove, repeat, empty, join or exchange lines."""
    lines = text.split("\n")
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines[at:at] = [lines[at]] * random.choice((1, 2, 1_000))
    elif kind == 2:
        lines[at] = random.choice(("", " ", "\t", "\t\t", "#"))
    elif kind == 3:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 4:
        return random.choice(("\r\n", "\r", "\x85", "\x0b", "\n\n")).join(lines)
    else:
        lines[at] = random.choice(("\t", " ", ",")).join([lines[at]] * random.choice((2, 50)))
    return "\n".join(lines)


def _recoded(data: bytes, random: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(random.choice(("utf-16", "utf-16-be", "utf-32", "utf-8-sig", "utf-7")))


def _repaired(data: bytes) -> bytes:
    """Set the checksums of a PNG right again, so that a mutation reaches what is behind them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        length = struct.unpack_from(">I", out, at)[0]
        if at + 12 + length > len(out):
            break
        struct.pack_into(">I", out, at + 8 + length, zlib.crc32(out[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(out)


_OF_BYTES = (_flip, _cut, _remove, _repeat, _insert, _number, _number)
_OF_TEXTS = (
    _changed_text(_token),
    _changed_text(_token),
    _changed_text(_swapped_tokens),
    _changed_text(_line),
    _recoded,
)
