from __future__ import annotations

import hashlib
import os
import random
from pathlib import PurePosixPath

import numpy as np
import pytest

from sphereface.alignment import landmarks
from sphereface.alignment.landmarks import likely_images, read_landmarks
from sphereface.errors import UserError

TEN = [float(number) for number in range(1, 11)]
FIVE_POINTS = np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]])
SPACES = " ".join(map(str, TEN))
TABS = "\t".join(map(str, TEN))


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "landmarks.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"a/b.jpg\t{TABS}", "a/b.jpg"),
        (f"a/b.jpg {SPACES}", "a/b.jpg"),
        (f"a/b.jpg   {SPACES}  ", "a/b.jpg"),
        (f"a b/c  d.jpg\t{TABS}", "a b/c  d.jpg"),
        (f"a b/c d.jpg\t{SPACES}", "a b/c d.jpg"),
        (f"é/ö.jpg\t{TABS}\r", "é/ö.jpg"),
        (f"\ufeffa/b.jpg\t{TABS}", "a/b.jpg"),
        (f'"a/b c.jpg"\t{TABS}', "a/b c.jpg"),
        (f'"a/b c.jpg" {SPACES}', "a/b c.jpg"),
        ('"a ""b"".jpg" ' + " ".join(f'"{number}"' for number in TEN), 'a "b".jpg'),
        (f"a/b c.jpg,{TABS.replace(chr(9), ',')}", "a/b c.jpg"),
        (f'"a, b.jpg",{TABS.replace(chr(9), ", ")}', "a, b.jpg"),
        (f'a"b.jpg\t{TABS}', 'a"b.jpg'),
        (f'"a.jpg {SPACES}', '"a.jpg'),
    ],
    ids=[
        *("tabs", "spaces", "more spaces", "name with spaces", "tab, then spaces", "CRLF", "byte order mark"),
        *(
            "quotes and tabs",
            "quotes and spaces",
            "quotes everywhere",
            "commas",
            "commas and quotes",
            "a quote inside",
            "one quote",
        ),
    ],
)
def test_one_line(write, line, name):
    table = read_landmarks(write(line + "\n\n"))
    assert list(table.points) == [name]
    assert np.array_equal(table.points[name], FIVE_POINTS)
    assert table.points[name].dtype == np.float64


def test_last_line_needs_no_newline_and_the_digest_is_the_files(write):
    path = write(f"a.jpg {SPACES}\nb.jpg {SPACES}")
    table = read_landmarks(path)
    assert list(table.points) == ["a.jpg", "b.jpg"]
    assert table.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            f"a.jpg {SPACES}\nb.jpg 1 2 3\n",
            r"landmarks\.txt, line 2: got 'b\.jpg 1 2 3', 3 numbers · allowed: .* ten numbers",
        ),
        (f"a.jpg {SPACES} 11 12\n", "line 1: got"),
        (f"a.jpg {SPACES} high\n", r"line 1: got .* eleven with the detector's score"),
        (
            f"a.jpg {SPACES} 0.9\n\nb.jpg {SPACES}\n",
            r"line 3: got 10 numbers, but 11 in line 1 · allowed: the detector's score .* in every line, or in none",
        ),
        (f"a.jpg {SPACES}\nb.jpg {SPACES} 0.9\n", "line 2: got 11 numbers, but 10 in line 1"),
        (f"\n\na.jpg {SPACES[:-4]}x\n", "line 3: got"),
        (f"a b.jpg {SPACES}\n", "line 1: .* a file name with spaces needs tabs"),
        (f"a.jpg\t{TABS}\nb.jpg\t{TABS}\na.jpg\t{TABS}\n", r"line 3: a second line for a\.jpg"),
        (f"{SPACES}\n", "line 1: got"),
        ("x" * 500, r"line 1: got 'x{59}…'"),
        ("\n\n", "contains no landmarks"),
        (b"\xff\xd8\xff\xe0", "not UTF-8 text"),
    ],
)
def test_malformed_files_name_line_and_content(write, content, message):
    with pytest.raises(UserError, match=message) as raised:
        read_landmarks(write(content))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("count", "told"),
    [(5, ", 5 numbers ·"), (136, r", 136 numbers \(68 points: .*mouth corners\) ·"), (212, "106 points")],
)
def test_files_of_another_number_of_points_are_told(write, count, told):
    with pytest.raises(UserError, match=f"line 1: got .*{told}"):
        read_landmarks(write("a.jpg " + " ".join(["3"] * count) + "\n"))


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "\r", "\r\r"])
def test_line_ends_of_old_macs(write, start, last):
    table = read_landmarks(write(f"{start}a.jpg {SPACES}\rb c.jpg\t{TABS}\r\rd.jpg {SPACES}{last}"))
    assert list(table.points) == ["a.jpg", "b c.jpg", "d.jpg"]
    for points in table.points.values():
        assert np.array_equal(points, FIVE_POINTS)
    with pytest.raises(UserError, match=r"line 2: got 'b\.jpg 1', 1 numbers"):
        read_landmarks(write(f"a.jpg {SPACES}\rb.jpg 1\r"))


def test_with_other_line_ends_a_name_may_contain_that_of_old_macs(write):
    assert list(read_landmarks(write(f"a\rb.jpg\t{TABS}\n")).points) == ["a\rb.jpg"]


HEADINGS = (
    "file\t" + "\t".join(f"{axis}{point}" for point in range(1, 6) for axis in "xy"),
    ",".join(["", "file", *(f"{axis}{point}" for point in range(1, 6) for axis in "xy")]),
    '"image" ' + " ".join(f'"V{number}"' for number in range(2, 12)),
    "image_id left.eye.x left.eye.y right.eye.x right.eye.y nose.x nose.y mouth.l.x mouth.l.y mouth.r.x mouth.r.y",
    # CelebA's, without a name for the files
    "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y",
)


@pytest.mark.parametrize("line", HEADINGS)
def test_a_line_of_column_names_is_named(write, line):
    advice = "· delete the line of column names"
    with pytest.raises(UserError, match=rf"line 1: got '.*' · allowed: .* the detector's score {advice}$"):
        read_landmarks(write(f"{line}\na.jpg {SPACES}\n"))
    with pytest.raises(UserError) as raised:  # further below it is something else
        read_landmarks(write(f"a.jpg\t{TABS}\n{line}\n"))
    assert advice not in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        f"a b.jpg {SPACES}",
        "a.jpg " + " ".join(["NA"] * 10),
        "a/b " + " ".join(["NA"] * 10),
        "a " + " ".join(["NA"] * 9) + " 5",
        "1 " + " ".join(["NA"] * 10),
        "a b c",
    ],
)
def test_other_lines_are_no_column_names(write, line):
    with pytest.raises(UserError, match="line 1: got .* a file name with spaces needs tabs"):
        read_landmarks(write(line))


def test_numbers_with_underscores_are_no_numbers(write):
    with pytest.raises(UserError, match="line 1: got 'a.jpg 1_0 "):
        read_landmarks(write("a.jpg " + " ".join(["1_0"] * 10)))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: not a regular file · allowed: a landmark file"):
        read_landmarks(tmp_path / "pipe")


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: No such file"):
        read_landmarks(tmp_path / "none.txt")


def test_scores_of_ijb_c_are_read_over(write):
    """Three lines in the form of ijbc_name_5pts_score.txt, of other numbers."""
    table = read_landmarks(
        write(
            "1.jpg 40.1 50.2 80.3 51.4 60.5 70.6 45.7 90.8 75.9 91.0 0.999512\n"
            "2.jpg 1 2 3 4 5 6 7 8 9 10 1\n"
            "10.jpg 30 40 50 40 40 50 32 60 48 60 -1\n"
        )
    )
    assert list(table.points) == ["1.jpg", "2.jpg", "10.jpg"]
    assert table.points["1.jpg"].tolist() == [[40.1, 50.2], [80.3, 51.4], [60.5, 70.6], [45.7, 90.8], [75.9, 91.0]]
    assert np.array_equal(table.points["2.jpg"], FIVE_POINTS)
    assert table.scores == {"1.jpg": 0.999512, "2.jpg": 1, "10.jpg": -1}
    assert table.points["10.jpg"].tolist() == [[30, 40], [50, 40], [40, 50], [32, 60], [48, 60]]


def test_a_score_changes_no_point(write):
    without = read_landmarks(write(f"a.jpg {SPACES}\nb.jpg {SPACES}\n"))
    scored = read_landmarks(write(f"a.jpg\t{TABS}\t0.5\nb.jpg\t{TABS}\t0.25\n"))
    assert list(without.points) == list(scored.points)
    for name, points in without.points.items():
        np.testing.assert_array_equal(scored.points[name], points)


def is_likely(name, image):
    """Return 2 for the same name in another suffix or case, 1 if one lies in more folders, else 0."""
    one, other = (PurePosixPath(each.lower()).with_suffix("").parts for each in (name, image))
    return 2 if one == other else int(one[-len(other) :] == other or other[-len(one) :] == one)


def test_likely_images_are_those_that_every_pair_gives():
    draw = random.Random(0)
    for _ in range(3000):
        some = ["".join(draw.choices(["a/", "b/", "A/"], k=draw.randrange(4))) + draw.choice("12X") for _ in range(9)]
        images = sorted({name + draw.choice([".jpg", ".png"]) for name in some[:5]})
        missing = {f"{name}.bmp" for name in some[5:]}
        wanted = {}
        for name in missing:
            pairs = [(is_likely(name, image), image) for image in images]
            best = [image for degree, image in pairs if degree and degree == max(pairs)[0]]
            wanted |= {name: best[0]} if len(best) == 1 else {}
        assert likely_images(missing, images) == wanted


def test_likely_images_of_many_lines_read_each_name_once(monkeypatch):
    """Each person has images of the same names, and the file has more people than the folder."""
    images, lines = ([f"{person}/{k}.jpg" for person in people for k in range(10)] for people in (range(30), "abcdef"))
    calls, stem = [], landmarks._stem
    monkeypatch.setattr(landmarks, "_stem", lambda name: calls.append(name) or stem(name))
    assert likely_images(lines, images) == {}
    assert sorted(calls) == sorted([*images, *lines])
