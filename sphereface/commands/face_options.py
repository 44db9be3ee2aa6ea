"""The options that verify, embed and search share."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..api import FaceEmbedder
from ..device import DEVICES


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Which network, and how pictures become crops."""
    add = parser.add_argument
    add("--ckpt", metavar="FILE", type=Path, required=True, help="checkpoint, such as runs/…/best.pt")
    add("--aligned", action="store_true", help="pictures are aligned crops already; default: find and align the face")
    add("--pick", choices=["centre", "largest"], help="of several faces: nearest the picture's centre, or the largest")
    add("--template-origin", type=int, choices=(0, 1), default=0, help="as its training crops had it (%(default)s)")
    add("--no-flip", dest="flip", action="store_false", help="leave the mirror images out")
    add("--device", default="auto", help=f"{', '.join(DEVICES)} or cuda:N (%(default)s)")
    add("--batch-size", metavar="N", type=int, default=64, help="pictures at a time (%(default)s)")


def make_embedder(args: argparse.Namespace, calibration: Path | None = None) -> FaceEmbedder:
    """The embedder that the options describe."""
    return FaceEmbedder(
        args.ckpt, align=not args.aligned, pick=args.pick or "centre", flip=args.flip, device=args.device,
        batch_size=args.batch_size, calibration=calibration, template_origin=args.template_origin,
    )  # fmt: skip


def note_on_faces(name: str, num_faces: int, pick: str | None) -> str:
    """A line on a picture with several faces, of which nobody said which to take; else nothing."""
    if num_faces < 2 or pick is not None:
        return ""
    return f"note: {name}: {num_faces} faces, the one nearest the centre was taken · or say --pick largest\n"
