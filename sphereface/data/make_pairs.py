"""Make a verification set in LFW's layout from own images, of people excluded from training."""

from __future__ import annotations

import csv
import io
import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..errors import UserError, is_unprintable
from ..files import locked, write_whole
from .identities import Labels
from .images import BadImage, decode, suffix_of
from .pair_split import Split, split
from .sources import Source
from .sources.name_lists import names_text
from .sources.selection import COMPARED, evenly, first_among
from .walking import is_system_file, kind_of_path

PAIRS_NAME, PEOPLE_NAME, NAMES_NAME = "pairs.txt", "people.txt", "names.tsv"
_LONGEST_NAME = 200  # bytes; an image adds _0001.jpg, and a file name has at most 255


@dataclass(frozen=True)
class Drawn:
    """The split of a source without the equal images of a person.

    Attributes:
        split: the people and the pairs; the numbers of images count ``images``.
        images: for each held-out person the indices of the images, equal ones once.
        copies: indices of images that are byte for byte one of ``images`` of their person.
        twins: an identity with an image of another person, who is held out; None if none is found.
    """

    split: Split
    images: dict[int, list[int]]
    copies: list[int]
    twins: int | None


def draw(source: Source, *, folds: int, people: int | None, pairs: int | None, seed: int) -> Drawn:
    """Split a source, see :func:`split`. Equal images of a person count once.

    ``twins`` is searched among all images of the held-out people, and the first image of up to
    4,096 others.
    """
    labels = Labels.of(source.labels)
    counts, found = labels.counts.tolist(), dict[int, dict[bytes, int]]()
    while True:  # people with too few different images are replaced
        able = [label for label, count in enumerate(counts) if count >= 2]
        try:
            chosen = split(counts, folds=folds, people=people, pairs=pairs, seed=seed)
            new = [label for label in chosen.people if label not in found]
        except UserError:
            new = [label for label in able if label not in found]
            if not found or not new:
                raise
        if not new:
            break
        for label in new:
            start, end = labels.firsts[label : label + 2].tolist()
            found[label] = {_digest(source, index): index for index in reversed(range(start, end))}
            counts[label] = len(found[label])
    images = {label: sorted(found[label].values()) for label in chosen.people}
    rows = [index for label in images for index in range(*labels.firsts[label : label + 2].tolist())]
    kept = set(itertools.chain(*images.values()))
    owners = {digest: label for label in reversed(chosen.people) for digest in found[label]}
    shared = [label for label in chosen.people if any(owners[digest] != label for digest in found[label])]
    others = [label for label in range(len(counts)) if label not in images]
    twins = shared[0] if shared else first_among(source, evenly(others, COMPARED), owners)
    return Drawn(chosen, images, [index for index in rows if index not in kept], twins)


def _digest(source: Source, index: int) -> bytes:
    try:
        return sha256(source.read(index)).digest()
    except OSError:
        return str(index).encode()  # like no other one; writing reports it


def write_pairs(source: Source, chosen: Drawn, folder: Path, more: Mapping[str, bytes] | None = None) -> None:
    """Write the held-out people in LFW's layout: images, ``pairs.txt`` and ``people.txt``.

    The images of each person are copied byte for byte to ``Name/Name_0001.jpg`` and so on, numbered
    in the order of the source. ``people.txt`` lists the people that training must exclude
    (``data.exclude_file``). ``names.tsv`` maps each file to its image of the source. Everything is
    checked first, then written into the folder ``.NAME.part`` beside this one, which is renamed at
    the end. So there is a whole set or none.

    Args:
        source: the images.
        chosen: the people and the pairs.
        folder: the set, new or empty.
        more: other files to write into it: name → content.

    Raises:
        UserError: the folder is not empty, two people's names differ only in forbidden characters,
            no line of a file can hold a name, an image cannot be decoded, another process writes
            the same set, or the disk refuses.
    """
    _check_new(folder)
    held_out = chosen.split.people
    names = {label: _file_name(source.class_names[label]) for label in held_out}
    if len(set(names.values())) < len(names):
        raise UserError(f"{folder}: two people's names give the same folder (among {', '.join(names.values())[:200]})")
    texts = dict(more or {})
    texts[PEOPLE_NAME] = names_text([source.class_names[label] for label in held_out], folder / PEOPLE_NAME)
    texts[PAIRS_NAME] = pairs_text(chosen.split, names).encode()
    images = _images(source, chosen.images, names)
    target = folder.resolve()
    part = target.with_name(f".{target.name}.part")
    try:
        with locked(target.with_name(f".{target.name}.lock")) as alone:
            if not alone:
                raise UserError(f"{folder}: another process is writing this set · wait for it, or give another folder")
            try:  # hold the lock until the set has its name, so that no other process writes to it
                _check_new(folder)  # another process may have just finished it
                _write_part(source, images, texts, part)
                part.replace(target)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror or error} · nothing was written") from error


def _check_new(folder: Path) -> None:
    kind = kind_of_path(folder)
    if kind not in ("nothing", "folder") or (kind == "folder" and any(folder.iterdir())):
        raise UserError(f"{folder}: exists already · allowed: a new or empty folder")


def _images(source: Source, chosen: Mapping[int, Sequence[int]], names: dict[int, str]) -> dict[str, int]:
    """Return the new name of each image → its index, after a check that it can be decoded."""
    images = {}
    for label, indices in chosen.items():
        for number, index in enumerate(indices, start=1):
            suffix = suffix_of(_whole_image(source, index))
            images[f"{names[label]}/{names[label]}_{number:04d}{suffix}"] = index
    return images


def _write_part(source: Source, images: dict[str, int], texts: Mapping[str, bytes], part: Path) -> None:
    """Write the set into the folder ``part``, which may hold files of a killed process."""
    if part.is_dir():
        shutil.rmtree(part)
    part.mkdir()
    for name, index in images.items():
        write_whole(part / name, source.read(index), durable=False)
    write_whole(part / NAMES_NAME, _names_table(source, images))
    for name, text in texts.items():
        write_whole(part / name, text)


def _names_table(source: Source, images: dict[str, int]) -> str:
    """Return a line ``new name <tab> image of the source`` for each image, quoted as in CSV."""
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(("file", "source"))
    table.writerows((name, source.name(index)) for name, index in images.items())
    return text.getvalue()


def pairs_text(chosen: Split, names: dict[int, str]) -> str:
    """Return the text of LFW's ``pairs.txt``: a line with two counts, then the pairs.

    The counts are the number of folds, and of pairs of each kind in a fold.

    Args:
        chosen: the pairs.
        names: label → name of the person's folder.
    """
    lines = [f"{len(chosen.folds)}\t{len(chosen.same[0])}"]
    for group, same, different in zip(chosen.folds, chosen.same, chosen.different, strict=True):
        lines += [f"{names[group[a]]}\t{i + 1}\t{j + 1}" for (a, i), (_, j) in same]
        lines += [f"{names[group[a]]}\t{i + 1}\t{names[group[b]]}\t{j + 1}" for (a, i), (b, j) in different]
    return "\n".join(lines) + "\n"


def _file_name(name: str) -> str:
    """Return a person's name for folders and ``pairs.txt``: short, and without separators."""
    cleaned = "".join("_" if sign in '/\\:*?"<>|' or is_unprintable(sign) else sign for sign in name).strip()
    cleaned = cleaned.encode()[:_LONGEST_NAME].decode("utf-8", "ignore").strip()
    return f"_{cleaned}" if is_system_file(cleaned) or not cleaned else cleaned


def _whole_image(source: Source, index: int) -> bytes:
    try:
        data = source.read(index)
        decode(data)
    except (BadImage, OSError) as error:
        raise UserError(
            f"{source.name(index)}: {error} · make a clean list first: sphereface check SRC --write-list FILE.txt"
        ) from error
    if suffix_of(data) is None:
        allowed = "JPEG, PNG, BMP, WebP, PGM, PPM, HEIC"
        raise UserError(f"{source.name(index)}: pairs.txt cannot name this format · allowed: {allowed}")
    return data
