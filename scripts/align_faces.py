"""Align a folder of photographs to face crops, by a detector or from a file of five landmarks a picture.

The same as ``sphereface align``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sphereface.commands.align import run
from sphereface.errors import reports_user_errors


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; returns the exit code."""
    return run(argv, "python scripts/align_faces.py")


if __name__ == "__main__":
    sys.exit(main())
