"""Batches arrive on a GPU whole while it computes."""

from __future__ import annotations

import torch

from sphereface.data.batch import Batch
from sphereface.data.prefetch import prefetched

from .near import has_values


def test_batches_are_whole_when_the_device_is_busy(device):
    count, size = (30, 512) if device.type == "cuda" else (3, 4)

    def feed():
        for k in range(count):
            parts = torch.full((size, 112, 96, 3), k, dtype=torch.uint8), torch.full((size,), k)
            images, labels, mirror = (*parts, torch.zeros(size, dtype=torch.bool))
            if device.type == "cuda":
                images, labels, mirror = images.pin_memory(), labels.pin_memory(), mirror.pin_memory()
            yield Batch(images, labels, mirror, [])

    busy = torch.randn(*(2 * [4096 if device.type == "cuda" else 8]), device=device)
    seen = 0
    for k, batch in enumerate(prefetched(feed(), device)):
        busy = (busy @ busy).clamp_(-1, 1)
        assert batch.images.device.type == batch.labels.device.type == device.type
        lowest, highest = int(batch.images.min()), int(batch.images.max())
        assert not has_values() or lowest == highest == k == int(batch.labels[0])
        seen += 1
    assert seen == count
