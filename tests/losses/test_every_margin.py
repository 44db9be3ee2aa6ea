"""Every registered margin through the engine: against loops, finite differences, and inputs that break losses."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sphereface.config import load_config
from sphereface.losses import last_layer
from sphereface.losses.head import MarginHead
from sphereface.losses.margin_softmax import margin_logits, margin_softmax
from sphereface.losses.margins import MARGINS, make_margin
from sphereface.losses.margins.base import ScaledMargin
from sphereface.models import BACKBONES
from sphereface.training.optimizer import SGD
from sphereface.training.parts import parameter_groups

from .oracles import EVERY, SOFTMAX, loop_logits, loop_losses
from .test_margin_softmax import BigStorages, batch_over_angles, gradients

softmax_examples = pytest.mark.parametrize("example", SOFTMAX, ids=str)
NAMES = sorted(MARGINS)


def bias_of(example, classes, dtype=torch.float64):
    if make_margin(example.name, **example.options).bias == "none":
        return None
    return torch.linspace(-1, 1, classes, dtype=dtype).requires_grad_()


def wanted(*values):
    return tuple(value for value in values if value is not None)


def test_every_registered_margin_is_compared_with_an_oracle():
    assert {example.name for example in EVERY} == set(MARGINS)


@pytest.mark.parametrize("lam", [0.0, 5.0])
@softmax_examples
def test_loss_and_logits_equal_the_loops_at_every_degree(example, lam):
    x, weight, labels = batch_over_angles(range(181), example.norm)
    bias = bias_of(example, 5)
    lists = x.tolist(), weight.tolist(), labels.tolist(), example, lam, bias.tolist() if bias is not None else None
    logits = margin_logits(x, weight, labels, example.margin, lam, bias=bias)
    assert torch.allclose(logits, torch.tensor(loop_logits(*lists), dtype=torch.float64), rtol=0, atol=2e-7)
    out = margin_softmax(x, weight, labels, example.margin, lam, bias=bias)
    term = example.margin.norm_term(out.norms)
    beside = 0.0 if term is None else term.mean().item()
    losses = loop_losses(*lists)
    assert out.loss.item() - beside == pytest.approx(math.fsum(losses) / len(losses), abs=1e-8)


@pytest.mark.parametrize("example", [e for e in SOFTMAX if e.true_gradient], ids=str)
def test_gradcheck(example, monkeypatch):
    monkeypatch.setattr(last_layer, "CLASS_BLOCK", 2)
    degrees = [17, 52, 101, 160]  # one in each segment of the multiplicative margins
    x, weight, labels = batch_over_angles(degrees, example.norm)
    bias = bias_of(example, 5)
    inputs = wanted(x, weight, bias)

    def loss(x, weight, bias=None):
        return margin_softmax(x, weight, labels, example.margin, 0.5, bias=bias).loss

    def logits(x, weight, bias=None):
        return margin_logits(x, weight, labels, example.margin, 0.5, bias=bias)

    assert torch.autograd.gradcheck(loss, inputs, atol=1e-6, rtol=1e-4)
    assert torch.autograd.gradcheck(logits, inputs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["sphereface-r", "adaface"])
def test_what_is_detached_moves_the_value_alone(name):
    """For SphereFace-R the whole margin; for AdaFace the quality."""
    example = next(e for e in SOFTMAX if e.name == name and not e.true_gradient)
    x, weight, labels = batch_over_angles([20, 40, 80, 120], example.norm)
    cos = F.normalize(x) @ F.normalize(weight).t()
    if name == "adaface":
        q = (0.333 * (x.detach().norm(dim=1) - 1.0) / (0.7 + 1e-3)).clamp(-1, 1)
        target = (cos.gather(1, labels[:, None])[:, 0].acos() - 0.4 * q).cos() - 0.4 * (1 + q)
    else:
        target = cos.gather(1, labels[:, None])[:, 0]
    logits = 8 * torch.where(F.one_hot(labels, 5).bool(), target[:, None], cos)
    ours = margin_logits(x, weight, labels, example.margin)
    logits = logits + (ours - logits).detach()
    expected = gradients(F.cross_entropy(logits, labels), x, weight)
    got = gradients(margin_softmax(x, weight, labels, example.margin).loss, x, weight)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@softmax_examples
def test_chunks_change_nothing(example, dtype):
    x, weight, labels = batch_over_angles(range(0, 181, 9), example.norm, dtype=dtype)
    bias = bias_of(example, 5, dtype)

    def results(size):
        loss = margin_softmax(x, weight, labels, example.margin, 1.0, bias=bias, chunk_size=size).loss
        return loss, *gradients(loss, *wanted(x, weight, bias))

    tolerance, in_one = 1e-6 if dtype == torch.float32 else 1e-13, results(None)
    for size in (1, 2, 4, 5, 1000):
        for chunked, whole in zip(results(size), in_one, strict=True):
            assert (chunked - whole).abs().max() <= tolerance * max(1.0, whole.abs().max()), size


@pytest.mark.parametrize("example", [e for e in SOFTMAX if e.name in ("softmax", "arcface", "l-softmax")], ids=str)
def test_chunked_logits_never_are_all_there(example):
    samples, classes = 8, 4000
    x = torch.randn(samples, 2).requires_grad_()
    weight, labels = torch.randn(classes, 2).requires_grad_(), torch.arange(samples)
    bias = bias_of(example, classes, torch.float32)
    with BigStorages(4 * samples * 1500) as big:  # more than W, less than the logits
        loss = margin_softmax(x, weight, labels, example.margin, 5.0, bias=bias, chunk_size=500).loss
        loss.backward()
    assert big.count() == 0


@softmax_examples
def test_autocast_keeps_the_target_in_float32(example):
    x, weight, labels = batch_over_angles(range(5, 176, 10), example.norm, dtype=torch.float32)
    bias = bias_of(example, 5, torch.float32)
    exact = margin_logits(x.double(), weight.double(), labels, example.margin, 5.0, bias=bias)
    with torch.autocast("cpu", torch.bfloat16):
        logits = margin_logits(x, weight, labels, example.margin, 5.0, bias=bias)
        loss = margin_softmax(x, weight, labels, example.margin, 5.0, bias=bias).loss
    assert logits.dtype == loss.dtype == torch.float32
    longest = exact.abs().max()
    targets = F.one_hot(labels, 5).bool()
    assert (logits - exact)[targets].abs().max() <= 3e-6 * longest
    assert (logits - exact)[~targets].abs().max() <= 3 * 2**-9 * max(longest, weight.norm(dim=1).max() * example.norm)
    assert all(grad.isfinite().all() for grad in gradients(loss, *wanted(x, weight, bias)))


@pytest.mark.parametrize("name", [name for name in NAMES if make_margin(name).rows == "normalized"])
@pytest.mark.parametrize(("degrees", "of_bfloat16"), [(10, 0.04), (45, 0.02), (90, 0.008)])
def test_error_of_the_gradients_against_float64(name, degrees, of_bfloat16):
    """In every type also where p is 1 but for 1e-9, which float16 itself cannot hold."""
    generator = torch.Generator().manual_seed(0)
    weight, labels = torch.randn(40, 128, generator=generator), torch.arange(64) % 40
    unit, aside = F.normalize(weight)[labels], torch.randn(64, 128, generator=generator)
    aside = F.normalize(aside - (aside * unit).sum(1, keepdim=True) * unit)
    x = 20 * (math.cos(math.radians(degrees)) * unit + math.sin(math.radians(degrees)) * aside)

    def run(dtype, low):
        head = MarginHead(128, 40, make_margin(name)).to(dtype).eval()
        with torch.no_grad():
            head.weight.copy_(weight)
        own = x.to(dtype).requires_grad_()
        with torch.autocast("cpu", low or torch.bfloat16, enabled=low is not None):
            return gradients(head(own, labels, 5.0).loss, own, head.weight)

    exact = run(torch.float64, None)
    for low, allowed in ((None, 5e-5), (torch.bfloat16, of_bfloat16), (torch.float16, of_bfloat16 / 4)):
        for got, expected in zip(run(torch.float32, low), exact, strict=True):
            assert (got - expected).norm() <= allowed * expected.norm()


# Inputs that break losses


@st.composite
def batches(draw):
    """Zero and tiny embeddings, zero and equal rows, cos = ±1, one class, one sample, logits up to 1e4."""
    samples, classes, width = (draw(st.integers(1, 4)) for _ in range(3))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    weight = torch.randn(classes, width, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (samples,), generator=generator)
    x = torch.randn(samples, width, generator=generator, dtype=dtype)
    for j in range(classes):
        kind = draw(st.sampled_from(["as drawn", "zero", "first", "opposite of first", "axis", "long"]))
        change = {"zero": 0 * weight[j], "first": weight[0], "opposite of first": -weight[0], "long": 1e3 * weight[j]}
        change["axis"] = F.one_hot(torch.tensor(0), width).to(dtype)
        weight[j] = change.get(kind, weight[j])
    for i in range(samples):
        kind = draw(st.sampled_from(["as drawn", "zero", "tiny", "its row", "opposite", "same as first"]))
        row = weight[labels[i]]
        change = {"zero": 0 * x[i], "tiny": 1e-13 * x[i], "its row": row, "opposite": -row, "same as first": x[0]}
        x[i] = change.get(kind, x[i]) * draw(st.sampled_from([1.0, 1e-6, 1e4]))
    return x.requires_grad_(), weight.requires_grad_(), labels


DEFAULTS = [{"name": name} for name in NAMES]
HUGE = [{"name": name, "s": 1e4} for name in NAMES if isinstance(make_margin(name), ScaledMargin)]
SETTINGS = [{"name": e.name, **e.options} for e in EVERY] + DEFAULTS + HUGE + [{"name": "sphereface2", "r": 1e4}]


PARTS = {"batch": batches(), "lam": st.sampled_from([0.0, 5.0]), "chunk_size": st.sampled_from([None, 1])}
draws = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@settings(draws, max_examples=4)
@given(**PARTS)
def test_always_finite(options, batch, lam, chunk_size):
    assert_finite(options, batch, lam, chunk_size)


@pytest.mark.slow
@pytest.mark.parametrize("options", SETTINGS, ids=str)
@settings(draws, max_examples=100)
@given(**PARTS)
def test_always_finite_of_many_draws(options, batch, lam, chunk_size):
    assert_finite(options, batch, lam, chunk_size)


def assert_finite(options, batch, lam, chunk_size):
    x, weight, labels = batch
    margin = make_margin(**options, chunk_size=chunk_size, mhe=0.5)
    head = MarginHead(x.shape[1], len(weight), margin).to(x.dtype)
    with torch.no_grad():
        head.weight.copy_(weight)
    out = head(x, labels, lam)
    assert out.loss.isfinite()
    for grad in gradients(out.loss, x, *head.parameters()):
        assert grad.isfinite().all()


HAZARDS = {
    "zero embedding": ([[0.0, 0.0]], [[1.0, 2.0], [3.0, -1.0]], [0]),
    "zero rows": ([[1.0, 2.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [0, 2]),
    "cos = 1": ([[2.0, 0.0], [0.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]], [0, 1]),
    "cos = -1": ([[2.0, 0.0], [0.0, 3.0]], [[-1.0, 0.0], [0.0, -1.0]], [0, 1]),
    "duplicates": ([[1.0, 2.0]] * 3, [[0.5, -1.0]] * 3, [1, 1, 1]),
    "one class": ([[1.0, 2.0], [-3.0, 1.0]], [[0.5, -1.0]], [0, 0]),
    "one sample": ([[1.0, 2.0]], [[0.5, -1.0], [1.0, 1.0]], [1]),
    "logits of 1e4": ([[1e4, 0.0], [-1e4, 0.0]], [[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]], [1, 1]),
}


@pytest.mark.parametrize("hazard", HAZARDS)
@pytest.mark.parametrize("options", DEFAULTS + HUGE, ids=str)
def test_each_hazard_leaves_loss_and_gradients_finite(options, hazard):
    """What the draws above may miss: every hazard for every margin."""
    for chunk_size, lam in itertools.product([None, 1], [0.0, 5.0]):
        x, weight, labels = (torch.tensor(values) for values in HAZARDS[hazard])
        head = MarginHead(2, len(weight), make_margin(**options, chunk_size=chunk_size, mhe=0.5))
        with torch.no_grad():
            head.weight.copy_(weight)
        out = head(x.requires_grad_(), labels, lam)
        assert out.loss.isfinite(), (chunk_size, lam)
        assert all(grad.isfinite().all() for grad in gradients(out.loss, x, *head.parameters())), (chunk_size, lam)


# From YAML to a training step


@pytest.mark.parametrize("name", NAMES)
def test_two_training_steps_from_a_configuration(name):
    config = load_config(
        "demo.yaml", [f"loss.name={name}", "loss.mhe=0.1", "loss.chunk_size=3"], losses=MARGINS, backbones=BACKBONES
    )
    assert config.loss.name == config.to_dict()["loss"]["name"] == name
    head = MarginHead(8, 5, config.loss, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = torch.nn.Linear(6, 8)
    optimizer = SGD(parameter_groups({"model": net, "head": head}, {}), lr=0.003, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(20, 6, generator=generator), torch.arange(20) % 5
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        out = head(net(images), labels, config.loss.lam(1))
        out.loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in (*net.parameters(), *head.parameters()))
        optimizer.step()
        losses.append(out.loss.item())
    assert losses[2] < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_equal_logits_are_no_correct_answer(name):
    """A network that collapsed tells nothing apart: its accuracy is not 100 %."""
    head = MarginHead(8, 100, make_margin(name), generator=torch.Generator().manual_seed(0)).eval()
    labels = torch.arange(16)
    assert not head(torch.zeros(16, 8), labels, 5.0).correct.any()  # embeddings of no length
    with torch.no_grad():
        head.weight.copy_(head.weight[:1].expand(100, 8))
    embeddings = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    assert not head(embeddings, labels, 5.0).correct.any()  # one direction for all classes
    with torch.no_grad():
        head.weight[3] += 0.5 * embeddings[3] / embeddings[3].norm()
    assert head(embeddings, labels, 5.0).correct.nonzero().flatten().tolist() == [3]
