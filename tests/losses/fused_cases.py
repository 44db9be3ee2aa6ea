"""The fused last layer by Triton's interpreter on a CPU; test_fused_layer.py runs this file in its own process."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from sphereface.losses import fused_layer, last_layer
from sphereface.losses import target_kernels as targets
from sphereface.losses import triton_kernels as kernels
from sphereface.losses.head import MarginHead
from sphereface.losses.margin_softmax import margin_softmax
from sphereface.losses.margins import make_margin

from . import shard_worker as work
from .oracles import SOFTMAX
from .test_margin_softmax import BigStorages, gradients, random_batch

assert os.environ.get("TRITON_INTERPRET") == "1"
FLOAT, BRAIN, HALF = torch.float32, torch.bfloat16, torch.float16
ROUNDING = {FLOAT: 2**-24, BRAIN: 2**-9, HALF: 2**-12}
STORED = {FLOAT: 2**-23, BRAIN: 2**-7, HALF: 2**-11}  # the interpreter cuts bfloat16 off, a GPU rounds it
OF_GRADIENTS = {FLOAT: 1e-5, BRAIN: 2.5e-2, HALF: 2.5e-2 / 6}  # as last_layer states, as a whole
FIRST_OF_EACH = list({example.name: example for example in reversed(SOFTMAX)}.values())
TYPES = {"fp32": FLOAT, "bf16": BRAIN, "fp16": HALF}
types = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES.keys())
CLASSES, BLOCK, CHUNK = 35, 20, 14  # two blocks, of two parts and of one that is not full; three chunks
SCALES = (-3.0, 65536.0, 0.0)  # of a loss


@pytest.fixture
def small_tiles(monkeypatch):
    """So that small matrices have several tiles in each direction, and are no multiples of them."""
    for name, value in {"PART": 16, "_ROWS": 8, "_COLUMNS": 16, "_TILE": 64}.items():
        monkeypatch.setattr(kernels, name, value)


@pytest.fixture
def fused(monkeypatch, small_tiles):
    monkeypatch.setattr(fused_layer, "_fuses", lambda x, weight: True)


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The kernels, against loops in Python's own numbers


def loop_others(z, own, start, bias):
    """For each sample the logits of the other classes, by class."""
    rows = z.tolist()
    return [
        {j: row[i] + (0.0 if bias is None else bias[j].item()) for j, row in enumerate(rows) if j + start != own[i]}
        for i in range(z.shape[1])
    ]


def block_of_logits(dtype, biased, scale):
    z = draw(37, 21, scale=scale).to(dtype)
    own = torch.randint(-1, 45, (21,), generator=torch.Generator().manual_seed(1))  # some outside of the block
    own[:5] = torch.tensor([-1, 4, 5, 41, 42])
    bias = draw(37, seed=2) if biased else None
    return z, own, 5, bias


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("biased", [False, True])
@types
def test_sums_and_maxima_leave_the_own_class_out(small_tiles, dtype, biased, scale):
    z, own, start, bias = block_of_logits(dtype, biased, scale)
    before = z.clone()
    maxima, sums = torch.full((2, 3, 21), math.nan).unbind()
    kernels.sum_exponentials(z, own, start, bias, maxima, sums)
    assert torch.equal(z, before)
    for i, others in enumerate(loop_others(z, own.tolist(), start, bias)):
        for part in range(3):
            seen = [value for j, value in others.items() if j // 16 == part]
            assert maxima[part, i].item() == pytest.approx(max(seen), rel=1e-6)
            total = math.fsum(math.exp(value - maxima[part, i].item()) for value in seen)
            assert sums[part, i].item() == pytest.approx(total, rel=1e-5 if scale == 1 else 2e-3)


def test_a_part_of_nothing_but_the_own_class_has_the_lowest_maximum_and_no_sum(small_tiles):
    maxima, sums = torch.full((2, 2, 3), math.nan).unbind()
    kernels.sum_exponentials(draw(17, 3), torch.tensor([16, 0, -1]), 0, None, maxima, sums)
    assert maxima[1, 0] == torch.finfo(FLOAT).min
    assert sums[1].tolist() == [0.0, 1.0, 1.0]


def test_a_logit_that_is_no_number_is_seen(small_tiles):
    z = draw(40, 3)
    z[20, 1], z[33, 2] = math.nan, math.inf
    maxima, sums = torch.empty(2, 3, 3).unbind()
    kernels.sum_exponentials(z, torch.full((3,), -1), 0, None, maxima, sums)
    assert sums.sum(0).isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("biased", [False, True])
@types
def test_gradient_in_place(small_tiles, dtype, biased):
    z, own, start, bias = block_of_logits(dtype, biased, 3.0)
    found, shift = z.clone(), draw(21, seed=3) + 8
    kernels.gradient_(found, own, start, bias, shift, torch.tensor(-0.25))
    expected = torch.zeros(37, 21)
    for i, others in enumerate(loop_others(z, own.tolist(), start, bias)):
        for j, value in others.items():
            expected[j, i] = -0.25 * math.exp(value - shift[i].item())
    torch.testing.assert_close(found.float(), expected, rtol=STORED[dtype] + 1e-5, atol=1e-7)
    assert ((found == 0) == (expected.to(dtype) == 0)).float().mean() > 0.99


@pytest.mark.parametrize("width", [5, 32, 100])
@types
def test_unit_rows(small_tiles, dtype, width):
    weight = draw(19, width) * torch.logspace(-6, 6, 19)[:, None]
    weight[3], weight[4] = 0, 1e-14  # no direction
    inverse = torch.full((19,), math.nan)
    unit = kernels.unit_rows(weight, torch.empty_like(weight, dtype=dtype), 1e-12, inverse=inverse)
    lengths = [math.hypot(*row) for row in weight.tolist()]
    expected = torch.tensor([1 / length if length > 1e-12 else 0.0 for length in lengths])
    torch.testing.assert_close(inverse, expected, rtol=1e-6, atol=0)
    assert unit.dtype == dtype
    torch.testing.assert_close(unit.float(), weight * expected[:, None], rtol=STORED[dtype], atol=1e-6)


@pytest.mark.parametrize("dtype", [FLOAT, BRAIN], ids=["fp32", "bf16"])
@pytest.mark.parametrize("held", [None, 0.0, 1.0])
def test_renormalized_in_place(fused, held, dtype):
    weight = (draw(19, 10) * torch.logspace(-6, 6, 19)[:, None]).to(dtype)
    weight[3] = 0
    lengths = torch.tensor([math.hypot(*row) for row in weight.tolist()])
    expected = weight.float() if held else weight.float() / lengths.clamp(min=1e-30)[:, None]
    fused_layer.renormalize_(weight, None if held is None else torch.tensor(held))
    torch.testing.assert_close(weight.float(), expected, rtol=STORED[dtype], atol=1e-6)


@pytest.mark.parametrize("parts", [1, 7, 40])
def test_totals_of_parts(monkeypatch, parts):
    monkeypatch.setattr(kernels, "_PARTS", 8)
    maxima, sums = 100 * draw(parts, 21), draw(parts, 21, seed=1).abs()
    maxima[:, 3], sums[:, 3] = torch.finfo(FLOAT).min, 0  # no other class
    best, total = kernels.totals(maxima, sums)
    assert torch.equal(best, maxima.max(0).values)
    for i in range(21):
        pairs = zip(maxima[:, i].tolist(), sums[:, i].tolist(), strict=True)
        terms = [value * math.exp(highest - best[i].item()) for highest, value in pairs]
        assert total[i].item() == pytest.approx(math.fsum(terms), rel=1e-5)


def test_totals_see_a_sum_that_is_no_number(small_tiles):
    sums = torch.ones(20, 3)
    sums[17, 1] = math.nan
    assert kernels.totals(torch.zeros(20, 3), sums)[1].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT, BRAIN], ids=["fp32", "bf16"])
def test_target_rows(constant, dtype):
    rows, query = (3 * draw(9, 10)).to(dtype), draw(9, 10, seed=1)
    rows[2], rows[5], rows[6] = 0, query[5], -2 * query[6]
    factor = 1.0 if constant else 1 / query.norm(dim=1)
    unit, lengths, inverse, has_angle, along, cosines = targets.target_rows(rows, query, factor, 1e-12)
    for i, (row, q) in enumerate(zip(rows.tolist(), query.tolist(), strict=True)):
        length = math.hypot(*row)
        dot = sum(a * b for a, b in zip(row, q, strict=True)) / (length or 1.0)
        cosine = max(-1.0, min(1.0, dot * (1.0 if constant else factor[i].item())))
        figures = [value[i].item() for value in (lengths, inverse, has_angle, along, cosines)]
        expected = [length, 1 / length if length else 0.0, float(length > 0), dot, cosine]
        assert figures == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert abs(figures[-1]) <= 1
        assert unit[i].tolist() == pytest.approx([value / (length or 1.0) for value in row], rel=1e-5, abs=1e-7)


def test_a_target_row_that_is_no_number_is_seen():
    rows = draw(3, 5)
    rows[1, 2] = math.nan
    *_, cosines = targets.target_rows(rows, draw(3, 5, seed=1), 1.0, 1e-12)
    assert cosines.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["a-softmax", "cosface"])
def test_embeddings_with_other_strides(fused, name):
    x, weight, labels = random_batch(17, CLASSES, 24, dtype=FLOAT)
    turned = x.detach().t().contiguous().t().requires_grad_()
    assert not turned.is_contiguous()
    outputs = [margin_softmax(given, weight, labels, make_margin(name), 2.0) for given in (x, turned)]
    torch.testing.assert_close(outputs[1].loss, outputs[0].loss)
    torch.testing.assert_close(gradients(outputs[1].loss, turned), gradients(outputs[0].loss, x))


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT, BRAIN], ids=["fp32", "bf16"])
def test_gradient_of_x(dtype, normalized):
    dquery, rows, x = (draw(9, 10, seed=seed) for seed in range(3))
    slope, per_norm, dx = draw(9, seed=3), draw(9, seed=4), torch.empty(9, 10, dtype=dtype)
    inverse = 1 / x.norm(dim=1) if normalized else None
    x[4] = 0
    if normalized:
        inverse[4] = 0
    targets.finish_dx(dquery, rows, slope, x, per_norm, inverse, 30.0, dx)
    free = x.double().requires_grad_()
    query = 30 * torch.nn.functional.normalize(free) if normalized else free
    (query * (dquery.double() + slope[:, None].double() * rows)).sum().backward()
    expected = free.grad + per_norm[:, None] * x
    if normalized:
        expected[4] = 0
    torch.testing.assert_close(dx.double(), expected, rtol=STORED[dtype] + 1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["normalized", "renormalized", "plain"])
def test_targets_are_added_to_their_rows(monkeypatch, kind):
    monkeypatch.setattr(targets, "_TILE", 64)
    labels = torch.tensor([7, 0, 3, 7, 3, 7, 30, 2, 7, 7, 1])
    query, slope, per_length = draw(11, 10), draw(11, seed=1), draw(11, seed=2)
    weight, dweight = draw(31, 10, seed=3).double(), draw(31, 10, seed=4)
    lengths = weight[labels].norm(dim=1)
    unit = weight[labels] / lengths[:, None]
    expected = dweight.double()
    for i, label in enumerate(labels.tolist()):
        share = query[i].double() * slope[i]
        if kind == "plain":
            share += unit[i] * per_length[i]
        else:
            along = (share * unit[i]).sum() if kind == "normalized" else 0.0
            share = (share - along * unit[i]) / lengths[i]
        expected[label] += share
    options = {"inverse": None if kind == "plain" else (1 / lengths).float()}
    options |= {"per_length": per_length if kind == "plain" else None, "project": kind == "normalized"}
    targets.add_targets_(dweight, labels, query, slope, unit.float(), **options)
    torch.testing.assert_close(dweight.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("divided", [False, True])
def test_rows_of_the_gradient_of_w(small_tiles, divided, scaled, project):
    grad, weight, unit = draw(19, 10), draw(19, 10, seed=1), torch.tensor(3.0)
    lengths = weight.norm(dim=1)
    if project and not divided:
        weight, lengths = weight / lengths[:, None], torch.ones(19)
        divided = True
    expected = []
    for g, w, length in zip(grad.tolist(), weight.tolist(), lengths.tolist(), strict=True):
        along = sum(a * b for a, b in zip(g, w, strict=True)) / length**2 if project else 0.0
        factor = (3.0 if scaled else 1.0) / (length if divided else 1.0)
        expected.append([factor * (a - along * b) for a, b in zip(g, w, strict=True)])
    inverse = 1 / lengths if divided else None
    kernels.finish_rows_(grad, weight, inverse, unit if scaled else None, project=project)
    torch.testing.assert_close(grad, torch.tensor(expected), rtol=1e-5, atol=1e-6)


# The whole loss, against the eager engine in float64


def both(example, dtype, *, chunk_size=None, scale=1.0, change=lambda x, weight: None, samples=17, width=24):
    """Outputs and gradients of the fused engine and of the eager one in float64."""
    x, weight, labels = random_batch(samples, CLASSES, width, dtype=FLOAT, scale=example.norm / width**0.5)
    with torch.no_grad():
        change(x, weight)
    margin, bias = example.margin, draw(CLASSES, seed=4).requires_grad_() if example.plain_rows else None
    inputs = [value for value in (x, weight, bias) if value is not None]
    with torch.autocast("cpu", dtype, enabled=dtype != FLOAT):
        out = margin_softmax(x, weight, labels, margin, 2.0, bias=bias, chunk_size=chunk_size)
    found = gradients(scale * out.loss, *inputs)
    doubles = [value.detach().double().requires_grad_() for value in inputs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_layer, "_fuses", lambda x, weight: False)
        exact = margin_softmax(*doubles[:2], labels, margin, 2.0, bias=doubles[2] if len(doubles) == 3 else None)
    return out, found, exact, gradients(scale * exact.loss, *doubles)


def assert_near(dtype, out, found, exact, expected, reach):
    """``reach``: the length of the logits, s or ‖x‖."""
    assert out.loss.dtype == FLOAT
    assert out.loss.item() == pytest.approx(exact.loss.item(), rel=1e-5, abs=3 * ROUNDING[dtype] * reach + 1e-6)
    torch.testing.assert_close(out.cosines, exact.cosines.float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.norms, exact.norms.float())
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == FLOAT
        assert (got - wanted).norm() <= OF_GRADIENTS[dtype] * wanted.norm()


def every_second_is_slow():
    """Each pair of margin, type and chunk size stands in half of the cases; `make faults` runs the others."""
    axes = (FIRST_OF_EACH, TYPES.items(), (None, CHUNK))
    for (i, example), (j, (name, dtype)), (k, size) in itertools.product(*map(enumerate, axes)):
        marks = pytest.mark.slow if (i + j + k) % 2 else ()
        yield pytest.param(example, dtype, size, marks=marks, id=f"{example}-{name}-{size}")


@pytest.mark.parametrize(("example", "dtype", "chunk_size"), every_second_is_slow())
def test_every_margin(fused, monkeypatch, example, dtype, chunk_size):
    monkeypatch.setattr(last_layer, "CLASS_BLOCK", BLOCK)
    assert_near(dtype, *both(example, dtype, chunk_size=chunk_size), example.scale or 3 * example.norm)


def test_the_accuracy_is_that_of_float64(fused):
    x, weight, labels = random_batch(samples=200, dtype=FLOAT)
    out = margin_softmax(x, weight, labels, make_margin("a-softmax"), 5.0)
    assert torch.equal(out.correct, (x @ torch.nn.functional.normalize(weight).t()).argmax(1) == labels)
    assert 0 < out.correct.sum() < 200


@types
def test_zero_rows_and_zero_embeddings(fused, dtype):
    def change(x, weight):
        x[0] = 0
        weight[:12] = 0

    for name in ("a-softmax", "cosface"):
        example = next(example for example in SOFTMAX if example.name == name)
        out, found, *_ = both(example, dtype, change=change)
        assert out.loss.isfinite()
        assert all(got.isfinite().all() for got in found)
        assert (found[1][:12] == 0).all()


@pytest.mark.parametrize("size", [1e3, 1e4])
@types
def test_huge_logits(fused, dtype, size):
    """Every gradient is 0 or 1/N then, and float16's range nearly used up."""
    x, weight, labels = random_batch(dtype=FLOAT, scale=size)
    margin = make_margin("modified-softmax")
    with torch.autocast("cpu", dtype, enabled=dtype != FLOAT):
        out = margin_softmax(x, weight, labels, margin)
    exact = margin_softmax(x.double(), weight.double(), labels, margin)
    assert out.loss.item() == pytest.approx(exact.loss.item(), rel=3 * ROUNDING[dtype] + 1e-6)
    assert all(got.isfinite().all() for got in gradients(out.loss, x, weight))


@types
def test_the_scale_of_the_loss_scales_its_gradients(fused, dtype):
    example = next(example for example in SOFTMAX if example.name == "cosface")
    once, *all_scaled = (both(example, dtype, scale=scale)[1] for scale in (1.0, *SCALES))
    for scale, scaled in zip(SCALES, all_scaled, strict=True):
        for one, other in zip(once, scaled, strict=True):
            assert (other - scale * one).norm() <= abs(scale) * OF_GRADIENTS[dtype] * one.norm(), scale


def test_small_gradients_are_kept_in_float16(fused):
    """Where the targets are far ahead, every gradient is far below 6e-8, the smallest number of float16."""
    x, labels = 3 * torch.eye(16), torch.arange(16)
    weight = (torch.eye(16) + 0.01 * draw(16, 16)).requires_grad_()
    margin = make_margin("modified-softmax", s=30.0)
    with torch.autocast("cpu", HALF):
        (found,) = gradients(margin_softmax(x, weight, labels, margin).loss, weight)
    exact = weight.detach().double().requires_grad_()
    (expected,) = gradients(margin_softmax(x.double(), exact, labels, margin).loss, exact)
    assert expected.abs().max() < 1e-9
    assert (found - expected).norm() <= 0.05 * expected.norm()


@types
def test_a_second_backward_and_one_gradient_alone(fused, dtype):
    x, weight, labels = random_batch(dtype=FLOAT)
    with torch.autocast("cpu", dtype, enabled=dtype != FLOAT):
        loss = margin_softmax(x, weight, labels, make_margin("arcface"), 1.0).loss
    first = gradients(loss, x, weight, retain_graph=True)
    for again in (gradients(loss, x, weight, retain_graph=True), gradients(loss, x, weight)):
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    for wanted in (0, 1):
        inputs = [x.detach(), weight.detach()]
        inputs[wanted].requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != FLOAT):
            loss = margin_softmax(*inputs, labels, make_margin("arcface"), 1.0).loss
        assert torch.equal(gradients(loss, inputs[wanted])[0], first[wanted])


@pytest.mark.parametrize("chunk_size", [None, 100])
def test_logits_are_there_once_in_the_low_type(monkeypatch, chunk_size):
    monkeypatch.setattr(fused_layer, "_fuses", lambda x, weight: True)
    samples, classes = 32, 400
    x, weight, labels = random_batch(samples, classes, 4, dtype=FLOAT)
    limit = 2 * samples * (chunk_size or classes)
    with torch.autocast("cpu", BRAIN), BigStorages(limit + 1) as larger, BigStorages(limit) as big:
        margin_softmax(x, weight, labels, make_margin("a-softmax"), 5.0, chunk_size=chunk_size).loss.backward()
    assert larger.count() == 0
    assert chunk_size is not None or big.count() <= 2  # on a CPU a product is made beside its place, and copied


# Heads


@pytest.mark.parametrize("name", ["a-softmax", "softmax", "adaface"])
@types
def test_a_sampled_head(fused, monkeypatch, name, dtype):
    results = []
    for fuses in (True, False):
        monkeypatch.setattr(fused_layer, "_fuses", lambda x, weight, fuses=fuses: fuses)
        head = MarginHead(6, 40, make_margin(name, sample_rate=0.5), generator=torch.Generator().manual_seed(0))
        x, _, labels = random_batch(dtype=FLOAT, classes=40)
        with torch.autocast("cpu", dtype, enabled=dtype != FLOAT):
            out = head(x, labels, 2.0, step=3)
        (dx, dweight) = gradients(out.loss, x, head.weight)
        results.append((out.loss, dx, dweight.coalesce().indices(), dweight.to_dense()))
    fast, slow = results
    assert fast[0].item() == pytest.approx(slow[0].item(), rel=20 * ROUNDING[dtype])
    assert torch.equal(fast[2], slow[2])
    for one, other in ((fast[1], slow[1]), (fast[3], slow[3])):
        assert (one - other).norm() <= 2 * OF_GRADIENTS[dtype] * other.norm()


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    fused_layer._fuses = lambda x, weight: True
    ranks = work.Ranks()
    found = {
        (name, rate): step_of_a_shard(
            work.new_head({"name": name}, ranks, work.SAMPLED_CLASSES, sample_rate=rate).float(), ranks
        )
        for name in ("a-softmax", "softmax")
        for rate in (1.0, 0.5)
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def step_of_a_shard(head, ranks=None):
    x, labels = work.batch(classes=work.SAMPLED_CLASSES)
    rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
    own = slice(rank * len(x) // size, (rank + 1) * len(x) // size)
    mine = x[own].float().requires_grad_()
    out = head(mine, labels[own], work.LAMBDA, step=0)
    out.loss.backward()
    return {"loss": out.loss.detach(), "correct": out.correct, "dx": mine.grad, "dw": head.weight.grad.to_dense()}


def test_two_shards_are_one_head(tmp_path, small_tiles, monkeypatch):
    torch.multiprocessing.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in ("a-softmax", "softmax"):
        one = step_of_a_shard(work.new_head({"name": name}, classes=work.SAMPLED_CLASSES).float())
        parts = [part[name, 1.0] for part in found]
        assert all(part["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-5) for part in parts)
        assert torch.equal(torch.cat([part["correct"] for part in parts]), one["correct"])
        for key, factor in (("dx", 2), ("dw", 1)):
            torch.testing.assert_close(torch.cat([p[key] for p in parts]), factor * one[key], rtol=1e-4, atol=1e-5)
        sampled = [part[name, 0.5] for part in found]
        assert sampled[0]["loss"].item() == sampled[1]["loss"].item() < one["loss"].item()
