"""Run ``sphereface eval``; its options are in :mod:`.parsers.eval`."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ..alignment.kept_settings import note_on_template, settings_near
from ..alignment.near_reports import warn_of_unfinished
from ..data.bins import is_bin
from ..data.walking import check_writable
from ..errors import UserError, shown_key
from ..evaluation import (
    EvaluationSet,
    PairSet,
    QualitySet,
    Rule,
    TemplateSet,
    compare,
    evaluate_set,
    format_comparison,
    format_table,
    load_pair_set,
    load_set,
    parse_sets,
    write_comparison,
    write_html,
    write_report,
)
from ..evaluation.replaced import replaced_results, replaced_suite, results_in
from ..evaluation.run_set import check_set
from ..evaluation.shared_people import identities_of, shared_people
from ..evaluation.source import Source
from ..evaluation.suite import Suite, suite_of, suite_sets, write_suite
from ..evaluation.table import format_rows
from ..evaluation.write import JSON_FILES, MARK, remove_marked
from ..places import Places
from ..small_files import check_replaceable, check_results
from ..weights import CHECKPOINT, output_place
from .eval_calibration import calibrate, calibration_place
from .eval_source import open_source, source_path
from .parsers.eval import LFW, NORM, PAIRS

HTML_MARK, SUITE_MARK = b"<h1>Face recognition report</h1>", b'"insightface"'
"""Texts that every report.html and every suite.json contain."""


def run(args: argparse.Namespace) -> int:
    """Embed the images, evaluate, print the tables and write the results."""
    if args.compare:
        return _compare(args)
    _check_sets(args)
    source = open_source(source_path(args), args)
    sets, rule, reports = _sets(args, [source]), Rule(subtract_mean=args.centre), []
    if args.calibrate and (len(sets) > 1 or not isinstance(sets[0], PairSet)):
        names = ", ".join(each.name for each in sets)
        raise UserError(f"--calibrate: got {names} · allowed: one set, of pairs of images")
    more = [_others(args, each) for each in sets]  # refuse unusable sets before embedding anything
    for each, others in zip(sets, more, strict=True):
        check_set(source, each, others)
    _warn_of_shared_people(source, [*zip(sets, more, strict=True)], calibrate=args.calibrate)
    _note_templates(source, sets)
    check_writable(_output(args) / "table.txt")
    _check_output(args, sets)
    if args.calibrate:
        check_replaceable(calibration_place(source), b'"checkpoint_sha256"', "--calibrate")
    for each, others in zip(sets, more, strict=True):
        report = evaluate_set(source, each, rule=rule, more=others)
        reports.append(report)
        print(format_table(report), end="\n\n")  # print first, since writing may fail
        before = results_in(folder := _folder(args, each))
        written = ", ".join(write_report(report, folder))
        print(f"written: {written} in {folder}{replaced_results(before, results_in(folder))}\n")
    if args.suite:
        _write_suite(suite_of(reports), _output(args))
    if args.calibrate:
        print(calibrate(source, reports[0]))
    if args.html:
        print(f"written: {write_html(reports, _output(args))}")
    _remove_earlier(args)
    return 0


def _warn_of_shared_people(
    source: Source, sets: Sequence[tuple[EvaluationSet, Sequence[EvaluationSet]]], *, calibrate: bool = False
) -> None:
    """Warn of sets whose people have the names of identities that the checkpoint was trained on."""
    if not source.trained_on:
        return
    sets_of = "the training sets of" if source.trained_on.get("more_people") else "the training set of"
    identities, where = identities_of(source.trained_on), f"{sets_of} {shown_key(source.path.name)}"
    for each, others in sets:
        names = [name for part in (each, *others) for name in part.images.names]
        if text := shared_people(identities, names, where):
            sys.stderr.write(f"warning: {each.name}: {text} · evaluate other people\n")
            if calibrate:
                sys.stderr.write(
                    "warning: --calibrate: if so, its thresholds are too low for all others, and verify accepts more "
                    "strangers than --far allows · calibrate with people who are not in the training set\n"
                )


def _note_templates(source: Source, sets: Sequence[EvaluationSet]) -> None:
    """Print a note for each folder whose crops were aligned unlike the training crops."""
    if source.template is None or source.input_size is None or source.path == CHECKPOINT:
        return  # the figures of the network that ships are of crops by plain align
    meta = {"template": source.template}
    for root in dict.fromkeys(each.images.root for each in sets if each.images.root.is_dir()):
        with contextlib.suppress(UserError):  # a damaged report
            settings = settings_near(root, warn=False)
            sys.stderr.write(note_on_template(settings, root, meta, source.input_size, source.path))


def _write_suite(suite: Suite, folder: Path) -> None:
    """Print the table of several sets, and write it."""
    print(format_rows(suite.rows()), end="\n\n")
    before = results_in(folder, ("suite.json",))
    write_suite(suite, folder)
    replaced = replaced_suite(before, results_in(folder, ("suite.json",)))
    print(f"written: suite.txt, suite.json in {folder}{replaced}\n")


def _remove_earlier(args: argparse.Namespace) -> None:
    """Remove files of an earlier evaluation that this one does not replace."""
    marks = {} if args.html else {"report.html": HTML_MARK}
    marks |= {} if args.suite else {"suite.json": SUITE_MARK}
    removed = [name for name, mark in marks.items() if remove_marked(_output(args) / name, mark)]
    if "suite.json" in removed:
        (_output(args) / "suite.txt").unlink(missing_ok=True)
    if removed:
        print(f"removed: {', '.join(removed)} of an earlier evaluation in {_output(args)}")


def _check_output(args: argparse.Namespace, sets: Sequence[EvaluationSet]) -> None:
    """Refuse to replace files that are not results of an evaluation, before hours of embedding."""
    for each in sets:
        check_results(_folder(args, each), ("table.txt", *JSON_FILES), MARK)
    if args.suite:
        check_results(_output(args), ("suite.json", "suite.txt"), SUITE_MARK)
    if args.html:
        check_replaceable(_output(args) / "report.html", HTML_MARK, "--output")


def _check_sets(args: argparse.Namespace) -> None:
    """Refuse options that name sets in two ways; set missing ``--lfw`` and ``--pairs``."""
    given = [name for name in ("suite", "sets", "ijb") if getattr(args, name) is not None]
    if len(given) > 1:
        raise UserError("--suite, --sets, --ijb: got several of them · allowed: one · use --sets, which takes any sets")
    if given and args.dev_train is not None:
        raise UserError(
            f"--dev-train: got it with --{given[0]} · allowed: with --pairs · in a set, write pairs:DIR,PAIRS,DEVTRAIN"
        )
    unused = [name for name in ("lfw", "pairs") if getattr(args, name) is not None]
    if given and unused:
        raise UserError(
            f"--{unused[0]}: got it with --{given[0]} · allowed: one of them · omit one; --sets also takes lists of "
            "pairs, as NAME=DIR,PAIRS"
        )
    if args.lfw is not None and args.pairs is not None and is_bin(args.pairs):
        raise UserError(f"--lfw: got it with {args.pairs}, which contains its images · omit --lfw")
    args.lfw, args.pairs = args.lfw or LFW, args.pairs or PAIRS


def _sets(args: argparse.Namespace, sources: Sequence[Source]) -> list[EvaluationSet]:
    find_images = any(source.reads_images for source in sources)
    sets = _named_sets(args, find_images=find_images)
    if find_images:
        warn_of_unfinished(each.images.root for each in sets if each.images.root.is_dir())
    return sets


def _named_sets(args: argparse.Namespace, *, find_images: bool) -> list[EvaluationSet]:
    if args.ijb is not None:
        return parse_sets([f"ijb=ijb:{args.ijb}"], find_images=find_images)
    if args.suite:
        return suite_sets(args.suite, find_images=find_images)
    if args.sets:
        return parse_sets(args.sets, find_images=find_images)
    name = args.pairs.stem if is_bin(args.pairs) else args.lfw.resolve().name or "set"
    return [load_pair_set(name, args.lfw, args.pairs, dev_train=args.dev_train, find_images=find_images)]


def _others(args: argparse.Namespace, evaluation_set: EvaluationSet) -> list[EvaluationSet]:
    """Return the sets that ``--quality``, ``--identification`` and ``--all-pairs`` add to a set."""
    kinds = ["identification"] * args.identification + ["all-pairs"] * args.all_pairs
    quality: list[EvaluationSet] = []
    if args.quality is not None:
        if not isinstance(evaluation_set, PairSet):
            raise UserError(f"{evaluation_set.name}: is not a list of pairs of images · --quality needs one")
        quality = [QualitySet.of(evaluation_set, None if args.quality is NORM else Path(args.quality))]
    root = evaluation_set.images.root
    if kinds and (not isinstance(evaluation_set, PairSet) or not root.is_dir()):
        raise UserError(
            f"{evaluation_set.name}: got {root} · allowed with --identification and --all-pairs: a folder of people, "
            "DIR/<person>/<image>; not templates and not a .bin"
        )
    return quality + [load_set(evaluation_set.name, Places(kind, (root,))) for kind in kinds]


def _output(args: argparse.Namespace) -> Path:
    name = "eval-suite" if args.suite else "eval" if args.sets or args.ijb is not None else f"eval-{args.pairs.stem}"
    if args.output is not None:
        return Path(args.output)
    source = source_path(args)
    if args.ckpt is None:  # one folder may hold several such files and a checkpoint
        name = f"{source.name}-{name}"
    return output_place(source).parent / name


def _folder(args: argparse.Namespace, evaluation_set: EvaluationSet) -> Path:
    """Return the folder for the results of a set; each of several sets has its own."""
    return _output(args) / evaluation_set.name if args.sets or args.suite or args.ijb is not None else _output(args)


def unequal_lines(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Return the lines that differ in the headings of two results."""
    return [line for pair in zip(a, b, strict=False) if pair[0] != pair[1] for line in pair]


def _compare(args: argparse.Namespace) -> int:
    """Compare two files on each set and print which is better."""
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
    for each in sets:
        for source in sources:
            check_set(source, each)
    for source in sources:
        _warn_of_shared_people(source, [(each, ()) for each in sets])
        _note_templates(source, sets)
    for each in sets if args.output else ():
        check_writable(_folder(args, each) / "compare.json")
        check_replaceable(_folder(args, each) / "compare.json", b'"verdict"', "--output")
    print(f"A {args.compare[0]}\nB {args.compare[1]}")
    for each in sets:
        rule = Rule(subtract_mean=args.centre)
        reports = [evaluate_set(source, each, rule=rule) for source in sources]
        a, b = (report.results[0] for report in reports)
        outcome = compare(a, b, (reports[0].num_undefined, reports[1].num_undefined))
        for name, line in zip("AB", unequal_lines(a.heading(), b.heading()), strict=False):
            print(f"{name}: {line}")
        print(f"\n{format_comparison(each.name, outcome)}")
        if args.output and (line := write_comparison(outcome, each.name, _folder(args, each), reports)):
            print(line)
    return 0
