"""Networks in plain PyTorch, as the public ports train them.

They use fp32, NCHW, A-Softmax by autograd on N×C, and torch's SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from rivals import textbook
from torch import Tensor, nn

from sphereface.backbone_options import BackboneOptions
from sphereface.models import build_model
from sphereface.models.backbone import half
from sphereface.models.spherenet import SphereNetOptions

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
        """Apply the unit: (B, C, H, W) → (B, C, H, W)."""
        result: Tensor = x + self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return result


def plain_network(widths: Sequence[int], embedding_dim: int, size: Sequence[int] = (112, 96)) -> nn.Module:
    """Build Sphere-20: crops to embeddings."""
    layers: list[nn.Module] = []
    for before, channels, units in zip((3, *widths), widths, UNITS, strict=False):
        layers += [nn.Conv2d(before, channels, 3, 2, 1), nn.PReLU(channels)]
        layers += [PlainUnit(channels) for _ in range(units)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(widths[-1] * half(size[0], 4) * half(size[1], 4), embedding_dim)
    )


def plain_form(options: BackboneOptions) -> nn.Module:
    """Build the network as its publisher trains it: torch's own layers, fp32, NCHW."""
    if isinstance(options, SphereNetOptions):
        return plain_network(options.widths, options.embedding_dim, options.input_spec.size)
    network = build_model(options)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.PReLU):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.PReLU(layer.num_parameters))
    return network


def plain_step(options: BackboneOptions, batch: int, classes: int) -> Callable[[], None]:
    """Return a function that trains one step on prepared floats, without reading images."""
    torch.manual_seed(0)
    network, dim = plain_form(options), options.embedding_dim
    weight = nn.Parameter(torch.randn(classes, dim) * dim**-0.5)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([*trained, weight], lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images = torch.rand(batch, 3, *options.input_spec.size) * 2 - 1
    labels = torch.randint(classes, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        loss = textbook(network(images), labels, weight)
        loss.backward()
        optimizer.step()
        loss.item()

    return step
