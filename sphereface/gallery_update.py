"""Bring a gallery in a folder up to date: embed new and changed images, shared by all processes.

The images are cut into shards. A process takes the next shard, embeds its images, and writes it
whole, so a killed run loses at most the shard in hand. The next run keeps every whole shard, and
reads the images that are new or have another size or time. The list ``gallery.json`` is replaced at
the end, after which shards that nothing needs are deleted.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .api import FaceEmbedder
from .errors import UserError
from .evaluation.gallery_folder import LIST, GalleryFolder, is_gallery_folder, read_list
from .evaluation.gallery_shard import (
    SHARD_NAME,
    DamagedShard,
    GalleryKind,
    Shard,
    ShardContent,
    read_shard,
    text,
    write_shard,
)
from .files import locked
from .gallery_part import Int64, Summary, embed_part, nothing_usable
from .image_list import ImageList
from .training.distributed import World

log = logging.getLogger(__name__)

_LOCK = ".embed.lock"
_INDEX = re.compile(r"([0-9a-f]{16})\.faiss(\.json)?")
_SHARDS = 256  # that a gallery is cut into, within the limits of the next line
_FEWEST, _MOST = 64, 8192  # images in a shard: the most takes half an hour where a face takes a fifth of a second


@dataclass
class _Plan:
    """What of a gallery is kept, and which images are embedded.

    Attributes:
        kept: shards that stay as they are, each with the number of its first image.
        reduced: shards of which only some images are current, with their numbers in the shard.
        todo: numbers of the images to embed.
        summary: of the kept images.
    """

    kept: list[tuple[int, Shard]]
    reduced: list[tuple[int, ShardContent]]
    todo: Int64
    sizes: Int64
    times: Int64
    summary: Summary


def update_gallery(
    folder: Path, listed: ImageList, embedder: FaceEmbedder, kind: GalleryKind, world: World, *, progress: bool
) -> Summary | None:
    """Embed what is new or changed, and write the gallery.

    Args:
        folder: of the gallery; made if absent.
        listed: all images of the gallery.
        embedder: of this process.
        kind: what is common to the gallery, see :func:`kind_of`.
        world: the processes that share the work; each calls this function.
        progress: draw a bar on stderr.

    Returns:
        A summary in the first process, None in the others.

    Raises:
        UserError: the folder holds something else or a gallery of another kind, another run writes
            it, it cannot be written, or no image can be used.
    """
    with contextlib.ExitStack() as stack:
        plan = None
        if world.first:
            stack.enter_context(_only_writer(folder))
            plan = _make_plan(folder, listed, kind)
        todo, sizes, times = world.broadcast(None if plan is None else (plan.todo, plan.sizes, plan.times))  # type: ignore[misc]
        work = _Work(folder, listed, embedder, kind, sizes, times)
        written, summary = work.embed_all(todo, len(listed.names), world, progress=progress and world.first)
        found = world.all_gather((written, summary))
        if plan is None:
            return None
        for shards, other in found:
            plan.kept += shards
            plan.summary.join(other)
        _finish(folder, kind, plan, listed)
        return plan.summary


def kind_of(embedder: FaceEmbedder, root: Path, *, alignment: str, dtype: str) -> GalleryKind:
    """Return what the shards of a gallery will have in common."""
    dim = embedder.dim // 2 if embedder.flip else embedder.dim
    return GalleryKind(
        embedder.sha256, embedder.settings, alignment, str(root), dim, embedder.flip, dtype,
        embedder.reader.on_several,
    )  # fmt: skip


def check_gallery_place(folder: Path, images: Path) -> None:
    """Refuse a folder that holds something else than a gallery.

    Raises:
        UserError: see above; or it is the folder of the images.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file · allowed: OUT.npz, or a folder for the gallery")
    if images.is_dir() and folder.resolve() == images.resolve():
        raise UserError(f"{folder}: got the folder of the images · allowed: another folder for the gallery")
    strange = next((name for name in sorted(path.name for path in folder.iterdir()) if not _is_ours(name)), None)
    if strange is not None:
        raise UserError(
            f"{folder}: holds {strange!r:.100}, which is no part of a gallery · give another or a new folder"
        )


def _is_ours(name: str) -> bool:
    return name.startswith(".") or name == LIST or any(form.fullmatch(name) for form in (SHARD_NAME, _INDEX))


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            alone = stack.enter_context(locked(folder / _LOCK))
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}) · check permissions and space") from error
        if not alone:
            raise UserError(
                f"{folder}: another sphereface embed writes this gallery · wait for it, or give another folder"
            )
        yield


def _make_plan(folder: Path, listed: ImageList, kind: GalleryKind) -> _Plan:
    """Compare the shards that are there with the images."""
    earlier = _earlier_shards(folder, kind)
    sizes, times = listed.stamps()
    number_of = {name: number for number, name in enumerate(listed.names)}
    plan = _Plan([], [], np.empty(0, np.int64), sizes, times, Summary(len(listed.names)))
    taken = np.zeros(len(listed.names), dtype=bool)
    unlisted = sorted(path.name for path in folder.iterdir() if SHARD_NAME.fullmatch(path.name))
    for name in dict.fromkeys([*earlier, *unlisted]):
        try:
            content = read_shard(folder / name, kind)
        except DamagedShard as error:
            log.warning("%s · its images are embedded again", str(error).rpartition(" · ")[0])
            continue
        numbers = np.array([number_of.get(text(image), -1) for image in content.images], dtype=np.int64)
        current = (numbers >= 0) & (sizes[numbers] == content.sizes) & (times[numbers] == content.times)
        current &= ~taken[numbers] & (content.sizes >= 0)
        plan.summary.num_gone += int((numbers < 0).sum()) if name in earlier else 0
        taken[numbers[current]] = True
        _keep(plan, folder / name, content, numbers, current)
    _check_not_emptied(folder, listed, plan, earlier)
    plan.todo = np.flatnonzero(~taken)
    return plan


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


def _earlier_shards(folder: Path, kind: GalleryKind) -> list[str]:
    """Return the shards of the gallery before. Refuse one of another kind."""
    if not is_gallery_folder(folder):
        return []
    earlier = read_list(folder)
    for key, value in vars(replace(kind, root=earlier.kind.root)).items():
        before = getattr(earlier.kind, key)
        if before != value:
            raise UserError(
                f"{folder}: holds a gallery with {key} {str(before)[:100]}, now {str(value)[:100]} · give the same "
                "options, or another folder, or delete this one"
            )
    return [shard.file for shard in earlier.shards]


def _check_not_emptied(folder: Path, listed: ImageList, plan: _Plan, earlier: Sequence[str]) -> None:
    """Refuse to replace a gallery by one of other images altogether."""
    if earlier and plan.summary.num_gone and not (plan.kept or plan.reduced):
        raise UserError(
            f"{folder}: holds a gallery of other images, none of which is in {listed.place} · give another folder, or "
            "delete this one"
        )


@dataclass(frozen=True)
class _Work:
    """The work of one process."""

    folder: Path
    listed: ImageList
    embedder: FaceEmbedder
    kind: GalleryKind
    sizes: Int64
    times: Int64

    def embed_all(
        self, todo: Int64, num_images: int, world: World, *, progress: bool
    ) -> tuple[list[tuple[int, Shard]], Summary]:
        """Embed shard after shard, as long as there is one that no process has taken."""
        per_shard = images_per_shard(num_images)
        parts = [todo[start : start + per_shard] for start in range(0, len(todo), per_shard)]
        written, summary = [], Summary(0)
        share = f" ({world.size} processes)" if world.size > 1 else ""
        with tqdm(
            total=len(todo), desc=f"embedding{share}", unit="img", disable=not (progress and len(todo)), leave=False
        ) as bar:
            for number in _taken(world, len(parts)):
                bar.update(number * per_shard - bar.n if world.size > 1 else 0)
                content = embed_part(
                    self.embedder, self.listed, parts[number], self.sizes, self.times,
                    dtype=self.kind.dtype, on_batch=bar.update,
                )  # fmt: skip
                written.append((int(parts[number][0]), write_shard(self.folder, content, self.kind)))
                summary.add(content)
                summary.num_embedded += len(parts[number])
        return written, summary


def images_per_shard(num_images: int) -> int:
    """Return the number of images in a shard, a power of two."""
    return min(_MOST, max(_FEWEST, 1 << round(math.log2(max(1, num_images / _SHARDS)))))


def _taken(world: World, count: int) -> Iterator[int]:
    """Yield the numbers of the parts that this process takes: each process takes the next one."""
    for number in itertools.count() if world.size == 1 else iter(lambda: world.store.add("embed", 1) - 1, None):
        if number >= count:
            return
        yield number


def _finish(folder: Path, kind: GalleryKind, plan: _Plan, listed: ImageList) -> None:
    """Write the list; then delete what it does not name."""
    if not plan.summary.num_rows:
        raise UserError(nothing_usable(listed, aligned=kind.settings.startswith("aligned")))
    shards = plan.kept + [(first, write_shard(folder, content, kind)) for first, content in plan.reduced]
    gallery = GalleryFolder(folder, kind, tuple(shard for _, shard in sorted(shards, key=lambda each: each[0])))
    gallery.save()
    files = {shard.file for shard in gallery.shards}
    for path in folder.iterdir():
        index = _INDEX.fullmatch(path.name)
        if (SHARD_NAME.fullmatch(path.name) and path.name not in files) or (index and index[1] != gallery.sha256[:16]):
            with contextlib.suppress(OSError):
                path.unlink()
