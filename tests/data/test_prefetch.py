"""Batches on their way to a device; the copies beside CUDA's computing are tested in tests/gpu and tests/nullcuda."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from sphereface.data.batch import Batch
from sphereface.data.prefetch import moved, prefetched

CPU = torch.device("cpu")


def feed(log: list[str], count: int = 3, fails_at: int | None = None) -> Generator[Batch]:
    try:
        for number in range(count):
            if number == fails_at:
                raise OSError("no more")
            log.append(f"read {number}")
            images = torch.full((2, 4, 4, 3), number, dtype=torch.uint8)
            augment = {"grey": (torch.tensor([1]), torch.ones(1, 1))}
            yield Batch(images, torch.full((2,), number), torch.tensor([True, False]), [("a", "b")], augment)
    finally:
        log.append("closed")


def test_a_batch_is_read_when_asked_for():
    log: list[str] = []
    batches = prefetched(feed(log), CPU)
    assert log == []
    for number, batch in enumerate(batches):
        assert log == [f"read {n}" for n in range(number + 1)]
        assert batch.labels.tolist() == [number, number]
    assert log[-1] == "closed"


def test_an_error_comes_at_its_batch():
    batches = prefetched(feed([], fails_at=2), CPU)
    assert [int(next(batches).labels[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="no more"):
        next(batches)


def test_closing_closes_the_feed():
    log: list[str] = []
    batches = prefetched(feed(log), CPU)
    next(batches)
    batches.close()
    assert log[-1] == "closed"


def test_a_batch_moves_whole():
    batch = next(feed([]))
    there = moved(batch, "meta")
    parts = there.images, there.labels, there.mirror, *there.augment["grey"]
    assert all(part.device.type == "meta" for part in parts)
    assert there.bad == [("a", "b")]
    here = moved(batch, "cpu")
    assert here.images is batch.images  # nothing is copied
