"""The console command ``sphereface``: which command does what; each one's module is imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from . import __version__
from .errors import UserError, reports_user_errors
from .plugins import load_plugins

COMMANDS = {
    "train": "train a network (train.py)",
    "eval": "verify a checkpoint on LFW and other sets of pairs, compare two (eval_lfw.py)",
    "align": "photographs to aligned crops, by a detector or from landmarks",
    "pack": "a training set into one .rec file, or into tar files",
    "check": "say what is wrong with a training set",
    "verify": "are two photographs of one person?",
    "embed": "a folder of pictures to a file of embeddings",
    "search": "find the people of a gallery most like the one on a picture",
    "import": "published weights to a checkpoint: InsightFace, AdaFace, CVLface, MagFace, OpenSphere, SphereFace",
    "join": "networks that were trained apart to one checkpoint",
    "export": "a checkpoint to ONNX, TorchScript or safetensors, with a model card",
}

_MODULES = {"import": "import_"}  # the name is a word of Python's own

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
    rows = "\n".join(f"  {name:8} {what}" for name, what in COMMANDS.items())
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
    load_plugins()
    module = importlib.import_module(f".commands.{_MODULES.get(name, name)}", __package__)
    code: int = module.run(rest, f"sphereface {name}")
    return code
