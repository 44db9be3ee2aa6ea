"""Sphere-20 in plain PyTorch, as the public ports train it: fp32, NCHW, A-Softmax by autograd on N×C, torch's SGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from rivals import textbook
from torch import Tensor, nn

UNITS = (1, 2, 4, 1)


class PlainUnit(nn.Module):
    """x + relu2(conv2(relu1(conv1(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.relu1 = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.relu2 = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        result: Tensor = x + self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return result


def plain_network(widths: Sequence[int], embedding_dim: int) -> nn.Module:
    """Crops of 112×96 to embeddings."""
    layers: list[nn.Module] = []
    for before, channels, units in zip((3, *widths), widths, UNITS, strict=False):
        layers += [nn.Conv2d(before, channels, 3, 2, 1), nn.PReLU(channels)]
        layers += [PlainUnit(channels) for _ in range(units)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 7 * 6, embedding_dim))


def plain_step(batch: int, classes: int, widths: Sequence[int], embedding_dim: int) -> Callable[[], None]:
    """A closure that trains one step on ready-made floats: reading and normalising pictures is left out."""
    torch.manual_seed(0)
    network = plain_network(widths, embedding_dim)
    weight = nn.Parameter(torch.randn(classes, embedding_dim) * embedding_dim**-0.5)
    optimizer = torch.optim.SGD([*network.parameters(), weight], lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images, labels = torch.rand(batch, 3, 112, 96) * 2 - 1, torch.randint(classes, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        loss = textbook(network(images), labels, weight)
        loss.backward()
        optimizer.step()
        loss.item()

    return step
