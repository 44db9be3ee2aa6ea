"""The options of the commands: one module for each command, whose docstring is its help.

``add_options(parser)`` adds them; see :func:`sphereface.commands.parser.parse`. These modules
import nothing large, so ``--help`` and a wrong option get their answer at once.
:mod:`sphereface.cli` imports the command itself later.
"""
