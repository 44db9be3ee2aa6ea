"""The fused last layer. Its cases are in fused_cases.py: they need Triton's interpreter from its first import on."""

from __future__ import annotations

import itertools

import pytest
import torch

from sphereface.losses import last_layer as eager
from sphereface.losses.fused_layer import FusedLayer, last_layer
from sphereface.losses.last_layer import LastLayer
from sphereface.losses.margins import make_margin

from ..interpreter import run_under_interpreter

CASES = "tests/losses/fused_cases.py"


def test_cases_under_the_interpreter():
    run_under_interpreter(CASES)


@pytest.mark.slow
def test_the_other_cases_under_the_interpreter():
    run_under_interpreter(CASES, "slow")


def test_a_cpu_has_the_eager_layer():
    assert type(last_layer(torch.ones(2, 3), torch.ones(4, 3), make_margin("a-softmax"))) is LastLayer


@pytest.mark.parametrize("cpu_block", [None, 1024])
def test_other_devices_than_a_cpu_have_blocks_of_a_quarter_of_a_gibibyte(monkeypatch, cpu_block):
    """SphereFace2 and the energy name the block that a CPU's cache holds: 977 of them for a million classes."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    x, weight = torch.empty(1024, 8, device="meta"), torch.empty(10**6, 8, device="meta")
    layer = LastLayer(x, weight, make_margin("a-softmax"), cpu_block=cpu_block)
    assert {block.stop - block.start for block in layer.blocks} == {62_500}  # 65,536 would fit
    assert layer.room_for_block().nbytes == 62_500 * 1024 * 4 <= 2**28
    assert [block.start for block in layer.blocks[1:]] == [block.stop for block in layer.blocks[:-1]]
    assert layer.blocks[-1].stop == 10**6
    assert LastLayer(x, weight, make_margin("a-softmax"), block_size=1000, cpu_block=cpu_block).blocks[0].stop == 1000


def rooms_and_dweight(monkeypatch, *, samples, classes=100, width=16, wanted=True):
    monkeypatch.setattr(eager, "CLASS_BLOCK", 32)
    with torch.autocast("cpu", torch.bfloat16):
        weight = torch.ones(classes, width, requires_grad=wanted)
        layer = FusedLayer(torch.ones(samples, width), weight, make_margin("a-softmax"))
        rooms = list(layer.rooms())
        return layer, rooms, layer.room_for_dweight()


def test_the_gradient_of_w_takes_over_the_logits_of_earlier_blocks_only(monkeypatch):
    layer, rooms, dweight = rooms_and_dweight(monkeypatch, samples=32)
    spans = [(room.data_ptr(), room.data_ptr() + room.nbytes) for room in rooms]
    assert [tuple(room.shape) for room in rooms] == [(32, 32)] * 3 + [(4, 32)]
    storages = [room.untyped_storage().data_ptr() for room in rooms]
    assert set(storages[:-1]) == {dweight.untyped_storage().data_ptr()}
    assert storages[-1] != storages[0]  # the last block has memory of its own, which is freed after it
    assert dweight.shape == (100, 16)
    assert dweight.dtype == torch.float32
    assert dweight.is_contiguous()
    for block, (start, _) in zip(layer.blocks[:-1], spans[:-1], strict=True):
        assert dweight[block].data_ptr() + dweight[block].nbytes <= start  # one product reads these and writes those
        assert (start - dweight.data_ptr()) % 256 == 0
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans[:-1]))
    end = dweight.data_ptr() + dweight.untyped_storage().nbytes()
    assert spans[-2][1] <= end == dweight.data_ptr() + (96 + 32) * 16 * 4  # the last block's rows are too short
    again = layer.room_for_dweight()  # of a second backward
    assert again.untyped_storage().data_ptr() != dweight.untyped_storage().data_ptr()


@pytest.mark.parametrize(("samples", "classes", "shared"), [(32, 96, 2), (2, 36, 1), (32, 32, 0)])
def test_the_gradient_of_w_keeps_no_memory_but_its_own(monkeypatch, samples, classes, shared):
    _, rooms, dweight = rooms_and_dweight(monkeypatch, samples=samples, classes=classes)
    in_dweight = [room.untyped_storage().data_ptr() == dweight.untyped_storage().data_ptr() for room in rooms]
    assert in_dweight == [True] * shared + [False]
    assert dweight.untyped_storage().nbytes() == dweight.nbytes == classes * 16 * 4


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 33},  # logits longer than the rows of W
        {"samples": 16, "width": 13},  # rows at odd places
        {"samples": 32, "wanted": False},  # no gradient of W
    ],
)
def test_memory_of_their_own_where_sharing_does_not_serve(monkeypatch, options):
    _, rooms, dweight = rooms_and_dweight(monkeypatch, **options)
    assert dweight.untyped_storage().nbytes() == dweight.nbytes
    assert all(room.untyped_storage().data_ptr() != dweight.untyped_storage().data_ptr() for room in rooms)
