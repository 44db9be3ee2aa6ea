"""Make a verification set of your own images, and a list of people to leave out of training.

The same as ``sphereface make-pairs``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("make-pairs", "python scripts/make_pairs.py")


if __name__ == "__main__":
    sys.exit(main())
