"""Recompute units in the backward pass, with batch statistics that move once a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

BatchNorm = nn.modules.batchnorm._BatchNorm


def run_units(units: Iterable[nn.Module], x: Tensor, *, recompute: bool) -> Tensor:
    """Run units one after another.

    With ``recompute``, only the input of each unit is kept for the backward pass. The running
    statistics of batch normalisation move in the forward pass and stay fixed in the recomputation.
    The units must not be random.
    """
    for unit in units:
        x = _recomputed(unit, x) if recompute and torch.is_grad_enabled() else unit(x)
    return x


def _recomputed(unit: nn.Module, x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # the compiler never repeats a buffer update, and rejects such a context
        contexts: dict[str, Any] = {}
    else:
        contexts = {"context_fn": partial(_contexts, unit)}
    result: Tensor = torch.utils.checkpoint.checkpoint(
        unit, x, use_reentrant=False, preserve_rng_state=False, **contexts
    )
    return result


def _contexts(unit: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the forward pass and of the recomputation."""
    return nullcontext(), frozen_statistics(unit)


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of all batch normalisation layers in ``module`` as they are.

    In training mode the layers still normalise by the statistics of their batch, so the results do
    not change.
    """
    frozen = [_Frozen(layer) for layer in module.modules() if isinstance(layer, BatchNorm)]
    try:
        yield
    finally:
        for statistics in frozen:
            statistics.release()


class StatisticsOnlyInside:
    """A context in which batch normalisation layers move their running statistics.

    It serves networks that recompute by themselves: the forward pass runs inside the context, the
    recomputation in the backward pass outside of it, where the statistics stay fixed. The layers
    have hooks until :meth:`remove`.

    Args:
        module: holds the layers.
    """

    def __init__(self, module: nn.Module) -> None:
        self._inside = False
        self._frozen: dict[nn.Module, _Frozen] = {}
        self._hooks: list[RemovableHandle] = []
        for layer in module.modules():
            if isinstance(layer, BatchNorm):
                self._hooks.append(layer.register_forward_pre_hook(self._before))
                self._hooks.append(layer.register_forward_hook(self._after, always_call=True))

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside = False

    def remove(self) -> None:
        """Let the layers move their statistics everywhere again."""
        for hook in self._hooks:
            hook.remove()

    def _before(self, layer: nn.Module, _: Any) -> None:
        if not self._inside:
            assert isinstance(layer, BatchNorm)
            self._frozen[layer] = _Frozen(layer)

    def _after(self, layer: nn.Module, *_: Any) -> None:
        if layer in self._frozen:
            self._frozen.pop(layer).release()


class _Frozen:
    """A batch normalisation layer whose statistics stay fixed until :meth:`release`.

    ``track_running_stats = False`` would do this too, but then the layer saves fewer tensors for
    the backward pass. torch's checkpointing needs the same number in the recomputation as in the
    forward pass.
    """

    def __init__(self, layer: BatchNorm) -> None:
        self.layer, self.momentum, self.counter = layer, layer.momentum, layer.num_batches_tracked
        layer.momentum, layer.num_batches_tracked = 0.0, None

    def release(self) -> None:
        self.layer.momentum, self.layer.num_batches_tracked = self.momentum, self.counter
