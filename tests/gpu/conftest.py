"""The device of a test, and a training step on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch

from sphereface.config import load_config
from sphereface.data.batch import Batch
from sphereface.data.prefetch import moved
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.training.learner import Learner
from sphereface.training.plan import Plan, Setting

from .near import has_values

HERE = torch.cuda.is_available()
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not HERE, reason="no CUDA device")]),
]
SMALL = "model={depth: 4, widths: [4, 8, 8, 8], embedding_dim: 16, norm: batch, input_size: [32, 32]}"


@pytest.fixture(scope="module", params=DEVICES)
def device(request) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Full fp32 on the GPU, as on the CPU."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@dataclass
class Training:
    """A learner with a batch of its device."""

    learner: Learner
    batch: Batch
    setting: Setting

    def step(self) -> None:
        """One step, as the trainer makes it."""
        self.learner.step(self.batch, self.setting)

    def losses(self, count: int) -> list[float]:
        """Of so many steps. The numbers of the null CUDA may be not finite, which no step looks at there."""
        steps = (self.learner.step(self.batch, self.setting, at_once=has_values()) for _ in range(count))
        return [float(step.output.loss) for step in steps]


@pytest.fixture
def training() -> Callable[..., Training]:
    """Return a maker of small trainings: the same weights and images on each device."""

    def make(device: torch.device, *overrides: str, small: bool = True, seed: int = 0) -> Training:
        size = [SMALL] if small else []
        cfg = load_config("demo", ["train.batch_size=16", *size, *overrides], losses=MARGINS, backbones=BACKBONES)
        torch.manual_seed(seed)
        learner = Learner(cfg, 40, device)
        draws = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (16, *cfg.model.input_spec.size, 3), dtype=torch.uint8, generator=draws)
        labels, mirror = torch.randint(40, (16,), generator=draws), torch.rand(16, generator=draws) < 0.5
        batch = moved(Batch(images, labels, mirror, []), device)
        return Training(learner, batch, replace(Plan(cfg, 100).at(0), lr=0.01))

    return make


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """Within, an operation for which the host waits for the GPU is an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
