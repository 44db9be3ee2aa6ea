"""Sinks: a resume has no seam in any of them, and one that fails or is slow costs a run nothing."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import struct
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as AsTensorBoardReads
from tensorboard.summary.writer import event_file_writer

from sphereface.config import config_from_dict, load_config
from sphereface.errors import ConfigError, UserError
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.training.monitor import Monitor
from sphereface.training.run_folder import RunFolder
from sphereface.training.sinks import SINKS, Session, Sink, channel, check_sinks, register_sink
from sphereface.training.sinks.descriptions import description
from sphereface.training.sinks.written import Written

from .runs import load, metrics_of, train

SETS = ("eval.every_steps=4", "log.histogram_every_steps=4", "checkpoint.every_steps=4")
ALL = [*range(1, 13)]  # the steps of the tiny run
EVALUATED = [4, 8, 12]


@pytest.fixture
def sinks():
    """Sinks that a test registers are gone afterwards."""
    before = dict(SINKS)
    yield SINKS
    SINKS.clear()
    SINKS.update(before)


@pytest.fixture
def offline(monkeypatch):
    """Nothing of W&B and MLflow leaves the machine."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setattr(channel, "PATIENCE", 600.0)  # on a busy machine


def resumed(config_file: Path, sink: str) -> Path:
    """A run killed after step 6, whose checkpoint is of step 4 and whose evaluation of step 4 is repeated."""
    settings = (*SETS, f"log.sinks=[jsonl, {sink}]")
    run = train(config_file, *settings, stop_at=6)
    assert train(config_file, *settings, resume="auto") == run
    assert list(metrics_of(run, "train/loss")) == ALL
    assert list(metrics_of(run, "eval/mine/accuracy")) == EVALUATED
    return run


# ---------------------------------------------------------------- TensorBoard


def test_a_resume_has_no_seam_in_tensorboard(config_file, monkeypatch):
    # two sessions of one second: TensorBoard reads their files by name, in which the 10th comes before the 9th
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(1000))
    events = EventAccumulator(str(resumed(config_file, "tensorboard")), size_guidance={"histograms": 0})  # 0: all
    events.Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps["train/loss"] == steps["train/lambda"] == ALL
    assert steps["eval/mine/accuracy"] == steps["eval/mine/fold_1"] == EVALUATED
    assert [event.step for event in events.Images("eval/mine/roc")] == EVALUATED
    assert [event.step for event in events.Histograms("train/embedding_norm")] == EVALUATED


def test_an_evaluation_that_was_cut_off_is_in_tensorboard_after_the_resume(tmp_path):
    """The first session ends before the evaluation of its step."""
    with Monitor(Session(tmp_path), ["tensorboard"]) as first:
        first.scalars(4, {"train/loss": 2.0}, images_seen=32)
    with Monitor(Session(tmp_path, step=4, evaluates_again=True), ["tensorboard"]) as second:
        second.scalars(4, {"eval/mine/accuracy": 0.5}, images_seen=32)
    events = EventAccumulator(str(tmp_path), purge_orphaned_data=False)
    events.Reload()
    assert [event.value for event in events.Scalars("eval/mine/accuracy")] == [0.5]


def test_every_scalar_of_a_run_has_a_description_in_tensorboard(config_file):
    run = train(config_file, *SETS, "log.sinks=[jsonl, tensorboard]")
    events = AsTensorBoardReads(str(run))
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith(("train/", "eval/"))]
    told = {tag: events.SummaryMetadata(tag).summary_description for tag in tags}
    scalars = {
        tag for line in (run / "metrics.jsonl").read_text().splitlines() for tag in json.loads(line) if "/" in tag
    }
    assert len(scalars) > 12
    assert [tag for tag in scalars if not told[tag]] == []
    assert told["train/grad_norm"] == "L2 norm over all gradients, before clipping."
    assert description("train/unheard_of") == description("eval/mine/unheard_of") == description("config") == ""


@pytest.mark.parametrize(("loss", "has"), [("a-softmax", True), ("cosface", False)])
def test_lambda_is_shown_only_where_the_loss_has_one(config_file, caplog, loss, has):
    caplog.set_level(logging.INFO)
    run = train(config_file, f"loss={{name: {loss}}}", "train.steps=2", "train.milestones=[]")
    assert bool(metrics_of(run, "train/lambda")) == has
    lines = [record.getMessage() for record in caplog.records if " lr " in record.getMessage()]
    assert lines
    assert all(("λ" in line) == has for line in lines)


# ---------------------------------------------------------------- Weights & Biases


def rows_of_wandb(folder: Path) -> list[dict[str, object]]:
    """The rows of all sessions, as `wandb sync` uploads them: in the order of their files."""
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    sys.modules["wandb"].teardown()  # finish() returns before the file is written; this waits for the writer to end
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for whole in _records_of(path.read_bytes()):
            record = records.Record()
            record.ParseFromString(whole)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                found.append({(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in items})
    return found


def _records_of(data: bytes):
    """LevelDB's log: blocks of 32 KiB, each of parts with a head of checksum, length and kind."""
    at, part = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def steps_of(rows: list[dict[str, object]], name: str) -> list[object]:
    return [row["step"] for row in rows if any(key == name or key.startswith(f"{name}/") for key in row)]


def test_a_resume_has_no_seam_in_weights_and_biases(config_file, offline, caplog):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    caplog.set_level(logging.INFO)
    run = resumed(config_file, "wandb")
    rows = rows_of_wandb(run)
    assert steps_of(rows, "train/loss") == ALL
    assert steps_of(rows, "eval/mine/accuracy") == steps_of(rows, "eval/mine/roc") == EVALUATED
    assert steps_of(rows, "train/embedding_norm") == EVALUATED
    own = [row["_step"] for row in rows]
    assert len(set(own)) == len(own)
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert losses == pytest.approx(metrics_of(run, "train/loss"))
    (name,) = {path.stem.removeprefix("run-") for path in run.glob("wandb/offline-run-*/*.wandb")}
    assert len(list(run.glob("wandb/offline-run-*"))) == 2
    assert json.loads((run / "wandb.json").read_text())["run_id"] == name
    assert "wandb: figures up to step 6 stay as an earlier session sent them" in caplog.text


def test_without_a_login_training_continues_and_nothing_is_asked(tmp_path, monkeypatch, caplog):
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(channel, "PATIENCE", 600.0)
    wandb.teardown()  # it reads its settings anew
    try:
        with Monitor(Session(tmp_path), ["jsonl", "wandb"]) as monitor:
            monitor.scalars(1, {"train/loss": 1.0}, images_seen=8)
    finally:
        wandb.teardown()
    assert caplog.text.count("log.sinks: wandb: no API key · run `wandb login`, or set WANDB_MODE=offline") == 1
    assert metrics_of(tmp_path, "train/loss") == {1: 1.0}


# ---------------------------------------------------------------- MLflow


def test_a_resume_has_no_seam_in_mlflow(config_file, tmp_path, offline, monkeypatch, caplog):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the store that needs no database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    run = resumed(config_file, "mlflow")
    client = mlflow.MlflowClient((tmp_path / "store").as_uri())
    experiment = client.get_experiment_by_name("tiny")
    (found,) = client.search_runs([experiment.experiment_id])
    run_id = found.info.run_id
    assert json.loads((run / "mlflow.json").read_text())["run_id"] == run_id
    assert found.info.status == "FINISHED"
    assert found.info.run_name == run.name
    assert found.data.params["train.lr"] == "0.05"

    def history(name: str) -> dict[int, float]:
        values = client.get_metric_history(run_id, name)
        assert max(Counter(value.step for value in values).values()) == 1
        return {value.step: value.value for value in sorted(values, key=lambda value: value.step)}

    assert history("train/loss") == pytest.approx(metrics_of(run, "train/loss"))
    assert history("train/images_seen") == {step: 8 * step for step in ALL}
    assert history("eval/mine/accuracy") == pytest.approx(metrics_of(run, "eval/mine/accuracy"))
    roc = [path.path for path in client.list_artifacts(run_id, "images") if "roc" in path.path and ".png" in path.path]
    assert len(roc) == len(EVALUATED)
    assert "Traceback" not in caplog.text


def test_a_run_that_was_killed_is_no_finished_one_in_mlflow(tmp_path, offline, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    with pytest.raises(ZeroDivisionError), Monitor(Session(tmp_path, config={"a": {"b": 1}}), ["mlflow"]):
        raise ZeroDivisionError
    run_id = json.loads((tmp_path / "mlflow.json").read_text())["run_id"]
    assert mlflow.MlflowClient().get_run(run_id).info.status == "KILLED"


# ---------------------------------------------------------------- what fails, and what is slow


class Kept(Sink):
    """Keeps its calls."""

    calls: list[tuple[object, ...]]

    def start(self, session):
        type(self).calls = [("start", session.step)]

    def scalars(self, step, values, images_seen):
        self.calls.append(("scalars", step, values))

    def close(self, complete):
        self.calls.append(("close", complete))


def test_a_sink_that_fails_is_told_once_and_training_continues(config_file, sinks, caplog):
    @register_sink("broken")
    class Broken(Kept):
        def scalars(self, step, values, images_seen):
            super().scalars(step, values, images_seen)
            if step == 3:
                raise ConnectionError("server away\nTraceback …")

    run = train(config_file, *SETS, "log.sinks=[broken, jsonl]")
    assert caplog.text.count("log.sinks: broken: ConnectionError: server away · training continues without it") == 1
    assert [call[1] for call in Broken.calls if call[0] == "scalars"] == [1, 2, 3]
    assert Broken.calls[-1] == ("close", False)
    assert list(metrics_of(run, "train/loss")) == ALL


def test_a_sink_that_changes_what_it_gets_changes_nothing_for_the_others(config_file, sinks):
    @register_sink("changing")
    class Changing(Kept):
        def scalars(self, step, values, images_seen):
            values.clear()

        def histogram(self, step, name, values):
            values[:] = 7

        def image(self, step, name, image):
            image[:] = 0

    seen = []

    @register_sink("seeing")
    class Seeing(Kept):
        def histogram(self, step, name, values):
            seen.append(values.copy())

        def image(self, step, name, image):
            seen.append(image.copy())

    run = train(config_file, *SETS, "log.sinks=[changing, seeing, jsonl]")
    assert list(metrics_of(run, "train/loss")) == ALL
    assert seen
    assert all(len(np.unique(values)) > 1 for values in seen)


@pytest.mark.parametrize("background", [False, True])
def test_a_sink_that_cannot_begin_is_told_once(tmp_path, sinks, caplog, background):
    @register_sink("broken")
    class Broken(Kept):
        def start(self, session):
            raise UserError("no login")

    Broken.background = background
    with Monitor(Session(tmp_path), ["broken", "jsonl"]) as monitor:
        for step in (1, 2):
            monitor.scalars(step, {"train/loss": 1.0}, images_seen=8)
    assert caplog.text.count("log.sinks: broken: no login · training continues without it") == 1
    assert list(metrics_of(tmp_path, "train/loss")) == [1, 2]


def test_a_slow_sink_delays_no_step_and_gets_everything_in_order(tmp_path, sinks):
    gate = threading.Event()

    @register_sink("slow")
    class Slow(Kept):
        background = True

        def start(self, session):
            super().start(session)
            assert gate.wait(600)

    with Monitor(Session(tmp_path), ["slow"]) as monitor:
        for step in range(5):
            monitor.scalars(step, {"train/loss": 1.0}, images_seen=8)  # returns while the sink still starts
        gate.set()
    assert Slow.calls == [
        ("start", 0), *(("scalars", step, {"train/loss": 1.0}) for step in range(5)), ("close", True),
    ]  # fmt: skip


@pytest.fixture
def gate(sinks):
    """A sink "hung" that does not start before this event is set."""
    gate = threading.Event()

    @register_sink("hung")
    class Hung(Kept):
        background = True

        def start(self, session):
            gate.wait(600)

    return gate


def test_a_sink_that_hangs_does_not_hold_up_the_end_of_a_run(tmp_path, gate, monkeypatch, caplog):
    monkeypatch.setattr(channel, "PATIENCE", 0.05)
    with Monitor(Session(tmp_path), ["hung"]):
        pass
    assert "log.sinks: hung did not take all figures within 0 s" in caplog.text
    gate.set()


def test_a_sink_that_never_catches_up_is_given_up(tmp_path, gate, monkeypatch, caplog):
    monkeypatch.setattr(channel, "_MOST_CALLS", 4)
    monkeypatch.setattr(channel, "PATIENCE", 0.05)
    with Monitor(Session(tmp_path), ["hung"]) as monitor:
        for step in range(9):
            monitor.scalars(step, {"train/loss": 1.0}, images_seen=8)
    assert caplog.text.count("log.sinks: hung: 4 calls wait for it · training continues without it") == 1
    gate.set()


def test_what_no_sink_takes_is_neither_copied_nor_drawn(tmp_path, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("copied to the host")

    monkeypatch.setattr(torch.Tensor, "cpu", never)
    with Monitor(Session(tmp_path), ["jsonl"]) as monitor:
        monitor.histogram(1, "train/embedding_norm", torch.ones(3))
        assert not monitor.takes("image")


def test_a_histogram_has_the_finite_numbers_alone(tmp_path, caplog):
    """TensorBoard's sink ended at one without any."""
    with Monitor(Session(tmp_path), ["tensorboard"]) as monitor:
        monitor.histogram(1, "train/embedding_norm", torch.tensor([1.0, math.inf, 3.0, math.nan]))
        for step, values in ((2, torch.full((4,), math.inf)), (3, torch.tensor([math.nan])), (4, torch.ones(0))):
            monitor.histogram(step, "train/embedding_norm", values)
        monitor.scalars(5, {"train/loss": 2.0}, images_seen=40)
    assert caplog.text == ""
    events = EventAccumulator(str(tmp_path)).Reload()
    (written,) = events.Histograms("train/embedding_norm")
    assert (written.step, written.histogram_value.num, written.histogram_value.sum) == (1, 2.0, 4.0)
    assert [event.step for event in events.Scalars("train/loss")] == [5]


# ---------------------------------------------------------------- what an earlier session sent


def test_what_was_sent_is_remembered_by_group(tmp_path):
    first = Written(tmp_path / "x.json")
    first.begin("abc", 0)
    first.add(20, ["train/loss", "train/lr"])
    first.add(10, ["eval/mine/accuracy"])
    assert not first.has(20, "train/loss")  # by this very session
    second = Written(tmp_path / "x.json")
    assert second.run_id == "abc"
    assert second.has(20, "train/lr")
    assert not second.has(21, "train/lr")
    assert not second.has(20, "eval/mine/accuracy")
    assert not second.has(10, "eval/other/accuracy")
    second.begin("another", 10)  # a new run of the service has nothing
    assert not second.has(20, "train/lr")


def written_in(folder: Path) -> Written:
    folder.mkdir(exist_ok=True)
    written = Written(folder / "x.json")
    written.begin("abc", 0)
    written.add(20, ["train/loss"])
    return written


def test_a_copied_run_folder_begins_a_new_run_and_a_moved_one_continues(tmp_path, caplog, monkeypatch):
    run, copy = tmp_path / "run", tmp_path / "copy"
    written_in(run)
    shutil.copytree(run, copy)
    copied = Written(copy / "x.json")
    assert copied.run_id is None
    assert not copied.has(20, "train/loss")
    line = f"x: {copy / 'x.json'} is a copy of {run / 'x.json'}, where the run abc continues · this folder begins a new"
    assert line in caplog.text
    caplog.clear()
    (tmp_path / "link").symlink_to(run)
    for folder in (run, tmp_path / "link"):
        assert Written(folder / "x.json").run_id == "abc"
    monkeypatch.chdir(tmp_path)
    assert Written(Path("run") / "x.json").has(20, "train/loss")
    copied.begin("def", 4)  # the new run is its own from now on
    assert Written(copy / "x.json").run_id == "def"
    run.rename(tmp_path / "moved")
    assert Written(tmp_path / "moved" / "x.json").has(20, "train/loss")
    run.mkdir()  # another run at the earlier place
    Written(run / "x.json").begin("other", 0)
    assert Written(tmp_path / "moved" / "x.json").run_id == "abc"
    assert caplog.text == ""


@pytest.mark.parametrize("folder", [None, 7, "", "\0", "x" * 5000])
def test_a_file_without_a_usable_folder_continues_its_run(tmp_path, caplog, folder):
    written_in(tmp_path / "run")
    file = tmp_path / "run" / "x.json"
    about = {key: value for key, value in json.loads(file.read_text()).items() if key != "folder"}
    file.write_text(json.dumps(about if folder is None else {**about, "folder": folder}))
    assert Written(file).has(20, "train/loss")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, "[]", "null", '{"run_id": 7, "steps": []}', '{"run_id": "../x", "steps": {"train": "9"}}',
     '{"run_id": "' + "x" * 65 + '", "steps": {"train": 1e400}}', '{"steps": {"train": true}}'],
)  # fmt: skip
def test_a_damaged_file_counts_as_none(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    written = Written(tmp_path / "x.json")
    assert written.run_id is None
    assert not written.has(0, "train/loss")


# ---------------------------------------------------------------- configuration


def values(**log_section: object) -> dict[str, object]:
    return {"data": {"train": "faces"}, "train": {"steps": 9}, "log": log_section}


@pytest.mark.parametrize(
    ("section", "sinks"),
    [
        ({}, ("jsonl", "tensorboard")),
        ({"tensorboard": True}, ("jsonl", "tensorboard")),
        ({"tensorboard": False}, ("jsonl",)),
        ({"tensorboard": False, "sinks": ["tensorboard", "wandb"]}, ("wandb",)),
        ({"tensorboard": True, "sinks": ["wandb"]}, ("wandb", "tensorboard")),
        ({"sinks": []}, ()),
    ],
)
def test_the_older_key_still_works(section, sinks):
    config = config_from_dict(values(**section), source="x", losses=MARGINS, backbones=BACKBONES)
    assert config.log.sinks == sinks
    assert "tensorboard" not in config.to_dict()["log"]


def test_the_older_key_is_named_once(config_file, caplog):
    load_config(str(config_file), losses=MARGINS, backbones=BACKBONES)
    assert caplog.text == ""
    load(config_file, "log.tensorboard=false")
    assert caplog.text.count("log.tensorboard: the key is log.sinks now, a list such as [jsonl, tensorboard]") == 1


@pytest.mark.parametrize("section", [{"tensorboard": "no"}, {"sinks": "wandb"}, {"sinks": [1.5]}, {"sinks": None}])
def test_a_section_of_another_kind_is_refused(section):
    with pytest.raises(ConfigError, match=r"log\.(tensorboard: unknown key|sinks: got .* a list of texts)"):
        config_from_dict(values(**section), source="x", losses=MARGINS, backbones=BACKBONES)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            ["jsonl", "wandbb"],
            r"log.sinks\[1\]: got 'wandbb' · did you mean 'wandb'\? · one of your own: name its file",
        ),
        (["jsonl", "jsonl"], r"log.sinks\[1\]: got 'jsonl' twice · allowed: each sink once"),
    ],
)
def test_a_wrong_name_ends_before_the_run_starts(config_file, names, problem):
    with pytest.raises(UserError, match=problem):
        train(config_file, f"log.sinks=[{', '.join(names)}]")


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_package_that_is_not_there_ends_before_the_run_starts(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"log.sinks: {package} is not installed · pip install '.\[{package}\]'"):
        check_sinks(["jsonl", package])


def test_another_choice_of_sinks_resumes_the_same_run(config_file):
    run = train(config_file, "log.sinks=[jsonl]", stop_at=6)
    found, checkpoint = RunFolder.of_resume("auto", load(config_file, "log.sinks=[]"))
    assert found.path == run
    assert checkpoint is not None


def test_a_taken_name_is_refused():
    with pytest.raises(UserError, match="a sink named 'jsonl' is registered already"):
        register_sink("jsonl")


def test_images_reach_a_sink_as_rgb(config_file, sinks):
    @register_sink("seen")
    class Seen(Kept):
        def image(self, step, name, image):
            self.calls.append((name, image.shape, image.dtype, image.flags["C_CONTIGUOUS"]))

    train(config_file, *SETS, "log.sinks=[seen]")
    images = [call for call in Seen.calls if re.search("crops|roc", str(call[0]))]
    assert [call[0] for call in images] == ["train/crops_as_the_network_sees_them", *["eval/mine/roc"] * 3]
    assert all(len(shape) == 3 and shape[2] == 3 and dtype == np.uint8 for _, shape, dtype, _ in images)


def test_the_figures_of_a_set_that_is_not_evaluated_any_more_stay(config_file):
    run = train(config_file, *SETS, "train.steps=8")
    before = metrics_of(run, "eval/mine/accuracy")
    assert list(before) == [4, 8]
    other = "eval.sets={other: " + str(load(config_file).eval.sets["mine"]) + "}"
    assert train(config_file, *SETS, other, "eval.select=null", "train.steps=10", resume=str(run)) == run
    assert metrics_of(run, "eval/mine/accuracy") == before
    assert list(metrics_of(run, "eval/other/accuracy")) == [8, 10]
