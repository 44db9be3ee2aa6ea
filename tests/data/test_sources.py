"""Folders of identities."""

from __future__ import annotations

import pytest

from sphereface.data.sources import FolderSource
from sphereface.errors import UserError

from ..pictures import make_training_set, picture, write


def test_classes_are_folders_sorted_by_name(tmp_path):
    for name in ("b", "a", "10", "9"):
        write(tmp_path / name / "1.png", picture(1, 1))
    write(tmp_path / "a" / "0.jpg", picture(1, 2))
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "pairs.txt").write_text("no folder")
    source = FolderSource(tmp_path)
    assert source.class_names == ["10", "9", "a", "b"]
    assert source.labels.tolist() == [0, 1, 2, 2, 3]
    assert [source.name(i).removeprefix(str(tmp_path)) for i in (2, 3)] == ["/a/0.jpg", "/a/1.png"]
    assert source.read(2) == (tmp_path / "a" / "0.jpg").read_bytes()


def test_exclude_and_min_images_close_the_gaps_in_the_labels(tmp_path, caplog):
    make_training_set(tmp_path, identities=4, each=3)
    (tmp_path / "id02" / "002.png").unlink()
    (tmp_path / "empty").mkdir()
    source = FolderSource(tmp_path, exclude=("id00", "nobody"), min_images=3)
    assert source.class_names == ["id01", "id03"]
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, r"data.train: got .*nothing there.* allowed: a folder of identities"),
        (lambda root: root.write_text("x"), r"\(a file\) · allowed: a folder of identities"),
        (lambda root: root.mkdir(), r"has 0 folders, of which 0 hold 1 or more pictures"),
        (lambda root: make_training_set(root, 1), r"has 1 folders, of which 1 .* at least two identities"),
    ],
)
def test_folders_that_are_no_training_set(tmp_path, prepare, message):
    prepare(tmp_path / "crops")
    with pytest.raises(UserError, match=message):
        FolderSource(tmp_path / "crops")


def test_names_in_any_script(tmp_path):
    for name in ("王小明", "Łukasz Żółć", "أحمد"):
        write(tmp_path / name / "фото 1.png", picture(1, 1))
    source = FolderSource(tmp_path)
    assert len(source) == 3
    assert all(source.read(i).startswith(b"\x89PNG") for i in range(3))
