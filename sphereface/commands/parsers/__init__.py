"""What the command line of each command may say: a module a command, whose docstring is its help.

``parse(argv, program)`` returns the options. These modules import nothing large, so that ``--help``
and a wrong option are answered at once; :mod:`sphereface.cli` imports the command itself only then.
"""
