"""Run ``sphereface embed``.

:mod:`sphereface.commands.parsers.embed` has its options.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..alignment.kept_settings import note_on_template, settings_near
from ..alignment.near_reports import report_near
from ..alignment.report import REPORT_NAME
from ..api import FaceEmbedder
from ..data.bins import is_bin
from ..data.walking import check_writable
from ..errors import UserError, count_of, listed, printable
from ..evaluation.embedding_table import SUFFIX, write_table
from ..evaluation.gallery_folder import is_gallery_folder
from ..evaluation.gallery_shard import FORMAT, ShardContent, text
from ..gallery import Gallery, images_in, make_gallery, place_of_images
from ..gallery_part import Summary, embed_part
from ..gallery_update import check_gallery_place, kind_of, update_gallery
from ..image_list import Hashed, ImageList, list_named
from ..small_files import check_replaceable
from ..training.distributed import processes
from .face_options import chosen_on_several, make_embedder


def run(args: argparse.Namespace) -> int:
    """Embed the images, write the gallery, and report."""
    if is_bin(args.images) and not args.aligned:
        raise UserError(f"{args.images}: a .bin holds aligned crops · add --aligned")
    if args.output.suffix == SUFFIX:
        return _write_file(args)
    if args.output.suffix and not is_gallery_folder(args.output):
        raise UserError(f"{args.output}: got suffix {args.output.suffix!r} · allowed: {SUFFIX}, or a folder's name")
    return _write_folder(args)


def _write_file(args: argparse.Namespace) -> int:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"{args.output}: got a file with several processes · allowed: the name of a folder")
    check_writable(args.output)
    check_replaceable(args.output, b"checkpoint_sha256", "OUT.npz")
    embedder = make_embedder(args, on_several=chosen_on_several(args))
    found = list_named(args.images)
    root = os.path.realpath(found.root)
    earlier, earlier_images = place_of_images(args.output), images_in(args.output, root)
    alignment = _alignment(found, embedder) if args.aligned else ""
    hashed = Hashed(found.images)
    if args.aligned:  # only crops are the images of a set or of a teacher's table
        found = replace(found, images=hashed)
    content = _embed_now(embedder, found, args.dtype)
    keys = ("quality", "boxes", "scores")
    more = {key: value for key in keys if (value := getattr(content, key)) is not None}
    if alignment:
        more["alignment"] = alignment
    if args.aligned:
        more["image_hash"] = hashed.hashes[content.image_of]
    write_table(
        args.output, [text(name) for name in content.names], content.embeddings, content.mirror, **more,
        root=str(found.root), absolute_root=root, people_root=found.people_root(),
        checkpoint_sha256=embedder.sha256, settings=embedder.settings, format=FORMAT,
    )  # fmt: skip
    print(f"{args.output}: {_rows(len(content.names), content.embeddings.shape[1], mirror=embedder.flip)}")
    if earlier not in ("", root):
        print(f"replaced: a gallery of the images in {printable(earlier)}")
    elif gone := len(earlier_images - images_in(args.output, root)):
        count = count_of(len(earlier_images), "image", "images")
        print(f"replaced: a gallery of {count}, {gone:,} of which {'is' if gone == 1 else 'are'} not in the new one")
    return 0


def _write_folder(args: argparse.Namespace) -> int:
    on_several = chosen_on_several(args)
    check_gallery_place(args.output, args.images)
    with processes(args.device) as (world, device):
        with contextlib.nullcontext() if world.first else contextlib.redirect_stderr(io.StringIO()):  # one note
            embedder = make_embedder(args, on_several=on_several, device=str(device))
            found = list_named(args.images)
            alignment = _alignment(found, embedder) if args.aligned else ""
        kind = kind_of(embedder, found.root, alignment=alignment, dtype=args.dtype)
        summary = update_gallery(args.output, found, embedder, kind, world)
    if summary is not None:
        _report(found, summary, embedder)
        kept, embedded = summary.num_images - summary.num_embedded, count_of(summary.num_embedded, "image", "images")
        changed = f" ({summary.num_changed:,} changed)" if summary.num_changed else ""
        print(
            f"{args.output}: {_rows(summary.num_rows, kind.dim, mirror=kind.mirror)} · "
            f"{embedded} embedded{changed}, {kept:,} unchanged, {summary.num_gone:,} gone"
        )
    return 0


def _alignment(found: ImageList, embedder: FaceEmbedder) -> str:
    """Return the settings of ``sphereface align`` that made the images, as JSON.

    The text is empty if they are unknown. Print a note if the crops differ in them, or from the
    training crops of the checkpoint.
    """
    settings = _settings_of(found)
    sys.stderr.write(note_on_template(settings, found.place, embedder.meta, embedder.input_size, embedder.checkpoint))
    return settings


def _settings_of(found: ImageList) -> str:
    if not found.place.is_dir() and found.root == found.place:
        return settings_near(found.place)
    folders = {(found.root / name).parent for name in found.names}
    if found.root == found.place:
        settings = {settings_near(folder) for folder in {_own_report(folder, found.root) for folder in folders}}
    else:
        reports = {_report_above(Path(os.path.realpath(folder))) for folder in folders}
        settings = {settings_near(report.parent) if report else "" for report in reports}
    if len(settings) == 1:
        return settings.pop()
    sys.stderr.write(
        f"note: {found.place}: sphereface align made its crops with different settings, or not all of them, so the "
        "gallery is without settings · a search then takes crops only, with --aligned\n"
    )
    return ""


def _own_report(folder: Path, top: Path) -> Path:
    """Return the nearest folder with a report, from a folder up to ``top``; without one ``top``."""
    inside = itertools.takewhile(lambda above: above != top, (folder, *folder.parents))
    return next((above for above in inside if (above / REPORT_NAME).exists()), top)


def _report_above(folder: Path) -> Path | None:
    return next((report for above in (folder, *folder.parents) if (report := report_near(above))), None)


def embed_folder(embedder: FaceEmbedder, folder: Path) -> Gallery:
    """Embed the images of a folder for one search. Print the unusable ones on stderr.

    Raises:
        UserError: there are no images, or none of them can be used.
    """
    found = list_named(folder)
    content = _embed_now(embedder, found, "float32")
    names = [text(name) for name in content.names]
    return make_gallery(
        str(found.root), names, content.embeddings, content.mirror,
        checkpoint_sha256=embedder.sha256, settings=embedder.settings,
    )  # fmt: skip


def _embed_now(embedder: FaceEmbedder, found: ImageList, dtype: str) -> ShardContent:
    """Embed all images of a list into memory, and report on stderr."""
    numbers = np.arange(len(found.names))
    stamps = np.zeros((len(found.names), 2), dtype=np.int64)  # only a gallery in a folder keeps these
    content = embed_part(embedder, found, numbers, stamps, dtype=dtype, progress="embedding")
    summary = Summary(len(found.names))
    summary.add(content)
    _report(found, summary, embedder)
    return content


def _report(found: ImageList, summary: Summary, embedder: FaceEmbedder) -> None:
    """Print on stderr which files and images were left out, and which faces were not enrolled.

    Raises:
        UserError: no image can be used.
    """
    if found.not_read:
        print(f"{found.place}: {found.not_read}", file=sys.stderr)
    if summary.problems:
        reasons = listed([f"{printable(str(found.root / name))}: {why}" for name, why in summary.problems])
        print(f"left out {len(summary.problems)} of {summary.num_images} images:{reasons}", file=sys.stderr)
    sys.stderr.write(_note_on_several(summary, embedder))
    if not summary.num_rows:
        advice = " · add --aligned if they are crops" if embedder.reader.template is not None else ""
        raise UserError(f"{found.place}: none of its {summary.num_images} images can be used{advice}")


def _note_on_several(summary: Summary, embedder: FaceEmbedder) -> str:
    """Return a line about images with several faces; an empty text if there are none.

    It names the face that was enrolled, and the number of faces that were not.
    """
    if summary.example is None:
        return ""
    name, faces, place = summary.example
    note = f"note: several faces in {summary.num_several:,} of {summary.num_images:,} images, such as {printable(name)}"
    if embedder.reader.on_several == "all":
        bad = summary.num_not_enrolled
        return f"{note} ({faces}): all were enrolled{f', except {bad:,} with landmarks unlike a face' * bool(bad)}\n"
    which = {"centre": "nearest the centre", "largest": "the largest"}[embedder.reader.pick]
    return (
        f"{note} (number {place} of {faces} from the left): one face of each was enrolled, {which}; "
        f"{count_of(summary.num_not_enrolled, 'other face was', 'other faces were')} not · --all-faces enrols them\n"
    )


def _rows(count: int, dim: int, *, mirror: bool) -> str:
    both = ", and as many of mirror images" if mirror else ""
    return f"{count:,} embeddings of {dim} numbers{both}"
