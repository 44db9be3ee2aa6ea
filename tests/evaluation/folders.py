"""Folders of people with features that a test can compute with by hand, and the real LFW where it is at hand."""

from pathlib import Path

import numpy as np
import pytest

from sphereface.evaluation.people import People

LFW = Path(__file__).parents[3] / "shared" / "faces" / "lfw" / "images"
needs_lfw = pytest.mark.skipif(not LFW.is_dir(), reason=f"the images of LFW are not at {LFW}")


def made_up_people(counts):
    """People with so many images each; no file is there."""
    person = np.repeat(np.arange(len(counts)), counts)
    files = tuple(Path(f"people/P{p}/P{p}_{k}.jpg") for k, p in enumerate(person))
    return People(Path("people"), tuple(f"P{p}" for p in range(len(counts))), person, files)


def made_up_features(people, *, seed=0, dims=8, spread=0.7):
    """Each person around a point of their own, all of them off the origin."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(people.names), dims)) + 0.5
    return centres[people.person] + spread * rng.standard_normal((len(people.person), dims))


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
