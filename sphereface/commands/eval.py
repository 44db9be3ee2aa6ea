"""Verify a checkpoint on LFW as the SphereFace paper does, and on any other set of pairs.

    sphereface eval --ckpt runs/sphere20/TIME/last.pt
    sphereface eval --ckpt best.pt --pairs data/pairsDevTest.txt
    sphereface eval --ckpt best.pt --lfw my/crops --pairs my/pairs.txt
    sphereface eval --ckpt best.pt --sets lfw=data/lfw-112x96,data/pairs.txt cfp=cfp_fp.bin
    sphereface eval --ckpt best.pt --identification --all-pairs --html
    sphereface eval --ckpt best.pt --calibrate
    sphereface eval --compare a/best.pt b/best.pt

Features of crop and mirror image are joined, centred, and compared by cosine. View 2
(pairs.txt) is for reporting: each fold is tested with the mean and the threshold of the
others. View 1 is for choosing between models: both come from pairsDevTrain.txt. Crops
are aligned, of the network's size; 112x112 ones are cut to 112x96 where need be.
docs/evaluation.md says what each figure means.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..data.bins import is_bin
from ..device import DEVICES, choose_device
from ..errors import UserError
from ..evaluation import (
    Embedder,
    PairSet,
    Report,
    Verification,
    calibration_path,
    compare,
    evaluate_set,
    fit_calibration,
    format_comparison,
    format_table,
    load_pair_set,
    parse_sets,
    write_calibration,
    write_comparison,
    write_html,
    write_report,
)
from ..evaluation.sets import ALLOWED
from .parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "eval", program, argparse.RawTextHelpFormatter)
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ckpt", metavar="FILE", type=Path, help="checkpoint, such as runs/…/best.pt")
    which.add_argument("--compare", metavar=("A", "B"), type=Path, nargs=2, help="does checkpoint B beat A?")
    add("--lfw", metavar="DIR", type=Path, default="data/lfw-112x96", help="aligned crops (%(default)s)")
    add("--pairs", metavar="FILE", type=Path, default="data/pairs.txt", help="list of pairs (%(default)s)")
    add("--dev-train", metavar="FILE", type=Path, help="of view 1 (pairsDevTrain.txt beside --pairs)")
    add("--sets", metavar="NAME=…", nargs="+", help="instead of --lfw and --pairs:\n" + ALLOWED.replace(", ", ",\n"))
    add("--identification", action="store_true", help="rank 1 and 5, DIR@FAR among all people in the folder")
    add("--all-pairs", action="store_true", help="every picture in the folder against every other")
    add("--html", action="store_true", help="report.html too: holds the hardest pairs as pictures")
    add("--calibrate", action="store_true", help="keep what scores mean beside the checkpoint, for sphereface verify")
    add("--no-flip", dest="flip", action="store_false", help="leave the mirror images out")
    add("--no-mean", dest="mean", action="store_false", help="do not centre the features")
    add("--output", metavar="DIR", type=Path, help="for the results (eval-<pairs> or eval beside the checkpoint)")
    add("--no-cache", dest="cache", action="store_false", help="do not keep embeddings beside the checkpoint")
    add("--device", default="auto", help=f"{', '.join(DEVICES)} or cuda:N (%(default)s)")
    add("--precision", choices=["fp32", "bf16"], default="fp32", help="of the network (%(default)s)")
    add("--batch-size", metavar="N", type=int, default=64, help="crops at a time (%(default)s)")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface eval") -> int:
    """Embed, verify, print and write."""
    args = parse(argv, program)
    if args.batch_size < 1:
        raise UserError(f"--batch-size: got {args.batch_size} · allowed: 1 or more")
    if args.compare:
        return _compare(args)
    embedder, sets, reports = _embedder(args, args.ckpt), _sets(args), []
    if args.calibrate and (len(sets) > 1 or sets[0].templates is not None):
        raise UserError(
            f"--calibrate: got {', '.join(pair_set.name for pair_set in sets)} · allowed: one set, of single pictures"
        )
    for pair_set in sets:
        report = evaluate_set(
            embedder, pair_set, subtract_mean=args.mean, identification=args.identification, every_pair=args.all_pairs
        )
        reports.append(report)
        write_report(report, folder := _folder(args, pair_set))
        print(f"{format_table(report)}\n\nwritten: table.txt, verification.json and roc.png in {folder}\n")
    if args.calibrate:
        print(_calibrate(args, reports))
    if args.html:
        print(f"written: {write_html(reports, _output(args))}")
    return 0


def _calibrate(args: argparse.Namespace, reports: Sequence[Report]) -> str:
    """Write the calibration beside the checkpoint, and say what it holds."""
    (report,) = reports
    assert report.cosines is not None
    calibration = fit_calibration(
        report.cosines, report.pair_set.pairs.same,
        checkpoint_sha256=report.about["checkpoint_sha256"], flip=report.flip, source=str(report.pair_set.pairs.path),
    )  # fmt: skip
    write_calibration(calibration, path := calibration_path(args.ckpt))
    rows = "\n".join(f"{p.far:7g} {p.threshold:10.4f} {p.tar:8.2%}" for p in calibration.thresholds)
    return (
        f"    FAR  threshold      TAR  (of cosines without a mean subtracted)\n{rows}\n"
        f"P(one person) = 1 / (1 + exp(-({calibration.slope:.3f} × cosine {calibration.offset:+.3f}))), "
        f"where {calibration.prior:.0%} of the pairs are of one person\nwritten: {path}"
    )


def _sets(args: argparse.Namespace) -> list[PairSet]:
    if args.sets:
        return parse_sets(args.sets)
    name = args.pairs.stem if is_bin(args.pairs) else args.lfw.resolve().name
    return [load_pair_set(name, args.lfw, args.pairs, dev_train=args.dev_train)]


def _output(args: argparse.Namespace) -> Path:
    name = "eval" if args.sets else f"eval-{args.pairs.stem}"
    output: Path = args.output or args.ckpt.parent / name
    return output


def _folder(args: argparse.Namespace, pair_set: PairSet) -> Path:
    """Where the results of a set go: several sets have a folder each."""
    return _output(args) / pair_set.name if args.sets else _output(args)


def _embedder(args: argparse.Namespace, checkpoint: Path) -> Embedder:
    return Embedder(
        checkpoint, device=choose_device(args.device), flip=args.flip, precision=args.precision,
        batch_size=args.batch_size, cache=checkpoint.parent / "embeddings" if args.cache else None,
        progress="embedding",
    )  # fmt: skip


def _compare(args: argparse.Namespace) -> int:
    """Say of each set which checkpoint is better."""
    if args.identification or args.all_pairs or args.html or args.calibrate:
        raise UserError(
            "--compare: compares accuracies · leave --identification, --all-pairs, --html and --calibrate out"
        )
    a, b = (_embedder(args, checkpoint) for checkpoint in args.compare)
    sets = _sets(args)
    print(f"A {args.compare[0]}\nB {args.compare[1]}")
    for pair_set in sets:
        outcome = compare(*(_verify(embedder, pair_set, args.mean) for embedder in (a, b)))
        print(f"\n{format_comparison(pair_set.name, outcome)}")
        if args.output:
            write_comparison(outcome, pair_set.name, _folder(args, pair_set))
    return 0


def _verify(embedder: Embedder, pair_set: PairSet, subtract_mean: bool) -> Verification:
    return pair_set.verify(embedder.embed(pair_set.files), subtract_mean=subtract_mean)
