"""Convert published weights to a checkpoint for evaluation, fine-tuning or embedding.

The same as ``sphereface import``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("import", "python scripts/import_weights.py")


if __name__ == "__main__":
    sys.exit(main())
