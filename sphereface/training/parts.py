"""Learning rate and weight decay of single parameters, from the recipe and ``train.lr_mult``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from ..config_sections import DecayConfig
from ..errors import UserError, shown

log = logging.getLogger(__name__)

_RECIPE_DECAY = DecayConfig()
_MOST_NAMED = 5


def part_factor(name: str, factors: Mapping[str, float]) -> float:
    """Return the factor of the longest part that contains a dotted name; 1 without one."""
    found = [part for part in factors if name == part or name.startswith(f"{part}.")]
    return factors[max(found, key=len)] if found else 1.0


def check_parts(factors: Mapping[str, object], names: Iterable[str]) -> dict[str, float]:
    """Check ``train.lr_mult`` against the names of all parameters, and return it.

    Raises:
        UserError: no parameter is in a part, or a factor is not a number of at least 0.
    """
    names = list(names)
    checked = {}
    for part, factor in factors.items():
        if not any(name == part or name.startswith(f"{part}.") for name in names):
            tops = sorted({".".join(name.split(".")[:3]) for name in names})[:12]
            raise UserError(f"train.lr_mult: got {part!r} · allowed: the start of a name, such as {', '.join(tops)}")
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor < float("inf"):
            raise UserError(f"train.lr_mult.{part}: got {factor!r} · allowed: a number of at least 0")
        checked[part] = float(factor)
    return checked


def freeze(modules: Mapping[str, nn.Module], factors: Mapping[str, float]) -> None:
    """Freeze the parameters whose factor is 0."""
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters(prefix):
            if part_factor(name, factors) == 0.0:
                parameter.requires_grad_(False)


def check_trained(modules: Mapping[str, nn.Module], *, has_start: bool) -> None:
    """Refuse a run that trains nothing, or only a head on a network of random weights.

    Args:
        modules: ``model`` and ``head``, with frozen parameters.
        has_start: the network gets its weights from ``train.init_from``.

    Raises:
        UserError: the run does so.
    """
    trained = {prefix for prefix, module in modules.items() if any(p.requires_grad for p in module.parameters())}
    if not trained:
        raise UserError(
            "train.lr_mult: got 0 for every parameter, so nothing is trained · allowed: a factor above 0 for some part"
        )
    if "model" not in trained and not has_start:
        raise UserError(
            "train.lr_mult: got 0 for the whole network, which stays random · allowed: 0 only with train.init_from, "
            "which gives the network its weights · set train.init_from, or a factor above 0 for a part of the model"
        )


def keep_fixed_statistics(modules: Mapping[str, nn.Module], factors: Mapping[str, float]) -> None:
    """Put normalisation layers of frozen parts into evaluation mode, to fix their statistics."""
    for prefix, module in modules.items():
        for name, layer in module.named_modules(prefix=prefix):
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and part_factor(name, factors) == 0.0:
                layer.eval()


def parameter_groups(
    modules: Mapping[str, nn.Module],
    factors: Mapping[str, float],
    *,
    bias_rate: float = 2.0,
    decay: DecayConfig = _RECIPE_DECAY,
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups with their multipliers.

    A multiplier is the recipe's times the factor of the part. Biases of convolutions and linear
    layers have the learning rate ``bias_rate``; everything else has rate 1. Weights are decayed.
    ``decay`` sets whether the others are: biases, slopes of PReLU, and scale and shift of
    normalisation layers. The latter include other vectors that multiply a map, such as a layer
    scale. Parameters in a backbone's ``no_weight_decay()`` are never decayed. Frozen parameters
    are left out.

    Args:
        modules: by the names that ``factors`` uses, such as ``model`` and ``head``.
        factors: the learning rate's factors of parts.
        bias_rate: multiplier of biases.
        decay: ``train.decay``.

    Returns:
        Optimiser groups with ``params``, ``lr_mult``, ``decay_mult``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, module in modules.items():
        _warn_of_no_parameters(prefix, module)
        for name, parameter, kind in _kinds(prefix, module):
            if parameter.requires_grad:
                rate = (bias_rate if kind == "biases" else 1.0) * part_factor(name, factors)
                decayed = kind == "weights" or (kind != "never" and getattr(decay, kind))
                groups.setdefault((rate, 1.0 if decayed else 0.0), []).append(parameter)
    return [{"params": params, "lr_mult": rate, "decay_mult": share} for (rate, share), params in groups.items()]


def _warn_of_no_parameters(prefix: str, module: nn.Module) -> None:
    """Warn of names in ``no_weight_decay()`` that no parameter has, and name parameters like them.

    Networks of timm list names of parts that they do not have, so a name like no parameter is
    silent beside right ones.
    """
    names, given = [name for name, _, _ in _kinds(prefix, module)], list(map(str, _undecayed(module)))
    wrong = [name for name in given if f"{prefix}.{name}" not in names]
    if 0 < len(wrong) < len(given):
        wrong = [end for end in wrong if any(name.endswith(f".{end}") for name in names)]
    like = [name for name in names if any(name.endswith(f".{end}") for end in wrong)] or names
    if wrong:
        log.warning(
            "%s: no_weight_decay(): got %s, which no parameter has, so it changes nothing · allowed: a whole name, "
            "such as %s",
            type(module).__name__,
            ", ".join(map(shown, wrong[:_MOST_NAMED])) + (", …" if len(wrong) > _MOST_NAMED else ""),
            ", ".join(name.removeprefix(f"{prefix}.") for name in like[:_MOST_NAMED]),
        )


def _undecayed(module: nn.Module) -> list[Any]:
    return sorted(getattr(module, "no_weight_decay", set)(), key=str)


def _kinds(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Parameter, str]]:
    """Yield name, parameter and kind: weights, biases, norms, slopes, or never (decayed)."""
    never = {f"{prefix}.{name}" for name in _undecayed(module)}
    for path, layer in module.named_modules(prefix=prefix):
        for name, parameter in layer.named_parameters(recurse=False):
            if f"{path}.{name}" in never:
                kind = "never"
            elif is_norm(layer):
                kind = "norms"
            elif name == "bias":
                kind = "biases"
            elif isinstance(layer, nn.PReLU):
                kind = "slopes"
            else:
                kind = "weights" if parameter.ndim > 1 else "norms"
            yield f"{path}.{name}", parameter, kind


def is_norm(layer: nn.Module) -> bool:
    """Return whether a layer normalises its input, in any library.

    These are batch, layer, group, instance and RMS normalisation.
    """
    return "Norm" in type(layer).__name__ or isinstance(layer, nn.modules.batchnorm._BatchNorm)
