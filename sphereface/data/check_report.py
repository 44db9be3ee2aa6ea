"""Report the result of a check of a training set as a table, JSON and images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ..errors import count_of, printable, printable_lines, shown
from .check import Findings, Inspection, Limits
from .identities import Labels
from .images import BadImage, decode
from .sources import Source
from .suspicions import Suspicion

T = TypeVar("T")

_SHOWN = 12  # images of a kind on the contact sheet
_SAMPLED = 6  # identities on it, in rows of up to _SHOWN images
_EXAMPLES = 3  # of a kind, below the table


@dataclass(frozen=True)
class CheckResult:
    """Everything that a check of a training set found.

    Attributes:
        source: the training set.
        seen, findings, limits: see :mod:`~sphereface.data.check`.
        suspicions: of the same source.
        left_out: kinds of suspicions that ``findings.keep`` excludes too.
    """

    source: Source
    seen: Inspection
    findings: Findings
    limits: Limits
    suspicions: Sequence[Suspicion] = ()
    left_out: Collection[str] = ()

    @property
    def clean_labels(self) -> npt.NDArray[np.integer]:
        """(K,) labels of the identities in the clean set, sorted."""
        return np.unique(np.asarray(self.source.labels)[self.findings.keep])


def table(result: CheckResult) -> str:
    """Return the findings and suspicions as text, with the first few of each kind."""
    source, findings = result.source, result.findings
    height, width = findings.size
    counts = Labels.of(source.labels).counts
    lines = [
        f"{count_of(len(source), 'image', 'images')} of {count_of(len(source.class_names), 'identity', 'identities')}, "
        f"{height}×{width} (height × width)",
        f"images per identity: {counts.min()} to {counts.max()}, median {np.median(counts):g}",
        "",
    ]
    lines += [f"{len(found):12,}  {what}" for what, found in _kinds(findings, result.limits).items()]
    lines += [_suspicion_row(suspicion, suspicion.kind in result.left_out) for suspicion in result.suspicions]
    lines += [f"{int(findings.keep.sum()):12,}  clean images, of {len(result.clean_labels):,} identities"]
    examples = [*_examples(result), *_suspect_examples(result.suspicions)]
    return printable_lines("\n".join([*lines, *(["", *examples] if examples else [])]))


def _suspicion_row(suspicion: Suspicion, left_out: bool) -> str:
    """Return a line such as ``12  groups of near-duplicates (suspects: 15 images, left out)``."""
    verb = "left out" if left_out else f"in the clean list · --leave-out {suspicion.kind}"
    return f"{len(suspicion.suspects):12,}  {suspicion.title} (suspects: {len(suspicion.rows):,} images, {verb})"


def _suspect_examples(suspicions: Sequence[Suspicion]) -> list[str]:
    lines = []
    for suspicion in suspicions:
        title = f"{suspicion.title}; {suspicion.number} {suspicion.threshold}"
        lines += _first_of(title, suspicion.suspects, lambda suspect: f"{suspect.number:.3g} {suspect.text}")
    return lines


def _first_of(title: str, found: Sequence[T], describe: Callable[[T], str]) -> list[str]:
    """Return a title, the first few that were found, and the number of the others."""
    if not found:
        return []
    more = [f"  … and {len(found) - _EXAMPLES:,} more"] if len(found) > _EXAMPLES else []
    return [f"{title}:", *(f"  - {describe(one)}" for one in found[:_EXAMPLES]), *more]


def to_dict(result: CheckResult) -> dict[str, Any]:
    """Return all findings in plain types for JSON: images by path, identities by name."""
    source, seen, findings, limits = result.source, result.seen, result.findings, result.limits

    def names(indices: Sequence[int]) -> list[str]:
        return [source.name(index) for index in indices]

    def identities(labels: Sequence[int]) -> dict[str, int]:
        return {printable(source.class_names[label]): int(findings.counts[label]) for label in labels}

    return {
        "num_images": len(source),
        "num_identities": len(source.class_names),
        "size_hw": list(findings.size),
        "min_images": limits.min_images,
        "max_images": limits.max_images,
        "clean": findings.clean,
        "unreadable": {source.name(index): seen.reasons[index] for index in findings.unreadable},
        "truncated": {source.name(index): seen.reasons[index] for index in findings.truncated},
        "wrong_size_hw": {source.name(index): seen.sizes[index].tolist() for index in findings.wrong_size},
        "repeated": [names(group) for group in findings.repeated],
        "under_several_identities": [names(group) for group in findings.shared],
        "too_few_images": identities(findings.too_few),
        "too_many_images": identities(findings.too_many),
        "names_in_several_spellings": [
            [printable(source.class_names[label]) for label in group] for group in findings.spellings
        ],
        "label_gaps": findings.gaps,
        "grey": names(findings.grey),
        "suspicions": {
            suspicion.kind: {
                "what": suspicion.title,
                "number": suspicion.number,
                "threshold": suspicion.threshold,
                "left_out": suspicion.kind in result.left_out,
                "images_to_leave_out": names(suspicion.rows.tolist()),
                "suspects": [
                    {"number": suspect.number, "what": suspect.text, "images": names(suspect.images)}
                    for suspect in suspicion.suspects
                ],
            }
            for suspicion in result.suspicions
        },
        "num_clean_images": int(findings.keep.sum()),
        "num_clean_identities": len(result.clean_labels),
        "images_per_identity": dict(zip(map(printable, source.class_names), findings.counts.tolist(), strict=True)),
    }


def histogram(findings: Findings, limits: Limits) -> Figure:
    """Draw the numbers of images per identity, in bins that double."""
    counts = findings.counts
    edges = np.append(0, 2 ** np.arange(0, max(1, int(counts.max(initial=1)).bit_length()) + 1)) - 0.5
    numbers = np.histogram(counts, edges)[0]
    labels = [_range(int(low + 0.5), int(high - 0.5)) for low, high in pairwise(edges)]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.bar(labels, numbers), fmt="{:,.0f}")
    axes.set(xlabel="usable images of an identity", ylabel="identities")
    axes.set_title(
        f"{len(counts):,} identities, median {np.median(counts):g} images · allowed: "
        f"{limits.min_images} to {limits.max_images:,}"
    )
    return figure


def contact_sheet(result: CheckResult) -> Figure:
    """Draw the first images of each finding and suspicion, and a sample of clean identities.

    Each has a row. The sample is the same for the same result.
    """
    source, findings = result.source, result.findings
    rows = [
        (f"{what}: {len(found):,}", _indices(found)) for what, found in _kinds(findings, result.limits).items() if found
    ]
    rows += [
        (f"{suspicion.title}: {len(suspicion.suspects):,}", [row for one in suspicion.suspects for row in one.images])
        for suspicion in result.suspicions
    ]
    clean = result.clean_labels
    sample = np.sort(np.random.default_rng(0).choice(clean, min(_SAMPLED, len(clean)), replace=False))
    for label in sample.tolist():
        start, end = Labels.of(source.labels).firsts[label : label + 2]
        images = (start + np.flatnonzero(findings.keep[start:end])).tolist()
        rows.append((f"sample: {printable(source.class_names[label])}, {len(images)} images", images))
    strips = [(title, _strip(source, indices[:_SHOWN], findings.size)) for title, indices in rows if indices]
    figure = Figure(figsize=(12, max(1.35 * len(strips), 1.5)), layout="constrained")
    grid = figure.subplots(max(len(strips), 1), 1, squeeze=False)[:, 0]
    for axes in grid:
        axes.axis("off")
    for axes, (title, strip) in zip(grid, strips, strict=False):
        axes.imshow(strip)
        axes.set_title(title, fontsize="small", loc="left", parse_math=False)
    return figure


def _kinds(findings: Findings, limits: Limits) -> dict[str, list[Any]]:
    """Return title → images, groups of images, or identities (as numbers below 0)."""
    return {
        "unreadable": findings.unreadable,
        "truncated": findings.truncated,
        "of another size": findings.wrong_size,
        "images repeated within their identity (the clean list has the first)": findings.repeated,
        "images under several identities (the clean list has none)": findings.shared,
        f"identities with fewer than {limits.min_images} images left": [~label for label in findings.too_few],
        f"identities with more than {limits.max_images:,} images": [~label for label in findings.too_many],
        "names in more than one spelling (one person? give each one spelling)": [
            [~label for label in group] for group in findings.spellings
        ],
        "missing numbers between the labels (no harm: training closes gaps)": [~label for label in findings.gaps],
        "grey (no harm)": findings.grey,
    }


def _indices(found: list[Any]) -> list[int]:
    """Return the images of a kind in sequence; identities have none here."""
    flat = [index for item in found for index in (item if isinstance(item, list) else [item])]
    return [index for index in flat if index >= 0]


def _examples(result: CheckResult) -> list[str]:
    kinds = _kinds(result.findings, result.limits).items()
    shown = [(what, found) for what, found in kinds if "no harm" not in what]
    return [line for kind in shown for line in _first_of(*kind, lambda item: _describe(result, item))]


def _describe(result: CheckResult, item: Any) -> str:
    source, seen = result.source, result.seen
    if isinstance(item, list):
        names = source.class_names
        return " = ".join(shown(names[~row]) if row < 0 else source.name(row) for row in item)
    if item < 0:
        return f"{printable(source.class_names[~item])}: {result.findings.counts[~item]}"
    height, width = seen.sizes[item].tolist()
    return f"{source.name(item)}: {seen.reasons.get(item) or f'{height}×{width}'}"


def _strip(source: Source, indices: Sequence[int], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return images side by side, (H, W·_SHOWN, 3) RGB; unusable ones are white."""
    height, width = size
    strip = np.full((height, width * _SHOWN, 3), 255, dtype=np.uint8)
    for place, index in enumerate(indices):
        try:
            image = decode(source.read(index))
        except (BadImage, OSError):
            continue
        strip[:, place * width : (place + 1) * width] = cv2.resize(image, (width, height))[..., ::-1]
    return strip


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"
