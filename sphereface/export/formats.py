"""Write each file whole, run it on pixels, and compare the result with PyTorch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..choices import DEFAULT_OPSET
from ..errors import UserError, first_line, refusing
from ..extras import import_extra
from ..files import write_whole
from ..models import Backbone
from ..models.loading import bare_weights
from .graph import INPUT_NAME, OUTPUT_NAME, InputFormat, PixelsToEmbedding, example_crops, expected
from .onnx_graph import OLDEST_TRACED, at_opset, multiply_before_erf, tidy

Run = Callable[[npt.NDArray[np.generic]], npt.NDArray[np.float32]]

TOLERANCE = 1e-4
"""Largest allowed difference from PyTorch's embedding, relative to its largest number."""

HALF_TOLERANCE = 2e-2
"""The same for an export in half precision."""


@dataclass(frozen=True)
class Export:
    """A network and the settings of its export.

    Attributes:
        model: in evaluation mode.
        form: of the pixels.
        mirror: see :class:`~sphereface.export.graph.PixelsToEmbedding`.
        batch: the one batch size that the file accepts; None for any.
        opset: of ONNX.
    """

    model: Backbone
    form: InputFormat = field(default_factory=InputFormat)
    mirror: str = "none"
    batch: int | None = None
    opset: int = DEFAULT_OPSET

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) of a crop."""
        return self.model.input_spec.size

    def graph(self) -> PixelsToEmbedding:
        """Build the network from pixels to embeddings."""
        return PixelsToEmbedding(self.model, self.form, self.mirror).eval()

    def example(self, count: int) -> torch.Tensor:
        """Return pixels to trace with: as many as the fixed batch size, or else ``count`` crops."""
        return torch.from_numpy(self.form.feed(example_crops(self.size, self.batch or count)))


def write_onnx(export: Export, path: Path, about: Mapping[str, str]) -> float:
    """Write ONNX with the weights inside and ``about`` as its metadata.

    Returns:
        The largest relative difference from PyTorch, in onnxruntime.

    Raises:
        UserError: a package is missing, the opset is not possible, the file cannot be written, or
            it gives other embeddings.
    """
    onnx = import_extra("--format", "onnx")
    import_extra("--format", "onnxscript")
    import_extra("--format", "onnxruntime")
    proto = tidy(at_opset(_traced(export), export.opset), export.opset)
    multiply_before_erf(proto)
    onnx.helper.set_model_props(proto, dict(about))
    _write(path, proto.SerializeToString())
    return check(export, onnx_runner(path), path)


def _traced(export: Export) -> Any:
    """Trace with PyTorch's exporter, without its warnings about torchvision's operators."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration")]
    before = [log.disabled for log in logs]
    dynamic = None if export.batch else ({0: torch.export.Dim("batch")},)
    try:
        for log in logs:
            log.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                export.graph(), (export.example(2),), dynamo=True, verbose=False, optimize=True,
                input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
                opset_version=max(export.opset, OLDEST_TRACED), dynamic_shapes=dynamic,
            )  # fmt: skip
    except MemoryError:
        raise
    except Exception as error:  # the exporter and the network that it traces can raise anything
        raise _untraceable("onnx", "torchscript", error) from error
    finally:
        for log, disabled in zip(logs, before, strict=True):
            log.disabled = disabled
    assert program is not None
    return program.model_proto


def _untraceable(file_format: str, other: str, error: Exception) -> UserError:
    return UserError(
        f"--format {file_format}: PyTorch cannot trace this network ({_described(error)}) · try --format {other}, or "
        "write the network's forward() without steps that depend on the values in a tensor"
    )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def onnx_runner(path: Path) -> Run:
    """Run an ONNX file in onnxruntime, on the CPU."""
    runtime = import_extra("--format", "onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns about batches of another size than the traced one
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own exceptions, which name the node
        raise UserError(
            f"{path}: onnxruntime {runtime.__version__} refuses it ({_described(error)}) · try another --opset"
        ) from error

    def run(images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: images})[0])

    return run


def write_torchscript(export: Export, path: Path, about: Mapping[str, str]) -> float:
    """Write TorchScript, traced with one crop; ``about.json`` is inside. See :func:`write_onnx`."""
    with warnings.catch_warnings():  # torch deprecates TorchScript; programs in C++ still load it
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(export.graph(), export.example(1))  # type: ignore[no-untyped-call]
        except Exception as error:  # as above
            raise _untraceable("torchscript", "onnx", error) from error
        extra = {"about.json": json.dumps(dict(about))}
        _write(path, lambda file: torch.jit.save(traced, file, _extra_files=extra))
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(loaded(torch.from_numpy(images)).numpy())

    return check(export, run, path)


def write_safetensors(model: Backbone, path: Path, about: Mapping[str, str]) -> None:
    """Write the bare weights under their names in this package.

    The file has no graph, so it does not normalise the input.

    Raises:
        UserError: safetensors is not installed, or the file cannot be written.
    """
    save = import_extra("--format", "safetensors.torch").save
    weights = {name: value.contiguous() for name, value in bare_weights(model).items()}
    _write(path, save(weights, metadata=dict(about)))


def check(export: Export, run: Run, path: Path) -> float:
    """Compare a written network with PyTorch on single crops and on a batch of a new size.

    Returns:
        max |difference| / max |embedding|.

    Raises:
        UserError: it cannot run them, or differs by more than the tolerance.
    """
    crops = example_crops(export.size, export.batch or 3)
    wanted = expected(export.model, crops, export.mirror)
    try:
        difference = float(np.max([_off(found, wanted) for found in batch_and_singles(run, export, crops)]))
    except Exception as error:  # each runtime raises its own
        raise UserError(
            f"{path}: cannot be run on {len(crops)} crops ({type(error).__name__}) · not written · "
            "give it a fixed batch size with --batch"
        ) from error
    allowed = HALF_TOLERANCE if export.form.half else TOLERANCE
    if not difference <= allowed:
        advice = " · export with --dtype float32 instead" if export.form.half else ""
        raise UserError(
            f"{path}: gives other embeddings than PyTorch (off by {difference:.1e}, allowed {allowed:.0e}) · not "
            f"written{advice}"
        )
    return difference


def batch_and_singles(run: Run, export: Export, crops: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    """Embed crops as one batch and, where the batch size is free, one at a time: each (B, D)."""
    found = [run(export.form.feed(crops))]
    if export.batch is None:
        found.append(np.concatenate([run(export.form.feed(crops[k : k + 1])) for k in range(len(crops))]))
    return found


def _off(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.abs(found.astype(np.float32) - wanted).max() / np.abs(wanted).max())


def check_embeddings(wanted: npt.NDArray[np.float32], path: Path) -> None:
    """Refuse a network whose embeddings of some crops, (B, D), are not finite or all zero.

    Raises:
        UserError: with the path of its file.
    """
    what = "not finite" if not np.isfinite(wanted).all() else "all zero" if not wanted.any() else None
    if what is not None:
        raise UserError(
            f"{path}: its embeddings of {len(wanted)} crops are {what} · allowed: a network that distinguishes "
            "faces · its weights are damaged, or their training failed"
        )


def _write(path: Path, data: Any) -> None:
    with refusing(f"{path}: cannot be written"):
        write_whole(path, data)
