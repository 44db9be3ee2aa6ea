"""Verify a checkpoint on LFW as the SphereFace paper does, and on any other set of pairs.

The same as ``sphereface eval``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("eval", "python eval_lfw.py")


if __name__ == "__main__":
    sys.exit(main())
