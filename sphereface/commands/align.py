"""Run ``sphereface align``; its options are in :mod:`.parsers.align`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..alignment.align import Landmarks, align_folder
from ..alignment.crop import CropSpec, Finder
from ..alignment.crop_folder import check_folders
from ..alignment.earlier_landmarks import LANDMARKS_NAME
from ..alignment.earlier_report import earlier_run, earlier_settings
from ..alignment.landmarks import read_landmarks
from ..alignment.like import measure_template, template_for_resume
from ..alignment.mtcnn import Mtcnn
from ..alignment.report import REPORT_NAME
from ..errors import UserError, count_of, printable
from .parsers.align import SIZES


def sources(args: argparse.Namespace) -> Landmarks:
    """Return where the landmarks come from: a file, a detector, or both."""
    if args.pick and not args.detector:
        raise UserError(f"--pick: got {args.pick} with --landmarks, which has one face for each image · omit --pick")
    _check_on_several(args)
    table = read_landmarks(args.landmarks) if args.landmarks else None
    finder = Finder(Mtcnn(), args.pick or "centre", args.on_several == "skip") if args.detector else None
    kind, _, file = args.on_failure.partition(" ")
    if kind == "landmarks" and file:
        return Landmarks(table, finder, other=read_landmarks(Path(file)))
    if args.on_failure not in ("skip", "centre"):
        raise UserError(f"--on-failure: got {args.on_failure} · allowed: skip, centre, landmarks FILE")
    return Landmarks(table, finder, centre=args.on_failure == "centre")


def _check_on_several(args: argparse.Namespace) -> None:
    if args.on_several == "all":
        raise UserError(
            "--on-several: got all · allowed: take, skip · the folder of an identity holds one person; to embed all "
            "faces of an image, use sphereface embed --on-several all"
        )
    if args.on_several not in (None, "take", "skip"):
        raise UserError(f"--on-several: got {args.on_several} · allowed: take, skip")
    if args.on_several and not args.detector:
        raise UserError(
            f"--on-several: got {args.on_several} with --landmarks, which has one face for each image · omit it"
        )
    if args.on_several == "skip" and args.pick:
        raise UserError(f"--pick: got {args.pick} with --on-several skip, which picks none · omit one of them")


def crop_spec(args: argparse.Namespace) -> CropSpec:
    """Return the size and template of the crops; ``--like`` measures and prints them."""
    if args.like is None:
        return CropSpec(SIZES[args.size or "112x96"], args.template_origin or 0, args.quality)
    for option, value in (("--size", args.size), ("--template-origin", args.template_origin)):
        if value is not None:
            raise UserError(f"{option}: got {value} with --like, which takes it from the crops · omit one of them")
    check_folders(args.source, args.destination)  # before the measurement, which takes long
    measured = measure_template(args.like, Finder(Mtcnn(), "centre"), progress=True)
    print(measured.describe())
    if args.landmarks:
        print(f"note: the template is measured with MTCNN; the landmarks in {args.landmarks} should be MTCNN's too")
    measured = template_for_resume(measured, earlier_settings(args.destination))
    return CropSpec(measured.size, quality=args.quality, target=measured.points)


def _substitutes(landmarks: Path | None) -> str:
    """Return a note if an earlier align wrote the landmarks, and substitute crops have some."""
    try:
        earlier = earlier_run(landmarks.parent) if landmarks and landmarks.name == LANDMARKS_NAME else None
    except UserError:  # a report of another program
        return ""
    if not earlier or not earlier.fallbacks:
        return ""
    count = count_of(
        len(earlier.fallbacks), "image are those of a substitute crop", "images are those of substitute crops"
    )
    return (
        f"note: {landmarks}: its points of {count} (--on-failure), e.g. {printable(min(earlier.fallbacks))}; this run "
        "counts such a crop as aligned"
    )


def run(args: argparse.Namespace) -> int:
    """Align the images and print the report."""
    if not 1 <= args.quality <= 100:
        raise UserError(f"--quality: got {args.quality} · allowed: 1 to 100")
    if args.workers < 0:
        raise UserError(f"--workers: got {args.workers} · allowed: 0 (this process alone) or more")
    landmarks = sources(args)
    report = align_folder(
        args.source, args.destination, landmarks, crop_spec(args), workers=args.workers, progress=True
    )
    print(report.table())
    if note := _substitutes(args.landmarks):
        print(note)
    if args.detector:
        print(f"landmarks: {args.destination / LANDMARKS_NAME}")
    print(f"report: {args.destination / REPORT_NAME}")
    return 0
