"""A parser whose help shows the examples of a module under the name of the called program."""

from __future__ import annotations

import argparse

Formatter = type[argparse.HelpFormatter]


def new_parser(
    doc: str | None, command: str, program: str, formatter: Formatter = argparse.RawDescriptionHelpFormatter
) -> argparse.ArgumentParser:
    """Return the parser of a command; the options it returns include ``program``.

    Args:
        doc: the module's docstring, with examples that begin with ``sphereface <command>``.
        command: name of the command.
        program: what the user called, such as ``python train.py``; it replaces the name in the
            examples.
        formatter: formatter of the help. It must keep the lines of ``doc``.
    """
    description = (doc or "").replace(f"sphereface {command}", program)
    parser = argparse.ArgumentParser(prog=program, description=description, formatter_class=formatter)
    parser.set_defaults(program=program)
    return parser
