"""Packages of optional extras, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UserError


def import_extra(option: str, module: str) -> Any:
    """Import a module of the extra ``export``.

    Args:
        option: of the command line, which needs it.
        module: its name.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{option}: {module} is not installed · pip install '.[export]' in this project's folder"
        ) from error
