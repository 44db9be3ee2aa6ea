"""What a check of a training set found, as a table, JSON, images and a clean list."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ..errors import UserError, printable, printable_lines
from .check import Findings, Limits, Seen
from .identities import Labels
from .images import BadImage, decode
from .sources import Source
from .sources.listing import parse_list
from .suspicions import Suspicion

_SHOWN = 12  # images of a kind on the contact sheet
_SAMPLED = 6  # identities on it, in rows of up to _SHOWN images
_EXAMPLES = 3  # of a kind below the table


def table(
    source: Source,
    seen: Seen,
    findings: Findings,
    limits: Limits,
    suspicions: Sequence[Suspicion] = (),
    left_out: Collection[str] = (),
) -> str:
    """The findings and suspicions as text, with the first few of each kind.

    Args:
        source, seen, findings, limits: see :mod:`~sphereface.data.check`.
        suspicions: of the same source.
        left_out: kinds of suspicions that ``findings.keep`` leaves out too.
    """
    height, width = findings.size
    kept = int(findings.keep.sum())
    counts = Labels.of(source.labels).counts
    lines = [
        f"{len(source):,} images of {len(source.class_names):,} identities, {height}×{width} (height × width)",
        f"images an identity: {counts.min()} to {counts.max()}, median {np.median(counts):g}",
        "",
    ]
    rows = [(what, len(found)) for what, found in _kinds(findings, limits).items()]
    lines += [f"{count:12,}  {what}" for what, count in rows]
    identities = len(np.unique(np.asarray(source.labels)[findings.keep]))
    lines += [_suspicion_row(suspicion, suspicion.kind in left_out) for suspicion in suspicions]
    lines += [f"{kept:12,}  clean images, of {identities:,} identities"]
    examples = [*_examples(source, seen, findings, limits), *_suspect_examples(suspicions)]
    return printable_lines("\n".join([*lines, *(["", *examples] if examples else [])]))


def _suspicion_row(suspicion: Suspicion, left_out: bool) -> str:
    """A line such as ``12  groups of near-duplicates within an identity: 15 images, left out``."""
    verb = "left out" if left_out else f"in the clean list · --leave-out {suspicion.kind}"
    return f"{len(suspicion.suspects):12,}  {suspicion.title} (to look at: {len(suspicion.rows):,} images, {verb})"


def _suspect_examples(suspicions: Sequence[Suspicion]) -> list[str]:
    lines = []
    for suspicion in suspicions:
        if suspicion.suspects:
            lines.append(f"{suspicion.title}; {suspicion.number} {suspicion.threshold}:")
            lines += [f"  - {suspect.number:.3g} {suspect.text}" for suspect in suspicion.suspects[:_EXAMPLES]]
        more = len(suspicion.suspects) - _EXAMPLES
        lines += [f"  … and {more:,} more"] if more > 0 else []
    return lines


def to_dict(
    source: Source,
    seen: Seen,
    findings: Findings,
    limits: Limits,
    suspicions: Sequence[Suspicion] = (),
    left_out: Collection[str] = (),
) -> dict[str, Any]:
    """All findings in plain types for JSON: every image by its path, every identity by its name."""

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
        "label_gaps": findings.gaps,
        "grey": names(findings.grey),
        "suspicions": {
            suspicion.kind: {
                "what": suspicion.title,
                "number": suspicion.number,
                "threshold": suspicion.threshold,
                "left_out": suspicion.kind in left_out,
                "images_to_leave_out": names(suspicion.rows.tolist()),
                "suspects": [
                    {"number": suspect.number, "what": suspect.text, "images": names(suspect.images)}
                    for suspect in suspicion.suspects
                ],
            }
            for suspicion in suspicions
        },
        "num_clean_images": int(findings.keep.sum()),
        "num_clean_identities": len(np.unique(np.asarray(source.labels)[findings.keep])),
        "images_per_identity": dict(zip(map(printable, source.class_names), findings.counts.tolist(), strict=True)),
    }


def clean_list(source: Source, findings: Findings, folder: Path) -> bytes:
    """The clean images as a list that ``data.train`` takes: ``path label`` a line, labels without
    gaps.

    Args:
        source: images that are files of their own.
        findings: which of them are clean.
        folder: where the list will be: paths are relative to it.

    Raises:
        UserError: nothing is left, or an image that no line of a list can name.
    """
    rows = np.flatnonzero(findings.keep)
    if len(rows) == 0:
        raise UserError("--write-list: no image is clean, so there is nothing to list · see the report")
    labels = np.unique(source.labels[rows], return_inverse=True)[1]
    start = os.path.realpath(folder)  # not the images: an identity's folder may be a link, whose own name counts
    paths = [_listed(os.path.relpath(source.name(row), start)) for row in rows.tolist()]
    text = "".join(f"{path} {label}\n" for path, label in zip(paths, labels.tolist(), strict=True)).encode()
    read, read_labels = parse_list(text, "--write-list")
    if read != paths or not np.array_equal(read_labels, labels):
        raise UserError(f"--write-list: {folder}: cannot be named in a list from here · give a file in another folder")
    return text


def _listed(path: str) -> str:
    """A relative path as a list keeps it: a line loses blanks, and a byte order mark, at its
    start.
    """
    return f"./{path}" if path[0].isspace() or path[0] == "\ufeff" else path


def check_listable(source: Source) -> None:
    """See that a list can name the images of a source, before all of them are read.

    Raises:
        UserError: they are inside another file, or one has a name that no line of a list can hold.
    """
    names = list(map(source.name, range(len(source))))
    inside = next((name for name in names if source.mapped), "") or _inside_a_file(names)
    if inside:
        raise UserError(
            f"--write-list: {inside} is no file of its own, so no list can name it · allowed: a folder or "
            "a list · of another form, leave whole identities out with data.exclude"
        )
    for name in names:
        if "\\" in name and not os.path.isfile(name):  # noqa: PTH113 -- escaped: the file has another name
            raise UserError(
                f"--write-list: {name}: no line of a list can hold this name · allowed: names in UTF-8 without line "
                "breaks and other control characters · rename it"
            )


def _inside_a_file(names: Sequence[str]) -> str:
    """Return one of these images that lies inside a file, such as ``x.parquet/row 3``; empty where
    none does.
    """
    folders = {os.path.dirname(name): name for name in names}  # noqa: PTH120 -- a text: a million of them
    return next(
        (
            name
            for folder, name in folders.items()
            if any(os.path.isfile(part) for part in (Path(folder), *Path(folder).parents))  # noqa: PTH113 -- never raises
        ),
        "",
    )


def histogram(findings: Findings, limits: Limits) -> Figure:
    """Images per identity, in bins that double."""
    counts = findings.counts
    edges = np.append(0, 2 ** np.arange(0, max(1, int(counts.max(initial=1)).bit_length()) + 1)) - 0.5
    numbers = np.histogram(counts, edges)[0]
    labels = [_range(int(low + 0.5), int(high - 0.5)) for low, high in pairwise(edges)]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.bar(labels, numbers), fmt="{:,.0f}")
    axes.set(xlabel="usable images of an identity", ylabel="identities")
    axes.set_title(
        f"{len(counts):,} identities, median {np.median(counts):g} images · asked for: "
        f"{limits.min_images} to {limits.max_images:,}"
    )
    return figure


def contact_sheet(source: Source, findings: Findings, limits: Limits, suspicions: Sequence[Suspicion] = ()) -> Figure:
    """The first images of each kind of finding and suspicion, and a seeded sample of clean
    identities, a row each.
    """
    rows = [(f"{what}: {len(found):,}", _indices(found)) for what, found in _kinds(findings, limits).items() if found]
    rows += [
        (f"{suspicion.title}: {len(suspicion.suspects):,}", [row for one in suspicion.suspects for row in one.images])
        for suspicion in suspicions
    ]
    clean = np.unique(np.asarray(source.labels)[findings.keep])
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
    """What to call each kind of finding → its images, groups of images, or identities (as numbers
    below 0).
    """
    return {
        "unreadable": findings.unreadable,
        "truncated": findings.truncated,
        "of another size": findings.wrong_size,
        "images repeated within their identity (the clean list has the first)": findings.repeated,
        "images that stand under several identities (the clean list has none)": findings.shared,
        f"identities with fewer than {limits.min_images} images left": [~label for label in findings.too_few],
        f"identities with more than {limits.max_images:,} images": [~label for label in findings.too_many],
        "numbers without an identity between the labels (no harm: training closes gaps)": [
            ~label for label in findings.gaps
        ],
        "grey (no harm)": findings.grey,
    }


def _indices(found: list[Any]) -> list[int]:
    """The images of a kind, one after the other; those of identities are not shown."""
    flat = [index for item in found for index in (item if isinstance(item, list) else [item])]
    return [index for index in flat if index >= 0]


def _examples(source: Source, seen: Seen, findings: Findings, limits: Limits) -> list[str]:
    shown = {what: found for what, found in _kinds(findings, limits).items() if found and "no harm" not in what}
    lines = []
    for what, found in shown.items():
        lines.append(f"{what}:")
        lines += [f"  - {_describe(source, seen, findings, item)}" for item in found[:_EXAMPLES]]
        lines += [f"  … and {len(found) - _EXAMPLES:,} more"] if len(found) > _EXAMPLES else []
    return lines


def _describe(source: Source, seen: Seen, findings: Findings, item: Any) -> str:
    if isinstance(item, list):
        return " = ".join(source.name(index) for index in item)
    if item < 0:
        return f"{printable(source.class_names[~item])}: {findings.counts[~item]}"
    height, width = seen.sizes[item].tolist()
    return f"{source.name(item)}: {seen.reasons.get(item) or f'{height}×{width}'}"


def _strip(source: Source, indices: Sequence[int], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Images side by side, (H, W·_SHOWN, 3) RGB; what cannot be shown is left white."""
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
