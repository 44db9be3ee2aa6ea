"""LFW accuracy of exported ONNX networks, each file through the same protocol as eval_lfw.py.

python benchmarks/eval_onnx.py best.onnx best-int8.onnx --lfw lfw-112x96 --pairs pairs.txt

Files of every --order, --layout and --dtype are taken; their metadata says what to feed. The evaluation adds the mirror
images itself, so export with --mirror none.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sphereface.errors import UserError, reports_user_errors
from sphereface.evaluation import evaluate, load_pair_set
from sphereface.export.formats import onnx_runner
from sphereface.export.graph import InputFormat
from sphereface.export.needs import needs
from sphereface.input_spec import InputSpec
from sphereface.models import Backbone

_INPUT = re.compile(r"\(\w+, (\d+), (\d+), (\d+)\) (\w+), pixels 0 to 255, (BGR|RGB)")


class Exported(Backbone):
    """An exported network in place of the one it came from: BGR pixels from 0 to 255, (B, 3, H, W) → (B, D)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run = onnx_runner(path)
        self.form, (height, width) = what_it_reads(path)
        self.input_spec = InputSpec(height, width, "bgr", mean=(0.0,), std=(1.0,))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Feed the pixels as the file wants them."""
        pixels = images.to(torch.uint8).permute(0, 2, 3, 1).numpy()  # (B, H, W, 3) BGR
        return torch.from_numpy(self.run(self.form.feed(pixels)).astype(np.float32))


def what_it_reads(path: Path) -> tuple[InputFormat, tuple[int, int]]:
    """Return the format and (height, width) that the metadata of an export names."""
    about = {entry.key: entry.value for entry in needs("onnx").load(str(path)).metadata_props}
    found = _INPUT.fullmatch(about.get("input", ""))
    if found is None or about.get("mirror", "none") != "none":
        raise UserError(f"{path}: got {about} as metadata · allowed: a file of sphereface export with --mirror none")
    *sides, dtype, order = found.groups()
    first, second, third = map(int, sides)
    nhwc = third == 3
    form = InputFormat(order.lower(), "nhwc" if nhwc else "nchw", dtype)
    return form, (first, second) if nhwc else (second, third)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate each file, print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE.onnx", type=Path, nargs="+")
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    args = parser.parse_args(argv)
    pair_set = load_pair_set("lfw", args.lfw, args.pairs)
    for path in args.files:
        start = time.perf_counter()
        outcome = evaluate(Exported(path), pair_set, device="cpu", progress=path.name)
        seconds = time.perf_counter() - start
        megabytes = path.stat().st_size / 1e6
        print(
            f"{path.name}: {outcome.mean:.2%} ± {outcome.standard_error:.2%}, {megabytes:.1f} MB, "
            f"{len(pair_set.files) / seconds:.1f} images/s with their mirror images",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
