"""The losses that benchmarks/bench_loss.py compares: this project's, a softmax, and rivals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sphereface.losses.head import MarginHead
from sphereface.losses.margins import MARGINS, make_margin

DIM = 512
LAMBDA = 5.0
CHUNK = 16384
Step = Callable[[], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)  # compared by identity, because a dict has no hash
class Row:
    """A loss in the table.

    ``margin`` is this project's, with its options. It is None for a rival, which has a name only.
    """

    name: str
    margin: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


def bare(x: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return softmax loss without bias: the reference cost."""
    return F.cross_entropy(F.linear(x, weight).float(), labels)


def textbook(x: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return A-Softmax loss, m = 4, with ψ on every logit, as in the public ports."""
    norms = x.norm(dim=1, keepdim=True)
    cos = (F.linear(x, F.normalize(weight)) / norms).clamp(-1, 1)
    cos_4 = 8 * cos**4 - 8 * cos**2 + 1
    k = (4 * cos.detach().acos() / torch.pi).floor()
    psi = (1 - 2 * (k % 2)) * cos_4 - 2 * k
    target = F.one_hot(labels, len(weight)).bool()
    logits = torch.where(target, (LAMBDA * cos + psi) / (1 + LAMBDA), cos) * norms
    return F.cross_entropy(logits, labels)


RIVALS = {"bare": bare, "bare bf16": bare, "textbook a-softmax": textbook}
PEERS = {"pml SphereFaceLoss": "SphereFaceLoss", "pml ArcFaceLoss": "ArcFaceLoss"}
BARE, BARE_BF16 = Row("bare"), Row("bare bf16", dtype="bfloat16")


def peers_are_installed() -> bool:
    """Return whether the ``bench`` extra is installed."""
    try:
        import pytorch_metric_learning  # noqa: F401
    except ImportError:
        return False
    return True


def all_rows() -> list[Row]:
    """Return all rows: bare, the rivals, every margin, and variants of one margin."""
    ours = [Row(name, name) for name in sorted(MARGINS) if name != "a-softmax"]
    for gradient in ("exact", "caffe"):
        ours.insert(0, Row(f"a-softmax {gradient}", "a-softmax", {"gradient": gradient}))
    return [
        BARE,
        Row("textbook a-softmax"),
        *(Row(name) for name in PEERS),
        *ours,
        Row("a-softmax exact, mhe", "a-softmax", {"mhe": 1.0}),
        Row("a-softmax exact, chunked", "a-softmax", {"chunk_size": CHUNK}),
        BARE_BF16,
        Row("a-softmax exact bf16", "a-softmax", dtype="bfloat16"),
    ]


def make_step(row: Row, n: int, classes: int, dim: int = DIM, weight: torch.nn.Parameter | None = None) -> Step:
    """Return a function that runs one forward and backward, to gradients of embeddings and weights.

    Args:
        row: the loss.
        n: images in the batch.
        classes: C.
        dim: D.
        weight: (C, D), to share one between the losses of a table; None for a new one.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, dim, generator=generator).requires_grad_()
    labels = torch.randint(classes, (n,), generator=generator)
    parameters, loss = _loss(row, classes, dim, weight)

    def step() -> Tensor:
        for parameter in (x, *parameters):
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=row.dtype == "bfloat16"):
            value = loss(x, labels)
        value.backward()
        result = value.detach()
        for parameter in (x, *parameters):
            parameter.grad = None
        return result

    return step


def new_weight(classes: int, dim: int = DIM) -> torch.nn.Parameter:
    """Return (C, D) rows of a length near 1."""
    return torch.nn.Parameter(torch.randn(classes, dim).mul_(dim**-0.5))


def _loss(row: Row, classes: int, dim: int, weight: torch.nn.Parameter | None) -> tuple[list[Tensor], Loss]:
    if row.name in PEERS:
        from pytorch_metric_learning import losses

        peer = getattr(losses, PEERS[row.name])(num_classes=classes, embedding_size=dim)
        return list(peer.parameters()), peer
    weight = new_weight(classes, dim) if weight is None else weight
    if row.margin is None:
        rival, own = RIVALS[row.name], weight
        return [own], lambda x, labels: rival(x, labels, own)
    options = {"chunk_size": None, **row.options}
    head = MarginHead(dim, 1, make_margin(row.margin, **options))
    head.weight = weight
    if head.margin.bias == "per class":
        head.bias = torch.nn.Parameter(torch.zeros(classes))
    return list(head.parameters()), lambda x, labels: head(x, labels, LAMBDA).loss
