"""Types and ranges of the keys in a checkpoint's ``meta`` that commands use. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

from .errors import shown, shown_key
from .options import option, parse_options

_MOST = 2**53  # for steps and images: float64 represents every integer up to it
LEAST_FIGURE, MOST_FIGURE = -1e3, 1 + 1e-6
"""Range of the main figure of an evaluation: a fraction, with a tolerance for rounding."""


@dataclass(frozen=True)
class CheckpointMeta:
    """The form of ``meta``. Every key may be absent; further keys are allowed, and ignored."""

    step: int = option(0, low=0, high=_MOST)
    images_seen: int = option(0, low=0, high=_MOST)
    seconds: float = option(0.0, low=0, high=1e12)
    best: float | None = option(None, low=LEAST_FIGURE, high=MOST_FIGURE)
    best_step: int | None = option(None, low=0, high=_MOST)
    evaluated_step: int | None = option(None, low=0, high=_MOST)
    total_steps: int = option(1, low=1, high=_MOST)
    num_images: int = option(1, low=1, high=_MOST)
    run: str = option("")
    config: dict[str, Any] = option({})
    class_names: tuple[str, ...] = option(())
    numbered: tuple[str, ...] = option(())
    more_people: tuple[str, ...] = option(())
    sample: tuple[str, ...] = option(())
    more_samples: tuple[str, ...] = option(())
    counts: str = option("")
    digests: dict[str, str] = option({})
    init_from: dict[str, str] = option({})
    taught_by: dict[str, str] = option({})
    order: int = option(1, low=1, high=_MOST)
    networks: tuple[str, ...] = option(())
    versions: dict[str, str] = option({})


_KNOWN = frozenset(field.name for field in fields(CheckpointMeta))
_MOST_VALUES = 2_000_000  # in total; a list that contains another one many times multiplies it
_DEEPEST = 10
_SECTIONS = ("model", "data", "train", "loss", "eval")


def checked_meta(meta: object) -> dict[str, Any]:
    """Return the ``meta`` of a checkpoint after checking its known keys.

    Raises:
        ValueError: it is not a mapping, or names the first key of a wrong type or out of range.
    """
    if not isinstance(meta, Mapping):
        raise ValueError(f"meta: got {shown(meta)} · allowed: a mapping of keys to values")
    known = {key: value for key, value in meta.items() if key in _KNOWN}
    problems: list[str] = []
    filled = parse_options(CheckpointMeta, known, prefix="meta", problems=problems, exact=True)
    if filled is None:
        raise ValueError(problems[0])
    room = [_MOST_VALUES]
    for key, value in meta.items():
        if (key == "config" or key not in _KNOWN) and not _is_plain(value, room):
            raise ValueError(f"meta.{shown_key(key)}: got {shown(value)} · allowed: texts, numbers, lists and mappings")
    for name in _SECTIONS:
        if not isinstance(section := filled.config.get(name, {}), Mapping):
            raise ValueError(f"meta.config.{name}: got {shown(section)} · allowed: a mapping of keys to values")
    checked = {key: getattr(filled, key) for key in known}
    return {**meta, **{key: list(value) if isinstance(value, tuple) else value for key, value in checked.items()}}


def origin_of(meta: Mapping[str, Any]) -> dict[str, str] | None:
    """Return ``file`` and ``sha256`` of the network that training started from; None without one.

    The dict is empty if there was one, but the checkpoint does not say which.
    """
    if "init_from" in meta:
        return dict(meta["init_from"])
    started = meta.get("config", {}).get("train", {}).get("init_from") is not None
    return {} if started else None


def teacher_of(meta: Mapping[str, Any]) -> dict[str, str] | None:
    """Return ``file``, ``sha256`` and, if known, ``data`` of a run's teacher; None without one.

    ``data`` is its training set in words. The dict is empty if there was a teacher, but the
    checkpoint does not say which.
    """
    if "taught_by" in meta:
        return dict(meta["taught_by"])
    teacher = meta.get("config", {}).get("train", {}).get("teacher")
    teacher = teacher if isinstance(teacher, Mapping) else {}
    files = [teacher[key] for key in ("checkpoint", "onnx", "embeddings") if teacher.get(key) is not None]
    if files and isinstance(meta.get("teacher"), str):  # as earlier versions kept it
        return {"file": PurePath(str(files[0])).name, "sha256": meta["teacher"]}
    return {} if files or teacher.get("losses") or teacher.get("loss") else None


def training_data(meta: Mapping[str, Any]) -> list[str]:
    """Return the names and the size of the training set, in Markdown, as far as they are known."""
    train = meta.get("config", {}).get("data", {}).get("train")
    people = len(meta["class_names"]) if "class_names" in meta else meta.get("num_identities")
    paths = train if isinstance(train, list | tuple) else [] if train is None else [train]
    parts = [f"`{PurePath(str(path)).name}`" for path in paths]
    if "num_images" in meta and isinstance(people, int):
        parts.append(f"{meta['num_images']:,} images of {people:,} people")
    return parts


def numbered_tags(meta: Mapping[str, Any]) -> list[str]:
    """Return the tags of joined training sets that have only numbers; ``[""]`` if all have.

    Earlier versions did not record this. Then names of digits count as numbers.
    """
    if "numbered" in meta:
        return list(meta["numbered"])
    names = meta.get("class_names", ())
    named = {name.partition("/")[0] for name in names if not name.rpartition("/")[2].isdecimal()}
    return sorted({name.partition("/")[0] for name in names} - named) if named else [""]


def trained_people(meta: Mapping[str, Any]) -> list[str]:
    """Return the names of all people a network was trained on, sorted; numbers are left out.

    These are the identities of its training set, and ``more_people``: those of the network that it
    started from, of its teacher, or of the networks that were joined.
    """
    numbered, names = numbered_tags(meta), meta.get("class_names", ())
    own = [name for name in names if name.partition("/")[0] not in numbered] if numbered != [""] else []
    return sorted({*(name.rpartition("/")[2] for name in own), *meta.get("more_people", ())})


def _is_plain(value: object, room: list[int], depth: int = 0) -> bool:
    room[0] -= 1
    if room[0] < 0 or depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each, room, depth + 1) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(each, room, depth + 1) for each in value)
    return value is None or isinstance(value, (str, int, float))
