"""Margins alone: ψ, its slope, λ, the derivatives of every target logit, the checks of options."""

import math
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.errors import UserError
from sphereface.losses.margins import MARGINS, check_options, make_margin, multiple_angle

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "margin_inner_product.npz", allow_pickle=False)
DEGREES = range(181)
EVERY_MARGIN = [
    make_margin("modified-softmax"),
    *(make_margin("a-softmax", m=m, gradient=g) for m in (1, 2, 3, 4) for g in ("exact", "caffe")),
]
TRUE_GRADIENT = [margin for margin in EVERY_MARGIN if margin.rows == "normalized"]


def psi_of_angle(theta: float, m: int) -> float:
    """The paper's definition, with its k."""
    k = min(math.floor(m * theta / math.pi + 1e-9), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_psi_at_every_degree(m):
    angles = [math.radians(degree) for degree in DEGREES]
    psi, _ = multiple_angle(torch.tensor([math.cos(a) for a in angles], dtype=torch.float64), m)
    assert psi.tolist() == pytest.approx([psi_of_angle(a, m) for a in angles], abs=1e-13)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_psi_slope_at_every_degree_is_the_derivative(m):
    cos = torch.tensor([math.cos(math.radians(d)) for d in range(1, 180)], dtype=torch.float64)
    h = 1e-7
    numeric = (multiple_angle(cos + h, m)[0] - multiple_angle(cos - h, m)[0]) / (2 * h)
    assert torch.allclose(multiple_angle(cos, m)[1], numeric, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("m", "values"),
    [
        (2, {1.0: (1, 4), 0.0: (-1, 0), -1.0: (-3, 4)}),
        (3, {1.0: (1, 9), 0.5: (-1, 0), 0.0: (-2, 3), -0.5: (-3, 0), -1.0: (-5, 9)}),
        (4, {1.0: (1, 16), 0.0: (-3, 0), -1.0: (-7, 16)}),
    ],
)
def test_psi_and_slope_on_the_borders_of_its_segments(m, values):
    psi, slope = multiple_angle(torch.tensor(list(values), dtype=torch.float64), m)
    assert list(zip(psi.tolist(), slope.tolist(), strict=True)) == list(values.values())


@pytest.mark.parametrize("m", [0, 5, 1.7])
def test_psi_of_another_m_is_an_error(m):
    with pytest.raises(UserError, match=re.escape(f"loss.m: got {m} · allowed: an integer from 1 to 4")):
        multiple_angle(torch.zeros(1), m)


@pytest.mark.parametrize("margin", EVERY_MARGIN, ids=str)
@pytest.mark.parametrize("lam", [0.0, 5.0, 1000.0])
def test_target_logit_never_rises_with_the_angle(margin, lam):
    cos = torch.linspace(0, math.pi, 20001, dtype=torch.float64).cos()
    logit = margin.target(cos, torch.full_like(cos, 30.0), lam).logit
    assert logit.diff().max() <= 1e-12
    assert logit[0] == pytest.approx(30.0)


@pytest.mark.parametrize("margin", TRUE_GRADIENT, ids=str)
@pytest.mark.parametrize("lam", [0.0, 5.0, 892.9])
def test_derivatives_are_those_of_the_logit_in_z_and_r(margin, lam):
    cos = torch.tensor([math.cos(math.radians(d)) for d in DEGREES], dtype=torch.float64)
    norm = torch.linspace(1e-3, 40.0, len(cos), dtype=torch.float64)
    z, r = (cos * norm).requires_grad_(), norm.clone().requires_grad_()
    dz, dr = torch.autograd.grad(margin.target(z / r, r, lam).logit.sum(), (z, r))
    target = margin.target(cos, norm, lam)
    assert torch.allclose(target.d_plain, dz, rtol=1e-9, atol=1e-9)
    assert torch.allclose(target.d_norm, dr, rtol=1e-9, atol=1e-9)
    assert target.d_weight is None


@pytest.mark.parametrize("gradient", ["exact", "caffe"])
def test_lambda_mixes_plain_and_margin(gradient):
    margin = make_margin("a-softmax", m=4, gradient=gradient)
    cos, norm = torch.linspace(-1, 1, 41, dtype=torch.float64), torch.tensor(7.0, dtype=torch.float64)
    psi = torch.tensor([psi_of_angle(math.acos(c), 4) for c in cos.tolist()], dtype=torch.float64)
    for lam in (0.0, 1.0, 5.0, 892.857):
        expected = (lam * norm * cos + norm * psi) / (1 + lam)
        assert torch.allclose(margin.target(cos, norm, lam).logit, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_caffe_coefficients_have_unit_length_as_a_pair(m):
    cos = torch.tensor([math.cos(math.radians(d)) for d in range(1, 180)], dtype=torch.float64)
    norm = torch.full_like(cos, 3.0)
    psi, a = multiple_angle(cos, m)
    b = (psi - cos * a) / norm
    target = make_margin("a-softmax", m=m, gradient="caffe").target(cos, norm, 5.0)
    assert torch.allclose(target.d_plain, (a / (a * a + b * b).sqrt() + 5) / 6, rtol=1e-12)
    assert torch.allclose(target.d_norm / norm, b / (a * a + b * b).sqrt() / 6, rtol=1e-12)
    assert torch.equal(target.d_weight, torch.ones_like(cos))


@pytest.mark.parametrize("margin", EVERY_MARGIN, ids=str)
@pytest.mark.parametrize("lam", [0.0, 5.0])
def test_everything_is_finite_where_there_is_no_angle(margin, lam):
    zero = torch.zeros(1)
    target = margin.target(zero, zero, lam)
    assert target.logit.item() == 0.0
    assert all(value is None or value.isfinite().all() for value in target)


def test_lambda_schedule_is_the_original_s():
    for params, expected in zip(GOLDEN["lambda_schedule.params"], GOLDEN["lambda_schedule.lambda"], strict=True):
        names = ("lambda_base", "lambda_gamma", "lambda_power", "lambda_min")
        margin = make_margin("a-softmax", **dict(zip(names, params.tolist(), strict=True)))
        steps = GOLDEN["lambda_schedule.iteration"].tolist()
        assert [margin.lam(step) for step in steps] == pytest.approx(expected.tolist(), rel=1e-6)


def test_lambda_counts_from_one_and_reaches_its_floor_at_1659():
    margin = make_margin("a-softmax")
    assert margin.lam(1) == pytest.approx(1000 / 1.12)
    assert margin.lam(1658) > 5.0
    assert margin.lam(1659) == 5.0
    assert make_margin("modified-softmax").lam(1) == 0.0


def test_two_class_boundary_is_where_the_paper_has_it():
    """Towards class 1 it is at θ_1 = θ_12/(m + 1), so that the angular margin is (m − 1)/(m + 1) θ_12."""
    between = math.radians(40)
    for m in (1, 2, 3, 4):
        own = between / (m + 1)
        target = make_margin("a-softmax", m=m).target(torch.tensor([math.cos(own)]), torch.ones(1), 0.0)
        assert target.logit.item() == pytest.approx(math.cos(between - own), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "lines"),
    [
        ("a-softmax", {}, []),
        ("a-softmax", {"m": 4, "gradient": "caffe", "lambda_min": "1e-4"}, []),
        ("a-softmax", {"m": 1.7}, [r"loss\.m: got 1\.7 · allowed: an integer from 1 to 4"]),
        ("a-softmax", {"m": 5}, [r"loss\.m: got 5 · allowed: an integer from 1 to 4"]),
        ("a-softmax", {"m": True}, [r"loss\.m: got True · allowed: an integer"]),
        ("a-softmax", {"gradient": "cafe"}, [r"loss\.gradient: got 'cafe' · allowed: one of exact, caffe"]),
        ("a-softmax", {"lambda_min": -1}, [r"loss\.lambda_min: got -1 · allowed: a number of at least 0"]),
        ("a-softmax", {"lambda_mim": 5}, [r"loss\.lambda_mim: unknown key · did you mean 'lambda_min'\?"]),
        ("a-softmx", {}, [r"loss\.name: got 'a-softmx' · did you mean 'a-softmax'\?"]),
        ("a-softmax", {"m": 0, "s": 64}, [r"loss\.s: unknown key · known: .*\bm\b", r"loss\.m: got 0"]),
        ("modified-softmax", {"m": 4}, [r"loss\.m: unknown key"]),
    ],
)
def test_problems_with_options_are_all_named(name, options, lines):
    problems = check_options(name, options)
    assert len(problems) == len(lines), problems
    for line, problem in zip(lines, problems, strict=True):
        assert re.match(line, problem), problem
    if lines:
        with pytest.raises(UserError) as caught:
            make_margin(name, **options)
        assert str(caught.value).splitlines() == problems


def test_options_arrive_typed():
    margin = make_margin("a-softmax", m=3, lambda_min="1e-4")
    assert asdict(margin) == {
        "lambda_base": 1000.0,
        "lambda_gamma": 0.12,
        "lambda_power": 1.0,
        "lambda_min": 1e-4,
        "m": 3,
        "gradient": "exact",
    }


def test_margins_know_their_names():
    assert {name: cls.name for name, cls in MARGINS.items()} == {name: name for name in MARGINS}


def test_options_can_be_checked_without_torch():
    code = "import sys, sphereface.losses.margins as margins; margins.make_margin('a-softmax')"
    code += "; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
