"""Weights that others published, as checkpoints of this project. docs/pretrained.md lists them.

Files are recognised by their contents. No code of a file is run, and no class that a file names is
imported.
"""

from .adapters import ADAPTERS, Adapter
from .importing import InputOverrides, Published, import_published, save_published

__all__ = [
    "ADAPTERS",
    "Adapter",
    "InputOverrides",
    "Published",
    "import_published",
    "save_published",
]
