"""Compare training runs in a table and in one chart of their curves.

The same as ``sphereface compare-runs``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("compare-runs", "python scripts/compare_runs.py")


if __name__ == "__main__":
    sys.exit(main())
