"""The plan of an update of a gallery: which shards stay, and which images are embedded."""

from __future__ import annotations

import itertools
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import UserError, printable, shown_key
from .evaluation.gallery_folder import GalleryFolder, is_gallery_folder, read_list
from .evaluation.gallery_shard import (
    SHARD_NAME,
    DamagedShard,
    GalleryKind,
    Shard,
    ShardContent,
    read_shard,
    root_of,
    text,
)
from .gallery import differing_parts
from .gallery_part import Int64, Summary
from .image_list import ImageList

log = logging.getLogger(__name__)


@dataclass
class Plan:
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


def make_plan(folder: Path, listed: ImageList, kind: GalleryKind) -> Plan:
    """Compare the existing shards with the images.

    Raises:
        UserError: the folder holds a gallery of another kind, or of other images.
    """
    earlier = _earlier_gallery(folder, kind)
    stamps = listed.stamps()
    free = defaultdict[str, list[int]](list)  # numbers of a name without a row yet, the lowest last
    for number in reversed(range(len(listed.names))):
        free[os.path.normpath(listed.names[number])].append(number)
    plan = Plan([], [], np.empty(0, np.int64), stamps, Summary(len(listed.names)))
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
        own = free.get(os.path.normpath(text(image)))
        if not own:
            num_gone += 1
        elif 0 <= content.sizes[place] == stamps[own[-1], 0] and content.times[place] == stamps[own[-1], 1]:
            numbers[place] = own.pop()
        elif content.sizes[place] >= 0:
            num_changed += 1
    return numbers, num_changed, num_gone


def _keep(plan: Plan, path: Path, content: ShardContent, numbers: Int64, current: npt.NDArray[np.bool_]) -> None:
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


def _check_not_replaced(earlier: GalleryFolder, listed: ImageList, plan: Plan, *, damaged: bool) -> None:
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
            "with the same path, size, time and content · a copy of that folder keeps its times with cp -a · give "
            "another folder for the gallery, or delete this one"
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
            "with the same path, size, time and content, or its options differ · finish it with its own command, give "
            "another folder, or delete this one"
        )
