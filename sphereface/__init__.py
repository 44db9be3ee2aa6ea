"""SphereFace: train, watch and evaluate open-set face embeddings (Liu et al., CVPR 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import FaceEmbedder as FaceEmbedder

__version__ = "0.1.0"
__all__ = ["FaceEmbedder", "__version__"]


def __getattr__(name: str) -> object:
    """Import the network's part only when it is asked for: what needs no torch loads in no time."""
    if name == "FaceEmbedder":
        from .api import FaceEmbedder

        return FaceEmbedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
