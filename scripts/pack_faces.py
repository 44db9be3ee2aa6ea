"""Pack a training set into one RecordIO file (mxnet, InsightFace) or tar files (WebDataset).

The same as ``sphereface pack``; ``--help`` shows examples.
"""

from __future__ import annotations

import sys

from sphereface.cli import main_of

main = main_of("pack", "python scripts/pack_faces.py")


if __name__ == "__main__":
    sys.exit(main())
