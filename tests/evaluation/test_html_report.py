import base64
import dataclasses
import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface.evaluation.charts import draw_folds, draw_roc, draw_scores
from sphereface.evaluation.glossary import GLOSSARY
from sphereface.evaluation.html_report import to_html, write_html
from sphereface.evaluation.protocols.base import Images
from sphereface.evaluation.result import Chart, Example, Examples, Report, Result, Rows
from sphereface.metrics import roc, score_histogram

from .crops import noise, write_image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = '<script>alert("x")</script>&\''
"""A text that must be escaped wherever it comes from."""


@dataclasses.dataclass(frozen=True)
class Toy(Result):
    """A result with everything that a report can show; ``text`` is in each of its texts."""

    text: str = ""
    main: tuple[str, float] = ("accuracy", 0.9)

    def headline(self):
        return self.main

    def heading(self):
        return [f"10 folds of 40 + 40 pairs{self.text}"]

    def summary(self):
        return [
            f"Of 100 pairs of one person, the recogniser accepts 84.{self.text}",
            "This holds at the threshold 0.3.",
        ]

    def rows(self):
        far = [["1e-1", "84.00%", "[80.00%, 88.00%]", "0.31200", "40 of 400"], ["1e-2", "not resolvable", "", "", "4"]]
        prose = "threshold and mean of each fold from the other folds, and a long explanation of what this is"
        return [
            Rows(
                (),
                (
                    ("accuracy", "90.00 ± 1.00%", "mean ± standard error"),
                    ("AUC", "0.95000", "[0.94, 0.96]"),
                    ("EER", "9.00%", ""),
                    ("d′" + self.text, "2.5" + self.text, "note" + self.text),
                ),
                note=f"[ ]: 95 % intervals.{self.text}",
                key=True,
            ),
            Rows(
                ("FAR", "TAR", "95 % interval", "threshold", f"impostors used{self.text}"),
                tuple(map(tuple, far)),
                f"TAR at FAR{self.text}",
                f"With fewer impostor pairs it is not resolvable.{self.text}",
            ),
            Rows(("rule", "accuracy", "what it does"), (("plain" + self.text, "89.00%", prose + self.text),)),
        ]

    def figures(self):
        same = np.arange(800) % 2 == 0
        scores = np.clip(np.random.default_rng(0).normal(0.3, 0.15, 800) + 0.3 * same, -1, 1)
        return [
            Chart("roc", f"ROC{self.text}", lambda axes: draw_roc(axes, roc(scores, same)), f"note{self.text}"),
            Chart("scores", "Scores", lambda axes: draw_scores(axes, *score_histogram(scores, same), 0.3)),
            Chart("folds", "Folds", lambda axes: draw_folds(axes, np.linspace(0.8, 1, 10))),
        ]

    def examples(self):
        pairs = tuple(Example((k, k + 1), (f"0.{k}00 ✗{self.text}", "second line")) for k in range(12))
        three = (Example((0, 1, 2), ("probe, gallery, gallery",)),)
        return [
            Examples(f"Hardest genuine pairs{self.text}", pairs, f"note{self.text}"),
            Examples("Searches", three),
        ]

    def to_dict(self):
        return {}


class Bare(Toy):
    """A result with only what it must have."""

    def heading(self):
        return []

    summary = examples = figures = rows = heading


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    # the list says .jpg, the files are .png: a report names the file
    files = tuple(
        write_image(root / f"Person_{k // 2}" / f"Person_{k // 2}_{k:04d}.png", noise(k, 112, 96)) for k in range(14)
    )
    names = tuple(f"Person_{k // 2}/Person_{k // 2}_{k:04d}.jpg" for k in range(14))
    about = {"checkpoint": "best.pt", "step": 3, "run": None, "config": {"model": {"depth": 4}}}
    return Report("toy", Images(root, names, files), (Toy(),), about)


class Parser(html.parser.HTMLParser):
    """Checks that tags nest. Keeps tags, ids, links, and the text of each element class."""

    EMPTY = frozenset({"meta", "link", "img", "br", "wbr", "path", "rect", "use"})

    def __init__(self, page):
        super().__init__()
        self.open, self.links, self.tags, self.ids, self.text = [], [], [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "data", "action", "srcset")]
        self.ids += [value for name, value in attributes if name == "id"]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_one_file_that_loads_and_runs_nothing(report):
    page = to_html([report, dataclasses.replace(report, name="other")])
    parser = Parser(page)
    assert parser.open == []
    assert not {"script", "iframe", "object", "embed", "form"} & set(parser.tags)
    assert all(link.startswith(("data:", "#")) for link in parser.links)
    assert re.findall(r"url\((?!#)", page) == []
    assert "@import" not in page
    assert "http" not in page.replace('http-equiv="', "")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    assert {"default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"} <= set(policy.split("; "))
    assert page.index("Content-Security-Policy") < page.index("<style")


def test_ids_are_unique_and_links_lead_somewhere(report):
    two = dataclasses.replace(report, name="other", results=(Toy(), Toy()))
    parser = Parser(to_html([report, two]))
    assert len(set(parser.ids)) == len(parser.ids)
    assert {link[1:] for link in parser.links if link.startswith("#")} <= set(parser.ids)
    assert parser.tags.count("svg") == 9


def test_every_text_is_escaped(report):
    names = tuple(f"{EVIL}{k}/{EVIL}.jpg" for k in range(14))
    images = dataclasses.replace(report.images, names=names, root=Path(EVIL))
    about = {"checkpoint": EVIL, EVIL: EVIL, "config": {EVIL: EVIL}}
    evil = Report(EVIL, images, (Toy(EVIL), Toy(EVIL, (EVIL, 0.5))), about)
    page = to_html([evil, dataclasses.replace(evil, about={"checkpoint": EVIL * 2})])
    parser = Parser(page)
    assert parser.open == []
    assert "script" not in parser.tags
    assert "&amp;lt;" not in page  # and only once
    plain = re.sub(r"\s+", " ", parser.text)
    for text in (
        *(f"note{EVIL}", f"2.5{EVIL}", f"d′{EVIL}", f"plain{EVIL}", f"TAR at FAR{EVIL}", f"ROC{EVIL}"),
        *(f"impostors used{EVIL}", f"Hardest genuine pairs{EVIL}", f"0.300 ✗{EVIL}", f"accepts 84.{EVIL}"),
        *(f"40 + 40 pairs{EVIL}", f"what this is{EVIL}", f"not resolvable.{EVIL}", f"{EVIL}3/{EVIL}.jpg"),
        f"relative to {EVIL}",
        f"Where the embeddings come from: {EVIL}",
    ):
        assert text in plain
    assert plain.count(EVIL) > 100


def test_a_layman_comes_first_and_the_configuration_last(report):
    text = Parser(to_html([report])).text
    order = (
        "accepts the pair if it decides that both show the same person",
        "Of 100 pairs of one person, the recogniser accepts 84.",
        "90.00 ± 1.00%",
        "10 folds of 40 + 40 pairs",
        "TAR at FAR",
        "Hardest genuine pairs",
        "Glossary",
        "best.pt",
        "depth: 4",
    )
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "run" not in [line.strip() for line in text.splitlines()]  # it is None


def test_key_figures_are_explained_in_a_line(report):
    page = to_html([report])
    boxes = re.findall(r'<div class="figure">(.*?)</div>', page, re.DOTALL)
    assert len(boxes) == 4
    assert "<b>0.95000</b>" in boxes[1]
    assert "[0.94, 0.96]" in boxes[1]
    assert "1 is perfect, 0.5 is guessing." in boxes[1]
    assert 'class="note"' not in boxes[2]
    assert "standard deviations: higher is better." in boxes[3]


def test_tables_have_headers_titles_notes_and_every_cell(report):
    page = to_html([report])
    table = re.search(r"<h4>[^\n]*TAR.*?</div>\n<p[^\n]*\n</div>", page, re.DOTALL)[0]
    for cell in ("<td>84.00%</td>", "<td>not resolvable</td>", "<td>40 of 400</td>"):
        assert cell in table
    assert [re.sub("<.*?>", "", header) for header in re.findall(r"<th scope.*?</th>", table)] == [
        *("FAR", "TAR", "95 % interval", "threshold", "impostors used"),
    ]
    assert "not resolvable." in table
    assert page.count('class="scroll"') == 2
    assert '<td class="text">threshold and mean' in page


def test_terms_are_linked_and_only_those_of_the_page_are_explained(report):
    page = to_html([report])
    assert f'<a class="term" href="#term-auc" title="{GLOSSARY["AUC"]}">AUC</a>' in page
    explained = re.findall(r"<dt>(.*?)</dt><dd>", page)
    assert {"AUC", "EER", "d′", "FAR", "TAR", "fold", "genuine pair", "confidence interval"} <= set(explained)
    assert not {"FPIR", "view 1 and view 2", "gallery"} & set(explained)
    assert page.index('id="term-auc"') > page.index("Hardest")
    eer = re.search(r'<div id="term-eer">.*', page)[0]
    assert 'href="#term-threshold"' in eer
    assert 'href="#term-eer"' not in eer


def test_the_terms_of_a_definition_are_explained_too(report):
    """AUC names ROC, ROC names TAR and FAR, and TAR names the threshold."""
    page = to_html([dataclasses.replace(report, results=(Bare(main=("AUC", 0.5)),), about={})])
    assert re.findall(r"<dt>(.*?)</dt><dd>", page) == ["AUC", "FAR", "ROC", "TAR", "threshold"]


def test_terms_in_charts_are_explained(report):
    class Drawn(Bare):
        def figures(self):
            return [Chart("roc", "A curve", lambda axes: axes.set_xlabel("FPIR"))]

    page = to_html([dataclasses.replace(report, results=(Drawn(),), about={})])
    assert "<dt>FPIR</dt>" in page


def test_examples_show_images_folder_and_file(report):
    page = to_html([report])
    shown = page.split("Hardest ")[1].split("Searches")[0]
    first = shown.split('<div class="example">')[1]
    assert re.findall(r'<p class="file">(.*?)</p>', first) == [
        "Person_0/<wbr>Person_0_0000.png",
        "Person_0/<wbr>Person_0_0001.png",
    ]
    assert re.findall(r'<p class="line">(.*?)</p>', first) == ["0.000 ✗", "second line"]
    for row, text in enumerate(re.findall(r'base64,([^"]+)', first)):
        image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        assert np.corrcoef(image.ravel(), noise(row, 112, 96).ravel())[0, 1] > 0.5
    assert shown.count("<img") == 24
    assert page.split("Searches")[1].count("<img") == 3


def test_large_images_are_reduced(report, tmp_path):
    files = (write_image(tmp_path / "large.png", noise(0, 1000, 500)), *report.images.files[1:])
    page = to_html([dataclasses.replace(report, images=dataclasses.replace(report.images, files=files))])
    text = re.findall(r'base64,([^"]+)', page)[0]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR).shape == (224, 112, 3)


def test_without_files_names_are_shown_and_a_sentence_says_why(report):
    table = dataclasses.replace(report, images=dataclasses.replace(report.images, files=None))
    page = to_html([table])
    assert "<img" not in page
    assert "The embeddings come from a table, so the report shows only the names of the images." in page
    assert "Person_0/<wbr>Person_0_0001.jpg" in page


@pytest.mark.parametrize("content", [None, b"no image"])
def test_an_image_that_cannot_be_read_is_named(report, tmp_path, content):
    lost = tmp_path / "lost.png"
    if content is not None:
        lost.write_bytes(content)
    images = dataclasses.replace(report.images, files=(lost, *report.images.files[1:]))
    page = to_html([dataclasses.replace(report, images=images)])
    assert page.count("this image cannot be read") == 2  # in the first pair and in the search
    assert "Person_0/<wbr>Person_0_0000.jpg" in page


@pytest.mark.parametrize(("number", "words"), [(0, None), (1, "1 of 14 images has"), (3, "3 of 14 images have")])
def test_undefined_embeddings_are_a_warning(report, number, words):
    text = Parser(to_html([dataclasses.replace(report, num_undefined=number)])).text
    assert ("Warning:" in text) == bool(number)
    assert words is None or f"Warning: {words} no usable embedding." in text


def test_several_sets_have_a_table_that_leads_to_them(report):
    other = dataclasses.replace(report, name="b", results=(Toy(main=("rank 1", 0.5)), Toy()))
    page = to_html([report, other])
    table = re.search(r"<nav.*?</nav>", page, re.DOTALL)[0]
    assert '<a href="#set1">toy</a>' in table
    assert '<a href="#set2">b</a>' in table
    assert "90.00%" in table
    assert "50.00%" in table
    assert '<section id="set2">' in page
    assert page.count("Where the embeddings come from") == 1
    assert page.count("depth: 4") == 1
    assert "<nav" not in to_html([report])


def test_sets_of_different_origins_are_told_apart(report):
    other = dataclasses.replace(report, name="b", about={"embeddings": "b.npz"})
    same = dataclasses.replace(report, name="c")
    text = Parser(to_html([report, other, same])).text
    assert "Where the embeddings come from: toy, c" in text
    assert "Where the embeddings come from: b" in text
    assert text.index("b.npz") > text.index("depth: 4")


def test_further_results_of_a_set_have_a_title(report):
    class Titled(Toy):
        def rows(self):
            return [Rows((), (("rank 1", "50.00%", ""),), "Identification", key=True)]

    page = to_html([dataclasses.replace(report, results=(Toy(), Titled(), Bare(main=("speed", 0.5))))])
    titles = re.findall(r'<h3 class="part">(.*?)</h3>', page)
    assert titles == ["Identification", "speed"]


def test_a_result_needs_little(report):
    text = Parser(to_html([dataclasses.replace(report, results=(Bare(),), about={})])).text
    assert "The main figure of this set is accuracy: 90.00%." in text
    assert "Where the embeddings" not in text
    undefined = dataclasses.replace(report, results=(Bare(main=("accuracy", float("nan"))),))
    assert "accuracy: not defined." in Parser(to_html([undefined])).text


def test_it_is_made_for_print_phones_and_the_dark(report):
    page = to_html([report])
    for text in ("@media print", "width=device-width", "prefers-color-scheme: dark"):
        assert text in page
    schemes = re.findall(r":root {(.*?)}", page, re.DOTALL)
    assert len(schemes) == 3
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", page))
    assert all(used <= set(re.findall(r"--([a-z0-9-]+):", scheme)) for scheme in schemes)


def test_the_file_is_written_whole_into_a_new_folder(report, tmp_path):
    path = write_html([report], tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "report.html"
    assert path.read_text(encoding="utf-8") == to_html([report])
    assert list(path.parent.iterdir()) == [path]


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")


def browse(page: Path, made: Path, *options: str) -> None:
    """Let the browser make a file of a page."""
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={made.parent / 'profile'}", *options, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert made.is_file(), done.stderr
    assert "Refused" not in done.stderr


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_without_scrolling_sideways(report, tmp_path, width):
    shot = tmp_path / "shot.png"
    two = [report, dataclasses.replace(report, name="a-set-with-a-rather-long-name_" * 4, num_undefined=1)]
    browse(write_html(two, tmp_path / "new"), shot, f"--screenshot={shot}", f"--window-size={width},9000")
    image = cv2.imread(str(shot))
    assert image.shape[:2] == (9000, width)
    assert (image.reshape(-1, 3).std(axis=0) > 10).all()
    assert (image[:, -8:] == image[0, -1]).all()  # the margin is empty: nothing juts out


@needs_browser
def test_it_prints_on_few_pages(report, tmp_path):
    paper = tmp_path / "report.pdf"
    browse(write_html([report], tmp_path / "new"), paper, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert len(re.findall(rb"/Type /Page\b", paper.read_bytes())) <= 3


@needs_browser
def test_tables_fit_on_paper(report, tmp_path):
    """Laid out for print on A4 (210 − 2 × 14 mm are 688 pixels) in a wider window: beyond them is nothing."""
    page, shot = tmp_path / "print.html", tmp_path / "shot.png"
    paper = to_html([report]).replace("@media print", "@media all")
    page.write_text(paper.replace("max-width: none", "width: 688px; margin: 0"), encoding="utf-8")
    browse(page, shot, f"--screenshot={shot}", "--window-size=760,3000")
    image = cv2.imread(str(shot))
    assert (image[:, :688].reshape(-1, 3).std(axis=0) > 10).all()
    assert (image[:, 689:] == 255).all()
