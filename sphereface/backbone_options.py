"""The options that every backbone has: the base class of every ``model.name``. No torch.

:mod:`sphereface.models` holds the backbones; docs/extend.md shows how to add one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .errors import UserError, shown
from .input_spec import ORDERS, InputSpec
from .options import option, to_plain

MOST_NETWORKS = 100


@dataclass(frozen=True)
class BatchNormOptions:
    """Batch normalisation of the whole network; null keeps the backbone's own value.

    An evaluation uses ``eps``, so both values belong to the model and are stored in its checkpoint.
    """

    momentum: float | None = option(None, above=0, high=1)
    eps: float | None = option(None, above=0, high=1)


@dataclass(frozen=True)
class BackboneOptions:
    """Base of every backbone's options.

    A subclass adds its own fields and implements :meth:`build`.

    Attributes:
        networks: number of networks to train one after another and join into one checkpoint.
        embedding_dim: D, the length of an embedding.
        input_size: (height, width) of the aligned crops in pixels.
        input_order: channel order that the network reads.
        input_mean, input_std: a pixel p from 0 to 255 becomes (p − mean) / std; one number, or one
            for each channel.
        batch_norm: settings of all batch normalisation layers.
    """

    name: ClassVar[str]

    networks: int = option(1, low=1, high=MOST_NETWORKS)
    embedding_dim: int = option(512, low=2)
    input_size: tuple[int, ...] = option((112, 112), low=16)
    input_order: str = option("rgb", choices=ORDERS)
    input_mean: float | tuple[float, ...] = option(127.5, low=0, high=255)
    input_std: float | tuple[float, ...] = option(127.5, above=0)
    batch_norm: BatchNormOptions = field(default_factory=BatchNormOptions)

    def build(self) -> Any:
        """Build a :class:`sphereface.models.Backbone` with new weights from torch's generator."""
        raise UserError(f"model.name: got {self.name!r}, whose options class has no build() · see docs/extend.md")

    @property
    def input_spec(self) -> InputSpec:
        """Return the input that the network reads."""
        height, width = self.input_size
        return InputSpec(height, width, self.input_order, _numbers(self.input_mean), _numbers(self.input_std))

    @property
    def batch_statistics(self) -> bool:
        """Return whether batch statistics require two or more images in a training step."""
        return True

    def problems(self) -> list[str]:
        """Return a line for each wrong combination of valid options; subclasses add theirs."""
        found = []
        if len(self.input_size) != 2:
            found.append(f"model.input_size: got {shown(list(self.input_size))} · allowed: [height, width]")
        for key in ("input_mean", "input_std"):
            values = _numbers(getattr(self, key))
            if len(values) not in (1, 3):
                found.append(f"model.{key}: got {shown(list(values))} · allowed: one number, or three")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ``name`` first: the ``model:`` section of a configuration."""
        return {"name": self.name, **to_plain(self)}


def _numbers(value: float | tuple[float, ...]) -> tuple[float, ...]:
    numbers = value if isinstance(value, tuple) else (value,)
    return numbers[:1] if len(numbers) == 3 and len(set(numbers)) == 1 else numbers
