"""Pack a training set into one RecordIO file, as mxnet and InsightFace write it, or into tar files for WebDataset.

The same as ``sphereface pack``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sphereface.commands.pack import run
from sphereface.errors import reports_user_errors


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; returns the exit code."""
    return run(argv, "python scripts/pack_faces.py")


if __name__ == "__main__":
    sys.exit(main())
