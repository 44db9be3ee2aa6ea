"""Made-up verification sets: lists of pairs, images of noise, networks small enough to check by hand."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from sphereface.data.pairs import Pairs
from sphereface.input_spec import InputSpec
from sphereface.models import Backbone


def random_pairs(seed, *, num_names=12, num_folds=4, num_each=6):
    """Pairs drawn with repetition: one image occurs in several pairs, one pair several times."""
    rng = np.random.default_rng(seed)
    num_pairs = 2 * num_each * max(1, num_folds)
    left, right = rng.integers(0, num_names, (2, num_pairs))
    left[-1], right[-1] = left[0], right[0]
    return Pairs(
        path=Path("pairs.txt"),
        names=tuple(f"P/P_{k:04d}.jpg" for k in range(num_names)),
        left=left,
        right=right,
        same=np.arange(num_pairs) // num_each % 2 == 0,
        fold=np.arange(num_pairs) // (2 * num_each) + 1 if num_folds else np.zeros(num_pairs, dtype=np.int64),
        num_folds=num_folds,
    )


def noise(seed, height=32, width=24):
    """(H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path, image):
    """Save losslessly, whatever the suffix says: decoders look at the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def write_set(root, *, people=8, images=4, folds=2, height=32, width=24):
    """A folder of people who each look alike, with ``pairs.txt`` and view 1's two lists beside them."""
    rng = np.random.default_rng(0)
    for p in range(people):
        face = noise(p, height, width).astype(np.int64)
        for k in range(1, images + 1):
            image = np.clip(face + rng.integers(-30, 31, face.shape), 0, 255).astype(np.uint8)
            write_image(root / f"P{p}" / f"P{p}_{k:04d}.jpg", image)
    each = people // folds
    blocks = [_block(range(fold * each, (fold + 1) * each), images) for fold in range(folds)]
    num_each = len(blocks[0]) // 2
    _write_lines(root / "pairs.txt", [f"{folds}\t{num_each}", *(line for block in blocks for line in block)])
    _write_lines(root / "pairsDevTrain.txt", [f"{num_each}", *blocks[0]])
    _write_lines(root / "pairsDevTest.txt", [f"{num_each}", *blocks[1]])
    return root


def _block(people, images):
    same = [f"P{p}\t{k}\t{k + 1}" for p in people for k in range(1, images)]
    others = [people[(n + 1) % len(people)] for n in range(len(people))]
    different = [f"P{p}\t{k}\tP{q}\t{k}" for p, q in zip(people, others, strict=True) for k in range(1, images)]
    return same + different


def _write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Pixels(Backbone):
    """The input itself as embedding: (B, 3, H, W) → (B, 3·H·W)."""

    input_spec = InputSpec(32, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return x.flatten(1)


class Projection(Backbone):
    """A fixed random projection of the input to eight numbers."""

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.input_spec = InputSpec(32, 24)
        self.linear = nn.Linear(num_inputs, 8, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(np.random.default_rng(0).standard_normal((8, num_inputs))))
            self.linear.weight.div_(num_inputs**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))
