"""Read a file of weights from any publisher: tensors by name, and nothing that could run code."""

from __future__ import annotations

import importlib.util
import json
import mmap
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ...archives import BYTEARRAY, DAMAGED, costly_pickle, damaged_entry
from ...checkpoint import NUMBERS, BadCheckpoint
from ...errors import first_line, shown, shown_key
from ...file_kinds import SAFETENSORS, kind_of
from ...files import regular_file
from ..caffemodel import read_caffemodel
from .plain_pickles import STAND_INS

_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"
_DAMAGED = "truncated, damaged or not a {kind} · download it again"
_AXES = {"conv": 4, "relu": 1, "fc": 2}  # axes of the first blob of a Caffe layer; a bias has one
_LONGEST_KEY = 160  # characters; the publishers' longest have about 80
_LONGEST_CONFIGURATION = 1 << 14  # bytes; CVLface's have about 2,000
_KEYS = 4  # that share their numbers, such as a network saved as model and as average
_DEEPEST = 4  # nested dictionaries; publishers use up to three


@dataclass(frozen=True)
class Contents:
    """The content of a file of weights.

    Attributes:
        tensors: by key. The keys of nested dictionaries are joined with a slash:
            ``state_dict/model.conv1.weight``.
        kind: ``"caffe"``, ``"torch"`` or ``"safetensors"``.
        input_size: (height, width) in pixels, where the file states it.
        order: ``"bgr"`` or ``"rgb"``, where a CVLface configuration beside the file states it.
        about_order: one line that names the file that states the order.
        unknown_order: a CVLface configuration that cannot be understood: its name, and why.
        metadata: of a ``.safetensors``.
    """

    tensors: dict[str, Tensor]
    kind: str
    input_size: tuple[int, int] | None = None
    order: str | None = None
    about_order: str = ""
    unknown_order: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_contents(path: Path) -> Contents:
    """Read a ``.caffemodel``, a file of ``torch.save``, a ``.safetensors``, or a folder of CVLface.

    Raises:
        BadCheckpoint: the file cannot be read, is damaged, or is of another kind.
    """
    try:
        if path.is_dir():
            return _read_folder(path)
        with open(path, "rb", opener=regular_file) as file:
            start = file.read(len(_ZIP))
        what = kind_of(path)
        if what == SAFETENSORS:
            return _with_order(path, _read_safetensors(path))
        if what is not None:
            raise BadCheckpoint(f"{path}: {what}")
        if not start:
            raise BadCheckpoint(f"{path}: an empty file (0 bytes) · allowed: a file of weights · download it again")
        if start.startswith((_PICKLE, _ZIP)):
            return _with_order(path, Contents(_read_torch(path, zipped=start.startswith(_ZIP)), "torch"))
        return _read_caffe(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise BadCheckpoint(f"{shown_key(str(path))}: cannot be read: {reason or first_line(error)}") from error


# ---------------------------------------------------------------- Hugging Face folders


def _read_folder(path: Path) -> Contents:
    weights = next((f for f in (path / "model.safetensors", path / "pretrained_model/model.pt") if f.is_file()), None)
    if weights is None or not (path / "config.json").is_file():
        missing = "model.safetensors" if weights is None else "config.json"
        raise BadCheckpoint(
            f"{path}: a folder without {missing} · allowed: one file of weights, or a Hugging Face folder of CVLface "
            "with config.json and model.safetensors"
        )
    return read_contents(weights)


def _with_order(path: Path, contents: Contents) -> Contents:
    """Add the channel order that CVLface states in a file beside the weights.

    CVLface's own wrapper replaces the values of ``config.json`` by those of
    ``pretrained_model/model.yaml``, so the latter takes precedence.
    """
    folder = path.parent.parent if path.parent.name == "pretrained_model" else path.parent
    stated = {}
    beside = (path.with_suffix(".yaml"), folder / "pretrained_model/model.yaml", folder / "config.json")
    for file in dict.fromkeys(beside):
        try:
            if order := _color_space(file):
                stated[file.name] = order
        except ValueError as error:
            return replace(contents, unknown_order=f"{file}: {first_line(error)}")
    if not stated:
        return contents
    decides, order = next(iter(stated.items()))
    note = f"channel order: {order.upper()}, as {decides} says"
    if len(set(stated.values())) > 1:
        others = ", ".join(f"{name} says {value.upper()}" for name, value in stated.items() if value != order)
        note += f"; {others} · compare --order rgb with --order bgr on your own pairs"
    return replace(contents, order=order, about_order=note)


def _color_space(path: Path) -> str | None:
    """Return ``color_space`` of a CVLface configuration, ``"bgr"`` or ``"rgb"``; None without one.

    Raises:
        ValueError: the file exists, but cannot be read or understood.
    """
    try:
        with open(path, "rb", opener=regular_file) as file:
            text = file.read(_LONGEST_CONFIGURATION + 1)
        if len(text) > _LONGEST_CONFIGURATION:
            raise ValueError(f"has more than {_LONGEST_CONFIGURATION:,} bytes")
        found: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except (*DAMAGED, yaml.YAMLError) as error:
        raise ValueError(f"cannot be understood ({first_line(error)})") from error
    if isinstance(found, Mapping) and "conf" in found:
        found = found["conf"]
    if not isinstance(found, Mapping):
        raise ValueError(f"got {shown(found)} · allowed: a mapping of keys to values")
    if "color_space" not in found:
        return None
    order = found["color_space"]
    if not isinstance(order, str) or order.lower() not in ("bgr", "rgb"):
        raise ValueError(f"color_space: got {shown(order)} · allowed: BGR, RGB")
    return order.lower()


# ---------------------------------------------------------------- the three kinds of file


def _read_caffe(path: Path) -> Contents:
    """Read layers as ``conv1_1.weight``, …: blob 0 is the weight or the slopes, blob 1 the bias."""
    caffe = read_caffemodel(path)
    found = {}
    for layer, blobs in caffe.blobs.items():
        for blob, array in enumerate(blobs):
            name = f"{layer}.{('weight', 'bias')[blob] if blob < 2 else blob}"
            axes = _AXES.get(layer.rstrip("0123456789_"), array.ndim) if blob == 0 else 1
            extra = max(array.ndim - axes, 0)  # older files write every shape with four axes, ones in front
            keep = array.shape[extra:] if set(array.shape[:extra]) <= {1} else array.shape
            found[name] = torch.from_numpy(array.reshape(keep))
            _check_plain(name, found[name], path)
    if not found:
        raise BadCheckpoint(f"{path}: holds no layers with weights: {_DAMAGED.format(kind='.caffemodel')}")
    images = [shape for shape in caffe.input_shapes if len(shape) == 4 and shape[1] == 3]
    return Contents(found, "caffe", (images[0][2], images[0][3]) if images else None)


def _read_safetensors(path: Path) -> Contents:
    if importlib.util.find_spec("safetensors") is None:
        raise BadCheckpoint(f"{path}: safetensors is not installed · pip install '.[export]' in this project's folder")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dict
            metadata = file.metadata() or {}
    except (SafetensorError, *DAMAGED) as error:
        raise BadCheckpoint(f"{path}: {_DAMAGED.format(kind='.safetensors')}") from error
    if not tensors:
        raise BadCheckpoint(f"{path}: holds no tensors · allowed: a file of weights · download it again")
    for name, value in tensors.items():
        _check_plain(name, value, path)
    return Contents(tensors, "safetensors", metadata=metadata)


def _read_torch(path: Path, *, zipped: bool) -> dict[str, Tensor]:
    _check_costs(path, zipped=zipped)
    state = _load_pickle(path)
    if isinstance(state, dict) and "format" in state and "model" in state:
        raise BadCheckpoint(f"{path}: a checkpoint of this program already · use it as it is")
    tensors = dict(_flat(state, path)) if isinstance(state, Mapping) else {}
    if not tensors:
        raise BadCheckpoint(f"{path}: holds no state dict · allowed: a dictionary of names and tensors")
    size, claimed = path.stat().st_size, sum(value.nbytes for value in tensors.values())
    if any(value.nbytes > value.untyped_storage().nbytes() for value in tensors.values()) or claimed > _KEYS * size:
        # with strides of 0, a few bytes can claim any size; one stored tensor may serve
        # several keys
        raise BadCheckpoint(
            f"{path}: refused: its tensors claim {claimed:,} bytes, the file has {size:,} · allowed: for each tensor "
            f"numbers of its own, or the same ones under up to {_KEYS} keys"
        )
    return tensors


def _flat(
    state: Mapping[Any, Any], path: Path, prefix: str = "", depth: int = 1, seen: set[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor under the path of its keys.

    A dictionary that occurs a second time, also inside itself, is left out.
    """
    seen = set() if seen is None else seen
    seen.add(id(state))
    for key, value in state.items():
        if not isinstance(key, str):
            continue  # the state of an optimizer
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            _check_plain(name, value, path)
            yield name, value
        elif isinstance(value, Mapping) and depth < _DEEPEST and id(value) not in seen:
            yield from _flat(value, path, f"{name}/", depth + 1, seen)


def _check_plain(name: str, value: Tensor, path: Path) -> None:
    if not name.isprintable() or len(name) > _LONGEST_KEY:  # it appears in messages and reports
        allowed = f"up to {_LONGEST_KEY} printable characters"
        raise BadCheckpoint(f"{path}: got a tensor named {shown(name)} · allowed: {allowed}")
    where = f"{path}: {shown_key(name)}"
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise BadCheckpoint(f"{where}: got a {value.layout} tensor on {value.device} · allowed: plain tensors")
    if value.dtype not in NUMBERS:
        raise BadCheckpoint(f"{where}: got numbers of {value.dtype} · allowed: float16 to float64, integers")


def _load_pickle(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler raise any exception
        if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise BadCheckpoint(
                f"{path}: refused: it holds objects other than tensors and plain values, which could run code "
                f"({found[1]}) · if you trust the file, load it with its publisher's program and save the weights "
                "alone: torch.save(net.state_dict(), …)"
            ) from error
        raise BadCheckpoint(f"{path}: {_DAMAGED.format(kind='.pth')}") from error


def _check_costs(path: Path, *, zipped: bool) -> None:
    """Refuse a file that needs more memory than its size; torch stores without compression."""
    if not zipped:
        with (
            open(path, "rb", opener=regular_file) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            if data.find(BYTEARRAY) >= 0:
                raise BadCheckpoint(f"{path}: refused: it holds a bytearray, which can claim any size")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            costly = costly_pickle(archive) if unpacked <= path.stat().st_size else ""
            damaged = damaged_entry(archive) if unpacked <= path.stat().st_size else ""
    except DAMAGED as error:
        raise BadCheckpoint(f"{path}: {_DAMAGED.format(kind='.pth')}") from error
    if unpacked > path.stat().st_size or any(member.compress_type for member in members):
        raise BadCheckpoint(f"{path}: refused: unpacks to {unpacked:,} bytes, more than the file has")
    if costly:
        raise BadCheckpoint(f"{path}: refused: {costly}")
    if damaged:
        raise BadCheckpoint(f"{path}: its part {shown(damaged)} is not as it was written · download it again")
