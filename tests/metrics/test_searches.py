import numpy as np
import pytest

from sphereface.metrics import searches as module
from sphereface.metrics.searches import mates, search

from .made_searches import made, units


@pytest.mark.parametrize("steps", [None, 1, 4])
@pytest.mark.parametrize("cells", [1, 50, 2**22])
@pytest.mark.parametrize("seed", range(4))
def test_searches_equal_loops(seed, steps, cells, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", cells)
    probes, gallery, probe_subject, gallery_subject = made(seed, steps)
    mate = mates(probe_subject, gallery_subject)
    found = search(probes, gallery, mate, num_impostors=17)
    impostors = []
    for row, (probe, subject) in enumerate(zip(probes, probe_subject, strict=True)):
        scores = [float(probe @ entry) for entry in gallery]
        own = gallery_subject.tolist().index(subject) if subject in gallery_subject else None
        assert mate[row] == (-1 if own is None else own)
        assert found.best[row] == pytest.approx(max(scores), abs=1e-12)
        impostors += [score for entry, score in enumerate(scores) if entry != own]
        if own is None:
            assert (found.rank[row], found.rank_in_order[row], found.mate_score[row]) == (13, 13, -np.inf)
            continue
        assert found.mate_score[row] == pytest.approx(scores[own], abs=1e-12)
        assert found.rank[row] == sum(score >= scores[own] for score in scores)
        by_order = sorted(range(len(scores)), key=lambda entry: (-scores[entry], entry))
        assert found.rank_in_order[row] == by_order.index(own) + 1
    np.testing.assert_allclose(found.top_impostors, sorted(impostors, reverse=True)[:17], atol=1e-12)


@pytest.mark.parametrize("size", [2, 7, 101, 1000])
@pytest.mark.parametrize("dim", [512, 511, 2049])
def test_equal_gallery_rows_tie_wherever_they_stand(dim, size):
    """A matrix product rounds equal rows differently by their position."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        row = units(rng, 1, dim)
        probes = units(rng, 3, dim) + row
        probes /= np.linalg.norm(probes, axis=1, keepdims=True)
        mate = rng.integers(0, size, 3)
        found = search(probes, np.tile(row, (size, 1)), mate)
        assert found.rank.tolist() == [size] * 3


def test_a_tie_is_no_wider_than_rounding():
    gallery = np.array([[1.0, 0], [1 - 1e-11, 0], [1 + 1e-13, 0], [1 - 1e-13, 0]])
    assert search(np.array([[1.0, 0]]), gallery, np.array([0])).rank.tolist() == [3]
    assert search(np.array([[1.0, 0]]), gallery, np.array([0])).rank_in_order.tolist() == [2]


def test_mates():
    assert mates(np.array([5, 9, 5, 1]), np.array([9, 7, 5])).tolist() == [2, 0, 2, -1]
    assert mates(np.array([5, 9]), np.array([], dtype=int)).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="subject 7 is in the gallery more than once"):
        mates(np.array([5]), np.array([7, 5, 7]))
