"""The options that verify, embed and search share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..choices import DEVICES, ON_SEVERAL, PICKS
from ..errors import UserError, printable
from ..weights import CHECKPOINT, DEFAULT
from .checkpoint_option import HELP, checkpoint_path

if TYPE_CHECKING:
    from ..api import Embedded, FaceEmbedder


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Which network, and how images become crops."""
    add = parser.add_argument
    add("--ckpt", metavar="FILE", type=checkpoint_path, default=DEFAULT, help=f"{HELP} (%(default)s)")
    add("--aligned", action="store_true", help="images are aligned crops already; default: find and align the face")
    add("--pick", choices=PICKS, help="of several faces: nearest the image's centre, or the largest")
    add(
        "--template-origin",
        type=int,
        choices=(0, 1),
        help="align to the published template with this origin (default: the template of the training crops, where the "
        "checkpoint records it, else the published one with origin 0)",
    )
    add("--no-flip", dest="flip", action="store_false", help="leave the mirror images out")
    add("--device", default="auto", help=f"{', '.join(DEVICES)} or cuda:N (%(default)s)")
    add("--batch-size", metavar="N", type=int, default=64, help="images at a time (%(default)s)")


def add_on_several(parser: argparse.ArgumentParser) -> None:
    """Add the option of what to do with an image of several faces."""
    help_text = "of an image with several faces: take one (--pick says which), skip the image, or take all (take)"
    parser.add_argument("--on-several", choices=ON_SEVERAL, help=help_text)


def chosen_on_several(args: argparse.Namespace) -> str:
    """Return what ``--on-several`` says. Raises UserError where no face is searched or none is
    picked.
    """
    if args.on_several and args.aligned:
        raise UserError(f"--on-several: got {args.on_several} with --aligned, which searches no face · leave one out")
    if args.on_several in ("skip", "all") and args.pick:
        raise UserError(
            f"--pick: got {args.pick} with --on-several {args.on_several}, which picks none · leave one out"
        )
    return args.on_several or "take"


def make_embedder(args: argparse.Namespace, calibration: Path | None = None, on_several: str = "take") -> FaceEmbedder:
    """The embedder that the options describe; says on stderr where a user's template is not the
    published one.
    """
    from ..api import FaceEmbedder  # here, since --help needs none of it

    embedder = FaceEmbedder(
        args.ckpt, align=not args.aligned, pick=args.pick or "centre", flip=args.flip, device=args.device,
        batch_size=args.batch_size, calibration=calibration, template_origin=args.template_origin,
        on_several=on_several,
    )  # fmt: skip
    template = embedder.reader.template
    known = args.ckpt == CHECKPOINT or args.template_origin is not None
    if not known and template is not None and template.origin != 0:
        sys.stderr.write(f"note: faces are aligned like the training crops of {args.ckpt}: {template.compare()}\n")
    return embedder


def note_on_several(names: Sequence[str], result: Embedded, embedder: FaceEmbedder) -> str:
    """A line on images of which one of several faces was taken, or all; else nothing."""
    if not result.num_faces:
        return ""
    first = min(result.num_faces)
    choice = (
        "all were taken" if embedder.reader.on_several == "all" else f"one was taken, by --pick {embedder.reader.pick}"
    )
    return (
        f"note: several faces in {len(result.num_faces):,} of {len(names):,} images, such as {printable(names[first])} "
        f"({result.num_faces[first]}): {choice} · --on-several: {', '.join(ON_SEVERAL)}\n"
    )


def note_on_faces(name: str, num_faces: int, pick: str | None) -> str:
    """A line on an image with several faces, of which nobody said which to take; else nothing."""
    if num_faces < 2 or pick is not None:
        return ""
    return f"note: {printable(name)}: {num_faces} faces, the one nearest the centre was taken · or say --pick largest\n"
