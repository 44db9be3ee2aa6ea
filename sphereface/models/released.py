"""Published weights of the Sphere CNN as checkpoints of this project.

Two kinds of file are read, told apart by their first bytes: the authors' ``.caffemodel``, and the ``.pth`` of the
PyTorch port (clcarwin/sphereface_pytorch, class ``sphere20a``). Both name the layers conv1_1, relu1_1, …, fc5, fc6,
flatten the last map in the order C, H, W and were trained on BGR pictures, (pixel − 127.5)/128, as this project is.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import BadCheckpoint, save_checkpoint
from ..config import ModelConfig
from ..options import parse_options, to_plain
from .caffemodel import read_caffemodel
from .spherenet import UNITS, SphereNet

# file beginnings that are neither kind, but that people have
_OTHERS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive · unpack it first (7z x) and give the .pth in it",
    b"\x1f\x8b": "a gzip archive · unpack it first",
    b"Rar!": "a rar archive · unpack it first",
    b"\x89HDF": "an HDF5 file · allowed: the binary .caffemodel, or a .pth",
    b"<": "a web page in place of the file · get it again with a browser",
}
_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"
_USUAL_INPUTS = {7 * 6: (112, 96), 7 * 7: (112, 112)}  # by places of the last map
_AXES = {"conv": 4, "relu": 1, "fc": 2}  # of a layer's first blob; a bias has one


@dataclass(frozen=True)
class Released:
    """A published network in this project's terms.

    Attributes:
        model: what ``model:`` of a configuration says of it.
        weights: the state of its :class:`SphereNet`, float32.
        head: ``weight`` (C, D), and (C,) ``bias`` where it has one: fc6, as :class:`MarginHead` names it; or empty.
        notes: what a user should know of the import, one line each.
    """

    model: ModelConfig
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    notes: tuple[str, ...]


def import_released(path: Path, *, input_size: tuple[int, int] | None = None, rgb: bool = False) -> Released:
    """Read published weights; depth, widths and embedding length follow from the shapes.

    Args:
        path: a ``.caffemodel``, or a ``.pth`` with the port's names.
        input_size: (height, width) in pixels, where neither the file nor custom tells it.
        rgb: the network was trained on RGB pictures: the channels of conv1_1 are turned round, to read BGR.

    Raises:
        BadCheckpoint: one line: what in the file is missing, damaged, or not of this network.
    """
    found, stated = _read(path)
    head = {name.removeprefix("fc6."): found.pop(name) for name in ("fc6.weight", "fc6.bias") if name in found}
    model, assumed = _model_of(found, input_size or stated, path)
    weights = _weights_of(found, model, path)
    if rgb:
        weights["stages.0.conv.weight"] = weights["stages.0.conv.weight"].flip(1)
    head, about_head = _checked_head(head, model.embedding_dim)
    return Released(model, weights, head, (*assumed, about_head))


def save_released(released: Released, path: Path, *, origin: str) -> None:
    """Write a checkpoint that ``eval_lfw.py --ckpt`` and ``train.init_from`` read.

    It holds no optimiser, no step and no names of identities, so no run can be resumed from it.

    Args:
        released: what was read.
        path: ``….pt``; its ``.json`` comes beside it.
        origin: where it is from, in words: kept as the name of the run.
    """
    model = to_plain(released.model)
    head = {"head": released.head} if released.head else {}
    state = {"meta": {"config": {"model": model}, "run": origin}, "model": released.weights, **head}
    save_checkpoint(path, state, {"run": origin, "model": model, "notes": list(released.notes)})


# ---------------------------------------------------------------- the two kinds of file


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    """Tensors as ``conv1_1.weight`` …, and (height, width) of the input where the file says it."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith((_PICKLE, _ZIP)):
            return _read_port(path, zipped=start.startswith(_ZIP)), None
        if what := next((what for magic, what in _OTHERS.items() if start.startswith(magic)), None):
            raise BadCheckpoint(f"{path}: {what}")
        return _read_caffe(path)
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_caffe(path: Path) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    """As :func:`_read`; blob 0 of a layer is its weight (of a PReLU the slopes), blob 1 its bias."""
    caffe = read_caffemodel(path)
    found = {}
    for layer, blobs in caffe.blobs.items():
        for blob, array in enumerate(blobs):
            name = f"{layer}.{('weight', 'bias')[blob] if blob < 2 else blob}"
            axes = _AXES.get(layer.rstrip("0123456789_"), array.ndim) if blob == 0 else 1
            extra = max(array.ndim - axes, 0)  # older files write every shape with four axes, ones in front
            keep = array.shape[extra:] if set(array.shape[:extra]) <= {1} else array.shape
            found[name] = torch.from_numpy(array.reshape(keep))
    pictures = [shape for shape in caffe.input_shapes if len(shape) == 4 and shape[1] == 3]
    return found, pictures[0][2:] if pictures else None


def _read_port(path: Path, *, zipped: bool) -> dict[str, Tensor]:
    """Tensors of a state dict under the port's names; fc6, which the port keeps as (D, C), as (C, D)."""
    if zipped:
        _check_zip(path)
    state = _load_pickle(path)
    if isinstance(state, dict) and "format" in state and "model" in state:
        raise BadCheckpoint(f"{path}: a checkpoint of this program already · use it as it is")
    if not isinstance(state, dict) or not state or not all(_is_plain(value) for value in state.values()):
        raise BadCheckpoint(f"{path}: holds no state dict · allowed: a dictionary of names and tensors")
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > path.stat().st_size:  # by strides of 0, a few bytes pose as any number of them
        raise BadCheckpoint(f"{path}: refused: its tensors claim {claimed:,} bytes, more than the file has")
    found = {str(name).removeprefix("module."): value for name, value in state.items()}
    if "fc6.weight" in found and found["fc6.weight"].ndim == 2:
        found["fc6.weight"] = found["fc6.weight"].T
    return found


def _load_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage anywhere in the file can surface as any exception of the unpickler
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # names a class or function
            raise BadCheckpoint(
                f"{path}: refused: holds objects other than tensors, which could run code · "
                "of a whole network, save the weights alone: torch.save(net.state_dict(), …)"
            ) from error
        raise BadCheckpoint(f"{path}: truncated, damaged or not a .pth · get it again") from error


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"


def _check_zip(path: Path) -> None:
    """Refuse what unpacks to more than the file: torch's own files are stored, not compressed."""
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(member.file_size for member in file.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadCheckpoint(f"{path}: truncated, damaged or not a .pth · get it again") from error
    if unpacked > path.stat().st_size:
        raise BadCheckpoint(f"{path}: refused: would unpack to {unpacked:,} bytes, more than the file has")


# ---------------------------------------------------------------- what the tensors say


def _model_of(
    found: Mapping[str, Tensor], input_size: tuple[int, int] | None, path: Path
) -> tuple[ModelConfig, tuple[str, ...]]:
    """The network that the names and shapes are of, and a line on what had to be assumed."""
    openers = [f"conv{stage}_1.weight" for stage in (1, 2, 3, 4)]
    for name, axes in (*((name, 4) for name in openers), ("fc5.weight", 2)):
        if name not in found or found[name].ndim != axes or found[name].numel() == 0:
            got = f"got {tuple(found[name].shape)}" if name in found else "missing"
            raise BadCheckpoint(
                f"{path}: {name}: {got} · allowed: the layers conv1_1 … conv4_*, relu*, fc5 of a Sphere CNN"
            )
    widths = [found[name].shape[0] for name in openers]
    dim, columns = found["fc5.weight"].shape
    options = {"depth": _depth(found, path), "widths": widths, "embedding_dim": dim}
    options["input_size"] = list(_input_size(columns, widths[-1], input_size, path))
    problems: list[str] = []
    model = parse_options(ModelConfig, options, prefix="model", problems=problems)
    if model is None:
        raise BadCheckpoint(f"{path}: {problems[0]}")
    if input_size:
        return model, ()
    height, width = model.input_size
    return model, (f"the file does not say the size of its pictures: taken as {height}x{width}",)


def _depth(found: Mapping[str, Tensor], path: Path) -> int:
    """Depth by the number of convolutions in each stage."""
    counts = [0, 0, 0, 0]
    for name in found:
        if match := re.fullmatch(r"conv([1-4])_([1-9]\d?)\.weight", name):
            stage, number = int(match[1]) - 1, int(match[2])
            counts[stage] = max(counts[stage], number)
    known = {tuple(2 * units + 1 for units in stages): depth for depth, stages in UNITS.items()}
    if tuple(counts) not in known:
        allowed = "; ".join(f"{', '.join(map(str, convs))} (depth {depth})" for convs, depth in known.items())
        raise BadCheckpoint(f"{path}: got stages of {', '.join(map(str, counts))} convolutions · allowed: {allowed}")
    return known[tuple(counts)]


def _input_size(columns: int, channels: int, asked: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """(height, width) whose last map gives fc5 its columns; several do, and custom chooses where nothing else does."""
    places = columns // channels
    size = asked or _USUAL_INPUTS.get(places)
    if size is None:
        raise BadCheckpoint(
            f"{path}: fc5 reads {places} places of the last map, which is neither 112x96 nor 112x112 · "
            "give --input-size HxW"
        )
    height, width = (-(-side // 16) for side in size)  # four times halved, rounded up
    if height * width * channels != columns:
        raise BadCheckpoint(
            f"{path}: pictures of {size[0]}x{size[1]} give fc5 {height * width * channels:,} numbers, its weights "
            f"are for {columns:,} · give the --input-size that the network was trained with"
        )
    return size


def _weights_of(found: Mapping[str, Tensor], model: ModelConfig, path: Path) -> dict[str, Tensor]:
    """The state of the SphereNet, each tensor held against the shape it must have."""
    with torch.device("meta"):  # shapes only: no file makes this allocate
        net = SphereNet(
            model.depth, widths=model.widths, embedding_dim=model.embedding_dim, input_size=model.input_size
        )
    prefixes = {module: name for name, module in net.named_modules()}
    weights, rest = {}, set(found)
    for layer, module in net.named_layers():
        for kind, parameter in module.named_parameters():
            name, wanted = f"{layer}.{kind}", tuple(parameter.shape)
            got = tuple(found[name].shape) if name in found else "nothing"
            if got != wanted:
                raise BadCheckpoint(f"{path}: {name}: got {got} · allowed: {wanted}, by the shapes of the other layers")
            if not _is_finite(found[name]):
                raise BadCheckpoint(f"{path}: {name}: holds other than finite real numbers · get the file again")
            weights[f"{prefixes[module]}.{kind}"] = _to_float32(found[name])
            rest.discard(name)
    if rest:
        listed = ", ".join(sorted(rest)[:3])
        raise BadCheckpoint(f"{path}: has {listed} besides, which a Sphere CNN has not: another network")
    return weights


def _checked_head(head: dict[str, Tensor], dim: int) -> tuple[dict[str, Tensor], str]:
    """The classifier, or nothing where it does not fit; and a line that says which."""
    shapes = {name: tuple(value.shape) for name, value in head.items()}
    weight = shapes.get("weight", ())
    if not head:
        return {}, "no fc6 in the file: no head"
    fits = len(weight) == 2 and weight[1] == dim and shapes.get("bias", weight[:1]) == weight[:1]
    if not fits or not all(_is_finite(value) for value in head.values()):
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        return {}, f"fc6 left out: it is no head on {dim} numbers ({listed})"
    values = {name: _to_float32(value) for name, value in head.items()}
    return values, f"head: {weight[0]:,} identities, without their names"


def _is_finite(value: Tensor) -> bool:
    return value.is_floating_point() and bool(torch.isfinite(value).all())


def _to_float32(value: Tensor) -> Tensor:
    return value.detach().to(torch.float32).contiguous()
