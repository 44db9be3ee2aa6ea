"""Verify a checkpoint on LFW as the SphereFace paper does; write table, JSON and ROC picture.

    python eval_lfw.py --ckpt runs/sphere20/TIME/best.pt
    python eval_lfw.py --ckpt best.pt --pairs data/pairsDevTest.txt
    python eval_lfw.py --ckpt best.pt --lfw my/crops --pairs my/pairs.txt

Features of crop and mirror image are joined, centred, and compared by cosine. View 2
(pairs.txt) is for reporting: each fold is tested with the mean and the threshold of the
others. View 1 is for choosing between models: both come from pairsDevTrain.txt. Crops
are aligned, of the network's size; 112x112 ones are cut to 112x96 where need be.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sphereface.device import DEVICES, choose_device
from sphereface.errors import UserError, reports_user_errors
from sphereface.evaluation import Report, evaluate, format_table, load_pair_set, write_report
from sphereface.models import load_model


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--ckpt", metavar="FILE", type=Path, required=True, help="checkpoint, such as runs/…/best.pt")
    add("--lfw", metavar="DIR", type=Path, default="data/lfw-112x96", help="aligned crops (%(default)s)")
    add("--pairs", metavar="FILE", type=Path, default="data/pairs.txt", help="list of pairs (%(default)s)")
    add("--dev-train", metavar="FILE", type=Path, help="of view 1 (pairsDevTrain.txt beside --pairs)")
    add("--no-flip", dest="flip", action="store_false", help="leave the mirror images out")
    add("--no-mean", dest="mean", action="store_false", help="do not centre the features")
    add("--output", metavar="DIR", type=Path, help="for the results (eval-<pairs> beside the checkpoint)")
    add("--device", default="auto", help=f"{', '.join(DEVICES)} or cuda:N (%(default)s)")
    add("--batch-size", metavar="N", type=int, default=64, help="crops at a time (%(default)s)")
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Embed, verify, print and write."""
    args = parse(argv)
    if args.batch_size < 1:
        raise UserError(f"--batch-size: got {args.batch_size} · allowed: 1 or more")
    loaded = load_model(args.ckpt, device := choose_device(args.device))
    pair_set = load_pair_set(args.lfw.resolve().name, args.lfw, args.pairs, dev_train=args.dev_train)
    result = evaluate(
        loaded.model, pair_set, input_size=loaded.input_size, device=device, batch_size=args.batch_size,
        flip=args.flip, subtract_mean=args.mean, progress="embedding",
    )  # fmt: skip
    about = {"checkpoint": str(args.ckpt), "step": loaded.meta.get("step"), "run": loaded.meta.get("run")}
    report = Report(pair_set, result, args.flip, args.mean, about)
    write_report(report, output := args.output or args.ckpt.parent / f"eval-{args.pairs.stem}")
    print(f"{format_table(report)}\n\nwritten: table.txt, lfw.json and roc.png in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
