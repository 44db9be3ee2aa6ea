"""Small files of strangers: what is refused before it is read, and JSON of a declared form."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from sphereface.errors import UserError
from sphereface.options import option
from sphereface.small_files import check_replaceable, is_file, parse_form, read_form, read_json, read_text, reason


@dataclass(frozen=True)
class Part:
    size: int = option(low=1, high=9)


@dataclass(frozen=True)
class Form:
    name: str = option()
    share: float = option(above=0, high=1)
    whole: bool = option(False)
    parts: tuple[Part, ...] = option(())
    least: float | None = option(None, low=0)


def test_a_form_is_filled(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"name": "ü", "share": 1, "parts": [{"size": 2}], "least": null}', encoding="utf-8")
    assert read_form(path, Form) == Form("ü", 1.0, False, (Part(2),), None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": 3}, "name: got 3 · allowed: a text"),
        ({"name": None}, "name: got None · allowed: a text"),
        ({"name": "a\0b"}, r"name: got 'a\\x00b' · allowed: a text"),
        ({"share": "0.5"}, "share: got '0.5' · allowed: a number above 0 and at most 1"),
        ({"share": True}, "share: got True · allowed"),
        ({"share": float("nan")}, "share: got nan · allowed"),
        ({"share": float("inf")}, "share: got inf · allowed"),
        ({"share": 0}, "share: got 0 · allowed"),
        ({"share": 10**400}, "share: got 1000.* · allowed"),
        ({"whole": 1}, "whole: got 1 · allowed: true or false"),
        ({"whole": "true"}, "whole: got 'true' · allowed: true or false"),
        ({"least": -1}, "least: got -1 · allowed: a number of at least 0 or null"),
        ({"parts": {}}, "parts: got {} · allowed: a list of mappings"),
        ({"parts": "ab"}, "parts: got 'ab' · allowed: a list of mappings"),
        ({"parts": [3]}, r"parts\[0\]: got 3 · allowed: a mapping"),
        ({"parts": [{"size": 1}, {"size": 1.5}]}, r"parts\[1\].size: got 1.5 · allowed: an integer from 1 to 9"),
        ({"parts": [{}]}, r"parts\[0\].size: missing"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_a_value_of_another_form_is_one_line(tmp_path, change, problem):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"name": "a", "share": 0.5, **change}))
    with pytest.raises(ValueError, match=f"^{problem}") as raised:
        read_form(path, Form)
    assert len(str(raised.value)) < 400


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="name: missing · allowed: a text"):
        parse_form({"share": 1}, Form)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' occurs twice"),
        (b"[]", r"got \[\] · allowed: an object"),
        (b"3", "got 3"),
        (b"", "Expecting value"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "digits"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 7"),
    ],
)
def test_what_is_no_such_json_is_one_line(tmp_path, data, problem):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=".") as raised:
        read_json(path)
    assert re.match(rf".*{problem}.*\Z", reason(raised.value))  # on one line
    assert len(reason(raised.value)) <= 200


def test_a_large_file_is_not_read_whole(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(1 << 36)  # a hole: it takes no space, and would take 64 GiB of memory
    with pytest.raises(ValueError, match="more than 16,777,216 bytes"):
        read_json(path)
    path.write_bytes(b"ab")
    assert read_text(path, most=2) == "ab"
    with pytest.raises(ValueError, match="more than 1 bytes"):
        read_text(path, most=1)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")  # a read would wait for a writer
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file|directory"):
            read_text(path)
        assert not is_file(path)
    assert not is_file(tmp_path / ("n" * 300))


def test_what_may_be_replaced(tmp_path):
    path = tmp_path / "x.bin"
    for missing in (path, tmp_path / "no" / "x.bin"):
        check_replaceable(missing, b"mark", "--output")
    for data in (b"", b"mark", b"before" * 5000 + b"mark"):
        path.write_bytes(data)
        check_replaceable(path, b"mark", "--output")
    check_replaceable(path / "below", b"mark", "--output")
    path.write_bytes(b"mar k")
    with pytest.raises(UserError, match=r"--output: got .*x\.bin, a file that this command did not write · allowed: a"):
        check_replaceable(path, b"mark", "--output")
    with pytest.raises(UserError, match=r"--output: .* cannot be written \(Is a directory\) · give another name"):
        check_replaceable(tmp_path, b"mark", "--output")
