"""Write ``report.html``: one file without scripts and external files, for screen and print."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..data.images import BadImage, decode, read_encoded
from .charts import svg_of
from .glossary import GLOSSARY, anchor, find_terms, short_definition
from .result import Chart, Report
from .table import prose_columns
from .write import make_folder, write_result

_HERE = Path(__file__).parent
_LONGEST_SIDE = 224  # pixels of an image in the page; aligned crops are smaller


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
    """Return the page as text; Jinja2 escapes all strings of results, files and configurations.

    The template reads the reports and their results.
    """
    terms = _Terms()
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        mark=terms.mark, svg=terms.svg, meaning=short_definition, percent=_percent,
        prose_columns=prose_columns, data_uri=_data_uri, yaml=_yaml,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        reports=reports,
        origins=_origins(reports),
        glossary=terms.entries,
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
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
                link = Markup('<a class="term" href="#{}" title="{}">{}</a>')
                parts += [Markup.escape(text[end:start]), link.format(anchor(term), GLOSSARY[term], text[start:stop])]
                end = stop
                linked.add(term)
        self.seen |= linked
        return Markup("").join([*parts, Markup.escape(text[end:])])

    def svg(self, chart: Chart, prefix: str) -> Markup:
        """Return a chart as SVG; the glossary also explains its terms."""
        svg = svg_of(chart, prefix)
        self.mark(" · ".join(re.findall(r">([^<]+)</t", svg)))
        return Markup(svg)  # noqa: S704 - matplotlib escapes text

    def entries(self) -> list[tuple[str, str, str]]:
        """Return (id, term, definition) of the terms on the page and in these definitions."""
        waiting = list(self.seen)
        while waiting:
            used = {term for _, _, term in find_terms(GLOSSARY[waiting.pop()])}
            waiting += used - self.seen
            self.seen |= used
        return [(anchor(term), term, text) for term, text in GLOSSARY.items() if term in self.seen]


def _data_uri(row: int, report: Report) -> str:
    """Return the image as JPEG, reduced to :data:`_LONGEST_SIDE`; "" if it cannot be read."""
    try:
        image = decode(read_encoded(report.images.found()[row]))
    except (OSError, BadImage):
        return ""
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _origins(reports: Sequence[Report]) -> list[tuple[Mapping[str, Any], list[str]]]:
    """Return each origin of embeddings with the names of its sets."""
    different: list[tuple[Mapping[str, Any], list[str]]] = []
    for report in reports:
        same = [names for about, names in different if about == report.about]
        if same:
            same[0].append(report.name)
        else:
            different.append((report.about, [report.name]))
    return [(about, names) for about, names in different if about]


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=False, allow_unicode=True)


def _percent(value: float) -> str:
    return f"{value:.2%}" if math.isfinite(value) else "not defined"
