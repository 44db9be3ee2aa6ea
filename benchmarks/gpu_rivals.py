"""What the GPU benchmarks compare with: a plain softmax, and the arithmetic of arcface_torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from plain_port import plain_form
from torch import Tensor, nn

from sphereface.backbone_options import BackboneOptions


def bare(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Linear layer without bias and cross entropy: (N, D), (C, D), (N,) → ()."""
    return F.cross_entropy(F.linear(x, weight).float(), labels)


def partial_fc(x: Tensor, weight: Tensor, labels: Tensor, scale: float = 64.0, margin: float = 0.4) -> Tensor:
    """CosFace with all classes, in the order of operations of Partial FC v2."""
    cosines = F.linear(F.normalize(x), F.normalize(weight)).float().clamp(-1, 1)
    target = torch.zeros_like(cosines).scatter_(1, labels[:, None], 1.0)
    loss: Tensor = _CrossEntropyInPlace.apply((cosines - margin * target) * scale, labels)
    return loss


class _CrossEntropyInPlace(torch.autograd.Function):
    """Partial FC's cross entropy, which keeps the probabilities and turns them into gradients."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Softmax in place."""
        logits.sub_(logits.amax(1, keepdim=True)).exp_()
        logits.div_(logits.sum(1, keepdim=True))
        ctx.save_for_backward(logits, labels)
        return logits.gather(1, labels[:, None]).clamp_min_(1e-30).log_().mean().neg()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """(p − onehot) / N in place."""
        logits, labels = ctx.saved_tensors
        logits.scatter_add_(1, labels[:, None], torch.full_like(labels[:, None], -1.0, dtype=logits.dtype))
        return logits.div_(len(logits)).mul_(grad), None


def arcface_torch_step(options: BackboneOptions, batch: int, classes: int, device: torch.device) -> Callable[[], None]:
    """A step as arcface_torch trains: NCHW, fp16 with a gradient scaler, Partial FC, clipping, SGD;
    from prepared floats.
    """
    torch.manual_seed(0)
    network = plain_form(options).to(device).train()
    weight = nn.Parameter(torch.randn(classes, options.embedding_dim, device=device) * 0.01)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([*trained, weight], lr=1e-4, momentum=0.9, weight_decay=5e-4)
    half = device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, growth_interval=100, enabled=half)
    images = torch.rand(batch, 3, *options.input_spec.size, device=device) * 2 - 1
    labels = torch.randint(classes, (batch,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.float16, enabled=half):
            embeddings = network(images)
        with torch.autocast(device.type, torch.float16, enabled=half):
            loss = partial_fc(embeddings.float(), weight, labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step
