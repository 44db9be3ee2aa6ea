"""The step of Muon: gradients with all singular values near 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def orthogonal_steps(gradients: Sequence[torch.Tensor], dtype: torch.dtype, *, padded: bool) -> list[torch.Tensor]:
    """Return about U Vᵀ of each gradient U S Vᵀ, a matrix with one row for each output channel.

    Matrices of the same shape are stacked, so that one batched product serves all of them.

    Args:
        gradients: (m, …) each.
        dtype: in which to compute.
        padded: stack all matrices with the same number of rows, and fill the narrower ones with
            zeros, which change no singular value. There are fewer products, but more work.

    Returns:
        One step for each gradient, with its shape, number type and memory order.
    """
    steps = [torch.empty_like(gradient) for gradient in gradients]
    kinds: dict[tuple[int, ...], list[int]] = {}
    for number, gradient in enumerate(gradients):
        kinds.setdefault(tuple(gradient.shape[:1] if padded else gradient.shape), []).append(number)
    for chosen in kinds.values():
        widths, first = [gradients[number][0].numel() for number in chosen], gradients[chosen[0]]
        stack = torch.zeros(len(chosen), len(first), max(widths), dtype=dtype, device=first.device)
        for matrix, number, width in zip(stack, chosen, widths, strict=True):
            matrix[:, :width].unflatten(1, gradients[number].shape[1:]).copy_(gradients[number])
        for matrix, number, width in zip(orthogonalised(stack), chosen, widths, strict=True):
            steps[number].copy_(matrix[:, :width].unflatten(1, gradients[number].shape[1:]))
    return steps


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Return about U Vᵀ of matrices U S Vᵀ, with five steps of a Newton–Schulz iteration.

    The coefficients (Jordan et al. 2024) raise small singular values as fast as possible. They
    leave singular values in [0.68, 1.13] rather than at 1, which works equally well.

    Args:
        matrices: (k, m, n) floating point.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    # no singular value above 1
    x: torch.Tensor = matrices / (torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
