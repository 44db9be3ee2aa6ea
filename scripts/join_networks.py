"""Join several trained networks into one checkpoint, an ensemble.

The same as ``sphereface join``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("join", "python scripts/join_networks.py")


if __name__ == "__main__":
    sys.exit(main())
