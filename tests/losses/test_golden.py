"""The last layer against the numbers of the original code (tests/golden/margin_inner_product.npz)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.losses.head import MarginHead
from sphereface.losses.margin_softmax import margin_logits
from sphereface.losses.margins import make_margin

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "margin_inner_product.npz", allow_pickle=False)
CASES = GOLDEN["cases"].tolist()
M = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4}


def load(case):
    arrays = {key[len(case) + 1 :]: GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{case}.")}
    names = ("lambda_base", "lambda_gamma", "lambda_power", "lambda_min")
    options = dict(zip(names, arrays["lambda_params"].tolist(), strict=True))
    return arrays, {"m": M[case.split(".")[0]], **options}


def head_of(arrays, margin):
    classes, width = arrays["weight_before"].shape
    head = MarginHead(width, classes, margin)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(arrays["weight_before"]))
    return head


def assert_near(got, expected, rtol, atol):
    """Equal within tolerance where the original is a number, finite where it is NaN."""
    got = got.detach().numpy()
    assert np.isfinite(got).all()
    excess = np.abs(got - expected) - (atol + rtol * np.abs(expected))
    assert np.nanmax(excess) <= 0


@pytest.mark.parametrize("case", CASES)
def test_caffe_gradient_is_the_original_s(case):
    arrays, options = load(case)
    margin = make_margin("a-softmax", gradient="caffe", **options)
    lam = margin.lam(arrays["iteration"].item())
    assert lam == pytest.approx(arrays["lambda"].item(), rel=1e-6)
    head = head_of(arrays, margin)
    head.renormalize()
    assert_near(head.weight, arrays["weight_after"], 0, 5e-7)
    x = torch.from_numpy(arrays["x"]).requires_grad_()
    top = margin_logits(x, head.weight, torch.from_numpy(arrays["label"]), margin, lam)
    lengths = np.linalg.norm(arrays["x"], axis=1, keepdims=True)
    assert_near(top, arrays["top"], 1e-5, 1e-5 * np.maximum(1, lengths))
    top.backward(torch.from_numpy(arrays["top_diff"]))
    assert_near(x.grad, arrays["bottom_diff"], 1e-5, 5e-5)
    assert_near(head.weight.grad, arrays["weight_diff"], 1e-5, 5e-5)


@pytest.mark.parametrize("case", CASES)
def test_exact_gradient_has_the_same_forward_on_weights_of_any_length(case):
    arrays, options = load(case)
    margin = make_margin("a-softmax", gradient="exact", **options)
    head = head_of(arrays, margin)
    x, labels = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["label"])
    top = margin_logits(x, head.weight, labels, margin, margin.lam(arrays["iteration"].item()))
    assert_near(top, arrays["top"], 1e-5, 1e-5 * np.maximum(1, np.linalg.norm(x, axis=1, keepdims=True)))


def test_holes_of_the_original_are_where_x_is_zero():
    arrays, _ = load("QUADRUPLE.edge")
    zero_rows = (arrays["x"] == 0).all(1)
    assert zero_rows.sum() == 1
    assert (np.isnan(arrays["bottom_diff"]).any(1) == zero_rows).all()
