"""Several processes train as one does: over gloo, started as torchrun starts them."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.config import Config
from sphereface.data.batch import Batch
from sphereface.errors import UserError
from sphereface.training import distributed
from sphereface.training.distributed import World, device_of, processes
from sphereface.training.nonfinite import NonFiniteGuard
from sphereface.training.replay import replay
from sphereface.training.replicas import average_statistics
from sphereface.training.stopping import Interruption, StopRequest
from sphereface.training.trainer import Trainer

from ..images import make_pairs, make_training_set
from ..shared import made_once
from .runs import CPU, TINY, load, metrics_of

ROOT = Path(__file__).parents[2]
STEPS = 12
LONG = [f"train.steps={STEPS}"]
BATCH_NORM = [*LONG, "model.norm=batch", "train.batch_size=32", "train.lr=0.01"]
CLIPPED = [*LONG, "train.clip_grad_norm=0.5", "train.ema=0.9", "loss.name=adaface"]
REPLICATED = [*LONG, "loss.distributed=replicated"]
SAVED = [*LONG, "train.ema=0.9", "checkpoint.every_steps=100"]
SHORT = ["train.steps=10", "train.milestones=[]"]

TAUGHT = [
    "train.lr=0.005",
    *SHORT,
    "train.teacher.embeddings=ROOT/teacher.npz",
    "train.teacher.losses={cosine: 2, rkd-distance: 1, rkd-angle: 1, similarity: 3, correlation: 4, queue: 1}",
    "train.teacher.queue_size=20",
]
TAUGHT_BY_NETWORK = [
    *SHORT,
    "train.lr=0.005",
    "train.teacher.checkpoint=ROOT/teacher.pt",
    "train.teacher.losses={correlation: 10}",
]

BACKBONES = {
    "iresnet": "name: iresnet, depth: 18, dropout: 0.2",
    "ir": "name: ir, depth: 18, se: true",
    "mobilefacenet": "name: mobilefacenet",
    "sfnet": "name: sfnet, depth: 4",
    "timm": "name: timm, architecture: test_convnext",
}
HALF = ["train.steps=2", "train.milestones=[]", "train.precision=bf16", "train.recompute=true", "train.lr=0.001"]

OTHER = {
    "settings": ("train.lr=0.2", "process 1 has other settings than process 0: train.lr: 0.05 → 0.2 · allowed: one"),
    "number": ("data.train=ROOT/fewer", "data.train: got 35 images of 5 identities in process 0, 34 images of 5 "),
    "names": ("data.train=ROOT/renamed", "data.train: got 'id01' as identity 1 in process 0, 'id02' in process 1 · "),
    "images": ("data.train=ROOT/replaced", "data.train: process 1 has other images of 'id02' than process 0 · "),
    "pairs": ("eval.sets.mine=ROOT/pairs2", "eval.sets.mine: process 1 has other content than process 0 · "),
    "sets": ("eval.sets.more=ROOT/pairs2", "settings than process 0: eval.sets: ['mine'] → ['mine', 'more'] · "),
    "rhythm": ("eval.every_steps=4", "process 1 has other settings than process 0: eval.every_steps: 6 → 4 · "),
    "width": ("model.embedding_dim=6", "process 1 has other settings than process 0: model.embedding_dim: "),
    "init": ("train.init_from=ROOT/teacher.pt", "settings than process 0: train.init_from: False → True · allowed"),
}
"""What differs in process 1 → its override, and the line. They must be told before one waits for another."""

CASES = {
    **{
        f"backbone {name}": {
            "size": 2,
            "set": [f"model={{{given}, input_size: [32, 32], embedding_dim: 8}}", *HALF],
        }
        for name, given in BACKBONES.items()
    },
    "one": {"size": 1, "set": LONG},
    "teacher 1": {"size": 1, "set": TAUGHT},
    "teacher 2": {"size": 2, "set": TAUGHT},
    "teacher network 1": {"size": 1, "set": TAUGHT_BY_NETWORK},
    "teacher network 2": {"size": 2, "set": TAUGHT_BY_NETWORK},
    "sharded 2": {"size": 2, "set": LONG},
    "sharded 4": {"size": 4, "set": LONG},
    "replicated 2": {"size": 2, "set": REPLICATED},
    "replicated 4": {"size": 4, "set": REPLICATED},
    "pieces": {"size": 2, "set": [*LONG, "train.micro_batch=2"]},
    "batch norm in pieces": {"size": 1, "set": [*BATCH_NORM, "train.micro_batch=16"]},
    "batch norm 2": {"size": 2, "set": BATCH_NORM},
    "clipped 1": {"size": 1, "set": CLIPPED},
    "clipped 2": {"size": 2, "set": CLIPPED},
    "whole": {"size": 1, "set": SAVED},
    "saved on 4": {"size": 4, "set": SAVED, "hook": "usr1 at 5 on 2"},
    "goes on with 2": {"size": 2, "set": SAVED, "hook": "usr1 at 9 on 1", "resume": "auto"},
    "goes on with 1": {"size": 1, "set": SAVED, "resume": "auto"},
    "evaluation stopped": {"size": 2, "set": SHORT, "hook": "usr1 in evaluation"},
    "uneven": {"size": 3, "set": SHORT},
    "uneven pieces": {"size": 2, "set": [*SHORT, "train.micro_batch=3"]},
    "refused": {"size": 2, "set": SHORT, "hook": "refused"},
    "skipped": {"size": 2, "set": [*SHORT, "train.on_nonfinite=skip", "model.norm=batch"], "hook": "poisoned"},
    "not finite": {"size": 2, "set": SHORT, "hook": "poisoned"},
    "clock": {"size": 2, "set": [*SHORT, "train.max_minutes=60"]},
    "two networks": {"size": 2, "set": [*SHORT, "model.networks=2"]},
    "dry run": {"size": 2, "set": SHORT, "more": ["--dry-run"]},
    "other start": {
        "size": 2,
        "set": [*SHORT, "train.init_from=ROOT/teacher.pt"],
        "set on 1": ["train.init_from=ROOT/copy.pt"],
    },
    "start in copies": {
        "size": 2,
        "set": ["train.steps=2", "train.milestones=[]", "train.init_from=ROOT/teacher.pt"],
        "set on 1": ["train.init_from=ROOT/same.pt"],
    },
    "own copies": {"size": 2, "set": LONG, "set on 1": ["data.train=ROOT/copy", "data.workers=1"]},
    **{f"other {what}": {"size": 2, "set": SHORT, "set on 1": [text]} for what, (text, _) in OTHER.items()},
}


class Results:
    """What all runs left, by the name of the case."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.codes = json.loads((root / "codes.json").read_text())

    def said(self, case: str, stream: str = "err") -> list[str]:
        """What each process said."""
        return [(self.root / case / f"{rank}.{stream}").read_text() for rank in range(CASES[case]["size"])]

    def found(self, case: str) -> list[dict]:
        """What each process found."""
        return [json.loads((self.root / case / f"{rank}.json").read_text()) for rank in range(CASES[case]["size"])]

    def run(self, case: str) -> Path:
        """The folder of a run that came to its end, or was stopped."""
        (run,) = (self.root / "runs" / case.replace(" ", "-") / "tiny").iterdir()
        return run

    def state(self, case: str) -> dict:
        return load_checkpoint(self.run(case) / "last.pt")


def make_teachers(root: Path, config: Path) -> None:
    """A table of random embeddings, and a checkpoint of an untrained network."""
    names = sorted(str(path.relative_to(root / "train")) for path in (root / "train").rglob("*.png"))
    rows = np.random.default_rng(5).standard_normal((len(names), 6)).astype(np.float32)
    np.savez(root / "teacher.npz", names=np.array(names), embeddings=rows)
    master = Trainer(load(config, "seed=9"), CPU)
    save_checkpoint(root / "teacher.pt", master.state("master"), {})
    shutil.copyfile(root / "teacher.pt", root / "same.pt")
    save_checkpoint(root / "copy.pt", Trainer(load(config, "seed=8"), CPU).state("master"), {})


def make_copies(root: Path) -> None:
    """Copies of the data, as a second machine may have them."""
    for name in ("copy", "fewer", "renamed", "replaced"):
        shutil.copytree(root / "train", root / name)
    images = {name: sorted((root / name / "id02").iterdir()) for name in ("fewer", "replaced")}
    images["fewer"][0].unlink()
    (root / "renamed" / "id01").rename(root / "renamed" / "id09")
    shutil.copyfile(images["replaced"][0], images["replaced"][-1])
    shutil.copytree(root / "pairs", root / "pairs2")
    first, *_, last = sorted((root / "pairs2").rglob("*.png"))
    shutil.copyfile(last, first)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(made_once(tmp_path_factory, "processes", run_all_cases))


def run_all_cases(root: Path) -> None:
    values = yaml.safe_load(TINY)
    values["data"]["train"] = str(make_training_set(root / "train", 5, 7, size=(32, 32)))
    values["eval"] |= {"sets": {"mine": str(make_pairs(root / "pairs", size=(32, 32)))}, "select": "mine"}
    values["checkpoint"]["keep"] = 100
    config = root / "tiny.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    make_teachers(root, config)
    make_copies(root)
    cases = {}
    for name, case in CASES.items():
        runs = root / "runs" / ("saved-on-4" if name.startswith("goes on") else name.replace(" ", "-"))
        overrides = [text.replace("ROOT", str(root)) for text in case["set"]]
        on_1 = [text.replace("ROOT", str(root)) for text in case.get("set on 1", [])]
        cases[name] = {**case, "config": str(config), "set": [*overrides, f"runs_dir={runs}"], "set on 1": on_1}
    (root / "cases.json").write_text(json.dumps(cases))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.training.rank_worker", str(root)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def close(found: dict[int, float], expected: dict[int, float], relative: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for step, value in expected.items():
        assert found[step] == pytest.approx(value, rel=relative), step


def near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


def alike_on_all(results: Results, case: str) -> None:
    """No process ended elsewhere than another, to the bit."""
    first, *others = [{**found, "seconds": 0} for found in results.found(case)]
    assert all(other == first for other in others)


# ---------------------------------------------------------------- the same training


@pytest.mark.parametrize("case", ["sharded 2", "sharded 4", "replicated 2", "replicated 4", "pieces"])
def test_any_number_of_processes_has_the_losses_of_one(results, case):
    assert results.codes["one"] == [0]
    assert results.codes[case] == [0] * CASES[case]["size"], results.said(case)
    one, several = results.run("one"), results.run(case)
    assert len(metrics_of(one, "train/loss")) == STEPS
    for figure in ("train/loss", "train/grad_norm", "train/embedding_norm_mean", "train/target_angle_deg_mean"):
        close(metrics_of(several, figure), metrics_of(one, figure))
    close(metrics_of(several, "train/embedding_similarity"), metrics_of(one, "train/embedding_similarity"))
    assert metrics_of(several, "train/accuracy") == metrics_of(one, "train/accuracy")
    assert metrics_of(several, "eval/mine/accuracy") == metrics_of(one, "eval/mine/accuracy")
    a, b = results.state("one"), results.state(case)
    near(b["model"], a["model"])
    near(b["head"], a["head"])
    assert a["optimizer"].keys() == b["optimizer"].keys()
    near(b["optimizer"]["head.weight"], a["optimizer"]["head.weight"])
    assert b["meta"]["images_seen"] == 8 * STEPS
    alike_on_all(results, case)


@pytest.mark.parametrize("case", ["teacher", "teacher network"])
def test_two_processes_learn_from_a_teacher_as_one_does(results, case):
    """Pairs and triples are of the batch of both; a network's embeddings are computed by both."""
    assert results.codes[f"{case} 2"] == [0, 0], results.said(f"{case} 2")
    one, two = results.run(f"{case} 1"), results.run(f"{case} 2")
    assert len(metrics_of(one, "train/teacher_loss")) == 10
    for figure in ("train/loss", "train/teacher_loss", "train/grad_norm"):
        close(metrics_of(two, figure), metrics_of(one, figure))
    a, b = results.state(f"{case} 1"), results.state(f"{case} 2")
    for part in ("model", "head", "teacher"):
        near(b[part], a[part])
    alike_on_all(results, f"{case} 2")


def test_with_batch_norm_two_processes_are_one_with_two_pieces(results):
    """Each normalises by its own images, as each piece of a micro-batch does; its statistics are averaged."""
    pieces, two = results.run("batch norm in pieces"), results.run("batch norm 2")
    close(metrics_of(two, "train/loss"), metrics_of(pieces, "train/loss"))
    a, b = results.state("batch norm in pieces")["model"], results.state("batch norm 2")["model"]
    near({n: v for n, v in b.items() if "running" not in n and "tracked" not in n},
         {n: v for n, v in a.items() if "running" not in n and "tracked" not in n})  # fmt: skip
    alike_on_all(results, "batch norm 2")


def test_clipping_averages_and_running_figures_of_a_head_are_those_of_one(results):
    assert results.codes["clipped 2"] == [0, 0]
    close(metrics_of(results.run("clipped 2"), "train/loss"), metrics_of(results.run("clipped 1"), "train/loss"))
    norms = metrics_of(results.run("clipped 1"), "train/grad_norm")
    assert max(norms.values()) > 0.5  # it was clipped
    a, b = results.state("clipped 1"), results.state("clipped 2")
    for part in ("model", "head", "average"):
        near(b[part], a[part])


def test_every_process_evaluates_its_part_and_all_come_to_the_same_bits(results):
    first, second = results.found("sharded 2")
    assert len(first["evaluations"]) == 2
    assert first["evaluations"] == second["evaluations"]
    assert first["chosen"] == second["chosen"]


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_trains_in_bf16_with_recomputation_on_two_processes(results, name):
    case = f"backbone {name}"
    assert results.codes[case] == [0, 0], results.said(case)
    losses = metrics_of(results.run(case), "train/loss")
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses.values())
    alike_on_all(results, case)
    assert results.state(case)["meta"]["config"]["model"]["name"] == name


def test_a_clock_is_the_first_processs(results):
    first, second = results.found("clock")
    assert results.codes["clock"] == [0, 0]
    assert first["seconds"] == second["seconds"] > 0


def test_two_networks_are_trained_one_after_another_and_joined_by_the_first_process(results):
    assert results.codes["two networks"] == [0, 0]
    alike_on_all(results, "two networks")
    folders = (results.root / "runs" / "two-networks" / "tiny").iterdir()
    (joined,) = [folder for folder in folders if len(list(folder.glob("step-*.pt"))) == 1]
    state = load_checkpoint(joined / "best.pt")
    parts = [load_checkpoint(Path(path)) for path in state["meta"]["networks"]]
    assert [part["meta"]["config"]["seed"] for part in parts] == [0, 1]
    for number, part in enumerate(parts):
        assert torch.equal(state["model"][f"networks.{number}.fc5.weight"], part["model"]["fc5.weight"])
    assert list(metrics_of(joined, "eval/mine/accuracy")) == [state["meta"]["step"]]
    assert f"--ckpt {joined}/best.pt" in results.said("two networks", "out")[0]
    assert results.said("two networks", "out")[1] == results.said("two networks")[1] == ""


# ---------------------------------------------------------------- stopping, saving, going on


def test_a_run_saved_on_four_processes_goes_on_with_two_and_with_one(results):
    assert results.codes["saved on 4"] == [75] * 4
    assert results.codes["goes on with 2"] == [75] * 2
    assert results.codes["goes on with 1"] == [0]
    assert [found["steps"] for found in results.found("saved on 4")] == [5] * 4  # the signal came to one of them
    assert [found["steps"] for found in results.found("goes on with 2")] == [9] * 2
    run = results.run("saved on 4")
    assert {5, 9, STEPS} <= {int(path.stem.removeprefix("step-")) for path in run.glob("step-*.pt")}
    close(metrics_of(run, "train/loss"), metrics_of(results.run("whole"), "train/loss"))
    a, b = results.state("whole"), results.state("saved on 4")
    for part in ("model", "head", "average"):
        near(b[part], a[part])
    assert a["average_updates"] == b["average_updates"] == STEPS


def test_a_stop_is_told_once(results):
    said = results.said("saved on 4")
    assert sum(text.count("stopped by SIGUSR1 at step 5") for text in said) == 1
    assert not any("Traceback" in text for text in said)


def test_a_signal_to_one_process_ends_the_evaluation_on_all(results):
    case = "evaluation stopped"
    assert results.codes[case] == [75, 75]
    assert [found["steps"] for found in results.found(case)] == [6, 6]
    assert [found["evaluations"] for found in results.found(case)] == [[], []]


# ---------------------------------------------------------------- what goes wrong


def test_logs_and_files_come_from_the_first_process_alone(results):
    first, *others = results.said("sharded 4")
    assert f"step {STEPS} " in first
    assert "(4 processes, 2 each)" in first
    assert not any("step" in text or "warning" in text.lower() for text in others)
    out = results.said("sharded 4", "out")
    assert "eval_lfw.py" in out[0]
    assert out[1:] == ["", "", ""]


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("uneven", "train.batch_size: got 8 on 3 processes · allowed: a multiple of 3, since all processes"),
        ("uneven pieces", "train.micro_batch: got 3 for the 4 images of each of 2 processes · allowed there: a div"),
        ("refused", "error: data.train: only process 1 sees this"),
        ("not finite", "step 6: the loss is nan; the weights were not updated"),
    ],
)
def test_an_error_ends_all_and_is_told_once(results, case, line):
    assert results.codes[case] == [2] * CASES[case]["size"], results.said(case)
    errors = [part for text in results.said(case) for part in text.splitlines() if part.startswith("error:")]
    assert len(errors) == 1
    assert line in errors[0]
    assert not any("Traceback" in text for text in results.said(case))


@pytest.mark.parametrize("what", OTHER)
def test_processes_must_train_the_same(results, what):
    case = f"other {what}"
    assert results.codes[case] == [2, 2], results.said(case)
    (line,) = [part for text in results.said(case) for part in text.splitlines() if part.startswith("error:")]
    assert OTHER[what][1] in line


def test_processes_must_start_from_the_same_weights(results):
    assert results.codes["other start"] == [2, 2], results.said("other start")
    (line,) = [part for text in results.said("other start") for part in text.splitlines() if part.startswith("error:")]
    assert "train.init_from: process 1 has other content than process 0 · allowed: the same for all" in line
    assert results.codes["start in copies"] == [0, 0], results.said("start in copies")


def test_each_machine_may_have_its_own_copy(results):
    assert results.codes["own copies"] == [0, 0], results.said("own copies")
    close(metrics_of(results.run("own copies"), "train/loss"), metrics_of(results.run("one"), "train/loss"))


def test_the_reason_of_another_process_is_in_the_log_and_in_run_json(results):
    about = json.loads((results.run("refused") / "run.json").read_text())
    assert (about["status"], about["reason"]) == ("stopped", "data.train: only process 1 sees this")
    assert "only process 1 sees this" in (results.run("refused") / "train.log").read_text()


def test_a_step_not_finite_on_one_process_is_skipped_on_all(results):
    assert results.codes["skipped"] == [0, 0], results.said("skipped")
    meta = results.state("skipped")["meta"]
    assert (meta["step"], meta["images_seen"]) == (10, 11 * 8)
    assert all(value.isfinite().all() for value in results.state("skipped")["model"].values())
    alike_on_all(results, "skipped")


def test_a_step_not_finite_is_kept_with_the_batch_of_all(results):
    kept = results.run("not finite") / "nonfinite-00000006.pt"
    state = load_checkpoint(kept)
    assert state["batch"]["images"].shape == (8, 32, 32, 3)
    assert state["head"]["weight"].shape == (5, 8)
    assert "8 images, labels" in replay(kept, CPU)  # by one process
    assert any(f"to replay it: --replay {kept}" in text for text in results.said("not finite"))  # whoever tells


def test_a_dry_run_describes_the_whole(results):
    assert results.codes["dry run"] == [0, 0]
    first, second = results.said("dry run", "out")
    assert "head parameters             40\n" in first
    assert second == ""


# ---------------------------------------------------------------- parts


def test_pieces_join_to_the_batch():
    images = torch.arange(5 * 2 * 2 * 3).view(5, 2, 2, 3).to(torch.uint8)
    augment = {"gray": (torch.tensor([1, 3, 4]), torch.tensor([[0.1], [0.3], [0.4]]))}
    batch = Batch(images, torch.arange(5), torch.tensor([True, False, True, True, False]), [("a", "b")], augment)
    joined = Batch.joined(batch.split(2))
    for name in ("images", "labels", "mirror"):
        assert torch.equal(getattr(joined, name), getattr(batch, name))
    assert all(torch.equal(a, b) for a, b in zip(joined.augment["gray"], augment["gray"], strict=True))


def test_the_first_process_alone_keeps_a_step_that_is_not_finite(tmp_path):
    guard = NonFiniteGuard(Config(), tmp_path, World(rank=1))
    with pytest.raises(UserError, match="step 1: the loss is nan"):
        guard.handle("the loss is nan", {"meta": {"step": 0}}, None)
    assert list(tmp_path.iterdir()) == []


def test_one_process_needs_no_other():
    world = World()
    assert world.first
    assert world.all_reduce_sum(1, 2.5) == [1, 2.5]
    assert world.all_gather("x") == ["x"]
    assert world.broadcast("x") == "x"
    assert world.reason(ValueError("why")) == "why"
    assert world.is_first_to_report("why")


def test_half_of_torchruns_variables_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with (
        pytest.raises(UserError, match="WORLD_SIZE: got 2 in the environment without RANK, MASTER_PORT"),
        processes("cpu"),
    ):
        pass


def test_a_request_of_any_process_is_one_for_all():
    stop = StopRequest()
    stop.settle(stop.requests())
    assert stop.agreed is None
    stop.settle([0.0, 2.0, 1.0])
    assert stop.agreed is signal.SIGTERM
    assert stop.stopped("").exit_code == 75
    assert stop.signal is None  # so that the first Ctrl-C here is no second one
    with pytest.raises(Interruption), stop.interruptible():
        pass


class ActedRanks:
    """Two processes, of which the other has thrice as much of everything."""

    def sum(self, *values: torch.Tensor) -> list[torch.Tensor]:
        return [4 * value for value in values]


def test_statistics_become_the_mean_of_all_processes_but_where_they_are_fixed():
    moving, fixed = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm1d(3).eval()
    moving.running_mean.copy_(torch.tensor([1.0, 2.0, -3.0]))
    average_statistics(torch.nn.ModuleList([moving, fixed]), World(0, 2, ActedRanks()))
    assert moving.running_mean.tolist() == [2.0, 4.0, -6.0]
    assert moving.running_var.tolist() == [2.0] * 3
    assert (fixed.running_mean.tolist(), fixed.running_var.tolist()) == ([0.0] * 3, [1.0] * 3)


@pytest.mark.parametrize(("cores", "here", "threads"), [(8, 3, 2), (2, 4, 1), (8, 1, 8)])
def test_processes_share_the_cores_of_their_machine(monkeypatch, cores, here, threads):
    taken = []
    monkeypatch.setattr(distributed, "processors", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    distributed._share_cores(here)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # torchrun's, or the user's
    distributed._share_cores(here)
    assert taken == [threads]


def test_several_processes_without_cuda_take_the_processor(monkeypatch):
    for found in ("mps", "cpu"):
        monkeypatch.setattr(distributed, "choose_device", lambda name, found=found: torch.device(found))
        assert device_of("auto", 3) == CPU


@pytest.mark.parametrize("name", ["cuda:1", "mps"])
def test_devices_that_several_processes_cannot_share(name, monkeypatch):
    monkeypatch.setattr("sphereface.training.distributed.choose_device", torch.device)
    with pytest.raises(UserError, match=f"--device: got {name} with several processes · allowed there: auto, cuda"):
        device_of(name, 0)


def test_each_process_has_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr("sphereface.training.distributed.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(UserError, match="process 2 of this machine finds 2 GPUs · allowed: one process for each"):
        device_of("auto", 2)
