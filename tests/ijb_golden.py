"""Golden values of the IJB protocols: four test modes in this repository, all twelve where the shared folder is."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "golden" / "ijb"
SHARED = (Path(__file__).parents[1] / "../shared/golden/ijb").resolve() / "ijb.npz"
MODES = ("N1D1F2", "N0D0F1", "N1D0F0", "N0D1F2")

with_shared = pytest.mark.skipif(not SHARED.is_file(), reason="the shared golden values of IJB are not on this machine")
in_each_mode = pytest.mark.parametrize(
    ("mode", "whole"),
    [
        *((mode, False) for mode in MODES),
        *(
            pytest.param("".join(parts), True, marks=with_shared)
            for parts in itertools.product(("N0", "N1"), ("D0", "D1"), ("F0", "F1", "F2"))
        ),
    ],
)


@functools.cache
def load(whole: bool = False) -> Any:
    return dict(np.load(SHARED if whole else FOLDER / "ijb.npz"))


def text_columns(name: str) -> list[list[str]]:
    """Columns of a text file of the golden folder, read in the plainest way."""
    return [list(column) for column in zip(*(line.split() for line in (FOLDER / name).open()), strict=True)]


def column(name: str, index: int) -> Any:
    return np.array([int(field) for field in text_columns(name)[index]])


def detector_score() -> Any:
    return np.array([float(field) for field in text_columns("ijbx_name_5pts_score.txt")[11]])


def csv_columns(name: str) -> Any:
    """Templates and subjects of a csv file."""
    lines = (FOLDER / name).read_text().split()[1:]
    return np.array([[int(field) for field in line.split(",")] for line in lines]).T


def pool_by_loops(rows: Any, template: Any, media: Any) -> tuple[Any, Any]:
    """Sorted templates and their embeddings, by the definition."""
    ids = sorted(set(template.tolist()))
    pooled = []
    for one in ids:
        total = np.zeros(rows.shape[1])
        for medium in sorted(set(media[template == one].tolist())):
            frames = [row for row, t, m in zip(rows, template, media, strict=True) if t == one and m == medium]
            total += np.mean(np.array(frames, dtype=np.float64), axis=0)
        pooled.append(total / np.sqrt((total**2).sum()))
    return np.array(ids), np.array(pooled)


def rows_of_mode(mode: str, features: Any, score: Any) -> Any:
    """The row of each image in a test mode, by the definition."""
    image, mirror = np.split(features.astype(np.float64), 2, axis=1)
    rows = {"F0": image, "F1": np.hstack([image, mirror]), "F2": image + mirror}[mode[4:]]
    if mode[:2] == "N0":
        rows = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows * score[:, None] if mode[2:4] == "D1" else rows
