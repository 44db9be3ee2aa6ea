"""Check a training set: read and decode every image, and report problems.

The same as ``sphereface check``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("check", "python scripts/check_faces.py")


if __name__ == "__main__":
    sys.exit(main())
