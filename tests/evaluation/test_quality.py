import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation import Embeddings, Images, PairSet, QualitySet, Rule
from sphereface.evaluation.protocols.quality import FRACTIONS, Discard, read_quality

from .crops import random_pairs


def pair_set(num_each=100):
    pairs = random_pairs(2, num_names=60, num_folds=2, num_each=num_each)
    return PairSet("own", Images(Path("own"), pairs.names), pairs)


ONE = "A label of 1 means one person."


def embeddings(pairs, seed=0):
    """Vectors whose direction follows the pairs a little, so that there is something to reject."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((len(pairs.names), 5)) + 0.4


def test_by_the_length_of_the_embedding_as_a_loop_would():
    given = pair_set()
    x = embeddings(given.pairs)
    result = QualitySet.of(given, None).evaluate(Embeddings(x), Rule())
    pairs, length = given.pairs, np.sqrt((x * x).sum(axis=1))
    cosine = np.array([x[a] @ x[b] / (length[a] * length[b]) for a, b in zip(pairs.left, pairs.right, strict=True)])
    assert [curve.far for curve in result.curves] == [0.1]  # 200 impostor pairs resolve no lower rate
    (curve,) = result.curves
    allowed = np.sort(cosine[~pairs.same])[::-1]
    assert curve.threshold == pytest.approx(allowed[20], abs=1e-12)  # 20 of 200 are above it
    genuine = np.flatnonzero(pairs.same)
    quality = np.array([min(length[pairs.left[p]], length[pairs.right[p]]) for p in genuine])
    wrong = cosine[genuine] <= curve.threshold
    assert 0 < wrong.sum() < len(wrong)
    for number in (0, 10, 37, 50):
        rng, rates = np.random.default_rng(1), []
        for _ in range(300):
            order = np.lexsort([rng.random(len(quality)), quality])
            rates.append(wrong[order[int(number / 100 * len(wrong) + 1e-9) :]].mean())
        assert curve.error[number] == pytest.approx(np.mean(rates), abs=0.004)
    assert len(curve.error) == len(FRACTIONS) == 51
    assert "length of the embedding" in result.heading()[0]


def test_a_measure_that_knows_every_error_is_perfect(tmp_path):
    given = pair_set()
    x = embeddings(given.pairs)
    base = QualitySet.of(given, None)
    threshold = base.evaluate(Embeddings(x), Rule()).curves[0].threshold
    pairs = given.pairs
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    wrong = np.array([u @ v <= threshold for u, v in zip(units[pairs.left], units[pairs.right], strict=True)])
    # quality per image cannot know pairs, so give each pair images of its own
    rows = np.arange(len(pairs))
    own = dataclasses.replace(
        pairs, names=tuple(f"{k}.jpg" for k in range(2 * len(pairs))), left=rows, right=rows + len(pairs)
    )
    quality = np.concatenate([~wrong, np.ones(len(pairs))]).astype(float)
    features = np.concatenate([x[pairs.left], x[pairs.right]])
    perfect = QualitySet("own", Images(Path("own"), own.names), own, quality, "file").evaluate(
        Embeddings(features), Rule()
    )
    name, saved = perfect.headline()
    assert name == "saved by quality"
    assert saved == pytest.approx(1.0, abs=1e-12)
    constant = QualitySet("own", Images(Path("own"), own.names), own, np.ones(len(quality)), "file")
    assert constant.evaluate(Embeddings(features), Rule()).headline()[1] == pytest.approx(0.0, abs=1e-9)
    worst = QualitySet("own", Images(Path("own"), own.names), own, np.tile(wrong, 2).astype(float), "file")
    assert worst.evaluate(Embeddings(features), Rule()).headline()[1] < -0.01


def test_the_quality_of_a_table_comes_before_the_length():
    given = pair_set()
    x = embeddings(given.pairs)
    quality = np.random.default_rng(3).random(len(x))
    result = QualitySet.of(given, None).evaluate(Embeddings(x, quality=quality), Rule())
    other = QualitySet.of(given, None).evaluate(Embeddings(x), Rule())
    assert "from the table" in result.heading()[0]
    assert not np.array_equal(result.curves[0].error, other.curves[0].error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_undefined_embedding_is_an_error_of_the_lowest_quality(value):
    given = pair_set()
    x = embeddings(given.pairs)
    x[4] = value
    result = QualitySet.of(given, None).evaluate(Embeddings(x), Rule())
    (curve,), number = result.curves, ((given.pairs.left == 4) | (given.pairs.right == 4)).sum()
    assert f" % · {number} pairs have no score (NaN): they count as wrong" in result.line()
    assert np.isfinite(curve.error).all()
    touched = given.pairs.same & ((given.pairs.left == 4) | (given.pairs.right == 4))
    assert 0 < touched.sum() / given.pairs.same.sum() <= curve.error[0]
    share = int(np.ceil(100 * touched.sum() / given.pairs.same.sum()))
    kept = (given.pairs.same & ~touched).sum()
    wrong = curve.error[0] * given.pairs.same.sum() - touched.sum()  # of the pairs of the other images
    assert curve.error[share] == pytest.approx(wrong / kept, abs=0.03)  # its pairs go first


def test_a_score_at_the_threshold_is_rejected():
    """Accepted is what scores above it, as everywhere."""
    given = pair_set()
    x = np.ones((len(given.pairs.names), 3))  # every cosine is 1, so 1 is the threshold
    (curve,) = QualitySet.of(given, None).evaluate(Embeddings(x), Rule()).curves
    assert curve.error.tolist() == [1.0] * 51


def test_a_file_of_quality(tmp_path):
    path = tmp_path / "quality.txt"
    path.write_text("image,quality\na b.jpg,0.5\nc.jpg, 2e-1\n\n", encoding="utf-8")
    assert read_quality(path, ["c.jpg", "a b.jpg"]).tolist() == [0.2, 0.5]
    assert read_quality(path, ["c.png", "a b.JPG"]).tolist() == [0.2, 0.5]  # the suffix may differ
    with pytest.raises(UserError, match=r"1 of 2 images have no quality, the first is x\.jpg"):
        read_quality(path, ["c.jpg", "x.jpg"])
    path.write_text("c.jpg 1\nc.png 2\n", encoding="utf-8")
    assert read_quality(path, ["c.png"]).tolist() == [2]
    with pytest.raises(UserError, match="1 of 1 images have no quality"):
        read_quality(path, ["c.bmp"])
    path.write_text("c.jpg 0.5\nd.jpg good\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"quality\.txt, line 2: got 'd\.jpg good' · expected 'image quality'"):
        read_quality(path, ["c.jpg"])
    path.write_text("c.jpg 0.5\nc.jpg 0.6\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2: 'c\.jpg' already has a quality · allowed: one for each image"):
        read_quality(path, ["c.jpg"])
    with pytest.raises(UserError, match=r"none\.txt: no such file · allowed: lines 'image quality'"):
        read_quality(tmp_path / "none.txt", ["c.jpg"])


@pytest.mark.parametrize(
    "text",
    [
        '"image","quality"\n"a b.jpg",0.5\n"c.jpg",0.2\n',  # R
        ",image,quality\n0,a b.jpg,0.5\n1,c.jpg,0.2\n",  # pandas
        "image;quality\na b.jpg;0.5\nc.jpg;0.2\n",  # Excel
        "a, b.jpg;0.1\na b.jpg;0.5\nc.jpg;0.2\n",
    ],
)
def test_a_file_of_quality_as_other_programs_write_it(tmp_path, text):
    path = tmp_path / "quality.csv"
    path.write_text(text, encoding="utf-8")
    assert read_quality(path, ["c.jpg", "a b.jpg"]).tolist() == [0.2, 0.5]


@pytest.mark.parametrize("name", ["quality", "Score", "face_quality", "quality score", "image_quality", "scores"])
def test_names_of_a_column_of_quality(tmp_path, name):
    path = tmp_path / "quality.csv"
    path.write_text(f"image,{name}\na.jpg,0.5\n", encoding="utf-8")
    assert read_quality(path, ["a.jpg"]).tolist() == [0.5]


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("name", ["blur", "distance", "age", "blur_score", "low_quality", "error"])
def test_a_column_of_another_meaning_is_refused(tmp_path, name, separator):
    path = tmp_path / "quality.csv"
    path.write_text(f"\nimage{separator}{name}\na.jpg{separator}0.5\n", encoding="utf-8")
    with pytest.raises(
        UserError,
        match=rf"quality.csv, line 2: got the column '{name}' · allowed: 'quality' or 'score' as its name, with hig",
    ):
        read_quality(path, ["a.jpg"])


@pytest.mark.parametrize("number", ["1_0", "nan", "inf", "1e999", "٣", "high", "0x1", ""])
@pytest.mark.parametrize("before", ["", "\n \n", "image quality\n", "\nimage\tquality\n"])
def test_a_line_without_a_quality_is_no_header(tmp_path, number, before):
    path = tmp_path / "quality.txt"
    path.write_text(f"{before}a/1.jpg {number}\nb/1.jpg 0.5\n", encoding="utf-8")
    line = 1 + before.count("\n")
    with pytest.raises(UserError, match=rf"quality\.txt, line {line}: got 'a/1\.jpg .*' · expected 'image quality'"):
        read_quality(path, ["b/1.jpg"])
    path.write_text(f"{before}a/1.jpg 1\nb/1.jpg 5e-1\n", encoding="utf-8")
    assert read_quality(path, ["b/1.jpg"]).tolist() == [0.5]


def test_rows_and_chart():
    given = pair_set(1200)  # more than 1,000 impostor pairs differ
    result = QualitySet.of(given, None).evaluate(Embeddings(embeddings(given.pairs)), Rule())
    assert [curve.far for curve in result.curves] == [0.1, 0.01]
    (rows,) = result.rows()
    assert [row[0] for row in rows.rows] == ["1e-1", "1e-2"]
    assert all(len(row) == len(rows.header) for row in rows.rows)
    (chart,) = result.figures()
    assert chart.name == "discard"
    plain = result.to_dict()
    assert plain["curves"][1]["fnmr"] == result.curves[1].error.tolist()
    assert "1 false accept in 100" in result.summary()[0]


def test_exchanged_labels_and_a_perfect_network_are_told():
    given = pair_set()
    near = embeddings(given.pairs)
    for left, right in zip(given.pairs.left[given.pairs.same], given.pairs.right[given.pairs.same], strict=True):
        near[left] = near[right] = near[left] + near[right]
    right = QualitySet.of(given, None).evaluate(Embeddings(near), Rule()).rows()[0]
    assert "exchanged" not in right.note
    three_times = {name: np.tile(getattr(given.pairs, name), 3) for name in ("left", "right", "fold")}  # beyond chance
    exchanged = replace(given, pairs=replace(given.pairs, same=np.tile(~given.pairs.same, 3), **three_times))
    assert "exchanged" not in QualitySet.of(given, None).evaluate(Embeddings(near), Rule()).line()
    wrong, doubt = QualitySet.of(exchanged, None).evaluate(Embeddings(near), Rule()), "the labels may be exchanged."
    assert doubt in wrong.rows()[0].note
    assert wrong.line().endswith(f" % · More pairs of two people are accepted than of one person: {doubt} {ONE}")
    perfect = Discard(0.1, 0.5, np.zeros(51), np.zeros(51))
    (table,) = replace(QualitySet.of(given, None).evaluate(Embeddings(near), Rule()), curves=(perfect,)).rows()
    assert table.rows[0][-1] == "no error to save"


def test_rates_that_chance_explains_are_no_exchanged_labels():
    """An untrained network accepts as many pairs of two people as of one."""
    pairs = pair_set()
    given = QualitySet.of(pairs, None).evaluate(Embeddings(embeddings(pairs.pairs)), Rule())
    for accepted, told in ((0.095, False), (0.088, False), (0.05, True)):
        error = np.full(51, 1 - accepted)
        result = replace(given, num_genuine=3000, curves=(Discard(0.1, 0.5, error, np.zeros(51)),))
        assert bool(result.doubts()) == told, accepted


def test_a_file_of_quality_may_have_whole_paths_or_last_parts(tmp_path):
    path, names = tmp_path / "quality.txt", ["a/1.jpg", "b/2.jpg"]
    forms = [
        [f"./{name}" for name in names],
        [name.replace("/", "\\") for name in names],
        [str(tmp_path / "crops" / name) for name in names],
        ["1.jpg", "2.png"],
    ]
    for form in forms:
        path.write_text("".join(f"{name},{k}\n" for k, name in enumerate(form)), encoding="utf-8")
        assert read_quality(path, names, tmp_path / "crops").tolist() == [0, 1]
    with pytest.raises(UserError, match=r"2 of 2 images .* names in the file: 1.jpg, 2.png, … · allowed: those of"):
        read_quality(path, ["a/1.jpg", "b/1.jpg"], tmp_path)  # the last parts do not differ
    path.write_text("1.jpg 1\nb/2.jpg 2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"1 of 2 images have no quality, the first is a/1.jpg"):
        read_quality(path, names, tmp_path)
