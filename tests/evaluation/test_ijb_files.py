import re
import shutil

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation import columns
from sphereface.evaluation.ijb_files import find_ijb, read_detector_scores, read_image_list, read_template_pairs
from sphereface.evaluation.template_rows import RowOfTemplate, rows_of

from .. import ijb_golden as golden

TEMPLATES = np.array([1, 4, 250])


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="list.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


def test_the_golden_files():
    files = find_ijb(golden.FOLDER, detector_scores=True)
    assert files.name == "ijbx"
    assert [path.name for path in files.galleries] == ["ijbx_1N_gallery_G1.csv", "ijbx_1N_gallery_G2.csv"]
    images = read_image_list(files.media)
    names, template, media = golden.text_columns("ijbx_face_tid_mid.txt")
    assert images.images == tuple(names)
    assert images.template.tolist() == [int(field) for field in template]
    assert images.media.tolist() == [int(field) for field in media]
    assert images.templates.tolist() == sorted({int(field) for field in template})
    pairs = read_template_pairs(files.pairs, images.templates)
    left, right, label = golden.text_columns("ijbx_template_pair_label.txt")
    assert images.templates[pairs.left].tolist() == [int(field) for field in left]
    assert images.templates[pairs.right].tolist() == [int(field) for field in right]
    assert pairs.same.tolist() == [field == "1" for field in label]
    assert (pairs.left.dtype, pairs.right.dtype, pairs.same.dtype) == (np.int32, np.int32, bool)
    every = np.array(golden.text_columns("ijbx_name_5pts_score.txt")[1:], dtype=float)  # (11, N)
    np.testing.assert_array_equal(read_detector_scores(files.scores, images.images), every[10])


@pytest.mark.parametrize("meta", [True, False])
def test_files_lie_in_the_folder_or_in_its_subfolder_meta(tmp_path, meta):
    folder = tmp_path / "meta" if meta else tmp_path
    folder.mkdir(exist_ok=True)
    for name in ("ijbb_face_tid_mid.txt", "ijbb_template_pair_label.txt"):
        (folder / name).touch()
    files = find_ijb(tmp_path)
    assert (files.name, files.media, files.pairs) == (
        "ijbb",
        folder / "ijbb_face_tid_mid.txt",
        folder / "ijbb_template_pair_label.txt",
    )
    assert (files.scores, files.galleries, files.probes) == (None, (), None)
    for name in ("gallery_S1", "gallery_S2", "probe_mixed"):
        (folder / f"ijbb_1N_{name}.csv").touch()
    files = find_ijb(tmp_path)
    assert [path.name for path in files.galleries] == ["ijbb_1N_gallery_S1.csv", "ijbb_1N_gallery_S2.csv"]
    assert files.probes == folder / "ijbb_1N_probe_mixed.csv"


@pytest.mark.parametrize(
    ("leave_out", "needs", "message"),
    [
        (["ijbx_face_tid_mid.txt"], {}, "has no *_face_tid_mid.txt · copy the files of IJB-B or IJB-C to it"),
        (
            ["ijbx_face_tid_mid.txt", "ijbx_template_pair_label.txt"],
            {},
            "has no *_face_tid_mid.txt and no *_template_pair_label.txt ·",
        ),
        (["ijbx_name_5pts_score.txt"], {"detector_scores": True}, "has no *_name_5pts_score.txt ·"),
    ],
)
def test_a_missing_file_is_named_in_one_line(tmp_path, leave_out, needs, message):
    shutil.copytree(golden.FOLDER, tmp_path, dirs_exist_ok=True)
    for name in leave_out:
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        find_ijb(tmp_path, **needs)
    assert "\n" not in str(caught.value)
    if needs:
        assert find_ijb(tmp_path).name == "ijbx"


def test_two_benchmarks_in_one_folder(tmp_path):
    for name in ("ijbb_face_tid_mid.txt", "ijbc_face_tid_mid.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="has ijbb_face_tid_mid.txt and ijbc_face_tid_mid.txt · allowed: one"):
        find_ijb(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="none: no such folder · expected the folder with"):
        find_ijb(tmp_path / "none")


PAIRS_TEXT = "1 4 0\n250 1 1\n4 4 1\n"


@pytest.mark.parametrize(
    "text",
    [
        PAIRS_TEXT,
        PAIRS_TEXT.rstrip("\n"),
        PAIRS_TEXT.replace("\n", "\r\n"),
        PAIRS_TEXT.replace(" ", "\t"),
        PAIRS_TEXT.replace("\n", " \n\n"),
        "\ufeff" + PAIRS_TEXT,
    ],
)
@pytest.mark.parametrize("lines", [1, 2, 100])
def test_pairs_in_blocks_and_with_any_line_ends(write, text, lines, monkeypatch):
    monkeypatch.setattr(columns, "_LINES", lines)
    pairs = read_template_pairs(write(text), TEMPLATES)
    assert pairs.left.tolist() == [0, 2, 1]
    assert pairs.right.tolist() == [1, 0, 1]
    assert pairs.same.tolist() == [False, True, True]


FORM = "expected 'template template 0' or 'template template 1'"
BAD_PAIRS = [
    ("1 4 2", f"line 3: got '1 4 2' · {FORM}"),
    ("1 4 -1", f"line 3: got '1 4 -1' · {FORM}"),
    ("1 4", f"line 3: got '1 4' · {FORM}"),
    ("1 4 0 1", f"line 3: got '1 4 0 1' · {FORM}"),
    ("1 x 0", f"line 3: got '1 x 0' · {FORM}"),
    ("1 4.0 0", f"line 3: got '1 4.0 0' · {FORM}"),
    ("1 -4 0", f"line 3: got '1 -4 0' · {FORM}"),
    ("1 99999999999 0", f"line 3: got '1 99999999999 0' · {FORM}"),
    ("1 5 0", "line 3: template 5 is not in *_face_tid_mid.txt · use files of one benchmark"),
    ("1 2147483647 0", "line 3: template 2147483647 is not in *_face_tid_mid.txt"),
    ("0 1 0", "line 3: template 0 is not in"),
]


@pytest.mark.parametrize(("line", "message"), BAD_PAIRS)
@pytest.mark.parametrize("lines", [1, 100])
def test_a_bad_pair_is_named_with_its_line(write, line, message, lines, monkeypatch):
    monkeypatch.setattr(columns, "_LINES", lines)
    path = write(f"1 4 0\n\n{line}\n4 4 1\n")
    with pytest.raises(UserError, match=re.escape(f"{path}, {message}")) as caught:
        read_template_pairs(path, TEMPLATES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_no_pairs(write, text):
    with pytest.raises(UserError, match="list.txt: is empty · expected lines 'template template 0'"):
        read_template_pairs(write(text), TEMPLATES)


def test_pairs_that_are_no_text(write, tmp_path):
    with pytest.raises(UserError, match="cannot be read as UTF-8 text .* · expected lines 'template"):
        read_template_pairs(write(b"1 4 0\n\xff\xfe 1 1\n"), TEMPLATES)
    with pytest.raises(UserError, match="none.txt: cannot be read as UTF-8 text"):
        read_template_pairs(tmp_path / "none.txt", TEMPLATES)


def test_templates_with_large_numbers(write):
    far = np.array([7, 2_000_000_000, 2_100_000_000])
    pairs = read_template_pairs(write("7 2000000000 0\n2100000000 7 1\n"), far)
    assert (pairs.left.tolist(), pairs.right.tolist()) == ([0, 2], [1, 0])
    with pytest.raises(UserError, match="line 1: template 8 is not in"):
        read_template_pairs(write("7 8 0\n"), far)
    assert RowOfTemplate(far)(np.array([7, 2_147_483_647], dtype=np.int32)).tolist() == [0, -1]


def test_rows_of_templates(tmp_path):
    assert rows_of(TEMPLATES, np.array([250, 1, 1]), tmp_path).tolist() == [2, 0, 0]
    for unknown in (0, 5, 251):
        with pytest.raises(UserError, match=f"gallery.csv: template {unknown} is not in \\*_face_tid_mid.txt"):
            rows_of(TEMPLATES, np.array([1, unknown]), tmp_path / "gallery.csv")


@pytest.mark.parametrize("line", ["a.jpg 1", "a.jpg 1 2 3", "a.jpg x 2", "a.jpg 1 -2", "a.jpg 1 99999999999", "a 1 ²"])
def test_a_bad_image_is_named_with_its_line(write, line):
    path = write(f"a.jpg 1 2\n{line}\n")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 2: got {line!r} · expected 'image template medium'")):
        read_image_list(path)


def test_no_images(write):
    with pytest.raises(UserError, match="is empty · expected lines 'image template medium'"):
        read_image_list(write("\n"))


NUMBERS = "1 2 3 4 5 6 7 8 9 10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a.jpg {NUMBERS}\n", f"line 1: got 'a.jpg {NUMBERS}' · expected an image, ten landmark numbers and a"),
        (f"a.jpg {NUMBERS} 1 1\n", "line 1: got"),
        (f"a.jpg {NUMBERS} nan\n", "line 1: got"),
        (f"a.jpg {NUMBERS} 1_0\n", "line 1: got"),
        (f"a.jpg {NUMBERS} 0.5\nb.jpg {NUMBERS} 1.1\n", f"line 2: got '{NUMBERS} 1.1' · allowed: landmarks within"),
        (f"a.jpg {NUMBERS} -0.1\n", "±100,000 pixels and a detector score from 0 to 1"),
        (f"a.jpg -1e30 {NUMBERS[2:]} 1\n", "line 1: got '-1e30 2 3"),
        (f"a.jpg {NUMBERS} high\n", "line 1: got"),
        (f"a.jpg {NUMBERS} 1\nc.jpg {NUMBERS} 1\n", "line 2: got image 'c.jpg' · expected 'b.jpg': the images of"),
        (f"a.jpg {NUMBERS} 1\n", "ends after 1 image · *_face_tid_mid.txt has 2, next 'b.jpg'"),
        (f"a.jpg {NUMBERS} 1\nb.jpg {NUMBERS} 1\nc.jpg {NUMBERS} 1\n", "line 3: got image 'c.jpg' · expected no more"),
    ],
)
def test_bad_detections(write, text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_detector_scores(write(text), ["a.jpg", "b.jpg"])


def test_templates_with_two_labels(write):
    with pytest.raises(UserError, match=r"list.txt: got 4 with 1 as one person and as two people, 1 such pair"):
        read_template_pairs(write("1 4 1\n4 1 0\n"), TEMPLATES)


@pytest.mark.parametrize("label", [0, 1])
def test_pairs_of_one_kind_only(write, label):
    with pytest.raises(UserError, match=rf"list.txt: got {3 * label} pairs of one subject and {3 - 3 * label} of two"):
        read_template_pairs(write(f"1 4 {label}\n" * 3), TEMPLATES)
