"""An ONNX network in 8-bit integers: onnxruntime's static quantisation, its ranges taken from real crops."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.images import IMAGE_SUFFIXES, BadImage, decode
from ..errors import UserError
from ..files import write_whole
from .formats import needs
from .graph import INPUT_NAME, InputFormat

NUM_PICTURES = 256
_BATCH = 16


def calibration_crops(folder: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read up to :data:`NUM_PICTURES` crops, evenly spread over all below a folder.

    Returns:
        (N, H, W, 3) uint8, BGR.

    Raises:
        UserError: none there, or one that is unreadable or of another size.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(
            f"--int8: got {folder} · allowed: a folder with aligned crops, such as some of the training set"
        )
    chosen = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, NUM_PICTURES).round().astype(int))]
    crops = []
    for path in chosen:
        try:
            crop = decode(path.read_bytes())
        except (OSError, BadImage) as error:
            raise UserError(f"{path}: {error}") from error
        if crop.shape[:2] != size:
            raise UserError(
                f"{path}: is {crop.shape[0]}×{crop.shape[1]} pixels (height × width) · --int8 wants {size[0]}×{size[1]}"
            )
        crops.append(crop)
    return np.stack(crops)


def quantise(source: Path, destination: Path, crops: npt.NDArray[np.uint8], form: InputFormat) -> None:
    """Write an 8-bit copy of an ONNX network.

    Weights get a scale for each output channel, activations one for each tensor, from their least and greatest values
    on the crops (onnxruntime's QDQ format, signed).

    Args:
        source: of :func:`~.formats.write_onnx`.
        destination: the new file.
        crops: (N, H, W, 3) uint8, BGR.
        form: how ``source`` wants them.
    """
    tools = needs("onnxruntime.quantization")
    needs("onnxruntime.quantization.shape_inference")
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it advises on the root logger to do what is done here
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared, part = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
            tools.shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            tools.quantize_static(
                str(prepared), str(part), _Reader(crops, form), quant_format=tools.QuantFormat.QDQ, per_channel=True,
                activation_type=tools.QuantType.QInt8, weight_type=tools.QuantType.QInt8,
            )  # fmt: skip
            write_whole(destination, part.read_bytes())
    except OSError as error:
        raise UserError(f"{destination}: cannot be written ({error.strerror})") from error
    finally:
        log.setLevel(level)


class _Reader:
    """Batches as onnxruntime asks for them, one call after the other."""

    def __init__(self, crops: npt.NDArray[np.uint8], form: InputFormat) -> None:
        starts: Sequence[int] = range(0, len(crops), _BATCH)
        self._batches: Iterator[dict[str, npt.NDArray[np.generic]]] = (
            {INPUT_NAME: form.feed(crops[start : start + _BATCH])} for start in starts
        )

    def get_next(self) -> dict[str, npt.NDArray[np.generic]] | None:
        return next(self._batches, None)
