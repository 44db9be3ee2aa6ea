"""The values that options allow, where the modules that use them import large libraries.

The parsers of the commands name them in their help, which must not wait for PyTorch. This module
imports nothing.
"""

from __future__ import annotations

from typing import Literal, get_args

DEVICES = ("auto", "cuda", "mps", "cpu")

PICKS = ("centre", "largest")
"""Of several faces: the one nearest the centre of the image, or the largest."""
ON_SEVERAL = ("take", "skip", "all")
"""What to do with an image of several faces."""
SUSPICIONS = (
    "near-duplicates", "near-duplicates-across", "several-faces", "unlike-own", "same-person", "in-verification",
)  # fmt: skip
"""What ``sphereface check`` may suspect of a training set, and ``--leave-out`` leaves out."""

Publisher = Literal[
    "caffe", "clcarwin", "yakhyo", "adaface", "cvlface", "magface", "opensphere", "opensphere-deprecated", "arcface"
]
PUBLISHERS: tuple[Publisher, ...] = get_args(Publisher)
"""Whose weights ``sphereface import`` reads."""

LAYOUTS = ("nhwc", "nchw")
"""Of the pixels that an exported network reads; their types and what it does with mirror images follow."""
DTYPES = ("uint8", "float32", "float16")
MIRRORS = ("none", "add", "join")

DEFAULT_OPSET = 17
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9}
"""The file format (IR) that belongs to an operator set of ONNX. onnxruntime 1.16 reads IR 9 and opset 19, not newer."""
