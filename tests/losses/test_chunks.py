"""What chunk_size: auto chooses."""

import pytest
import torch

from sphereface.errors import UserError
from sphereface.losses import chunks, fused_layer
from sphereface.losses.chunks import auto_chunk, free_bytes
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("free", "classes", "chunk"),
    [
        (16 * 256 * 5000, 5000, None),  # a quarter of it holds all logits
        (16 * 256 * 5000 - 1, 5000, 4999),
        (16 * 256 * 5000, 1_000_000, 5000),
        (1, 1_000_000, 1024),
        (None, 1_000_000, None),
    ],
)
def test_logits_get_a_quarter_of_the_free_memory(free, classes, chunk, monkeypatch):
    monkeypatch.setattr(chunks, "free_bytes", lambda device: free)
    assert auto_chunk(256, classes, CPU, 4) == chunk


def test_logits_of_two_bytes_fit_twice(monkeypatch):
    monkeypatch.setattr(chunks, "free_bytes", lambda device: 16 * 256 * 5000)
    assert [auto_chunk(256, 20_000, CPU, size) for size in (2, 4)] == [10_000, 5000]


@pytest.mark.parametrize(
    ("fuses", "precision", "size"),
    [
        (False, None, 4), (False, torch.bfloat16, 4),  # the eager layer has float32 logits
        (True, None, 4), (True, torch.bfloat16, 2), (True, torch.float16, 2),
    ],
)  # fmt: skip
def test_the_head_knows_the_size_of_its_logits(monkeypatch, fuses, precision, size):
    given = []
    monkeypatch.setattr(fused_layer, "_fuses", lambda x, weight: fuses)
    monkeypatch.setattr("sphereface.losses.head.auto_chunk", lambda *given_now: given.append(given_now))
    with torch.autocast("cpu", precision, enabled=precision is not None):
        MarginHead(4, 5000, make_margin("arcface")).chunk_size(8)
    assert given == [(8, 5000, CPU, size)]


def test_float64_has_logits_of_eight_bytes():
    assert fused_layer.logit_bytes(torch.ones(2, 3, dtype=torch.float64)) == 8


def test_free_memory_is_known_on_linux():
    free = free_bytes(CPU)
    assert free is None or 1e6 < free < 1e14


def test_the_head_decides_once_for_each_batch_size(monkeypatch):
    free = iter([16 * 8 * 2000, 16 * 8 * 2000, 0])
    monkeypatch.setattr(chunks, "free_bytes", lambda device: next(free))
    head = MarginHead(4, 5000, make_margin("arcface"))
    assert [head.chunk_size(n) for n in (8, 16, 8, 16)] == [2000, 1024, 2000, 1024]


@pytest.mark.parametrize(("given", "chunk"), [(None, None), (300, 300), ("300", 300)])
def test_the_head_takes_what_is_given(given, chunk):
    assert MarginHead(4, 5000, make_margin("cosface", chunk_size=given)).chunk_size(8) == chunk


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "some", True])
def test_other_values_are_refused(wrong):
    allowed = "an integer of at least 1 or auto or null"
    with pytest.raises(UserError, match=rf"^loss\.chunk_size: got {wrong!r} · allowed: {allowed}$"):
        make_margin("arcface", chunk_size=wrong)
