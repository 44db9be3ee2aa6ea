"""Turn published weights into a checkpoint: to evaluate, to fine-tune, to embed.

The same as ``sphereface import``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sphereface.commands.import_ import run
from sphereface.errors import reports_user_errors


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; returns the exit code."""
    return run(argv, "python scripts/import_weights.py")


if __name__ == "__main__":
    sys.exit(main())
