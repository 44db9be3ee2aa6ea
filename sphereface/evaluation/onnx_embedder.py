"""Embed images with a network in an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..models.onnx_backbone import OnnxBackbone
from ..onnx_input import OnnxOptions
from .embedder import Embedder
from .embeddings import Embeddings
from .images import Images


class OnnxEmbedder(Embedder):
    """Embeds images with an ONNX file.

    Args:
        path: the file.
        options: properties of the input that the file does not define.
        mirror: ``"join"``, ``"add"`` or ``"none"``; None means the publisher's way, or ``"join"``.
        device: CPU or CUDA.
        more: options of :class:`Embedder`: batch_size, cache, progress.

    Raises:
        UserError: the file cannot be used, or the options contradict it.
    """

    model: OnnxBackbone

    def __init__(
        self,
        path: Path,
        options: OnnxOptions | None = None,
        *,
        mirror: str | None = None,
        device: torch.device,
        **more: Any,
    ) -> None:
        model = OnnxBackbone(path, options, device=device)
        inside = model.reads.mirror_inside
        if inside != "none" and mirror is not None:
            raise UserError(
                f"{path}: --mirror: got {mirror} · the file embeds the mirror image itself ({inside}) · omit it, or "
                "export again with --mirror none"
            )
        used = "none" if inside != "none" else mirror or model.reads.mirror
        self.model = model
        reads = repr((model.reads, model.input_name, model.output_name, model.one_by_one))
        variant = hashlib.sha256(reads.encode()).hexdigest()[:8]
        super().__init__(path, model, sha256=model.sha256, device=device, mirror=used, variant=variant, **more)

    def embeddings(self, images: Images, set_name: str) -> Embeddings:
        """Embed the images of a set."""
        return replace(super().embeddings(images, set_name), inside=self.model.reads.mirror_inside)

    def about(self) -> Mapping[str, Any]:
        """Return the file, its SHA-256 and its input."""
        inside = self.model.reads.mirror_inside
        return {
            "onnx": str(self.path),
            "onnx_sha256": self.sha256,
            "input": self.model.reads.describe(),
            "output": self.model.output_name,
            "mirror_inside": None if inside == "none" else inside,
            "notes": "; ".join(self.model.notes) or None,
        }
