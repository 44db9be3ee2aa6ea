"""Triton kernels of PReLU on CUDA, for maps in channels-last memory.

A map (B, C, H, W) is a matrix of B·H·W rows and C columns here. A kernel reads each number once.
Arithmetic is float32, and results have the type of the map. No kernel uses atomics, so each sum has
a fixed order. Set ``TRITON_INTERPRET=1`` before the first import of triton to run the kernels on a
CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048
"""Numbers of a map in a tile, but at least one row."""

_TILES = 32
"""Tiles that one program of :func:`prelu_backward` adds up."""

_PARTS, _COLUMNS = 128, 32
"""Tile of :func:`slope_gradients`."""

device_of: Any = torch.cuda.device_of  # Triton launches on the current device


def prelu(x: Tensor, slopes: Tensor, base: Tensor | None = None) -> Tensor:
    """Return max(x, 0) + slope · min(x, 0), or this added to ``base``.

    Args:
        x: (B, C, H, W), channels last.
        slopes: (C,).
        base: like ``x``.
    """
    out = torch.empty_like(x)
    rows, grid = _row_tiles(x)
    with device_of(x):
        _prelu[grid](x, slopes, base, out, *_sizes(x), rows, _padded(x), base is not None)
    return out


def prelu_backward(
    x: Tensor, slopes: Tensor, grad: Tensor, dx: Tensor, parts: Tensor, result: Tensor | None = None
) -> None:
    """Compute the gradient of x: grad where x > 0, elsewhere slope · grad.

    Args:
        x: (B, C, H, W), channels last.
        slopes: (C,).
        grad: like ``x``.
        dx: like ``x``, written; it may be ``grad`` itself.
        parts: (:func:`count_parts`, C) float32, written: parts of the sum of x · grad over x ≤ 0,
            which is the gradient of the slopes.
        result: like ``x``, written: PReLU of x; or None.
    """
    rows, _ = _row_tiles(x)
    with device_of(x):
        _prelu_backward[(len(parts),)](
            x, slopes, grad, dx, result, parts, *_sizes(x), _TILES * rows, rows, _padded(x), result is not None
        )


def count_parts(x: Tensor) -> int:
    """Return the number of parts in which :func:`prelu_backward` adds up the gradient of slopes."""
    rows, _ = _row_tiles(x)
    return triton.cdiv(_sizes(x)[0], _TILES * rows)  # type: ignore[no-any-return]


def slope_gradients(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """Add up the parts of some layers of C channels: (K, P, C) float32 → (K, C) of ``dtype``."""
    layers, count, channels = parts.shape
    out = torch.empty(layers, channels, dtype=dtype, device=parts.device)
    with device_of(parts):
        _sum_parts[(layers, triton.cdiv(channels, _COLUMNS))](parts, out, count, channels, _PARTS, _COLUMNS)
    return out


def _sizes(x: Tensor) -> tuple[int, int]:
    """Return the rows and columns of the matrix."""
    return x.numel() // x.shape[1], x.shape[1]


def _padded(x: Tensor) -> int:
    return triton.next_power_of_2(x.shape[1])  # type: ignore[no-any-return]


def _row_tiles(x: Tensor) -> tuple[int, tuple[int]]:
    """Return the rows of a tile, and the grid."""
    rows = max(_TILE // _padded(x), 1)
    return rows, (triton.cdiv(_sizes(x)[0], rows),)


@triton.jit
def _prelu(x, slopes, base, out, rows, width, ROWS: tl.constexpr, WIDTH: tl.constexpr, ADDS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    here = (row < rows)[:, None] & (column < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    slope = tl.load(slopes + column, mask=column < width, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    value = tl.where(value > 0, value, slope[None, :] * value)
    if ADDS:  # rounded before the sum too, as by two separate operations
        value = value.to(out.dtype.element_ty).to(tl.float32) + tl.load(base + place, mask=here, other=0.0)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=here)


@triton.jit
def _prelu_backward(
    x,
    slopes,
    grad,
    dx,
    result,
    parts,
    rows,
    width,
    PART: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    AGAIN: tl.constexpr,
):
    column = tl.arange(0, WIDTH)
    slope = tl.load(slopes + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(0, PART, ROWS):
        row = tl.program_id(0) * PART + first + tl.arange(0, ROWS)
        here = (row < rows)[:, None] & (column < width)[None, :]
        place = row.to(tl.int64)[:, None] * width + column[None, :]
        value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
        slant = tl.load(grad + place, mask=here, other=0.0).to(tl.float32)
        tl.store(dx + place, tl.where(value > 0, slant, slope * slant).to(dx.dtype.element_ty), mask=here)
        if AGAIN:
            again = tl.where(value > 0, value, slope * value)
            tl.store(result + place, again.to(result.dtype.element_ty), mask=here)
        total += tl.where(value > 0, 0.0, value * slant)
    place = tl.program_id(0).to(tl.int64) * width + column
    tl.store(parts + place, tl.sum(total, 0), mask=column < width)


@triton.jit
def _sum_parts(parts, out, count, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    layer = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, count, ROWS):
        row = first + tl.arange(0, ROWS)
        place = (layer.to(tl.int64) * count + row)[:, None] * channels + column[None, :]
        total += tl.load(parts + place, mask=(row < count)[:, None] & inside[None, :], other=0.0)
    tl.store(out + layer * channels + column, tl.sum(total, 0).to(out.dtype.element_ty), mask=inside)
