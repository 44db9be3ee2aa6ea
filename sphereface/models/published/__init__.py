"""Convert weights that others published to checkpoints of this project (docs/pretrained.md).

A file is recognised by its contents. The package runs no code of a file, and imports no class that
a file names.
"""

from .adapters import ADAPTERS, Adapter
from .importing import InputOverrides, Published, import_published, save_published

__all__ = ["ADAPTERS", "Adapter", "InputOverrides", "Published", "import_published", "save_published"]
