"""Run ``sphereface check``; its options are in :mod:`.parsers.check`."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..alignment.earlier_report import earlier_run
from ..alignment.near_reports import folders_of, report_near, warn_of_unfinished_crops
from ..alignment.report import REPORT_NAME
from ..data import check_report
from ..data.check import Findings, Inspection, Limits, inspect, judge
from ..data.clean_list import check_listable, clean_list
from ..data.sources import FolderSource, Source, open_path
from ..data.sources.base import FileSource
from ..data.suspicions import Suspicion, near_duplicates, several_faces, without
from ..data.walking import check_writable, kind_of_path
from ..errors import UserError, printable, refusing
from ..files import write_whole
from ..small_files import check_results, read_text
from ..training.heartbeat import EVERY, Heartbeat
from .input_options import parse_size
from .printed_options import setting

BY_NETWORK = ("unlike-own", "same-person", "in-verification")
"""Suspicions that need ``--ckpt``."""

_LARGEST_REPORT = 1 << 28  # bytes


def limits_of(args: argparse.Namespace) -> Limits:
    """Return the limits that the options set."""
    if args.workers < 0:
        raise UserError(f"--workers: got {args.workers} · allowed: 0 (this process alone) or more")
    least, most = args.min_images, args.max_images
    if not 1 <= least <= most:
        raise UserError(f"--min-images, --max-images: got {least} and {most} · allowed: 1 ≤ min ≤ max")
    return Limits(parse_size("--size", args.size), least, most)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that need another option."""
    if args.against and not args.ckpt:
        raise UserError("--against: needs a network to compare people · add --ckpt FILE")
    needs = [kind for kind in args.leave_out or () if kind in BY_NETWORK and not args.ckpt]
    if needs:
        raise UserError(f"--leave-out: got {needs[0]}, which only a network finds · add --ckpt FILE")
    if "in-verification" in (args.leave_out or ()) and not args.against:
        raise UserError("--leave-out: got in-verification without a verification set · add --against SET")
    if args.leave_out and not args.write_list:
        raise UserError("--leave-out: needs a list of clean images · add --write-list FILE.txt, or omit --leave-out")


def open_network(
    args: argparse.Namespace, source: Source
) -> Callable[[Inspection, Findings, Path], list[Suspicion]] | None:
    """Return the function that finds the suspicions that need a network; None without ``--ckpt``.

    Raises:
        UserError: the network or a verification set cannot be read, or the images have another
            size.
    """
    if not args.ckpt:
        return None
    # imported here: a check without a network does not need them
    from ..device import choose_device
    from ..evaluation import load_set
    from ..evaluation.embed_source import check_size
    from ..evaluation.embedder import Embedder
    from ..evaluation.label_suspicions import LabelSuspicions
    from ..places import parse_places

    embedder = Embedder.of_checkpoint(args.ckpt, device=choose_device(args.device), mirror="none")
    check_size(source, embedder)
    sets = [load_set(text, parse_places(text)) for text in args.against or ()]
    return lambda seen, findings, kept: LabelSuspicions(source, seen, findings, embedder, kept).all(sets)


def _several_faces(args: argparse.Namespace, source: Source) -> list[Suspicion]:
    """Return the crops of images with several faces, from the reports of ``sphereface align``.

    Raises:
        UserError: there is no report, although ``--leave-out`` needs one.
    """
    folders = folders_of(args.source, args.root) if isinstance(source, FileSource) else []
    places = {path.parent for path in map(report_near, folders) if path is not None}
    if not places:
        if "several-faces" in (args.leave_out or ()):
            raise UserError(
                f"--leave-out: got several-faces, but {args.source} has no {REPORT_NAME} · allowed: crops of "
                "sphereface align in their folder, or a list of them · omit several-faces"
            )
        return []
    several = {
        f"{os.path.realpath(place)}/{name}"
        for place in places
        if (earlier := earlier_run(place))
        for name in earlier.several_faces
    }
    folder_and_name = [os.path.split(source.name(row)) for row in range(len(source))]
    real = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in folder_and_name}}
    return [several_faces(source, [f"{real[folder]}/{name}" for folder, name in folder_and_name], several)]


def check_output(output: Path, source: Source, *, is_default: bool) -> None:
    """Refuse a folder for the report that cannot take it, or that is part of the checked set."""
    _check_folder(output, "--output")
    if isinstance(source, FolderSource) and output.resolve().is_relative_to(source.root.resolve()):
        raise UserError(
            f"--output: got {output}{' (the default)' if is_default else ''}, inside {source.root} · allowed: a folder "
            "outside it; inside, training would read the report's images as one more person · give --output DIR"
        )
    check_writable(output / "report.json")
    check_results(output, ("report.json", "histogram.png", "contact-sheet.jpg"), b'"num_identities"')


def check_list_path(path: Path, source_path: Path) -> None:
    """Refuse a path for the clean list that cannot be written, or where a file exists."""
    _check_folder(path.parent, "--write-list")
    check_writable(path)
    if path.suffix.lower() != ".txt":
        raise UserError(f"--write-list: got {path} · allowed: a name that ends in .txt, as lists do")
    if path.exists() and source_path.exists() and path.samefile(source_path):
        raise UserError(f"--write-list: got {path}, which is SRC · allowed: another file, so that SRC is kept")
    _check_new(path)


def _check_new(path: Path) -> None:
    """Refuse a list that exists: it may be the only one of its kind, or corrected by hand."""
    if os.path.lexists(path):
        raise UserError(
            f"--write-list: {path}: exists already · allowed: a new file · give another name, or delete it first if it "
            "is an earlier clean list"
        )


def _check_folder(folder: Path, option: str) -> None:
    if kind_of_path(folder, option) not in ("folder", "nothing"):
        raise UserError(f"{option}: {folder}: got a file · allowed: a folder, which the command creates if missing")


def run(args: argparse.Namespace) -> int:
    """Check the set, print the table, write the report and the clean list."""
    limits = limits_of(args)
    check_options(args)
    if args.write_list:
        check_list_path(args.write_list, args.source)
    source = open_path(args.source, root=args.root, key="SRC")
    warn_of_unfinished_crops(args.source, args.root)
    if len(source) == 0:
        raise UserError(f"{args.source}: got no images · allowed: SRC/<identity>/<image>, or another form")
    output = args.output or Path("runs/check") / args.source.resolve().stem
    check_output(output, source, is_default=args.output is None)
    if args.write_list:
        check_listable(source)
    by_network = open_network(args, source)
    several = _several_faces(args, source)
    seen = inspect(source, workers=args.workers, progress=True)
    findings = judge(source, seen, limits)
    with Heartbeat(_says_how_long(f"searching near-duplicates of {findings.keep.sum():,} images"), first=EVERY):
        suspicions = [*near_duplicates(source, seen, findings), *several]
    suspicions += by_network(seen, findings, output / "embeddings") if by_network else []
    left_out = args.leave_out or ()
    findings = without(source, findings, suspicions, left_out, limits)
    result = check_report.CheckResult(source, seen, findings, limits, suspicions, left_out)
    print(check_report.table(result))
    figures = {
        "histogram.png": lambda: check_report.histogram(findings, limits),
        "contact-sheet.jpg": lambda: check_report.contact_sheet(result),
    }
    place = printable(os.path.realpath(args.source))
    replaced = _source_of(output / "report.json")
    _write(output, {"source": place, **check_report.to_dict(result)}, figures)
    if replaced not in ("", place):
        print(f"replaced: the report of {printable(replaced)} · to keep each report, give a folder with --output")
    if args.write_list:
        _write_list(args.write_list, clean_list(source, findings, args.write_list.parent))
    return 0 if findings.clean else 1


def _says_how_long(what: str) -> Callable[[], None]:
    """Return a function that prints on stderr what the command does, and since when."""
    start = time.monotonic()
    return lambda: print(f"{what}: {time.monotonic() - start:.0f} s so far", file=sys.stderr)


def _source_of(report: Path) -> str:
    """Return the set of which an earlier report is; empty if that is unknown, or there is none."""
    try:
        source = json.loads(read_text(report, most=_LARGEST_REPORT))["source"]
        return source if isinstance(source, str) else ""
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def _write(output: Path, report: Mapping[str, Any], figures: Mapping[str, Callable[[], Figure]]) -> None:
    """Write the report and its figures to the folder ``output``."""
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box replaces the letter
    try:
        write_whole(output / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        for name, draw in figures.items():
            _save(draw(), output / name)
    except OSError as error:
        raise UserError(f"{error.filename or output}: cannot be written ({error.strerror})") from error
    print(f"\nwritten: report.json, {' and '.join(figures)} in {output}")


def _write_list(path: Path, content: bytes) -> None:
    """Write the list of clean images."""
    with refusing(f"{path}: cannot be written"):
        if not path.is_file() or path.read_bytes() != content:  # another command may have written it
            _check_new(path)
            write_whole(path, content)
    print(f"written: {path} · train on it: {setting('data.train', str(path))}")


def _save(figure: Figure, path: Path) -> None:
    """Write a whole figure or nothing."""
    drawn = io.BytesIO()  # Pillow does not notice a short write to a file
    figure.savefig(drawn, format=path.suffix[1:], dpi=120)
    write_whole(path, drawn.getvalue(), durable=False)
