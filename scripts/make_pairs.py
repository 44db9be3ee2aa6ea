r"""Make a verification set of own pictures, and tell training whom to leave out.

    python scripts/make_pairs.py data/faces data/faces-verify
    python train.py --config faces-60min --set data.train=data/faces \
        --set data.exclude_file=data/faces-verify/people.txt --set eval.sets.own=data/faces-verify

SRC is whatever data.train may be: a folder of identities, a list, a zip, a .rec, a tar. Of some of its people all
pictures are copied to DST/<Name>/<Name>_0001.jpg …, as LFW is laid out, with DST/pairs.txt: ten folds, as many pairs
of one person as of two, nobody in two folds. DST/people.txt lists them for data.exclude_file, so that training and
verification share nobody. The same seed makes the same set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sphereface.data.identities import Labels
from sphereface.data.make_pairs import PEOPLE_NAME, split, write_pairs
from sphereface.data.sources import FolderSource, open_path
from sphereface.errors import UserError, reports_user_errors


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("destination", metavar="DST", type=Path, help="new folder for pictures, pairs.txt and people.txt")
    add("--root", metavar="DIR", type=Path, help="what the paths of a list are relative to (default: its folder)")
    add("--folds", metavar="N", type=int, default=10, help="default: %(default)s")
    add("--people", metavar="N", type=int, help="to hold out (default: a tenth, but two a fold or more)")
    add("--pairs", metavar="N", type=int, help="of each kind in a fold (default: as many as there are, at most 300)")
    add("--seed", metavar="N", type=int, default=0, help="of the draw (default: %(default)s)")
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw, write, and say how to use it."""
    args = parse(argv)
    for option in ("people", "pairs"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UserError(f"--{option}: got {getattr(args, option)} · allowed: 1 or more")
    source = open_path(args.source, root=args.root, key="SRC")
    if isinstance(source, FolderSource) and args.destination.resolve().is_relative_to(source.root.resolve()):
        raise UserError(
            f"DST: {args.destination}: inside {source.root} · give a folder elsewhere: training would take the copies "
            "for images of one more person"
        )
    counts = Labels.of(source.labels).counts.tolist()
    chosen = split(counts, folds=args.folds, people=args.people, pairs=args.pairs, seed=args.seed)
    write_pairs(source, chosen, args.destination)
    each = len(chosen.same[0])
    print(
        f"{args.destination}: {len(chosen.people)} people, {args.folds} folds of {each} + {each} pairs · "
        f"{len(counts) - len(chosen.people):,} people are left to train on\n"
        f"train without them:  --set data.exclude_file={args.destination / PEOPLE_NAME}\n"
        f"verify on them:      --set eval.sets.own={args.destination} --set eval.select=own"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
