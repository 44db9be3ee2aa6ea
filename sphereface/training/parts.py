"""Rates and decay of single parameters: the recipe's, and a run's own for its parts (``train.lr_mult``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from ..errors import UserError


def part_factor(name: str, factors: Mapping[str, float]) -> float:
    """The factor of the longest part that a dotted name is, or lies in; 1 where there is none."""
    found = [part for part in factors if name == part or name.startswith(f"{part}.")]
    return factors[max(found, key=len)] if found else 1.0


def check_parts(factors: Mapping[str, object], names: Iterable[str]) -> dict[str, float]:
    """``train.lr_mult``, checked against the names of all parameters.

    Raises:
        UserError: a part that no parameter lies in, or a factor that is no number of at least 0.
    """
    names = list(names)
    checked = {}
    for part, factor in factors.items():
        if not any(name == part or name.startswith(f"{part}.") for name in names):
            tops = sorted({".".join(name.split(".")[:3]) for name in names})
            raise UserError(
                f"train.lr_mult: got {part!r} · allowed: the start of a name, such as {', '.join(tops[:12])}"
            )
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor < float("inf"):
            raise UserError(f"train.lr_mult.{part}: got {factor!r} · allowed: a number of at least 0")
        checked[part] = float(factor)
    return checked


def freeze(modules: Mapping[str, nn.Module], factors: Mapping[str, float]) -> None:
    """Fix the parameters whose factor is 0."""
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters(prefix):
            if part_factor(name, factors) == 0.0:
                parameter.requires_grad_(False)


def keep_fixed_statistics(modules: Mapping[str, nn.Module], factors: Mapping[str, float]) -> None:
    """Put normalisation layers of fixed parts into evaluation mode: their running statistics are fixed with them."""
    for prefix, module in modules.items():
        for name, layer in module.named_modules(prefix=prefix):
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and part_factor(name, factors) == 0.0:
                layer.eval()


def parameter_groups(
    modules: Mapping[str, nn.Module], factors: Mapping[str, float], *, bias_rate: float = 2.0
) -> list[dict[str, Any]]:
    """Trainable parameters with the recipe's multipliers, times the factors of their parts.

    Biases of convolutions and linear layers learn at twice the rate, without decay. All weights and the slopes of
    PReLU have rate and decay 1. Scale and shift of a batch normalisation (not in the recipe) are not decayed.
    Fixed parameters are left out.

    Args:
        modules: by the names that ``factors`` uses, such as ``model`` and ``head``.
        factors: of parts' rates.
        bias_rate: of biases.

    Returns:
        Optimiser groups with ``params``, ``lr_mult``, ``decay_mult``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, module in modules.items():
        for name, parameter, rate, decay in _multipliers(prefix, module, bias_rate):
            if parameter.requires_grad:
                groups.setdefault((rate * part_factor(name, factors), decay), []).append(parameter)
    return [{"params": params, "lr_mult": rate, "decay_mult": decay} for (rate, decay), params in groups.items()]


def _multipliers(prefix: str, module: nn.Module, bias_rate: float) -> Iterator[tuple[str, nn.Parameter, float, float]]:
    for path, layer in module.named_modules(prefix=prefix):
        for name, parameter in layer.named_parameters(recurse=False):
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                rate, decay = 1.0, 0.0
            elif name == "bias":
                rate, decay = bias_rate, 0.0
            else:
                rate, decay = 1.0, 1.0
            yield f"{path}.{name}", parameter, rate, decay
