"""Verify a checkpoint on LFW as the SphereFace paper does, and on any other set of pairs.

The same as ``sphereface eval``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sphereface.commands.eval import run
from sphereface.errors import reports_user_errors
from sphereface.plugins import load_plugins


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; returns the exit code."""
    load_plugins()
    return run(argv, "python eval_lfw.py")


if __name__ == "__main__":
    sys.exit(main())
