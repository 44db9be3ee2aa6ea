"""``report.html``: one file that needs no network, holds no script, and can be read on a phone and printed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
import yaml

from ..data.images import Picture, decode
from ..files import write_whole
from ..metrics import (
    MIN_IMPOSTORS,
    Interval,
    OperatingPoint,
    auc,
    d_prime,
    equal_error_rate,
    score_histogram,
)
from .charts import folds_chart, histogram_chart, roc_chart
from .report import Report
from .table import count, heading, percent, scientific
from .write import make_folder

HARDEST = 12
"""Pairs of each kind that are shown as pictures."""
_CSS = Path(__file__).with_name("page.css")
# the browser itself keeps the page from fetching or running anything
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_html(reports: Sequence[Report], directory: str | Path) -> Path:
    """Write ``report.html`` into a folder, which is made if need be, and return its path.

    The hardest pairs are shown as pictures: the file holds faces of the data, and belongs where these may be.

    Args:
        reports: one or more sets, in order.
        directory: the folder.
    """
    directory = Path(directory)
    make_folder(directory)
    path = directory / "report.html"
    write_whole(path, to_html(reports), durable=False)
    return path


def to_html(reports: Sequence[Report]) -> str:
    """The page as text."""
    names = [escape(report.pair_set.name) for report in reports]
    links = "".join(f'<a href="#set{k}">{name}</a>' for k, name in enumerate(names))
    about = reports[0].about
    told = {
        key: value for key, value in about.items() if value is not None and key not in ("config", "checkpoint_sha256")
    }
    made = " · ".join(escape(f"{key} {value}") for key, value in told.items())
    sections = "".join(_section(report, f"set{k}") for k, report in enumerate(reports))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Face verification: {', '.join(names)}</title><style>{_CSS.read_text(encoding='utf-8')}</style></head>"
        f'<body><h1>Face verification</h1><p class="soft path">{made}</p>'
        f"{f'<nav>{links}</nav>' if len(reports) > 1 else ''}{sections}{_config(about.get('config'))}</body></html>\n"
    )


def _section(report: Report, anchor: str) -> str:
    first, *others = heading(report)
    rule = " · ".join(line for line in others if not line.startswith("checkpoint"))
    parts = [
        f'<h2 id="{anchor}">{escape(report.pair_set.name)}</h2>',
        f'<p class="soft">{escape(first.partition(": ")[2])}<br>{escape(rule)}</p>',
        _figures(report),
        _charts(report),
        f'<div class="tables">{_tar_table(report)}{_variants(report)}</div>',
        f'<div class="tables">{_identification(report)}{_all_pairs(report)}</div>',
        _hardest(report, genuine=True),
        _hardest(report, genuine=False),
    ]
    return f"<section>{''.join(parts)}</section>"


def _figures(report: Report) -> str:
    result, intervals = report.verification, report.intervals
    unit = f"95 % of {intervals.replicates:,} draws of {intervals.unit}"
    figures = []
    if len(result.accuracies):
        note = "mean ± standard error of the folds" if len(result.accuracies) > 1 else "at the threshold of view 1"
        figures.append((percent(result.mean, result.standard_error), f"accuracy, {note}"))
    figures += [
        (f"{auc(report.curve):.4f}", f"AUC, {_span(intervals.auc, '.4f')}"),
        (f"{equal_error_rate(report.curve):.2%}", f"EER, {_span(intervals.eer, '.2%')}"),
        (f"{d_prime(result.scores, result.same):.3f}", "d′, distance of the two kinds of scores"),
    ]
    if report.fisher is not None:
        figures.append((f"{report.fisher:.4f}", "angular Fisher score, lower is better"))
    boxes = "".join(f'<div class="figure"><b>{value}</b><span>{note}</span></div>' for value, note in figures)
    undefined = f"; {result.num_undefined} pairs have no score and count as wrong" if result.num_undefined else ""
    return f'<div class="figures">{boxes}</div><p class="soft">Intervals: {unit}{undefined}.</p>'


def _charts(report: Report) -> str:
    result, curve = report.verification, report.curve
    marked = [(point.far, point.tar) for point in report.points if point.resolvable]
    threshold = float(result.thresholds.mean()) if len(result.thresholds) else None
    keys = '<i class="key g"></i>genuine <i class="key i"></i>impostor'
    charts = [
        (
            "ROC",
            roc_chart(curve, MIN_IMPOSTORS / curve.num_impostor, marked),
            f"shaded: fewer than {MIN_IMPOSTORS} impostor pairs",
        ),
        ("Scores", histogram_chart(*score_histogram(result.scores, result.same), threshold), keys),
    ]
    if len(result.accuracies) > 1:
        charts.append(("Folds", folds_chart(result.accuracies), "dashed: mean"))
    cards = "".join(
        f'<div class="card"><h3>{title}</h3>{svg}<p class="soft">{note}</p></div>' for title, svg, note in charts
    )
    return f'<div class="charts">{cards}</div>'


def _tar_table(report: Report) -> str:
    note = (
        f'<p class="soft">impostors: how many of the {report.curve.num_impostor:,} impostor pairs lie beyond a FAR; '
        f"with fewer than {MIN_IMPOSTORS} it cannot be measured.</p>"
    )
    return _card("TAR at FAR", _rates(report.points, report.intervals.tar, "TAR") + note)


def _rates(points: Sequence[OperatingPoint], intervals: Sequence[Interval], rate: str) -> str:
    spans = [_span(interval, ".1%") for interval in intervals] or [""] * len(points)
    between = "<th>95 % interval</th>" if intervals else ""
    rows = []
    for point, span in zip(points, spans, strict=True):
        middle = f'<td class="nowrap">{span}</td>' if intervals else ""
        figures = f"<td>{point.tar:.2%}</td>{middle}<td>{point.threshold:.4f}</td>"
        if not point.resolvable:
            figures = f'<td class="none" colspan="{3 if intervals else 2}">not resolvable</td>'
        rows.append(f"<tr><td>{scientific(point.far)}</td>{figures}<td>{count(point.rests_on)}</td></tr>")
    head = f"<tr><th>FAR</th><th>{rate}</th>{between}<th>threshold</th><th>impostors</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _variants(report: Report) -> str:
    if not report.variants:
        return ""
    rows = "".join(
        f'<tr><td class="nowrap">{percent(v.accuracy, v.spread)}</td><td class="text">{escape(v.rule)}</td></tr>'
        for v in report.variants
    )
    return _card(
        "Not this protocol, but what other code bases report",
        f'<div class="scroll"><table>{rows}</table></div>',
        style="card wide",
    )


def _identification(report: Report) -> str:
    result = report.identification
    if result is None:
        return ""
    mean = "centred with the mean of the gallery" if result.subtract_mean else "no mean subtracted"
    text = (
        f'<p class="soft">{result.num_gallery:,} people enrolled with one picture, {result.num_probes:,} probes, '
        f"{result.num_impostors:,} impostors; {mean}. DIR: found at rank 1 with a score over the threshold.</p>"
        f"<p><b>{result.rank1:.2%}</b> at rank 1, <b>{result.rank5:.2%}</b> within rank 5</p>"
    )
    return _card("Identification", text + _rates(result.open_set, (), "DIR"))


def _all_pairs(report: Report) -> str:
    result = report.all_pairs
    if result is None:
        return ""
    mean = "centred with the mean of all these pictures" if result.subtract_mean else "no mean subtracted"
    text = (
        f'<p class="soft">{result.num_images:,} pictures, {result.curve.num_genuine:,} genuine and '
        f"{result.curve.num_impostor:,} impostor pairs; {mean}. AUC {result.auc:.5f}, EER {result.eer:.2%}.</p>"
    )
    return _card("Every picture against every other", text + _rates(result.points, (), "TAR"))


def _hardest(report: Report, *, genuine: bool) -> str:
    """The genuine pairs with the lowest scores, or the impostor pairs with the highest."""
    pair_set, scores = report.pair_set, report.verification.scores
    rows = np.flatnonzero((report.verification.same == genuine) & ~np.isnan(scores))
    rows = rows[np.argsort(scores[rows] if genuine else -scores[rows], kind="stable")][:HARDEST]
    pairs = "".join(_pair(report, int(row)) for row in rows)
    title = (
        "Hardest genuine pairs: one person, lowest scores"
        if genuine
        else "Hardest impostor pairs: two people, highest scores"
    )
    of = " The first picture of each template is shown." if pair_set.templates is not None else ""
    return _card(title, f'{f"<p>{of}</p>" if of else ""}<div class="pairs">{pairs}</div>')


def _pair(report: Report, row: int) -> str:
    pairs, score = report.pair_set.pairs, report.verification.scores[row]
    sides = [int(pairs.left[row]), int(pairs.right[row])]
    pictures = "".join(
        f'<img src="{_data_uri(_picture(report, side))}" alt="{escape(pairs.names[side])}">' for side in sides
    )
    names = " · ".join(dict.fromkeys(escape(_short(pairs.names[side])) for side in sides))
    right = bool(report.verification.correct[row]) if len(report.verification.thresholds) else None
    mark = "" if right is None else " ✓" if right else " ✗"
    return f'<div class="pair"><div>{pictures}</div><p><b>{_signed(score)}{mark}</b><br>{names}</p></div>'


def _signed(score: float) -> str:
    return f"{score:z.3f}".replace("-", "−")


def _picture(report: Report, side: int) -> Picture:
    pair_set = report.pair_set
    if pair_set.templates is not None:
        side = int(np.argmax(pair_set.templates.template == side))
    return pair_set.files[side]


def _short(name: str) -> str:
    """Name/Name_0001.jpg → Name 1."""
    stem = Path(name).stem
    person, _, number = stem.rpartition("_")
    return f"{person.replace('_', ' ')} {int(number)}" if person and number.isdigit() else stem


def _data_uri(picture: Picture) -> str:
    encoded = cv2.imencode(".jpg", decode(picture.read_bytes()), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _config(config: object) -> str:
    if not config:
        return ""
    text = escape(yaml.safe_dump(config, sort_keys=False, default_flow_style=False, allow_unicode=True))
    return f'<section class="config"><h2>Configuration</h2><div class="card"><pre>{text}</pre></div></section>'


def _card(title: str, content: str, style: str = "card") -> str:
    return f'<div class="{style}"><h3>{title}</h3>{content}</div>'


def _span(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} – {interval.high:{form}}".replace("% –", " –")
