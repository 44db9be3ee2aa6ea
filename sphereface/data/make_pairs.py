"""Make a verification set in LFW's layout from own images, of people excluded from training."""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..errors import UserError, is_unprintable
from ..files import locked, write_whole
from .identities import Labels
from .images import BadImage, decode, suffix_of
from .sources import Source
from .sources.selection import COMPARED, evenly, first_among, names_text
from .walking import is_system_file, kind_of_path

PAIRS_NAME, PEOPLE_NAME, NAMES_NAME = "pairs.txt", "people.txt", "names.tsv"
LFW_PAIRS = 300  # pairs of each kind in a fold of LFW
_SHARE_HELD_OUT = 0.1
_LONGEST_NAME = 200  # bytes; an image adds _0001.jpg, and a file name has at most 255

Side = tuple[int, int]  # a person of the fold, and the number of an image, both from 0
Pair = tuple[Side, Side]


@dataclass(frozen=True)
class Split:
    """The held-out people, and the pairs of their images.

    Attributes:
        folds: for each fold the labels of its people; no person is in two folds.
        same: for each fold its pairs of one person, people as places in ``folds``.
        different: for each fold as many pairs of two people.
    """

    folds: list[list[int]]
    same: list[list[Pair]]
    different: list[list[Pair]]

    @property
    def people(self) -> list[int]:
        """The labels of all held-out people, sorted."""
        return sorted(itertools.chain(*self.folds))


def split(
    counts: Sequence[int], *, folds: int = 10, people: int | None = None, pairs: int | None = None, seed: int = 0
) -> Split:
    """Choose people and pairs.

    People with two images or more are drawn at random. They are distributed over the folds by their
    number of images, so that the folds are alike. Pairs of one person are chosen in rounds over the
    fold's people, so that people with many images do not dominate. No pair is chosen twice.

    Args:
        counts: number of images of each identity.
        folds: number of folds.
        people: number of people to hold out; None: a tenth of all, but at least two per fold.
        pairs: pairs of each kind in a fold; None: as many as the smallest fold has, at most LFW's
            300.
        seed: of every choice.

    Raises:
        UserError: there are too few people or images; the message gives the number needed.
    """
    rng = random.Random(seed)  # noqa: S311 -- no secret
    able = [label for label, count in enumerate(counts) if count >= 2]
    wanted = people or max(2 * folds, round(_SHARE_HELD_OUT * len(able)))
    _check_people(len(counts), len(able), wanted, folds)
    chosen = rng.sample(able, wanted)
    chosen.sort(key=lambda label: -counts[label])  # stable: ties keep the order of the draw
    groups = [chosen[fold::folds] for fold in range(folds)]
    sizes = [[counts[label] for label in group] for group in groups]
    most = min(min(sum(math.comb(n, 2) for n in size), _num_different(size)) for size in sizes)
    if pairs is not None and pairs > most:
        raise UserError(
            f"--pairs: got {pairs} of each kind in a fold · allowed with these {wanted} people: at most {most} · "
            f"use about {-(-wanted * pairs // most)} people, other --folds, or fewer --pairs"
        )
    num = min(most, LFW_PAIRS) if pairs is None else pairs
    return Split(groups, [_same(size, num, rng) for size in sizes], [_different(size, num, rng) for size in sizes])


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


def write_pairs(source: Source, chosen: Drawn, folder: Path) -> None:
    """Write the held-out people in LFW's layout: images, ``pairs.txt`` and ``people.txt``.

    The images of each person are copied byte for byte to ``Name/Name_0001.jpg`` and so on, numbered
    in the order of the source. ``people.txt`` lists the people that training must exclude
    (``data.exclude_file``). ``names.tsv`` maps each file to its image of the source. Everything is
    checked first, then written into the folder ``.NAME.part`` beside this one, which is renamed at
    the end. So there is a whole set or none.

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
    people = names_text([source.class_names[label] for label in held_out], folder / PEOPLE_NAME)
    images = _images(source, chosen.images, names)
    target = folder.resolve()
    part = target.with_name(f".{target.name}.part")
    try:
        with locked(target.with_name(f".{target.name}.lock")) as alone:
            if not alone:
                raise UserError(f"{folder}: another process is writing this set · wait for it, or give another folder")
            try:  # hold the lock until the set has its name, so that no other process writes to it
                _check_new(folder)  # another process may have just finished it
                _write_part(source, images, people, pairs_text(chosen.split, names), part)
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


def _write_part(source: Source, images: dict[str, int], people: bytes, pairs: str, part: Path) -> None:
    """Write the set into the folder ``part``, which may hold files of a killed process."""
    if part.is_dir():
        shutil.rmtree(part)
    part.mkdir()
    for name, index in images.items():
        write_whole(part / name, source.read(index), durable=False)
    write_whole(part / NAMES_NAME, _names_table(source, images))
    write_whole(part / PEOPLE_NAME, people)
    write_whole(part / PAIRS_NAME, pairs)


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


def _check_people(total: int, able: int, wanted: int, folds: int) -> None:
    if folds < 2:
        raise UserError(f"--folds: got {folds} · allowed: 2 or more, since a fold's threshold comes from the others")
    if wanted < 2 * folds:
        raise UserError(f"--people: got {wanted} · allowed: {2 * folds} or more, two in each of {folds} folds")
    free = min(able, total - 2)
    if wanted > free:
        raise UserError(
            f"SRC: has {total} people, {able} of them with two or more different images · allowed: {wanted} or more of "
            f"those to hold out (two or more per fold), and 2 others to train on · add people{_advice(free, folds)}"
        )


def _advice(free: int, folds: int) -> str:
    """Return which options would fit ``free`` people that can be held out."""
    if free >= 2 * folds:
        return f", or hold out fewer: --people {free}"
    return f", or use fewer folds: --folds {free // 2}" if free >= 4 else ""


def _num_different(size: Sequence[int]) -> int:
    return (sum(size) ** 2 - sum(n * n for n in size)) // 2


def _same(size: Sequence[int], num: int, rng: random.Random) -> list[Pair]:
    """Return ``num`` pairs of one person: each round takes one of every person who has one left."""
    drawn = [rng.sample(range(own := math.comb(n, 2)), min(own, num)) for n in size]
    pairs: list[Pair] = []
    for number in itertools.count():
        for person in rng.sample(range(len(size)), len(size)):
            if number < len(drawn[person]):
                i, j = _two_of(drawn[person][number])
                pairs.append(((person, i), (person, j)))
                if len(pairs) == num:
                    return pairs
    raise AssertionError("callers request at most as many pairs as exist")


def _two_of(number: int) -> tuple[int, int]:
    """Return a pair by its number, from 0.

    The sequence is (0, 1), (0, 2), (1, 2), (0, 3) and so on.
    """
    second = (1 + math.isqrt(1 + 8 * number)) // 2
    return number - second * (second - 1) // 2, second


def _different(size: Sequence[int], num: int, rng: random.Random) -> list[Pair]:
    """Return ``num`` pairs of two people: draw people first, then an image of each."""
    if 2 * num > _num_different(size):  # repeated draws would take long: draw from the whole list
        sides = [(person, i) for person, n in enumerate(size) for i in range(n)]
        every = [(a, b) for a, b in itertools.combinations(sides, 2) if a[0] != b[0]]
        return rng.sample(every, num)
    pairs: dict[Pair, None] = {}
    while len(pairs) < num:
        a, b = sorted(rng.sample(range(len(size)), 2))
        pairs[((a, rng.randrange(size[a])), (b, rng.randrange(size[b])))] = None
    return list(pairs)


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
