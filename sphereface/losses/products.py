"""The matrix products of the last layer, by the fastest library available.

For float32 on a CPU torch.mm calls MKL, which leaves half the vector width of AMD's processors
unused; oneDNN, which torch has for bfloat16 and convolutions, does not: 230 against 96 GFLOP/s on
one core of a Zen 5. Where MKL uses all (Intel's), no such gain is to be had. Both accumulate in
float32. On CUDA, products of bfloat16 or float16 are written in float32 where that is wanted.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

# The operation by which torch.compile reaches oneDNN; where a version of torch has it no more, MKL
# does.
_linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_HAS_WIDE = hasattr(torch.ops.aten.mm, "dtype_out")
_HAS_ONEDNN = _linear is not None and platform.machine() in ("x86_64", "AMD64")


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return A b in their type. Operands are (K, M) or transposed views of such."""
    return _onednn(a, b) if _by_onednn(a) else torch.mm(a, b)


def put_product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write a b, of its type or a lower one, to ``out``."""
    if _widens(a, out):
        torch.mm(a, b, out.dtype, out=out)
    elif a.dtype != out.dtype or _by_onednn(a):
        out.copy_(product(a, b))
    else:
        torch.mm(a, b, out=out)


def add_product(a: Tensor, b: Tensor, out: Tensor, unit: Tensor | None = None) -> None:
    """Add a b · unit to ``out``, in its type. Only lower types have a ``unit``."""
    if unit is not None:
        out.addcmul_(_wide_product(a, b, out), unit)
    elif _widens(a, out):
        out.add_(_wide_product(a, b, out))
    elif a.dtype != out.dtype or _by_onednn(a):
        out.add_(product(a, b))
    else:
        out.addmm_(a, b)


def _wide_product(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    return torch.mm(a, b, like.dtype) if _widens(a, like) else product(a, b).to(like.dtype)


def _widens(a: Tensor, out: Tensor) -> bool:
    """A product of two-byte numbers that cuBLAS writes in float32, without a rounding between."""
    return _HAS_WIDE and a.device.type == "cuda" and a.element_size() == 2 and out.dtype == torch.float32


def _by_onednn(a: Tensor) -> bool:
    wanted = _HAS_ONEDNN and bool(torch.backends.mkldnn.enabled)
    return wanted and a.dtype == torch.float32 and a.device.type == "cpu"


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    result: Tensor = _linear(_dense(a), _dense(b.t()), None, "none", [], "")
    return result


def _dense(matrix: Tensor) -> Tensor:
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()
