"""Small made-up photographs with landmarks, for the tests of alignment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from sphereface.alignment.detector import Faces
from sphereface.alignment.similarity import template

SHIFT = (30, 20)  # x, y of the face's crop in the image


def write_photographs(folder: Path, names: list[str], side: int = 160) -> Path:
    """Write noise as images whose faces lie at ``SHIFT``, and the landmarks beside ``folder``."""
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


class ByColour:
    """A detector for tests: a face is a red square of 9 pixels, its landmarks lie around its middle."""

    name = "by colour"

    @staticmethod
    def image(size: tuple[int, int], middles: list[tuple[int, int]], seed: int = 0) -> np.ndarray:
        """Draw faces, at (x, y), into a dull image of (height, width)."""
        image = cv2.resize(np.random.default_rng(seed).integers(60, 160, (8, 8, 3), dtype=np.uint8), size[::-1])
        for x, y in middles:
            image[y - 4 : y + 5, x - 4 : x + 5] = (0, 0, 255)
        return image

    def __call__(self, image: np.ndarray) -> Faces:
        """Find the red squares."""
        blue, _, red = cv2.split(image)
        mask = ((red > 220) & (blue < 50)).astype(np.uint8)
        _, _, _, middles = cv2.connectedComponentsWithStats(mask)
        middles = middles[1:]
        around = (template() - template().mean(axis=0)) / 4
        return Faces(np.hstack([middles - 4, middles + 4]), np.full(len(middles), 0.95), middles[:, None] + around)


class DiesAfter(ByColour):
    """The same detector, killed after so many images."""

    def __init__(self, count: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.count, self.error = count, error

    def __call__(self, image: np.ndarray) -> Faces:
        self.count -= 1
        if self.count < 0:
            raise self.error
        return super().__call__(image)


def shifted(line: str, by: float = 7) -> str:
    """Return a line of a landmark file with other points."""
    name, *numbers = line.split("\t")
    return "\t".join([name, *(f"{float(number) + by:.2f}" for number in numbers)])


def correct(folder: Path, name: str, change: Callable[[str], str] = shifted) -> None:
    """Change the line of an image as an editor does, and give the file its old time, as a copy has it."""
    path = folder / "landmarks.txt"
    before = path.stat().st_mtime_ns
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [change(line) if line.startswith(f"{name}\t") else line for line in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.utime(path, ns=(before, before))


def line_of(folder: Path, name: str) -> list[str] | None:
    """Return the numbers in the line of an image; None if it has none."""
    lines = (folder / "landmarks.txt").read_text(encoding="utf-8").splitlines()
    return next((line.split("\t")[1:] for line in lines if line.startswith(f"{name}\t")), None)
