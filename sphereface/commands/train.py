"""Run ``sphereface train``; its options are in :mod:`.parsers.train`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ..errors import UserError
from ..places import places_text
from ..training.dry_run import dry_run
from ..training.run import profile_run, replay_step, run_training
from ..training.same_run import saved_config


def run(args: argparse.Namespace) -> int:
    """Train, measure, or repeat one step; return the exit code."""
    if args.replay is not None:
        print(replay_step(args.replay, device=args.device))
        return 0
    if args.dry_run:
        if table := dry_run(args.config, args.overrides, device=args.device):
            print(table)
        return 0
    if args.profile is not None:
        print(profile_run(args.config, args.overrides, steps=args.profile, device=args.device))
        return 0
    checkpoint = run_training(args.config, args.overrides, resume=args.resume, device=args.device)
    if checkpoint is not None:  # only the first of several processes gets the path
        print(how_to_evaluate(args.program, Path(checkpoint)))
    return 0


def how_to_evaluate(program: str, checkpoint: Path) -> str:
    """Return the last line of a run: the command that evaluates its checkpoint on its own sets.

    Without ``eval.sets`` the command evaluates on LFW. The command line cannot express a set with
    an equals sign in its name: the line names such a set and omits it.

    Args:
        program: the program that trained, such as ``sphereface train``.
        checkpoint: the run's result, in the run's folder.
    """
    try:
        sets = saved_config(checkpoint.parent).evaluation_sets()
    except UserError:  # the folder was moved: no reason to fail at the end of a run
        sets = {}
    command = ["sphereface", "eval"] if program == "sphereface train" else ["python", "eval_lfw.py"]
    command += ["--ckpt", str(checkpoint)]
    texts = [f"{name}={places_text(places)}" for name, places in sets.items() if "=" not in name]
    left_out = [name for name in sets if "=" in name]
    but = f" (not on {', '.join(left_out)}: the command line cannot name a set with '=')" if left_out else ""
    where = "its own sets" if texts else "LFW"
    return f"evaluate it on {where}{but}: {shlex.join([*command, *['--sets'] * bool(texts), *texts])}"
