"""Leave the identities out that ``data.exclude`` and ``data.exclude_file`` list."""

from __future__ import annotations

import itertools
import logging
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ...errors import UserError, count_of, shown
from .base import Source
from .name_lists import read_names
from .selection import spelled, without

log = logging.getLogger(__name__)

_SHOWN = 5
_BEFORE = re.compile(r"(?<!\s)\s*[/#,]")  # the start of a path, a comment, or a second name
_IN_TABLES = tuple(
    map(re.compile, (r'"?(.*?[^,; ])"?[,; ]+"?[0-9]{1,9}"?', r'"?[0-9]{1,9}"?[,; ]+"?(.+?)"?', r'"(.+)"'))
)  # a name before a number, behind one, or in quotes
_LONGEST_LINE = 300  # of a table, which bounds the time of a match
_CORRECT = (
    "names exactly as in data.train, with the same blanks, underscores and upper case, one a line · correct the name"
)
_ALSO = "a person's name in every spelling · list {} too, or give that identity another name"


def excluding(sources: list[Source], tags: list[str], names: set[str], file: Path | str | None) -> list[Source]:
    """Return the sources without the identities of these names and of those in a file.

    Raises:
        UserError: the file names no identity of data.train, a name differs from one there only in
            blanks, underscores or upper case, a number is in two sources, or a line may be a name
            or a count.
    """
    if not names and file is None:
        return sources
    known = _known_names(sources, tags)
    listed, counts = ([], []) if file is None else read_names(file, known)
    tags_of = tuple(f"{tag}/" for tag in tags) if len(sources) > 1 else ()
    from_file = set(_without_numbers(listed, known))
    if not from_file.issubset(listed):
        log.info("data.exclude_file: %s: numbers and quotes beside the names are ignored", file)
    every, key, found = names | from_file, f"data.exclude_file: {file}", set[str]()
    for some, setting in ((names, "data.exclude"), (from_file, key)):
        _check_numbers(some, setting, sources, tags)
        found |= _check_names(some, setting, known, every, tags_of, required=setting == key)
    if doubtful := next((count for count in counts if count.strip() in known), None):
        raise UserError(
            f"data.exclude_file: {file}: got a line {shown(doubtful)} without a tab among lines with tabs; it may be "
            "a count, but data.train has an identity of that name · allowed: a tab after each name, or no tabs "
            "at all · add the tab, or delete the line if it is a count"
        )
    numbered = [tag for tag, source in zip(tags, sources, strict=True) if not source.named]
    if 0 < len(numbered) < len(sources) and not all(name.rpartition("/")[2].isdecimal() for name in from_file):
        sentence = "%s: its names cannot be found in %s, which has only numbers of identities"
        log.warning(f"{sentence} · check that these are other people", key, " and ".join(numbered))
    several = len(sources) > 1
    own = [every | {name.removeprefix(f"{tag}/") for name in every} if several else every for tag in tags]
    left = [without(source, some) for source, some in zip(sources, own, strict=True)]
    words = dropped(sources, left)
    log.info("data: exclude: %s; data.train has %d of %d listed names", words, len(found), len(every))
    return left


def dropped(before: Sequence[Source], after: Sequence[Source]) -> str:
    """Return the number of identities and images that are left out, in words."""
    classes = sum(len(b.class_names) - len(a.class_names) for b, a in zip(before, after, strict=True))
    images = sum(len(b) - len(a) for b, a in zip(before, after, strict=True))
    return f"{count_of(classes, 'identity', 'identities')} with {count_of(images, 'image', 'images')} left out"


def _without_numbers(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the names of a file without a number before or behind each, and without quotes.

    A file keeps them if one of its lines is an identity as it is, or if not all lines have the same
    form; only a line of column names may differ. Lines with only a number are dropped then.

    Args:
        names: the lines of a file.
        known: the identities of the training set.
    """
    rows = [name for name in names if not name.strip().isdecimal()]
    if not set(names).isdisjoint(known):
        return list(names)
    for plain in zip(*map(_in_tables, rows), strict=True):
        whole = all(plain[1:]) and (plain[0] or not re.search("[0-9]", rows[0]))
        if whole and not set(plain).isdisjoint(known):
            return [name or row for name, row in zip(plain, rows, strict=True)]
    return list(names)


def _in_tables(line: str) -> list[str]:
    """Return the name in a line for each form of a table; empty where the line has another form.

    Of two numbers, either may be the name of an identity, so neither is.
    """
    found = [form.fullmatch(line.strip()) if len(line) <= _LONGEST_LINE else None for form in _IN_TABLES]
    names = ["" if match is None else match[1].replace('""', '"') for match in found]
    return [*("" if name.isdecimal() else name for name in names[:-1]), names[-1]]


def _known_names(sources: Sequence[Source], tags: Sequence[str]) -> dict[str, str]:
    """Return the names of all identities, those of several sources also as ``tag/name``.

    Returns:
        Name → its form without differences of spelling, with the source's exact name.
    """
    known = {name: spelled(name) for source in sources for name in source.class_names}
    if len(sources) > 1:
        known |= {f"{t}/{n}": f"{t}/{known[n]}" for t, s in zip(tags, sources, strict=True) for n in s.class_names}
    return known


def _form(name: str, tags: Sequence[str]) -> str:
    """Return the form of a listed name; see :func:`_known_names`."""
    tag = next((tag for tag in tags if name.startswith(tag)), "")
    return tag + spelled(name.removeprefix(tag))


def _check_names(
    names: Collection[str],
    key: str,
    known: Mapping[str, str],
    listed: Collection[str],
    tags: tuple[str, ...],
    *,
    required: bool = False,
) -> set[str]:
    """Return the listed identities that exist.

    A warning gives the number of missing names, and the first of them.

    Args:
        names: in Unicode's composed form.
        key: the setting that lists them, for messages.
        known: the names of identities in the training set, see :func:`_known_names`.
        listed: the names of all settings.
        tags: of several sources, with a slash.
        required: at least one of the names, if there are any, must exist.

    Raises:
        UserError: an identity that is not listed differs from a name only in blanks, underscores,
            upper case or kinds of letters. A missing name without blanks is an identity's, or the
            part before a slash, a comma or a #, or without a number or quotes. Or no name exists
            although one is required.
    """
    missing = sorted(name for name in names if name not in known)
    forms = {_form(name, tags): name for name in sorted(names)}
    own = [name for name in missing if not name.startswith(tags)]
    parts = {_plain(part): n for n in own for part in (*_in_tables(n), _BEFORE.split(n)[0], n) if part.strip()}
    for like, form in known.items() if names else ():
        name = None if like in listed else (parts.get(_plain(like)) if parts else None) or forms.get(form)
        if name is not None:
            also, remedy = ("also ", _ALSO.format(shown(like))) if name in known else ("", _CORRECT)
            raise UserError(f"{key}: got {shown(name)}, but data.train {also}has {shown(like)} · allowed: {remedy}")
    if required and names and len(missing) == len(names):
        only, in_file = (all(name.rpartition("/")[2].isdecimal() for name in some) for some in (known, names))
        remedy = (
            "give the list that belongs to this training set; if these people have other names there, make pairs of "
            "data.train (sphereface make-pairs); give none only if they are not there"
        )
        if only != in_file:  # the same people may be there
            remedy = "make pairs of data.train (sphereface make-pairs), and give their people.txt and evaluation set"
        raise UserError(
            f"{key}: got {len(names):,} names, such as {shown(missing[0])} · allowed: names of identities in "
            f"data.train{', which has only numbers of identities' if only else ''}, which contains none of these · "
            f"{remedy}"
        )
    if missing:
        such = ", ".join(map(shown, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        log.warning("%s: %d of %d names are not in data.train: %s", key, len(missing), len(names), such)
    return set(names).difference(missing)


def _check_numbers(names: Collection[str], key: str, sources: Sequence[Source], tags: Sequence[str]) -> None:
    """Check that no name is a number of one source and an identity of another one.

    Raises:
        UserError: one is, and numbers of two sets are unrelated.
    """
    found = [set(names).intersection(source.class_names) for source in sources]
    for one, other in itertools.combinations(range(len(sources)), 2):
        both = found[one] & found[other]
        if both and not (sources[one].named and sources[other].named):
            own = " or ".join(shown(f"{tags[row]}/{min(both)}") for row in (one, other))
            raise UserError(
                f"{key}: got {shown(min(both))}, which {tags[one]} and {tags[other]} have, and numbers of two sets are "
                f"unrelated · allowed: numbers of one set, with its name · write {own}"
            )


def _plain(name: str) -> str:
    """Return a name without details that typing loses: blanks, case, ligatures, wide letters."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
