"""LFW accuracy of exported networks, each file through the same protocol as eval_lfw.py.

python benchmarks/eval_onnx.py best.onnx best-int8.onnx --lfw lfw-112x96 --pairs pairs.txt
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sphereface.data.transforms import to_pixels
from sphereface.errors import reports_user_errors
from sphereface.evaluation import evaluate, load_pair_set
from sphereface.export.formats import onnx_runner
from sphereface.export.graph import InputFormat


class Exported(nn.Module):
    """An exported network, fed NHWC uint8 BGR, in the place of the one it came from: (B, 3, H, W) → (B, D)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run = onnx_runner(path)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Undo the normalisation, which is inside the file, exactly, and run."""
        pixels = to_pixels(inputs).flip(1).permute(0, 2, 3, 1).numpy()  # (B, H, W, 3) BGR
        return torch.from_numpy(self.run(InputFormat().feed(np.ascontiguousarray(pixels))))


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate each file, print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE.onnx", type=Path, nargs="+")
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--size", default="112x96", help="height x width of a crop (%(default)s)")
    args = parser.parse_args(argv)
    height, width = map(int, args.size.split("x"))
    pair_set = load_pair_set("lfw", args.lfw, args.pairs)
    for path in args.files:
        start = time.perf_counter()
        outcome = evaluate(Exported(path), pair_set, input_size=(height, width), device="cpu", progress=path.name)
        seconds = time.perf_counter() - start
        megabytes = path.stat().st_size / 1e6
        print(
            f"{path.name}: {outcome.mean:.2%} ± {outcome.standard_error:.2%}, {megabytes:.1f} MB, "
            f"{len(pair_set.files) / seconds:.1f} pictures/s with their mirror images",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
