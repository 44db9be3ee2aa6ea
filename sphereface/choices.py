"""The values that options allow, without the large libraries of the modules that use them.

The parsers of the commands name them in ``--help``, which must not wait for PyTorch. This module
imports nothing.
"""

from __future__ import annotations

from typing import Literal, get_args

DEVICES = ("auto", "cuda", "mps", "cpu")

PICKS = ("centre", "largest")
"""Which of several faces to take: the nearest to the centre of the image, or the largest."""
ON_SEVERAL = ("take", "skip", "all")
"""What to do with an image of several faces."""
SUSPICIONS = (
    "near-duplicates", "near-duplicates-across", "several-faces", "unlike-own", "same-person", "in-verification",
)  # fmt: skip
"""Suspicions of ``sphereface check`` about a training set; ``--leave-out`` leaves them out."""

Publisher = Literal[
    "caffe", "clcarwin", "yakhyo", "adaface", "cvlface", "magface", "opensphere", "opensphere-deprecated", "arcface"
]
PUBLISHERS: tuple[Publisher, ...] = get_args(Publisher)
"""Publishers whose weights ``sphereface import`` reads."""

LAYOUTS = ("nhwc", "nchw")
"""Channel order of the pixels that an export reads; then their type and the mirror images."""
DTYPES = ("uint8", "float32", "float16")
MIRRORS = ("none", "add", "join")

DEFAULT_OPSET = 17
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9}
"""The file format (IR) of an ONNX opset. onnxruntime 1.16 reads up to IR 9 and opset 19."""
