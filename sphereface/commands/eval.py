"""Evaluate a network on LFW as the SphereFace paper does, and on the field's other benchmarks.

    sphereface eval --ckpt runs/sphere20/TIME/last.pt
    sphereface eval --ckpt latest                         # the newest run's
    sphereface eval --ckpt best.pt --pairs data/pairsDevTest.txt
    sphereface eval --ckpt best.pt --lfw my/crops --pairs my/pairs.txt
    sphereface eval --ckpt best.pt --sets lfw=data/lfw-112x96,data/pairs.txt cfp=cfp_fp.bin
    sphereface eval --ckpt best.pt --suite data/bins --html
    sphereface eval --ckpt best.pt --ijb data/ijbc,data/ijbc-crops
    sphereface eval --embeddings mine.npz --identification --all-pairs --quality
    sphereface eval --onnx mine.onnx --spec arcface --sets own=my/crops
    sphereface eval --ckpt best.pt --calibrate
    sphereface eval --compare a/best.pt b/best.pt

LFW's protocol joins the embeddings of a crop and its mirror image, centres them, and compares
them by cosine. View 2 (pairs.txt) is for reporting: each fold is tested with the mean and the
threshold of the others. View 1 is for choosing between models: both come from
pairsDevTrain.txt. Crops are aligned and have the network's size; 112x112 ones are cut to
112x96 where the network needs it. docs/evaluation.md explains every figure and every set.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..data.bins import is_bin
from ..data.walking import check_writable
from ..errors import UserError
from ..evaluation import (
    EvaluationSet,
    PairSet,
    PairsResult,
    QualitySet,
    Report,
    Rule,
    TemplateSet,
    allowed_forms,
    calibration_path,
    compare,
    evaluate_set,
    fit_calibration,
    format_comparison,
    format_table,
    load_pair_set,
    load_set,
    parse_sets,
    write_calibration,
    write_comparison,
    write_html,
    write_report,
)
from ..evaluation.source import Source
from ..evaluation.suite import suite_of, suite_sets, write_suite
from ..evaluation.table import format_rows
from ..evaluation.write import JSON_FILES, MARK
from ..places import Places
from ..small_files import check_replaceable, check_results
from .eval_source import add_source_options, open_source, source_path
from .parser import new_parser

NORM = "norm"


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(__doc__, "eval", program)
    add = parser.add_argument
    add_source_options(parser)
    add("--lfw", metavar="DIR", type=Path, default="data/lfw-112x96", help="aligned crops (%(default)s)")
    add("--pairs", metavar="FILE", type=Path, default="data/pairs.txt", help="list of pairs (%(default)s)")
    add("--dev-train", metavar="FILE", type=Path, help="of view 1 (pairsDevTrain.txt beside --pairs)")
    parser.epilog = "SET (KIND: may be left out where the form is clear):\n" + "\n".join(
        f"  {form}" for form in allowed_forms()
    )
    add("--sets", metavar="NAME=SET", nargs="+", help="any sets in place of --lfw and --pairs; SET: see below")
    add("--suite", metavar="DIR", type=Path, help="every .bin in a folder, in one table with the mean of the five")
    add("--ijb", metavar="DIR[,CROPS]", help="IJB-B or IJB-C by their own files: the same as --sets ijb=ijb:DIR,CROPS")
    add("--identification", action="store_true", help="rank 1 and 5, DIR@FAR among all people in the folder")
    add("--all-pairs", action="store_true", help="every image in the folder against every other")
    add(
        "--quality",
        metavar="FILE",
        nargs="?",
        const=NORM,
        help="error-versus-discard by embedding length, or by a file",
    )
    add("--html", action="store_true", help="write report.html too, which shows the hardest pairs")
    add("--calibrate", action="store_true", help="keep what scores mean beside the file; of a checkpoint, for verify")
    add("--no-mean", dest="centre", action="store_false", help="do not centre the embeddings")
    add("--output", metavar="DIR", type=Path, help="for the results (eval-<pairs> or eval beside the file)")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface eval") -> int:
    """Embed, evaluate, print and write."""
    args = parse(argv, program)
    if args.compare:
        return _compare(args)
    _check_sets(args)
    source = open_source(source_path(args), args)
    sets, rule, reports = _sets(args, [source]), Rule(subtract_mean=args.centre), []
    if args.calibrate and (len(sets) > 1 or not isinstance(sets[0], PairSet)):
        raise UserError(
            f"--calibrate: got {', '.join(each.name for each in sets)} · allowed: one set, of pairs of images"
        )
    more = [_others(args, each) for each in sets]  # what they cannot be used for is said before anything is embedded
    check_writable(_output(args) / "table.txt")
    _check_output(args, sets)
    for each, others in zip(sets, more, strict=True):
        report = evaluate_set(source, each, rule=rule, more=others)
        reports.append(report)
        print(format_table(report), end="\n\n")  # before anything is written, which may fail
        files = write_report(report, folder := _folder(args, each))
        print(f"written: {', '.join(files)} in {folder}\n")
    if args.suite:
        print(format_rows((suite := suite_of(reports)).rows()), end="\n\n")
        write_suite(suite, _output(args))
        print(f"written: suite.txt, suite.json in {_output(args)}\n")
    if args.calibrate:
        print(_calibrate(source, reports))
    if args.html:
        print(f"written: {write_html(reports, _output(args))}")
    return 0


def _check_output(args: argparse.Namespace, sets: Sequence[EvaluationSet]) -> None:
    """Refuse to replace files that are no results of an evaluation, before hours of embedding."""
    for each in sets:
        check_results(_folder(args, each), ("table.txt", *JSON_FILES), MARK)
    if args.suite:
        check_results(_output(args), ("suite.json", "suite.txt"), b'"insightface"')
    if args.html:
        check_replaceable(_output(args) / "report.html", b"Face recognition report", "--output")


def _calibrate(source: Source, reports: Sequence[Report]) -> str:
    """Write the calibration beside the source, and say what it holds."""
    (report,) = reports
    result = report.results[0]
    assert isinstance(result, PairsResult)
    calibration = fit_calibration(
        result.cosines, result.pairs.same,
        checkpoint_sha256=source.sha256, mirror=result.embeddings.mirrored, source=str(result.pairs.path),
    )  # fmt: skip
    path = calibration_path(source.path, is_checkpoint="checkpoint" in source.about())
    write_calibration(calibration, path)
    rows = "\n".join(f"{p.far:7g} {p.threshold:10.4f} {p.tar:8.2%}" for p in calibration.thresholds)
    return (
        f"    FAR  threshold      TAR  (of cosines without a mean subtracted)\n{rows}\n"
        f"P(one person) = 1 / (1 + exp(-({calibration.slope:.3f} × cosine {calibration.offset:+.3f}))), "
        f"where {calibration.prior:.0%} of the pairs are of one person\nwritten: {path}"
    )


def _check_sets(args: argparse.Namespace) -> None:
    """Refuse options that name sets in two ways."""
    given = [name for name in ("suite", "sets", "ijb") if getattr(args, name) is not None]
    if len(given) > 1:
        raise UserError("--suite, --sets, --ijb: got more than one of them · allowed: one; --sets takes any sets")
    if given and args.dev_train is not None:
        raise UserError(
            f"--dev-train: got it with --{given[0]} · allowed with --pairs; in a set write pairs:DIR,PAIRS,DEVTRAIN"
        )


def _sets(args: argparse.Namespace, sources: Sequence[Source]) -> list[EvaluationSet]:
    find_images = any(source.reads_images for source in sources)
    if args.ijb is not None:
        return parse_sets([f"ijb=ijb:{args.ijb}"], find_images=find_images)
    if args.suite:
        return suite_sets(args.suite, find_images=find_images)
    if args.sets:
        return parse_sets(args.sets, find_images=find_images)
    name = args.pairs.stem if is_bin(args.pairs) else args.lfw.resolve().name or "set"
    return [load_pair_set(name, args.lfw, args.pairs, dev_train=args.dev_train, find_images=find_images)]


def _others(args: argparse.Namespace, evaluation_set: EvaluationSet) -> list[EvaluationSet]:
    """Return the protocols that ``--quality``, ``--identification`` and ``--all-pairs`` add to a set."""
    kinds = ["identification"] * args.identification + ["all-pairs"] * args.all_pairs
    quality: list[EvaluationSet] = []
    if args.quality is not None:
        if not isinstance(evaluation_set, PairSet):
            raise UserError(f"{evaluation_set.name}: is no list of pairs of images · --quality needs one")
        quality = [QualitySet.of(evaluation_set, None if args.quality is NORM else Path(args.quality))]
    root = evaluation_set.images.root
    if kinds and (not isinstance(evaluation_set, PairSet) or not root.is_dir()):
        raise UserError(
            f"{evaluation_set.name}: got {root} · allowed with --identification and --all-pairs: a folder of people, "
            "DIR/<person>/<image>, no templates and no .bin"
        )
    return quality + [load_set(evaluation_set.name, Places(kind, (root,))) for kind in kinds]


def _output(args: argparse.Namespace) -> Path:
    name = "eval-suite" if args.suite else "eval" if args.sets or args.ijb is not None else f"eval-{args.pairs.stem}"
    if args.output is not None:
        return Path(args.output)
    source = source_path(args)
    if args.ckpt is None:  # several of them may lie in one folder, beside a checkpoint
        name = f"{source.name}-{name}"
    return source.parent / name


def _folder(args: argparse.Namespace, evaluation_set: EvaluationSet) -> Path:
    """Where the results of a set go: several sets have a folder each."""
    return _output(args) / evaluation_set.name if args.sets or args.suite or args.ijb is not None else _output(args)


def unequal_lines(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Return the lines in which the headings of two results differ, such as what became of the mirror images."""
    return [line for pair in zip(a, b, strict=False) if pair[0] != pair[1] for line in pair]


def _compare(args: argparse.Namespace) -> int:
    """Say of each set which file is better."""
    if args.identification or args.all_pairs or args.html or args.calibrate or args.quality is not None:
        raise UserError(
            "--compare: compares accuracies · omit --identification, --all-pairs, --quality, --html and --calibrate"
        )
    _check_sets(args)
    sources = [open_source(path, args) for path in args.compare]
    sets = _sets(args, sources)
    others = [each.name for each in sets if not isinstance(each, (PairSet, TemplateSet))]
    if others:
        raise UserError(f"--compare: got {', '.join(others)} · allowed: lists of pairs, of images or of templates")
    for each in sets if args.output else ():
        check_writable(_folder(args, each) / "compare.json")
        check_replaceable(_folder(args, each) / "compare.json", b'"verdict"', "--output")
    print(f"A {args.compare[0]}\nB {args.compare[1]}")
    for each in sets:
        rule = Rule(subtract_mean=args.centre)
        a, b = (evaluate_set(source, each, rule=rule).results[0] for source in sources)
        outcome = compare(a, b)
        for name, line in zip("AB", unequal_lines(a.heading(), b.heading()), strict=False):
            print(f"{name}: {line}")
        print(f"\n{format_comparison(each.name, outcome)}")
        if args.output:
            write_comparison(outcome, each.name, _folder(args, each))
    return 0
