"""Import the packages of the extra ``export``, which are not installed everywhere."""

from __future__ import annotations

from typing import Any

from ..extras import import_extra


def needs(module: str) -> Any:
    """Import one of the extra's packages. Raises UserError where it is not installed."""
    return import_extra("--format", module)
