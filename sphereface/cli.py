"""The console command ``sphereface``, which imports the modules of a command when it is called.

A command has two modules. The one in :mod:`sphereface.commands.parsers` reads its options and
imports nothing large. The one in :mod:`sphereface.commands` does the work. ``--help`` and a wrong
option need only the first.
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
    "eval": "evaluate a checkpoint on LFW and other benchmarks, or compare two (eval_lfw.py)",
    "align": "align photographs to face crops, by a detector or from landmarks",
    "pack": "pack a training set into one .rec file, or into tar files",
    "check": "check a training set for unreadable, duplicate and suspicious images",
    "make-pairs": "hold out people of a training set, and write verification pairs of them",
    "verify": "compare two photographs: do they show one person?",
    "embed": "compute the embeddings of a folder of images",
    "search": "find the people of a gallery who are most similar to a query image",
    "import": "convert published weights: InsightFace, AdaFace, CVLface, MagFace, OpenSphere, SphereFace",
    "join": "join several trained networks into one checkpoint, an ensemble",
    "export": "convert a checkpoint to ONNX, TorchScript or safetensors, with a model card",
    "compare-runs": "print a table of training runs, and draw their curves",
    "plot-margins": "draw target logits, decision regions, angles and learned features of the margins",
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
    """Return the text of ``sphereface --help``."""
    rows = "\n".join(f"  {name:13} {what}" for name, what in COMMANDS.items())
    return f"usage: sphereface COMMAND …\n\ncommands:\n{rows}\n\n{_EXAMPLES}"


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
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
    """Return the entry point of a script for one command, such as ``python train.py``."""

    @reports_user_errors
    def main(argv: Sequence[str] | None = None) -> int:
        return run_command(name, argv, program)

    return main


def run_command(name: str, argv: Sequence[str] | None, program: str | None = None) -> int:
    """Read the options of a command, then import and run it.

    Args:
        name: a key of :data:`COMMANDS`.
        argv: its arguments; None for those of this process.
        program: its name in its help; None for ``sphereface NAME``.

    Returns:
        The exit code.

    Raises:
        UserError: an option or an input cannot be used.
    """
    load_plugins()  # options can name their backbones, margins and protocols
    parser = importlib.import_module(".commands.parser", __package__)
    args = parser.parse(parser_of(name), name, argv, program or f"sphereface {name}")
    code: int = command_of(name).run(args)
    return code


def parser_of(name: str) -> ModuleType:
    """Import the module that reads the options of a command; it imports nothing large."""
    return importlib.import_module(f".commands.parsers.{_module_name(name)}", __package__)


def command_of(name: str) -> ModuleType:
    """Import a command and everything that it needs."""
    return importlib.import_module(f".commands.{_module_name(name)}", __package__)


def _module_name(name: str) -> str:
    return "import_" if name == "import" else name.replace("-", "_")  # import is a keyword of Python
