"""Margins alone: ψ, its slope, λ, the derivatives of every target logit, the checks of options."""

import math
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereface.errors import UserError
from sphereface.losses.margins import MARGINS, Margin, make_margin, multiple_angle
from sphereface.losses.margins.adaptive import AdaFace
from sphereface.options import option

from .oracles import EVERY

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "margin_inner_product.npz", allow_pickle=False)
DEGREES = range(181)
every_example = pytest.mark.parametrize("example", EVERY, ids=str)


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


@every_example
@pytest.mark.parametrize("lam", [0.0, 5.0, 892.9])
def test_target_logit_at_every_degree_is_the_paper_s(example, lam):
    angles, norm = [math.radians(degree) for degree in DEGREES], example.norm
    cos = torch.tensor([math.cos(a) for a in angles], dtype=torch.float64)
    target = example.margin.target(cos, torch.full_like(cos, norm), lam)
    assert target.logit.tolist() == pytest.approx([example.target(a, norm, lam) for a in angles], abs=1e-6)
    assert example.margin.scale == example.scale
    assert (example.margin.rows == "plain") == example.plain_rows


def test_every_margin_is_swept():
    assert {example.name for example in EVERY} == set(MARGINS)


@every_example
@pytest.mark.parametrize("lam", [0.0, 5.0, 1000.0])
def test_target_logit_never_rises_with_the_angle(example, lam):
    cos = torch.linspace(0, math.pi, 20001, dtype=torch.float64).cos()
    for norm in (0.1, 5.0, 30.0, 200.0):
        target = example.margin.target(cos, torch.full_like(cos, norm), lam)
        assert target.logit.diff().max() <= 1e-12
        assert target.logit[0] - target.logit[-1] > 0.1
        assert target.d_plain.min() >= -1e-12 or not example.true_gradient  # x is never pushed from its class


@given(
    theta=st.floats(0, math.pi), further=st.floats(0, math.pi), name=st.sampled_from(sorted(MARGINS)), data=st.data()
)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_no_options_make_a_target_logit_rise(theta, further, name, data):
    not_the_target_s = {f.name for f in fields_of(Margin)} | {"l_a", "u_a", "l_m", "u_m"}
    fields = [f for f in fields_of(MARGINS[name]) if f.name not in not_the_target_s]
    margin = make_margin(name, **{f.name: data.draw(values_of(f), label=f.name) for f in fields})
    angles = torch.tensor([theta, min(math.pi, theta + further)], dtype=torch.float64)
    norm = torch.full_like(angles, data.draw(st.floats(0.01, 300), label="norm"))
    near, far = margin.target(angles.cos(), norm, data.draw(st.floats(0, 1000), label="λ")).logit.tolist()
    assert far <= near + 1e-9 * max(1.0, abs(near))


def values_of(field):
    """Anything that the option allows, up to 100 where it has no upper end."""
    limits, kind = field.metadata, str(field.type)
    if limits["choices"]:
        return st.sampled_from(limits["choices"])
    low, high = limits["low"], 100 if limits["high"] is None else limits["high"]
    if kind == "int":
        return st.integers(low, high)
    return st.floats(max(low or 0, 1e-3 if limits["above"] is not None else 0), high)


@pytest.mark.parametrize("example", [e for e in EVERY if e.true_gradient], ids=str)
@pytest.mark.parametrize("lam", [0.0, 5.0, 892.9])
def test_derivatives_are_those_of_the_logit_in_z_and_r(example, lam):
    """By central differences; z = r cos θ at norm r, or s cos θ."""
    cos = torch.tensor([math.cos(math.radians(d)) for d in range(2, 179)], dtype=torch.float64)
    norm, h = torch.linspace(0.9, 1.1, len(cos), dtype=torch.float64) * example.norm, 1e-6

    def logit(z, r):
        length = r if example.scale is None else example.scale
        return example.margin.target(z / length, r, lam).logit

    z = cos * (norm if example.scale is None else example.scale)
    target = example.margin.target(cos, norm, lam)
    dz, dr = (logit(z + h, norm) - logit(z - h, norm)) / (2 * h), (logit(z, norm + h) - logit(z, norm - h)) / (2 * h)
    assert torch.allclose(target.d_plain, dz, rtol=1e-5, atol=2e-5)
    assert torch.allclose(target.d_norm, dr, rtol=1e-5, atol=2e-5)
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


@every_example
@pytest.mark.parametrize("lam", [0.0, 5.0])
def test_everything_is_finite_where_there_is_no_angle(example, lam):
    zero = torch.zeros(1)
    target = example.margin.target(zero, zero, lam)
    assert target.logit.item() == 0.0 or example.scale is not None
    assert all(value is None or value.isfinite().all() for value in target)


@every_example
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_finite_at_cosines_of_one_and_minus_one(example, dtype):
    cos = torch.tensor([1.0, -1.0, 1 - 1e-7, 1e-7 - 1], dtype=dtype)
    target = example.margin.target(cos, torch.full_like(cos, example.norm), 0.0)
    assert all(value is None or (value.isfinite().all() and value.dtype == dtype) for value in target)


def test_slope_of_a_multiplicative_margin_at_the_ends_is_m_squared():
    cos = torch.tensor([1.0, -1.0], dtype=torch.float64)
    for m in (1.0, 2.0, 3.0, 4.0):
        target = make_margin("sphereface-r", m=m, variant="v0", gradient="exact").target(cos, cos, 0.0)
        assert target.d_plain.tolist() == pytest.approx([m * m, m * m], rel=1e-6)


def test_v0_of_sphereface_r_is_the_polynomial_of_a_softmax():
    cos = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    for m in (1, 2, 3, 4):
        target = make_margin("sphereface-r", m=m, variant="v0", gradient="exact", s=1.0).target(cos, cos, 0.0)
        psi, slope = multiple_angle(cos, m)
        assert torch.allclose(target.logit, psi, rtol=0, atol=1e-7)
        assert torch.allclose(target.d_plain, slope, rtol=0, atol=1e-4)


def test_arcface_goes_on_falling_beyond_pi_without_a_jump():
    border = math.pi - 0.5
    cos = torch.tensor([border - 1e-6, border, border + 1e-6, math.pi], dtype=torch.float64).cos()
    target = make_margin("arcface", s=1.0).target(cos, cos, 0.0)
    assert target.logit.tolist() == pytest.approx([-1, -1, -1, math.cos(0.5) - 2], abs=1e-9)
    assert target.d_plain[:3].abs().max() < 1e-5


@pytest.mark.parametrize(
    ("special", "name", "options"),
    [
        ({"m1": 1, "m2": 0.5, "m3": 0}, "arcface", {"m": 0.5}),
        ({"m1": 1, "m2": 0, "m3": 0.35}, "cosface", {"m": 0.35}),
        ({"m1": 1.7, "m2": 0, "m3": 0, "s": 30}, "sphereface-r", {"m": 1.7, "variant": "v0", "gradient": "exact"}),
    ],
)
def test_combined_holds_the_others(special, name, options):
    cos = torch.linspace(-0.999, 0.999, 201, dtype=torch.float64)
    one, other = make_margin("combined", **special).target(cos, cos, 0.0), make_margin(name, **options)
    for got, expected in zip(one, other.target(cos, cos, 0.0), strict=True):
        assert expected is got is None or torch.allclose(got, expected, rtol=1e-6, atol=1e-9)


def test_defaults_are_the_papers():
    named = {name: asdict(make_margin(name)) for name in MARGINS}
    assert (named["cosface"]["s"], named["cosface"]["m"]) == (64.0, 0.35)
    assert (named["arcface"]["s"], named["arcface"]["m"]) == (64.0, 0.5)
    assert [named["combined"][key] for key in ("m1", "m2", "m3")] == [1.0, 0.3, 0.2]
    assert (named["adaface"]["m"], named["adaface"]["h"]) == (0.4, 0.333)
    assert [named["magface"][key] for key in ("l_a", "u_a", "l_m", "u_m", "lambda_g")] == [10, 110, 0.45, 0.8, 35]
    assert (named["sphereface-r"]["s"], named["sphereface-r"]["m"]) == (30.0, 1.5)
    assert [named["sphereface2"][key] for key in ("r", "m", "t", "alpha")] == [40.0, 0.4, 3.0, 0.7]


def test_norm_term_of_magface():
    norm = torch.tensor([1.0, 10.0, 50.0, 110.0, 500.0], dtype=torch.float64, requires_grad=True)
    term = make_margin("magface").norm_term(norm)
    clipped = [10, 10, 50, 110, 110]
    assert term.tolist() == pytest.approx([35 * (1 / a + a / 110**2) for a in clipped])
    (slope,) = torch.autograd.grad(term.sum(), norm)
    assert slope[[0, 4]].tolist() == [0, 0]
    assert slope[2].item() == pytest.approx(35 * (1 / 110**2 - 1 / 50**2))
    assert term.argmin() >= 3  # long features cost least
    assert make_margin("arcface").norm_term(norm) is None


def test_a_subclass_of_adaface_stays_itself_at_other_statistics():
    @dataclass(frozen=True)
    class Own(AdaFace):
        extra: float = option(0.5, low=0)

        def target(self, cos, norm, lam):
            target = super().target(cos, norm, lam)
            return target._replace(logit=target.logit + self.extra)

    cos, norm = torch.tensor([0.3, 0.6]), torch.tensor([10.0, 40.0])
    running = {"norm_mean": torch.tensor(30.0), "norm_std": torch.tensor(5.0)}
    theirs, own = AdaFace(s=16).given(running), Own(s=16, extra=2.0).given(running)
    assert type(own) is Own
    torch.testing.assert_close(own.target(cos, norm, 0.0).logit, theirs.target(cos, norm, 0.0).logit + 2)
    assert not torch.equal(theirs.target(cos, norm, 0.0).logit, AdaFace(s=16).target(cos, norm, 0.0).logit)


def test_adaface_s_statistics_follow_the_batches():
    margin = make_margin("adaface")
    running = {name: torch.tensor(first) for name, first in margin.running.items()}
    margin.observe(torch.tensor([10.0, 20.0, 500.0]), running)  # 500 counts as 100
    assert running["norm_mean"].item() == pytest.approx(0.99 * 20 + 0.01 * 130 / 3)
    assert running["norm_std"].item() == pytest.approx(0.99 * 100 + 0.01 * torch.tensor([10.0, 20, 100]).std().item())
    before = running["norm_std"].item()
    margin.observe(torch.tensor([10.0]), running)
    assert running["norm_std"].item() == before
    for _ in range(2000):
        margin.observe(torch.tensor([10.0, 20.0]), running)
    assert running["norm_mean"].item() == pytest.approx(15.0, abs=1e-3)


def test_adaface_is_arcface_for_bad_and_relaxed_for_good_images():
    cos = torch.linspace(-0.9, 0.9, 50, dtype=torch.float64)
    running = {"norm_mean": torch.tensor(20.0), "norm_std": torch.tensor(1.0)}
    margin = make_margin("adaface").given(running)
    bad = margin.target(cos, torch.full_like(cos, 1.0), 0.0).logit
    good = margin.target(cos, torch.full_like(cos, 90.0), 0.0).logit
    assert torch.allclose(bad, make_margin("arcface", m=0.4).target(cos, cos, 0.0).logit)
    expected = 64 * ((cos.acos() - 0.4).clamp(min=0).cos() - 0.8)
    assert torch.allclose(good, expected)


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
        ("modified-softmax", {"s": 0}, [r"loss\.s: got 0 · allowed: a number above 0 or null"]),
        ("l-softmax", {"m": 2.5}, [r"loss\.m: got 2\.5 · allowed: an integer from 2 to 4"]),
        ("l-softmax", {"m": 1}, [r"loss\.m: got 1 · allowed: an integer from 2 to 4"]),
        ("sphereface-r", {"m": 1.7}, []),
        ("sphereface-r", {"m": 0.9}, [r"loss\.m: got 0\.9 · allowed: a number from 1 to 16"]),
        ("arcface", {"m": 4}, [r"loss\.m: got 4 · allowed: a number from 0 to 3\.14"]),
        ("magface", {"l_a": 200}, [r"loss: got l_a 200, u_a 110, l_m 0\.45, u_m 0\.8 · allowed: l_a below u_a"]),
        ("arcface", {"mhe": -1}, [r"loss\.mhe: got -1 · allowed: a number of at least 0"]),
    ],
)
def test_problems_with_options_are_all_named(name, options, lines):
    problems = []
    try:
        make_margin(name, **options)
    except UserError as error:
        problems = str(error).splitlines()
    assert len(problems) == len(lines), problems
    for line, problem in zip(lines, problems, strict=True):
        assert re.match(line, problem), problem


def test_options_arrive_typed():
    margin = make_margin("a-softmax", m=3, lambda_min="1e-4")
    assert asdict(margin) == {
        "chunk_size": "auto",
        "mhe": 0.0,
        "distributed": "sharded",
        "sample_rate": 1.0,
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
