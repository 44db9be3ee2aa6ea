"""Tiny networks with nothing at zero: biases, slopes and running statistics as training would leave them."""

import numpy as np
import pytest
import torch

from sphereface.input_spec import InputSpec
from sphereface.models import BACKBONES, build_model

SIZE = (48, 32)

TINY = {
    "spherenet": {"depth": 4, "widths": (4, 4, 4, 8), "norm": "none"},
    "iresnet": {"depth": 18},
    "ir": {"depth": 18, "se": True},
    "mobilefacenet": {},
    "sfnet": {"depth": 4, "norm": "batch"},
}
"""Options of each backbone that the tests export; timm's is a test of its own."""


def needs(*modules):
    for module in modules:
        pytest.importorskip(module, reason="pip install '.[export]'")


def as_trained(model, seed=1):
    """Move every bias, slope and statistic away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim <= 1:
                value += 0.2 * torch.rand(value.shape, generator=generator)
        for value in model.buffers():
            if value.dtype.is_floating_point:
                value += 0.3 * torch.rand(value.shape, generator=generator)
    return model.eval()


def network(name, *, size=SIZE, seed=1, **options):
    torch.manual_seed(seed)
    options = {**TINY.get(name, {}), "input_size": size, "embedding_dim": 16, **options}
    return as_trained(build_model(BACKBONES[name](**options)), seed)


def crops_of(size=SIZE, count=5):
    return np.random.default_rng(7).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def by_formula(model, crops):
    """(p − mean) / std for each channel in the network's order, channels first, in numpy."""
    spec: InputSpec = model.input_spec
    pixels = crops.astype(np.float64)[..., :: 1 if spec.order == "bgr" else -1]
    scaled = (pixels - np.array(spec.mean)) / np.array(spec.std)
    with torch.inference_mode():
        return model(torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32).copy())).numpy()


def off(found, wanted):
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / np.abs(wanted).max()
