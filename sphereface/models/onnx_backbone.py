"""Run a network in an ONNX file by onnxruntime, as a backbone for evaluation."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import UserError, count_of, printable, shown
from ..extras import import_extra
from ..files import moment, regular_file, sha256_of
from ..onnx_input import FileFacts, OnnxInput, OnnxOptions, resolve_input
from .backbone import Backbone, check_images
from .onnx_weights import checked_place, external_tensors, not_finite_weight, place_of

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
_EXPORTED = re.compile(r"\(\w+, \d+, \d+, \d+\) \w+, pixels 0 to 255, (BGR|RGB)")  # metadata of sphereface export
_PASSED = ("Cast", "Identity", "Transpose")  # operators that may precede the scaling
_SCALING = ("Sub", "Add", "Mul", "Div")
_LONGEST_REASON = 200
_MOST_PIXELS = 1 << 24  # in a batch: 1,300 images of 112×112
_NUM_FIRST = 8  # nodes that InsightFace inspects
_SAME = 1e-3  # largest relative difference between an embedding alone and in a batch; float16 gives 5e-4

CPU = torch.device("cpu")

Array = npt.NDArray[Any]


class OnnxBackbone(Backbone):
    """A network in an ONNX file.

    ``forward`` reads crops as ``input_spec`` describes them. It passes them to the file in the
    file's layout and number type, in batches of the size that the file accepts. Some files give
    other embeddings in a batch than alone; these run one image at a time. External weights must be
    in the file's folder.

    Args:
        path: the file.
        options: facts that the file does not state itself.
        device: the device to run on, CPU or CUDA; see :func:`runs_on`.

    Attributes:
        reads: the input of the file.
        input_name, output_name: in the graph.
        one_by_one: whether images run one at a time although the file accepts a batch.
        files: the file and its external weights.
        sha256: of the file, or of the hashes of all files where there are external weights.
        notes: for the user.

    Raises:
        UserError: the file cannot be used, or it and the options contradict each other.
    """

    def __init__(self, path: Path, options: OnnxOptions | None = None, *, device: torch.device = CPU) -> None:
        super().__init__()
        options = options or OnnxOptions()
        runtime = import_extra("--onnx", "onnxruntime")
        graph, self.files = _read(path)
        self.path = path
        before = list(map(moment, self.files))
        self._session = _session(runtime, path, device)
        hashes = [sha256_of(file) for file in self.files]
        self.sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        if before != list(map(moment, self.files)):
            raise UserError(f"{path}: changed while it was read · run the command again")
        source = _chosen(path, "input", self._session.get_inputs(), options.input)
        self.output_name: str = _chosen(path, "output", self._session.get_outputs(), options.output).name
        self.input_name: str = source.name
        self.reads: OnnxInput = resolve_input(_facts(path, self._session, source, graph), options)
        self.input_spec = self.reads.spec
        self.notes = list(self.reads.notes)
        self.one_by_one = False
        self.embedding_dim = self._probe(graph)

    def forward(self, images: Tensor) -> Tensor:
        """Embed crops (see ``input_spec``): (B, 3, H, W) float → (B, D), not normalised."""
        check_images(images, self.input_spec.size)
        found = self._embed(images.detach().float().cpu().numpy())
        if found.shape[1] != self.embedding_dim:
            raise UserError(f"{self.path}: gave {found.shape[1]} numbers an image · expected: {self.embedding_dim}")
        return torch.from_numpy(found).to(images.device)

    def _embed(self, images: Array) -> npt.NDArray[np.float32]:
        """Embed (B, 3, H, W) float32 in as many runs as needed → (B, D)."""
        step = 1 if self.one_by_one else self.reads.batch or max(1, len(images))
        parts = [self._run(images[start : start + step]) for start in range(0, len(images), step)]
        return np.concatenate(parts) if parts else np.empty((0, self.embedding_dim), dtype=np.float32)

    def _run(self, images: Array) -> npt.NDArray[np.float32]:
        """Run the file once on at most one batch; repeat the last image to fill the batch."""
        count = len(images)
        missing = (self.reads.batch or count) - count
        if missing:
            images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        try:
            found = self._session.run([self.output_name], {self.input_name: self._fed(images)})[0]
        except Exception as error:  # onnxruntime has its own exceptions
            raise UserError(
                f"{self.path}: onnxruntime fails on {count_of(len(images), 'image', 'images')} ({_reason(error)})"
            ) from error
        shape, where = np.shape(found), f"{self.path}: output {self.output_name}"
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            raise UserError(f"{where} holds no floating-point numbers · see --output-name")
        if len(shape) < 2 or shape[0] != len(images) or max(shape[1:]) != np.prod(shape[1:]):
            raise UserError(
                f"{where}: got {shape} for {count_of(len(images), 'image', 'images')} · "
                f"allowed: ({len(images)}, D) or ({len(images)}, D, 1, 1) · see --output-name"
            )
        return found.reshape(len(images), -1)[:count].astype(np.float32)

    def _fed(self, images: Array) -> Array:
        """Convert (B, 3, H, W) float32 to the file's layout and type."""
        if self.reads.dtype == "uint8":
            images = images.round().clip(0, 255)
        if self.reads.layout == "nhwc":
            images = images.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images, dtype=self.reads.dtype)

    def _probe(self, graph: Any) -> int:
        """Embed three crops of noise, alone and together; return D."""
        spec = self.input_spec
        if math.prod((*spec.size, self.reads.batch or 1)) > _MOST_PIXELS:
            raise UserError(
                f"{self.path}: reads {self.reads.batch or 1} images of {spec.size[0]}×{spec.size[1]} pixels at once · "
                f"allowed: {_MOST_PIXELS:,} pixels in all"
            )
        pixels = np.random.default_rng(0).integers(0, 256, (3, 3, *spec.size)).astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
        images = (pixels - mean) / std
        alone = np.concatenate([self._run(images[k : k + 1]) for k in range(3)])
        if not np.isfinite(alone).all():
            name = not_finite_weight(graph)
            why = f"its weights {shown(name)} hold them · use another file" if name else f"is its scale {spec.scale()}?"
            raise UserError(f"{self.path}: gives NaN or infinity for images of noise · {why}")
        if self.reads.batch != 1:
            self._check_batches(images[: self.reads.batch], alone)
        return int(alone.shape[1])

    def _check_batches(self, images: Array, alone: Array) -> None:
        """Switch to one image at a time where a batch gives other embeddings than its images."""
        try:
            together = self._run(images)
        except UserError:
            reason = "the file cannot run a batch"
        else:
            if np.abs(together - alone[: len(images)]).max() <= _SAME * np.abs(alone).max():
                return
            reason = "the file gives other embeddings in a batch than alone"
        self.one_by_one = True
        self.notes.append(f"{reason}, so images run one at a time")


# ---------------------------------------------------------------- reading the file


def _read(path: Path) -> tuple[Any, tuple[Path, ...]]:
    """Read the graph without its external weights; return it and all files."""
    onnx = import_extra("--onnx", "onnx")
    try:
        with open(path, "rb", opener=regular_file) as file:
            proto = onnx.load(file, load_external_data=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such ONNX file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · allowed: an ONNX file") from error
    except Exception as error:  # protobuf's own exceptions
        raise UserError(f"{path}: not an ONNX file, or a damaged one ({_reason(error)})") from error
    if not proto.graph.output:
        raise UserError(f"{path}: not an ONNX file, or a damaged one (it holds no graph)")
    places = sorted({place_of(tensor) for tensor in external_tensors(proto, onnx.TensorProto)})
    return proto.graph, (path, *(checked_place(path, place) for place in places))


def _facts(path: Path, session: Any, source: Any, graph: Any) -> FileFacts:
    if source.type not in _DTYPES:
        allowed = ", ".join(_DTYPES.values())
        raise UserError(f"{path}: input {source.name} is a {source.type} · allowed: {allowed}")
    about = session.get_modelmeta().custom_metadata_map
    exported = _EXPORTED.fullmatch(about.get("input", ""))
    names = [node.name for node in graph.node[:_NUM_FIRST]]
    return FileFacts(
        path,
        tuple(side if isinstance(side, int) and side > 0 else None for side in source.shape),
        _DTYPES[source.type],
        order=exported[1].lower() if exported else None,
        mirror=about.get("mirror", "none") if exported else None,
        first=_first_scaling(graph, source.name),
        insightface=_starts(names, "Sub", "_minus") and _starts(names, "Mul", "_mul"),
    )


def _starts(names: Sequence[str], *beginnings: str) -> bool:
    return any(name.startswith(beginnings) for name in names)


def _first_scaling(graph: Any, name: str) -> str | None:
    """Return the operator that scales the input before all others; None if there is none."""
    for node in graph.node:  # in the order of computation
        if name in node.input and node.op_type != "Shape":
            if node.op_type not in _PASSED:
                return str(node.op_type) if node.op_type in _SCALING else None
            name = node.output[0]
    return None


def _chosen(path: Path, kind: str, values: Sequence[Any], wanted: str | None) -> Any:
    """Return the input or output that the user names, or the only one."""
    option = {"input": "--input", "output": "--output-name"}[kind]
    listed = ", ".join(f"{value.name} {list(value.shape)}" for value in values)
    found = [value for value in values if wanted in (None, value.name)]
    if not found:
        raise UserError(f"{path}: {option}: got {wanted!r} · allowed: {listed}")
    if len(found) > 1:
        raise UserError(f"{path}: has {len(found)} {kind}s: {listed} · choose one with {option} NAME")
    if kind == "input" and len(values) > 1:
        raise UserError(f"{path}: needs all of its inputs: {listed} · allowed: one · make the others constants")
    return found[0]


# ---------------------------------------------------------------- onnxruntime


def runs_on(device: torch.device) -> bool:
    """Say whether the installed onnxruntime has a provider for a device."""
    return _provider(device) in import_extra("--onnx", "onnxruntime").get_available_providers()


def _provider(device: torch.device) -> str:
    return {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device.type, device.type)


def _session(runtime: Any, path: Path, device: torch.device) -> Any:
    provider = _provider(device)
    why = f"--device: got {device} · onnxruntime {runtime.__version__} cannot use {provider} here · use --device cpu"
    if not runs_on(device):
        raise UserError(why + (", or pip install onnxruntime-gpu" if device.type == "cuda" else ""))
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of batches that were traced with another size
    options.intra_op_num_threads = torch.get_num_threads()
    own: dict[str, Any] = {"device_id": device.index or 0} if device.type == "cuda" else {}
    providers = [(provider, own), *([("CPUExecutionProvider", {})] if device.type != "cpu" else [])]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has its own exceptions, which name the node
        raise UserError(f"{path}: onnxruntime {runtime.__version__} refuses it ({_reason(error)})") from error
    if session.get_providers()[0] != provider:  # without CUDA's libraries it uses the CPU and reports no error
        raise UserError(why)
    return session


def _reason(error: Exception) -> str:
    """Return the message of onnxruntime or protobuf on one line, without its codes and the path."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .* failed:", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {printable(text[:_LONGEST_REASON])}"
