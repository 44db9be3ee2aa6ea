import re

import matplotlib
import numpy as np
import pytest

from sphereface.evaluation.charts import (
    GENUINE,
    IMPOSTOR,
    SERIES,
    draw_discard,
    draw_folds,
    draw_roc,
    draw_scores,
    figure_of,
    svg_of,
)
from sphereface.evaluation.result import Chart
from sphereface.metrics import Roc, roc


def drawn(draw, *given):
    """The axes that a function of this module draws into."""
    return figure_of(Chart("toy", "Toy", lambda axes: draw(axes, *given))).axes[0]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def random_curve(seed, pairs):
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 3 == 0
    return roc(rng.normal(size=pairs) + 1.5 * same, same)


# ---------------------------------------------------------------- ROC


def test_roc_by_hand():
    """Scores 4 (genuine), 3 (impostor), 2 (genuine), 1 (impostor)."""
    axes = drawn(draw_roc, roc(np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])))
    line = axes.lines[0]
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(line.get_xdata(), [0.25, 0.5, 1.0])  # no false accept stands at the left edge
    np.testing.assert_allclose(line.get_ydata(), [0.5, 1.0, 1.0])
    assert axes.get_xscale() == "log"
    assert legend(axes) == ["AUC 0.7500, EER 50.00%", "fewer than 10 impostor pairs"]


def test_roc_shades_and_marks_what_is_resolvable():
    curve = random_curve(0, 3000)  # 2,000 impostor pairs resolve 1e-1 and 1e-2, and 10 of them are 5e-3
    axes = drawn(draw_roc, curve)
    points = axes.lines[1]
    assert list(points.get_xdata()) == [0.1, 0.01]
    expected = [curve.tar[curve.far <= rate].max() for rate in (0.1, 0.01)]
    np.testing.assert_allclose(points.get_ydata(), expected)
    shaded = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    np.testing.assert_allclose([shaded.x0, shaded.x1], [0.5 / 2000, 10 / 2000])


def test_a_long_roc_is_thinned_and_stays_exact():
    curve = random_curve(1, 90_000)
    line = drawn(draw_roc, curve).lines[0]
    assert len(line.get_xdata()) <= 401
    for far, tar in list(zip(line.get_xdata(), line.get_ydata(), strict=True))[1:]:
        assert tar == curve.tar[curve.far <= far * (1 + 1e-12)].max()
    assert max(np.diff(np.log10(line.get_xdata()))) <= np.log10(2) + 1e-9
    assert line.get_xdata()[-1] == 1.0
    assert len(svg_of(Chart("roc", "ROC", lambda axes: draw_roc(axes, curve)))) < 16_000


def test_roc_of_very_few_pairs_is_shaded_all_over():
    axes = drawn(draw_roc, roc(np.array([1.0, 0.0]), np.array([True, False])))
    assert axes.patches[0].get_extents().transformed(axes.transData.inverted()).x1 == pytest.approx(1)


def test_roc_of_one_accepted_count_ties():
    """All scores are equal: the curve jumps from nothing to everything."""
    curve = Roc(np.array([0.5, -np.inf]), np.array([0, 20]), np.array([0, 5]))
    np.testing.assert_allclose(drawn(draw_roc, curve).lines[0].get_ydata()[[0, -1]], [0, 1])


# ---------------------------------------------------------------- scores


def test_scores_are_shares_of_each_kind():
    genuine, impostor = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64)
    genuine[70], genuine[71], impostor[50] = 1, 3, 10
    axes = drawn(draw_scores, genuine, impostor, 0.3)
    filled = {patch.get_label(): patch.get_data().values for patch in axes.patches if patch.get_fill()}
    np.testing.assert_allclose(filled["one person"][70:72], [0.25, 0.75])
    np.testing.assert_allclose(filled["two people"][50], 1.0)
    assert legend(axes) == ["two people", "one person", "threshold 0.300"]
    low, high = axes.get_xlim()
    assert low < 0 < 0.44 < high < 0.6


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_scores_need_neither_pairs_nor_a_threshold(threshold):
    axes = drawn(draw_scores, np.zeros(10, dtype=np.int64), np.zeros(10, dtype=np.int64), threshold)
    assert len(axes.lines) == (threshold is not None)
    assert axes.get_xlim() == (-1, 1)


# ---------------------------------------------------------------- folds


@pytest.mark.parametrize("accuracies", [[1.0, 1.0], [0.5, 0.9], [0.8955] * 10, list(np.linspace(0, 1, 30))])
def test_every_fold_lies_inside_the_frame(accuracies):
    axes = drawn(draw_folds, np.array(accuracies))
    mean, folds = axes.lines
    np.testing.assert_allclose(mean.get_ydata(), np.mean(accuracies))
    np.testing.assert_allclose(folds.get_ydata(), accuracies)
    np.testing.assert_allclose(folds.get_xdata(), np.arange(1, len(accuracies) + 1))
    low, high = axes.get_ylim()
    assert low < min(accuracies) <= max(accuracies) < high
    labels = [f"{100 * accuracy:.1f}" for accuracy in accuracies]
    assert [text.get_text() for text in axes.texts] == (labels if len(accuracies) <= 10 else [])


# ---------------------------------------------------------------- error versus discard


def test_discard_curves_are_named_and_coloured():
    fractions = np.array([0, 0.1, 0.2])
    errors = {"norm": np.array([0.3, 0.2, 0.1]), "$x$": np.array([0.3, np.nan, 0.25])}
    axes = drawn(draw_discard, fractions, errors)
    assert legend(axes) == ["norm", "$x$"]
    assert [line.get_color() for line in axes.lines] == [GENUINE, IMPOSTOR]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), errors["$x$"])
    assert not any(text.get_parse_math() for text in axes.get_legend().get_texts())
    assert axes.get_xlim() == (0, 0.2)
    assert axes.get_ylim()[0] == 0


def test_more_curves_than_colours():
    axes = drawn(draw_discard, np.array([0, 1]), {str(k): np.array([k, 0]) for k in range(8)})
    assert axes.lines[6].get_color() == SERIES[0]


# ---------------------------------------------------------------- figures and SVG


def plain(axes):
    axes.plot([1, 2], [3, 4], "o-", label="<b>&")
    axes.legend()


def test_a_figure_has_the_title_as_it_is():
    figure = figure_of(Chart("toy", r"a $\nothing$ title", plain), size=(3, 2))
    assert figure.get_suptitle() == r"a $\nothing$ title"
    assert tuple(figure.get_size_inches()) == (3, 2)
    figure.draw_without_rendering()  # mathtext would refuse the title
    assert figure.axes[0].lines[0].get_color() == SERIES[0]


def test_svg_leaves_no_global_state():
    before = dict(matplotlib.rcParams)
    svg_of(Chart("toy", "Toy", plain))
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.rcParams["svg.fonttype"] == matplotlib.rcParamsDefault["svg.fonttype"]


def test_svg_is_an_element_that_loads_nothing():
    svg = svg_of(Chart("toy", 'a "title" <x>', plain))
    assert svg.startswith("<svg viewBox=")
    assert svg.endswith("</svg>")
    assert 'aria-label="a &quot;title&quot; &lt;x&gt;"' in svg
    assert "&lt;b&gt;&amp;" in svg
    for text in ("http", "<style", "<!--", "<metadata", "xlink", "DejaVu", 'pt"'):
        assert text not in svg


def test_svg_takes_its_colours_from_the_page():
    def draw(axes):
        axes.plot([0, 1], [0, 1])
        axes.plot([0, 1], [1, 0], color="black")
        axes.plot([0, 1], [1, 1], color="#123456")

    svg = svg_of(Chart("toy", "Toy", draw))
    for colour in ("var(--series-1)", "var(--ink)", "var(--soft)", "var(--line)", "#123456"):
        assert colour in svg
    assert set(re.findall('#[0-9a-f]{6}(?=[;"])', svg)) == {"#123456"}


def test_ids_are_those_that_are_referred_to_and_differ_by_prefix():
    chart = Chart("toy chart", "Toy", plain)
    svgs = svg_of(chart), svg_of(chart, "set1"), svg_of(chart, "set2")
    for svg, prefix in zip(svgs, ("toy-chart-", "set1-", "set2-"), strict=True):
        ids = re.findall(r' id="([^"]+)"', svg)
        assert ids
        assert len(set(ids)) == len(ids)
        assert all(one.startswith(prefix) for one in ids)
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == set(ids)
