"""Do what ``sphereface search`` says; its options are in
:mod:`sphereface.commands.parsers.search`.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..api import FaceEmbedder
from ..data.bins import is_bin, read_bin
from ..errors import UserError, printable
from ..evaluation.calibration import Calibration, Threshold
from ..face_figures import check_plot, save_figure, search_figure
from ..faces import FaceReader, Pixels, UnusableImage
from ..search import Gallery, count_over, load_gallery, nearest, nearest_by_index
from .embed import embed_folder
from .face_options import make_embedder, note_on_faces

_NUMBER = re.compile("[1-9][0-9]{0,5}")  # of a face in an image, see sphereface embed --on-several all


def run(args: argparse.Namespace) -> int:
    """Embed, search, print, draw."""
    if args.top < 1:
        raise UserError(f"--top: got {args.top} · allowed: 1 or more")
    if args.index == "faiss" and args.gallery.is_dir():
        raise UserError(f"--index faiss: got the folder {args.gallery} · allowed: a .npz, made by sphereface embed")
    check_plot(args.save_plot, [args.query])
    if args.save_plot and args.gallery.is_dir() and args.save_plot.resolve().is_relative_to(args.gallery.resolve()):
        raise UserError(
            f"--save-plot: got {args.save_plot}, inside the gallery {args.gallery} · allowed: a file elsewhere: the "
            "next search would take it for an image of the gallery"
        )
    embedder = make_embedder(args, args.calibration)
    embedder.check_operating_point(args.far, None)
    face = embedder.face(args.query)
    sys.stderr.write(note_on_faces(args.query, face.num_faces, args.pick))
    gallery = _gallery(args.gallery, embedder)
    query = embedder.embed_crops(face.crop[None])
    if args.index == "faiss":
        rows, cosines = nearest_by_index(gallery, query, args.top, args.gallery.parent)
    else:
        rows, cosines = nearest(gallery.embeddings, query, args.top)
    sys.stderr.write(_note_on_missing(rows.shape[1], min(args.top, len(gallery.paths))))
    paths = [gallery.paths[row] for row in rows[0]]
    for place, (path, cosine) in enumerate(zip(paths, cosines[0], strict=True), start=1):
        print(f"{place:3d}  {cosine:7.4f}  {printable(path)}")
    if embedder.calibration is not None:
        print(_decide(embedder.calibration, args.far, gallery, query, cosines[0]))
    if args.save_plot:
        captions = [
            f"{cosine:.3f}\n{_caption(printable(path))}" for path, cosine in zip(paths, cosines[0], strict=True)
        ]
        crops = _crops(embedder.reader, paths)
        save_figure(search_figure(face.crop, crops, captions, _caption(printable(args.query))), args.save_plot)
        print(f"written: {args.save_plot}")
    return 0


def _decide(
    calibration: Calibration,
    far: float | None,
    gallery: Gallery,
    query: npt.NDArray[np.float32],
    cosines: npt.NDArray[np.float32],
) -> str:
    """Decide on all images of the gallery, of which ``cosines`` (K,) are the highest."""
    point = calibration.at(far)
    if far is None and point.weak:
        return (
            f"decision  none: too weak to decide. At FAR {point.far:g}, the highest known, TAR is {point.tar:.1%}\n"
            f"          --far {point.far:g} decides all the same, at cosine {point.threshold:.4f}"
        )
    num_over = None
    if (cosines > point.threshold).all() and len(cosines) < len(gallery.paths):  # there may be more than are shown
        num_over = count_over(gallery.embeddings, query[0], point.threshold)
    return decision(point, cosines, len(gallery.paths), num_over)


def decision(point: Threshold, cosines: npt.NDArray[np.float32], num_gallery: int, num_over: int | None = None) -> str:
    """Say whether any image of the gallery shows the person of the query.

    Args:
        point: where to decide.
        cosines: (K,) of the nearest images, which were printed, the highest first.
        num_gallery: N images that were compared: a stranger passes for FAR · N of them, on average.
        num_over: how many of these N are over the threshold; None: as many as of the nearest, at
            least.
    """
    shown = int((cosines > point.threshold).sum())
    over = max(shown, num_over or 0)
    least = "at least " if num_over is None and shown == len(cosines) < num_gallery else ""
    who = (
        ("nobody" if over == 0 else "the first" if over == 1 else f"the first {over}")
        if not least
        else f"{least}{over}"
    )
    lines = [
        f"decision  {who:12} cosine {'>' if over else '≤'} {point.threshold:.4f}, the threshold at FAR {point.far:g}, "
        f"TAR {point.tar:.1%}"
    ]
    if least or over > shown:
        lines.append(f"          --top {over if not least else num_gallery} shows them all")
    if point.weak:
        lines.append(
            f"          this threshold refuses {1 - point.tar:.1%} of the genuine pairs · a higher --far refuses fewer"
        )
    lines.append(
        f"          a stranger would pass for {point.far * num_gallery:.2g} of these {num_gallery:,} images by chance"
    )
    return "\n".join(lines)


def _gallery(path: Path, embedder: FaceEmbedder) -> Gallery:
    if path.is_dir():
        return embed_folder(embedder, path)
    return load_gallery(path, checkpoint_sha256=embedder.sha256, settings=embedder.settings)


def _note_on_missing(num_found: int, num_wanted: int) -> str:
    """A line where an index found fewer rows than wanted; else nothing."""
    if num_found == num_wanted:
        return ""
    return f"note: --index faiss: found {num_found} of {num_wanted} · use --index exact to compare all images\n"


def _crops(reader: FaceReader, paths: Sequence[str]) -> list[Pixels | None]:
    """Return what is shown of the results; None, and a line on stderr, where the image cannot be
    read any more.
    """
    crops: list[Pixels | None] = []
    problems = []
    for path in paths:
        try:
            crops.append(_crop(reader, path))
        except (UserError, OSError) as error:
            crops.append(None)
            problems.append(str(error))
    if problems:
        sys.stderr.write(f"note: {len(problems)} of {len(paths)} images cannot be shown: {printable(problems[0])}\n")
    return crops


def _crop(reader: FaceReader, path: str) -> Pixels:
    """Read a row of a gallery: an image file, one face of several (``IMAGE#2``), or an image of a
    ``.bin``.
    """
    file, _, number = path.rpartition("#")
    parent, name = os.path.split(path)
    if _NUMBER.fullmatch(number) and os.path.isfile(file) and not os.path.isfile(path):  # noqa: PTH113 -- never raises
        every = copy.copy(reader)
        every.on_several = "all"
        faces = every.read_faces(file, path)
        if int(number) <= len(faces):
            return faces[int(number) - 1].crop
        raise UnusableImage(f"{path}: {len(faces)} faces were found")
    if is_bin(parent) and os.path.isfile(parent):  # noqa: PTH113
        images, pairs = read_bin(parent)
        if name not in pairs.names:
            raise UnusableImage(f"{path}: no such image in it")
        return reader.read(images[pairs.names.index(name)].read_bytes(), path).crop
    return reader.read(path, path).crop


def _caption(path: str) -> str:
    """Folder and name in two lines; the name alone where it says the folder's again, as LFW's
    do.
    """
    *_, folder, name = ("", *Path(path).parts)
    return name if not folder or name.startswith(folder) else f"{folder}/\n{name}"
