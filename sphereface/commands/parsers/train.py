"""Train a face-recognition network.

    sphereface train --config sphere20.yaml                 # the paper's recipe, on CASIA-WebFace
    sphereface train --config sphere20.yaml --dry-run       # check data, sizes and memory
    sphereface train --config faces-60min.yaml --set data.train=my/crops  # an hour on two cores
    sphereface train --config sphere20.yaml --resume auto   # resume the newest unfinished run
    torchrun --nproc-per-node gpu train.py --config sphere20.yaml  # see docs/distributed.md

The command writes the run to runs/<name>/<time>/. Watch it with: tensorboard --logdir runs
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ...config_files import find_config, shipped_configs
from ...errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--config", metavar="NAME", help="a file in configs/, or a path to a YAML file")
    help_text = "override one key, for example train.lr=0.05; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=help_text)
    help_text = (
        "auto: resume the newest unfinished run of this config, or start one; of several networks, finished ones are "
        "kept. PATH: resume this run folder, or this checkpoint in its folder"
    )
    parser.add_argument("--resume", metavar="auto|PATH", help=help_text)
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:N, mps or cpu")
    only = parser.add_mutually_exclusive_group()
    help_text = "build all, measure steps of each stage, print sizes, memory, estimated time and config; do not train"
    only.add_argument("--dry-run", action="store_true", help=help_text)
    help_text = "record N training steps: a trace for TensorBoard or Perfetto, and a table of the time of each part"
    only.add_argument("--profile", metavar="N", type=int, help=help_text)
    help_text = "repeat a step that a run stored as nonfinite-….pt, name the first layer that fails; do not train"
    only.add_argument("--replay", metavar="FILE", help=help_text)


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the options. Refuse those that exclude each other, or that are empty."""
    args = parser.parse_args(argv)
    for option in ("resume", "replay"):
        if getattr(args, option) == "":
            raise UserError(f"--{option}: got an empty text · allowed: a path{', or auto' * (option == 'resume')}")
    if args.replay is not None:
        others = {"--config": args.config, "--set": args.overrides, "--resume": args.resume}
        if given := [option for option, value in others.items() if value]:
            raise UserError(
                f"{given[0]}: got it with --replay, which uses the configuration in its FILE · omit {given[0]}"
            )
        return args
    if args.config is None:
        known = "".join(f"\n  {name:24} {about}".rstrip() for name, about in shipped_configs().items())
        raise UserError(f"--config: missing · allowed: a path to a YAML file, or one of these in configs/:{known}")
    if args.resume is not None and (args.dry_run or args.profile is not None):
        raise UserError("--resume: got it with --dry-run or --profile, which measure a new run · omit --resume")
    if os.environ.get("WORLD_SIZE", "1") == "1":  # of several processes the first reports it later
        find_config(args.config)
    return args
