"""Import packages of optional extras when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UserError


def import_extra(option: str, module: str, extra: str = "export", *, instead: str = "") -> Any:
    """Import a module of an extra.

    Args:
        option: of the command line or the configuration that needs the module.
        module: its name.
        extra: what to install, as ``pip install '.[EXTRA]'``.
        instead: an alternative without it, such as ``"--index exact"``.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        other = f", or {instead}" if instead else ""
        raise UserError(
            f"{option}: {module} is not installed · pip install '.[{extra}]' in this project's folder{other}"
        ) from error
