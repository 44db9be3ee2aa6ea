"""Where embeddings come from: a checkpoint, an ONNX file, a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .embeddings import Embeddings
from .images import Images


class Source(ABC):
    """Something that knows the embeddings of images.

    Args:
        path: the checkpoint, ONNX file or table. Results go to a folder beside it.
        sha256: of the bytes that were read from it, 64 hexadecimal digits; it ties a calibration to
            them.
    """

    reads_images: ClassVar[bool] = True
    """Whether the images have to be on disk."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path, self.sha256 = path, sha256

    @abstractmethod
    def embeddings(self, images: Images, set_name: str) -> Embeddings:
        """Return the embeddings of a set's images, a row each.

        Args:
            images: the images.
            set_name: of the set, for messages, and for tables that hold several sets.

        Raises:
            UserError: images cannot be used, or have no embedding.
        """

    def check(self, images: Images, set_name: str) -> None:  # noqa: B027 - images on disk were looked for
        """Refuse images that :meth:`embeddings` would refuse, where that is known without work.

        Raises:
            UserError: as :meth:`embeddings`.
        """

    @abstractmethod
    def about(self) -> Mapping[str, Any]:
        """Return where the embeddings come from, as plain values for table and JSON."""
