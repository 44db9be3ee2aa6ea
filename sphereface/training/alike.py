"""Compare what the processes of one run train on: each reads its own configuration and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from ..config import Config, differences
from ..errors import UserError, count_of, shown
from .distributed import World
from .same_run import MOST_DIFFERENCES, PLACES, TEACHER_PLACES
from .training_set import TrainingSet, sampled_labels

_OWN = {"data": ("workers", "keep_mb"), "log": ("sinks",)}
Facts = Mapping[str, Any]


def check_settings(world: World, config: Config) -> None:
    """Refuse processes with other settings than the first one, but for places of files.

    Each machine may have its own copy of the data. Each process calls this function before
    anything else that waits for the others. Raises UserError on all processes.
    """
    plain = config.to_dict()
    del plain["runs_dir"]
    for section, names in _OWN.items():
        for name in names:
            del plain[section][name]
    for section, names in PLACES.items():
        plain[section] |= {name: plain[section][name] is not None for name in names}
    teacher = plain["train"]["teacher"]
    teacher |= {name: teacher[name] is not None for name in TEACHER_PLACES}
    plain["eval"]["sets"] = sorted(plain["eval"]["sets"])
    _check(world, plain, _other_settings)


def check_data(world: World, data: TrainingSet) -> None:
    """Refuse processes with other training images than the first one.

    They are compared by the samples that a checkpoint keeps. Raises UserError on all processes.
    """
    if world.size > 1:
        about = data.about()
        about.pop("template", None)  # a copy of the crops may lack the report of `align`
        _check(world, about, _other_data)


def check_files(world: World, teacher: str | None, codes: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Refuse processes with another teacher, plugins or evaluation sets than the first one.

    Args:
        world: the processes.
        teacher: SHA-256 of the teacher of this process, if any.
        codes: of its plugins, see :meth:`.Learner.codes`.
        digests: of its evaluation sets.

    Raises:
        UserError: on all processes.
    """
    _check(
        world,
        {
            "train.teacher": teacher,
            **{f"the {plugin}": code for plugin, code in codes.items()},
            **{f"eval.sets.{name}": digest for name, digest in digests.items()},
        },
        _other_file,
    )


def check_start(world: World, file: str, sha256: str) -> None:
    """Refuse processes that begin at other weights than the first one.

    Args:
        world: the processes.
        file: what it is, for the message.
        sha256: of this process's file.

    Raises:
        UserError: on all processes.
    """
    _check(world, {file: sha256}, _other_file)


def _check(world: World, own: Facts, difference: Callable[[Facts, Facts, int], str]) -> None:
    """Compare facts of all processes by a hash, and explain the first difference."""
    if world.size == 1 or len(set(world.all_gather(_hash(own)))) == 1:
        return
    first = world.broadcast(own)
    lines = world.all_gather("" if own == first else difference(first, own, world.rank))
    if any(lines):
        raise UserError(next(filter(None, lines)))


def _hash(facts: Facts) -> bytes:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


def _other_settings(first: Facts, own: Facts, rank: int) -> str:
    lines = differences(first, own)
    more = f" · and {len(lines) - MOST_DIFFERENCES} more" if len(lines) > MOST_DIFFERENCES else ""
    return (
        f"process {rank} has other settings than process 0: {' · '.join(lines[:MOST_DIFFERENCES])}{more} · "
        "allowed: one configuration · start all processes with the same file and the same --set"
    )


def _other_data(first: Facts, own: Facts, rank: int) -> str:
    what = f"process {rank} has {_unlike(first, own)} than process 0"
    sizes = [
        f"{count_of(each['num_images'], 'image', 'images')} of "
        f"{count_of(len(each['class_names']), 'identity', 'identities')}"
        for each in (first, own)
    ]
    names = zip(first["class_names"], own["class_names"], strict=False)
    if sizes[0] != sizes[1]:
        what = f"got {sizes[0]} in process 0, {sizes[1]} in process {rank}"
    elif other := next(((k, pair) for k, pair in enumerate(names) if pair[0] != pair[1]), None):
        number, (before, now) = other
        what = f"got {shown(before)} as identity {number} in process 0, {shown(now)} in process {rank}"
    return f"data.train: {what} · allowed: the same images for all processes · copy the data to all machines again"


def _unlike(first: Facts, own: Facts) -> str:
    """Return what differs in data of the same identities."""
    labels = sampled_labels(len(own["class_names"]))
    for key in ("sample", "more_samples"):
        for label, before, now in zip(labels, first[key], own[key], strict=False):
            if before != now:
                return f"other images of {shown(own['class_names'][label])}"
    return (
        "other numbers of images of some identities" if first["counts"] != own["counts"] else "another order of images"
    )


def _other_file(first: Facts, own: Facts, rank: int) -> str:
    key = next(key for key in own if own[key] != first.get(key))
    return (
        f"{key}: process {rank} has other content than process 0 · allowed: the same for all processes · copy it to "
        "all machines again"
    )
