"""Run ``sphereface make-pairs``; its options are in :mod:`.parsers.make_pairs`."""

from __future__ import annotations

import argparse

from ..alignment.crop_template import warn_of_unfinished_crops
from ..data.identities import Labels
from ..data.make_pairs import PEOPLE_NAME, split, write_pairs
from ..data.sources import FolderSource, open_path
from ..errors import UserError, count_of


def run(args: argparse.Namespace) -> int:
    """Draw the pairs, write the set, and print how to use it."""
    for option in ("people", "pairs"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UserError(f"--{option}: got {getattr(args, option)} · allowed: 1 or more")
    source = open_path(args.source, root=args.root, key="SRC")
    warn_of_unfinished_crops(args.source, args.root)
    if isinstance(source, FolderSource) and args.destination.resolve().is_relative_to(source.root.resolve()):
        raise UserError(
            f"DST: got {args.destination}, inside {source.root} · allowed: a folder outside it; inside, training "
            "would read the copies as images of one more person"
        )
    counts = Labels.of(source.labels).counts.tolist()
    chosen = split(counts, folds=args.folds, people=args.people, pairs=args.pairs, seed=args.seed)
    write_pairs(source, chosen, args.destination)
    each = len(chosen.same[0])
    print(
        f"{args.destination}: {len(chosen.people)} people, {args.folds} folds of {each} + {each} pairs · "
        f"{count_of(len(counts) - len(chosen.people), 'person is', 'people are')} left to train on\n"
        f"train without them:  --set data.exclude_file={args.destination / PEOPLE_NAME}\n"
        f"verify on them:      --set eval.sets.own={args.destination} --set eval.select=own"
    )
    return 0
