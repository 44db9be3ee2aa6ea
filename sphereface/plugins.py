"""Import backbones, margins and protocols from outside the package, named in SPHEREFACE_PLUGINS.

Only the user's environment chooses them. No configuration and no checkpoint can cause an import.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import UserError, first_line

VARIABLE = "SPHEREFACE_PLUGINS"
_DIGITS = 12
_code: dict[str, str] = {}


def load_plugins(value: str | None = None) -> list[str]:
    """Import each plugin once, so that a configuration can name what it registers.

    Args:
        value: Python files (``my_net.py``) and modules (``my_package.nets``), separated by commas;
            None reads the environment variable SPHEREFACE_PLUGINS.

    Returns:
        The names of the modules.

    Raises:
        UserError: a file or module is missing, or its import fails.
    """
    names = [name.strip() for name in (os.environ.get(VARIABLE, "") if value is None else value).split(",")]
    return [_load(name) for name in names if name]


def plugin_code() -> dict[str, str]:
    """Return the loaded plugins: name of the module → first digits of the SHA-256 of its file."""
    return dict(_code)


def code_of(objects: Iterable[object]) -> str:
    """Return digits for the plugins that define the classes of these objects; empty without one.

    The same weights give other embeddings if the code of a network changes.
    """
    modules = {type(each).__module__ for each in objects} & _code.keys()
    return "-".join(_code[name] for name in sorted(modules))


def _load(name: str) -> str:
    path = Path(name)
    module_name = path.stem if path.suffix == ".py" else name
    there = module_name in sys.modules
    if there and path.suffix != ".py":
        _keep_code(module_name)
        return module_name
    try:
        if path.suffix == ".py":
            _load_file(path, module_name)
        else:
            importlib.import_module(name)
    except UserError:
        raise
    except Exception as error:  # a plugin can raise anything
        raise UserError(
            f"{VARIABLE}: {name}: cannot be imported ({type(error).__name__}: {first_line(error)})"
        ) from error
    if not there:
        _keep_code(module_name)
    return module_name


def _keep_code(module_name: str) -> None:
    if file := getattr(sys.modules[module_name], "__file__", None):
        with contextlib.suppress(OSError):
            _code[module_name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:_DIGITS]


def _load_file(path: Path, module_name: str) -> None:
    if not path.is_file():
        raise UserError(f"{VARIABLE}: {path}: no such file · allowed: Python files and modules, separated by commas")
    known = sys.modules.get(module_name)
    if known is not None:
        if getattr(known, "__file__", None) == str(path.resolve()):
            return
        raise UserError(f"{VARIABLE}: {path}: a module named {module_name} is imported already · rename the file")
    spec = importlib.util.spec_from_file_location(module_name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it runs, like the import system: dataclasses need it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
