"""Train a face-recognition network.

Examples:
  sphereface train --config sphere20.yaml                       the paper's recipe, from
  data/CASIA-WebFace-112x96 sphereface train --config sphere20.yaml --dry-run             check
  data, sizes and memory, then exit sphereface train --config faces-60min.yaml --set
  data.train=my/crops          few images, an hour on two cores sphereface train --config
  sphere20.yaml --resume auto         go on with the newest unfinished run of this config torchrun
  --nproc-per-node gpu train.py --config sphere20.yaml      on all GPUs of this machine
  (docs/distributed.md)

The run is written to runs/<name>/<time>/; watch it with: tensorboard --logdir runs
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ...config_files import find_config, shipped_configs
from ...errors import UserError
from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "train", program)
    parser.add_argument("--config", metavar="NAME", help="a file in configs/, or a path to a YAML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one key, for example train.lr=0.05; repeatable",
    )
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="auto: the newest unfinished run of this config, or a new one (of several networks, those that "
        "are finished stay); "
        "PATH: a run folder or a checkpoint, gone on with in its folder",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:N, mps or cpu")
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, measure some steps of each stage, print sizes, memory, estimated time and the config; "
        "train nothing",
    )
    only.add_argument(
        "--profile",
        metavar="N",
        type=int,
        help="record N training steps: a trace for TensorBoard or Perfetto, and a table of where the time goes",
    )
    only.add_argument(
        "--replay",
        metavar="FILE",
        help="repeat the step that a run kept as nonfinite-….pt and say which layer went wrong first; train nothing",
    )
    args = parser.parse_args(argv)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    """Refuse options that cannot be used together, or name nothing."""
    for option in ("resume", "replay"):
        if getattr(args, option) == "":
            raise UserError(f"--{option}: got an empty text · allowed: a path{', or auto' * (option == 'resume')}")
    if args.replay is not None:
        return
    if args.config is None:
        known = "".join(f"\n  {name:24} {about}".rstrip() for name, about in shipped_configs().items())
        raise UserError(f"--config: missing · allowed: a path to a YAML file, or one of these in configs/:{known}")
    if args.resume is not None and (args.dry_run or args.profile is not None):
        raise UserError(
            "--resume: got it with --dry-run or --profile, which measure a new run · omit --resume to measure"
        )
    if os.environ.get("WORLD_SIZE", "1") == "1":  # of several processes the first says it, later
        find_config(args.config)
