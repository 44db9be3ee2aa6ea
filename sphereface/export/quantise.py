"""Quantise an ONNX network to 8-bit integers by onnxruntime, with ranges from real crops."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.images import BadImage, decode
from ..data.walking import walk_images
from ..errors import UserError
from ..extras import import_extra
from ..files import write_whole
from .formats import Export, batch_and_singles, onnx_runner
from .graph import INPUT_NAME, InputFormat, expected
from .onnx_graph import left_in_float32, split_bias, tidy

NUM_IMAGES = 256
LEAST_MEDIAN = 0.95
"""Lowest median cosine with PyTorch of a usual 8-bit copy; docs/deploy.md has the measurement."""

_BATCH = 16
_CHECKED = 8
_SAME_ROW = 1e-3
"""Largest effect of the rest of a batch on an embedding, relative to its largest number."""


def calibration_crops(folder: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read up to :data:`NUM_IMAGES` crops, spread evenly over all images of a folder.

    Returns:
        (N, H, W, 3) uint8, BGR.

    Raises:
        UserError: there are none, or one is unreadable or of another size.
    """
    try:
        walked = walk_images(folder)
    except UserError as error:
        raise UserError(f"--int8: {error}") from error
    if sentence := walked.not_read():
        logging.getLogger(__name__).warning("%s: %s", folder, sentence)
    files = sorted(walked.images)
    if not files:
        raise UserError(f"--int8: got {folder} · allowed: a folder of aligned crops, such as some of the training set")
    chosen = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, NUM_IMAGES).round().astype(int))]
    crops = []
    for path in chosen:
        try:
            crop = decode(path.read_bytes())
        except (OSError, BadImage) as error:
            raise UserError(f"{path}: {error}") from error
        if crop.shape[:2] != size:
            raise UserError(
                f"{path}: is {crop.shape[0]}×{crop.shape[1]} pixels (height × width) · --int8 needs {size[0]}×{size[1]}"
            )
        crops.append(crop)
    return np.stack(crops)


def quantise(export: Export, source: Path, destination: Path, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Write an 8-bit copy of an ONNX network, then run it.

    Weights get a scale for each output channel, activations one for each tensor, from their
    smallest and largest values on the crops (onnxruntime's QDQ format, signed). The bias of a
    linear layer becomes an addition in float32; see also :func:`~.onnx_graph.left_in_float32`.

    Args:
        export: the settings that ``source`` was written with.
        source: a file of :func:`~.formats.write_onnx`.
        destination: the new file.
        crops: (N, H, W, 3) uint8, BGR.

    Returns:
        (N,) the cosine between the embeddings of each crop by the new file and by PyTorch.

    Raises:
        UserError: the file cannot be written, or the embedding of a crop depends on the other crops
            of its batch.
    """
    onnx, tools = import_extra("--format", "onnx"), import_extra("--format", "onnxruntime.quantization")
    import_extra("--format", "onnxruntime.quantization.shape_inference")
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it logs advice that this code already follows
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared, part = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
            tools.shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            proto = onnx.load(str(prepared))
            left_out = split_bias(proto) + left_in_float32(proto)
            onnx.save(proto, str(prepared))
            tools.quantize_static(
                str(prepared), str(part), _Reader(crops, export.form, export.batch),
                quant_format=tools.QuantFormat.QDQ, per_channel=True, activation_type=tools.QuantType.QInt8,
                weight_type=tools.QuantType.QInt8, nodes_to_exclude=left_out,
            )  # fmt: skip
            quantised = tidy(onnx.load(str(part)), export.opset)
        write_whole(destination, quantised.SerializeToString())
    except OSError as error:
        raise UserError(f"{destination}: cannot be written ({error.strerror})") from error
    finally:
        log.setLevel(level)
    return check_eight_bits(export, destination, crops)


def check_eight_bits(export: Export, path: Path, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Run an 8-bit network on a batch, on single crops, and on all crops; see :func:`quantise`."""
    few = np.resize(crops, (export.batch or _CHECKED, *crops.shape[1:]))  # repeats crops where there are too few
    run = onnx_runner(path)
    found = batch_and_singles(run, export, few)
    if export.batch is not None:  # no single crops: the same crops in other rows
        found.append(np.roll(run(export.form.feed(np.roll(few, 1, axis=0))), -1, axis=0))
    difference = float(np.abs(found[0] - found[-1]).max() / np.abs(found[0]).max())
    if not difference <= _SAME_ROW:
        raise UserError(
            f"{path}: a crop gives other embeddings in a batch than alone (off by {difference:.1e}, allowed "
            f"{_SAME_ROW:.0e}) · not written · use the network without --int8"
        )
    cosines = [_cosines(run(export.form.feed(part)), expected(export.model, part, export.mirror))
               for part in _batches(crops, export.batch)]  # fmt: skip
    return np.concatenate(cosines)[: len(crops)]


def _cosines(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return (B,) the cosine of each row of (B, D) with that row of the other; 0 without one."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0))


def _batches(crops: npt.NDArray[np.uint8], batch: int | None) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield all crops; with a fixed batch size the last batch repeats some of its crops."""
    number = batch or _BATCH
    for start in range(0, len(crops), number):
        part = crops[start : start + number]
        yield np.resize(part, (number, *part.shape[1:])) if batch else part


class _Reader:
    """Yield batches in the form that onnxruntime expects."""

    def __init__(self, crops: npt.NDArray[np.uint8], form: InputFormat, batch: int | None = None) -> None:
        self._batches = ({INPUT_NAME: form.feed(part)} for part in _batches(crops, batch))

    def get_next(self) -> dict[str, npt.NDArray[np.generic]] | None:
        return next(self._batches, None)
