"""Prepare the demo's data: the ORL faces (AT&T Laboratories Cambridge) at 112x96, to train on and
to verify.

    pip install '.[demo]'
    python scripts/prepare_orl.py

writes data/orl-112x96/train (30 people), data/orl-112x96/verify (10 others) and verify/pairs.txt in
it (ten folds of 45 + 45 pairs). A second run finds them whole and does nothing.
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
    """Prepare, then say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("data/orl-112x96"))
    folder = prepare_orl(parser.parse_args(argv).output)
    print("written:" if folder.made else "already there:", folder.train, folder.verify, folder.pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
