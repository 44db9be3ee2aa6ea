"""The command of docs/teacher.md with an ONNX teacher, word for word, on a file made by hand."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from sphereface.cli import main

from ..images import make_training_set
from ..models.onnx_files import by_formula, write_onnx
from .runs import CPU, Trainer, load, metrics_of

PAGE = Path(__file__).parents[2] / "docs" / "teacher.md"


def test_the_command_of_the_docs_learns_from_a_users_onnx_file(config_file, tmp_path):
    command = re.search(r"A whole command with an ONNX teacher:\n\n```bash\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    faces = make_training_set(tmp_path / "FACES", 4, 5, size=(112, 112))
    teacher = write_onnx(tmp_path / "w600k_r50.onnx", size=(112, 112), dim=7)
    here = {"faces-60min.yaml": config_file, "data.train=FACES": f"data.train={faces}"}
    words = [str(here.get(word, word)) for word in shlex.split(command[1].replace("\\\n", " "))]
    assert words[:2] == ["sphereface", "train"]
    words = [word.replace("onnx: w600k_r50.onnx", f"onnx: {teacher}") for word in words]
    assert sum(str(tmp_path) in word for word in words) == 3  # each of the page's names stands for a file here
    small = ("model.input_size=[112,96]", "train.steps=8", "train.milestones=[]", "eval.sets={}", "eval.select=null")
    words += [part for setting in small for part in ("--set", setting)]
    assert main(words[1:]) == 0

    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    losses = metrics_of(run, "train/teacher_loss")
    assert list(losses) == [*range(1, 9)]
    assert all(0 < loss < 20 for loss in losses.values())  # 10 × (1 − cosine)

    settings = [after for word, after in pairwise(words) if word == "--set"]
    trainer = Trainer(load(config_file, *settings), CPU)  # reads what the run kept
    names = [trainer.source.name(row) for row in range(len(trainer.source))]
    crops = np.stack([cv2.imread(name) for name in names])
    views = (crops, crops[:, :, ::-1])  # image and mirror image, added
    wanted = sum(by_formula(view, order="rgb", mean=[127.5] * 3, std=[127.5] * 3, dim=7) for view in views)
    np.testing.assert_allclose(trainer.data.teacher.table.at(slice(None)), wanted, rtol=1e-3, atol=1e-3)
