"""Make a verification set of own images, and tell training whom to leave out.

The same as ``sphereface make-pairs``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("make-pairs", "python scripts/make_pairs.py")


if __name__ == "__main__":
    sys.exit(main())
