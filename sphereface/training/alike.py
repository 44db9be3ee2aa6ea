"""Compare what the processes of one run train on: each reads its own configuration and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..config import Config, differences
from ..errors import UserError, count_of, shown
from .distributed import World
from .same_run import what_trains
from .training_set import TrainingSet, sampled_labels

_PLACES = {"data": ("train", "root", "exclude_file"), "train": ("init_from",), "eval": ("selecting set",)}
_TEACHER_PLACES = ("embeddings", "onnx", "checkpoint")
_MOST_DIFFERENCES = 5


def check_all_alike(world: World, config: Config, data: TrainingSet, digests: Mapping[str, str]) -> None:
    """Refuse processes with other settings, images or evaluation sets than the first one.

    Each machine may have its own copy of the data, so only contents are compared, by the samples
    that a checkpoint stores. Each process calls this function.

    Args:
        world: the processes.
        config: the configuration of this process.
        data: its images and its teacher.
        digests: of its evaluation sets.

    Raises:
        UserError: they differ. All processes raise it.
    """
    if world.size == 1:
        return
    own = {"settings": _settings(config), "data": data.about(), "digests": dict(digests)}
    if len(set(world.all_gather(hashlib.sha256(json.dumps(own, sort_keys=True).encode()).digest()))) == 1:
        return
    first = world.broadcast(own)
    raise UserError(next(filter(None, world.all_gather(_difference(first, own, world.rank)))))


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that train, without places of files."""
    plain = what_trains(config)
    del plain["runs_dir"]
    for section, names in _PLACES.items():
        for name in names:
            del plain[section][name]
    for name in _TEACHER_PLACES:
        del plain["train"]["teacher"][name]
    return plain


def _difference(first: Mapping[str, Any], own: Mapping[str, Any], rank: int) -> str:
    """Return a line on how this process differs from the first; "" if it does not."""
    if lines := differences(first["settings"], own["settings"]):
        more = f" · and {len(lines) - _MOST_DIFFERENCES} more" if len(lines) > _MOST_DIFFERENCES else ""
        return (
            f"process {rank} has other settings than process 0: {' · '.join(lines[:_MOST_DIFFERENCES])}{more} · "
            "allowed: one configuration · start all processes with the same file and the same --set"
        )
    if what := _other_data(first["data"], own["data"], rank):
        return f"{what} · allowed: the same images for all processes · copy the data to all machines again"
    for name, digest in own["digests"].items():
        if digest != first["digests"].get(name):
            return (
                f"eval.sets.{name}: process {rank} has other content than process 0 · allowed: the same images and "
                "pairs for all processes · copy the set to all machines again"
            )
    return ""


def _other_data(first: Mapping[str, Any], own: Mapping[str, Any], rank: int) -> str:
    sizes = [
        f"{count_of(each['num_images'], 'image', 'images')} of "
        f"{count_of(len(each['class_names']), 'identity', 'identities')}"
        for each in (first, own)
    ]
    if sizes[0] != sizes[1]:
        return f"data.train: got {sizes[0]} in process 0, {sizes[1]} in process {rank}"
    pairs = zip(first["class_names"], own["class_names"], strict=True)
    for number, (one, other) in enumerate(pairs):
        if one != other:
            return f"data.train: got {shown(one)} as identity {number} in process 0, {shown(other)} in process {rank}"
    for key in ("sample", "more_samples"):
        for label, one, other in zip(sampled_labels(len(own["class_names"])), first[key], own[key], strict=True):
            if one != other:
                name = shown(own["class_names"][label])
                return f"data.train: process {rank} has other images of {name} than process 0"
    if first["counts"] != own["counts"]:
        return f"data.train: process {rank} has other numbers of images of some identities than process 0"
    if first.get("teacher") != own.get("teacher"):
        return f"train.teacher: process {rank} has another teacher than process 0"
    return "" if first == own else f"data.train: process {rank} has crops of other settings than process 0"
