"""The files: each is written whole, then run on pixels and compared with PyTorch."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import UserError
from ..files import write_whole
from .graph import INPUT_NAME, OUTPUT_NAME, PixelsToEmbedding, example_crops

Run = Callable[[npt.NDArray[np.generic]], npt.NDArray[np.float32]]

TOLERANCE = 1e-4
"""Largest difference from PyTorch's embedding, relative to its largest number, that an export may have."""


def needs(module: str) -> Any:
    """Import one of the extra's packages. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"--format: {module} is not installed · pip install '.[export]' in this project's folder"
        ) from error


def write_onnx(graph: PixelsToEmbedding, size: tuple[int, int], path: Path, about: Mapping[str, str]) -> float:
    """Write ONNX with a free batch size, weights inside, ``about`` as its metadata.

    Returns:
        The largest relative difference from PyTorch, in onnxruntime.

    Raises:
        UserError: a package is missing, the file cannot be written, or it gives other embeddings.
    """
    onnx = needs("onnx")
    needs("onnxscript")
    needs("onnxruntime")
    example = torch.from_numpy(graph.form.feed(example_crops(size, 2)))
    log = logging.getLogger("torch.onnx")
    level, log.disabled = log.disabled, True  # notes on operators of torchvision that no network here has
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph, (example,), dynamo=True, verbose=False, optimize=True,
                input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    finally:
        log.disabled = level
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, dict(about))
    _write(path, proto.SerializeToString())
    return check(graph, size, onnx_runner(path), path)


def onnx_runner(path: Path) -> Run:
    """Run an ONNX file in onnxruntime, on the processor."""
    session = needs("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: images})[0])

    return run


def write_torchscript(graph: PixelsToEmbedding, size: tuple[int, int], path: Path, about: Mapping[str, str]) -> float:
    """Write TorchScript, with ``about.json`` inside; otherwise as :func:`write_onnx`."""
    example = torch.from_numpy(graph.form.feed(example_crops(size, 2)))
    with warnings.catch_warnings():  # TorchScript is not developed further; programs in C++ still load it
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph, example)  # type: ignore[no-untyped-call]
        extra = {"about.json": json.dumps(dict(about))}
        _write(path, lambda file: torch.jit.save(traced, file, _extra_files=extra))
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(loaded(torch.from_numpy(images)).numpy())

    return check(graph, size, run, path)


def write_safetensors(graph: PixelsToEmbedding, path: Path, about: Mapping[str, str]) -> None:
    """Write the bare weights under their names in this package; no graph, so no normalisation either.

    Raises:
        UserError: safetensors is not installed, or the file cannot be written.
    """
    save = needs("safetensors.torch").save
    weights = {name: value.contiguous() for name, value in graph.model.state_dict().items()}
    _write(path, save(weights, metadata=dict(about)))


def check(graph: PixelsToEmbedding, size: tuple[int, int], run: Run, path: Path) -> float:
    """Compare a written network with PyTorch, on another batch size than it was traced with.

    Returns:
        max |difference| / max |embedding|.

    Raises:
        UserError: above :data:`TOLERANCE`; the file is removed.
    """
    images = graph.form.feed(example_crops(size, 3))
    with torch.inference_mode():
        wanted = graph(torch.from_numpy(images)).numpy()
    difference = float(np.abs(run(images) - wanted).max() / np.abs(wanted).max())
    if not difference <= TOLERANCE:
        path.unlink()
        raise UserError(
            f"{path}: gives other embeddings than PyTorch (off by {difference:.1e}, allowed {TOLERANCE:.0e}) · removed"
        )
    return difference


def _write(path: Path, data: Any) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
