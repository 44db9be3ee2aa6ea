"""A parser whose help shows the examples of a module, under the name that the program was called
by.
"""

from __future__ import annotations

import argparse

Formatter = type[argparse.HelpFormatter]


def new_parser(
    doc: str | None, command: str, program: str, formatter: Formatter = argparse.RawDescriptionHelpFormatter
) -> argparse.ArgumentParser:
    """Start the parser of a command; what it returns has the ``program`` that was called.

    Args:
        doc: the module's docstring, with examples that begin ``sphereface <command>``.
        command: its name.
        program: what the user called instead, such as ``python train.py``.
        formatter: of the help; it must leave the lines of ``doc`` as they are.
    """
    description = (doc or "").replace(f"sphereface {command}", program)
    parser = argparse.ArgumentParser(prog=program, description=description, formatter_class=formatter)
    parser.set_defaults(program=program)
    return parser
