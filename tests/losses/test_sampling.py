"""Sampled negatives: which rows a step sees, the loss over them, and that nothing else moves."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch

from sphereface.errors import UserError
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import MARGINS, make_margin
from sphereface.losses.sampling import mark_distinct_rows, sampled_rows
from sphereface.losses.shards import Shard
from sphereface.training.optimizer import SGD, gradient_values
from sphereface.training.parts import parameter_groups

from .oracles import SOFTMAX, loop_losses

CLASSES, WIDTH = 14, 5
FIRST_OF_EACH = list({example.name: example for example in reversed(SOFTMAX)}.values())


def draw(positives, rate, *, rows=1000, seed=0, step=0, shard=0):
    return sampled_rows(torch.tensor(positives), rows, rate, seed=seed, step=step, shard=shard)


def batch(samples=6):
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(samples, WIDTH, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.randint(CLASSES, (samples,), generator=generator)


def head_of(name, **options):
    torch.manual_seed(0)
    head = MarginHead(WIDTH, CLASSES, make_margin(name, **options), seed=7).double()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return head


def test_rows_are_the_positives_and_a_random_part_of_the_others():
    rows = draw([5, 700, 5, 999], 0.1)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == 100
    assert {5, 700, 999} <= set(rows.tolist())
    assert len(draw(range(200), 0.1)) == 200  # never fewer than the positives
    assert draw(range(200), 0.1).tolist() == list(range(200))
    assert draw([3], 1.0).tolist() == list(range(1000))
    assert len(draw([3], 0.0001)) == 1


def test_the_number_of_rows_depends_on_shapes_alone():
    """So a GPU is not waited for: N samples may have N classes."""
    assert len(draw([3] * 200, 0.1)) == len(draw(range(200), 0.1)) == 200
    assert len(draw([3] * 2000, 0.1)) == 1000
    assert 3 in draw([3] * 200, 0.1)
    nobody = draw([1000] * 200, 0.1)  # the classes of these samples are in other shards
    assert len(nobody) == 200
    assert nobody.max() < 1000


def test_each_other_class_comes_as_often_as_the_rate_says():
    seen = torch.zeros(1000)
    for step in range(400):
        seen[draw([0], 0.1, step=step)] += 1
    assert seen[0] == 400
    others = seen[1:] / 400
    assert others.mean().item() == pytest.approx(99 / 999, abs=1e-6)
    assert others.std().item() == pytest.approx(math.sqrt(0.1 * 0.9 / 400), rel=0.1)  # independent draws


def test_the_choice_depends_on_seed_step_and_shard_alone():
    first = draw([5], 0.1, seed=1, step=2, shard=3)
    torch.rand(100)
    assert torch.equal(first, draw([5], 0.1, seed=1, step=2, shard=3))
    for change in ({"seed": 2}, {"step": 3}, {"shard": 4}, {"seed": 2, "step": 1}):
        other = draw([5], 0.1, **{"seed": 1, "step": 2, "shard": 3, **change})
        assert len(set(first.tolist()) & set(other.tolist())) < 40


@pytest.mark.parametrize("rank", [0, 1])
def test_the_head_draws_by_its_seed_the_step_and_its_shard(rank):
    shard, (x, labels) = Shard.of(2 * CLASSES, rank, 2), batch()
    head = MarginHead(WIDTH, 2 * CLASSES, make_margin("arcface", sample_rate=0.5), seed=7, shard=shard).double()
    for step in (0, 3):
        head.weight.grad = None
        head(x, labels, step=step).loss.backward()
        expected = sampled_rows(labels, CLASSES, 0.5, seed=7, step=step, shard=CLASSES * rank)
        assert head.weight.grad.coalesce().indices()[0].tolist() == expected.tolist()


@pytest.mark.parametrize("example", FIRST_OF_EACH, ids=str)
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_sampled_loss_is_the_loops_over_the_classes_seen(example, chunk_size):
    head = head_of(example.name, **example.options, sample_rate=0.5, chunk_size=chunk_size)
    head.margin.__dict__["momentum"] = 0.0  # AdaFace's statistics stay those of the example
    for name, value in example.running.items():
        head.get_buffer(name).fill_(value)
    before = head.weight.detach().clone()
    x, labels = batch()
    out = head(x, labels, 2.0, step=3)
    out.loss.backward()
    rows = head.weight.grad.coalesce().indices()[0]
    assert len(rows) == 7
    position = {row: i for i, row in enumerate(rows.tolist())}
    lists = x.tolist(), before[rows].tolist(), [position[y] for y in labels.tolist()], example, 2.0
    losses = loop_losses(*lists, None if head.bias is None else head.bias[rows].tolist())
    term = head.margin.norm_term(out.norms)
    beside = 0.0 if term is None else term.mean().item()
    assert out.loss.item() - beside == pytest.approx(math.fsum(losses) / len(losses), abs=1e-8)


@pytest.mark.parametrize("name", sorted(set(MARGINS) - {"sphereface2"}))
def test_a_rate_that_leaves_none_out_is_the_full_loss(name):
    """0.99 of 14 classes is all of them, by way of the sampling; 1 does not sample."""
    results = []
    for rate in (0.99, 1.0):
        head, (x, labels) = head_of(name, sample_rate=rate), batch()
        out = head(x, labels, 2.0, step=0)
        out.loss.backward()
        assert head.weight.grad.is_sparse == (rate < 1)
        grads = [p.grad.to_dense() for p in head.parameters()]
        results.append([out.loss.detach(), x.grad, *grads, *head.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("momentum", ["caffe", "torch"])
@pytest.mark.parametrize(("name", "options"), [("softmax", {}), ("a-softmax", {"gradient": "caffe"})])
def test_rows_not_seen_stay_to_the_bit_and_the_others_move_by_the_formula(name, options, momentum):
    head = head_of(name, **options, sample_rate=0.5)
    optimizer = SGD(parameter_groups({"head": head}, {}), lr=0.1, mu=0.9, weight_decay=0.1, momentum=momentum)
    velocity = {p: torch.zeros_like(p) for p in head.parameters()}
    for step, rate in enumerate((0.1, 0.1, 0.02, 0.02)):
        optimizer.set_lr(rate)
        x, labels = batch()
        before = {p: p.detach().clone() for p in head.parameters()}
        optimizer.zero_grad()
        head(x, labels, 2.0, step=step).loss.backward()
        stepped = {p: p.detach().clone() for p in head.parameters()}  # with the rows seen brought to length 1
        optimizer.step()
        for p in head.parameters():
            lr, decay = (2 * rate, 0.0) if p is head.bias else (rate, 0.1)
            gradient, rows = p.grad.to_dense(), p.grad.coalesce().indices()[0]
            aside = torch.tensor([j for j in range(CLASSES) if j not in rows])
            assert len(aside) == 7
            moved = optimizer.state[p]["velocity"]
            assert torch.equal(p[aside], before[p][aside])
            assert torch.equal(moved[aside], velocity[p][aside])
            for j in rows.tolist():
                g = gradient[j] + decay * stepped[p][j]
                v = 0.9 * velocity[p][j] + (lr * g if momentum == "caffe" else g)
                torch.testing.assert_close(moved[j], v, rtol=1e-12, atol=1e-15)
                change = v if momentum == "caffe" else lr * v
                torch.testing.assert_close(p[j].detach(), stepped[p][j] - change, rtol=1e-12, atol=1e-15)
            velocity[p] = moved.clone()


def test_gradients_of_two_backwards_add_up():
    """As gradient accumulation has it: the optimiser sees the rows of both, and each once."""
    head, (x, labels) = head_of("arcface", sample_rate=0.5), batch()
    head(x, labels, step=0).loss.backward()
    assert head.weight.grad.is_coalesced()  # one backward has each row once, so the optimiser needs no sort
    head.weight.grad = None
    dense = torch.zeros(CLASSES, WIDTH, dtype=torch.float64)
    for step in (0, 1):
        (own,) = torch.autograd.grad(head(x, labels, step=step).loss, head.weight)
        dense += own.to_dense()
        head(x, labels, step=step).loss.backward()
    (values,) = gradient_values([head.weight])
    seen = head.weight.grad.indices()[0]
    assert torch.equal(seen, seen.unique())
    torch.testing.assert_close(values, dense[seen])
    assert (dense[[j for j in range(CLASSES) if j not in seen]] == 0).all()
    values.mul_(0.5)
    torch.testing.assert_close(head.weight.grad.to_dense(), dense / 2)


def test_a_sum_of_gradients_is_not_taken_for_one_with_distinct_rows():
    parameter = torch.nn.Parameter(torch.zeros(5, 2))
    for rows, distinct in (([1, 3], True), ([1, 3, 1, 4], False)):
        parameter.grad = torch.sparse_coo_tensor(
            torch.tensor([rows]), torch.ones(len(rows), 2), (5, 2), check_invariants=True
        )
        mark_distinct_rows(parameter, 2)
        assert parameter.grad.is_coalesced() is distinct
    parameter.grad = torch.zeros(5, 2)
    mark_distinct_rows(parameter, 2)  # a dense one, from an evaluation with gradients


def test_evaluation_sees_all_classes():
    (x, labels), sampling = batch(), head_of("arcface", sample_rate=0.2)
    expected = head_of("arcface")(x, labels).loss.item()
    assert sampling.eval()(x, labels).loss.item() == expected
    assert sampling.train()(x, labels, step=0).loss.item() < expected


def test_in_training_the_step_must_be_told():
    with pytest.raises(UserError, match="head: got no step"):
        head_of("arcface", sample_rate=0.2)(*batch())


def test_a_label_out_of_range_is_told_before_sampling():
    x, labels = batch()
    with pytest.raises(UserError, match="labels: got .* with 14 classes · allowed: 0 to 13"):
        head_of("arcface", sample_rate=0.2)(x, labels + CLASSES, step=0)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("arcface", {"sample_rate": 0}, "loss.sample_rate: got 0 · allowed: a number above 0 and at most 1"),
        ("arcface", {"sample_rate": 1.5}, "loss.sample_rate: got 1.5"),
        ("arcface", {"sample_rate": 0.1, "mhe": 1}, "loss: got sample_rate 0.1 with mhe 1 · allowed: one of them"),
        ("magface", {"sample_rate": 0.1, "mhe": 1}, "loss: got sample_rate 0.1 with mhe 1 · allowed: one of them"),
        ("sphereface2", {"sample_rate": 0.1}, "loss: got sample_rate 0.1 · allowed for sphereface2: 1"),
        ("arcface", {"sample_rate": 0.1, "distributed": "replicated"}, "loss: got sample_rate 0.1 with distributed"),
        ("arcface", {"distributed": "split"}, "loss.distributed: got 'split' · allowed: one of sharded, replicated"),
    ],
)
def test_options_that_do_not_go(name, options, line):
    with pytest.raises(UserError) as raised:
        make_margin(name, **options)
    (problem,) = str(raised.value).splitlines()
    assert problem.startswith(line.partition(" · allowed: a number")[0])


def test_a_head_that_is_no_longer_used_is_freed():
    x, labels = batch()
    head = head_of("cosface", sample_rate=0.5)
    weight = weakref.ref(head.weight)
    head(x, labels, step=0).loss.backward()
    assert weight() is head.weight
    del head
    gc.collect()
    assert weight() is None
