"""Compare training runs: a table, and their curves in one chart.

The same as ``sphereface compare-runs``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("compare-runs", "python scripts/compare_runs.py")


if __name__ == "__main__":
    sys.exit(main())
