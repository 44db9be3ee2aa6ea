"""Text files of any system: the same lines, or one line that says why not. Every reader of text uses this."""

from __future__ import annotations

import os

import pytest

from sphereface.data.pair_lines import read_lines
from sphereface.data.text_files import open_text, read_text_lines, text_lines
from sphereface.errors import UserError
from sphereface.evaluation.columns import integer_blocks, lines_of
from sphereface.evaluation.ijb_subjects import read_template_subjects
from sphereface.evaluation.protocols.quality import read_quality

READERS = {
    "pairs": read_lines,
    "columns": lambda path: list(lines_of(path, "x")),
    "subjects": read_template_subjects,
    "quality": lambda path: read_quality(path, ["a"]),
    "blocks": lambda path: list(integer_blocks(path, "x")),
    "lines": lambda path: read_text_lines(path, "x", strict=True),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_of_any_system_are_the_same(tmp_path, end, mark):
    path = tmp_path / "x.txt"
    path.write_bytes((mark + end.join(["a b ", "", "\u2028é\x85\x0c", "c"]) + end).encode())
    lines = ["a b ", "", "\u2028é\x85\x0c", "c", ""]  # other signs that break lines belong to names
    assert read_text_lines(path, "x", strict=True) == lines
    with open_text(path) as file:
        assert [line.rstrip("\n") for line in file] == lines[:-1]
    assert [(line.number, line.text) for line in read_lines(path)] == [(1, "a b"), (3, "é"), (4, "c")]
    assert list(lines_of(path, "x")) == [(1, "a b"), (3, "é"), (4, "c")]


def test_what_is_no_text():
    with pytest.raises(UserError, match=r"^f, line 3: contains a NUL byte · allowed: UTF-8 text$"):
        text_lines(b"a\r\nb\rc\0\n", "f")
    with pytest.raises(
        UserError, match=r"^f: cannot be read as UTF-8 text \(byte 0xe9 in line 2\) · save it as UTF-8$"
    ):
        text_lines(b"a\ncaf\xe9\n", "f", strict=True)
    assert text_lines(b"a\ncaf\xe9", "f") == ["a", "caf\udce9"]  # as names of files have it
    for form in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(
            UserError, match=r"^f.*: (cannot be read as UTF-8 text \(it is UTF-16\)|contains a NUL byte)"
        ):
            text_lines("a b\n".encode(form), "f")


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices of POSIX")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "nothing", "long", "nul in name", "nul", "jpeg"])
def test_every_reader_ends_in_one_line(tmp_path, reader, kind):
    path = tmp_path / "x.txt"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind in ("nul", "jpeg"):
        path.write_bytes(b"1 2\n3 \0\n" if kind == "nul" else b"\xff\xd8\xff\xe0\x00\x10JFIF\n\0\1" * 9)
    else:
        path = {"nothing": path, "long": tmp_path / ("n" * 300), "nul in name": tmp_path / "a\0b"}[kind]
    with pytest.raises((UserError, ValueError) if reader == "blocks" else UserError) as error:
        READERS[reader](path)
    if isinstance(error.value, UserError):
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 700 + len(str(path))
    elif kind not in ("nul", "jpeg"):  # a line that is not made of numbers: the caller reads again, and names it
        pytest.fail(f"{error.value!r}")
