"""Crops of a run that was stopped are not taken for the whole; points of substitute crops are told."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import Finder
from sphereface.alignment.crop_template import training_template
from sphereface.alignment.kept_settings import settings_near
from sphereface.cli import run_command
from sphereface.training.validation import Validator
from tests.alignment.faces import ByColour, DiesAfter, encode
from tests.evaluation.checkpoints import write_checkpoint
from tests.training.runs import CPU, load, write_tiny

WARNING = "crops/align-report.json: sphereface align has not finished this folder, so crops may be missing · run"


@pytest.fixture
def crops(tmp_path):
    """Make the crops of 24 of 28 photographs, of six of seven people, in a run that is then killed."""
    folder = tmp_path / "in"
    for k in range(28):
        path = folder / f"p{k % 7}/{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(ByColour.image((140, 150), [(60, 70)], seed=k), ".png"))
    with pytest.raises(KeyboardInterrupt):
        align_folder(folder, tmp_path / "crops", Landmarks(finder=Finder(DiesAfter(25))))
    return tmp_path / "crops"


def read_by(name, crops):
    above = crops.parent
    if name == "training":
        training_template(str(crops), None, (112, 96))
    elif name == "a list":
        names = "".join(f"{path.relative_to(above)} 0\n" for path in crops.rglob("*.jpg"))
        (above / "list.txt").write_text(names)
        assert run_command("pack", [str(above / "list.txt"), str(above / "l.rec")]) == 0
    elif name == "pack":
        assert run_command("pack", [str(crops), str(above / "packed/train.rec")]) == 0
    elif name == "check":
        run_command("check", [str(crops), "--workers", "0", "--output", str(above / "check")])
    elif name == "make-pairs":
        assert run_command("make-pairs", [str(crops), str(above / "own"), "--folds", "2"]) == 0
    elif name == "eval":
        checkpoint = write_checkpoint(above / "best.pt", input_size=(112, 96))
        sets = [f"a=all-pairs:{crops}", f"b=all-pairs:{crops}"]
        assert run_command("eval", ["--ckpt", str(checkpoint), "--sets", *sets, "--device", "cpu"]) == 0
    elif name == "eval.sets":
        sets = f"eval.sets={{a: 'all-pairs:{crops}', b: 'all-pairs:{crops}'}}"
        Validator(load(write_tiny(above, above), sets, "model.input_size=[112, 96]", "eval.select=null"), CPU)
    else:
        settings_near(crops)


READERS = ["training", "a list", "pack", "check", "make-pairs", "embed", "eval", "eval.sets"]


@pytest.mark.parametrize("name", READERS)
def test_every_reader_of_unfinished_crops_says_so(crops, caplog, name):
    with caplog.at_level(logging.WARNING):
        read_by(name, crops)
    assert caplog.text.count(WARNING) == 1
    caplog.clear()
    align_folder(crops.parent / "in", crops, Landmarks(finder=Finder(ByColour())))
    for path in (crops.parent / "l.rec", crops.parent / "l.idx"):
        path.unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        settings_near(crops)
    assert "has not finished" not in caplog.text


@pytest.mark.parametrize("name", [name for name in READERS if name != "embed"])
def test_every_reader_of_crops_by_one_align_for_each_person_names_the_unfinished_one(crops, caplog, name):
    """The command embed looks for the report of each image itself."""
    report = json.loads((crops / "align-report.json").read_text())
    for path in [path for path in crops.iterdir() if path.is_file()]:
        path.unlink()
    for person in crops.iterdir():
        (person / "align-report.json").write_text(json.dumps(report | {"finished": person.name != "p3"}))
    with caplog.at_level(logging.WARNING):
        read_by(name, crops)
    assert caplog.text.count("has not finished") == caplog.text.count(WARNING.replace("crops/", "crops/p3/", 1)) == 1
    assert "were not read" not in caplog.text


def test_a_damaged_report_does_not_stop_pack(crops, tmp_path, caplog):
    (crops / "align-report.json").write_text("{")
    assert run_command("make-pairs", [str(crops), str(tmp_path / "own"), "--folds", "2"]) == 0
    assert "has not finished" not in caplog.text


@pytest.mark.parametrize(("name", "told"), [("landmarks.txt", True), ("mine.txt", False)])
def test_points_of_substitute_crops_are_told(crops, tmp_path, capsys, name, told):
    (tmp_path / "in/p0/none.png").write_bytes(encode(ByColour.image((140, 150), []), ".png"))
    align_folder(tmp_path / "in", tmp_path / "middle", Landmarks(finder=Finder(ByColour()), centre=True))
    (tmp_path / "middle/landmarks.txt").rename(tmp_path / "middle" / name)
    assert (
        run_command("align", ["--landmarks", *map(str, (tmp_path / "middle" / name, tmp_path / "in", tmp_path / "b"))])
        == 0
    )
    note = "its points of 1 image are those of a substitute crop (--on-failure), e.g. p0/none.png"
    assert (note in capsys.readouterr().out) == told
    report = json.loads((tmp_path / "b/align-report.json").read_text())
    assert (report["aligned"], report["fallback"]) == (29, 0)
    assert np.isfinite(report["median_residual"])
