"""Import backbones, margins and protocols from outside the package, named in SPHEREFACE_PLUGINS.

Only the user's environment chooses them. No configuration and no checkpoint can cause an import.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UserError, first_line

VARIABLE = "SPHEREFACE_PLUGINS"
OF_NETWORK, OF_LOSS, OF_TEACHER = (f"plugin of the {part}" for part in ("network", "loss", "teacher"))
"""Keys of a checkpoint's ``meta.versions`` with the :func:`code_of` of the parts of a run."""
OTHER_CODE = "was trained with other code of the plugin of the network"
_DIGITS = 12
_NOT_OWN = frozenset({"builtins", "sphereface", "timm", "torch", "torchvision", "__main__"})
_code: dict[str, tuple[ModuleType, str]] = {}  # of the code in memory, which a later change of the file is not


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


def code_of(objects: Iterable[object]) -> str:
    """Return digits of the files of other projects that define the classes of these objects.

    The same weights give other embeddings if the code of a network changes. Empty if all classes
    are of this package or of torch. A file that those import does not count.
    """
    names = {type(each).__module__ for each in objects}
    found = [digits for name in sorted(names) if name.split(".")[0] not in _NOT_OWN and (digits := _digits(name))]
    if len(found) < 2:
        return "".join(found)
    return hashlib.sha256("".join(found).encode()).hexdigest()[:_DIGITS]


def changed_code(meta: Mapping[str, Any], codes: Mapping[str, str]) -> list[str]:
    """Return which plugins have other code than when a checkpoint was written.

    Args:
        meta: of the checkpoint. What an earlier version did not keep is not compared.
        codes: the code of today by :data:`OF_NETWORK` and the like; only these are compared.
    """
    before = versions_of(meta)
    return [key for key, code in codes.items() if before.get(key, code) != code]


def versions_of(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a checkpoint's ``meta`` says of the code that wrote it; empty if nothing."""
    versions = meta.get("versions")
    return versions if isinstance(versions, Mapping) else {}


def _digits(module_name: str) -> str:
    module = sys.modules.get(module_name)
    if module is None or (file := getattr(module, "__file__", None)) is None:
        return ""
    if module_name not in _code or _code[module_name][0] is not module:
        try:
            digits = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:_DIGITS]
        except OSError:
            digits = ""
        _code[module_name] = module, digits
    return _code[module_name][1]


def _load(name: str) -> str:
    path = Path(name)
    module_name = path.stem if path.suffix == ".py" else name
    if module_name in sys.modules and path.suffix != ".py":
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
    return module_name


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
