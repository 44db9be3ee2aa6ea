"""Figures and log lines of a run where files are damaged, or cannot be written."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from sphereface.training.monitor import Monitor, start_logging
from sphereface.training.sinks import Session, tensorboard


class Full:
    """A file on a disk that is full."""

    def write(self, _: object) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_what_a_terminal_would_obey_is_escaped(tmp_path, capsys):
    start_logging(tmp_path)
    logging.getLogger("sphereface").warning("data: %s: is no image", "a\x1b[2J\udcff")
    start_logging()
    for text in (capsys.readouterr().err, (tmp_path / "train.log").read_text()):
        assert text.endswith(r"data: a\x1b[2J\udcff: is no image" + "\n")


def test_a_log_file_on_a_full_disk_is_told_once(tmp_path, capsys):
    start_logging(tmp_path)
    logger = logging.getLogger("sphereface")
    (file,) = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    real, file.stream = file.stream, Full()
    for number in range(3):
        logger.info("line %d", number)
    start_logging()  # closes the file
    real.close()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "Logging error" not in said
    assert said.count("train.log could not be written: No space left on device · training continues") == 1
    assert all(f"line {number}" in said for number in range(3))


def test_a_terminal_that_is_gone_ends_no_run(tmp_path, monkeypatch):
    start_logging(tmp_path)
    monkeypatch.setattr("sys.stderr", Full())
    logging.getLogger("sphereface").info("a line")
    start_logging()
    assert "a line" in (tmp_path / "train.log").read_text(encoding="utf-8")


def test_damaged_lines_are_dropped(tmp_path):
    whole = [json.dumps({"step": step, "train/loss": 1.0}).encode() for step in (1, 2, 3)]
    damaged = [b"\xff\xfe", b"[" * 100_000, b"[1]", b'{"step": "2"}', b'{"loss": 1}', b"null", b'{"step": 1']
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([whole[0], *damaged, whole[1], whole[2]]))
    with Monitor(Session(tmp_path, step=2), ["jsonl"]):
        pass
    assert path.read_bytes() == b"\n".join([*whole[:2], b""])


def test_events_that_cannot_be_begun_are_told_once(tmp_path, monkeypatch, caplog):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard, "SummaryWriter", full)
    with caplog.at_level(logging.ERROR), Monitor(Session(tmp_path), ["jsonl", "tensorboard"]) as watched:
        watched.scalars(1, {"train/loss": 1.0}, images_seen=8)
        watched.scalars(2, {"train/loss": 1.0}, images_seen=16)
    assert caplog.text.count("could not be written") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_events_on_a_full_disk_print_no_traceback_and_leave_no_empty_file(tmp_path, monkeypatch, caplog):
    resource = pytest.importorskip("resource")
    met: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", met.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        with caplog.at_level(logging.ERROR), Monitor(Session(tmp_path), ["jsonl", "tensorboard"]) as watched:
            for step in range(1, 4):
                watched.text(step, "config", "x" * 100_000)
                other = threading.Thread(target=lambda: 1 / 0)
                other.start()
                other.join()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.text.count("could not be written") == 1
    assert [args.exc_type for args in met] == [ZeroDivisionError] * 3
    assert list(tmp_path.glob("events*")) == []
    assert threading.excepthook == met.append


@pytest.fixture(autouse=True)
def quiet_again():
    yield
    start_logging()
