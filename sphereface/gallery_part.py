"""Embed some images into rows of a gallery, and summarise the results."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .api import FaceEmbedder
from .embedded import Embedded, name_of
from .errors import UserError, printable, refusing, shown_key
from .evaluation.gallery_shard import GalleryKind, ShardContent, text, texts
from .gallery import differing_parts
from .image_list import ImageList
from .training.distributed import World

Int64 = npt.NDArray[np.int64]

_MAY_PASS = re.compile(r"^cannot be read \(|pip install|nsufficient memory")
"""Reasons that are not in the image: of the file system, a missing extra, or no memory."""
_MOST_LOST = 0.01  # of the length of an embedding; float16 loses 0.0005, and more of numbers below 0.00006
_LATEST = 70.0  # seconds until a network disk shows a new folder; NFS takes up to 60


@dataclass
class Summary:
    """Counts of the images and rows of a gallery, and the images that cannot be used.

    Attributes:
        num_images: N.
        num_rows: rows of the gallery.
        num_embedded: images that this run embedded.
        num_changed: images that the gallery held with other content before this run.
        num_gone: images that the gallery held before this run and that do not exist any more.
        problems: (image, reason) of each image that cannot be used. The reason does not name it.
        num_several: images with several faces.
        num_not_enrolled: faces of these images that have no row.
        example: an image with several faces, their number, and the number of the first face with a
            row, counted from the left.
    """

    num_images: int
    num_rows: int = 0
    num_embedded: int = 0
    num_changed: int = 0
    num_gone: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    num_several: int = 0
    num_not_enrolled: int = 0
    example: tuple[str, int, int] | None = None

    def add(self, content: ShardContent) -> None:
        """Add the images of a shard."""
        self.num_rows += len(content.names)
        self.problems += [
            (text(content.images[image]), text(why))
            for image, why in zip(content.unusable.tolist(), content.reasons, strict=True)
        ]
        first = dict(zip(reversed(content.image_of.tolist()), reversed(content.places.tolist()), strict=True))
        several = content.faces > 1
        self.num_several += int(several.sum())
        for image in np.flatnonzero(several).tolist():
            self.example = self.example or (text(content.images[image]), int(content.faces[image]), first.get(image, 1))
        self.num_not_enrolled += int(content.faces[several].sum() - several[content.image_of].sum())

    def join(self, other: Summary) -> None:
        """Add the summary of another process."""
        self.num_rows += other.num_rows
        self.num_embedded += other.num_embedded
        self.problems += other.problems
        self.num_several += other.num_several
        self.num_not_enrolled += other.num_not_enrolled
        self.example = self.example or other.example


def check_all_alike(world: World, folder: Path, listed: ImageList, kind: GalleryKind) -> None:
    """Compare network, options and images of all processes. Each calls this function.

    Each process loads the checkpoint and lists the images for itself, and these may have changed
    between, or differ between machines.

    Raises:
        UserError: they differ. All processes raise it.
    """
    if world.size == 1:
        return
    digest = hashlib.sha256()
    for name in listed.names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    (first, *first_images), *others = world.all_gather((replace(kind, root=""), len(listed.names), digest.digest()))
    for rank, (other, *images) in enumerate(others, start=1):
        for key, value in vars(first).items():
            if value != (theirs := getattr(other, key)):
                one, two = map(shown_key, differing_parts(str(value), str(theirs)))
                raise UserError(
                    f"{folder}: got {key} {one} in process 0, {two} in process {rank} · allowed: one checkpoint and "
                    "the same options for all processes · give all of them the same, and run the command again"
                )
        if images != first_images:
            raise UserError(
                f"{listed.place}: got {first_images[0]:,} images in process 0, and {images[0]:,} in process {rank}, "
                "which are not the same ones · allowed: the same images for all processes · run the command again when "
                "nothing writes there any more"
            )


def check_one_folder(world: World, folder: Path) -> None:
    """Refuse processes that do not find a file of the first process in the folder of the gallery.

    Each calls this function. The first one creates the folder.

    Raises:
        UserError: a process does not find it, or it cannot be written. All processes raise it.
    """
    if world.size == 1:
        return
    with contextlib.ExitStack() as stack:
        name, made = "", world.first and not folder.exists()
        if world.first:
            with refusing(f"{folder}: cannot be written", "check permissions and space"):
                folder.mkdir(parents=True, exist_ok=True)
                name = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".embed-", dir=folder)).name
        found = world.all_gather(_appears(folder / Path(world.broadcast(name)).name))
    if not all(found):
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise UserError(
            f"{folder}: process {found.index(False)} does not find what process 0 writes there: it runs on another "
            "machine, or in another current folder · allowed: one folder that all processes share · give a path on a "
            "disk that all machines share, or run the command on one machine"
        )


def _appears(path: Path) -> bool:
    """Return whether a file exists. A network disk may show a new one late."""
    deadline = time.monotonic() + _LATEST
    while not os.path.exists(path):  # noqa: PTH110 -- False without permission, too
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def embed_part(
    embedder: FaceEmbedder,
    listed: ImageList,
    numbers: Int64,
    stamps: Int64,
    *,
    dtype: str,
    progress: str | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> ShardContent:
    """Embed some images of a list.

    Args:
        embedder: the network.
        listed: N images.
        numbers: (K,) numbers of the images to embed.
        stamps: (N, 2) see :meth:`ImageList.stamps`.
        dtype: number type of the returned embeddings.
        progress, on_batch: see :meth:`FaceEmbedder.try_embed`.

    Raises:
        UserError: an embedding is zero or not finite, or ``dtype`` cannot hold it.
    """
    chosen = numbers.tolist()
    names = [listed.names[number] for number in chosen]
    images = [listed.images[number] for number in chosen] if len(chosen) < len(listed.names) else listed.images
    result = embedder.try_embed(images, progress=progress, normalise=False, on_batch=on_batch)
    image, mirror = _split(result, embedder, dtype)
    reasons = {
        number: why.removeprefix(f"{printable(name_of(images[number], number))}: ")
        for number, why in result.problems.items()
    }
    stamps = stamps[numbers]
    stamps[[number for number, why in reasons.items() if _MAY_PASS.search(why)]] = -1  # the next run tries them again
    faces = np.bincount(result.rows, minlength=len(names)).astype(np.int64)
    for number, count in result.num_faces.items():
        faces[number] = count
    return ShardContent(
        names=texts(_names_of_rows(names, result)), embeddings=image, mirror=mirror,
        quality=np.linalg.norm(result.embeddings, axis=1), image_of=result.rows, places=result.places,
        boxes=result.boxes, scores=result.scores,
        images=texts(names), sizes=stamps[:, 0], times=stamps[:, 1], faces=faces,
        unusable=np.array(list(reasons), dtype=np.int64), reasons=texts(reasons.values()),
    )  # fmt: skip


def _names_of_rows(names: Sequence[str], result: Embedded) -> list[str]:
    """Name each row by its image. If an image has several rows, add their numbers."""
    rows = result.rows.tolist()
    count, seen = Counter(rows), Counter[int]()
    named = []
    for row in rows:
        seen[row] += 1
        named.append(names[row] if count[row] == 1 else f"{names[row]}#{seen[row]}")
    return named


def _split(result: Embedded, embedder: FaceEmbedder, dtype: str) -> tuple[Any, Any]:
    """Return the embeddings of images and of mirror images, (M, D) each.

    Without mirror images the second is None.

    Raises:
        UserError: the number type cannot hold an embedding.
    """
    with np.errstate(over="ignore"):
        stored = result.embeddings.astype(dtype)
    exact = result.embeddings.astype(np.float64)
    lost = np.linalg.norm(stored - exact, axis=1) > _MOST_LOST * np.linalg.norm(exact, axis=1)
    if lost.any() or not np.isfinite(stored).all():
        raise UserError(f"--dtype: got {dtype}, which cannot hold embeddings of this network · allowed: float32")
    image, mirror = np.split(stored, 2, axis=1) if embedder.flip else (stored, None)
    return np.ascontiguousarray(image), None if mirror is None else np.ascontiguousarray(mirror)
