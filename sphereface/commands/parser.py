"""Parse the options of a command. Its help shows the examples under the name of the program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from ..errors import UserError


def new_parser(doc: str | None, command: str, program: str) -> argparse.ArgumentParser:
    """Return the parser of a command; the options it returns include ``program``.

    Args:
        doc: the module's docstring, with examples that begin with ``sphereface <command>``.
        command: name of the command.
        program: what the user called, such as ``python train.py``; it replaces the name in the
            examples.
    """
    description = (doc or "").replace(f"sphereface {command}", program)
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=program, description=description, formatter_class=formatter)
    parser.set_defaults(program=program)
    return parser


def parse(module: ModuleType, command: str, argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Parse a command line by a module of :mod:`.parsers`.

    Args:
        module: its ``add_options(parser)`` adds the options. If it has a ``parse_args(parser,
            argv)``, this replaces the method of the parser.
        command, program: see :func:`new_parser`.
        argv: the arguments; None for those of this process.

    Raises:
        UserError: options exclude each other, or an argument is empty.
    """
    parser = new_parser(module.__doc__, command, program)
    module.add_options(parser)
    parse_args = getattr(module, "parse_args", argparse.ArgumentParser.parse_args)
    arguments = list(sys.argv[1:] if argv is None else argv)
    args: argparse.Namespace = parse_args(parser, arguments)
    if "" in arguments:  # argparse would make it the folder "."
        before = ["", *arguments][arguments.index("")]
        what = before if before.startswith("--") else f"argument {arguments.index('') + 1}"
        raise UserError(f"{what}: got an empty text · allowed: a value, such as a path · is a variable empty?")
    return args
