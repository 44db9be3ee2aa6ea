"""Check a training set: read and decode every picture, and say what is wrong with it.

The same as ``sphereface check``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sphereface.commands.check import run
from sphereface.errors import reports_user_errors


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; returns the exit code."""
    return run(argv, "python scripts/check_faces.py")


if __name__ == "__main__":
    sys.exit(main())
