"""Find the weights of an ONNX graph, in the file itself and in the files beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, shown
from ..extras import import_extra


def not_finite_weight(graph: Any) -> str:
    """Return the name of the first weights with NaN or infinity; empty if there are none.

    Weights in another file are not read.
    """
    onnx = import_extra("--onnx", "onnx")
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                return str(tensor.name)
    return ""


def external_tensors(message: Any, tensor_type: Any) -> Iterator[Any]:
    """Find all tensors, at any depth, whose numbers are stored in another file."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if isinstance(part, tensor_type):
                if part.data_location == tensor_type.EXTERNAL:
                    yield part
            elif hasattr(part, "ListFields"):
                yield from external_tensors(part, tensor_type)


def place_of(tensor: Any) -> str:
    """Return the path of a tensor's file, relative to the graph's folder; empty without one."""
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def checked_place(path: Path, place: str) -> Path:
    """Return a file of weights; refuse one outside the folder, which old onnxruntimes read."""
    file = path.parent / place
    folders = (path.parent.resolve(), path.resolve().parent)  # these differ for links, as in Hugging Face's cache
    try:
        inside = any(file.resolve().is_relative_to(each) for each in folders)
        there = inside and file.is_file()
    except (OSError, ValueError, RuntimeError):  # a long name, a zero byte, or a cycle of links
        inside = there = False
    if not place or Path(place).is_absolute() or not inside:
        named = shown(place)
        raise UserError(f"{path}: names the file of weights {named} · allowed: a file in its own folder · refused")
    if not there:
        raise UserError(f"{path}: its file of weights {place} is missing · put it beside the .onnx")
    return file
