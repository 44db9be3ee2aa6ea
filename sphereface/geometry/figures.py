"""Draw the four figures of docs/losses.md, without global state of matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes  # type: ignore[import-untyped]

from ..losses.margins import Margin, make_margin
from .boundaries import (
    MANY_CLASSES,
    TWO_CLASSES,
    decision_regions,
    many_class_extent,
    on_circle,
    region_edges,
    swept_extent,
    two_class_extent,
)
from .curves import Curve
from .digits import Learned

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"]
"""Okabe and Ito's colours, which colour-blind readers can distinguish."""
ORDER = ["softmax", "modified-softmax", "l-softmax", "a-softmax", "sphereface-r", "cosface", "arcface", "combined"]
"""The order of docs/losses.md; other margins follow."""
_COLUMNS = 4  # pairs of panels in a row
AT_A_GLANCE = {"a-softmax": "m = 4, λ = 5", "sphereface-r": "", "cosface": "m = 0.35", "arcface": "m = 0.5"}
"""Margin → label of its curve in the last panel; empty for its first curve."""


def margins_figure(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """Draw the target logit and, below it, its derivative over θ.

    Each margin has a pair of panels; a last pair compares several margins.
    """
    chosen = [
        Curve(name, c.theta, c.logit, c.slope, c.theta * np.nan)
        for name, label in AT_A_GLANCE.items()
        for c in next(([c] for c in curves.get(name, []) if label in ("", c.label)), [])
    ]
    order = [*(name for name in ORDER if name in curves), *(name for name in curves if name not in ORDER)]
    cells = [*((name, curves[name]) for name in order), ("side by side", chosen)]
    figure, pairs = _pairs_of_panels(len(cells), 4.2, ratio=[3, 2], sharex=True)
    for (upper, lower), (name, drawn) in zip(pairs, cells, strict=True):
        _draw_curves(upper, lower, name, drawn)
    for upper, lower in pairs[::_COLUMNS]:
        upper.set_ylabel("target logit / scale")
        lower.set_ylabel("derivative, per rad")
    return figure


def _pairs_of_panels(count: int, height: float, *, ratio: Sequence[int], sharex: bool) -> tuple[Figure, list[Any]]:
    """Return a figure with pairs of empty panels, an upper and a lower one, four pairs in a row.

    Args:
        count: number of pairs.
        height: of a pair, in inches.
        ratio: of the heights in a pair.
        sharex: whether all panels have one x axis.
    """
    lines = math.ceil(count / _COLUMNS)
    figure = Figure(figsize=(11, height * lines), layout="constrained")
    ratios = [*ratio] * lines
    panels = figure.subplots(2 * lines, _COLUMNS, squeeze=False, sharex=sharex, height_ratios=ratios)
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, [pair for row in range(lines) for pair in panels[2 * row : 2 * row + 2].T][:count]


def _draw_curves(upper: Any, lower: Any, name: str, curves: Sequence[Curve]) -> None:
    for panel in (upper, lower):
        panel.set_axis_on()
        panel.grid(alpha=0.3)
        panel.set_xlim(0, 180)
        panel.set_xticks(range(0, 181, 45), [f"{a}°" for a in range(0, 181, 45)], fontsize=9)
        panel.tick_params(labelbottom=panel is lower, labelsize=9)
    for curve, colour in zip(curves, COLOURS, strict=False):
        degrees = np.degrees(curve.theta)
        upper.plot(degrees, curve.logit, color=colour, label=curve.label, linewidth=1.8)
        upper.plot(degrees, curve.other, color="black", linestyle=":", linewidth=1.3)
        lower.plot(degrees, curve.slope, color=colour, linewidth=1.6)
    steep = any(curve.logit.min() < -3.2 for curve in curves)
    upper.set_ylim(*((-7.4, 1.4) if steep else (-3.2, 1.4)))
    lower.set_ylim(*((-4.3, 0.3) if steep else (-2.15, 0.15)))
    upper.set_title(name, fontsize=11, fontweight="bold")
    if name == "softmax":
        upper.get_lines()[0].set_label("own class")
        upper.get_lines()[1].set_label("another class")
    if len(curves) > 1 or name == "softmax":
        upper.legend(loc="lower left", fontsize=8, handlelength=1.2, borderpad=0.3, labelspacing=0.25, framealpha=0.85)


def boundaries_figure(theta12: float = math.radians(90)) -> Figure:
    """Draw the regions of two classes in the plane with six losses; the margin is white.

    The shading comes from the engine's logits at every pixel; the lines on the edges are the closed
    forms.
    """
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    panels = figure.subplots(2, 3)
    middle = math.pi / 2
    at = np.array([middle + theta12 / 2, middle - theta12 / 2])
    equal, lengths = on_circle(at), on_circle(at) * torch.tensor([[0.75], [1.0]], dtype=torch.float64)
    bias = torch.tensor([0.15, -0.15], dtype=torch.float64)
    plain = make_margin("softmax"), make_margin("modified-softmax")
    _draw_regions(panels[0, 0], lengths, plain[0], "softmax\n(W₁ − W₂)·x + b₁ − b₂ = 0", bias=bias)
    _draw_regions(panels[0, 1], equal, plain[1], "modified softmax\ncos θ₁ = cos θ₂")
    long = on_circle(at) * torch.tensor([[0.6], [1.0]], dtype=torch.float64)
    title = "L-Softmax, m = 2, ‖W₁‖ = 0.6 ‖W₂‖\n‖W₁‖ cos 2θ₁ = ‖W₂‖ cos θ₂"
    _draw_regions(panels[0, 2], long, make_margin("l-softmax", m=2), title)
    for m, panel in zip((2, 3, 4), panels[1], strict=True):
        margin = (m - 1) / (m + 1) * math.degrees(theta12)
        title = f"A-Softmax, m = {m}\ncos {m}θ₁ = cos θ₂ · margin {margin:.0f}°"
        _draw_regions(panel, equal, make_margin("a-softmax", m=m), title)
        towards, away = region_edges(m, theta12)
        for centre, side, colour in ((at[0], 1, COLOURS[0]), (at[1], -1, COLOURS[1])):
            for edge in (centre - side * towards, centre + side * away):
                panel.plot([0, math.cos(edge)], [0, math.sin(edge)], color=colour, linewidth=1.5)
        _mark_margin(panel, at[1] + towards, at[0] - towards, f"{margin:.0f}°")
    return figure


def _draw_regions(panel: Any, weight: torch.Tensor, margin: Margin, title: str, **bias: torch.Tensor) -> None:
    side = np.linspace(-1.0, 1.0, 500)
    x, y = np.meshgrid(side, side)
    points = torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1))
    regions = decision_regions(points, weight, margin, **bias).numpy().reshape(2, *x.shape) & (np.hypot(x, y) <= 1)
    for region, row, colour, name in zip(regions, weight.numpy(), COLOURS, "12", strict=False):
        shade = np.zeros((*x.shape, 4))
        shade[region] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.28)
        panel.imshow(shade, extent=(-1, 1, -1, 1), origin="lower", interpolation="bilinear")
        panel.annotate("", row, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.2})
        panel.annotate(f"W{'₁₂'[int(name) - 1]}", row, xytext=1.13 * row / np.hypot(*row), ha="center", va="center")
    _draw_circle(panel)
    panel.set(xlim=(-1.2, 1.2), ylim=(-1.05, 1.08), aspect="equal")
    panel.set_title(title, fontsize=11, pad=3)
    panel.set_axis_off()


def _draw_circle(panel: Any) -> Circle:
    circle: Circle = panel.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor="#999999", linewidth=0.9, zorder=0.5))
    return circle


def _mark_margin(panel: Any, low: float, high: float, text: str) -> None:
    arc = np.linspace(low, high, 60)
    panel.plot(0.5 * np.cos(arc), 0.5 * np.sin(arc), color="black", linewidth=1.2)
    middle = (low + high) / 2
    panel.text(0.62 * math.cos(middle), 0.62 * math.sin(middle), text, ha="center", va="center", fontsize=10)


def extents_figure() -> Figure:
    """Draw the largest angle within a class and the smallest between classes over m, twice."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ms, swept = np.linspace(2.0, 7.0, 251), np.arange(2.0, 7.1, 0.5)
    angles = [math.radians(a) for a in (30, 60, 90)]  # up to (m − 1)/m · 180°, 90° at m = 2, the ratio is the same
    two = [np.divide(swept_extent(m, np.array([0.0, a])), a) for m in swept for a in angles]
    _draw_extents(left, ms, [two_class_extent(m, 1.0) for m in ms], np.repeat(swept, len(angles)), two)
    left.set_title("two classes")
    spacings = [2 * math.pi / classes for classes in (3, 6, 10)]
    many = [np.divide(swept_extent(m, np.arange(0, 2 * math.pi - 1e-9, a)), a) for m in swept for a in spacings]
    _draw_extents(right, ms, [many_class_extent(m, 1.0) for m in ms], np.repeat(swept, len(spacings)), many)
    right.set_title("many classes, evenly over the circle")
    for panel, m, text in ((left, TWO_CLASSES, "m = 2 + √3"), (right, MANY_CLASSES, "m = 3")):
        panel.axvline(m, color="black", linewidth=1)
        panel.axvspan(m, 7, color=COLOURS[2], alpha=0.12, linewidth=0)
        panel.annotate(text, (m, 0.06), xytext=(6, 0), textcoords="offset points", fontsize=11)
    left.set_ylabel("angle, in units of that between\nthe weights of neighbouring classes")
    return figure


def _draw_extents(
    panel: Any, ms: NDArray[np.float64], exact: Sequence[Any], at: NDArray[np.float64], swept: Sequence[Any]
) -> None:
    names = "largest within a class", "smallest between two classes"
    for curve, dots, name, colour in zip(np.array(exact).T, np.array(swept).T, names, COLOURS[1::-1], strict=True):
        panel.plot(ms, curve, color=colour, linewidth=2, label=f"{name}, formula")
        panel.plot(at, dots, "o", color=colour, markersize=5, markerfacecolor="none", label=f"{name}, swept")
    panel.set(xlabel="m", xlim=(2, 7), ylim=(0, 1.4))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9, loc="upper right")


def features_figure(plane: Sequence[Learned], sphere: Sequence[Learned]) -> Figure:
    """Draw learned 2-D features above learned 3-D ones, one column for each loss, four in a row."""
    figure, pairs = _pairs_of_panels(len(plane), 6.3, ratio=[1, 1], sharex=False)
    like = [max(results, key=lambda learned: learned.gap) for results in (plane, sphere)]
    view = _view(like[1].centres)
    for (upper, lower), flat, round_ in zip(pairs, plane, sphere, strict=True):
        _draw_plane(upper, flat, like[0].centres)
        _draw_sphere(lower, round_, like[1].centres @ view)
    return figure


def _draw_plane(panel: Any, learned: Learned, like: NDArray[Any]) -> None:
    turn = alignment(learned.centres, like)
    directions, centres = learned.directions @ turn, learned.centres @ turn
    features = learned.features @ turn * (0.85 / np.quantile(np.linalg.norm(learned.features, axis=1), 0.98))
    _draw_circle(panel)
    for k, centre in enumerate(centres):
        own = learned.labels == k
        panel.plot(*features[own].T, ".", color=COLOURS[k], markersize=3.5, alpha=0.7, markeredgewidth=0)
        panel.plot(*directions[own].T, ".", color=COLOURS[k], markersize=6, alpha=0.5, markeredgewidth=0)
        panel.text(*(1.16 * centre), str(k), color=COLOURS[k], ha="center", va="center", fontweight="bold")
    _frame(panel, learned)


def _draw_sphere(panel: Any, learned: Learned, like: NDArray[Any]) -> None:
    """Draw directions on the sphere, seen along one axis; directions behind it are faint."""
    turn = alignment(learned.centres, like)
    directions, centres = learned.directions @ turn, learned.centres @ turn
    shine = np.hypot(*np.meshgrid(np.linspace(-0.65, 1.35, 200), np.linspace(-1.35, 0.65, 200)))
    ball = panel.imshow(shine, cmap="Greys", vmin=0, vmax=9, extent=(-1, 1, -1, 1), origin="lower")
    ball.set_clip_path(_draw_circle(panel))
    for k, centre in enumerate(centres):
        for front in (False, True):
            own = directions[(learned.labels == k) & ((directions[:, 2] > 0) == front)]
            panel.plot(*own[:, :2].T, ".", color=COLOURS[k], markersize=6, alpha=0.6 if front else 0.2, mew=0)
        radius = max(float(np.hypot(*centre[:2])), 1e-6)
        place = centre[:2] * (1 + 0.19 / radius)
        panel.text(*place, str(k), color=COLOURS[k], ha="center", va="center", fontweight="bold")
    _frame(panel, learned)


def _view(centres: NDArray[Any]) -> NDArray[Any]:
    """Return the rotation of the sphere, of many, that separates the classes best in the image."""
    turns = np.linalg.qr(np.random.default_rng(0).normal(size=(2000, 3, 3)))[0]
    seen = (centres @ turns)[:, :, :2]  # (2000, C, 2)
    apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1) + 9 * np.eye(len(centres))
    best: NDArray[Any] = turns[apart.min(axis=(1, 2)).argmax()]
    return best


def _frame(panel: Any, learned: Learned) -> None:
    panel.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
    text = f"{learned.accuracy:.1%} · spread {learned.spread:.1f}° · gap {learned.gap:.0f}°"
    panel.set_title(f"{learned.label}\n", fontsize=11, fontweight="bold")
    panel.text(0.5, 1.02, text, transform=panel.transAxes, ha="center", fontsize=9)


def alignment(centres: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Return the orthogonal (D, D) matrix R that brings ``centres @ R`` (C, D) nearest to ``like``.

    This is the Procrustes problem. Rotation and reflection keep all angles, so they can align
    features of separate trainings.
    """
    turn: NDArray[Any] = orthogonal_procrustes(centres, like)[0]
    return turn
