"""Batches on their way to a device. CUDA's streams are acted: what is asked of them is written down."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch

from sphereface.data.batch import Batch
from sphereface.data.prefetch import moved, prefetched

CUDA = torch.device("cuda")


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


@pytest.fixture
def acted(monkeypatch) -> list[str]:
    """A CUDA that computes on the CPU; returns what was asked of it."""
    log: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            log.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def on(stream: Stream):
        log.append(f"on {stream.name}")
        yield
        log.append(f"off {stream.name}")

    def there(self, device, non_blocking=False):
        assert (device, non_blocking) == (CUDA, True)
        log.append("copy")
        return self.clone()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("aside"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computing"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.Tensor, "to", there)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: log.append(f"used by {stream.name}"))
    return log


def test_a_batch_is_read_when_asked_for_copied_aside_and_waited_for(acted):
    batches = prefetched(feed(acted), CUDA)
    assert acted == []
    batch = next(batches)
    copied = ["on aside", "copy", "copy", "copy", "off aside", "computing waits for aside", *["used by computing"] * 3]
    assert acted == ["read 0", *copied]
    assert [batch.images.unique().tolist(), batch.labels.tolist(), batch.mirror.tolist()] == [
        [0],
        [0, 0],
        [True, False],
    ]
    assert batch.bad == [("a", "b")]
    assert batch.augment["grey"][0].tolist() == [1]
    next(batches)
    assert acted[len(copied) + 1 :] == ["read 1", *copied]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_batches_come_in_order_and_the_feed_is_closed(acted, device):
    assert [int(batch.labels[0]) for batch in prefetched(feed(acted), torch.device(device))] == [0, 1, 2]
    assert acted[-1] == "closed"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_comes_at_its_batch(acted, device):
    batches = prefetched(feed(acted, fails_at=2), torch.device(device))
    assert [int(next(batches).labels[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="no more"):
        next(batches)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_closing_closes_the_feed(acted, device):
    batches = prefetched(feed(acted), torch.device(device))
    next(batches)
    batches.close()
    assert acted[-1] == "closed"


def test_a_batch_moves_whole():
    batch = next(feed([]))
    there = moved(batch, "meta")
    parts = there.images, there.labels, there.mirror, *there.augment["grey"]
    assert all(part.device.type == "meta" for part in parts)
    assert there.bad == [("a", "b")]
    here = moved(batch, "cpu")
    assert here.images is batch.images  # nothing is copied
