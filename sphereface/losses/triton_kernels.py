"""Triton kernels of the last layer on CUDA. None of them knows a margin.

Three kernels work on logits. One reads a block Z, (B, N) and class-major, and returns the maximum
and the sum of exponentials of each sample, in parts. One joins the parts. One turns Z into the
gradient in place. Each sample's own class is left out. Two kernels work on the rows of W: one
divides them by their lengths, the other completes the rows of the gradient. The kernels for the N
targets are in :mod:`sphereface.losses.target_kernels`.

All arithmetic is float32. The tensors may be float32, bfloat16 or float16. No kernel uses atomics,
so the results do not depend on timing. Set ``TRITON_INTERPRET=1`` before the first import of triton
to run the kernels on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PART = 256
"""Rows of a block that one program of :func:`sum_exponentials` reduces."""

_ROWS, _COLUMNS = 16, 128
"""Tile of logits: a program reads 256 bytes of each row of bfloat16 logits."""

_PARTS = 64
"""Parts in a tile of :func:`totals`. The other side is ``_ROWS`` samples: more programs run."""

_TILE = 2048
"""Numbers of W in a tile, but at least one row."""

device_of: Any = torch.cuda.device_of  # Triton launches on the current device
_LOWEST = torch.finfo(torch.float32).min


def sum_exponentials(z: Tensor, own: Tensor, start: int, bias: Tensor | None, maxima: Tensor, sums: Tensor) -> None:
    """Reduce each part of :data:`PART` rows to the maximum and the sum of exp(z − maximum).

    Args:
        z: (B, N) logits of a block, contiguous. They are read once and not changed.
        own: (N,) int64, the row of W of each sample's class, −1 for none. This row is left out.
        start: the row of W of the first row of the block.
        bias: (B,) float32, added to each row; or None.
        maxima: (⌈B / PART⌉, N) float32, written; the lowest finite number where nothing is left.
        sums: the same shape, written.
    """
    classes, samples = z.shape
    grid = (triton.cdiv(classes, PART) * triton.cdiv(samples, _COLUMNS),)
    with device_of(z):
        _sum_exponentials[grid](
            z, own, bias, maxima, sums, start, classes, samples, PART, _ROWS, _COLUMNS, bias is not None, _LOWEST
        )


def totals(maxima: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Join the parts of :func:`sum_exponentials`, (P, N) each.

    Returns:
        (N,) the maximum of all, and (N,) the sum of exp(z − maximum).
    """
    parts, samples = maxima.shape
    best, total = torch.empty_like(maxima[0]), torch.empty_like(maxima[0])
    with device_of(maxima):
        _totals[(triton.cdiv(samples, _ROWS),)](maxima, sums, best, total, parts, samples, _PARTS, _ROWS, _LOWEST)
    return best, total


def gradient_(z: Tensor, own: Tensor, start: int, bias: Tensor | None, shift: Tensor, gain: Tensor) -> None:
    """Z ← gain · exp(Z + b − shift) in place, and 0 for each sample's own class.

    Args:
        z: (B, N), contiguous.
        own, start, bias: as for :func:`sum_exponentials`.
        shift: (N,) float32.
        gain: () float32, on the device.
    """
    classes, samples = z.shape
    grid = (triton.cdiv(classes, _ROWS) * triton.cdiv(samples, _COLUMNS),)
    with device_of(z):
        _gradient[grid](z, own, bias, shift, gain, start, classes, samples, _ROWS, _COLUMNS, bias is not None)


def unit_rows(
    weight: Tensor, out: Tensor, shortest: float, *, inverse: Tensor | None = None, held: Tensor | None = None
) -> Tensor:
    """Write the rows of W divided by their lengths to ``out``, and return it. W is read once.

    Args:
        weight: (B, D), contiguous.
        out: (B, D) of any type; it may be W itself.
        shortest: a row that is not longer is taken for zero, and so is its inverse.
        inverse: (B,) float32, written: 1/‖W_j‖; or None.
        held: (), on the device: where it is above 0, the rows are copied as they are; or None.
    """
    rows, width, grid = _row_tiles(weight)
    with device_of(weight):
        _unit_rows[grid](
            weight, out, inverse, held, *weight.shape, shortest, rows, width, inverse is not None, held is not None
        )
    return out


def finish_rows_(grad: Tensor, weight: Tensor, inverse: Tensor | None, unit: Tensor | None, *, project: bool) -> None:
    """Complete the rows of the gradient of W in place: g ← (g − Ŵ_j (Ŵ_j·g)) · unit / ‖W_j‖.

    Args:
        grad: (B, D) float32, contiguous.
        weight: (B, D), contiguous; read only with ``project``.
        inverse: (B,) float32 1/‖W_j‖; None for 1.
        unit: () float32, on the device; None for 1.
        project: subtract the part along W_j. This needs ``inverse``.
    """
    rows, width, grid = _row_tiles(grad)
    with device_of(grad):
        _finish_rows[grid](
            grad, weight, inverse, unit, *grad.shape, rows, width, inverse is not None, unit is not None, project
        )


def _row_tiles(matrix: Tensor) -> tuple[int, int, tuple[int]]:
    """Rows and padded width of a tile, and the grid."""
    width = triton.next_power_of_2(matrix.shape[1])
    rows = max(_TILE // width, 1)
    return rows, width, (triton.cdiv(len(matrix), rows),)


@triton.jit(do_not_specialize=["start"])
def _sum_exponentials(
    z,
    own,
    bias,
    maxima,
    sums,
    start,
    classes,
    samples,
    PART: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BIASED: tl.constexpr,
    LOWEST: tl.constexpr,
):
    tiles = tl.cdiv(samples, COLUMNS)
    part = tl.program_id(0) // tiles
    column = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < samples
    own_row = tl.load(own + column, mask=inside, other=-1) - start
    top = tl.full([ROWS, COLUMNS], LOWEST, tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, PART, ROWS):
        row = part * PART + first + tl.arange(0, ROWS)
        here = (row < classes)[:, None] & inside[None, :]
        place = row.to(tl.int64)[:, None] * samples + column[None, :]
        value = tl.load(z + place, mask=here, other=float("-inf")).to(tl.float32)
        value = tl.where(row[:, None] == own_row[None, :], float("-inf"), value)
        if BIASED:
            value += tl.load(bias + row, mask=row < classes, other=0.0)[:, None]
        # one exponential a logit: it scales the sum to a new maximum, or the logit to the old one
        above = value > top
        ratio = tl.exp(-tl.abs(value - top))
        total = tl.where(above, total * ratio + 1.0, total + ratio)
        top = tl.where(above, value, top)
    highest = tl.max(top, 0)
    result = part.to(tl.int64) * samples + column
    tl.store(maxima + result, highest, mask=inside)
    tl.store(sums + result, tl.sum(total * tl.exp(top - highest[None, :]), 0), mask=inside)


@triton.jit
def _totals(
    maxima, sums, best, result, parts, samples, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LOWEST: tl.constexpr
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < samples
    top = tl.full([ROWS, COLUMNS], LOWEST, tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, parts, ROWS):
        part = first + tl.arange(0, ROWS)
        here = (part < parts)[:, None] & inside[None, :]
        place = part.to(tl.int64)[:, None] * samples + column[None, :]
        value = tl.load(maxima + place, mask=here, other=LOWEST)
        highest = tl.maximum(top, value)
        total = total * tl.exp(top - highest) + tl.load(sums + place, mask=here, other=0.0) * tl.exp(value - highest)
        top = highest
    highest = tl.max(top, 0)
    tl.store(best + column, highest, mask=inside)
    tl.store(result + column, tl.sum(total * tl.exp(top - highest[None, :]), 0), mask=inside)


@triton.jit(do_not_specialize=["start"])
def _gradient(
    z, own, bias, shift, gain, start, classes, samples, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BIASED: tl.constexpr
):
    tiles = tl.cdiv(samples, COLUMNS)
    row = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < samples
    own_row = tl.load(own + column, mask=inside, other=-1) - start
    offset = tl.load(shift + column, mask=inside, other=0.0)
    here = (row < classes)[:, None] & inside[None, :]
    place = row.to(tl.int64)[:, None] * samples + column[None, :]
    value = tl.load(z + place, mask=here, other=0.0).to(tl.float32)
    if BIASED:
        value += tl.load(bias + row, mask=row < classes, other=0.0)[:, None]
    slope = tl.load(gain) * tl.exp(value - offset[None, :])
    slope = tl.where(row[:, None] == own_row[None, :], 0.0, slope)
    tl.store(z + place, slope.to(z.dtype.element_ty), mask=here)


@triton.jit
def _unit_rows(
    weight,
    unit,
    inverse,
    held,
    classes,
    width,
    shortest,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    STORED: tl.constexpr,
    HOLDS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    here = (row < classes)[:, None] & (column < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    value = tl.load(weight + place, mask=here, other=0.0).to(tl.float32)
    length = tl.sqrt_rn(tl.sum(value * value, 1))
    factor = tl.where(length <= shortest, 0.0, 1.0 / length)
    if HOLDS:
        factor = tl.where(tl.load(held) > 0, 1.0, factor)
    if STORED:
        tl.store(inverse + row, factor, mask=row < classes)
    tl.store(unit + place, (value * factor[:, None]).to(unit.dtype.element_ty), mask=here)


@triton.jit
def _finish_rows(
    grad,
    weight,
    inverse,
    unit,
    classes,
    width,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    DIVIDED: tl.constexpr,
    SCALED: tl.constexpr,
    PROJECT: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    here = (row < classes)[:, None] & (column < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    value = tl.load(grad + place, mask=here, other=0.0)
    factor = tl.full([ROWS], 1.0, tl.float32)
    if DIVIDED:
        factor = tl.load(inverse + row, mask=row < classes, other=0.0)
    if PROJECT:
        direction = tl.load(weight + place, mask=here, other=0.0).to(tl.float32) * factor[:, None]
        value -= direction * tl.sum(value * direction, 1)[:, None]
    if SCALED:
        factor *= tl.load(unit)
    tl.store(grad + place, value * factor[:, None], mask=here)
