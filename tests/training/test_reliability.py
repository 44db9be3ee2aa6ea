"""Signals, locks, full disks, losses that are not finite: what happens to a run."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train as train_program
from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.errors import Stopped, UserError
from sphereface.training import monitor
from sphereface.training import run as run_module
from sphereface.training.replay import replay
from sphereface.training.run_folder import RunFolder
from sphereface.training.sinks import Session, tensorboard
from sphereface.training.stopping import StopRequest

from .runs import CPU, load, metrics_of, train, train_with

ROOT = Path(__file__).parents[2]


def send(number: signal.Signals, at: int):
    return lambda trainer: os.kill(os.getpid(), number) if trainer.progress.step == at else None


def only_run(config_file: Path) -> Path:
    (run,) = (config_file.parent / "runs" / "tiny").iterdir()
    return run


def same_weights(a: Path, b: Path) -> bool:
    one, other = load_checkpoint(a), load_checkpoint(b)
    return all(torch.equal(one[key][name], other[key][name]) for key in ("model", "head") for name in one[key])


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_leaves(config_file, number, code):
    whole = train(config_file)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=rf"stopped by {number.name} at step 6 · saved: .*step-00000006.pt") as stopped:
        train_with(config_file, "seed=0", before_step=send(number, at=5))
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is before
    part = max((config_file.parent / "runs" / "tiny").iterdir())
    assert load_checkpoint(part / "last.pt")["meta"]["step"] == 6
    train(config_file, resume=str(part))
    assert same_weights(whole / "last.pt", part / "last.pt")
    for name in ("train/loss", "eval/mine/accuracy"):  # the evaluation of step 6 was put off, not lost
        assert metrics_of(part, name) == metrics_of(whole, name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("where", ["the data is read", "the run is opened"])
def test_a_signal_before_the_first_step_asks_to_be_started_again(config_file, monkeypatch, capfd, number, where):
    def leave(code: int) -> None:
        raise SystemExit(code)

    def signalled(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(*((run_module, "Trainer") if where == "the data is read" else (RunFolder, "find")), signalled)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left:
        run_module.run_training(str(config_file), resume="auto", device="cpu")
    assert left.value.code == 75
    line = f"stopped by {number.name} before the first step · to resume: the same command with --resume auto"
    assert capfd.readouterr().err.splitlines().count(line) == 1
    assert signal.getsignal(number) is before
    assert not (config_file.parent / "runs").exists()


def test_a_signal_while_the_run_folder_is_written_ends_after_the_first_step(config_file, monkeypatch):
    start = RunFolder.write_start

    def signalled(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        start(*arguments)

    monkeypatch.setattr(RunFolder, "write_start", signalled)
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 1 · saved: ") as stopped:
        train(config_file)
    assert stopped.value.exit_code == 75


def test_a_second_ctrl_c_leaves_at_once(config_file):
    def twice(trainer):
        if trainer.progress.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_with(config_file, before_step=twice)
    assert load_checkpoint(only_run(config_file) / "last.pt")["meta"]["step"] == 4


def test_a_signal_ends_an_evaluation_at_once_and_it_is_made_after_the_resume(config_file, monkeypatch):
    def endless(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)  # which the signal cuts short
        pytest.fail("the evaluation was not ended")

    with monkeypatch.context() as patch:
        patch.setattr("sphereface.training.validation.embed_files", endless)
        with pytest.raises(Stopped):
            train(config_file)
    part = only_run(config_file)
    assert load_checkpoint(part / "last.pt")["meta"]["step"] == 6
    train(config_file, resume="auto")
    assert list(metrics_of(part, "eval/mine/accuracy")) == [6, 12]
    assert list(metrics_of(part, "train/loss")) == list(range(1, 13))


def test_an_evaluation_cut_off_after_its_line_was_written_has_one_line(config_file, monkeypatch):
    def killed(self, *_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "mark_best", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config_file, "checkpoint.every_steps=6")
    part = only_run(config_file)
    state = part / "step-00000006.pt"
    assert load_checkpoint(state)["meta"]["evaluated_step"] == 6  # saved again, as the best
    meta = load_checkpoint(state)["meta"]
    assert meta["best_step"] == 6
    train(config_file, "checkpoint.every_steps=6", resume=str(part))
    steps = [
        line["step"]
        for line in map(json.loads, (part / "metrics.jsonl").read_text().splitlines())
        if "eval/mine/accuracy" in line
    ]
    assert steps == [6, 12]


def test_requests_are_kept_only_inside():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started this behind a &
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal is signal.SIGUSR1
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_terminal_reaches_the_workers_too(config_file):
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config_file), "--device", "cpu",
               "--set", "train.steps=100000", "--set", "data.workers=2", "--set", "eval.sets={}",
               "--set", "eval.select=null", "--set", "train.milestones=[]"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for line in process.stderr:
        if "step 3 " in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=600) == 130, rest
    assert "stopped by SIGINT at step" in rest
    assert "Traceback" not in rest
    run = only_run(config_file)
    saved = load_checkpoint(run / "last.pt")["meta"]["step"]
    assert max(metrics_of(run, "train/loss")) == saved


# ---------------------------------------------------------------- one process a folder


def test_a_second_process_in_a_run_folder_is_refused(config_file):
    run = train(config_file, stop_at=5)
    held = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from sphereface.files import lock_file; "
         f"kept = lock_file(Path({str(run / '.lock')!r})); print(kept is not None, flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert held.stdout.readline() == "True\n"
    with pytest.raises(UserError, match="another process trains in this run folder"):
        train(config_file, resume="auto")
    held.kill()
    held.wait()
    train(config_file, resume="auto")
    assert load_checkpoint(run / "last.pt")["meta"]["step"] == 12


# ---------------------------------------------------------------- full disks


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def test_a_real_full_disk_costs_no_step(config_file, small_disk, caplog):
    block = small_disk / "block"

    def fill_and_free(trainer):
        if trainer.progress.step == 6:
            fill(block)
        if trainer.progress.step == 10:
            block.unlink()

    run = train_with(
        config_file, f"runs_dir={small_disk}", "checkpoint.keep=1", "log.histogram_every_steps=100",
        before_step=fill_and_free,
    )  # fmt: skip
    assert "step 8: the checkpoint could not be written" in caplog.text
    assert "a checkpoint takes" in caplog.text
    assert "KiB are missing" in caplog.text
    assert "0.0 MiB" not in caplog.text
    assert list(metrics_of(run, "train/loss")) == list(range(1, 13))
    assert load_checkpoint(run / "last.pt")["meta"]["step"] == 12


@pytest.mark.parametrize("full_at_the_end", [False, True])
def test_a_disk_too_full_to_open_events_stops_nothing(tmp_path, monkeypatch, caplog, full_at_the_end):
    class OnFullDisk(tensorboard.SummaryWriter):
        full, opened = False, 0

        def __init__(self, *args, **kwargs):
            OnFullDisk.opened += 1
            self.refuse_when_full()
            super().__init__(*args, **kwargs)

        def _get_file_writer(self):
            self.refuse_when_full()
            return super()._get_file_writer()

        def close(self):
            super().close()
            self.refuse_when_full()

        def refuse_when_full(self):
            if OnFullDisk.full:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard, "SummaryWriter", OnFullDisk)
    with monitor.Monitor(Session(tmp_path), ["jsonl", "tensorboard"]) as watch:
        for step, full in ((1, False), (2, True), (3, True), (4, False)):
            OnFullDisk.full = full
            watch.scalars(step, {"train/loss": 1.0, "train/lr": 0.1, "train/minutes": 2.0}, images_seen=8 * step)
        OnFullDisk.full = full_at_the_end
    assert caplog.text.count("could not be written") == 1
    assert OnFullDisk.opened == 3  # at first, at step 3 in vain, at step 4
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    # The abandoned writer's thread writes what it has later, and a reader that has passed its file never
    # returns to it: each look needs a new reader. The test's timeout ends the loop.
    while _steps_of_events(tmp_path) != {1, 4}:
        time.sleep(0.01)


def _steps_of_events(folder):
    events = EventAccumulator(str(folder), purge_orphaned_data=False).Reload()
    return {event.step for event in events.Scalars("train/minutes")}


# ---------------------------------------------------------------- not finite


def poison(at: int, times: int = 1):
    """Make the inputs of some steps infinite."""

    def before(trainer):
        inputs = type(trainer.learner).inputs.__get__(trainer.learner)
        bad = at <= trainer.progress.images_seen // 8 < at + times

        def poisoned(batch, *size):
            images, labels = inputs(batch, *size)
            return (images * math.inf if bad else images), labels

        trainer.learner.inputs = poisoned

    return before


def test_a_step_that_is_not_finite_stops_the_run_and_is_kept(config_file):
    with pytest.raises(UserError, match=r"step 6: the loss is nan; .* not updated · last checkpoint: .*step-00000004"):
        train_with(config_file, "model.norm=batch", before_step=poison(5))
    kept = only_run(config_file) / "nonfinite-00000006.pt"
    state = load_checkpoint(kept)
    assert state["meta"]["step"] == 5
    assert state["batch"]["images"].shape == (8, 32, 32, 3)
    assert all(value.isfinite().all() for value in state["model"].values())  # running statistics too


def test_a_kept_step_is_replayed_layer_by_layer(config_file, capsys):
    with pytest.raises(UserError, match="--replay"):
        train_with(config_file, before_step=lambda trainer: (
            trainer.learner.model.stages[2].conv.weight.data.fill_(math.nan) if trainer.progress.step == 3 else None
        ))  # fmt: skip
    kept = only_run(config_file) / "nonfinite-00000004.pt"
    assert train_program.main(["--replay", str(kept), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "first layer not finite    stages.2.conv\n" in out
    assert "weights not finite        model.stages.2.conv.weight\n" in out
    assert "step                      4, λ" in out


def test_a_checkpoint_is_no_kept_step(config_file, capsys):
    run = train(config_file, "train.steps=2", "train.milestones=[]")
    assert train_program.main(["--replay", str(run / "last.pt"), "--device", "cpu"]) == 2
    assert "holds no batch · allowed: a nonfinite-….pt" in capsys.readouterr().err


def test_steps_that_are_not_finite_are_skipped_on_request(config_file, caplog):
    with caplog.at_level(logging.WARNING):
        run = train_with(
            config_file, "model.norm=batch", "train.on_nonfinite=skip", "train.nonfinite_limit=2",
            before_step=poison(5, times=2),
        )  # fmt: skip
    assert "step 6: the loss is nan; the weights were not updated · skipped, 2 in a row of at most 2" in caplog.text
    meta = load_checkpoint(run / "last.pt")["meta"]
    assert (meta["step"], meta["images_seen"]) == (12, 14 * 8)
    assert len(list(run.glob("nonfinite-*.pt"))) == 1
    with pytest.raises(UserError, match="3 in a row, train.nonfinite_limit is 2"):
        train_with(config_file, "train.on_nonfinite=skip", "train.nonfinite_limit=2", before_step=poison(5, times=3))


def test_the_step_that_ends_a_run_is_kept_and_named(config_file, caplog, capsys):
    """Earlier, every message named the file of the first such step."""
    settings = ("model.norm=batch", "train.on_nonfinite=skip", "train.nonfinite_limit=1")

    def bad(trainer):
        poison(trainer.progress.images_seen // 8 if trainer.progress.images_seen // 8 in (2, 6, 7) else 99)(trainer)

    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="2 in a row") as caught:
        train_with(config_file, *settings, before_step=bad)
    run = only_run(config_file)
    first, last = run / "nonfinite-00000003.pt", run / "nonfinite-00000006.pt"  # batch 2 was skipped
    assert str(caught.value).endswith(f" · to replay it: --replay {last}")
    said = [line for line in caplog.messages if "skipped, " in line]
    assert said[0].endswith(f" · to replay it: --replay {first}")
    assert said[1].endswith(f" · to replay an earlier batch, of step 3: --replay {first}")
    for path, step, batch in ((first, 2, 2), (last, 5, 7)):
        state = load_checkpoint(path)["meta"]
        assert (state["step"], state["images_seen"]) == (step, batch * 8)
    assert len(list(run.glob("nonfinite-*.pt"))) == 2


def test_the_first_and_the_last_batch_of_one_step_are_both_kept(config_file):
    with pytest.raises(UserError, match=r"--replay .*nonfinite-00000006-last.pt$"):
        train_with(
            config_file, "model.norm=batch", "train.on_nonfinite=skip", "train.nonfinite_limit=2",
            before_step=poison(5, times=3),
        )  # fmt: skip
    run = only_run(config_file)
    first, last = (load_checkpoint(run / f"nonfinite-00000006{end}.pt")["meta"] for end in ("", "-last"))
    assert (first["step"], first["images_seen"], last["step"], last["images_seen"]) == (5, 5 * 8, 5, 7 * 8)


def without_end(trainer):
    """From step 5 on, embeddings whose ‖x‖ overflows, although each number is finite."""
    if trainer.progress.step == 4:
        trainer.learner.model.fc5.weight.data.mul_(1e30)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_length_without_end_is_a_step_that_is_not_finite(config_file, capsys, precision):
    """The head divides by it, so loss and gradient stay finite, and nothing is learned."""
    settings = ("loss={name: cosface}", f"train.precision={precision}")
    with pytest.raises(UserError, match=r"step 5: the largest ‖x‖ is inf; .* not updated .* --replay ") as caught:
        train_with(config_file, *settings, before_step=without_end)
    kept = only_run(config_file) / "nonfinite-00000005.pt"
    assert str(kept) in str(caught.value)
    assert train_program.main(["--replay", str(kept), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "largest embedding         ‖x‖ = inf\n" in out
    assert "first layer not finite    none\n" in out


def test_replay_of_nothing_says_so(tmp_path):
    with pytest.raises(BadCheckpoint, match="no such checkpoint file"):
        replay(tmp_path / "none.pt", CPU)


CAFFE, EXACT, PLAIN = (
    f"loss={{name: a-softmax, m: {m}, gradient: {gradient}}}"
    for m, gradient in ((4, "caffe"), (4, "exact"), (1, "caffe"))
)


@pytest.mark.parametrize(
    ("overrides", "advised"),
    [
        ([CAFFE], True),
        ([EXACT], False),
        ([PLAIN], False),  # its gradients are exact
        ([PLAIN, "train.stages=[{until: 0.5, loss: {m: 4}}]"], True),
    ],
)
def test_exact_gradients_are_advised_where_caffe_s_were_not_finite(config_file, overrides, advised):
    with pytest.raises(UserError, match="try .*a lower train.lr") as caught:
        train_with(config_file, *overrides, before_step=poison(5))
    assert ("try loss.gradient exact" in str(caught.value)) == advised


def test_unknown_answer_to_a_nonfinite_step(config_file):
    with pytest.raises(UserError, match="train.on_nonfinite: got 'ignore' · allowed: one of stop, skip"):
        load(config_file, "train.on_nonfinite=ignore")
