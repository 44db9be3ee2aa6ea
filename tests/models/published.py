"""Published weights made for tests: a ``.caffemodel`` byte by byte, the PyTorch port, each publisher's containers."""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import struct
import sys
import types
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import safetensors.torch
import torch
from torch import nn

# ---------------------------------------------------------------- .caffemodel, byte by byte


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def text(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return varint(field * 8 + 2) + varint(len(value)) + value


def number(field: int, value: int) -> bytes:
    return varint(field * 8) + varint(value)


def blob(values: np.ndarray, *, old: bool = False, double: bool = False, single: bool = False) -> bytes:
    """A BlobProto: with the four numbers of old in place of the shape, as doubles, or each number a field."""
    if old:
        axes = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(number(i + 1, n) for i, n in enumerate(axes))
    else:
        shape = text(7, text(1, b"".join(varint(n) for n in values.shape)))
    flat = values.ravel().tolist()
    field, code, kind = (8, "d", 1) if double else (5, "f", 5)
    if single:
        return shape + b"".join(varint(field * 8 + kind) + struct.pack(f"<{code}", v) for v in flat)
    return shape + text(field, struct.pack(f"<{len(flat)}{code}", *flat))


def layer(name: str, blobs: Iterable[bytes] = (), *, kind: str = "Convolution", v1: bool = False) -> bytes:
    if v1:  # the type is an enumeration, the name field 4, the blobs field 6
        return text(
            2, text(2, "bottom") + text(3, name) + text(4, name) + number(5, 4) + b"".join(text(6, b) for b in blobs)
        )
    return text(100, text(1, name) + text(2, kind) + text(3, "bottom") + b"".join(text(7, b) for b in blobs))


def input_layer(shape: Sequence[int]) -> bytes:
    dims = b"".join(varint(n) for n in shape)
    return text(100, text(1, "input") + text(2, "Input") + text(143, text(1, text(1, dims))))


def caffemodel(tensors: Mapping[str, np.ndarray], *, v1: bool = False, start: bytes = b"", **how: bool) -> bytes:
    """A file of named tensors: ``conv1_1.weight`` and ``conv1_1.bias`` are blobs 0 and 1 of a layer."""
    layers: dict[str, list[bytes]] = {}
    for name, values in tensors.items():
        layers.setdefault(name.split(".")[0], []).append(blob(values, **how))
    body = b"".join(layer(name, blobs, v1=v1) for name, blobs in layers.items())
    return text(1, "a net") + start + body


# ---------------------------------------------------------------- the PyTorch port


class AngleLinear(nn.Module):
    """Its last layer: one column a class."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, classes))


class Port(nn.Module):
    """The port's network, module for module under its names, at other widths."""

    def __init__(self, widths: Sequence[int] = (4, 6, 8, 10), dim: int = 12, classes: int = 7) -> None:
        super().__init__()
        a, b, c, d = widths
        self.conv1_1, self.relu1_1 = nn.Conv2d(3, a, 3, 2, 1), nn.PReLU(a)
        self.conv1_2, self.relu1_2 = nn.Conv2d(a, a, 3, 1, 1), nn.PReLU(a)
        self.conv1_3, self.relu1_3 = nn.Conv2d(a, a, 3, 1, 1), nn.PReLU(a)
        self.conv2_1, self.relu2_1 = nn.Conv2d(a, b, 3, 2, 1), nn.PReLU(b)
        self.conv2_2, self.relu2_2 = nn.Conv2d(b, b, 3, 1, 1), nn.PReLU(b)
        self.conv2_3, self.relu2_3 = nn.Conv2d(b, b, 3, 1, 1), nn.PReLU(b)
        self.conv2_4, self.relu2_4 = nn.Conv2d(b, b, 3, 1, 1), nn.PReLU(b)
        self.conv2_5, self.relu2_5 = nn.Conv2d(b, b, 3, 1, 1), nn.PReLU(b)
        self.conv3_1, self.relu3_1 = nn.Conv2d(b, c, 3, 2, 1), nn.PReLU(c)
        self.conv3_2, self.relu3_2 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv3_3, self.relu3_3 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv3_4, self.relu3_4 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv3_5, self.relu3_5 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv3_6, self.relu3_6 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv3_7, self.relu3_7 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv3_8, self.relu3_8 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv3_9, self.relu3_9 = nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c)
        self.conv4_1, self.relu4_1 = nn.Conv2d(c, d, 3, 2, 1), nn.PReLU(d)
        self.conv4_2, self.relu4_2 = nn.Conv2d(d, d, 3, 1, 1), nn.PReLU(d)
        self.conv4_3, self.relu4_3 = nn.Conv2d(d, d, 3, 1, 1), nn.PReLU(d)
        self.fc5 = nn.Linear(d * 7 * 6, dim)
        self.fc6 = AngleLinear(dim, classes)
        for name, parameter in self.named_parameters():  # no zero and no equal slopes, or an exchange would not show
            if name.startswith("relu") or name.endswith("bias"):
                nn.init.uniform_(parameter, 0.05, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage, convolutions in ((1, 3), (2, 5), (3, 9), (4, 3)):
            x = self._part(stage, 1, x)
            for n in range(2, convolutions, 2):
                x = x + self._part(stage, n + 1, self._part(stage, n, x))
        return self.fc5(x.view(x.size(0), -1))

    def _part(self, stage: int, n: int, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, f"relu{stage}_{n}")(getattr(self, f"conv{stage}_{n}")(x))


def sphere_tensors(
    counts: Sequence[int] = (1, 1, 1, 1),
    widths: Sequence[int] = (2, 3, 4, 5),
    *,
    dim: int = 6,
    places: int = 42,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Random weights of a network with so many convolutions in its stages, under the published names."""
    random, tensors, before = np.random.default_rng(seed), {}, 3
    for stage, (count, width) in enumerate(zip(counts, widths, strict=True), start=1):
        for n in range(1, count + 1):
            tensors[f"conv{stage}_{n}.weight"] = random.normal(size=(width, before, 3, 3))
            tensors[f"conv{stage}_{n}.bias"] = random.normal(size=width)
            tensors[f"relu{stage}_{n}.weight"] = random.uniform(0.1, 0.5, width)
            before = width
    tensors["fc5.weight"] = random.normal(size=(dim, before * places))
    tensors["fc5.bias"] = random.normal(size=dim)
    return {name: values.astype(np.float32) for name, values in tensors.items()}


class _Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 and PyTorch 0.2 did: byte strings, lists of pairs, long integers, ``_rebuild_tensor``."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, file) -> None:
        super().__init__(file, protocol=2)
        self.storages: dict[str, torch.Tensor] = {}

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        self.storages[obj.key] = obj.tensor
        return ("storage", torch.FloatStorage, obj.key, "cpu", obj.tensor.numel(), None)

    def save_str(self, obj: str) -> None:
        self.write(b"U" + bytes([len(obj)]) + obj.encode())

    dispatch[str] = save_str

    def save_ordered(self, obj) -> None:
        self.save_reduce(OrderedDict, ([[key, value] for key, value in obj.items()],))

    dispatch[OrderedDict] = save_ordered

    def save_tensor(self, obj: torch.Tensor) -> None:
        storage = _Storage(str(94_000_000 + len(self.storages)), obj)
        self.save_reduce(torch._utils._rebuild_tensor, (storage, 0, tuple(obj.shape), obj.stride()))

    dispatch[torch.Tensor] = save_tensor

    def save_storage_class(self, obj: type) -> None:
        self.write(b"ctorch\nFloatStorage\n")

    dispatch[type(torch.FloatStorage)] = save_storage_class


class _Storage:
    def __init__(self, key: str, tensor: torch.Tensor) -> None:
        self.key, self.tensor = key, tensor


def write_python2_pth(path: Path, state: Mapping[str, torch.Tensor], *, numel: int | None = None) -> Path:
    """The file that ``torch.save`` of 2017 wrote; ``numel`` says another length of every storage than it has."""
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}):
            file.write(pickle.dumps(part, protocol=2))
        pickler = _Python2Pickler(file)
        if numel is not None:
            pickler.persistent_id = lambda obj, real=pickler.persistent_id: (
                (*found[:4], numel, None) if (found := real(obj)) else None
            )
        pickler.dump(OrderedDict(state))
        file.write(pickle.dumps(list(pickler.storages), protocol=2))
        for tensor in pickler.storages.values():
            file.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
    return path


# ---------------------------------------------------------------- the containers of the other publishers

State = Mapping[str, torch.Tensor]


def behind(prefix: str, state: State) -> OrderedDict[str, torch.Tensor]:
    """The state dict of a module that holds the network as its part ``prefix``."""
    return OrderedDict((f"{prefix}{key}", value) for key, value in state.items())


def optimizer_state(state: State) -> dict:
    """What ``SGD.state_dict()`` is like: numbered tensors, which are no weights."""
    first = next(iter(state.values()))
    return {"state": {0: {"momentum_buffer": first.clone()}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def arcface_checkpoint(path: Path, state: State, head: torch.Tensor) -> Path:
    """``checkpoint_gpu_N.pt`` of arcface_torch/train_v2.py: ``head`` (classes of this process, D)."""
    content = {
        "epoch": 20,
        "global_step": 1234,
        "state_dict_backbone": OrderedDict(state),
        "state_dict_softmax_fc": OrderedDict(weight=head),
        "state_optimizer": optimizer_state(state),
        "state_lr_scheduler": {"base_lr": 0.1, "last_epoch": 1234, "base_lrs": [0.1]},
    }
    torch.save(content, path)
    return path


def lightning_checkpoint(path: Path, state: State, head: torch.Tensor, *, age: str = "1.8") -> Path:
    """AdaFace's ``.ckpt``: Lightning 1.8 names a callback by a text, 1.4 by its class; ``head`` is (D, classes)."""
    if age == "1.8":
        key = "ModelCheckpoint{'monitor': 'val_acc', 'mode': 'max', 'every_n_train_steps': 0}"
        torch.save(_lightning_content(state, head, key, {"arch": "ir_18", "lr_milestones": [12, 20]}), path)
        return path
    with class_of_another_package("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint") as cls:
        hparams = {"args": argparse.Namespace(lr=0.1), "output_dir": Path("experiments/x"), "best": np.float64(0.97)}
        torch.save(_lightning_content(state, head, cls, hparams), path)
    return path


def _lightning_content(state: State, head: torch.Tensor, callback: object, hparams: Mapping[str, object]) -> dict:
    buffers = {"head.t": torch.zeros(1), "head.batch_mean": torch.ones(1), "head.batch_std": torch.ones(1)}
    return {
        "epoch": 25,
        "global_step": 99,
        "pytorch-lightning_version": "1.8.6",
        "state_dict": behind("model.", state) | {"head.kernel": head, **buffers},
        "callbacks": {callback: {"best_model_score": torch.tensor(0.97), "best_model_path": "x.ckpt"}},
        "optimizer_states": [optimizer_state(state)],
        "lr_schedulers": [{"milestones": Counter([12, 20, 24]), "gamma": 0.1}],
        "hparams_name": "kwargs",
        "hyper_parameters": dict(hparams),
    }


@contextlib.contextmanager
def class_of_another_package(module: str, name: str) -> Iterator[type]:
    """A class that pickles as one of a package that is not installed."""
    made = type(name, (), {"__module__": module})
    parts = module.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    sys.modules.update({name: types.ModuleType(name) for name in names})
    setattr(sys.modules[module], name, made)
    try:
        yield made
    finally:
        for name in names:
            del sys.modules[name]


def magface_checkpoint(path: Path, state: State, head: torch.Tensor, *, split: bool) -> Path:
    """MagFace's ``.pth``: with the head split over processes (C, D), or whole (D, C)."""
    if split:
        whole = behind("features.module.", state) | {"parallel_fc.weight": head}
    else:
        whole = behind("module.features.", state) | {"module.fc.weight": head}
    torch.save({"epoch": 25, "arch": "iresnet18", "state_dict": whole, "optimizer": optimizer_state(state)}, path)
    return path


def hugging_face_folder(path: Path, state: State, *, color_space: str | None) -> Path:
    """CVLface's folder: its wrapper holds the model, which holds the net."""
    path.mkdir()
    safetensors.torch.save_file(dict(behind("model.net.", state)), path / "model.safetensors", {"format": "pt"})
    conf = {"input_size": [3, 112, 112], "name": "ir50", "yaml_path": "models/iresnet/configs/v1_ir50.yaml"}
    if color_space:
        conf["color_space"] = color_space
    config = {"architectures": ["CVLFaceRecognitionModel"], "auto_map": {"AutoModel": "wrapper.X"}, "conf": conf}
    (path / "config.json").write_text(json.dumps(config))
    (path / "wrapper.py").write_text("raise SystemExit('code of a folder was run')")
    return path
