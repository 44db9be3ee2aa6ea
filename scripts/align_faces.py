"""Align photographs to face crops, by a detector or from five landmarks for each image.

The same as ``sphereface align``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("align", "python scripts/align_faces.py")


if __name__ == "__main__":
    sys.exit(main())
