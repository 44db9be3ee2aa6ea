"""Checkpoint files: whole or refused, and no code is ever run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from sphereface import checkpoint_meta
from sphereface.checkpoint import (
    BadCheckpoint,
    check_savable,
    link_checkpoint,
    load_checkpoint,
    load_with_sha256,
    save_checkpoint,
    saved_bytes,
)
from sphereface.checkpoint_place import new_checkpoint, occupied
from sphereface.errors import UserError

STATE = {"weights": {"a": torch.arange(1000.0)}, "meta": {"step": 3, "names": ["x", "y"], "best": None}}


@pytest.fixture
def saved(tmp_path):
    save_checkpoint(tmp_path / "step.pt", STATE, {"step": 3})
    return tmp_path / "step.pt"


def test_round_trip(saved):
    state = load_checkpoint(saved)
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
    assert state["meta"] == STATE["meta"]
    sidecar = json.loads(saved.with_suffix(".json").read_text())
    assert (sidecar["step"], sidecar["bytes"]) == (3, saved.stat().st_size)
    assert len(sidecar["sha256"]) == 64


def with_a_hole(path):
    """Zero some bytes in the middle of the 4,000 bytes of the tensor."""
    data = path.read_bytes()
    start = data.index(STATE["weights"]["a"].numpy().tobytes())
    path.write_bytes(data[: start + 2000] + bytes(400) + data[start + 2400 :])
    return path


def test_a_copy_with_a_hole_is_refused_also_without_its_sidecar(saved):
    with_a_hole(saved)
    with pytest.raises(BadCheckpoint, match=r"altered since it was saved"):
        load_checkpoint(saved)
    saved.with_suffix(".json").unlink()
    for mapped in (False, True):
        with pytest.raises(BadCheckpoint, match=r"its part '\w+/data/0' is not as it was saved · copy the file again"):
            load_checkpoint(saved, mapped=mapped)


def test_a_file_without_checksums_is_read(saved):
    """As torch writes it where they are switched off."""
    saved.with_suffix(".json").unlink()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(load_checkpoint(saved), saved)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint(saved)["meta"] == STATE["meta"]


def test_nothing_else_stays_in_the_folder(saved):
    assert sorted(p.name for p in saved.parent.iterdir()) == ["step.json", "step.pt"]


def test_a_failed_save_leaves_the_old_file_whole(saved, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, {"weights": {}}, {})
    assert load_checkpoint(saved)["meta"]["step"] == 3
    assert sorted(p.name for p in saved.parent.iterdir()) == ["step.json", "step.pt"]


@pytest.mark.parametrize("room", [0, 64, 5000, 9000, 400_000, 404_000])
def test_a_disk_that_is_full_at_any_byte_is_an_error_of_the_system(saved, room):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"weights": {"a": torch.arange(100_000.0), "b": torch.arange(1000.0)}, "meta": {"step": 4}}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(saved, state, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(saved)["meta"]["step"] == 3
    assert sorted(p.name for p in saved.parent.iterdir()) == ["step.json", "step.pt"]


def test_a_second_name_is_the_same_file(saved):
    best = link_checkpoint(saved, "best")
    assert best.samefile(saved)
    save_checkpoint(saved.with_name("later.pt"), {"meta": {"step": 9}}, {})
    link_checkpoint(saved.with_name("later.pt"), "best")
    assert load_checkpoint(best)["meta"]["step"] == 9
    assert load_checkpoint(saved)["meta"]["step"] == 3


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadCheckpoint, match="step.pt: truncated, damaged or not a checkpoint"):
        load_checkpoint(saved)


def test_what_is_no_checkpoint_is_told_so_and_no_more(saved):
    """Not in torch's words: they say how to switch its safety off."""
    for data, said in (
        (bytes(range(256)), "truncated, damaged or not a checkpoint$"),
        (b"\x08\x0a\x12\x07pytorch\x1a" + bytes(40), "an ONNX file · sphereface eval --onnx"),
        (b"mine\n", "a text file, which holds no weights"),
    ):
        saved.write_bytes(data)
        with pytest.raises(BadCheckpoint, match=f"step.pt: {said}"):
            load_checkpoint(saved)
    torch.jit.save(torch.jit.script(torch.nn.Identity()), saved)
    with pytest.raises(BadCheckpoint, match="step.pt: a TorchScript program · give its weights"):
        load_checkpoint(saved)


def test_one_flipped_bit_is_noticed(saved):
    data = bytearray(saved.read_bytes())
    data[data.find(torch.arange(500.0, 520.0).numpy().tobytes())] ^= 1
    saved.write_bytes(data)
    with pytest.raises(BadCheckpoint, match="altered|damaged"):
        load_checkpoint(saved)


def test_a_sidecar_of_the_save_before_is_not_held_against_it(saved):
    old = saved.with_suffix(".json").read_text()
    save_checkpoint(saved, {"meta": {"step": 4}}, {})
    saved.with_suffix(".json").write_text(old)  # as if killed between the two files
    assert load_checkpoint(saved)["meta"]["step"] == 4
    saved.with_suffix(".json").unlink()
    assert load_checkpoint(saved)["meta"]["step"] == 4


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, save):
    trap = tmp_path / "trap"
    save({"format": 1, "id": "x", "evil": _Evil(trap)}, tmp_path / "evil.pt")
    with pytest.raises(BadCheckpoint, match="evil.pt: (refused|truncated, damaged or not)"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not trap.exists()


def test_a_file_of_something_else(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(BadCheckpoint, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "other.pt")
    with pytest.raises(BadCheckpoint, match="no such checkpoint file"):
        load_checkpoint(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("n" * 300, "cannot be read .File name too long."), ("a\0b", "cannot be read .embedded null byte."),
     ("file/x.pt", "no such checkpoint file"), ("folder", "got a folder"), ("fifo", "got a device or a pipe")],
)  # fmt: skip
def test_a_name_of_no_checkpoint_is_one_line(tmp_path, name, reason):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadCheckpoint, match=reason):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "\udcff"])
def test_a_sidecar_of_something_else_is_passed_over(saved, text):
    saved.with_suffix(".json").write_text(text, errors="surrogateescape")
    assert load_checkpoint(saved)["meta"]["step"] == 3


def test_a_sidecar_that_waits_for_a_writer_is_passed_over(saved):
    saved.with_suffix(".json").unlink()
    os.mkfifo(saved.with_suffix(".json"))
    assert load_checkpoint(saved)["meta"]["step"] == 3


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def repeated(depth):
    value: list = ["x"]
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize("value", [nested(300), repeated(9), torch.ones(2), b"x", {1: 2}])
@pytest.mark.parametrize("key", ["config", "other"])
def test_a_meta_that_is_not_plain_is_one_line(tmp_path, monkeypatch, key, value):
    monkeypatch.setattr(checkpoint_meta, "_MOST_VALUES", 400)
    save_checkpoint(tmp_path / "a.pt", {"meta": {key: {"a": value}}}, {})
    with pytest.raises(BadCheckpoint, match=f"a.pt: meta.{key}: got .* · allowed: ") as caught:
        load_checkpoint(tmp_path / "a.pt")
    assert len(str(caught.value)) < 600


def test_a_second_name_of_a_file_without_its_sidecar_has_none_either(saved):
    link_checkpoint(saved, "best")
    saved.with_suffix(".json").unlink()
    link_checkpoint(saved, "best")
    assert not (saved.parent / "best.json").exists()


def test_a_kill_before_the_file_has_its_name_leaves_no_name_occupied(tmp_path, monkeypatch):
    path, replace = tmp_path / "a.pt", Path.replace

    def killed(self, target):
        if target == path:
            os._exit(9)
        return replace(self, target)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", killed)
        save_checkpoint(path, STATE, {})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (path.exists(), path.with_suffix(".json").exists()) == (False, True)
    assert occupied(path) is None
    save_checkpoint(path, STATE, {})
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert (sidecar["id"], sidecar["bytes"]) == (load_checkpoint(path)["id"], path.stat().st_size)
    assert occupied(path) == path


def test_a_file_of_the_user_beside_a_checkpoint_is_kept(tmp_path):
    (tmp_path / "a.json").write_text('{"mine": 1}')
    assert occupied(tmp_path / "a.pt") == tmp_path / "a.json"


@pytest.mark.parametrize("mark", [torch.zeros(0), torch.ones(2), torch.ones(1), True, 1.0, "1", [1]])
def test_a_mark_of_another_type_is_one_line(tmp_path, mark):
    torch.save({"format": mark, "id": "x"}, tmp_path / "x.pt")
    with pytest.raises(BadCheckpoint, match="x.pt: not a checkpoint of this program"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_folder_and_a_device_are_called_so(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"got a folder · allowed: a checkpoint file"):
        load_checkpoint(tmp_path)
    with pytest.raises(BadCheckpoint, match=r"/dev/null: got a device or a pipe · allowed: a checkpoint file"):
        load_checkpoint(Path("/dev/null"))


def meanwhile(monkeypatch, act):
    """Do something between the opening of a checkpoint and the reading of its weights."""
    load = torch.load

    def slow(*args, **options):
        act()
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", slow)


def test_the_hash_is_that_of_the_weights_though_a_run_replaces_the_file(saved, monkeypatch):
    before = hashlib.sha256(saved.read_bytes()).hexdigest()
    meanwhile(monkeypatch, lambda: save_checkpoint(saved, {"meta": {"step": 4}}, {}))
    state, digest = load_with_sha256(saved)
    assert (state["meta"]["step"], digest) == (3, before)
    assert hashlib.sha256(saved.read_bytes()).hexdigest() != before


def test_a_mapped_checkpoint_that_is_replaced_is_refused(saved, monkeypatch):
    meanwhile(monkeypatch, lambda: save_checkpoint(saved, {"meta": {"step": 4}}, {}))
    with pytest.raises(BadCheckpoint, match="step.pt: changed while it was read · run the command again"):
        load_with_sha256(saved, mapped=True)


def test_a_file_that_is_written_to_while_it_is_read_is_refused(saved, monkeypatch):
    meanwhile(monkeypatch, lambda: os.utime(saved, ns=(1, 1)))
    with pytest.raises(BadCheckpoint, match="step.pt: changed while it was read"):
        load_with_sha256(saved)


def test_a_second_name_given_meanwhile_is_no_change(saved, monkeypatch):
    meanwhile(monkeypatch, lambda: link_checkpoint(saved, "best"))
    assert load_checkpoint(saved)["meta"]["step"] == 3


@pytest.mark.parametrize("state", [STATE, {}, {"meta": {"names": ["ü" * k for k in range(90)]}}])
def test_the_size_is_known_before_it_is_written(tmp_path, state):
    save_checkpoint(tmp_path / "a.pt", state, {})
    assert saved_bytes(state) == (tmp_path / "a.pt").stat().st_size


def test_a_new_name_is_for_one_process(tmp_path):
    path = tmp_path / "a.pt"
    with new_checkpoint(path, "--output"):
        child = os.fork()
        if child == 0:
            try:
                with new_checkpoint(path, "--output"):
                    os._exit(0)
            except UserError as error:
                os._exit(3 if "--output: another process is writing" in str(error) else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        save_checkpoint(path, STATE, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.pt"]
    with pytest.raises(UserError, match="OUT: .*a.pt exists already"), new_checkpoint(path, "OUT"):
        pass
    assert load_checkpoint(path)["meta"] == STATE["meta"]


def test_a_new_checkpoint_that_fails_leaves_no_file(tmp_path):
    path = tmp_path / "a.pt"

    def interrupted():
        with new_checkpoint(path, "--output"):
            save_checkpoint(path, STATE, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("times", "fits"), [(12, True), (60, True), (80, False)])
def test_one_layer_may_be_used_several_times(tmp_path, times, fits):
    """A network's list may hold one block again and again; a small file cannot claim far more than it holds."""
    weight = torch.randn(100, 1000)
    state = {"meta": {}, "model": {f"blocks.{number}.weight": weight for number in range(times)}}
    save_checkpoint(tmp_path / "x.pt", state, {})
    if fits:
        check_savable(state, "it")
        assert len(load_checkpoint(tmp_path / "x.pt")["model"]) == times
    else:
        with pytest.raises(
            BadCheckpoint,
            match=r"it cannot be saved: blocks\.\d+\.weight: claims .* with \.clone",
        ):
            check_savable(state, "it")
        with pytest.raises(BadCheckpoint, match=r"blocks\.\d+\.weight: claims more numbers than the file holds"):
            load_checkpoint(tmp_path / "x.pt")
