import base64
import dataclasses
import html.parser
import math
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface.data.pairs import Pairs
from sphereface.evaluation import PairSet, Report, verify, write_html
from sphereface.evaluation.all_pairs import all_pairs
from sphereface.evaluation.charts import folds_chart, histogram_chart, roc_chart
from sphereface.evaluation.html_report import HARDEST, _signed, to_html
from sphereface.evaluation.identification import identify
from sphereface.evaluation.variants import plain_variants
from sphereface.metrics import roc

from .crops import noise, write_picture
from .folders import made_up_features, made_up_people

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Twenty people, four pictures each (one has only one), every protocol; a name that HTML has to escape."""
    root = tmp_path_factory.mktemp("crops")
    people = made_up_people([4] * 20 + [1])
    features = made_up_features(people, spread=1.0)
    names = tuple(f"<P&{person}>/<P&{person}>_{k:04d}.png" for k, person in enumerate(people.person))
    files = tuple(write_picture(root / f"{k}.png", noise(k, 32, 24)) for k in range(len(names)))
    rng = np.random.default_rng(0)
    same = np.arange(240) % 2 == 0
    left = rng.integers(0, 80, 240)
    right = np.where(same, left // 4 * 4 + (left + 1) % 4, (left + 8) % 80)
    pairs = Pairs(Path("pairs.txt"), names, left, right, same, np.arange(240) // 24 + 1, 10)
    return Report(
        PairSet("toy & more", root, pairs, files),
        verify(features, pairs),
        about={"checkpoint": "best.pt", "step": 3, "run": None, "config": {"model": {"depth": 4}}},
        variants=plain_variants(features, pairs, flip=True),
        fisher=0.5,
        identification=identify(features, people),
        all_pairs=all_pairs(features, people),
    )


class Parser(html.parser.HTMLParser):
    """Checks that tags nest, and keeps what a page could load from elsewhere."""

    EMPTY = frozenset({"meta", "link", "img", "br", "path", "rect", "circle", "polyline"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "data", "action")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_one_file_that_needs_nothing_else(report):
    page = to_html([report])
    parser = Parser()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in parser.tags
    assert all(link.startswith(("data:", "#")) for link in parser.links)
    assert "url(" not in page
    assert "@import" not in page
    assert "http" not in re.sub(r'http-equiv="', "", page)
    assert "default-src 'none'" in page


def test_it_holds_every_figure(report):
    page = to_html([report])
    for text in (
        f"{100 * report.verification.mean:.2f} ± {100 * report.verification.standard_error:.2f}%",
        "TAR at FAR",
        "not resolvable",
        "Identification",
        f"<b>{report.identification.rank1:.2%}</b> at rank 1",
        "Every picture against every other",
        "Not this protocol, but what other code bases report",
        "Configuration",
        "depth: 4",
        "toy &amp; more",
    ):
        assert text in page
    assert page.count("<svg") == 3
    assert page.count('class="bar"') == 10
    assert "<P&" not in page


def test_the_hardest_pairs_are_those_with_the_worst_scores(report):
    page = to_html([report])
    genuine, impostor = page.split("Hardest genuine pairs")[1].split("Hardest impostor pairs")
    scores, same = report.verification.scores, report.verification.same
    shown = [re.findall(r"<b>(−?\d\.\d{3})", part) for part in (genuine, impostor)]
    assert shown[0] == [f"{score:.3f}".replace("-", "−") for score in np.sort(scores[same])[:HARDEST]]
    assert shown[1] == [f"{score:.3f}" for score in np.sort(scores[~same])[::-1][:HARDEST]]
    first = int(np.flatnonzero(same)[np.argmin(scores[same])])
    encoded = re.findall(r"base64,([^\"]+)", genuine)[:2]
    for side, text in zip((report.pair_set.pairs.left, report.pair_set.pairs.right), encoded, strict=True):
        image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        assert np.corrcoef(image.ravel(), noise(int(side[first]), 32, 24).ravel())[0, 1] > 0.5
    assert genuine.count("✗") == int(
        np.sum(np.argsort(np.argsort(scores[same]))[~report.verification.correct[same]] < HARDEST)
    )


def test_several_sets_are_linked(report):
    other = dataclasses.replace(report, pair_set=dataclasses.replace(report.pair_set, name="b"), identification=None)
    page = to_html([report, other])
    assert '<a href="#set1">b</a>' in page
    assert '<h2 id="set1">b</h2>' in page
    assert page.count("<h3>Identification") == 1


def test_it_is_made_for_print_and_phones(report):
    page = to_html([report])
    assert "@media print" in page
    assert "width=device-width" in page


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")


def browse(page: Path, made: Path, *options: str) -> None:
    """Let the browser make a file of a page."""
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={made.parent / 'profile'}", *options, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert made.is_file(), done.stderr
    assert "Refused" not in done.stderr


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_without_scrolling_sideways(report, tmp_path, width):
    shot = tmp_path / "shot.png"
    browse(write_html([report], tmp_path / "new"), shot, f"--screenshot={shot}", f"--window-size={width},1500")
    image = cv2.imread(str(shot))
    assert image.shape[:2] == (1500, width)
    assert (image.reshape(-1, 3).std(axis=0) > 10).all()
    assert (image[:, -8:] == image[0, -1]).all()  # the margin is empty: nothing juts out


@needs_browser
def test_it_prints_on_three_pages(report, tmp_path):
    paper = tmp_path / "report.pdf"
    browse(write_html([report], tmp_path / "new"), paper, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert len(re.findall(rb"/Type /Page\b", paper.read_bytes())) == 3


@needs_browser
def test_tables_fit_on_paper(report, tmp_path):
    """Laid out for print on A4 (210 − 2 × 14 mm are 688 pixels) in a wider window: beyond them is nothing."""
    page, shot = tmp_path / "print.html", tmp_path / "shot.png"
    paper = to_html([report]).replace("@media print", "@media all")
    page.write_text(paper.replace("max-width: none", "width: 688px; margin: 0"), encoding="utf-8")
    browse(page, shot, f"--screenshot={shot}", "--window-size=760,1500")
    image = cv2.imread(str(shot))
    assert (image[:, :688].reshape(-1, 3).std(axis=0) > 10).all()
    assert (image[:, 689:] == 255).all()


def test_scores_are_signed_as_in_print_and_zero_is_not():
    assert [_signed(score) for score in (-0.1234, -0.0004, 0.0004, 0.5)] == ["−0.123", "0.000", "0.000", "0.500"]


# ---------------------------------------------------------------- charts


def test_roc_chart_marks_what_is_resolvable():
    curve = roc(np.array([0.9, 0.8, 0.4, 0.1]), np.array([True, False, True, False]))
    chart = roc_chart(curve, 0.5, [(0.1, 0.5)])
    assert chart.count("<circle") == 1
    assert "TAR 50.00% at FAR 0.1" in chart
    assert 'class="unsure"' in chart


def test_a_long_curve_is_thinned():
    rng = np.random.default_rng(0)
    curve = roc(rng.random(20000), np.arange(20000) % 2 == 0)
    assert len(roc_chart(curve, 1e-3, [])) < 40_000


def test_histogram_bars_are_shares_of_each_kind():
    genuine, impostor = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64)
    genuine[70], genuine[71], impostor[50] = 1, 3, 10
    chart = histogram_chart(genuine, impostor, 0.3)
    assert chart.count('class="genuine"') == 2
    assert chart.count('class="impostor"') == 1
    for text in ("0.40: 25.00%", "0.42: 75.00%", "0.00: 100.00%"):
        assert text in chart
    heights = [float(h) for h in re.findall(r'class="genuine".*?height="([\d.]+)"', chart)]
    assert heights[1] == pytest.approx(3 * heights[0], abs=0.2)


@pytest.mark.parametrize("accuracies", [[1.0, 1.0], [0.5, 0.9], [0.8955] * 10, list(np.linspace(0, 1, 30))])
def test_fold_bars_stay_in_the_frame(accuracies):
    chart = folds_chart(np.array(accuracies))
    assert chart.count('class="bar"') == len(accuracies)
    tops = [float(y) for y in re.findall(r'class="bar" x="[\d.]+" y="([-\d.]+)"', chart)]
    assert all(10 - 1e-6 <= top <= 224 + 1e-6 for top in tops)
    assert not any(math.isnan(top) for top in tops)
