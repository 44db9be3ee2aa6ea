"""Run ``sphereface make-pairs``; its options are in :mod:`.parsers.make_pairs`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection

from ..alignment.near_reports import warn_of_unfinished_crops
from ..data.make_pairs import PEOPLE_NAME, draw, write_pairs
from ..data.sources import Source, open_path
from ..data.sources.grouping import parents_of_identities
from ..data.sources.selection import spelled
from ..errors import UserError, count_of, shown
from ..places import Places, places_text
from .crop_report import report_to_copy
from .printed_options import setting

log = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Draw the pairs, write the set, and print how to use it."""
    for option in ("people", "pairs"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UserError(f"--{option}: got {getattr(args, option)} · allowed: 1 or more")
    source = open_path(args.source, root=args.root, key="SRC")
    warn_of_unfinished_crops(args.source, args.root)
    for folder in parents_of_identities(source):
        if args.destination.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"DST: got {args.destination}, inside {folder} · allowed: a folder outside it, since training on it "
                "would read the copies as images of one more person"
            )
    drawn = draw(source, folds=args.folds, people=args.people, pairs=args.pairs, seed=args.seed)
    chosen, total = drawn.split, len(source.class_names)
    _check_spelling(source, {source.class_names[label] for label in chosen.people})
    write_pairs(source, drawn, args.destination, report_to_copy(args.source, args.root))
    if drawn.copies:
        copies = count_of(len(drawn.copies), "image is a copy", "images are copies")
        name = source.name(drawn.copies[0])
        log.warning("SRC: %s of another image of the same person, such as %s: left out of the set", copies, name)
    if drawn.twins is not None:
        sentence = "SRC: %s has an image of another person, who is held out: they may be one person"
        log.warning(f"{sentence} · sphereface check finds such people", shown(source.class_names[drawn.twins]))
    each, place = len(chosen.same[0]), Places(None, (args.destination,))
    print(
        f"{args.destination}: {len(chosen.people)} people, {args.folds} folds of {each} + {each} pairs · "
        f"{count_of(total - len(chosen.people), 'person is', 'people are')} left to train on\n"
        f"train without them:  {setting('data.exclude_file', str(args.destination / PEOPLE_NAME))}\n"
        f"verify on them:      {setting('eval.sets.own', places_text(place))} --set eval.select=own"
    )
    return 0


def _check_spelling(source: Source, held_out: Collection[str]) -> None:
    """Refuse to hold out a name that has another spelling.

    If both were held out, there would be pairs of two people that show one. If not, training would
    refuse the list of names.
    """
    forms = {spelled(name): name for name in sorted(held_out, reverse=True)}
    for name in source.class_names:
        other = forms.get(spelled(name), name)
        if other != name:
            both = "who would be held out as two people" if name in held_out else "of whom only the first is held out"
            raise UserError(
                f"SRC: got {shown(other)} and {shown(name)}, {both} · allowed: one spelling of a person's name · give "
                "one of them another name"
            )
