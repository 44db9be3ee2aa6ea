"""The head: its weights, what it does to them, what it refuses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sphereface.errors import UserError
from sphereface.losses.head import HeadOutput, MarginHead
from sphereface.losses.margins import make_margin
from sphereface.training.parts import parameter_groups

EXACT, CAFFE = (make_margin("a-softmax", gradient=gradient) for gradient in ("exact", "caffe"))


def batch(samples=8, width=16, classes=10):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, width, generator=generator, requires_grad=True)
    return x, torch.randint(classes, (samples,), generator=generator)


def test_weights_start_as_caffe_s_xavier():
    weight = MarginHead(512, 400, EXACT, generator=torch.Generator().manual_seed(0)).weight.detach()
    bound = math.sqrt(3 / 512)
    assert weight.shape == (400, 512)
    assert 0.999 * bound < weight.max() <= bound
    assert -bound <= weight.min() < -0.999 * bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert weight.mean().abs() < 1e-3


def test_same_generator_same_weights():
    first, second = (MarginHead(4, 3, EXACT, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("margin", [EXACT, CAFFE], ids=["exact", "caffe"])
def test_output_and_gradients(margin):
    head = MarginHead(16, 10, margin)
    x, labels = batch()
    out = head(x, labels, 5.0)
    assert isinstance(out, HeadOutput)
    assert (out.loss.shape, out.correct.shape, out.cosines.shape, out.norms.shape) == ((), (8,), (8,), (8,))
    out.loss.backward()
    assert head.weight.grad.abs().sum(1).min() > 0
    assert x.grad.abs().sum(1).min() > 0


def test_caffe_renormalizes_stored_rows_in_training_only():
    head = MarginHead(16, 10, CAFFE)
    with torch.no_grad():
        head.weight[3] = 0
    before = head.weight.detach().clone()
    x, labels = batch()
    evaluated = head.eval()(x, labels, 5.0).loss
    assert torch.equal(head.weight, before)
    trained = head.train()(x, labels, 5.0).loss
    assert torch.allclose(head.weight, F.normalize(before), atol=1e-6)
    assert (head.weight[3] == 0).all()
    assert trained.item() == pytest.approx(evaluated.item(), abs=1e-5)


def test_exact_leaves_stored_rows_alone():
    head = MarginHead(16, 10, EXACT)
    before = head.weight.detach().clone()
    head(*batch(), 5.0).loss.backward()
    assert torch.equal(head.weight, before)


@pytest.mark.parametrize("margin", [EXACT, CAFFE], ids=["exact", "caffe"])
def test_training_separates_the_classes(margin):
    head = MarginHead(8, 5, margin, generator=torch.Generator().manual_seed(0))
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.arange(40) % 5
    optimizer = torch.optim.SGD([head.weight, x], lr=1.0, momentum=0.9)
    first = head(x, labels, margin.lam(1)).loss.item()
    for step in range(1, 201):
        optimizer.zero_grad()
        out = head(x, labels, margin.lam(step))
        out.loss.backward()
        optimizer.step()
    assert out.correct.all()
    assert out.loss.item() < first / 20


def test_state_holds_the_weights_and_nothing_else():
    assert list(MarginHead(4, 3, CAFFE).state_dict()) == ["weight"]


def test_softmax_has_a_bias_which_the_optimiser_knows_by_its_name():
    head = MarginHead(4, 3, make_margin("softmax"))
    assert list(head.state_dict()) == ["weight", "bias"]
    assert (head.bias == 0).all()
    groups = {len(group["params"][0].shape): group["decay_mult"] for group in parameter_groups({"head": head}, {})}
    assert groups == {2: 1.0, 1: 0.0}


def test_softmax_is_a_linear_layer_with_cross_entropy():
    head, (x, labels) = MarginHead(16, 10, make_margin("softmax")), batch()
    nn.init.normal_(head.bias)
    book = F.cross_entropy(F.linear(x, head.weight, head.bias), labels)
    ours = head(x, labels).loss
    assert ours.item() == pytest.approx(book.item(), rel=1e-6)
    for loss in (ours, book):
        loss.backward()
    halves = [x.grad / 2, head.weight.grad / 2, head.bias.grad / 2]
    again = torch.autograd.grad(head(x, labels).loss, (x, head.weight, head.bias))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(halves, again, strict=True))


def test_adaface_s_statistics_are_moved_in_training_and_saved():
    head, (x, labels) = MarginHead(16, 10, make_margin("adaface")), batch()
    head.eval()(x, labels)
    assert (head.norm_mean.item(), head.norm_std.item()) == (20.0, 100.0)
    head.train()(x, labels)
    norms = x.detach().norm(dim=1)
    assert head.norm_mean.item() == pytest.approx(0.99 * 20 + 0.01 * norms.mean().item())
    assert head.norm_std.item() == pytest.approx(0.99 * 100 + 0.01 * norms.std().item())
    other = MarginHead(16, 10, make_margin("adaface"))
    other.load_state_dict(head.state_dict())
    assert other.eval()(x, labels).loss.item() == head.eval()(x, labels).loss.item()
    assert not any(value.requires_grad for value in head.buffers())


def test_adaface_sees_the_norms_of_all_ranks():
    class OfTwoRanks(MarginHead):
        def norms_of_all_ranks(self, norms):
            return torch.cat([norms, 3 * norms])

    head, (x, labels) = OfTwoRanks(16, 10, make_margin("adaface")), batch()
    head(x, labels)
    assert head.norm_mean.item() == pytest.approx(0.99 * 20 + 0.01 * 2 * x.detach().norm(dim=1).mean().item())


def test_embeddings_of_another_width():
    head = MarginHead(16, 10, EXACT)
    with pytest.raises(UserError, match=r"head: got embeddings of shape \(8, 12\) · allowed: \(N, 16\)"):
        head(*batch(width=12))


@pytest.mark.parametrize(("width", "classes"), [(16, 0), (0, 10)])
def test_no_classes_or_no_width(width, classes):
    with pytest.raises(UserError, match=rf"head: got {classes} classes of {width} numbers"):
        MarginHead(width, classes, EXACT)


def test_repr_says_what_it_is():
    assert "16 -> 10" in repr(MarginHead(16, 10, EXACT))
    assert "m=4" in repr(MarginHead(16, 10, EXACT))
