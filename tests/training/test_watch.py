"""What a run tells while it goes: lines by time as well as by steps, on the terminal or beside the bar."""

from __future__ import annotations

import logging
import re
import sys
import threading

import pytest

from sphereface.training import heartbeat, watch
from sphereface.training.heartbeat import Heartbeat
from sphereface.training.loop import Loop
from sphereface.training.monitor import FILE_ONLY, start_logging
from sphereface.training.progress import TimeLeft
from sphereface.training.run import run_training
from sphereface.training.trainer import Trainer
from sphereface.training.validation import Validator

from .runs import CPU, load, train


class Clock:
    """A clock that the waiting for an event moves on."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(heartbeat.time, "monotonic", lambda: self.now)


def test_a_line_at_least_every_30_seconds(monkeypatch):
    clock, lines = Clock(monkeypatch), []
    heart = Heartbeat(lambda: lines.append(clock.now))
    saying = {40.0}  # when something else is told

    def wait(seconds: float) -> bool:
        clock.now = min([clock.now + seconds, *(when for when in saying if when > clock.now)])
        if clock.now in saying:
            heart.reset()
        return clock.now > 150

    monkeypatch.setattr(heart._ended, "wait", wait)
    heart._run()
    assert lines == [5.0, 34.0, 69.0, 98.0, 127.0]
    assert (
        max(
            b - a for a, b in zip([0.0, 5.0, 34.0, 40.0, 69.0, 98.0], [5.0, 34.0, 40.0, 69.0, 98.0, 127.0], strict=True)
        )
        <= 30
    )


def test_it_speaks_while_the_program_is_busy_and_ends_with_it():
    spoken = threading.Event()
    with Heartbeat(spoken.set, first=0.0) as heart:
        assert spoken.wait(600)
    assert not heart._thread.is_alive()


def test_the_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sphereface.training.progress.time.perf_counter", lambda: now[0])
    share = [0.2]
    left = TimeLeft(lambda: share[0])
    assert left.words() == ""
    share[0], now[0] = 0.3, 700.0  # a tenth in ten minutes, of a run that was resumed
    assert left.words() == "about 1 h 10 min left"
    share[0] = 1.0
    assert left.words() == ""


def test_the_time_left_is_at_most_what_the_clock_allows(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sphereface.training.progress.time.perf_counter", lambda: now[0])
    share, allowed = [0.0], [float("inf")]
    left = TimeLeft(lambda: share[0], lambda: allowed[0])
    share[0], now[0] = 0.5, 600.0
    assert left.words() == "about 10 min left"
    allowed[0] = 120.0
    assert left.words() == "about 2 min left"
    allowed[0] = -1.0  # the last step began before the clock's end
    assert left.words() == "about 0 s left"


@pytest.mark.parametrize(("minutes", "said"), [("null", "9 min"), ("8", "6 min")])
def test_the_time_left_counts_larger_images_to_come(config_file, tmp_path, monkeypatch, minutes, said):
    """Half of the steps are at a quarter of the pixels: half of them take a minute, the rest nine."""
    now, share = [0.0], [0.0]
    monkeypatch.setattr("sphereface.training.progress.time.perf_counter", lambda: now[0])
    stages = "train.stages=[{until: 0.5, input_size: [16, 16]}]"
    config = load(config_file, stages, f"train.max_minutes={minutes}")
    progress = Trainer(config, CPU).progress
    sizes = {"num_images": 35, "num_classes": 5, "total_steps": 12}
    follower = watch.Watch(config, tmp_path, progress, lambda: share[0], **sizes)
    share[0], now[0], progress.seconds = 0.25, 60.0, 120.0
    assert follower._left.words() == f"about {said} left"


LONG_WINDOW = ("log.every_steps=100",)


def test_lines_by_time_say_share_and_time_left(config_file, monkeypatch, caplog):
    """No line is due by steps, and each step takes 30 s."""
    hearts = []
    monkeypatch.setattr(watch, "Heartbeat", lambda report: hearts.append(Heartbeat(report, first=1e6)) or hearts[0])
    step = watch.Watch.step

    def slow_step(self, result, batch):
        step(self, result, batch)
        if self._progress.step in (5, 9):
            assert hearts[0]._thread.is_alive()
            hearts[0]._report()

    monkeypatch.setattr(watch.Watch, "step", slow_step)
    with caplog.at_level(logging.INFO):
        train(config_file, *LONG_WINDOW)
    lines = [r.message for r in caplog.records if re.match(r"step \d+ · [\d.]+ %", r.message)]
    assert [line.rsplit(" · ", 1)[0] for line in lines] == ["step 1 · 8.3 %", "step 5 · 41.7 %", "step 9 · 75.0 %"]
    assert all(re.search(r" · about \S+ (s|min) left$", line) for line in lines)


def test_a_start_that_takes_long_is_told(config_file, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(watch.log, "info", lambda text, *args, **_: said.append(text % args))
    trainer = Trainer(load(config_file), CPU)
    follower = watch.Watch(trainer.config, tmp_path, trainer.progress, trainer.share, num_images=35, num_classes=5)
    with follower:
        follower._log_position()
        trainer.progress.step += 1  # the step is done, but not recorded yet
        follower._log_position()
    assert said[0] == "step 0 · 0.0 % · waiting for the first step"
    assert said[1].startswith("step 1 · ")
    assert "waiting" not in said[1]


def test_a_long_evaluation_says_how_far_it_is(config_file, monkeypatch):
    """Whoever looks in the middle of it is told the set and the number of images."""
    trainer = Trainer(load(config_file), CPU)
    validator, seen = trainer.validator, []
    forward = type(trainer.learner.model).forward

    def looking(model, images):
        seen.append(validator.doing)
        return forward(model, images)

    monkeypatch.setattr(type(trainer.learner.model), "forward", looking)
    object.__setattr__(trainer.config.eval, "batch_size", 10)
    images = len(validator.sets[0].images.found())
    after = [validator.doing for _ in validator.evaluate(trainer.learner.model)]
    assert seen[0] == "evaluating mine"
    assert seen[1:] == [f"evaluating mine: {done:,} of {images:,} images" for done in range(10, images, 10)]
    assert len(seen) > 2
    assert after == [""]
    assert validator.doing == ""


def test_the_watch_tells_what_the_validator_does(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(Validator, "doing", "evaluating mine: 7 of 9 images")
    trainer = Trainer(load(config_file), CPU)
    run = type("Run", (), {"path": tmp_path})
    said = []
    monkeypatch.setattr(watch.log, "info", lambda text, *args, **_: said.append(text % args))
    with Loop(trainer, run).new_watch(evaluates_again=False) as follower:
        follower._log_position()
    assert said == ["step 0 · 0.0 % · evaluating mine: 7 of 9 images"]


def test_beside_the_bar_lines_go_to_the_file_alone(config_file, tmp_path, monkeypatch):
    class Terminal:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    run_training(str(config_file), ["train.steps=3", "train.milestones=[]", "eval.every_steps=9"], device="cpu")
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    in_file = (run / "train.log").read_text(encoding="utf-8")
    assert len(re.findall(r"step [123] · [\d.]+ % · (about .* left · )?loss", in_file)) == 3
    assert "%|" in sys.stderr.text
    assert "% · " not in sys.stderr.text


def test_without_a_terminal_lines_go_to_both(config_file, tmp_path, capsys):
    run_training(str(config_file), ["train.steps=3", "train.milestones=[]", "eval.every_steps=9"], device="cpu")
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    for text in ((run / "train.log").read_text(encoding="utf-8"), capsys.readouterr().err):
        assert len(re.findall(r"step [123] · [\d.]+ % · (about .* left · )?loss", text)) == 3


@pytest.mark.parametrize("extra", [None, FILE_ONLY])
def test_a_line_for_the_file(tmp_path, capsys, extra):
    start_logging(tmp_path)
    logging.getLogger("sphereface.test").info("a line", extra=extra)
    start_logging()
    assert ("a line" in capsys.readouterr().err) == (extra is None)
    assert "a line" in (tmp_path / "train.log").read_text(encoding="utf-8")


def test_a_contact_sheet_that_cannot_be_written_only_warns(config_file, monkeypatch, caplog):
    def full(path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(watch, "write_whole", full)
    run = train(config_file, "train.steps=1")
    assert (run / "last.pt").is_file()
    assert "crops.png could not be written" in caplog.text
    assert "No space left on device · training continues" in caplog.text
