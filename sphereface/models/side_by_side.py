"""Several networks as one: their embeddings side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .spherenet import SphereNet


class SideBySide(nn.Module):
    """Embeddings of N networks, each of length 1, one after another: their cosine is the mean of N cosines.

    Networks that were trained apart err apart; a mean of their cosines errs less than each. There is nothing to train
    here.

    Args:
        networks: of one input size.
    """

    def __init__(self, networks: Sequence[SphereNet]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.input_size = networks[0].input_size
        self.embedding_dim = sum(network.embedding_dim for network in networks)

    def set_seen_sizes(self, sizes: Sequence[Sequence[int]]) -> None:
        """``seen_size`` of each network: (height, width), as it was trained last."""
        for network, (height, width) in zip(self.networks, sizes, strict=True):
            network.seen_size = (height, width)  # type: ignore[assignment]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed normalised crops.

        Args:
            images: (B, 3, H, W) float in [−1, 1], BGR, (H, W) = ``input_size``.

        Returns:
            (B, D_1 + … + D_N) float32, the numbers of each network of length 1.

        Raises:
            UserError: crops of another size or without three channels.
        """
        return torch.cat([F.normalize(network(images).float()) for network in self.networks], dim=1)
