"""Run ``sphereface verify``.

:mod:`sphereface.commands.parsers.verify` has its options.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np

from ..alignment.kept_settings import note_on_template, settings_near
from ..api import FaceEmbedder, Match
from ..errors import UserError, shown_key
from ..evaluation.calibration import LEAST_TAR
from ..face_figures import check_plot, pair_figure, save_figure
from .face_options import make_embedder, note_on_faces
from .printed_options import word


def run(args: argparse.Namespace) -> int:
    """Compare two images, print the result, and draw the crops."""
    check_plot(args.save_plot, args.images)
    embedder = make_embedder(args, args.calibration)
    embedder.check_operating_point(args.far, args.prior)
    faces = [embedder.face(image) for image in args.images]
    for name, face in zip(args.images, faces, strict=True):
        sys.stderr.write(note_on_faces(name, face, args.pick, embedder))
    if args.aligned:
        sys.stderr.writelines(_notes_on_templates(args.images, embedder))
    a, b = embedder.embed_crops(np.stack([face.crop for face in faces]))
    match = embedder.match(a, b, far=args.far, prior=args.prior)
    print("\n".join(describe(match, embedder)))
    if args.save_plot:
        names = [Path(image).name for image in args.images]
        save_figure(pair_figure([face.crop for face in faces], names, _title(match)), args.save_plot)
        print(f"written: {args.save_plot}")
    return 0


def _notes_on_templates(crops: Sequence[str], embedder: FaceEmbedder) -> list[str]:
    """Return a line for each kind of crops that were aligned unlike the training crops."""
    kinds: dict[str, str] = {}
    for crop in crops:
        with contextlib.suppress(UserError):  # a damaged report
            kinds.setdefault(settings_near(Path(crop), warn=False), crop)
    meta, size = embedder.meta, embedder.input_size
    return [note_on_template(kind, crop, meta, size, embedder.checkpoint) for kind, crop in kinds.items()]


def describe(match: Match, embedder: FaceEmbedder) -> list[str]:
    """Return the lines about the result of a comparison."""
    lines = [f"cosine       {match.cosine:.4f}"]
    if match.probability is None or match.prior is None:
        if embedder.why_uncalibrated:
            return [*lines, f"no probability and no decision: {embedder.why_uncalibrated}"]
        mirror = "" if embedder.flip else " --mirror none"
        none = "no calibration beside the checkpoint, so there is no probability and no decision"
        return [
            *lines,
            f"{none} · make one: sphereface eval --ckpt {word(str(embedder.checkpoint))}{mirror} --calibrate",
        ]
    calibration = embedder.calibration
    assert calibration is not None
    return [
        *lines,
        f"probability  {_percent(match.probability)} of one person, if {match.prior:.3g} of all pairs show one person",
        *_decision(match),
        f"             (learnt from {shown_key(calibration.source)})",
    ]


def _decision(match: Match) -> list[str]:
    """Return the lines about the decision, or the reason for none."""
    threshold, far, tar = (nan if value is None else value for value in (match.threshold, match.far, match.tar))
    if match.same is None:
        return [
            f"decision     none: too weak to decide. At FAR {far:g}, the highest known, TAR is {tar:.1%}",
            f"             --far {far:g} forces a decision, at cosine {threshold:.4f}",
        ]
    person, sign = ("one person", ">") if match.same else ("two people", "≤")
    lines = [f"decision     {person}: cosine {sign} {threshold:.4f}, the threshold at FAR {far:g}, TAR {tar:.1%}"]
    if tar < LEAST_TAR:
        lines.append(
            f"             this threshold refuses {1 - tar:.1%} of the genuine pairs · a higher --far refuses fewer"
        )
    return lines


def _percent(probability: float) -> str:
    """Format a probability, but never as 0 or 100 %: two images never make it certain."""
    if not 0.0001 <= probability <= 0.9999:
        return "under 0.01%" if probability < 0.5 else "over 99.99%"
    return f"{probability:.2%}"


def _title(match: Match) -> str:
    if match.probability is None:
        return f"cosine {match.cosine:.3f}"
    title = f"cosine {match.cosine:.3f}, P(one person) = {_percent(match.probability)}\n"
    if match.same is None:
        return f"{title}too weak to decide"
    return f"{title}at FAR {match.far:g}: {'one person' if match.same else 'two people'}"
