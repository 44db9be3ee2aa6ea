"""Define the options that the commands verify, embed and search share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..choices import DEVICES, ON_SEVERAL, PICKS
from ..errors import UserError, printable
from ..weights import CHECKPOINT, DEFAULT
from .checkpoint_option import HELP, checkpoint_path

if TYPE_CHECKING:
    from ..api import Face, FaceEmbedder


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the network and how images become crops."""
    add = parser.add_argument
    add("--ckpt", metavar="FILE", type=checkpoint_path, default=DEFAULT, help=f"{HELP} (%(default)s)")
    add("--aligned", action="store_true", help="the images are aligned crops; default: find and align the face")
    add("--pick", choices=PICKS, help="of several faces take the one nearest the image's centre, or the largest")
    help_text = (
        "align to the published template with this origin (default: the template of the training crops if the "
        "checkpoint records it, otherwise the published template with origin 0)"
    )
    add("--template-origin", type=int, choices=(0, 1), help=help_text)
    add("--no-flip", dest="flip", action="store_false", help="do not use the mirror images")
    add("--device", default="auto", help=f"{', '.join(DEVICES)} or cuda:N (%(default)s)")
    add("--batch-size", metavar="N", type=int, default=64, help="images at a time (%(default)s)")


def add_decision_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the threshold of a decision."""
    help_text = "false accept rate of the decision (default: the lowest that accepts 90%% of the genuine pairs)"
    parser.add_argument("--far", type=float, help=help_text)
    help_text = "calibration (default: NAME.calibration.json beside the checkpoint)"
    parser.add_argument("--calibration", metavar="FILE", type=Path, help=help_text)


def add_on_several(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses what to do with an image of several faces."""
    help_text = "for an image with several faces: take one (see --pick), skip the image, or take all (take)"
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--on-several", choices=ON_SEVERAL, help=help_text)
    help_text = "enrol every face of an image; the same as --on-several all"
    group.add_argument("--all-faces", dest="on_several", action="store_const", const="all", help=help_text)


def chosen_on_several(args: argparse.Namespace) -> str:
    """Return the value of ``--on-several``.

    Raises:
        UserError: the options contain ``--aligned``, or ``--pick`` with skip or all.
    """
    if args.on_several and args.aligned:
        raise UserError(f"--on-several: got {args.on_several} with --aligned, which searches for no faces · omit one")
    if args.on_several in ("skip", "all") and args.pick:
        raise UserError(f"--pick: got {args.pick} with --on-several {args.on_several}, which picks none · omit one")
    return args.on_several or "take"


def make_embedder(
    args: argparse.Namespace, calibration: Path | None = None, on_several: str = "take", *, device: str | None = None
) -> FaceEmbedder:
    """Return the embedder that the options describe.

    Print a note on stderr if the template of a user's checkpoint differs from the published one.

    Args:
        args: the options.
        calibration: file of a calibration.
        on_several: see :class:`~sphereface.api.FaceEmbedder`.
        device: of this process; None: the device of ``--device``.

    Raises:
        UserError: the options contain ``--aligned`` and another one that it leaves without effect.
    """
    for option, value in (("--pick", args.pick), ("--template-origin", args.template_origin)):
        if args.aligned and value is not None:
            raise UserError(f"{option}: got {value} with --aligned, which searches for no faces · omit one")
    from ..api import FaceEmbedder  # here, since --help must not import torch

    embedder = FaceEmbedder(
        args.ckpt, align=not args.aligned, pick=args.pick or "centre", flip=args.flip, device=device or args.device,
        batch_size=args.batch_size, calibration=calibration, template_origin=args.template_origin,
        on_several=on_several,
    )  # fmt: skip
    template = embedder.reader.template
    known = args.ckpt == CHECKPOINT or args.template_origin is not None
    if not known and template is not None and template.origin != 0:
        sys.stderr.write(f"note: faces are aligned like the training crops of {args.ckpt}: {template.compare()}\n")
    return embedder


def note_on_faces(name: str, face: Face, pick: str | None, embedder: FaceEmbedder) -> str:
    """Return a line about an image with several faces.

    The text is empty if the image has one face, or if ``--pick`` chooses the face.
    """
    if face.num_faces < 2 or pick is not None:
        return ""
    taken, other = "the one nearest the centre", "largest"
    if embedder.reader.pick == "largest":  # as the crops of a gallery
        taken, other = "the largest", "centre"
    return (
        f"note: {printable(name)}: {face.num_faces} faces; {taken} was taken (number {face.place} from the left) · "
        f"or: --pick {other}\n"
    )
