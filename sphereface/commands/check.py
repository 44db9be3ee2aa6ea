"""Do what ``sphereface check`` says; its options are in
:mod:`sphereface.commands.parsers.check`.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from ..alignment.report import earlier_run
from ..data import check_report
from ..data.check import Findings, Limits, Seen, inspect, judge
from ..data.sources import FolderSource, Source, open_path
from ..data.suspicions import Suspicion, near_duplicates, several_faces, without
from ..data.walking import check_writable, what_lies_at
from ..errors import UserError
from ..files import write_whole
from ..small_files import check_results

BY_NETWORK = ("unlike-own", "same-person", "in-verification")
"""Suspicions that need ``--ckpt``."""


def limits_of(args: argparse.Namespace) -> Limits:
    """What the options ask of the set."""
    if args.workers < 0:
        raise UserError(f"--workers: got {args.workers} · allowed: 0 (this process alone) or more")
    if not 1 <= args.min_images <= args.max_images:
        raise UserError(
            f"--min-images, --max-images: got {args.min_images} and {args.max_images} · allowed: 1 ≤ min ≤ max"
        )
    if args.size is None:
        return Limits(None, args.min_images, args.max_images)
    size = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", args.size)
    if size is None:
        raise UserError(f"--size: got {args.size!r} · allowed: height x width in pixels, such as 112x96")
    return Limits((int(size[1]), int(size[2])), args.min_images, args.max_images)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that need another one."""
    if args.against and not args.ckpt:
        raise UserError("--against: needs a network to compare people · add --ckpt FILE")
    needs = [kind for kind in args.leave_out or () if kind in BY_NETWORK and not args.ckpt]
    if needs:
        raise UserError(f"--leave-out: got {needs[0]}, which only a network finds · add --ckpt FILE")
    if "in-verification" in (args.leave_out or ()) and not args.against:
        raise UserError("--leave-out: got in-verification without a verification set · add --against SET")
    if args.leave_out and not args.write_list:
        raise UserError("--leave-out: is for the list of clean images · add --write-list FILE.txt, or omit it")


def open_network(args: argparse.Namespace, source: Source) -> Callable[[Seen, Findings, Path], list[Suspicion]] | None:
    """Return what finds the suspicions that need a network; None without ``--ckpt``.

    Raises:
        UserError: the network, or a verification set, cannot be read, or the images are of another
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

    embedder = Embedder.of_checkpoint(args.ckpt, device=choose_device(args.device), flip=False)
    check_size(source, embedder)
    sets = [load_set(text, parse_places(text)) for text in args.against or ()]
    return lambda seen, findings, kept: LabelSuspicions(source, seen, findings, embedder, kept).all(sets)


def _several_faces(source: Source) -> list[Suspicion]:
    """Crops of images with several faces, where the report of ``sphereface align`` lies beside the
    crops.
    """
    if not isinstance(source, FolderSource) or (earlier := earlier_run(source.root)) is None:
        return []
    paths = [source.name(row).removeprefix(f"{source.root}/") for row in range(len(source))]
    return [several_faces(source, paths, earlier.several_faces)]


def run(args: argparse.Namespace) -> int:
    """Check, print, write."""
    limits = limits_of(args)
    check_options(args)
    source = open_path(args.source, root=args.root, key="SRC")
    if len(source) == 0:
        raise UserError(f"{args.source}: got no images · allowed: SRC/<identity>/<image>, or another form")
    output = args.output or Path("runs/check") / args.source.resolve().stem
    for option, folder in (("--output", output), ("--write-list", args.write_list and args.write_list.parent)):
        if folder is not None and what_lies_at(folder, option) not in ("folder", "nothing"):
            raise UserError(f"{option}: {folder}: got a file · allowed: a folder, which is made if need be")
    if isinstance(source, FolderSource) and output.resolve().is_relative_to(source.root.resolve()):
        raise UserError(
            f"--output: got {output}{'' if args.output else ' (the default)'}, inside {source.root} · allowed: a "
            "folder elsewhere: training would take the report's images for one more person · give --output DIR"
        )
    for path in (output / "report.json", *([args.write_list] if args.write_list else [])):
        check_writable(path)
    check_results(output, ("report.json", "histogram.png", "contact-sheet.jpg"), b'"num_identities"')
    if args.write_list:
        if args.write_list.suffix.lower() != ".txt":
            raise UserError(f"--write-list: got {args.write_list} · allowed: a name that ends in .txt, as lists do")
        if args.write_list.exists() and args.write_list.samefile(args.source):
            raise UserError(
                f"--write-list: {args.write_list}: is SRC itself · allowed: another file, so that SRC stays"
            )
        check_report.check_listable(source)
    by_network = open_network(args, source)
    several = _several_faces(source)
    seen = inspect(source, workers=args.workers, progress=True)
    findings = judge(source, seen, limits)
    suspicions = [*near_duplicates(source, seen, findings), *several]
    suspicions += by_network(seen, findings, output / "embeddings") if by_network else []
    left_out = args.leave_out or ()
    findings = without(source, findings, suspicions, left_out, limits)
    print(check_report.table(source, seen, findings, limits, suspicions, left_out))
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box in the place of such a name
    place = output
    found = check_report.to_dict(source, seen, findings, limits, suspicions, left_out)
    try:
        write_whole(
            output / "report.json",
            json.dumps(found, indent=1, ensure_ascii=False) + "\n",
        )
        _save(check_report.histogram(findings, limits), output / "histogram.png")
        _save(check_report.contact_sheet(source, findings, limits, suspicions), output / "contact-sheet.jpg")
        print(f"\nwritten: report.json, histogram.png and contact-sheet.jpg in {output}")
        if args.write_list:
            place = args.write_list
            write_whole(args.write_list, check_report.clean_list(source, findings, args.write_list.parent))
            print(f"written: {args.write_list} · train on it: --set data.train={args.write_list}")
    except OSError as error:
        raise UserError(f"{error.filename or place}: cannot be written ({error.strerror})") from error
    return 0 if findings.clean else 1


def _save(figure: Figure, path: Path) -> None:
    """Write a figure as a whole."""
    drawn = io.BytesIO()  # Pillow does not notice a short write to a file
    figure.savefig(drawn, format=path.suffix[1:], dpi=120)
    write_whole(path, drawn.getvalue(), durable=False)
