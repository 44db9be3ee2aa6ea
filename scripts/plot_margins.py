"""Draw the figures of docs/losses.md: target logits, regions, angles over m, learned features.

The same as ``sphereface plot-margins``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("plot-margins", "python scripts/plot_margins.py")


if __name__ == "__main__":
    sys.exit(main())
