"""Networks that are exported once for several tests: the export takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sphereface.export.formats import Export, write_onnx
from sphereface.export.graph import InputFormat

from .networks import needs, network


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[[str], tuple[Export, Path]]:
    """Return a backbone's tiny network with its ONNX file, which takes colours in the other order than the network."""
    needs("onnx", "onnxscript", "onnxruntime")
    made: dict[str, tuple[Export, Path]] = {}

    def of(name: str) -> tuple[Export, Path]:
        if name not in made:
            model, path = network(name), tmp_path_factory.mktemp(name) / "face.onnx"
            export = Export(model, InputFormat("bgr" if model.input_spec.order == "rgb" else "rgb", "nchw", "float32"))
            assert write_onnx(export, path, {}) < 1e-4
            made[name] = export, path
        return made[name]

    return of
