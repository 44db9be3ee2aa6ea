"""The text of an .idx: lines of one length are read by columns, others by numpy, with one result."""

from __future__ import annotations

import random

import pytest

from sphereface.data import record_index
from sphereface.data.record_index import in_threads, read_index
from sphereface.errors import UserError


def write(path, pairs, form="{}\t{}\n"):
    path.write_text("".join(form.format(*pair) for pair in pairs))
    return path


@pytest.mark.parametrize("digits", [(1, 1), (1, 18), (18, 1), (7, 11), (18, 18)])
@pytest.mark.parametrize("block", [100, 1 << 20])
@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_of_one_length_are_read_by_columns(tmp_path, monkeypatch, digits, block, end):
    draw = random.Random(str(digits))
    keys, offsets = (
        draw.sample(range(10 ** (width - 1) if width > 1 else 0, 10**width), 9 if width == 1 else 200)
        for width in digits
    )
    pairs = list(zip(keys, offsets, strict=False))
    monkeypatch.setattr(record_index, "_BLOCK", block)
    read_numbers, others = record_index._read_numbers, []
    monkeypatch.setattr(record_index, "_read_numbers", lambda *given: others.append(given[0]) or read_numbers(*given))
    path = write(tmp_path / "a.idx", pairs)
    path.write_text(path.read_text().rstrip("\n") + end)
    found = read_index(path)
    assert list(zip(*(numbers.tolist() for numbers in found), strict=True)) == pairs
    assert len(others) == (0 if end else 1)  # a last line without an end is of another length


@pytest.mark.parametrize("form", ["{}\t{}\r\n", "{} {}\n", "{}\t{} \n", "0{}\t{}\n", "+{}\t{}\n", "{}\t\t{}\n"])
def test_other_forms_of_lines_are_read_too(tmp_path, form):
    pairs = [(key, 4 * key) for key in range(30, 90)]
    found = read_index(write(tmp_path / "a.idx", pairs, form))
    assert list(zip(*(numbers.tolist() for numbers in found), strict=True)) == pairs


@pytest.mark.parametrize("line", ["47:188", "47\t1:8", "4/\t188", "\t47188", "4\t7\t88", "47\t1\n8", "471888"])
@pytest.mark.parametrize("place", [0, 17, 59])
def test_a_wrong_line_among_lines_of_its_length_is_refused(tmp_path, line, place):
    lines = [f"{key}\t{4 * key}" for key in range(30, 90)]
    assert len(line) == len(lines[17])
    lines[place] = line
    (tmp_path / "a.idx").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"a.idx: not an index"):
        read_index(tmp_path / "a.idx")


def test_numbers_at_and_beyond_the_end_of_int64(tmp_path):
    """numpy reads the greatest number instead of a greater one; such an offset is refused later."""
    for digits in (2**63 - 1, 2**63, 10**19 - 1):
        (tmp_path / "a.idx").write_text(f"0\t{digits}\n1\t{10**18}\n")
        assert read_index(tmp_path / "a.idx")[1].tolist() == [2**63 - 1, 10**18]
        (tmp_path / "a.idx").write_text(f"{digits}\t0\n{10**18}\t4\n")
        assert read_index(tmp_path / "a.idx")[0].tolist() == [2**63 - 1, 10**18]


def test_a_last_line_without_end_that_is_one_character_longer(tmp_path):
    """The text is then as long as lines of the first length."""
    (tmp_path / "a.idx").write_text("1\t2\n3\t45")
    keys, offsets = read_index(tmp_path / "a.idx")
    assert (keys.tolist(), offsets.tolist()) == ([1, 3], [2, 45])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([0, 1, 1, 3], "the key 1 occurs twice"),
        ([3, 2, 2, 0], "the key 2 occurs twice"),
        ([0, 0, 1, 5], "the key 0 occurs twice"),
        ([-1, 0, 1, 3], "got the key -1"),
        ([-1, 0, 1, 2], "got the key -1"),
        ([3, 0, 1, -2], "got the key -2"),
    ],
)
def test_keys_that_repeat_or_are_negative(tmp_path, keys, message):
    path = write(tmp_path / "a.idx", [(key, 40 * row) for row, key in enumerate(keys)])
    with pytest.raises(UserError, match=message):
        read_index(path)


def test_threads_keep_the_order_and_raise_the_first_error():
    assert in_threads(lambda number: number**2, range(50)) == [number**2 for number in range(50)]
    with pytest.raises(ValueError, match="^7$"):
        in_threads(lambda number: number if number < 7 else _fail(number), range(50))


def _fail(number: int) -> None:
    raise ValueError(number)
