"""The input of a backbone: size, channel order and scale of its images. No torch."""

from __future__ import annotations

from dataclasses import dataclass

ORDERS = ("bgr", "rgb")


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


def _number(values: tuple[float, ...]) -> str:
    text = ", ".join(f"{value:g}" for value in values)
    return text if len(values) == 1 else f"[{text}]"
