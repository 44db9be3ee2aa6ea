"""Triton kernels for the N target rows of a batch on CUDA. They know no margin.

They do in three launches what :class:`~sphereface.losses.last_layer.LastLayer` does in some
thirty.
Arithmetic is float32, and no kernel uses atomics, as in :mod:`sphereface.losses.triton_kernels`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import triton_kernels as kernels

_TILE = 8192
"""Numbers of the queries in a tile of :func:`add_targets_`, but at least one row."""


def target_rows(rows: Tensor, query: Tensor, factor: Tensor | float, shortest: float) -> tuple[Tensor, ...]:
    """Measure the rows W_y of N samples against their queries.

    Args:
        rows: (N, D), contiguous.
        query: (N, D) float32, contiguous.
        factor: (N,) float32, or one number: what makes cosines of the products.
        shortest: a row that is not longer is taken for zero.

    Returns:
        ``(unit, lengths, inverse, has_angle, along, cosines)`` as in
        :class:`~sphereface.losses.last_layer.TargetRows`, float32.
    """
    samples, width = rows.shape
    padded = triton.next_power_of_2(width)
    unit = torch.empty_like(rows, dtype=torch.float32)
    figures = torch.empty(5, samples, dtype=torch.float32, device=rows.device)
    per_sample, constant = (factor, 1.0) if isinstance(factor, Tensor) else (None, factor)
    with kernels.device_of(rows):
        _target_rows[(samples,)](
            rows, query, per_sample, unit, figures, samples, width, shortest, constant, padded, per_sample is not None
        )
    return unit, *figures.unbind()


def finish_dx(
    dquery: Tensor,
    rows: Tensor,
    slope: Tensor,
    x: Tensor,
    per_norm: Tensor,
    inverse: Tensor | None,
    scale: float,
    dx: Tensor,
) -> None:
    """Write the gradient of x: g + per_norm · x, with g = dq + slope · row.

    With ``inverse``, where q = s·x/‖x‖, it is s (g − x̂ (x̂·g)) / ‖x‖ in place of g.

    Args:
        dquery: (N, D) float32, contiguous, as are all the matrices.
        rows: (N, D) float32.
        slope: (N,) float32.
        x: (N, D) float32.
        per_norm: (N,) float32.
        inverse: (N,) float32 1/‖x_i‖, or None.
        scale: s; read with ``inverse``.
        dx: (N, D) of any type, written.
    """
    samples, width = x.shape
    padded = triton.next_power_of_2(width)
    with kernels.device_of(x):
        _finish_dx[(samples,)](dquery, rows, slope, x, per_norm, inverse, scale, dx, width, padded, inverse is not None)


def add_targets_(
    dweight: Tensor,
    labels: Tensor,
    query: Tensor,
    slope: Tensor,
    unit: Tensor,
    *,
    inverse: Tensor | None,
    per_length: Tensor | None,
    project: bool,
) -> None:
    """Add to row y of dW, in place: Σ slope_i q_i over the samples of class y, and what follows.

    One program adds all samples of a class, in a fixed order.

    Args:
        dweight: (C, D) float32, contiguous.
        labels: (N,) int64 rows of dW.
        query: (N, D) float32, contiguous.
        slope: (N,) float32.
        unit: (N, D) float32 Ŵ_y; read with ``project`` or ``per_length``.
        inverse: (N,) float32 1/‖W_y‖, by which the sum is multiplied; or None.
        per_length: (N,) float32; Σ per_length_i Ŵ_y is added as well; or None.
        project: subtract the part along W_y.
    """
    samples, width = query.shape
    padded = triton.next_power_of_2(width)
    tile, flags = max(_TILE // padded, 1), (inverse is not None, per_length is not None, project)
    with kernels.device_of(query):
        _add_targets[(samples,)](
            dweight, labels, query, slope, unit, inverse, per_length, samples, width, tile, padded, *flags
        )


@triton.jit
def _target_rows(
    rows,
    query,
    factor,
    unit,
    figures,
    samples,
    width,
    shortest,
    constant,
    WIDTH: tl.constexpr,
    PER_SAMPLE: tl.constexpr,
):
    i = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    here = column < width
    place = i.to(tl.int64) * width + column
    value = tl.load(rows + place, mask=here, other=0.0).to(tl.float32)
    length = tl.sqrt_rn(tl.sum(value * value, 0))
    zero = length <= shortest
    inverse = tl.where(zero, 0.0, 1.0 / length)
    direction = value * inverse
    along = tl.sum(direction * tl.load(query + place, mask=here, other=0.0), 0)
    cosine = along * constant
    if PER_SAMPLE:
        cosine = along * tl.load(factor + i)
    cosine = tl.where(cosine > 1.0, 1.0, tl.where(cosine < -1.0, -1.0, cosine))  # NaN stays
    tl.store(unit + place, direction, mask=here)
    tl.store(figures + i, length)
    tl.store(figures + samples + i, inverse)
    tl.store(figures + 2 * samples + i, tl.where(zero, 0.0, 1.0))
    tl.store(figures + 3 * samples + i, along)
    tl.store(figures + 4 * samples + i, cosine)


@triton.jit
def _finish_dx(
    dquery, rows, slope, x, per_norm, inverse, scale, dx, width, WIDTH: tl.constexpr, NORMALIZED: tl.constexpr
):
    i = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    here = column < width
    place = i.to(tl.int64) * width + column
    value = tl.load(rows + place, mask=here, other=0.0) * tl.load(slope + i)
    value += tl.load(dquery + place, mask=here, other=0.0)
    sample = tl.load(x + place, mask=here, other=0.0)
    if NORMALIZED:
        factor = tl.load(inverse + i)
        direction = sample * factor
        value = (value - direction * tl.sum(value * direction, 0)) * (scale * factor)
    value += sample * tl.load(per_norm + i)
    tl.store(dx + place, value.to(dx.dtype.element_ty), mask=here)


@triton.jit
def _add_targets(
    dweight,
    labels,
    query,
    slope,
    unit,
    inverse,
    per_length,
    samples,
    width,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    DIVIDED: tl.constexpr,
    LENGTHS: tl.constexpr,
    PROJECT: tl.constexpr,
):
    i = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    here = column < width
    own = tl.load(labels + i)
    earlier = 0
    total = tl.zeros([WIDTH], tl.float32)
    lengths = 0.0
    for first in range(0, samples, ROWS):
        j = first + tl.arange(0, ROWS)
        same = tl.load(labels + j, mask=j < samples, other=-1) == own
        earlier += tl.sum((same & (j < i)).to(tl.int32), 0)
        place = j.to(tl.int64)[:, None] * width + column[None, :]
        value = tl.load(query + place, mask=same[:, None] & here[None, :], other=0.0)
        total += tl.sum(value * tl.load(slope + j, mask=same, other=0.0)[:, None], 0)
        if LENGTHS:
            lengths += tl.sum(tl.load(per_length + j, mask=same, other=0.0), 0)
    place = i.to(tl.int64) * width + column
    if PROJECT:
        direction = tl.load(unit + place, mask=here, other=0.0)
        total -= direction * tl.sum(total * direction, 0)
    if DIVIDED:
        total *= tl.load(inverse + i)
    if LENGTHS:
        total += lengths * tl.load(unit + place, mask=here, other=0.0)
    target = dweight + own * width + column
    first_of_class = here & (earlier == 0)  # its program adds all of them
    tl.store(target, tl.load(target, mask=first_of_class, other=0.0) + total, mask=first_of_class)
