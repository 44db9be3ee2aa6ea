"""Write ``report.html``: one file without scripts and external files, for screen and print."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..data.images import BadImage, decode, read_encoded
from .charts import svg_of
from .glossary import GLOSSARY, anchor, find_terms, short_definition
from .result import Chart, Example, Examples, Result, Rows
from .write import make_folder, write_result

if TYPE_CHECKING:
    from .report import Report

_FOLDER = Path(__file__).parent
_LONGEST_SIDE = 224  # pixels of an image in the page; aligned crops are smaller
_LONG_CELL = 24  # letters; a column with a longer cell is text and is left-aligned


def write_html(reports: Sequence[Report], directory: str | Path) -> Path:
    """Write ``report.html`` to a folder and return its path.

    The file contains images of the data, so store it as safely as the data.

    Args:
        reports: one or more sets, in order.
        directory: the folder, which is created if missing.

    Raises:
        UserError: the file cannot be written.
    """
    directory = Path(directory)
    make_folder(directory)
    path = directory / "report.html"
    write_result(path, to_html(reports))
    return path


def to_html(reports: Sequence[Report]) -> str:
    """Return the page as text; Jinja2 escapes all strings of results, files and configurations."""
    terms = _Terms()
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(mark=terms.mark, prose_columns=_prose_columns)
    return environment.get_template("report.html.j2").render(
        sections=[_section(report, f"set{number}", terms) for number, report in enumerate(reports, start=1)],
        origins=_origins(reports),
        glossary=terms.entries,
        css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
    )


class _Terms:
    """Links terms to the glossary and records which terms the page uses."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def mark(self, text: str, but: str = "") -> Markup:
        """Return escaped text; the first occurrence of each term except ``but`` is a link."""
        parts, end, linked = [], 0, set()
        for start, stop, term in find_terms(text):
            if term not in linked and term != but:
                parts += [Markup.escape(text[end:start]), _link(text[start:stop], term)]
                end = stop
                linked.add(term)
        self.seen |= linked
        return Markup("").join([*parts, Markup.escape(text[end:])])

    def entries(self) -> list[tuple[str, str, str]]:
        """Return (id, term, definition) of the terms on the page and in these definitions."""
        waiting = list(self.seen)
        while waiting:
            used = {term for _, _, term in find_terms(GLOSSARY[waiting.pop()])}
            waiting += used - self.seen
            self.seen |= used
        return [(anchor(term), term, text) for term, text in GLOSSARY.items() if term in self.seen]


def _link(text: str, term: str) -> Markup:
    return Markup('<a class="term" href="#{}" title="{}">{}</a>').format(anchor(term), GLOSSARY[term], text)


@dataclass(frozen=True)
class _Figure:
    """A key figure: its name, its value, the result's explanation and the glossary's definition."""

    name: str
    value: str
    note: str
    definition: str


@dataclass(frozen=True)
class _Drawn:
    """A chart as SVG."""

    title: str
    svg: Markup
    note: str


@dataclass(frozen=True)
class _Shown:
    """An example: its lines of text, and (data URI or "", folder, file name) of each image."""

    text: tuple[str, ...]
    images: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class _Group:
    """Examples under a title."""

    title: str
    note: str
    items: tuple[_Shown, ...]


@dataclass(frozen=True)
class _Part:
    """One result of a set. The page shows ``title`` above each result except the first."""

    title: str
    summary: Sequence[str]
    heading: Sequence[str]
    figures: Sequence[_Figure]
    notes: Sequence[str]
    charts: Sequence[_Drawn]
    tables: Sequence[Rows]
    groups: Sequence[_Group]


@dataclass(frozen=True)
class _Section:
    """One set."""

    id: str
    name: str
    headline: tuple[str, str]
    root: str
    num_images: int
    has_images: bool
    warning: str
    parts: Sequence[_Part]


def _section(report: Report, id_: str, terms: _Terms) -> _Section:
    name, value = report.results[0].headline()
    return _Section(
        id=id_,
        name=report.name,
        headline=(name, _percent(value)),
        root=str(report.images.root),
        num_images=len(report.images),
        has_images=report.images.files is not None,
        warning=_warning(report),
        parts=[_part(report, result, f"{id_}-{k}", terms) for k, result in enumerate(report.results, start=1)],
    )


def _warning(report: Report) -> str:
    if not report.num_undefined:
        return ""
    verb = "has" if report.num_undefined == 1 else "have"
    return (
        f"{report.num_undefined:,} of {len(report.images):,} images {verb} no usable embedding."
        " These embeddings are zero or contain numbers that are not finite."
    )


def _part(report: Report, result: Result, prefix: str, terms: _Terms) -> _Part:
    headline, fraction = result.headline()
    tables = result.rows()
    keys = [table for table in tables if table.key]
    return _Part(
        title=next((table.title for table in keys if table.title), headline),
        summary=result.summary() or [f"The main figure of this set is {headline}: {_percent(fraction)}."],
        heading=result.heading(),
        figures=[
            _Figure(name, value, note, short_definition(name)) for table in keys for name, value, note in table.rows
        ],
        notes=[table.note for table in keys if table.note],
        charts=[_draw(chart, f"{prefix}-chart{k}", terms) for k, chart in enumerate(result.figures(), start=1)],
        tables=[table for table in tables if not table.key],
        groups=[_group(report, examples) for examples in result.examples()],
    )


def _draw(chart: Chart, prefix: str, terms: _Terms) -> _Drawn:
    svg = svg_of(chart, prefix)
    terms.mark(" · ".join(re.findall(r">([^<]+)</t", svg)))  # the glossary also explains the terms of charts
    return _Drawn(chart.title, Markup(svg), chart.note)  # noqa: S704 - matplotlib escapes text


def _group(report: Report, examples: Examples) -> _Group:
    return _Group(examples.title, examples.note, tuple(_shown(report, item) for item in examples.items))


def _shown(report: Report, example: Example) -> _Shown:
    images = []
    for row in example.images:
        folder, slash, file = report.images.label(row).rpartition("/")
        images.append((_data_uri(report, row), folder + slash, file))
    return _Shown(example.text, tuple(images))


def _data_uri(report: Report, row: int) -> str:
    """Return the image as JPEG, reduced to :data:`_LONGEST_SIDE`; "" if it cannot be read."""
    if report.images.files is None:
        return ""
    try:
        image = decode(read_encoded(report.images.files[row]))
    except (OSError, BadImage):
        return ""
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


@dataclass(frozen=True)
class _Origin:
    """The origin of the embeddings of some sets."""

    sets: str
    rows: Sequence[tuple[str, str]]
    config: str


def _origins(reports: Sequence[Report]) -> list[_Origin]:
    """Return one entry for all sets with the same origin."""
    different: list[tuple[Mapping[str, Any], list[str]]] = []
    for report in reports:
        same = [names for about, names in different if about == report.about]
        if same:
            same[0].append(report.name)
        else:
            different.append((report.about, [report.name]))
    return [_origin(about, ", ".join(names)) for about, names in different if about]


def _origin(about: Mapping[str, Any], sets: str) -> _Origin:
    rows = [
        (key.replace("_", " "), str(value)) for key, value in about.items() if value is not None and key != "config"
    ]
    config = about.get("config")
    text = yaml.safe_dump(config, sort_keys=False, default_flow_style=False, allow_unicode=True) if config else ""
    return _Origin(sets, rows, text)


def _prose_columns(table: Rows) -> list[bool]:
    """Return for each column whether it contains text, which is left-aligned, or figures."""
    return [any(len(cell) > _LONG_CELL for cell in column) for column in zip(*table.rows, strict=True)]


def _percent(value: float) -> str:
    return f"{value:.2%}" if math.isfinite(value) else "not defined"
