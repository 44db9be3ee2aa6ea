import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eval_lfw import main
from sphereface.checkpoint import save_checkpoint
from sphereface.config import ModelConfig
from sphereface.evaluation import evaluate, load_pair_set
from sphereface.models import build_model, load_model
from sphereface.options import to_plain

from .crops import write_set

PROGRAM = Path(__file__).parent.parent.parent / "eval_lfw.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a tiny network's checkpoint and a set of pictures."""
    folder = tmp_path_factory.mktemp("work")
    config = ModelConfig(depth=4, widths=(4, 4, 4, 8), embedding_dim=16, input_size=(32, 24))
    torch.manual_seed(0)
    meta = {"config": {"model": to_plain(config)}, "step": 7, "run": "tiny"}
    state = {"meta": meta, "model": build_model(config).state_dict()}
    save_checkpoint(folder / "run" / "best.pt", state, {"step": 7})
    write_set(folder / "crops")
    return folder


def arguments(work, *more, pairs="pairs.txt"):
    files = ["--ckpt", work / "run/best.pt", "--lfw", work / "crops", "--pairs", work / "crops" / pairs]
    return [str(part) for part in (*files, "--device", "cpu", *more)]


def test_view2_end_to_end(work, capsys):
    assert main(arguments(work)) == 0
    table = capsys.readouterr().out
    output = work / "run" / "eval-pairs"
    assert (output / "table.txt").read_text(encoding="utf-8").rstrip("\n") in table
    assert str(output) in table
    assert (output / "roc.png").is_file()
    written = json.loads((output / "lfw.json").read_text(encoding="utf-8"))
    loaded = load_model(work / "run/best.pt")
    pair_set = load_pair_set("crops", work / "crops", work / "crops/pairs.txt")
    result = evaluate(loaded.model, pair_set, input_size=loaded.input_size, device="cpu")
    assert [fold["accuracy"] for fold in written["folds"]] == result.accuracies.tolist()
    assert (written["checkpoint"], written["step"], written["run"]) == (str(work / "run/best.pt"), 7, "tiny")
    assert (written["flip"], written["subtract_mean"], written["num_images"]) == (True, True, 32)


def test_view1_and_flags(work, tmp_path, capsys):
    more = ("--no-flip", "--no-mean", "--output", tmp_path / "out", "--batch-size", 5)
    assert main(arguments(work, *more, pairs="pairsDevTest.txt")) == 0
    assert "view 1" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "lfw.json").read_text(encoding="utf-8"))
    assert (written["view"], written["flip"], written["subtract_mean"]) == (1, False, False)
    assert main(arguments(work, pairs="pairsDevTest.txt")) == 0
    assert (work / "run" / "eval-pairsDevTest" / "lfw.json").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ckpt", "none.pt"], "none.pt: no such checkpoint file"),
        (["--lfw", "none"], "none: no such folder"),
        (["--pairs", "none.txt"], "none.txt: no such file"),
        (["--dev-train", "list.txt"], "list.txt: is for view 1, but"),
        (["--device", "tpu"], "--device: got 'tpu'"),
        (["--batch-size", "0"], "--batch-size: got 0 · allowed: 1 or more"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(work, capsys, more, message):
    assert main(arguments(work, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python eval_lfw.py --ckpt best.pt --pairs data/pairsDevTest.txt" in capsys.readouterr().out


def test_as_a_program():
    failed = subprocess.run([sys.executable, PROGRAM, "--ckpt", "none.pt"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr == "error: none.pt: no such checkpoint file\n"
