"""Train a face-recognition network.

Examples:
  sphereface train --config sphere20.yaml                       the paper's recipe, from data/CASIA-WebFace-112x96
  sphereface train --config sphere20.yaml --dry-run             check data, sizes and memory, then exit
  sphereface train --config faces-60min.yaml --set data.train=my/crops          few pictures, an hour on two cores
  sphereface train --config sphere20.yaml --resume auto         go on with the newest unfinished run of this config
  torchrun --nproc-per-node gpu train.py --config sphere20.yaml      on all GPUs of this machine (docs/distributed.md)

The run is written to runs/<name>/<time>/; watch it with: tensorboard --logdir runs
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..places import parse_places
from ..training.dry_run import dry_run
from ..training.run import profile_run, replay_step, run_training
from ..training.same_run import saved_config
from .parser import new_parser


def make_parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
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
    return parser


def run(argv: Sequence[str] | None, program: str = "sphereface train") -> int:
    """Parse and call; returns the exit code."""
    args = make_parser(program).parse_args(argv)
    for option in ("resume", "replay"):
        if getattr(args, option) == "":
            raise UserError(f"--{option}: got an empty text · allowed: a path{', or auto' * (option == 'resume')}")
    if args.replay is not None:
        print(replay_step(args.replay, device=args.device))
        return 0
    if args.config is None:
        raise UserError("--config: missing · allowed: a file in configs/, or a path to a YAML file")
    if args.resume is not None and (args.dry_run or args.profile is not None):
        raise UserError(
            "--resume: got it with --dry-run or --profile, which measure a new run · omit --resume to measure"
        )
    if args.dry_run:
        if table := dry_run(args.config, args.overrides, device=args.device):
            print(table)
        return 0
    if args.profile is not None:
        print(profile_run(args.config, args.overrides, steps=args.profile, device=args.device))
        return 0
    checkpoint = run_training(args.config, args.overrides, resume=args.resume, device=args.device)
    if checkpoint is not None:  # of several processes the first tells
        print(how_to_evaluate(program, Path(checkpoint)))
    return 0


def how_to_evaluate(program: str, checkpoint: Path) -> str:
    """Return the last line of a run: the command that evaluates its checkpoint on its own sets, to be copied.

    Without ``eval.sets`` it is on LFW. A set with a comma in a path, or an equals sign in its name,
    cannot be written on a command line: it is left out, and named.

    Args:
        program: that trained.
        checkpoint: the run's result, in the run's folder.
    """
    try:
        sets = saved_config(checkpoint.parent).evaluation_sets()
    except UserError:  # the folder is moved already: no reason to fail at the end of a run
        sets = {}
    command = ["sphereface", "eval"] if program == "sphereface train" else ["python", "eval_lfw.py"]
    command += ["--ckpt", str(checkpoint)]
    texts, left_out = [], []
    for name, places in sets.items():
        text = ",".join(map(str, places.paths))
        if places.kind is not None:
            text = f"{places.kind}:{text}"
        elif parse_places(text).kind is not None:  # a folder tiny:x is no protocol
            text = f"./{text}"
        if "=" in name or any("," in str(path) for path in places.paths):
            left_out.append(name)
        else:
            texts.append(f"{name}={text}")
    but = f" but {', '.join(left_out)}" if left_out else ""
    where = f"its own sets{but}" if texts else "LFW"
    return f"evaluate it on {where}: {shlex.join([*command, *['--sets'] * bool(texts), *texts])}"
