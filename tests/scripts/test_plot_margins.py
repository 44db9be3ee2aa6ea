"""The images of the margins: their numbers against literals, loops and closed forms; that they get drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from scripts import plot_margins
from sphereface.geometry.boundaries import (
    MANY_CLASSES,
    TWO_CLASSES,
    decision_regions,
    many_class_extent,
    region_edges,
    swept_extent,
    two_class_extent,
)
from sphereface.geometry.curves import every_curve, margin_curves
from sphereface.geometry.digits import LOSSES, Learned, Loss, learn
from sphereface.geometry.figures import alignment, features_figure, margins_figure
from sphereface.losses.margins import MARGINS, make_margin

DEGREES = range(181)


def psi(degrees, m):
    """(−1)^k cos(mθ) − 2k by a loop over the segments [kπ/m, (k + 1)π/m]."""
    for k in range(m):
        if degrees * m <= (k + 1) * 180:
            return (-1) ** k * math.cos(math.radians(m * degrees)) - 2 * k
    raise AssertionError(degrees)


# (registry name, label) → the formula of the paper, at θ in degrees, over the scale
FORMULAS = {
    ("softmax", "default"): lambda d: math.cos(math.radians(d)),
    ("modified-softmax", "default"): lambda d: math.cos(math.radians(d)),
    ("a-softmax", "m = 1"): lambda d: psi(d, 1),
    ("a-softmax", "m = 2"): lambda d: psi(d, 2),
    ("a-softmax", "m = 3"): lambda d: psi(d, 3),
    ("a-softmax", "m = 4"): lambda d: psi(d, 4),
    ("a-softmax", "m = 4, λ = 5"): lambda d: (5 * math.cos(math.radians(d)) + psi(d, 4)) / 6,
    ("l-softmax", "m = 3"): lambda d: psi(d, 3),
    ("sphereface-r", "v1, m = 1.5"): lambda d: math.cos(min(1.5 * math.radians(d), math.pi)),
    ("sphereface-r", "v0, m = 1.5"): lambda d: (
        math.cos(1.5 * math.radians(d)) if d <= 120 else -math.cos(1.5 * math.radians(d)) - 2
    ),
    ("cosface", "m = 0.35"): lambda d: math.cos(math.radians(d)) - 0.35,
    ("arcface", "m = 0.5"): lambda d: (
        math.cos(math.radians(d) + 0.5) if math.radians(d) + 0.5 < math.pi else -math.cos(math.radians(d) + 0.5) - 2
    ),
    ("adaface", "quality −1"): lambda d: (
        math.cos(math.radians(d) + 0.4) if math.radians(d) + 0.4 < math.pi else -math.cos(math.radians(d) + 0.4) - 2
    ),
    ("adaface", "quality 0"): lambda d: math.cos(math.radians(d)) - 0.4,
    ("adaface", "quality 1"): lambda d: math.cos(max(math.radians(d) - 0.4, 0)) - 0.8,
    ("magface", "‖x‖ = 110"): lambda d: (
        math.cos(math.radians(d) + 0.8) if math.radians(d) + 0.8 < math.pi else -math.cos(math.radians(d) + 0.8) - 2
    ),
    ("sphereface2", "t = 3"): lambda d: 2 * ((math.cos(math.radians(d)) + 1) / 2) ** 3 - 1 - 0.4,
}


@pytest.mark.parametrize(("name", "label"), FORMULAS)
def test_curves_are_the_papers_at_every_degree(name, label):
    (curve,) = [curve for curve in margin_curves(name, points=181) if curve.label == label]
    assert curve.logit == pytest.approx([FORMULAS[name, label](d) for d in DEGREES], abs=1e-9)
    assert np.degrees(curve.theta) == pytest.approx(list(DEGREES))


def test_every_margin_is_drawn_and_falls_and_its_derivative_is_that_of_its_curve():
    curves = every_curve(points=3601)
    assert set(curves) == set(MARGINS)
    for drawn in curves.values():
        for curve in drawn:
            assert (np.diff(curve.logit) <= 1e-12).all()
            middle = (curve.slope[1:] + curve.slope[:-1]) / 2
            assert np.diff(curve.logit) / np.diff(curve.theta) == pytest.approx(middle, abs=4e-3)


def test_the_other_logit_of_the_binary_loss_has_its_margin_too():
    curve = margin_curves("sphereface2", points=3)[1]
    assert curve.other == pytest.approx([1.4, 2 * 0.125 - 1 + 0.4, -0.6])
    assert margin_curves("cosface", points=3)[0].other == pytest.approx([1, 0, -1])


@pytest.mark.parametrize(
    ("m", "degrees", "edges"),
    [(2, 90, (30, 90)), (3, 90, (22.5, 45)), (4, 90, (18, 30)), (4, 160, (32, 40)), (2, 120, (40, 80))],
)
def test_edges_of_a_region_solve_their_equation_and_are_where_the_engine_has_them(m, degrees, edges):
    assert np.degrees(region_edges(m, math.radians(degrees))) == pytest.approx(edges)
    around = np.arange(36000) / 100 + 0.005  # W_1 at 0°, W_2 at `degrees`; each step 0.01°
    x = torch.from_numpy(np.stack([np.cos(np.radians(around)), np.sin(np.radians(around))], axis=1))
    weight = torch.tensor([[1.0, 0.0], [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]])
    inside = around[decision_regions(x, weight.double(), make_margin("a-softmax", m=m))[0].numpy()]
    assert inside[inside < 180].max() == pytest.approx(edges[0], abs=0.02)
    assert 360 - inside[inside > 180].min() == pytest.approx(edges[1], abs=0.02)


def test_softmax_divides_the_plane_by_a_line_that_lengths_and_bias_move():
    weight, bias = torch.tensor([[2.0, 0.0], [-1.0, 0.0]]).double(), torch.tensor([0.0, 0.6]).double()
    x = torch.tensor([[0.19, 5.0], [0.21, -5.0]]).double()  # 2x > −x + 0.6 where x > 0.2
    regions = decision_regions(x, weight, make_margin("softmax"), bias=bias)
    assert regions.tolist() == [[False, True], [True, False]]


def test_the_smallest_m_is_2_plus_root_3_for_two_classes_and_3_for_many():
    assert pytest.approx(2 + 3**0.5, abs=1e-15) == TWO_CLASSES
    assert MANY_CLASSES == 3
    for extent, literal in ((two_class_extent, 3.7320508075688772), (many_class_extent, 3.0)):
        low, high = 2.0, 6.0
        for _ in range(60):  # bisection of intra = inter
            middle = (low + high) / 2
            intra, inter = extent(middle, 0.7)
            low, high = (middle, high) if intra > inter else (low, middle)
        assert low == pytest.approx(literal, abs=1e-12)


@pytest.mark.parametrize("m", [2.0, 3.0, 3.5, 4.0, 6.5])
def test_a_sweep_of_the_circle_finds_what_the_formulas_say(m):
    spacing = 2 * math.pi / 7200
    for degrees in (40, 90, 170):
        swept = swept_extent(m, np.array([0.3, 0.3 + math.radians(degrees)]))
        assert swept == pytest.approx(two_class_extent(m, math.radians(degrees)), abs=2 * spacing)
    for classes in (3, 8):
        centres = np.arange(classes) * 2 * math.pi / classes
        assert swept_extent(m, centres) == pytest.approx(many_class_extent(m, 2 * math.pi / classes), abs=2 * spacing)


def test_on_either_side_of_the_smallest_m_the_sweep_decides():
    for m, holds in ((3.70, False), (3.77, True)):
        intra, inter = swept_extent(m, np.array([0.0, 1.5]))
        assert (intra < inter) == holds


@pytest.mark.parametrize(("m", "holds"), [(3.0, False), (4.0, True)])
def test_on_the_sphere_the_corners_of_a_tetrahedron_need_more_than_3(m, holds):
    """The paper argues in the plane; what docs/losses.md says of the sphere stands here."""
    weight = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    x = torch.randn(40000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    regions = decision_regions(x, weight, make_margin("sphereface-r", m=m, variant="v0"))
    own, other = x[regions[0]], x[regions[1:].any(0)]
    assert ((own @ own.T).min() > (own @ other.T).max()) == holds


def test_numbers_in_the_titles_are_angles_of_the_features():
    at = np.radians([10, -10, 80, 100, 170, 190])
    features = np.stack([np.cos(at), np.sin(at)], axis=1).astype(np.float32) * [[1], [5], [2], [2], [3], [3]]
    learned = Learned("", features.astype(np.float32), np.array([0, 0, 1, 1, 2, 2]), 1.0)
    assert learned.spread == pytest.approx(10, abs=1e-3)
    assert learned.gap == pytest.approx(90, abs=1e-3)


def test_alignment_turns_and_mirrors_back():
    rng = np.random.default_rng(1)
    centres, turn = rng.normal(size=(6, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert centres @ turn @ alignment(centres @ turn, centres) == pytest.approx(centres)


def test_learning_is_repeatable_separates_and_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    first, again = (learn(Loss("", "a-softmax", {"m": 4}), 2, steps=150, seed=3) for _ in range(2))
    assert (first.features == again.features).all()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.features.shape == (271, 2)  # a quarter of the 1,083 images of 0 to 5
    assert first.accuracy > 0.8


def test_the_margin_makes_classes_compact():
    plain, annealed = (learn(loss, 3, steps=100) for loss in (LOSSES[1], LOSSES[3]))
    assert (plain.label, annealed.label) == ("modified softmax", "A-Softmax, m = 4")
    assert annealed.spread < 0.8 * plain.spread
    assert min(plain.accuracy, annealed.accuracy) > 0.93


def test_figures_have_a_panel_for_everything():
    titles = [axes.get_title() for axes in margins_figure(every_curve(points=5)).axes]
    assert {*MARGINS, "side by side"} <= set(titles)
    results = [[learn(loss, dim, steps=1) for loss in LOSSES[:5]] for dim in (2, 3)]
    titles = [axes.get_title().strip() for axes in features_figure(*results).axes]
    assert all(titles.count(loss.label) == 2 for loss in LOSSES[:5])


def test_program_draws_all_four(tmp_path, capsys):
    assert plot_margins.main(["--output", str(tmp_path / "new"), "--steps", "3"]) == 0
    images = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in images] == ["boundaries.png", "extents.png", "features.png", "margins.png"]
    for path in images:
        assert path.stat().st_size < 250_000
        assert imread(path).std() > 0.05  # not blank
    assert "A-Softmax, m = 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["margin"],
            "error: FIGURE: got 'margin' · allowed: margins, boundaries, extents, features · omit it to draw all\n",
        ),
        (["--steps", "0"], "error: --steps: got 0 · allowed: an integer of at least 1\n"),
        (["--seed", "-1"], "error: --seed: got -1 · allowed: an integer from 0 to 2^63 − 1\n"),
        (["boundaries", "--output", "{file}"], "error: --output: cannot write {file}/boundaries.png: File exists\n"),
    ],
)
def test_bad_arguments_end_in_one_line(tmp_path, capsys, arguments, message):
    file = tmp_path / "file"
    file.touch()
    assert plot_margins.main([argument.format(file=file) for argument in arguments]) == 2
    assert capsys.readouterr().err == message.format(file=file)
