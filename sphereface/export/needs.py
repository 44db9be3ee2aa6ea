"""Import the packages of the extra ``export``, which are not installed everywhere."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import UserError


def needs(module: str) -> Any:
    """Import one of the extra's packages. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"--format: {module} is not installed · pip install '.[export]' in this project's folder"
        ) from error
