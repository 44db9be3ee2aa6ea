"""What a file of a wrong kind is called."""

from __future__ import annotations

import io
import re
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from sphereface.file_kinds import ONNX, SAFETENSORS, TORCHSCRIPT, kind_of
from tests.models.onnx_files import write_onnx
from tests.models.published import caffemodel, sphere_tensors


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"Anna\nBj\xc3\xb6rn\n", "a text file, which holds no weights"),
        (b"\xef\xbb\xbf" + b"name: 'net'\r\n" * 100, "a text file"),
        ("é".encode() * 400, "a text file"),
        (b'{"conf": {"color_space": "BGR"}}', "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer of Git LFS .* git lfs pull"),
        (zipped(a=b"x"), "a zip archive · unpack it first"),
        (zipped(**{"a.npy": b"x"}), "a .npz of numpy"),
        (b"\x93NUMPY\x01\x00", "an array of numpy"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, data, said):
    (tmp_path / "x").write_bytes(data)
    assert re.match(said, kind_of(tmp_path / "x") or "")


def test_a_text_in_a_run_folder_is_answered_with_a_checkpoint_of_it(tmp_path):
    for name, what in (("config.yaml", "a configuration"), ("best.json", "a text file")):
        (tmp_path / name).write_text("name: x\n")
        assert kind_of(tmp_path / name).startswith(f"{what}, which holds no weights · allowed: the binary .caffemodel")
        (tmp_path / "run.json").write_text("{}")
        advice = f"{what}, which holds no weights · give a .pt of this run folder"
        assert kind_of(tmp_path / name) == f"{advice}: {tmp_path}"
        (tmp_path / "best.pt").write_bytes(b"x")
        assert kind_of(tmp_path / name) == f"{advice}, such as {tmp_path / 'best.pt'}"
        for path in (tmp_path / "run.json", tmp_path / "best.pt"):
            path.unlink()


def test_networks(tmp_path):
    write_onnx(tmp_path / "x.onnx")
    assert kind_of(tmp_path / "x.onnx") == ONNX
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(traced, tmp_path / "x.ts")
    assert kind_of(tmp_path / "x.ts") == TORCHSCRIPT
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert kind_of(tmp_path / "x.safetensors") == SAFETENSORS


@pytest.mark.parametrize("new", [True, False])
def test_weights_have_no_such_name(tmp_path, new):
    path = tmp_path / "x"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=new)
    assert kind_of(path) is None
    path.write_bytes(caffemodel(sphere_tensors((1, 3, 5, 1), places=4)))
    assert kind_of(path) is None
    path.write_bytes(b"")
    assert kind_of(path) is None
    path.write_bytes(np.arange(600, dtype=np.uint8).tobytes())
    assert kind_of(path) is None
