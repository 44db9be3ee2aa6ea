"""Files of weights from strangers: each ends in one line, soon, and costs little memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.models.caffemodel import read_caffemodel
from sphereface.models.published.files import read_contents

from .published import blob, caffemodel, layer, sphere_tensors, write_python2_pth

WEIGHTS = {"a.weight": torch.ones(3, 4)}


class Vast:
    """A pickle of a few bytes that makes 2^40."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (2**40,)


def saved(state: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bytearray_of_any_size_is_refused_before_it_is_made(tmp_path, zipped):
    (tmp_path / "x.pth").write_bytes(saved({**WEIGHTS, "more": Vast()}, zipped=zipped))
    with pytest.raises(BadCheckpoint, match="x.pth: refused: it holds a bytearray, which can claim any size"):
        read_contents(tmp_path / "x.pth")


def test_a_bytearray_in_a_checkpoint_of_this_program(tmp_path):
    (tmp_path / "x.pt").write_bytes(saved({"format": 1, "id": "x", "more": Vast()}))
    with pytest.raises(BadCheckpoint, match="x.pt: refused: it holds a bytearray, which can claim any size"):
        load_checkpoint(tmp_path / "x.pt")


def with_pickle(data: bytes, pickled: bytes, method: int = zipfile.ZIP_STORED, rest: bytes = b"") -> bytes:
    """A zip of torch.save with another data.pkl."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            pkl = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, pickled if pkl else old.read(entry), method if pkl else zipfile.ZIP_STORED)
        if rest:
            new.writestr("x/data/9", rest)
    return file.getvalue()


def test_a_pickle_that_is_far_longer_than_names_of_tensors_is_not_followed(tmp_path):
    (tmp_path / "x.pth").write_bytes(with_pickle(saved(WEIGHTS), b"\x80\x02" + b"]0" * (2**21 + 1) + b"}."))
    with pytest.raises(BadCheckpoint, match=r"refused: its data.pkl has 4,194,310 bytes · allowed: 4,194,304"):
        read_contents(tmp_path / "x.pth")


def test_a_compressed_entry_is_refused_though_the_file_has_room(tmp_path):
    data = with_pickle(saved(WEIGHTS), pickle.dumps(dict.fromkeys(range(999), 1), 2), zipfile.ZIP_DEFLATED, bytes(9999))
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(BadCheckpoint, match="refused: unpacks to"):
        read_contents(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.caffemodel"])
def test_a_fifo_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadCheckpoint, match=rf"{name}: cannot be read: not a regular file"):
        read_contents(tmp_path / name)


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(BadCheckpoint, match="cannot be read: File name too long"):
        read_contents(tmp_path / ("n" * 300))


def safetensors_of(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "__metadata__": 1},
        {"a": [[[[]]]]},
    ],
)
def test_headers_of_safetensors_that_are_none(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(safetensors_of(header))
    with pytest.raises(BadCheckpoint, match=r"truncated, damaged or not a .safetensors"):
        read_contents(tmp_path / "x.safetensors")


def test_numbers_of_other_kinds_are_refused(tmp_path):
    header = {"a": {"dtype": "F4", "shape": [32], "data_offsets": [0, 16]}}
    (tmp_path / "x.safetensors").write_bytes(safetensors_of(header))
    with pytest.raises(BadCheckpoint, match=r"x.safetensors: a: got numbers of torch.float4\S* · allowed: float16 to"):
        read_contents(tmp_path / "x.safetensors")
    (tmp_path / "x.pth").write_bytes(saved({"b": torch.ones(2, dtype=torch.complex64)}))
    with pytest.raises(BadCheckpoint, match=r"x.pth: b: got numbers of torch.complex64"):
        read_contents(tmp_path / "x.pth")


@pytest.mark.parametrize("key", ["a\nb", "a\x1b[31m", "k" * 161])
def test_names_of_tensors_that_a_terminal_would_obey_or_that_never_end(tmp_path, key):
    for name, data in [
        ("x.pth", saved({key: torch.ones(2)})),
        ("x.safetensors", safetensors_of({key: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})),
        ("x.caffemodel", caffemodel({f"{key}.weight": np.ones(2, np.float32)})),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadCheckpoint, match=r"got a tensor named '.*' · allowed: up to 160 printable") as caught:
            read_contents(tmp_path / name)
        assert str(caught.value).isprintable()


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
)
CONFIGURATIONS = {
    "laughs": LAUGHS + "color_space: *a11\n",
    "deep": "[" * 5_000,
    "deep JSON": "{" * 5_000,
    "a list as a key": "? [a]\n: 1\n",
    "a date that is none": "color_space: 2001-99-99\n",
    "long": "color_space: BGR\n" + "# x\n" * 20_000,
    "no UTF-8": "\udcff",
    "a number": "color_space: 7",
}


@pytest.mark.parametrize("form", ["yaml", "config.json", "fifo"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_beside_the_weights_that_is_none_says_nothing(tmp_path, name, form):
    (tmp_path / "x.pth").write_bytes(saved(WEIGHTS))
    beside = tmp_path / ("config.json" if form == "config.json" else "x.yaml")
    os.mkfifo(beside) if form == "fifo" else beside.write_bytes(CONFIGURATIONS[name].encode("utf-8", "surrogateescape"))
    assert read_contents(tmp_path / "x.pth").order is None


def test_a_configuration_beside_the_weights_is_read(tmp_path):
    (tmp_path / "x.pth").write_bytes(saved(WEIGHTS))
    (tmp_path / "x.yaml").write_text("conf: {color_space: BGR}")
    assert read_contents(tmp_path / "x.pth").order == "bgr"


def test_a_blob_without_numbers_and_an_axis_beyond_all(tmp_path):
    dims = b"".join(b"\x08" + bytes([0x80] * 8) + b"\x7f" if k else b"\x08\x00" for k in range(2))  # 0, 127·2^56
    shape = b"\x3a" + bytes([len(dims)]) + dims
    (tmp_path / "x.caffemodel").write_bytes(caffemodel({}) + layer("conv", [shape]))
    with pytest.raises(BadCheckpoint, match=r"layer 'conv': the shape \(0, 9151314442816847872\)"):
        read_caffemodel(tmp_path / "x.caffemodel")
    assert blob(np.zeros(1, np.float32))


def test_whole_files_are_read_as_before(tmp_path):
    state = {name: torch.from_numpy(value) for name, value in sphere_tensors().items()}
    torch.save(state, tmp_path / "new.pth")
    write_python2_pth(tmp_path / "old.pth", state)
    (tmp_path / "x.caffemodel").write_bytes(caffemodel(sphere_tensors()))
    for name in ("new.pth", "old.pth"):
        found = read_contents(Path(tmp_path / name)).tensors
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
    assert len(read_contents(tmp_path / "x.caffemodel").tensors) == len(state)


@pytest.mark.parametrize(("keys", "fine"), [(1, True), (4, True), (5, False)])
def test_numbers_that_several_keys_share(tmp_path, keys, fine):
    weight = torch.ones(300, 300)
    (tmp_path / "x.pth").write_bytes(saved({f"net{k}": {"w": weight} for k in range(keys)}))
    if fine:
        assert len(read_contents(tmp_path / "x.pth").tensors) == keys
        return
    with pytest.raises(
        BadCheckpoint, match=r"tensors claim 1,800,000 bytes, the file has 36\d,\d+ · allowed: for each"
    ):
        read_contents(tmp_path / "x.pth")


def test_a_few_bytes_that_pose_as_many(tmp_path):
    (tmp_path / "x.pth").write_bytes(saved({"w": torch.ones(1).expand(2, 300), "more": torch.ones(5000)}))
    with pytest.raises(BadCheckpoint, match=r"x.pth: refused: its tensors claim 22,400 bytes"):
        read_contents(tmp_path / "x.pth")
