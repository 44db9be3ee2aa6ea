"""Containers: what is read, what is refused, and that no file runs code or makes the reader allocate."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from sphereface.checkpoint import BadCheckpoint
from sphereface.cli import main
from sphereface.models.published import import_published, save_published
from sphereface.models.published.files import read_contents

from .golden import golden
from .published import Port, caffemodel, sphere_tensors, write_python2_pth


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def vision_transformer() -> dict[str, torch.Tensor]:
    return {"patch_embed.proj.weight": torch.ones(2), "blocks.0.norm1.weight": torch.ones(2)}


# ---------------------------------------------------------------- containers


def test_dictionaries_inside_each_other(tmp_path):
    one, two = torch.ones(1), torch.ones(2)
    content = {
        "epoch": 3,
        "state_dict": OrderedDict({"a.weight": one}),
        "model": {"backbone": {"w": two}},
        "optimizer": {"state": {0: {"momentum": torch.ones(5)}}, "param_groups": [{"params": [0]}]},
        "too": {"many": {"levels": {"of": {"dictionaries": one}}}},
    }
    torch.save(content, tmp_path / "x")
    contents = read_contents(tmp_path / "x")
    assert contents.tensors.keys() == {"state_dict/a.weight", "model/backbone/w"}


def test_a_hole_in_a_weight_is_refused(tmp_path):
    weight = torch.arange(1.0, 1000.0)
    torch.save({"a.weight": weight, "b.weight": weight + 1}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    at = data.index((weight + 1).numpy().tobytes()) + 1000
    write(tmp_path / "hole.pth", data[:at] + bytes(100) + data[at + 100 :])
    with pytest.raises(BadCheckpoint, match=r"hole.pth: its part 'x/data/1' is not as it was written · download it"):
        read_contents(tmp_path / "hole.pth")
    assert torch.equal(read_contents(tmp_path / "x.pth").tensors["a.weight"], weight)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a.weight": weight}, tmp_path / "off.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_contents(tmp_path / "off.pth").tensors["a.weight"], weight)


def test_harmless_objects_beside_the_weights(tmp_path):
    """Of these classes nothing is kept; the real ones are not called."""
    content = {
        "args": Namespace(lr=0.1, path=Path("a/b")),
        "scalar": np.float32(0.5),
        "array": np.arange(3),
        "milestones": Counter([10, 20]),
        "weights": {"w": torch.ones(2)},
    }
    torch.save(content, tmp_path / "x")
    assert read_contents(tmp_path / "x").tensors.keys() == {"weights/w"}
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):  # the allowance ends with the reading
        torch.load(tmp_path / "x", weights_only=True)


def test_old_files_of_torch_save(tmp_path):
    content = {"state_dict": {"w": torch.arange(3.0)}, "args": Namespace(a=1)}
    torch.save(content, tmp_path / "x", _use_new_zipfile_serialization=False)
    assert read_contents(tmp_path / "x").tensors["state_dict/w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "a folder without model.safetensors · allowed: one file of weights, or a Hugging Face folder of CVLface"),
        (["config.json"], "a folder without model.safetensors"),
        (["model.safetensors"], "a folder without config.json"),
        (["config.json", "model.safetensors"], "model.safetensors: truncated, damaged or not a"),
    ],
)
def test_folders(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(BadCheckpoint, match=message):
        import_published(tmp_path)


def test_a_safetensors_cut_off_anywhere(tmp_path):
    safetensors.torch.save_file({"net.input_layer.0.weight": torch.ones(9)}, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    for length in range(9, len(data), 7):
        with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .safetensors"):
            import_published(write(tmp_path / "y", data[:length]))


def test_without_safetensors_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    safetensors.torch.save_file({"net.input_layer.0.weight": torch.ones(9)}, tmp_path / "x.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadCheckpoint, match=r"safetensors is not installed · pip install '.\[export\]'"):
        read_contents(tmp_path / "x.safetensors")


def test_a_safetensors_that_claims_more_than_it_has(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = write(tmp_path / "x", len(header).to_bytes(8, "little") + header + b"\0" * 16)
    with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .safetensors"):
        import_published(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive · unpack it first"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"Rar!\x1a\x07", "a rar archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file · allowed: the binary .caffemodel"),
        (b"<!DOCTYPE html>", "a web page in place of the file"),
        (b"\x80\x02garbage", "truncated, damaged or not a .pth"),
        (b"PK\x03\x04garbage", "truncated, damaged or not a .pth"),
        (b"layer {}", "a text file, which holds no weights · allowed: the binary .caffemodel, a .pth or .safetensors"),
        (b"\x08\x0a\x12\x07pytorch", "an ONNX file · sphereface eval --onnx evaluates it"),
        (b"\xff\x07", "truncated, damaged or not a .caffemodel"),
    ],
)
def test_other_files_are_named(tmp_path, data, message):
    with pytest.raises(BadCheckpoint, match=message):
        import_published(write(tmp_path / "x", data))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BadCheckpoint, match="cannot be read: No such file"):
        import_published(tmp_path / "none.pth")


# ---------------------------------------------------------------- hostile .pth files


class _Opens:
    """What a pickle that carries code looks like: reading it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("content", ["call", "network"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(tmp_path, content, zipped):
    path, proof = tmp_path / "x.pth", tmp_path / "proof"
    holder = Port() if content == "network" else {"fc5.weight": _Opens(str(proof))}
    torch.save(holder, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        BadCheckpoint,
        match=r"refused: it holds objects other than tensors and plain values, which could run code \(.*\) · .* save",
    ):
        import_published(path)
    assert not proof.exists()


def test_a_bare_pickle_that_carries_code(tmp_path):
    proof = tmp_path / "proof"
    with pytest.raises(BadCheckpoint, match="refused|truncated, damaged or not a .pth"):
        import_published(write(tmp_path / "x.pth", pickle.dumps({"fc5.weight": _Opens(str(proof))}, protocol=2)))
    assert not proof.exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "holds no state dict"),
        ([torch.ones(2)], "holds no state dict"),
        (torch.ones(3), "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({"epoch": 3, "state": torch.ones(2)}, "no known network · known publishers: .* · the first keys are state$"),
        (vision_transformer(), "no known network .* · the first keys are patch_embed.proj.weight, blocks.0"),
    ],
)  # fmt: skip
def test_other_contents_are_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match=message):
        import_published(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pth", b"", r"x.pth: an empty file \(0 bytes\) · allowed: a file of weights · download it again"),
        ("x.caffemodel", b"", r"x.caffemodel: an empty file"),
        (
            "x.caffemodel",
            b"\n\x05hello",
            "x.caffemodel: holds no layers with weights: truncated, damaged or not a .caffe",
        ),
        ("x.safetensors", b"\x02\0\0\0\0\0\0\0{}", "x.safetensors: holds no tensors · allowed: a file of weights"),
    ],
)
def test_a_file_without_weights_is_named_as_one(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadCheckpoint, match=message):
        import_published(tmp_path / name)


def test_another_publisher_than_the_one_asked_for(tmp_path):
    torch.save(vision_transformer(), tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match="no known network of publisher magface · the first keys are patch_embed"):
        import_published(tmp_path / "x.pth", publisher="magface")


@pytest.mark.parametrize("device", ["meta", "sparse", "int"])
def test_tensors_that_are_no_plain_numbers(tmp_path, device):
    state = {name: torch.from_numpy(value) for name, value in sphere_tensors().items()}
    made = {"meta": lambda t: t.to("meta"), "sparse": lambda t: t.to_sparse(), "int": lambda t: t.to(torch.int32)}
    state["fc5.weight"] = made[device](state["fc5.weight"])
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(
        BadCheckpoint,
        match=r"fc5.weight: (got a .* tensor on .* · allowed: plain tensors|has values that are not finite)",
    ):
        import_published(tmp_path / "x.pth")


def test_our_own_checkpoint_needs_no_import(tmp_path):
    save_published(import_published(write(tmp_path / "x", caffemodel(sphere_tensors()))), tmp_path / "x.pt", origin="x")
    with pytest.raises(BadCheckpoint, match="a checkpoint of this program already · use it as it is"):
        import_published(tmp_path / "x.pt")


def test_a_few_bytes_that_pose_as_many(tmp_path):
    state = {name: torch.from_numpy(value) for name, value in sphere_tensors().items()}
    state["conv1_1.weight"] = torch.zeros(1).as_strided((10**12, 3, 3, 3), (0, 0, 0, 0))
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match="its tensors claim 108,000,000,00.* bytes, the file has"):
        import_published(tmp_path / "x.pth")


def test_wide_openers_allocate_nothing(tmp_path):
    """A million channels cost 100 MB in conv1_1 alone, but 36 TB where two such layers meet."""
    tensors = sphere_tensors((3, 5, 9, 3))
    tensors["conv1_1.weight"] = np.zeros((1_000_000, 3, 3, 3), np.float32)
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match=r"conv1_1.bias is \(2,\), not \(1000000,\)"):
        import_published(tmp_path / "x.pth")


def test_a_zip_that_unpacks_to_more_than_itself(tmp_path):
    good = io.BytesIO()
    torch.save({"fc5.weight": torch.zeros(1_000_000)}, good)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    with pytest.raises(BadCheckpoint, match=r"refused: unpacks to 4,0.* bytes, more than the file has"):
        import_published(tmp_path / "x.pth")


def test_an_old_file_that_declares_more_than_it_has(tmp_path):
    state = {"fc5.weight": torch.ones(3)}
    with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .pth"):
        import_published(write_python2_pth(tmp_path / "x.pth", state, numel=2**44))


def test_a_pth_cut_off_anywhere(tmp_path):
    torch.save({name: torch.from_numpy(value) for name, value in sphere_tensors().items()}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    old = write_python2_pth(tmp_path / "y", {n: torch.from_numpy(v) for n, v in sphere_tensors().items()}).read_bytes()
    for whole in (data, old):  # cut within the name of a function, it is one that is not allowed
        for length in range(8, len(whole), len(whole) // 40):
            with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .pth|refused: it holds objects"):
                import_published(write(tmp_path / "z.pth", whole[:length]))


@pytest.mark.parametrize("function", [os.system, eval, torch.load, np.load])
def test_functions_are_refused_by_name(tmp_path, function):
    class Calls:
        def __reduce__(self):
            return (function, ("true",))

    torch.save({"state_dict": {"w": torch.ones(2)}, "hyper_parameters": Calls()}, tmp_path / "x.ckpt")
    with pytest.raises(BadCheckpoint, match=rf"could run code \([\w.]*{function.__name__}\)"):
        import_published(tmp_path / "x.ckpt")


@pytest.mark.parametrize(("number", "what"), [(0.0, "all zero"), (3e38, "not finite")])
def test_a_network_that_tells_nothing_is_not_imported(tmp_path, capsys, number, what):
    state = golden("arcface_r18").state
    state = {key: torch.full_like(value, number) if value.ndim else value for key, value in state.items()}
    torch.save(state, tmp_path / "x.pth")
    assert main(["import", str(tmp_path / "x.pth"), str(tmp_path / "x.pt")]) == 2
    assert f"x.pth: its embeddings of 3 crops are {what} · allowed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize(("option", "allowed"), [("--std=1e-30", "0.001 to 1000"), ("--mean=-1", "0 to 255")])
def test_numbers_of_the_input_out_of_range(tmp_path, capsys, option, allowed):
    assert main(["import", "x.pth", str(tmp_path / "x.pt"), option]) == 2
    name, _, number = option.partition("=")
    assert capsys.readouterr().err.startswith(f"error: {name}: got '{number}' · allowed: one number from {allowed}")
