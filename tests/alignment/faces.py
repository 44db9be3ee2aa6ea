"""Small made-up photographs with landmarks, for the tests of alignment."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sphereface.alignment.similarity import template

SHIFT = (30, 20)  # x, y of the face's crop in the picture


def write_photographs(folder: Path, names: list[str], side: int = 160) -> Path:
    """Write noise as pictures whose faces lie at ``SHIFT``, and the landmarks beside ``folder``."""
    rng = np.random.default_rng(0)
    lines = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(smooth(rng, side), path.suffix))
        lines.append("\t".join([name, *(f"{number:.4f}" for number in (template() + SHIFT).ravel())]))
    landmarks = folder.with_name("landmarks.txt")
    landmarks.write_text("\n".join(lines) + "\n")
    return landmarks


def smooth(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise that JPEG keeps: (side, side, 3) uint8."""
    coarse = rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def encode(image: np.ndarray, suffix: str) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()
