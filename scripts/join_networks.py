"""Join networks that were trained apart to one checkpoint: their embeddings side by side.

The same as ``sphereface join``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sphereface.commands.join import run
from sphereface.errors import reports_user_errors
from sphereface.plugins import load_plugins


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; returns the exit code."""
    load_plugins()
    return run(argv, "python scripts/join_networks.py")


if __name__ == "__main__":
    sys.exit(main())
