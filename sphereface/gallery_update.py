"""Update a gallery in a folder: embed new and changed images, shared by all processes.

The images are divided into shards. Each process takes the next shard, embeds its images, and writes
it whole. A killed run loses at most the shards that its processes are embedding. The next run keeps
every whole shard, and embeds the images that are new or have another size or time. At the end it
merges small shards if there are many, replaces the list ``gallery.json`` and deletes the shards
that the list does not name.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from .api import FaceEmbedder
from .errors import UserError, refusing
from .evaluation.gallery_folder import LIST, LOCK, GalleryFolder
from .evaluation.gallery_merge import merge_small
from .evaluation.gallery_shard import SHARD_NAME, GalleryKind, Shard, ShardContent, write_shard
from .files import locked
from .gallery_part import Int64, Summary, check_all_alike, check_one_folder, embed_part
from .gallery_plan import Plan, make_plan
from .image_list import ImageList
from .training.distributed import World

_INDEX = re.compile(r"([0-9a-f]{16})\.faiss(\.json)?")
_SHARDS = 256  # number of shards of a gallery, within the limits of the next line
_FEWEST, _MOST = 64, 8192  # images in a shard; 8192 take half an hour at 0.2 s for a face


def update_gallery(
    folder: Path, listed: ImageList, embedder: FaceEmbedder, kind: GalleryKind, world: World
) -> Summary | None:
    """Embed the new and the changed images, and write the gallery, unless no image can be used.

    Args:
        folder: of the gallery; created if it does not exist.
        listed: all images of the gallery.
        embedder: of this process.
        kind: of the gallery, see :func:`kind_of`.
        world: the processes that share the work. Each of them calls this function.

    Returns:
        A summary in the first process, None in the others.

    Raises:
        UserError: the folder holds other files or another gallery, another run writes to it, it
            cannot be written, or the processes have different networks, options or images, or do
            not share the folder.
    """
    check_all_alike(world, folder, listed, kind)
    check_one_folder(world, folder)
    with contextlib.ExitStack() as stack:
        plan = None
        if world.first:
            stack.enter_context(_only_writer(folder))
            plan = make_plan(folder, listed, kind)
        todo, stamps = world.broadcast(None if plan is None else (plan.todo, plan.stamps))  # type: ignore[misc]
        embed = partial(embed_part, embedder, listed, stamps=stamps, dtype=kind.dtype)
        parts = _parts(todo, len(listed.names))
        found = world.all_gather(_embed_all(folder, parts, embed, kind, world))
        if plan is None:
            return None
        for shards, other in found:
            plan.kept += shards
            plan.summary.join(other)
        if plan.summary.num_rows:
            _finish(folder, kind, plan, listed)
        return plan.summary


def kind_of(embedder: FaceEmbedder, root: Path, *, alignment: str, dtype: str) -> GalleryKind:
    """Return the properties that all shards of a gallery share."""
    dim = embedder.dim // 2 if embedder.flip else embedder.dim
    return GalleryKind(
        embedder.sha256, embedder.settings, alignment, str(root), dim, embedder.flip, dtype,
        embedder.reader.on_several,
    )  # fmt: skip


def check_gallery_place(folder: Path, images: Path) -> None:
    """Refuse a place that is neither new nor a gallery in a folder.

    Raises:
        UserError: ``folder`` is a file, holds other files, or is the folder of the images.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file · allowed: OUT.npz, or a folder for the gallery")
    if images.is_dir() and folder.resolve() == images.resolve():
        raise UserError(f"{folder}: got the folder of the images · allowed: another folder for the gallery")
    strange = next((name for name in sorted(path.name for path in folder.iterdir()) if not _is_ours(name)), None)
    if strange is not None:
        raise UserError(f"{folder}: holds {strange!r:.100}, which is not part of a gallery · give another folder")


def _is_ours(name: str) -> bool:
    return name.startswith(".") or name == LIST or any(form.fullmatch(name) for form in (SHARD_NAME, _INDEX))


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with refusing(f"{folder}: cannot be written", "check permissions and space"):
            folder.mkdir(parents=True, exist_ok=True)
            alone = stack.enter_context(locked(folder / LOCK))
        if not alone:
            raise UserError(f"{folder}: another sphereface embed writes this gallery · wait, or give another folder")
        yield


def _parts(todo: Int64, num_images: int) -> list[Int64]:
    """Divide numbers of images into those of each shard."""
    per_shard = _shard_size(num_images)
    return [todo[start : start + per_shard] for start in range(0, len(todo), per_shard)]


def _shard_size(num_images: int) -> int:
    """Return the number of images in a shard, a power of two."""
    return min(_MOST, max(_FEWEST, 1 << round(math.log2(max(1, num_images / _SHARDS)))))


def _embed_all(
    folder: Path, parts: Sequence[Int64], embed: Callable[..., ShardContent], kind: GalleryKind, world: World
) -> tuple[list[tuple[int, Shard]], Summary]:
    """Embed one shard after another, until the processes have taken all of them."""
    written, summary = [], Summary(0)
    total = sum(map(len, parts))
    share = f" ({world.size} processes)" if world.size > 1 else ""
    hidden = not (world.first and total)
    with tqdm(total=total, desc=f"embedding{share}", unit="img", disable=hidden, leave=False) as bar:
        for number in _taken(world, len(parts)):
            bar.update(number * len(parts[0]) - bar.n if world.size > 1 else 0)
            content = embed(numbers=parts[number], on_batch=bar.update)
            written.append((int(parts[number][0]), write_shard(folder, content, kind)))
            summary.add(content)
            summary.num_embedded += len(parts[number])
    return written, summary


def _taken(world: World, count: int) -> Iterator[int]:
    """Yield the numbers of the parts that this process takes. Each process takes the next part."""
    for number in itertools.count() if world.size == 1 else iter(lambda: world.store.add("embed", 1) - 1, None):
        if number >= count:
            return
        yield number


def _finish(folder: Path, kind: GalleryKind, plan: Plan, listed: ImageList) -> None:
    """Write the list of shards, then delete the files that it does not name."""
    shards = plan.kept + [(first, write_shard(folder, content, kind)) for first, content in plan.reduced]
    merged = merge_small(folder, kind, sorted(shards, key=lambda each: each[0]), _shard_size(len(listed.names)))
    shards_of = tuple(shard for _, shard in merged)
    gallery = GalleryFolder(folder, kind, shards_of, os.path.realpath(listed.root), listed.people_root())
    gallery.save()
    files = {shard.file for shard in gallery.shards}
    for path in folder.iterdir():
        index = _INDEX.fullmatch(path.name)
        if (SHARD_NAME.fullmatch(path.name) and path.name not in files) or (index and index[1] != gallery.sha256[:16]):
            with contextlib.suppress(OSError):
                path.unlink()
