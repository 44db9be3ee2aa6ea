"""Learn features of two or three numbers with each loss on scikit-learn's digits, to draw them.

Everything but the loss is the same for all: images, split, network, optimiser, steps, seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ..losses.head import MarginHead
from ..losses.margins import Margin, make_margin

CLASSES = 6
"""The digits 0 to 5: as many classes as the paper's figure has people."""
BATCH, RATE, DECAY = 128, 0.01, 0.5


@dataclass(frozen=True)
class Loss:
    """A loss to learn with.

    Attributes:
        label: its name in the figure.
        name, options: as in the configuration. An annealed margin gets its λ from :func:`learn`.
        at_first: options during the first 0.3 of the steps, for a margin that cannot be annealed.
    """

    label: str
    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    at_first: Mapping[str, object] = field(default_factory=dict)


LOSSES = [
    Loss("softmax", "softmax"),
    Loss("modified softmax", "modified-softmax"),
    Loss("L-Softmax, m = 4", "l-softmax", {"m": 4}),
    Loss("A-Softmax, m = 4", "a-softmax", {"m": 4}),
    Loss("A-Softmax, m = 2", "a-softmax", {"m": 2}),
    Loss("A-Softmax, m = 3", "a-softmax", {"m": 3}),
    Loss("CosFace, m = 0.35", "cosface", {"m": 0.35, "s": 16.0}, at_first={"m": 0.0}),
    Loss("ArcFace, m = 0.5", "arcface", {"m": 0.5, "s": 16.0}, at_first={"m": 0.0}),
]
"""The losses in the figure. Scaled ones have s = 16: six classes in a plane do not need 64."""


@dataclass(frozen=True)
class Learned:
    """Features of test images.

    Attributes:
        label: the loss.
        features: (N, D) float32.
        labels: (N,) int64 in [0, C).
        accuracy: share of these images whose own class has the highest logit, without margin.
    """

    label: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    accuracy: float

    @property
    def directions(self) -> NDArray[np.float32]:
        """Return (N, D) features at unit length."""
        return _unit(self.features)

    @property
    def centres(self) -> NDArray[np.float32]:
        """Return (C, D) the mean direction of each class, at unit length."""
        return _unit(np.stack([self.directions[self.labels == k].mean(0) for k in range(self.labels.max() + 1)]))

    @property
    def spread(self) -> float:
        """Return the mean angle between an image and the centre of its class, in degrees."""
        cosines = (self.directions * self.centres[self.labels]).sum(1)
        return float(np.degrees(np.arccos(cosines.clip(-1, 1))).mean())

    @property
    def gap(self) -> float:
        """Return the smallest angle between the centres of two classes, in degrees."""
        cosines = self.centres @ self.centres.T
        np.fill_diagonal(cosines, -1.0)
        return float(np.degrees(np.arccos(cosines.max().clip(-1, 1))))


def learn(loss: Loss, dim: int, *, steps: int = 1000, seed: int = 0) -> Learned:
    """Train a small network with one loss, and embed the test images.

    λ of an annealed margin falls as 1000 (1 + 100 t/steps)^(−2) to 0.1: it passes 1 at 0.3 of the
    steps. At that point the other margins change from ``at_first``. With the whole margin from the
    first step, all classes can collapse to one place of the plane.

    Args:
        dim: length of the feature, 2 or 3.
        steps: updates, of 128 images each.
        seed: of initial weights and order of images. The split is the same for all.
    """
    train, test = _split()
    annealed = {"lambda_gamma": 100.0 / steps, "lambda_power": 2.0, "lambda_min": 0.0}
    options = {**loss.options, **(annealed if loss.name in ("a-softmax", "l-softmax") else {})}
    generator = torch.Generator().manual_seed(seed)
    net = _network(dim, seed)
    margin, milder = make_margin(loss.name, **options), make_margin(loss.name, **{**options, **loss.at_first})
    head = MarginHead(dim, CLASSES, milder, generator=generator)
    with _one_thread():
        _train(net, head, margin, train, steps=steps, generator=generator)
    with torch.no_grad():
        features = net(test[0])
        correct = head.eval()(features, test[1]).correct
    return Learned(loss.label, features.numpy(), test[1].numpy(), float(correct.float().mean()))


def learn_all(dim: int, *, steps: int = 1000, seed: int = 0) -> list[Learned]:
    """Learn with each loss of :data:`LOSSES`."""
    return [learn(loss, dim, steps=steps, seed=seed) for loss in LOSSES]


def _train(
    net: nn.Module,
    head: MarginHead,
    margin: Margin,
    data: tuple[Tensor, Tensor],
    *,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Train, with ``margin`` after 0.3 of the steps; the learning rate falls along half a cosine.

    The decay keeps ‖x‖ small enough for the margin to have an effect.
    """
    images, labels = data
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        if step > 0.3 * steps:
            head.margin = margin
        batch = torch.randint(len(labels), (BATCH,), generator=generator)
        loss = head(net(images[batch]), labels[batch], head.margin.lam(step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: products this small gain nothing from more, and lose on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _network(dim: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 128), nn.PReLU(128), nn.Linear(128, 128), nn.PReLU(128), nn.Linear(128, dim))


def _split() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Split the digits 3:1 into (images (N, 64) float32, labels (N,)), with training mean 0."""
    digits = load_digits(n_class=CLASSES)
    images, labels = torch.from_numpy(digits.data).float() / 8, torch.from_numpy(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    mean = images[train].mean(0)
    return (images[train] - mean, labels[train]), (images[test] - mean, labels[test])


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: Tensor = F.normalize(torch.from_numpy(vectors), dim=1)
    return unit.numpy()
