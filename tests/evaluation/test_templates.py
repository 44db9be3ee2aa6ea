import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation import load_set, parse_sets
from sphereface.evaluation.embeddings import Embeddings
from sphereface.evaluation.protocols.base import Rule
from sphereface.evaluation.templates import Templates, read_template_pairs, read_templates
from sphereface.places import Places

from .crops import noise, write_image

LIST = "a.png t1 m1\nb.png t1 m1\nc.png t1 m2\nd.png t2\ne.png t2\nf.png 33 m1\n"
PAIRS = "t1 t2 1\nt2 33 0\n"


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate("abcdef"):
        write_image(tmp_path / f"{name}.png", noise(k))
    (tmp_path / "list.txt").write_text(LIST, encoding="utf-8")
    (tmp_path / "pairs.txt").write_text(PAIRS, encoding="utf-8")
    return tmp_path


def test_media_are_averaged_then_added(folder):
    templates, images = read_templates(folder, folder / "list.txt")
    assert templates.names == ("t1", "t2", "33")
    assert [file.name for file in images.files] == [f"{name}.png" for name in "abcdef"]
    x = np.random.default_rng(0).standard_normal((6, 5)) * np.array([[1], [9], [2], [1], [7], [3]])
    u = [row / np.sqrt(row @ row) for row in x]
    expected = [(u[0] + u[1]) / 2 + u[2], u[3] + u[4], u[5]]  # without a name each image is its own medium
    expected = [row / np.sqrt(row @ row) for row in expected]
    np.testing.assert_allclose(templates.pool(x), expected, atol=1e-6)


def test_one_name_in_two_templates_is_two_media():
    templates = Templates(Path("list"), ("a", "b"), np.array([0, 0, 1]), np.array([0, 0, 1]))
    pooled = templates.pool(np.array([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0]]))
    np.testing.assert_allclose(pooled, np.full((2, 2), 0.5**0.5), atol=1e-6)


def test_opposite_images_have_no_direction():
    templates = Templates(Path("list"), ("a",), np.array([0, 0]), np.array([0, 1]))
    assert np.isnan(templates.pool(np.array([[1.0, 0.0], [-1.0, 0.0]]))).all()


def test_pairs_without_folds_are_uncentred_cosines(folder):
    (pair_set,) = parse_sets([f"ijb={folder},{folder}/list.txt,{folder}/pairs.txt"])
    assert (pair_set.name, pair_set.pairs.num_folds, len(pair_set.images)) == ("ijb", 0, 6)
    x = np.random.default_rng(1).standard_normal((6, 5)) + 1
    result = pair_set.evaluate(Embeddings(x), Rule()).verification
    pooled = pair_set.templates.pool(x)
    np.testing.assert_allclose(result.scores, [pooled[0] @ pooled[1], pooled[1] @ pooled[2]], atol=1e-9)
    assert result.same.tolist() == [True, False]
    assert (len(result.accuracies), result.mean) == (0, pytest.approx(np.nan, nan_ok=True))


def test_pairs_with_folds_follow_the_protocol(folder):
    (folder / "pairs.txt").write_text("t1 t2 1 1\nt1 33 0 1\nt2 33 0 2\nt1 t1 1 2\n", encoding="utf-8")
    (pair_set,) = parse_sets([f"ytf={folder},{folder}/list.txt,{folder}/pairs.txt"])
    x = np.random.default_rng(1).standard_normal((6, 5)) + 1
    result = pair_set.evaluate(Embeddings(x), Rule()).verification
    pooled = pair_set.templates.pool(x)
    mean = np.mean([pooled[row] for row in (1, 2, 0, 0)], axis=0)  # both sides of fold 2
    a, b = pooled[0] - mean, pooled[1] - mean
    assert result.scores[0] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-9)
    assert len(result.accuracies) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\n", "line 1: got 'a.png' · expected 'path template \\[media\\]'"),
        ("a.png t m x\n", "line 1: got 'a.png | t | m | x'"),
        ("a.png t1\nnone.png t1\n", "1 of its 2 images are not under .*\n  - .*none.png"),
        ("\n\n", "is empty"),
    ],
)
def test_a_bad_list_of_images(folder, text, message):
    (folder / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message.replace("|", "\\|")):
        read_templates(folder, folder / "list.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t1 t2\n", "line 1: got 't1 \\| t2' · expected 'template template 0\\|1 \\[fold\\]'"),
        ("t1 t2 2\n", "line 1: got 't1 \\| t2 \\| 2'"),
        ("t1 t2 1 x\n", "line 1: got"),
        ("t1 t9 1\n", "line 1: template 't9' is not in .*list.txt"),
        ("t1 t2 1\n", "got 1 pair of one person and 0 of two people · allowed: one or more"),
        ("t1 t2 1 1\nt1 33 0 3\n", "has folds \\[1, 3\\] · allowed: no folds, or 0 to K-1 or 1 to K"),
        ("t1 t2 1 2\nt1 33 0 3\n", "has folds \\[2, 3\\] · allowed"),
        ("t1 t2 1 0\nt1 33 0 0\n", "has folds \\[0\\] · allowed"),
        ("t1 t2 1 1\nt1 33 0\n", "1 of 2 pairs have no fold · allowed: .* in every line"),
        ("t1 t2 1 1\nt1 33 0 2\n", "fold 2 has no pair of one person · allowed: pairs of both kinds in each fold"),
        ("t1 t2 1 0\nt1 33 0 0\nt2 t2 1 1\n", "fold 1 has no pair of two people"),
        ("t1 t2 1\nt2 t1 0\n", "got t2 with t1 as one person and as two people, 1 such pair · allowed: one label"),
        ("t1 t2 1\n33 33 0\n", "got 33 with itself as two people, 1 such pair"),
    ],
)
def test_a_bad_list_of_pairs(folder, text, message):
    (folder / "pairs.txt").write_text(text, encoding="utf-8")
    templates, _ = read_templates(folder, folder / "list.txt")
    with pytest.raises(UserError, match=message):
        read_template_pairs(folder / "pairs.txt", templates)


@pytest.mark.parametrize("first", [0, 1])
def test_folds_may_be_numbered_from_0_or_1(folder, first):
    lines = [f"t1 t2 1 {first + 1}", f"t1 33 0 {first}", f"t2 33 0 {first + 1}", f"33 33 1 {first}"]
    (folder / "pairs.txt").write_text("\n".join(lines), encoding="utf-8")
    pairs = read_template_pairs(folder / "pairs.txt", read_templates(folder, folder / "list.txt")[0])
    assert (pairs.fold.tolist(), pairs.num_folds) == ([2, 1, 2, 1], 2)


def test_a_missing_list(tmp_path):
    with pytest.raises(UserError, match="none.txt: cannot be read .* expected a list of templates"):
        read_templates(tmp_path, tmp_path / "none.txt")


INTEGERS = "7 33 1\n250 7 0\n33 33 1\n"


@pytest.fixture
def numbered(tmp_path):
    return Templates(tmp_path / "list.txt", ("33", "7", "250"), np.arange(3), np.arange(3))


@pytest.mark.parametrize(
    "text",
    [
        INTEGERS,
        INTEGERS.replace(" ", "\t"),
        INTEGERS.replace("\n", "\r\n"),
        "7 33 1 1\n250 7 0 2\n33 33 1 2\n250 33 0 1\n",
    ],
)
@pytest.mark.parametrize("lines", [1, 100])
def test_integers_are_read_as_names_are(tmp_path, numbered, text, lines, monkeypatch):
    monkeypatch.setattr("sphereface.evaluation.columns._LINES", lines)
    path = tmp_path / "pairs.txt"
    path.write_bytes(text.encode())
    fast = read_template_pairs(path, numbered)
    monkeypatch.setattr("sphereface.evaluation.templates._read_integers", lambda path, names: None)
    slow = read_template_pairs(path, numbered)
    assert (fast.left.tolist()[:3], fast.right.tolist()[:3]) == ([1, 2, 0], [0, 1, 0])
    assert fast.same.tolist()[:3] == [True, False, True]
    assert fast.num_folds == slow.num_folds
    for name in ("left", "right", "same", "fold"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), strict=True)


def test_integers_are_not_read_line_by_line(tmp_path, numbered, monkeypatch):
    (tmp_path / "pairs.txt").write_text(INTEGERS)
    monkeypatch.setattr("sphereface.evaluation.templates._read_fields", None)
    assert len(read_template_pairs(tmp_path / "pairs.txt", numbered)) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 34 1", "line 4: template '34' is not in"),
        ("7 33 2", "line 4: got '7 \\| 33 \\| 2'"),
        ("7 33 -1", "line 4: got '7 \\| 33 \\| -1'"),
        ("7 33", "line 4: got '7 \\| 33'"),
        ("7 33 1 -2", "line 4: got '7 \\| 33 \\| 1 \\| -2'"),
        ("7 x 1", "line 4: template 'x' is not in"),
        ("7 33 1 1", "3 of 4 pairs have no fold"),
    ],
)
def test_a_bad_line_among_integers(tmp_path, numbered, line, message):
    (tmp_path / "pairs.txt").write_text(INTEGERS + line + "\n")
    with pytest.raises(UserError, match=message):
        read_template_pairs(tmp_path / "pairs.txt", numbered)


def test_names_with_leading_zeros_are_no_integers(tmp_path):
    templates = Templates(tmp_path / "list.txt", ("07", "7"), np.arange(2), np.arange(2))
    (tmp_path / "pairs.txt").write_text("07 7 0\n7 7 1\n")
    pairs = read_template_pairs(tmp_path / "pairs.txt", templates)
    assert (pairs.left.tolist(), pairs.right.tolist()) == ([0, 1], [1, 1])


def test_images_in_subfolders(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/c.png", "a/d.png", "e.png"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("a/b/c.png 1\n./a/d.png 1\ne.png 1\na/../e.png 2\n")
    _, images = read_templates(tmp_path, tmp_path / "list.txt")
    assert images.files == tuple(tmp_path / name for name in ("a/b/c.png", "a/d.png", "e.png", "a/../e.png"))
    (tmp_path / "list.txt").write_text("a/b/c.png 1\na/e.png 1\nf/d.png 1\na/b 1\n")
    with pytest.raises(UserError, match="3 of its 4 images are not under .*\n  - .*a/e.png\n.*f/d.png\n.*a/b$"):
        read_templates(tmp_path, tmp_path / "list.txt")


def test_an_undefined_image_is_left_out_of_its_medium():
    templates = Templates(Path("list"), ("a", "b"), np.array([0, 0, 0, 1]), np.array([0, 0, 1, 2]))
    x = np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(templates.pool(x), [[0.5**0.5, 0.5**0.5], [np.nan, np.nan]])


@pytest.mark.parametrize("fusion", ["join", "add"])
def test_image_and_mirror_image_of_templates(folder, fusion):
    loaded = load_set("t", Places(None, (folder, folder / "list.txt", folder / "pairs.txt")))
    x, y = np.random.default_rng(0).standard_normal((2, 6, 4))
    result = loaded.evaluate(Embeddings(x, y, fusion), Rule())
    whole = x + y if fusion == "add" else np.concatenate([x, y], axis=1)
    rows = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    t1, t2, t3 = (rows[0] + rows[1]) / 2 + rows[2], rows[3] + rows[4], rows[5]
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in ((t1, t2), (t2, t3))]
    np.testing.assert_allclose(result.verification.scores, cosines, rtol=0, atol=1e-7)
    assert result.heading()[1] == f"embeddings of image and mirror image, {'joined' if fusion == 'join' else 'added'}"
    folds = replace(result, pairs=replace(result.pairs, fold=np.array([1, 2]), num_folds=2))
    assert folds.variants[0].rule.startswith("InsightFace: image + mirror image,")


def test_a_table_of_embeddings_needs_no_images(tmp_path):
    (tmp_path / "list.txt").write_text("a.png 1\nb.png 1\nc.png 2\n", encoding="utf-8")
    (tmp_path / "pairs.txt").write_text("1 1 1\n1 2 0\n", encoding="utf-8")
    places = Places(None, (tmp_path, tmp_path / "list.txt", tmp_path / "pairs.txt"))
    loaded = load_set("t", places, find_images=False)
    assert (loaded.images.names, loaded.images.files) == (("a.png", "b.png", "c.png"), None)
    with pytest.raises(UserError, match="3 of its 3 images are not under"):
        load_set("t", places)


@pytest.mark.parametrize("fold", ["²", "9" * 20, "9" * 5000, "-1", "1.5"])
def test_a_fold_that_is_no_number(folder, fold):
    (folder / "pairs.txt").write_text(f"t1 t2 1 {fold}\nt2 33 0 1\n", encoding="utf-8")
    templates, _ = read_templates(folder, folder / "list.txt")
    with pytest.raises(UserError, match=r"pairs\.txt, line 1: got .* · expected 'template template 0\|1 \[fold\]'"):
        read_template_pairs(folder / "pairs.txt", templates)


@pytest.mark.parametrize("field", ["²", "9" * 5000, "-1", "nan", "1.5", "٣", "+1x", "0x1", "1_0"])
@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_numbers_that_are_none_end_in_one_line(tmp_path, field, column):
    for k in (0, 1):
        write_image(tmp_path / f"{k}.png", noise(k))
    (tmp_path / "list.txt").write_text("0.png 0\n1.png 1\n", encoding="utf-8")
    lines = [["0", "1", "0", "1"], ["0", "0", "1", "2"]]
    lines[1][column] = field
    (tmp_path / "pairs.txt").write_text("\n".join(map(" ".join, lines)), encoding="utf-8")
    templates, _ = read_templates(tmp_path, tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"pairs.txt, line 2: ") as error:
        read_template_pairs(tmp_path / "pairs.txt", templates)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "d/" * 2500 + "x.png"])
def test_an_image_with_a_name_that_no_disk_holds_is_missing(tmp_path, name):
    (tmp_path / "list.txt").write_text(f"{name} 0\n", encoding="utf-8")
    with pytest.raises(UserError, match="1 of its 1 images are not under"):
        read_templates(tmp_path, tmp_path / "list.txt")


def test_lines_that_are_there_already_and_images_of_two_people_are_named(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    places = Places("templates", (folder, folder / "list.txt", folder / "pairs.txt"))
    load_set("s", places)
    assert not caplog.text
    (folder / "list.txt").write_text(LIST + "a.png t1 m1\nd.png t2\nd.png t2\n", encoding="utf-8")
    load_set("s", places)
    assert "list.txt: 3 lines repeat an earlier line, and count again in their templates" in caplog.text
    caplog.clear()
    (folder / "list.txt").write_text(LIST + "a.png t2\n", encoding="utf-8")  # t1 and t2 are of one person
    load_set("s", places)
    assert not caplog.text
    (folder / "list.txt").write_text(LIST + "a.png 33\n", encoding="utf-8")
    load_set("s", places)
    assert "list.txt: 1 image is in templates of two subjects or more" in caplog.text


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_both_lists_may_name_their_columns(folder, separator):
    heading = separator.join(["image", "template"])
    lines = LIST.replace(" m1", "").replace(" m2", "").replace(" ", separator)
    (folder / "list.txt").write_text(f"{heading}\n{lines}", encoding="utf-8")
    templates, images = read_templates(folder, folder / "list.txt")
    assert (templates.names, images.names[0]) == (("t1", "t2", "33"), "a.png")
    names = separator.join(["template1", "template2", "same"])
    (folder / "pairs.txt").write_text(f"{names}\n{PAIRS.replace(' ', separator)}", encoding="utf-8")
    assert read_template_pairs(folder / "pairs.txt", templates).same.tolist() == [True, False]
    words = PAIRS.replace(" 1\n", " True\n").replace(" 0\n", " False\n").replace(" ", separator)
    assert "True" in words
    (folder / "pairs.txt").write_text(f"{names}\n{words}", encoding="utf-8")
    assert read_template_pairs(folder / "pairs.txt", templates).same.tolist() == [True, False]
    (folder / "pairs.txt").write_text(f"{names}\n{words.replace('True', 'pair')}", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: got '.* pair' · expected 'template template 0"):
        read_template_pairs(folder / "pairs.txt", templates)
    (folder / "pairs.txt").write_text(f"{names.replace('same', 'different')}\n{PAIRS}", encoding="utf-8")
    with pytest.raises(UserError, match="got the column 'different' · allowed: labels that are 1 for one person"):
        read_template_pairs(folder / "pairs.txt", templates)
    (folder / "pairs.txt").write_text(f"template1 template2 fold same\n{PAIRS.replace(chr(10), ' 1' + chr(10))}")
    with pytest.raises(UserError, match="line 1: got the column 'fold' in place 3 · allowed: template, template, lab"):
        read_template_pairs(folder / "pairs.txt", templates)
    (folder / "list.txt").write_text(f"image media template\n{LIST}")
    with pytest.raises(UserError, match="line 1: got the column 'media' in place 2 · allowed: image, template, media"):
        read_templates(folder, folder / "list.txt")
    (folder / "list.txt").write_text(f"image video template\n{LIST}")
    with pytest.raises(UserError, match="line 1: got the column 'template' in place 3 · allowed: image, template"):
        read_templates(folder, folder / "list.txt")
    quoted = "\n".join(" ".join(f'"{field}"' for field in line.split()) for line in LIST.splitlines())
    (folder / "list.txt").write_text(quoted)
    assert read_templates(folder, folder / "list.txt")[0].names == ("t1", "t2", "33")
