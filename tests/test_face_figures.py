"""Figures of crops are written whole or not at all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.face_figures import check_plot, pair_figure, save_figure, search_figure

from .images import files_of_at_most

CROP = np.full((112, 96, 3), 90, np.uint8)


@pytest.fixture
def figure():
    return pair_figure([CROP, CROP], ["a", "b"], "cosine 1.000")


@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x.jpg", "x.webp", "x.tif", "folder/x.png", "x"])
def test_a_figure_is_written_in_the_format_of_its_suffix(figure, tmp_path, name):
    save_figure(figure, tmp_path / name)
    assert cv2.imread(str(tmp_path / name)).shape[2] == 3
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [(tmp_path / name).name]
    check_plot(tmp_path / name, [])  # a figure may be replaced


@pytest.mark.parametrize("name", ["x.svg", "x.pdf", "x.eps"])
def test_a_drawing_is_known_again(figure, tmp_path, name):
    save_figure(figure, tmp_path / name)
    check_plot(tmp_path / name, [])


def test_an_earlier_figure_survives_a_failure(figure, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"earlier")

    def full_disk(file, **kwargs):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full_disk)
    message = r"--save-plot: .*x\.png cannot be written \(No space left on device\) · give another place"
    with pytest.raises(UserError, match=message) as raised:
        save_figure(figure, tmp_path / "x.png")
    assert "\n" not in str(raised.value)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif", "x.pdf"])
def test_a_disk_that_is_full_before_the_end_is_an_error(figure, tmp_path, name):
    with files_of_at_most(1000), pytest.raises(UserError, match="cannot be written"):  # Pillow ignores short writes
        save_figure(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_writes_nothing(figure, tmp_path):
    with pytest.raises(UserError, match=r"x\.docx cannot be written \(Format 'docx' is not supported"):
        save_figure(figure, tmp_path / "x.docx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "a.png, an image that this command reads · allowed: the name of a new file"),
        ("folder/../a.png", "a.png, an image that this command reads"),
        ("link.png", "link.png, an image that this command reads"),
        ("folder", "folder, a folder · allowed: the name of a new file"),
        ("x.docx", "x.docx with the format docx · allowed: .*jpg.*png"),
        ("b.jpg", "b.jpg, a file that this command did not write · allowed: a new name"),
    ],
)
def test_a_plot_is_refused_before_any_work(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.png").write_bytes(b"photograph")
    (tmp_path / "b.jpg").write_bytes(b"another photograph")
    (tmp_path / "link.png").symlink_to("a.png")
    with pytest.raises(UserError, match=f"^--save-plot: got .*{message}"):
        check_plot(tmp_path / name, [str(tmp_path / "b.png"), str(tmp_path / "a.png")])


@pytest.mark.parametrize("name", [None, "x", "x.png", "x.JPG", "new/x.pdf", "old.svg"])
def test_other_plots_are_allowed(tmp_path, name):
    (tmp_path / "old.svg").write_bytes(b"an earlier plot by Matplotlib")
    check_plot(name and tmp_path / name, ["a.png", "nowhere"])


def test_names_are_drawn_without_control_characters():
    found = search_figure(CROP, [None], ["0.9\na/\nx\x9b.png"], "q\r")
    figures = [pair_figure([CROP, CROP], ["a\x1b", "b"], ""), found]
    titles = [axes.get_title() for figure in figures for axes in figure.axes if axes.get_title()]
    assert titles == [r"a\x1b", "b", r"query" + "\n" + r"q\r", "0.9\na/\n" + r"x\x9b.png"]
