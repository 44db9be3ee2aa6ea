"""SphereFace2's engine against loops and finite differences."""

import math

import pytest
import torch

from sphereface.losses import binary_margin as engine
from sphereface.losses.binary_margin import binary_margin
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin

from .test_margin_softmax import BigStorages, batch_over_angles, gradients, random_batch


def softplus(value):
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def loop_loss(x, weight, bias, labels, *, r, m, t, alpha, loss_weight):
    """The paper's binary losses, summed term by term."""
    total = 0.0
    for xi, yi in zip(x, labels, strict=True):
        for j, wj in enumerate(weight):
            cos = sum(a * b for a, b in zip(xi, wj, strict=True)) / (math.hypot(*xi) * math.hypot(*wj))
            g = 2 * ((max(-1.0, min(1.0, cos)) + 1) / 2) ** t - 1
            if j == yi:
                total += alpha / r * softplus(-(r * (g - m) + bias))
            else:
                total += (1 - alpha) / r * softplus(r * (g + m) + bias)
    return loss_weight * total / len(x)


def bias_of(value=-0.7, dtype=torch.float64):
    return torch.tensor([value], dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("block", [2, 1024])
@pytest.mark.parametrize(("r", "t", "m"), [(40.0, 3.0, 0.4), (8.0, 2.5, 0.2), (30.0, 1.0, 0.0)])
def test_loss_equals_the_loops_at_every_degree(r, t, m, block, monkeypatch):
    monkeypatch.setattr(engine, "BINARY_BLOCK", block)
    x, weight, labels = batch_over_angles(range(181))
    options = {"r": r, "t": t, "m": m, "alpha": 0.6, "loss_weight": 3.0}
    out = binary_margin(x, weight, bias_of(), labels, make_margin("sphereface2", **options))
    expected = loop_loss(x.tolist(), weight.tolist(), -0.7, labels.tolist(), **options)
    assert out.loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 2, None])
@pytest.mark.parametrize("t", [1.0, 2.5, 3.0])
def test_gradcheck(t, chunk_size):
    x, weight, labels = batch_over_angles(range(3, 180, 16))
    margin = make_margin("sphereface2", r=8.0, t=t)
    assert torch.autograd.gradcheck(
        lambda x, w, b: binary_margin(x, w, b, labels, margin, chunk_size=chunk_size).loss, (x, weight, bias_of())
    )


def test_detached_takes_one_for_the_slope_of_g():
    x, weight, labels = random_batch()
    b = bias_of()
    margin = make_margin("sphereface2", r=8.0, gradient="detached", loss_weight=1.0)
    cos = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(weight).t()
    g = 2 * ((cos.detach() + 1) / 2) ** 3 - 1
    sign = 2.0 * torch.nn.functional.one_hot(labels, 11).double() - 1
    logits = 8 * (cos + (g - sign * 0.4 - cos).detach()) + b
    terms = torch.nn.functional.softplus(-sign * logits, threshold=50) * (0.5 + 0.2 * sign)
    book = terms.sum() / 8 / len(x)
    ours = binary_margin(x, weight, b, labels, margin).loss
    assert ours.item() == pytest.approx(book.item(), rel=1e-12)
    for got, expected in zip(gradients(ours, x, weight, b), gradients(book, x, weight, b), strict=True):
        assert torch.allclose(got, expected, rtol=1e-10, atol=1e-14)


def test_a_second_backward_and_a_scaled_one():
    x, weight, labels = random_batch()
    loss = binary_margin(x, weight, bias_of(), labels, make_margin("sphereface2")).loss
    once = gradients(loss, x, weight, retain_graph=True)
    thrice = gradients(3 * loss, x, weight)
    assert all(torch.allclose(3 * a, b, rtol=1e-14) for a, b in zip(once, thrice, strict=True))


def test_correct_is_the_highest_cosine():
    x, weight, labels = random_batch(samples=200)
    out = binary_margin(x, weight, bias_of(), labels, make_margin("sphereface2"))
    plain = x @ torch.nn.functional.normalize(weight).t()
    assert torch.equal(out.correct, plain.argmax(1) == labels)
    assert 0 < out.correct.sum() < 200


def test_no_buffer_of_all_logits():
    samples, classes = 8, 4000
    x, weight = torch.randn(samples, 2).requires_grad_(), torch.randn(classes, 2).requires_grad_()
    with BigStorages(4 * samples * 1500) as big:
        margin = make_margin("sphereface2")
        binary_margin(x, weight, bias_of(dtype=torch.float32), torch.arange(samples), margin).loss.backward()
    assert big.count() == 0


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 10572, 1_000_000])
@pytest.mark.parametrize("m", [0.0, 0.4, 1.5])
def test_first_bias_balances_the_two_sides_at_90_degrees(classes, m):
    margin = make_margin("sphereface2", m=m)
    b, g = margin.first_bias(classes), 2 * 0.5**3 - 1
    positive = math.log(0.7) - softplus(40 * (g - m) + b)
    negative = math.log(0.3 * (classes - 1)) - softplus(-(40 * (g + m) + b))
    assert positive == pytest.approx(negative, abs=1e-4)


def test_first_bias_of_extreme_options():
    assert make_margin("sphereface2").first_bias(1) == 0.0  # no negatives
    balanced = make_margin("sphereface2", r=1e4, alpha=0.5).first_bias(2)
    assert math.isfinite(balanced)


def test_head_learns_one_bias_for_all():
    margin = make_margin("sphereface2")
    head = MarginHead(6, 11, margin)
    assert head.bias.shape == (1,)
    assert head.bias.item() == pytest.approx(margin.first_bias(11))
    x, _, labels = random_batch(dtype=torch.float32)
    head(x, labels).loss.backward()
    assert head.bias.grad.abs() > 0


def test_autocast_stays_near_float32():
    x, weight, labels = random_batch(64, 40, 128, dtype=torch.float32)
    b, margin = bias_of(dtype=torch.float32), make_margin("sphereface2")
    full = binary_margin(x, weight, b, labels, margin).loss
    with torch.autocast("cpu", torch.bfloat16):
        low = binary_margin(x, weight, b, labels, margin).loss
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(full.item(), rel=0.02)
    for got, expected in zip(gradients(low, x, weight), gradients(full, x, weight), strict=True):
        assert (got - expected).norm() <= 0.2 * expected.norm()
