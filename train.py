"""Train a face-recognition network.

The same as ``sphereface train``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("train", "python train.py")


if __name__ == "__main__":
    sys.exit(main())
