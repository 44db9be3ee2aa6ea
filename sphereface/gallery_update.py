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
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .api import FaceEmbedder
from .errors import UserError, printable, refusing, shown_key
from .evaluation.gallery_folder import LIST, LOCK, GalleryFolder, is_gallery_folder, read_list
from .evaluation.gallery_merge import merge_small
from .evaluation.gallery_shard import (
    SHARD_NAME,
    DamagedShard,
    GalleryKind,
    Shard,
    ShardContent,
    read_shard,
    root_of,
    text,
    write_shard,
)
from .files import locked
from .gallery import differing_parts
from .gallery_part import Int64, Summary, check_all_alike, embed_part
from .image_list import ImageList
from .training.distributed import World

log = logging.getLogger(__name__)

_INDEX = re.compile(r"([0-9a-f]{16})\.faiss(\.json)?")
_SHARDS = 256  # number of shards of a gallery, within the limits of the next line
_FEWEST, _MOST = 64, 8192  # images in a shard; 8192 take half an hour at 0.2 s for a face


@dataclass
class _Plan:
    """Which shards stay in a gallery, and which images this run embeds.

    Attributes:
        kept: shards that stay as they are, each with the number of its first image.
        reduced: current parts of shards that are only partly current, each with the number of its
            first image.
        todo: numbers of the images to embed.
        stamps: see :meth:`ImageList.stamps`.
        summary: of the images that stay.
    """

    kept: list[tuple[int, Shard]]
    reduced: list[tuple[int, ShardContent]]
    todo: Int64
    stamps: Int64
    summary: Summary


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
            cannot be written, or the processes have different networks, options or images.
    """
    check_all_alike(world, folder, listed, kind)
    with contextlib.ExitStack() as stack:
        plan = None
        if world.first:
            stack.enter_context(_only_writer(folder))
            plan = _make_plan(folder, listed, kind)
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


def _make_plan(folder: Path, listed: ImageList, kind: GalleryKind) -> _Plan:
    """Compare the existing shards with the images."""
    earlier = _earlier_gallery(folder, kind)
    stamps = listed.stamps()
    free = defaultdict[str, list[int]](list)  # numbers of a name without a row yet, the lowest last
    for number in reversed(range(len(listed.names))):
        free[listed.names[number]].append(number)
    plan = _Plan([], [], np.empty(0, np.int64), stamps, Summary(len(listed.names)))
    own = [shard.file for shard in earlier.shards] if earlier else []
    unlisted = {path.name for path in folder.iterdir() if SHARD_NAME.fullmatch(path.name)} - {*own}
    damaged: list[str] = []
    for name in [*own, *sorted(unlisted)]:  # a shard occurs twice if the list repeats its images
        try:
            content = read_shard(folder / name, kind)
        except DamagedShard as error:
            damaged.append(str(error).rpartition(" · ")[0])
            continue
        numbers, num_changed, num_gone = _take_numbers(free, content, stamps)
        if name in own:
            plan.summary.num_changed += num_changed
            plan.summary.num_gone += num_gone
        _keep(plan, folder / name, content, numbers, numbers >= 0)
    if earlier:
        _check_not_replaced(earlier, listed, plan, damaged=bool(damaged))
    elif not (plan.kept or plan.reduced):
        _check_not_deleted(folder, sorted(unlisted), listed)
    for each in damaged:
        log.warning("%s · its images are embedded again", each)
    plan.todo = np.array(sorted(itertools.chain.from_iterable(free.values())), dtype=np.int64)
    return plan


def _take_numbers(free: Mapping[str, list[int]], content: ShardContent, stamps: Int64) -> tuple[Int64, int, int]:
    """Take a free number for each current image of a shard.

    Each number is taken once, so a list that repeats an image keeps a row for each repetition.

    Returns:
        (K,) the numbers, -1 for an image that is not current; how many images have other content
        now; and how many are gone.
    """
    numbers, num_changed, num_gone = np.full(len(content.images), -1, dtype=np.int64), 0, 0
    for place, image in enumerate(content.images):
        own = free.get(text(image))
        if not own:
            num_gone += 1
        elif 0 <= content.sizes[place] == stamps[own[-1], 0] and content.times[place] == stamps[own[-1], 1]:
            numbers[place] = own.pop()
        elif content.sizes[place] >= 0:
            num_changed += 1
    return numbers, num_changed, num_gone


def _keep(plan: _Plan, path: Path, content: ShardContent, numbers: Int64, current: npt.NDArray[np.bool_]) -> None:
    """Put the current images of a shard into the plan."""
    if not current.any():
        return
    first = int(numbers[current].min())
    if current.all():
        plan.kept.append((first, Shard(path.name, len(content.names), len(content.images), path.stat().st_size)))
        plan.summary.add(content)
    else:
        part = content.only(np.flatnonzero(current))
        plan.reduced.append((first, part))
        plan.summary.add(part)


def _earlier_gallery(folder: Path, kind: GalleryKind) -> GalleryFolder | None:
    """Return the existing gallery. Refuse one of another kind."""
    if not is_gallery_folder(folder):
        return None
    earlier = read_list(folder)
    for key, value in vars(replace(kind, root=earlier.kind.root)).items():
        before = getattr(earlier.kind, key)
        if before != value:
            theirs, ours = differing_parts(str(before), str(value))
            raise UserError(
                f"{folder}: holds a gallery with {key} {shown_key(theirs)}, got {shown_key(ours)} · "
                "give the same options or another folder, or delete this gallery"
            )
    return earlier


def _check_not_replaced(earlier: GalleryFolder, listed: ImageList, plan: _Plan, *, damaged: bool) -> None:
    """Refuse to replace a gallery of other images. Warn if the folder is another one.

    Images of one folder may all change, so only another folder or other names make other images.
    """
    changed, gone = plan.summary.num_changed, plan.summary.num_gone
    root = earlier.absolute_root or os.path.realpath(earlier.kind.root)
    other = root != os.path.realpath(listed.root)
    replaced = (gone or changed or damaged) if other else (gone and not changed and not damaged)
    if replaced and not (plan.kept or plan.reduced):
        images = sum(shard.images for shard in earlier.shards)
        raise UserError(
            f"{earlier.path}: holds a gallery of {printable(root)}: none of its {images:,} images is in {listed.place} "
            "with the same size, time and content · a copy of that folder keeps its times with cp -a · give another "
            "folder for the gallery, or delete this one"
        )
    if other and (changed or gone):
        log.warning(
            "%s: held a gallery of %s: %s of its images have other content in %s, and %s are not there",
            earlier.path, printable(root), f"{changed:,}", listed.place, f"{gone:,}",
        )  # fmt: skip


def _check_not_deleted(folder: Path, shards: Sequence[str], listed: ImageList) -> None:
    """Refuse to delete whole shards of an unfinished gallery if none of their images is kept."""
    root = next((root for name in shards if (root := root_of(folder / name)) is not None), None)
    if root is not None:
        raise UserError(
            f"{folder}: holds an unfinished gallery of {printable(root)}: none of its images is in {listed.place} "
            "with the same size, time and content, or its options differ · finish it with its own command, give "
            "another folder, or delete this one"
        )


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


def _finish(folder: Path, kind: GalleryKind, plan: _Plan, listed: ImageList) -> None:
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
