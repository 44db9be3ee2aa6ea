"""Check a training set: read and decode every picture, and say what is wrong with it.

    sphereface check data/faces
    sphereface check data/faces --write-list data/faces-clean.txt

SRC is whatever data.train may be: a folder of identities, a list, a zip, a .rec, a tar. Looked for: unreadable,
truncated and grey pictures, pictures of another size, copies (the same pixels twice), the same picture under two
identities, identities with too few or too many images, gaps between labels. A table is printed; report.json,
histogram.png and contact-sheet.jpg go to --output. The sheet shows the faces: keep it where the faces are.

The clean list leaves out what is unusable or repeated and, of a picture under two identities, every copy; it trains
with --set data.train=data/faces-clean.txt. Exit code: 0 nothing is wrong, 1 something is, 2 it could not be checked.
Grey pictures and gaps are reported, but nothing is wrong with them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..data import check_report
from ..data.check import Limits, inspect, judge
from ..data.sources import FolderSource, open_path
from ..data.walking import check_writable, what_lies_at
from ..errors import UserError
from ..files import write_whole
from ..small_files import check_results
from .parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "check", program)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("--root", metavar="DIR", type=Path, help="what the paths of a list are relative to (default: its folder)")
    add("--output", metavar="DIR", type=Path, help="for report and pictures (default: runs/check/<name of SRC>)")
    add("--write-list", metavar="FILE.txt", type=Path, help="write the clean pictures as a list for data.train")
    add("--size", metavar="HxW", help="height and width all must have, as 112x96 (default: what most have)")
    add("--min-images", metavar="N", type=int, default=2, help="of an identity (default: %(default)s)")
    add("--max-images", metavar="N", type=int, default=1000, help="of an identity (default: %(default)s)")
    add("--workers", metavar="N", type=int, default=os.cpu_count(), help="processes (default: one a core, %(default)s)")
    return parser.parse_args(argv)


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


def run(argv: Sequence[str] | None, program: str = "sphereface check") -> int:
    """Check, print, write."""
    args = parse(argv, program)
    limits = limits_of(args)
    source = open_path(args.source, root=args.root, key="SRC")
    if len(source) == 0:
        raise UserError(f"{args.source}: got no pictures · allowed: SRC/<identity>/<picture>, or another form")
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
    seen = inspect(source, workers=args.workers, progress=True)
    findings = judge(source, seen, limits)
    print(check_report.table(source, seen, findings, limits))
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box in the place of such a name
    try:
        write_whole(
            output / "report.json",
            json.dumps(check_report.to_dict(source, seen, findings, limits), indent=1, ensure_ascii=False) + "\n",
        )
        _save(check_report.histogram(findings, limits), output / "histogram.png")
        _save(check_report.contact_sheet(source, findings, limits), output / "contact-sheet.jpg")
        print(f"\nwritten: report.json, histogram.png and contact-sheet.jpg in {output}")
        if args.write_list:
            write_whole(args.write_list, check_report.clean_list(source, findings, args.write_list.parent))
            print(f"written: {args.write_list} · train on it: --set data.train={args.write_list}")
    except OSError as error:
        raise UserError(f"{error.filename or output}: cannot be written ({error.strerror})") from error
    return 0 if findings.clean else 1


def _save(figure: Figure, path: Path) -> None:
    """Write a figure as a whole."""
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=120), durable=False)
