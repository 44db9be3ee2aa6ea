"""Merge the small shards of a gallery, so that many small additions do not slow down its search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .gallery_shard import GalleryKind, Shard, ShardContent, read_shard, write_shard

MANY = 256
"""More small shards than this are merged. Each costs a search 0.4 ms of processor time."""

Numbered = tuple[int, Shard]
"""A shard with the number of its first image."""


def merge_small(folder: Path, kind: GalleryKind, shards: Sequence[Numbered], size: int) -> list[Numbered]:
    """Merge the small shards of a gallery if there are many.

    The files of merged shards stay; the caller deletes them once its list names the new ones.

    Args:
        folder: of the gallery.
        kind: of the gallery.
        shards: all shards of the gallery, in their order.
        size: number of images in a whole shard. One with at most half of them is small.

    Returns:
        The shards of the merged gallery, in the order of their first images.

    Raises:
        UserError: a shard cannot be read or written.
    """
    small = [each for each in shards if 2 * each[1].images <= size]
    if len(small) <= MANY:
        return list(shards)
    merged = [each for each in shards if 2 * each[1].images > size]
    for group in _groups(small, size):
        merged += group if len(group) == 1 else [(group[0][0], _merged(folder, kind, group))]
    return sorted(merged, key=lambda each: each[0])


def _groups(small: Sequence[Numbered], size: int) -> Iterator[list[Numbered]]:
    """Yield runs of shards that have at most ``size`` images together."""
    group: list[Numbered] = []
    for each in small:
        if group and sum(shard.images for _, shard in (*group, each)) > size:
            yield group
            group = []
        group.append(each)
    yield group


def _merged(folder: Path, kind: GalleryKind, group: Sequence[Numbered]) -> Shard:
    contents = [read_shard(folder / shard.file, kind) for _, shard in group]
    starts = np.cumsum([0, *(len(content.images) for content in contents)])
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(ShardContent)):
        parts = [getattr(content, name) for content in contents]
        if name in ("image_of", "unusable"):  # numbers of images
            parts = [part + start for part, start in zip(parts, starts.tolist(), strict=False)]
        found[name] = None if any(part is None for part in parts) else np.concatenate(parts)
    return write_shard(folder, ShardContent(**found), kind)
