from __future__ import annotations

import os

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.image_list import ImageList, list_named


@pytest.fixture
def album(tmp_path):
    for name in ("a/b.jpg", "a/c.jpg", "d.jpg"):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "album" / name).write_bytes(name.encode())
    return tmp_path / "album"


def listed(album, *lines):
    (album / "list.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return list_named(album / "list.txt")


def test_lines_that_repeat_an_image_are_counted_and_keep_their_rows(album):
    (album.parent / "link").symlink_to(album)
    ways = ["./a/b.jpg", "a//b.jpg", "a/../a/b.jpg", str(album / "a/b.jpg"), str(album.parent / "link/a/b.jpg")]
    found = listed(album, "a/b.jpg", "d.jpg", *ways, "a/c.jpg", "d.jpg")
    assert list(found.names) == ["a/b.jpg", "d.jpg", *ways, "a/c.jpg", "d.jpg"]
    expected = [b"a/b.jpg", b"d.jpg", *[b"a/b.jpg"] * 5, b"a/c.jpg", b"d.jpg"]
    assert [image.read_bytes() for image in found.images] == expected
    assert found.not_read == "6 lines repeat an image of an earlier line, such as ./a/b.jpg: each line has a row"
    assert listed(album, "d.jpg", "a/c.jpg").not_read == ""


def test_folders_without_an_image_are_told_beside_files_that_are_not_read(album):
    """A copy that stopped, or a disk that is not mounted: at the top only, as training counts them."""
    assert list_named(album).not_read == ""
    (album / "a/raw").mkdir()
    for name in ("cleo", "ben"):
        (album / name).mkdir()
    assert list_named(album).not_read == "folders without an image: 2, such as ben"
    (album / "ben/1.xyz").write_bytes(b"x")
    assert list_named(album).not_read.startswith(
        "folders without an image: 2, such as ben; 1 file was not read: 1 .xyz · images are "
    )


def test_links_to_one_image_are_images_of_their_own(album):
    (album / "e.jpg").symlink_to("d.jpg")
    os.link(album / "d.jpg", album / "f.jpg")
    assert list(listed(album, "d.jpg", "e.jpg", "f.jpg").names) == ["d.jpg", "e.jpg", "f.jpg"]


def test_a_list_may_have_quotes(album):
    assert list(listed(album, '"a/b.jpg"', '"d.jpg"').names) == ["a/b.jpg", "d.jpg"]
    with pytest.raises(UserError, match=r"list.txt: 1 of 2 lines name no file: '\"x\" \"d.jpg\"' · allowed: the path"):
        listed(album, "d.jpg", '"x" "d.jpg"')


def test_stamps_follow_the_content_of_images_of_one_size_and_time(album):
    """Of copies they are equal, so galleries are, too."""
    for name, data in (("x.bmp", b"1" * 999), ("y.bmp", b"1" * 500 + b"2" * 499), ("z.bmp", b"1" * 999)):
        (album / name).write_bytes(data)
        os.utime(album / name, ns=(10**18, 10**18))
    x, y, z = listed(album, "x.bmp", "y.bmp", "z.bmp").stamps().tolist()
    assert x == z
    assert (x[0], x[1] != y[1], y[0]) == (999, True, 999)
    (album / "x.bmp").unlink()
    (album / "x.bmp").mkdir()
    assert ImageList(album, album, ["x.bmp", "gone"], [album / "x.bmp", album / "gone"]).stamps()[1].tolist() == [
        -1,
        -1,
    ]


@pytest.mark.parametrize("seconds", [9_467_000_000, -1, -9_467_000_000])
def test_stamps_hold_any_time(album, seconds):
    image = album / "a/b.jpg"
    os.utime(image, (seconds, seconds))
    stamps = list_named(album).stamps()
    assert stamps.dtype == np.int64
    assert stamps[0, 0] == image.stat().st_size
    before = stamps.copy()
    os.utime(image, (5, 5))
    assert (list_named(album).stamps()[0] != before[0]).any()
