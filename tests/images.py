"""Small images and training folders made for tests: every identity has a colour and a pattern of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest


def image(identity: int, number: int, size: tuple[int, int] = (112, 96)) -> np.ndarray:
    """(H, W, 3) uint8: low-frequency noise of the identity plus noise of the image."""
    of_identity = np.random.default_rng(identity).uniform(0, 255, (7, 6, 3))
    of_image = np.random.default_rng((identity, number)).uniform(-40, 40, (14, 12, 3))
    height, width = size
    smooth = cv2.resize(of_identity, (width, height), interpolation=cv2.INTER_LINEAR)
    rough = cv2.resize(of_image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(smooth + rough, 0, 255).astype(np.uint8)


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: a write that would is short, then fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path, image: np.ndarray) -> Path:
    """Write one image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, image)
    assert ok
    path.write_bytes(data.tobytes())
    return path


def make_training_set(root: Path, identities: int = 6, each: int = 5, size: tuple[int, int] = (112, 96)) -> Path:
    """``root/<identity>/<number>.png``."""
    for i in range(identities):
        for k in range(each):
            write(root / f"id{i:02d}" / f"{k:03d}.png", image(i, k, size))
    return root


def make_pairs(root: Path, folds: int = 3, each: int = 4, size: tuple[int, int] = (112, 96)) -> Path:
    """A verification set of 2·folds people in ``root`` with its ``pairs.txt``: ``each`` + ``each`` pairs a fold."""
    lines = [f"{folds}\t{each}"]
    for fold in range(folds):
        a, b = f"Anna_{fold}", f"Bert_{fold}"
        for offset, name in ((0, a), (1, b)):
            for k in range(1, each + 2):
                write(root / name / f"{name}_{k:04d}.png", image(100 + 2 * fold + offset, k, size))
        lines += [f"{a}\t{k}\t{k + 1}" for k in range(1, each + 1)]
        lines += [f"{a}\t{k}\t{b}\t{k}" for k in range(1, each + 1)]
    (root / "pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
