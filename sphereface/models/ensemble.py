"""Several networks as one: their embeddings side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .backbone import Backbone


class Ensemble(Backbone):
    """Embeddings of N networks, each of length 1, one after another: their cosine is the mean of N
    cosines.

    Networks that were trained apart err apart; a mean of their cosines errs less than each. There
    is nothing to train here.

    Args:
        networks: of one input spec.
    """

    def __init__(self, networks: Sequence[Backbone]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.input_spec = networks[0].input_spec
        self.embedding_dim = sum(network.embedding_dim for network in networks)

    def backbones(self) -> Iterator[Backbone]:
        """The networks, in order."""
        for network in self.networks:
            assert isinstance(network, Backbone)
            yield network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed normalised crops.

        Args:
            images: (B, 3, H, W) float, as ``input_spec`` says.

        Returns:
            (B, D_1 + … + D_N) float32, the numbers of each network of length 1.

        Raises:
            UserError: crops of another size or without three channels.
        """
        return torch.cat([F.normalize(network(images).float()) for network in self.networks], dim=1)
