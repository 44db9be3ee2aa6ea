"""The interface of the sources of embeddings: checkpoints, ONNX files and tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .embeddings import Embeddings
from .images import Images


class Source(ABC):
    """Provides the embeddings of images.

    Args:
        path: the checkpoint, ONNX file or table. Results go to a folder beside it.
        sha256: SHA-256 of the bytes read from it, 64 hexadecimal digits; a calibration records it.

    Attributes:
        trained_on: what a checkpoint says about the identities of its training set, see
            :func:`.shared_people.identities_of`; empty if it says nothing.
        template: of the training crops, as a checkpoint keeps it; None if it is unknown.
        input_size: (height, width) that a network reads; None for a table.
        code: of the plugin of a network, see :func:`~sphereface.plugins.code_of`.
    """

    reads_images: ClassVar[bool] = True
    """Whether the images must be on disk."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path, self.sha256 = path, sha256
        self.trained_on: Mapping[str, Any] = {}
        self.template: Any = None
        self.input_size: tuple[int, int] | None = None
        self.code = ""

    @abstractmethod
    def embeddings(self, images: Images, set_name: str) -> Embeddings:
        """Return the embeddings of a set's images, one row for each image.

        Args:
            images: the images.
            set_name: name of the set, for messages and for tables that hold several sets.

        Raises:
            UserError: an image cannot be used or has no embedding.
        """

    def check(self, images: Images, set_name: str) -> None:  # noqa: B027 - loading the set finds images on disk
        """Refuse images that :meth:`embeddings` would refuse, as far as a quick check can tell.

        Raises:
            UserError: an image has no embedding.
        """

    def changed(self, images: Images, set_name: str) -> frozenset[int]:  # noqa: ARG002 - tables need both
        """Return the numbers of images that may have changed since they were embedded."""
        return frozenset()

    @abstractmethod
    def about(self) -> Mapping[str, Any]:
        """Return the origin of the embeddings, as plain values for table and JSON."""
