"""Run ``sphereface search``.

:mod:`sphereface.commands.parsers.search` has its options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..alignment.kept_settings import read_settings, settings_near
from ..api import FaceEmbedder
from ..data.images import IMAGE_SUFFIXES
from ..errors import UserError, printable, shown_key
from ..evaluation.calibration import Calibration, Threshold
from ..evaluation.gallery_folder import is_gallery_folder, is_unfinished
from ..face_figures import check_plot, save_figure, search_figure
from ..faces import ALIGNED, Face, FaceReader
from ..gallery import Gallery, check_exists, folder_of_images, how_crops_were_made, load_gallery
from ..search import Found, rows_over
from .embed import embed_folder
from .face_options import make_embedder, note_on_faces
from .find import find
from .found_crops import PICK, crops_of

_LEAST_APART = 0.5  # pixels between templates that a note tells; a measured template (align --like) varies less
_MOST_DRAWN = 100  # results in a figure: 7 s; the time grows faster than their number


def run(args: argparse.Namespace) -> int:
    """Embed the query, search, print the results, and draw them."""
    _check(args)
    embedder = _embedder(args)
    embedder.check_operating_point(args.far, None)
    face = embedder.face(args.query)
    sys.stderr.write(note_on_faces(args.query, face, args.pick, embedder))
    sys.stderr.write(_note_on_crop(args, embedder))
    gallery = _gallery(args, embedder)
    query = embedder.embed_crops(face.crop[None])
    found, is_exact = find(args, gallery, query)
    for place, each in enumerate(found, start=1):
        print(f"{place:3d}  {each.cosine:7.4f}  {_shown(each, gallery)}")
    if embedder.calibration is not None:
        cosines = np.array([each.cosine for each in found], dtype=np.float32)
        print(_decide(embedder.calibration, args, gallery, query, cosines, is_exact=is_exact))
        print(f"          (learnt from {shown_key(embedder.calibration.source)})")
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
    if args.save_plot:
        _note_on_plot(args.save_plot, args.gallery)


def _note_on_plot(plot: Path, gallery: Path) -> None:
    """Print a note about a figure in the folder of the gallery's images, or of their list."""
    folder = folder_of_images(gallery)
    if folder and plot.suffix.lower() in IMAGE_SUFFIXES and plot.resolve().is_relative_to(folder):
        got = f"--save-plot: {plot} is inside {printable(folder)}"
        sys.stderr.write(f"note: {got}: an embed of this folder would read it as an image · move it before\n")


def _note_on_crop(args: argparse.Namespace, embedder: FaceEmbedder) -> str:
    """Return a line if the query is a crop with other places of the landmarks than the gallery's.

    The text is empty if they agree or are unknown.
    """
    if not args.aligned:
        return ""
    try:
        if _holds_images(args.gallery):
            theirs = settings_near(args.gallery, warn=False)
        else:
            _, theirs = how_crops_were_made(args.gallery)
        texts = (theirs, settings_near(Path(args.query), warn=False))
        points = [read_settings(text, embedder.input_size, args.gallery).template.array for text in texts]
    except UserError:  # no settings, or damaged ones
        return ""
    if (apart := float(np.abs(points[0] - points[1]).max())) < _LEAST_APART:
        return ""
    return (
        f"note: {printable(args.query)}: sphereface align put its landmarks up to {apart:.1f} pixels from those of the "
        "gallery's crops, which lowers the cosines · align both with the same options\n"
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
    crops = crops_of(embedder, gallery, [each.row for each in found])
    save_figure(search_figure(face.crop, crops, captions, _caption(printable(args.query))), args.save_plot)
    part = f", the first {len(found)} of {len(all_found)}" if len(all_found) > len(found) else ""
    print(f"written: {args.save_plot}{part}")


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
    elif args.pick and (pick := PICK.search(theirs)):  # the user chose the face of the query
        settings = PICK.sub(pick[0], settings)
    return load_gallery(args.gallery, checkpoint_sha256=embedder.sha256, settings=settings)


def _caption(path: str) -> str:
    """Return folder and name in two lines, or only a name that starts with the folder's name.

    LFW has such names.
    """
    *_, folder, name = ("", *Path(path).parts)
    return name if not folder or name.startswith(folder) else f"{folder}/\n{name}"
