"""Mutated inputs for every parser: ``python -m tests.fuzz --help``, ``docs/reliability.md``."""
