"""The input of a backbone: size, channel order and scale of its images. No torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass

log = logging.getLogger(__name__)

ORDERS = ("bgr", "rgb")
_WHITE = 255.0
_FACTOR = 0.05  # a smaller number to divide by is a factor, such as 1/128


@dataclass(frozen=True)
class InputSpec:
    """The input of a backbone: a pixel p from 0 to 255 becomes (p − mean) / std.

    Attributes:
        height, width: of an aligned crop, in pixels.
        order: of the channels, ``"bgr"`` (as OpenCV decodes) or ``"rgb"``.
        mean, std: in pixel values, one number for all channels or one for each, in ``order``.
    """

    height: int = 112
    width: int = 96
    order: str = "bgr"
    mean: tuple[float, ...] = (127.5,)
    std: tuple[float, ...] = (128.0,)

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        return self.height, self.width

    def scale(self) -> str:
        """Return the normalisation as text: ``(pixel − 127.5) / 128``."""
        if self.mean == (0.0,):
            return f"pixel / {_number(self.std)}"
        return f"(pixel − {_number(self.mean)}) / {_number(self.std)}"

    def describe(self) -> str:
        """Return the network's input as text: shape, type, scale and channel order."""
        return f"(B, 3, {self.height}, {self.width}) float32 = {self.scale()}, {self.order.upper()}"


def warn_of_scale(where: str, spec: InputSpec) -> None:
    """Warn of a scale for pixels from 0 to 1, which most publishers state, and of factors.

    It is only a warning, because a network that was trained with these numbers reads them.

    Args:
        where: the file or keys that state the scale, for the message.
        spec: with the scale.
    """
    mean, std = spec.mean, spec.std
    unit = max(map(abs, mean)) < 1 and any(mean)  # a mean of 0 is the same in both units
    small = min(std) < 1 or (unit and max(std) <= 1)
    if not unit and not small:
        return
    got = f"got mean {_commas(mean)} and std {_commas(std)}"
    factor = max(std) < _FACTOR
    doubt = "this std looks like a factor" if factor and not unit else "these look like numbers for pixels from 0 to 1"
    if unit:
        mean = tuple(value * _WHITE for value in mean)
    if small:
        std = tuple(1 / value if factor else value * _WHITE for value in std)
    log.warning(
        "%s: %s: %s · pixels are from 0 to 255, and become (pixel − mean) / std · give mean %s and std %s, unless the "
        "network was trained with these numbers",
        *(where, got, doubt, _commas(mean), _commas(std)),
    )


def _commas(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _number(values: tuple[float, ...]) -> str:
    text = ", ".join(f"{value:g}" for value in values)
    return text if len(values) == 1 else f"[{text}]"
