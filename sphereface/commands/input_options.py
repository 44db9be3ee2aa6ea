"""Parse options that describe the input of a network: sizes, and numbers for each channel."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from ..errors import UserError, shown


def parse_size(option: str, text: str | None) -> tuple[int, int] | None:
    """Return (height, width) from a text such as ``112x96``; None for None.

    Raises:
        UserError: the text has another form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if found is None:
        raise UserError(f"{option}: got {shown(text)} · allowed: height x width in pixels, such as 112x96")
    return int(found[1]), int(found[2])


def parse_numbers(
    option: str, text: str | None, *, fits: Callable[[float], bool] = lambda _: True, which: str = ""
) -> tuple[float, ...] | None:
    """Return one number for all channels, or three; None for None.

    Args:
        option: name of the option, for messages.
        text: numbers separated by commas.
        fits: returns whether a number is allowed.
        which: which numbers ``fits`` allows, for messages: ``" above 0"``.

    Raises:
        UserError: the text has another form, or a number is not allowed.
    """
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) and fits(number) for number in numbers):
        raise UserError(f"{option}: got {shown(text)} · allowed: one number{which}, or three separated by commas")
    return numbers
