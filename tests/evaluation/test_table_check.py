"""A table of embeddings serves the images that were embedded, not others that have their names."""

from __future__ import annotations

import os
import pickle
import re
import shutil

import numpy as np
import pytest

from eval_lfw import main
from sphereface.cli import main as console
from sphereface.data.pairs import read_pairs
from sphereface.errors import UserError
from sphereface.evaluation import table_check
from sphereface.evaluation.images import Images
from sphereface.evaluation.table_check import Origin, changed_rows
from sphereface.files import content_number, content_stamp

from .checkpoints import write_checkpoint
from .crops import noise, write_image, write_set


def write_bin(crops, path):
    pairs = read_pairs(crops / "pairs.txt")
    sides = np.stack([pairs.left, pairs.right], axis=1).ravel()
    encoded = [(crops / pairs.names[row]).read_bytes() for row in sides]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps((encoded, pairs.same.tolist()), protocol=2))
    return path


def other_pixels(file, seed):
    """Replace an image by another one. PNG of noise has one size in bytes, so make it longer."""
    data = write_image(file, noise(1000 + seed)).read_bytes()
    file.write_bytes(data + b"+")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Crops, a set of other crops with the same names, and tables of the first in all forms."""
    folder = tmp_path_factory.mktemp("tables")
    crops, other = write_set(folder / "crops"), write_set(folder / "other")
    for seed, file in enumerate(sorted(other.rglob("*.jpg"))):
        other_pixels(file, seed)
    one, two = write_bin(crops, folder / "a" / "x.bin"), write_bin(other, folder / "b" / "x.bin")
    ckpt = ["--ckpt", str(write_checkpoint(folder / "best.pt")), "--aligned", "--device", "cpu"]
    for place, table in ((crops, "t.npz"), (crops, "gallery"), (one, "bin.npz"), (one, "bin-gallery")):
        assert console(["embed", str(place), str(folder / table), *ckpt]) == 0
    return {"folder": folder, "crops": crops, "other": other, "one": one, "two": two}


def evaluate(work, table, crops, *options, out, code=0):
    place = crops if crops.suffix else f"{crops},{work['crops'] / 'pairs.txt'}"
    argv = ["--embeddings", work["folder"] / table, "--sets", f"s={place}", *options, "--output", out]
    assert main([str(part) for part in argv]) == code


@pytest.mark.parametrize(
    ("table", "own", "other"),
    [("t.npz", "crops", "other"), ("gallery", "crops", "other"), ("bin.npz", "one", "two"),
     ("bin-gallery", "one", "two")],
)  # fmt: skip
def test_other_images_of_the_same_names_are_refused(work, tmp_path, capsys, table, own, other):
    evaluate(work, table, work[own], out=tmp_path / "a")
    assert "embed" not in capsys.readouterr().err
    evaluate(work, table, work[other], out=tmp_path / "b", code=2)
    said = capsys.readouterr().err
    assert f"got s, but 32 of the 32 images compared in {work[other]} have other content than those embedded" in said
    assert f"allowed: the images that were embedded, of {work[own]} · give these, or embed" in said
    assert not (tmp_path / "b").exists()
    if own == "crops":  # of two sets, and of two tables
        sets = [f"{name}={work[name]},{work[own] / 'pairs.txt'}" for name in (own, other)]
        path = str(work["folder"] / table)
        for option in [["--embeddings", path], ["--compare", path, path]][: 1 + path.endswith(".npz")]:
            assert main([*option, "--sets", *sets, "--output", str(tmp_path / "b")]) == 2
            assert "got other, but 32 of the 32 images" in capsys.readouterr().err


def test_images_that_are_not_on_disk_are_not_compared(work, tmp_path, capsys, caplog):
    evaluate(work, "t.npz", tmp_path / "nowhere", out=tmp_path / "a")
    (tmp_path / "few" / "P0").mkdir(parents=True)
    shutil.copy(work["crops"] / "P0" / "P0_0001.jpg", tmp_path / "few" / "P0" / "P0_0001.png")  # another suffix
    evaluate(work, "t.npz", tmp_path / "few", out=tmp_path / "b")
    assert capsys.readouterr().err == ""
    other_pixels(tmp_path / "few" / "P0" / "P0_0001.png", 1)
    evaluate(work, "t.npz", tmp_path / "few", out=tmp_path / "c")  # another format may hold the same pixels
    assert "1 of the 1 image compared" in caplog.text


@pytest.mark.parametrize(("table", "content"), [("t.npz", "content"), ("gallery", "sizes, times or content")])
def test_a_few_changed_images_are_a_warning(work, tmp_path, caplog, table, content):
    crops = shutil.copytree(work["crops"], tmp_path / "crops")  # with its times
    evaluate(work, table, crops, out=tmp_path / "a")
    assert caplog.text == ""
    for seed in range(16):
        other_pixels(crops / f"P{seed // 2}" / f"P{seed // 2}_000{1 + seed % 2}.jpg", seed)
    evaluate(work, table, crops, out=tmp_path / "b")
    said = f"16 of the 32 images compared in {crops} have other {content} than those embedded, such as P0/P0_0001.jpg"
    assert said in caplog.text
    other_pixels(crops / "P0" / "P0_0003.jpg", 99)
    evaluate(work, table, crops, out=tmp_path / "c", code=2)


def test_the_page_does_not_show_changed_images(work, tmp_path, caplog):
    evaluate(work, "bin.npz", work["one"], "--html", out=tmp_path / "a")
    before = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    crops = shutil.copytree(work["crops"], tmp_path / "crops")
    for seed in range(8):
        other_pixels(crops / f"P{seed}" / f"P{seed}_0001.jpg", seed)
    stale = write_bin(crops, tmp_path / "c" / "x.bin")
    evaluate(work, "bin.npz", stale, "--html", out=tmp_path / "b")
    page = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    left_out = page.count("not shown: it may have changed since it was embedded")
    assert f"8 of the 32 images compared in {stale} have other content" in caplog.text
    assert left_out > 0
    assert page.count("<img src=") + left_out == before.count("<img src=")
    assert {*re.findall("<img src=[^>]*", page)} <= {*re.findall("<img src=[^>]*", before)}


def test_other_times_in_the_gallery_of_a_folder_are_a_warning(work, tmp_path, caplog):
    """The time of a copy may be another one, so this is no proof of other images."""
    copy = shutil.copytree(work["crops"], tmp_path / "crops")
    for file in copy.rglob("*.jpg"):
        os.utime(file, ns=(1, 1))
    evaluate(work, "gallery", copy, out=tmp_path / "a")
    said = caplog.text
    assert f"32 of the 32 images compared in {copy} have other sizes, times or content than those embedded" in said
    assert said.endswith("embed them again; a copy keeps its times with cp -a\n")
    caplog.clear()
    evaluate(work, "t.npz", copy, out=tmp_path / "b")  # hashes do not depend on the time
    assert caplog.text == ""


def origin_of(folder, files, **known):
    return Origin(folder / "t.npz", folder, **known), Images(folder, tuple(file.name for file in files))


def test_what_is_unknown_is_no_difference(tmp_path):
    files = [write_image(tmp_path / f"{k}.png", noise(k)) for k in range(3)]
    order = np.array([2, 0, 1])
    hashes = np.zeros(3, dtype=np.uint64)
    hashes[order] = [content_number(file.read_bytes()) for file in files]
    stamps = np.full((3, 2), -1, dtype=np.int64)
    stamps[order] = [content_stamp(file) for file in files]
    wrong = {"hashes": (hashes, 7), "stamps": (stamps, (7, 7))}
    for key, (right, other) in wrong.items():
        origin, images = origin_of(tmp_path, files, **{key: right})
        assert changed_rows(origin, images, order, "s") == frozenset()
        one = right.copy()
        one[order[1]] = other
        assert changed_rows(origin_of(tmp_path, files, **{key: one})[0], images, order, "s") == {0}
        one[order[1]] = -1 if key == "stamps" else 0  # it could not be read
        assert changed_rows(origin_of(tmp_path, files, **{key: one})[0], images, order, "s") == frozenset()
    assert changed_rows(origin_of(tmp_path, files)[0], images, order, "s") == frozenset()


def test_of_many_images_an_even_sample_is_compared(tmp_path, monkeypatch):
    files = [write_image(tmp_path / f"{k}.png", noise(k)) for k in range(9)]
    origin, images = origin_of(tmp_path, files, hashes=np.arange(1, 10, dtype=np.uint64))
    monkeypatch.setattr(table_check, "_MOST", 3)
    with pytest.raises(UserError, match=r"3 of the 3 images compared in .*, such as 0\.png"):
        changed_rows(origin, images, np.arange(9), "s")
    hashes = np.zeros(9, dtype=np.uint64)
    hashes[[0, 4, 8]] = [content_number(files[k].read_bytes()) for k in (0, 4, 8)]
    hashes[[1, 2, 3, 5, 6, 7]] = 5
    assert changed_rows(origin_of(tmp_path, files, hashes=hashes)[0], images, np.arange(9), "s") == frozenset()
