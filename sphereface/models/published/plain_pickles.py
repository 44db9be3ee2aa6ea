"""Harmless stand-ins for objects that training programs save beside the weights.

PyTorch's safe unpickler (``weights_only=True``) refuses every class that it does not know.
Lightning's checkpoints hold the class of a callback as a key; others hold the command line or a
path.

Each name below is read as an object that ignores its arguments. The class that the file names is
neither imported nor called. All other names are refused.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class Ignored:
    """Replace one object: keep nothing and do nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class PlainDict:
    """Replace a subclass of dict by a plain dictionary, because the unpickler fills only those."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """Return an empty dictionary."""
        return OrderedDict()


_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
_IGNORED = (
    "argparse.Namespace",
    *(f"pathlib.{system}" for system in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{system}" for system in ("PosixPath", "WindowsPath")),  # Python 3.13
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"{package}.callbacks.{name}"
        for package in _LIGHTNING
        for name in (
            "model_checkpoint.ModelCheckpoint",
            "early_stopping.EarlyStopping",
            "lr_monitor.LearningRateMonitor",
            "timer.Timer",
        )
    ),
)
_DICTIONARIES = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "easydict.EasyDict",
)

STAND_INS: list[Any] = [(Ignored, name) for name in _IGNORED] + [(PlainDict, name) for name in _DICTIONARIES]
"""For :func:`torch.serialization.safe_globals`: stand-ins, and the names they replace in a file."""
