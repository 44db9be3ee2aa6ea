"""Combine several networks into one by joining their embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .backbone import Backbone


class Ensemble(Backbone):
    """Join the embeddings of N networks, each scaled to length 1.

    The cosine of two joined embeddings is the mean of the N cosines. Networks that were trained
    separately make different errors, so the mean has a smaller error than each. The ensemble has no
    parameters of its own.

    Args:
        networks: with one input spec.
    """

    def __init__(self, networks: Sequence[Backbone]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.input_spec = networks[0].input_spec
        self.embedding_dim = sum(network.embedding_dim for network in networks)

    def backbones(self) -> Iterator[Backbone]:
        """Return the networks, in order."""
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
