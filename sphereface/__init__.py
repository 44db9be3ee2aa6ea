"""SphereFace: train, evaluate and use face-recognition networks (Liu et al., CVPR 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import FaceEmbedder as FaceEmbedder

__version__ = "0.1.0"
__all__ = ["FaceEmbedder", "__version__"]


def __getattr__(name: str) -> object:
    """Import ``FaceEmbedder`` on first use, because it needs torch, which loads slowly."""
    if name == "FaceEmbedder":
        from .api import FaceEmbedder

        return FaceEmbedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
