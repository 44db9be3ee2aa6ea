"""A folder of pictures to a file of embeddings, for search or for programs of your own.

    sphereface embed photographs gallery.npz --ckpt best.pt
    sphereface embed data/crops gallery.npz --ckpt best.pt --aligned

OUT.npz holds paths (N,) below DIR as it was given, embeddings (N, D) float32 unit vectors, the checkpoint's SHA-256,
and how pictures became crops. Pictures without a face, and files that are no pictures, are left out and listed. Many
photographs? Align them once on all cores (sphereface align), then embed the crops with --aligned. Embeddings are
biometric data of the people on the pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..alignment.align import list_pictures
from ..api import FaceEmbedder
from ..errors import UserError
from ..search import Gallery
from .face_options import add_face_options, make_embedder
from .parser import new_parser

_MOST_LISTED = 10


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "embed", program)
    parser.add_argument("folder", metavar="DIR", type=Path, help="pictures, in folders of any depth")
    parser.add_argument("output", metavar="OUT.npz", type=Path, help="the file to write")
    add_face_options(parser)
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface embed") -> int:
    """Embed, write, say how it went."""
    args = parse(argv, program)
    if args.output.suffix != ".npz":
        raise UserError(f"{args.output}: got suffix {args.output.suffix!r} · allowed: .npz")
    embedder = make_embedder(args)
    gallery = embed_folder(embedder, args.folder)
    gallery.save(args.output)
    print(f"{args.output}: {len(gallery.paths):,} embeddings of {embedder.dim} numbers")
    return 0


def embed_folder(embedder: FaceEmbedder, folder: Path) -> Gallery:
    """Embed every picture below a folder; what cannot be used is listed on stderr.

    Raises:
        UserError: no folder, no pictures in it, or none that can be used.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder · allowed: a folder of pictures")
    files = [folder / name for name in list_pictures(folder)]
    result = embedder.try_embed(files, progress="embedding")
    problems = list(result.problems.values())
    if problems:
        more = [f"… and {len(problems) - _MOST_LISTED} more"] if len(problems) > _MOST_LISTED else []
        lines = [f"left out {len(problems)} of {len(files)} pictures:", *problems[:_MOST_LISTED], *more]
        print("\n  - ".join(lines), file=sys.stderr)
    if not len(result.rows):
        raise UserError(f"{folder}: none of its {len(files)} pictures can be used · --aligned, if they are crops")
    paths = tuple(str(files[row]) for row in result.rows)
    return Gallery(paths, result.embeddings, embedder.sha256, embedder.settings)
