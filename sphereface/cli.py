"""The console command ``sphereface``: which command does what; each one's modules are imported when
it is called.

A command has two modules. The one in :mod:`sphereface.commands.parsers` reads its options and
imports nothing large. The one in :mod:`sphereface.commands` does the work. ``--help`` and a wrong
option need the first alone.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from . import __version__
from .errors import Main, UserError, reports_user_errors
from .plugins import load_plugins

COMMANDS = {
    "train": "train a network (train.py)",
    "eval": "verify a checkpoint on LFW and other sets of pairs, compare two (eval_lfw.py)",
    "align": "photographs to aligned crops, by a detector or from landmarks",
    "pack": "a training set into one .rec file, or into tar files",
    "check": "say what is wrong with a training set",
    "make-pairs": "hold people of a training set out, and write pairs of them to verify on",
    "verify": "are two photographs of one person?",
    "embed": "a folder of images to a file of embeddings",
    "search": "find the people of a gallery most like the one on an image",
    "import": "published weights to a checkpoint: InsightFace, AdaFace, CVLface, MagFace, OpenSphere, SphereFace",
    "join": "networks that were trained apart to one checkpoint",
    "export": "a checkpoint to ONNX, TorchScript or safetensors, with a model card",
    "compare-runs": "a table of training runs, and their curves in one chart",
    "plot-margins": "draw what the margins do: target logits, decision regions, angles, learned features",
}

_EXAMPLES = """\
examples:
  sphereface align --detector mtcnn photographs data/crops
  sphereface train --config faces-60min.yaml --set data.train=data/crops
  sphereface eval --ckpt best.pt --calibrate
  sphereface verify a.jpg b.jpg --ckpt best.pt --save-plot pair.png
  sphereface embed photographs gallery.npz --ckpt best.pt
  sphereface search gallery.npz query.jpg --ckpt best.pt
  sphereface export best.pt --format onnx
  sphereface import backbone.pth arcface.pt

sphereface COMMAND --help shows the options and examples of each."""


def usage() -> str:
    """What ``sphereface --help`` prints."""
    rows = "\n".join(f"  {name:13} {what}" for name, what in COMMANDS.items())
    return f"usage: sphereface COMMAND …\n\ncommands:\n{rows}\n\n{_EXAMPLES}"


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"sphereface {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" · did you mean {near[0]}?" if near else ""
        raise UserError(f"sphereface: got {name!r} · allowed: {', '.join(COMMANDS)}{hint}")
    return run_command(name, rest)


def main_of(name: str, program: str) -> Main:
    """Return the entry point of a script that is one command under a name of its own, such as
    ``python train.py``.
    """

    @reports_user_errors
    def main(argv: Sequence[str] | None = None) -> int:
        return run_command(name, argv, program)

    return main


def run_command(name: str, argv: Sequence[str] | None, program: str | None = None) -> int:
    """Read the options of a command, then import it and run it.

    Args:
        name: a key of :data:`COMMANDS`.
        argv: its arguments; None: those of this process.
        program: what its help calls it; None: ``sphereface NAME``.

    Returns:
        The exit code.

    Raises:
        UserError: an option or an input cannot be used.
    """
    load_plugins()  # their backbones, margins and protocols can be named in options
    args = parser_of(name).parse(argv, program or f"sphereface {name}")
    code: int = command_of(name).run(args)
    return code


def parser_of(name: str) -> ModuleType:
    """Import what reads the options of a command: nothing large."""
    return importlib.import_module(f".commands.parsers.{_module_name(name)}", __package__)


def command_of(name: str) -> ModuleType:
    """Import a command, and all that it needs."""
    return importlib.import_module(f".commands.{_module_name(name)}", __package__)


def _module_name(name: str) -> str:
    return "import_" if name == "import" else name.replace("-", "_")  # import is a word of Python's own
