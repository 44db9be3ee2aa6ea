"""Run ``sphereface search``.

:mod:`sphereface.commands.parsers.search` has its options.
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

from ..alignment.kept_settings import read_settings
from ..api import FaceEmbedder
from ..data.bins import is_bin, read_bin
from ..errors import UserError, printable, shown_key
from ..evaluation.calibration import Calibration, Threshold
from ..evaluation.gallery_folder import is_gallery_folder, is_unfinished
from ..face_figures import check_plot, save_figure, search_figure
from ..faces import ALIGNED, Face, FaceReader, Pixels, UnusableImage
from ..gallery import Gallery, check_exists, how_crops_were_made, load_gallery
from ..search import Found, rows_over
from .embed import embed_folder
from .face_options import make_embedder, note_on_faces
from .find import find

_NUMBER = re.compile("[1-9][0-9]{0,5}")  # number of a face in an image, see sphereface embed --on-several all

_MOST_DRAWN = 100  # results in a figure: 7 s; the time grows faster than their number

_PICK = re.compile(", pick (centre|largest), ")  # in the settings of a gallery


def run(args: argparse.Namespace) -> int:
    """Embed the query, search, print the results, and draw them."""
    _check(args)
    embedder = _embedder(args)
    embedder.check_operating_point(args.far, None)
    face = embedder.face(args.query)
    sys.stderr.write(note_on_faces(args.query, face, args.pick, embedder))
    gallery = _gallery(args, embedder)
    query = embedder.embed_crops(face.crop[None])
    found, is_exact = find(args, gallery, query)
    for place, each in enumerate(found, start=1):
        print(f"{place:3d}  {each.cosine:7.4f}  {_shown(each, gallery)}")
    if embedder.calibration is not None:
        cosines = np.array([each.cosine for each in found], dtype=np.float32)
        print(_decide(embedder.calibration, args, gallery, query, cosines, is_exact=is_exact))
    elif embedder.why_uncalibrated:
        print(f"decision  none: {embedder.why_uncalibrated}")
    if args.save_plot:
        _draw(args, embedder, face, gallery, found)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options that cannot work, before any other work."""
    if args.top < 1:
        raise UserError(f"--top: got {args.top} · allowed: 1 or more")
    check_exists(args.gallery)
    if args.index == "faiss" and _holds_images(args.gallery):
        got = f"{args.gallery}, a folder of images"
        raise UserError(f"--index faiss: got {got} · allowed: a gallery, made by sphereface embed")
    check_plot(args.save_plot, [args.query])
    if args.save_plot and args.gallery.is_dir() and args.save_plot.resolve().is_relative_to(args.gallery.resolve()):
        raise UserError(
            f"--save-plot: got {args.save_plot}, inside the gallery {args.gallery} · the next "
            "search would read it as an image of the gallery · allowed: a file elsewhere"
        )


def _embedder(args: argparse.Namespace) -> FaceEmbedder:
    """Return the embedder of the query.

    If the gallery was made of crops, it aligns a photograph as those crops were aligned.
    """
    settings, alignment = "", ""
    if not args.aligned and not _holds_images(args.gallery):
        settings, alignment = how_crops_were_made(args.gallery)
    if not settings.startswith(ALIGNED):
        return make_embedder(args, args.calibration)
    if not alignment:
        raise UserError(
            f"{args.gallery}: made of aligned crops, without the settings that aligned them · give a crop as query "
            "with --aligned, or align the photographs with sphereface align and embed the crops again"
        )
    if args.template_origin is not None:
        raise UserError(
            f"--template-origin: got {args.template_origin}, but {args.gallery} is made of crops, so the query is "
            "aligned as they were · omit it"
        )
    embedder = make_embedder(argparse.Namespace(**{**vars(args), "aligned": True, "pick": None}), args.calibration)
    kept = read_settings(alignment, embedder.input_size, args.gallery)
    embedder.reader = FaceReader(
        embedder.input_size, aligned=False, pick=args.pick or kept.pick or "centre", detector=None,
        template=kept.template,
    )  # fmt: skip
    assert embedder.reader.detector is not None
    if kept.detector != embedder.reader.detector.name:
        sys.stderr.write(
            f"note: the crops of {args.gallery} were aligned by {shown_key(kept.detector or 'landmarks of a file')}, "
            f"the query is aligned by {embedder.reader.detector.name}\n"
        )
    return embedder


def _shown(found: Found, gallery: Gallery) -> str:
    path = printable(gallery.paths[found.row])
    return path if found.person in (None, gallery.paths[found.row]) else f"{printable(found.person or '')}  {path}"


def _draw(
    args: argparse.Namespace, embedder: FaceEmbedder, face: Face, gallery: Gallery, found: Sequence[Found]
) -> None:
    all_found, found = found, found[:_MOST_DRAWN]
    paths = [gallery.paths[each.row] for each in found]
    captions = [f"{each.cosine:.3f}\n{_caption(printable(path))}" for each, path in zip(found, paths, strict=True)]
    crops = _crops(_reader_of(gallery, embedder.reader), [gallery.file(each.row) for each in found])
    save_figure(search_figure(face.crop, crops, captions, _caption(printable(args.query))), args.save_plot)
    part = f", the first {len(found)} of {len(all_found)}" if len(all_found) > len(found) else ""
    print(f"written: {args.save_plot}{part}")


def _reader_of(gallery: Gallery, reader: FaceReader) -> FaceReader:
    """Return the reader for the images of a gallery.

    They may be crops even if the query is a photograph, or photographs of which another face was
    picked.
    """
    if reader.template is None:
        return reader
    if gallery.settings.startswith(ALIGNED):
        return FaceReader(reader.size, aligned=True, detector=None)
    picked = _PICK.search(gallery.settings)
    if picked is None or picked[1] == reader.pick:
        return reader
    return FaceReader(reader.size, aligned=False, pick=picked[1], detector=reader.detector, template=reader.template)


def _decide(
    calibration: Calibration,
    args: argparse.Namespace,
    gallery: Gallery,
    query: npt.NDArray[np.float32],
    cosines: npt.NDArray[np.float32],
    *,
    is_exact: bool,
) -> str:
    """Return the lines about the decision.

    Args:
        calibration: of the checkpoint.
        args: the options.
        gallery: N images that were compared.
        query: (1, D), the embedding of the query.
        cosines: (K,) of the nearest images or people, the highest first.
        is_exact: whether all images were compared.
    """
    point = calibration.at(args.far)
    if args.far is None and point.weak:
        return (
            f"decision  none: too weak to decide. At FAR {point.far:g}, the highest known, TAR is {point.tar:.1%}\n"
            f"          --far {point.far:g} forces a decision, at cosine {point.threshold:.4f}"
        )
    num_over = None
    if (cosines > point.threshold).all() and len(cosines) < len(gallery.paths):
        # more than the K nearest may be over the threshold
        rows = rows_over(gallery.embeddings, query[0], point.threshold)
        num_over = len({gallery.entry(row) for row in rows.tolist()} if args.by == "person" else rows)
    return decision(point, cosines, len(gallery.paths), num_over, is_exact=is_exact)


def decision(
    point: Threshold,
    cosines: npt.NDArray[np.float32],
    num_gallery: int,
    num_over: int | None = None,
    *,
    is_exact: bool = True,
) -> str:
    """Return the lines that decide whether an image of the gallery shows the person of the query.

    Args:
        point: the threshold of the decision.
        cosines: (K,) of the nearest images or people, which the command printed, the highest first.
        num_gallery: N images that were compared. On average a stranger passes for FAR · N of them.
        num_over: number of images or people of the gallery over the threshold. None: as many as of
            the nearest.
        is_exact: whether all images were compared. An index may miss a match.
    """
    shown = int((cosines > point.threshold).sum())
    over = max(shown, num_over or 0)
    none = "no match" if is_exact else "none found"
    who = none if over == 0 else "the first" if over == 1 else f"the first {over}"
    lines = [
        f"decision  {who:12} cosine {'>' if over else '≤'} {point.threshold:.4f}, the threshold at FAR {point.far:g}, "
        f"TAR {point.tar:.1%}"
    ]
    if not (over or is_exact):
        lines.append("          the index may have missed a match · --index exact compares all images")
    if over > shown:
        lines.append(f"          --top {over} shows them all")
    if point.weak:
        lines.append(
            f"          this threshold refuses {1 - point.tar:.1%} of the genuine pairs · a higher --far refuses fewer"
        )
    chance = f"{point.far * num_gallery:.2g} of these {num_gallery:,} images by chance"
    lines.append(f"          a stranger would pass for {chance}")
    return "\n".join(lines)


def _holds_images(place: Path) -> bool:
    """Return whether the gallery is a folder of images, which this search embeds."""
    return place.is_dir() and not is_gallery_folder(place) and not is_unfinished(place)


def _gallery(args: argparse.Namespace, embedder: FaceEmbedder) -> Gallery:
    """Open the gallery for the embedder's queries."""
    if _holds_images(args.gallery):
        return embed_folder(embedder, args.gallery)
    settings = embedder.settings
    theirs, _ = how_crops_were_made(args.gallery)
    if not args.aligned and theirs.startswith(ALIGNED):
        # the query is aligned as the crops were
        settings = settings.replace(embedder.reader.settings, ALIGNED)
    elif args.pick and (pick := _PICK.search(theirs)):  # the user chose the face of the query
        settings = _PICK.sub(pick[0], settings)
    return load_gallery(args.gallery, checkpoint_sha256=embedder.sha256, settings=settings)


def _crops(reader: FaceReader, paths: Sequence[str]) -> list[Pixels | None]:
    """Return the crops of the results; None for an image that cannot be read any more.

    Print a line about such images on stderr.
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
        reason = f"{printable(problems[0])} · if they moved, embed them again"
        sys.stderr.write(f"note: {len(problems)} of {len(paths)} images cannot be shown: {reason}\n")
    return crops


def _crop(reader: FaceReader, path: str) -> Pixels:
    """Read the image of a gallery's row.

    The path names a file, one of several faces of a file (``IMAGE#2``), or an image of a ``.bin``.

    Raises:
        UnusableImage: the image or the face cannot be found.
    """
    file, _, number = path.rpartition("#")
    parent, name = os.path.split(path)
    if _NUMBER.fullmatch(number) and os.path.isfile(file) and not os.path.isfile(path):  # noqa: PTH113 -- never raises
        every = copy.copy(reader)
        every.on_several = "all"
        faces = every.read_faces(file, path)
        if int(number) <= len(faces):
            return faces[int(number) - 1].crop
        raise UnusableImage(f"{path}: the image has {len(faces)} faces")
    if is_bin(parent) and os.path.isfile(parent):  # noqa: PTH113
        images, pairs = read_bin(parent)
        if name not in pairs.names:
            raise UnusableImage(f"{path}: the .bin has no such image")
        return reader.read(images[pairs.names.index(name)].read_bytes(), path).crop
    return reader.read(path, path).crop


def _caption(path: str) -> str:
    """Return folder and name in two lines, or only a name that starts with the folder's name.

    LFW has such names.
    """
    *_, folder, name = ("", *Path(path).parts)
    return name if not folder or name.startswith(folder) else f"{folder}/\n{name}"
