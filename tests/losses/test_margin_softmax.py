"""The engine against slow oracles: loops over samples and classes, finite differences, textbook autograd."""

import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sphereface.errors import UserError
from sphereface.losses import last_layer, targets
from sphereface.losses.margin_softmax import margin_logits, margin_softmax
from sphereface.losses.margins import make_margin

MODES = [(m, gradient) for m in (1, 2, 3, 4) for gradient in ("exact", "caffe")]
modes = pytest.mark.parametrize(("m", "gradient"), MODES)


def loop_logits(x, weight, labels, m, lam):
    """(λ‖x‖cos θ + ‖x‖ψ(θ))/(1 + λ) for targets, ‖x‖ cos θ for others, by loops, acos and the paper's k."""
    rows = []
    for xi, yi in zip(x, labels, strict=True):
        length, row = math.hypot(*xi), []
        for j, wj in enumerate(weight):
            cos = sum(a * b for a, b in zip(xi, wj, strict=True)) / (length * math.hypot(*wj))
            plain = length * cos
            if j == yi:
                theta = math.acos(max(-1.0, min(1.0, cos)))
                k = min(math.floor(m * theta / math.pi + 1e-9), m - 1)
                psi = (-1) ** k * math.cos(m * theta) - 2 * k
                plain = (lam * plain + length * psi) / (1 + lam)
            row.append(plain)
        rows.append(row)
    return rows


def loop_losses(x, weight, labels, m, lam):
    """−log softmax of each sample."""
    rows = loop_logits(x, weight, labels, m, lam)
    return [math.log(sum(math.exp(z) for z in row)) - row[y] for row, y in zip(rows, labels, strict=True)]


def batch_over_angles(degrees, norm=2.0, dtype=torch.float64):
    """Samples at given angles from their class's weights, in three dimensions; five rows of any length."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, generator=generator, dtype=torch.float64) * 3
    labels = torch.tensor([i % 5 for i in range(len(degrees))])
    unit = F.normalize(weight)[labels]
    aside = torch.randn(len(degrees), 3, generator=generator, dtype=torch.float64)
    aside = F.normalize(aside - (aside * unit).sum(1, keepdim=True) * unit)
    theta = torch.tensor(degrees, dtype=torch.float64).mul(math.pi / 180)[:, None]
    x = norm * (theta.cos() * unit + theta.sin() * aside)
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels


def random_batch(samples=13, classes=11, width=6, dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, width, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (samples,), generator=generator)
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels


def gradients(loss, *inputs, **options):
    return torch.autograd.grad(loss, inputs, **options)


@pytest.fixture(params=[3, 512], ids=["blocks of 3", "one block"])
def block(request, monkeypatch):
    monkeypatch.setattr(last_layer, "CLASS_BLOCK", request.param)


# The forward


@pytest.mark.parametrize("lam", [0.0, 5.0, 892.857])
@modes
def test_forward_equals_the_loops_at_every_degree(m, gradient, lam, block):
    x, weight, labels = batch_over_angles(range(181))
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    arguments = x.tolist(), weight.tolist(), labels.tolist(), m, lam
    logits = margin_logits(x, weight, labels, margin, lam)
    assert torch.allclose(logits, torch.tensor(loop_logits(*arguments), dtype=torch.float64), atol=1e-11)
    out = margin_softmax(x, weight, labels, margin, lam)
    losses = loop_losses(*arguments)
    assert out.loss.item() == pytest.approx(sum(losses) / len(losses), abs=1e-11)


def test_outputs_beside_the_loss(block):
    x, weight, labels = random_batch(samples=200)
    out = margin_softmax(x, weight, labels, make_margin("a-softmax"), 5.0)
    plain = x @ F.normalize(weight).t()
    assert torch.equal(out.correct, plain.argmax(1) == labels)
    assert 0 < out.correct.sum() < 200
    assert torch.allclose(out.norms, x.norm(dim=1))
    assert torch.allclose(out.cosines, F.cosine_similarity(x, weight[labels]))
    assert out.loss.requires_grad
    assert not any(value.requires_grad for value in out[1:])


def test_modified_softmax_is_a_softmax_with_m_1():
    x, weight, labels = random_batch()
    one = margin_softmax(x, weight, labels, make_margin("a-softmax", m=1), 5.0).loss
    other = margin_softmax(x, weight, labels, make_margin("modified-softmax")).loss
    assert one.item() == pytest.approx(other.item(), abs=1e-14)


@modes
def test_loss_of_huge_logits(m, gradient, block):
    x, weight, labels = random_batch(scale=1e4, dtype=torch.float32)
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    logits = margin_logits(x.double(), weight.double(), labels, margin, 0.0)
    out = margin_softmax(x, weight, labels, margin, 0.0)
    assert out.loss.item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert all(grad.isfinite().all() for grad in gradients(out.loss, x, weight))


def test_plain_target_far_above_the_others_does_not_hide_them():
    """At 40° the margin lowers a target logit of 460 to −564; 460 must not scale the others' exponentials."""
    theta = math.radians(40)
    x = 600 * torch.tensor([[math.cos(theta), math.sin(theta), 0.0]]).requires_grad_()
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], requires_grad=True)
    loss = margin_softmax(x, weight, torch.tensor([0]), make_margin("a-softmax"), 0.0).loss
    assert loss.item() == pytest.approx(600 * math.cos(math.radians(20)) + math.log(2), rel=1e-5)
    assert gradients(loss, weight)[0][1:, 0].tolist() == pytest.approx([300 * math.cos(theta)] * 2, rel=1e-5)


# The exact gradient


@pytest.mark.parametrize("norm", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_gradcheck_over_all_angles(m, norm, block):
    degrees = [*range(0, 181, 15), 0, 180, 22.5, 67.5, 112.5, 157.5, 1e-4, 179.9999]
    x, weight, labels = batch_over_angles(degrees, norm)
    margin = make_margin("a-softmax", m=m)
    # ψ'' jumps on segment borders, where a central difference is off by jump/‖x‖ times the step.
    options = {"eps": 1e-6 * min(norm, 1.0), "atol": 2e-5, "rtol": 1e-4}
    for output in (
        lambda *xw: margin_softmax(*xw, labels, margin, 0.5).loss,
        lambda *xw: margin_logits(*xw, labels, margin, 0.5),
    ):
        assert torch.autograd.gradcheck(output, (x, weight), **options)


@pytest.mark.parametrize(("norm", "m"), [(1.0, 2), (1.0, 3), (1.0, 4), (1e-3, 4)])
def test_cosines_of_exactly_one_and_minus_one(norm, m):
    weight = torch.eye(3, dtype=torch.float64, requires_grad=True)
    x = torch.cat([torch.eye(3), -torch.eye(3)]).double().mul(norm).requires_grad_()
    labels, margin = torch.tensor([0, 1, 2, 0, 1, 2]), make_margin("a-softmax", m=m)
    assert margin_softmax(x, weight, labels, margin).cosines.tolist() == [1.0] * 3 + [-1.0] * 3
    assert torch.autograd.gradcheck(
        lambda a, b: margin_softmax(a, b, labels, margin).loss, (x, weight), eps=1e-6 * norm, atol=1e-5
    )


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_gradient_equals_differences_of_the_loops_at_every_degree(m):
    degrees = [d for d in range(181) if d * m % 180 or d in (0, 180)]  # off the borders, where ψ'' jumps
    x, weight, labels = batch_over_angles(degrees)
    lam, h = 1.0, 1e-6
    loss = margin_softmax(x, weight, labels, make_margin("a-softmax", m=m), lam).loss
    dx, dweight = gradients(loss * len(degrees), x, weight)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = h
        up, down = ((x + s * step).tolist() for s in (1, -1))
        sides = [loop_losses(side, weight.tolist(), labels.tolist(), m, lam) for side in (up, down)]
        numeric = torch.tensor(sides, dtype=torch.float64).diff(dim=0)[0] / (-2 * h)
        assert torch.allclose(dx[:, axis], numeric, rtol=0, atol=1e-6)
        for j in range(5):
            moved = [weight.tolist() for _ in range(2)]
            moved[0][j][axis] += h
            moved[1][j][axis] -= h
            sums = [math.fsum(loop_losses(x.tolist(), w, labels.tolist(), m, lam)) for w in moved]
            assert dweight[j, axis].item() == pytest.approx((sums[0] - sums[1]) / (2 * h), abs=1e-6)


def test_m_1_equals_textbook_autograd(block):
    x, weight, labels = random_batch()
    ours = margin_softmax(x, weight, labels, make_margin("modified-softmax")).loss
    book = F.cross_entropy(F.linear(x, F.normalize(weight)), labels)
    assert ours.item() == pytest.approx(book.item(), abs=1e-14)
    for one, other in zip(gradients(3 * ours, x, weight), gradients(3 * book, x, weight), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)


@modes
def test_loss_is_the_cross_entropy_of_the_logits(m, gradient, block):
    x, weight, labels = random_batch()
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    fused = margin_softmax(x, weight, labels, margin, 2.0).loss
    plain = F.cross_entropy(margin_logits(x, weight, labels, margin, 2.0), labels)
    assert fused.item() == pytest.approx(plain.item(), abs=1e-13)
    for one, other in zip(gradients(fused, x, weight), gradients(plain, x, weight), strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-13)


def test_gradient_of_the_weights_is_square_to_them():
    x, weight, labels = random_batch()
    (grad,) = gradients(margin_softmax(x, weight, labels, make_margin("a-softmax"), 1.0).loss, weight)
    assert (grad * weight).sum(1).abs().max() < 1e-14
    assert grad.norm(dim=1).min() > 1e-6


@pytest.mark.parametrize("size", [1, 2, 7, 11, 512])
@modes
def test_blocks_change_nothing(m, gradient, size, monkeypatch):
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    results = []
    for classes_per_block in (size, 1000):
        monkeypatch.setattr(last_layer, "CLASS_BLOCK", classes_per_block)
        x, weight, labels = random_batch(samples=40)
        loss = margin_softmax(x, weight, labels, margin, 5.0).loss
        results.append((loss, *gradients(loss, x, weight)))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("here", [None, [True, False, True, True] * 10])
def test_targets_are_found_without_waiting_as_on_a_cpu(here, monkeypatch):
    """On other devices no block knows which targets it has: all are written, most with what is there."""
    monkeypatch.setattr(last_layer, "CLASS_BLOCK", 3)
    x, weight, labels = random_batch(samples=40)
    layer = last_layer.LastLayer(x, weight, make_margin("a-softmax"))
    values = torch.arange(1.0, 41.0, dtype=torch.float64)
    written = []
    for waits in (True, False):
        mask = None if here is None else torch.tensor(here)
        found = targets.Targets(layer, labels, make_margin("a-softmax"), 0.0, mask)
        if not waits:
            found._places = None
        blocks = [torch.zeros(block.stop - block.start, 40, dtype=torch.float64) for block in layer.blocks]
        for i, block in enumerate(blocks):
            found.put(i, block, values)
        written.append(torch.cat(blocks))
        found.put(0, blocks[0], -1.0)
        written[-1][:3] += blocks[0]
    expected = torch.zeros(11, 40, dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        if here is None or here[i]:
            expected[label, i] = values[i] - (1 if label < 3 else 0)
    assert torch.equal(written[0], expected)
    assert torch.equal(written[1], expected)


# The caffe gradient is compared with the original's numbers in test_golden.py


def test_caffe_weight_gradient_knows_neither_margin_nor_projection():
    x, weight, labels = random_batch()
    weight = F.normalize(weight.detach()).requires_grad_()
    margin = make_margin("a-softmax", gradient="caffe")
    logits = margin_logits(x, weight, labels, margin, 5.0).detach().requires_grad_()
    (expected,) = gradients(F.cross_entropy(logits, labels), logits)
    (grad,) = gradients(margin_softmax(x, weight, labels, margin, 5.0).loss, weight)
    assert torch.allclose(grad, expected.t() @ x, rtol=1e-12, atol=1e-14)


# Where there is no direction


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@modes
def test_zero_embeddings_and_zero_rows(m, gradient, dtype, block):
    x, weight, labels = random_batch(dtype=dtype)
    with torch.no_grad():
        x[0] = 0
        weight[labels[1]] = 0  # a target's own row
        weight[(labels[1] + 1) % 11] = 0
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    logits = margin_logits(x, weight, labels, margin, 0.5)
    empty = (weight == 0).all(1)
    assert (logits[0] == 0).all()
    assert (logits[:, empty] == 0).all()
    loss = margin_softmax(x, weight, labels, margin, 0.5).loss
    dx, dweight = gradients(loss, x, weight)
    assert loss.isfinite()
    assert dx.isfinite().all()
    assert dweight.isfinite().all()
    assert (dweight[empty] == 0).all()
    of_empty = margin_logits(x, weight, labels, margin, 0.5)[labels == labels[1], labels[1]].sum()
    assert (gradients(of_empty, x)[0] == 0).all()


@modes
def test_gradient_at_a_zero_embedding_takes_its_direction_for_zero(m, gradient):
    x, weight, labels = torch.zeros(1, 3, requires_grad=True), torch.eye(3), torch.tensor([1])
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    (dx,) = gradients(margin_logits(x, weight, labels, margin, 1.0)[0, 1], x)
    slope = {1: 1.0, 2: 0.5, 3: 2.0, 4: 0.5}[m] if gradient == "exact" else {1: 1.0}.get(m, 0.5)
    assert dx.tolist() == [[0.0, slope, 0.0]]


@modes
def test_one_class_one_sample(m, gradient):
    x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    weight = torch.tensor([[1.0, -2.0]], requires_grad=True)
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    out = margin_softmax(x, weight, torch.tensor([0]), margin, 5.0)
    assert out.loss.item() == 0
    assert out.correct.tolist() == [True]
    assert all((grad == 0).all() for grad in gradients(out.loss, x, weight))


def test_duplicates_share_their_gradient(block):
    x, weight, labels = random_batch(samples=4)
    twice = torch.cat([x, x]).detach().requires_grad_()
    margin = make_margin("a-softmax")
    once = margin_softmax(x, weight, labels, margin, 1.0).loss
    both = margin_softmax(twice, weight, torch.cat([labels, labels]), margin, 1.0).loss
    assert once.item() == pytest.approx(both.item(), abs=1e-14)
    assert torch.allclose(gradients(once, weight)[0], gradients(both, weight)[0], atol=1e-14)


# Autograd's rules


@modes
def test_second_backward_computes_the_logits_again(m, gradient, block):
    x, weight, labels = random_batch()
    loss = margin_softmax(x, weight, labels, make_margin("a-softmax", m=m, gradient=gradient), 1.0).loss
    first = gradients(loss, x, weight, retain_graph=True)
    for again in (gradients(loss, x, weight, retain_graph=True), gradients(loss, x, weight)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_alone(wanted):
    x, weight, labels = random_batch()
    margin = make_margin("a-softmax")
    both = gradients(margin_softmax(x, weight, labels, margin, 1.0).loss, x, weight)
    inputs = [x.detach(), weight.detach()]
    inputs[wanted].requires_grad_()
    (alone,) = gradients(margin_softmax(*inputs, labels, margin, 1.0).loss, inputs[wanted])
    assert torch.equal(alone, both[wanted])


def test_double_backward_is_refused():
    x, weight, labels = random_batch()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = scale * margin_softmax(x, weight, labels, make_margin("a-softmax"), 1.0).loss
    (dx,) = gradients(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_weights_changed_before_backward_are_noticed():
    x, weight, labels = random_batch()
    loss = margin_softmax(x, weight, labels, make_margin("a-softmax"), 1.0).loss
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class BigStorages(TorchDispatchMode):
    """Counts the storages of at least so many bytes that operations make; holds them: no address twice."""

    def __init__(self, nbytes):
        super().__init__()
        self.nbytes, self.held = nbytes, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() >= self.nbytes:
                self.held.append(value.detach())
        return result

    def count(self):
        return len({value.untyped_storage().data_ptr() for value in self.held})


@pytest.mark.parametrize("keep", [True, False])
@modes
def test_n_by_c_numbers_once_and_freed_block_by_block(m, gradient, keep, monkeypatch):
    monkeypatch.setattr(last_layer, "CLASS_BLOCK", 50)
    samples, classes, width = 32, 400, 4
    monkeypatch.setattr(last_layer, "_PIECE", 4 * samples * 75)  # so two blocks make a piece
    x, weight, labels = random_batch(samples, classes, width, dtype=torch.float32)
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    with BigStorages(4 * samples * 101) as big, torch.set_grad_enabled(keep):
        loss = margin_softmax(x, weight, labels, margin, 5.0).loss
        if keep:
            kept = [weakref.ref(part.untyped_storage()) for part in loss.grad_fn.kept]
            pieces = {storage().data_ptr(): storage().nbytes() for storage in kept}
            assert list(pieces.values()) == [4 * samples * 100] * 4
            loss.backward()
            assert not any(storage() for storage in kept)
    assert big.count() == 0  # nothing is larger than a piece


# Number types


@pytest.mark.parametrize(("low", "rounding"), [(torch.bfloat16, 2**-9), (torch.float16, 2**-12)])
@modes
def test_autocast_keeps_all_but_the_products_in_float32(m, gradient, low, rounding, block):
    x, weight, labels = random_batch(64, 40, 128, dtype=torch.float32)
    margin = make_margin("a-softmax", m=m, gradient=gradient)
    full = margin_softmax(x, weight, labels, margin, 5.0)
    exact = margin_logits(x.double(), weight.double(), labels, margin, 5.0)
    with torch.autocast("cpu", low):
        logits = margin_logits(x, weight, labels, margin, 5.0)
        out = margin_softmax(x, weight, labels, margin, 5.0)
    error = (logits - exact).abs() / full.norms[:, None]
    targets = F.one_hot(labels, 40).bool()
    assert error[~targets].max() <= 3 * rounding
    assert error[~targets].max() > 1e-5  # the products were low indeed
    assert error[targets].max() <= 1e-6
    assert logits.dtype == out.loss.dtype == torch.float32
    assert torch.equal(out.cosines, full.cosines)
    assert torch.equal(out.norms, full.norms)
    assert out.loss.item() == pytest.approx(full.loss.item(), rel=4 * rounding)
    low_grads, full_grads = (gradients(o.loss, x, weight) for o in (out, full))
    for got, expected in zip(low_grads, full_grads, strict=True):
        assert got.dtype == torch.float32
        assert (got - expected).norm() <= 100 * rounding * expected.norm()


@pytest.mark.parametrize("of_weight", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("of_x", [torch.bfloat16, torch.float16, torch.float32])
def test_inputs_of_any_type_are_computed_in_float32(of_x, of_weight):
    x, weight, labels = random_batch(dtype=torch.float32)
    x, weight = (value.detach().to(t).requires_grad_() for value, t in ((x, of_x), (weight, of_weight)))
    loss = margin_softmax(x, weight, labels, make_margin("a-softmax"), 5.0).loss
    expected = margin_softmax(x.double(), weight.double(), labels, make_margin("a-softmax"), 5.0).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for got, wanted in zip(gradients(loss, x, weight), gradients(expected, x, weight), strict=True):
        assert got.dtype == wanted.dtype
        assert torch.allclose(got, wanted, rtol=0.02, atol=1e-5)


# What a user can get wrong


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 11], r"labels: got 11 with 11 classes · allowed: 0 to 10"),
        ([-1, 3], r"labels: got -1 with 11 classes · allowed: 0 to 10"),
        ([1], r"labels: got shape \(1,\) · allowed: one for each of 2 images"),
    ],
)
def test_wrong_labels(labels, message):
    x, weight, _ = random_batch(samples=2)
    with pytest.raises(UserError, match=message):
        margin_softmax(x, weight, torch.tensor(labels), make_margin("a-softmax"))
