"""Where embeddings come from: a checkpoint, an ONNX file, a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..files import sha256_of
from .embeddings import Embeddings
from .images import Images


class Source(ABC):
    """Something that knows the embeddings of images.

    Args:
        path: the checkpoint, ONNX file or table. Results go to a folder beside it.
    """

    reads_images: ClassVar[bool] = True
    """Whether the images have to be on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, which ties a calibration to it."""
        return sha256_of(self.path)

    @abstractmethod
    def embeddings(self, images: Images, set_name: str) -> Embeddings:
        """Return the embeddings of a set's images, a row each.

        Args:
            images: the images.
            set_name: of the set, for messages, and for tables that hold several sets.

        Raises:
            UserError: images cannot be used, or have no embedding.
        """

    @abstractmethod
    def about(self) -> Mapping[str, Any]:
        """Return where the embeddings come from, as plain values for table and JSON."""
