import math

import numpy as np
import pytest

from sphereface.metrics import identification as module
from sphereface.metrics.identification import (
    bootstrap_searches,
    field_rank_rates,
    field_recall,
    mates,
    num_impostors_of_field,
    open_set,
    rank_rates,
    search,
)

from .. import ijb_golden as golden

RANKS, FPIRS = (1, 2, 5), (0.0, 0.1, 0.3, 1.0)


def units(rng, count, dim=3, steps=None):
    """Unit vectors, or their nearest points on a grid with so many steps to 1: then products are exact, and tie."""
    x = rng.standard_normal((count, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x if steps is None else np.round(x * steps) / steps


def made(seed, steps=None, enrolled=12, probes=80, subjects=20):
    rng = np.random.default_rng(seed)
    gallery_subject = rng.permutation(subjects)[:enrolled] + 100
    probe_subject = rng.integers(0, subjects, probes) + 100
    return (
        units(rng, probes, steps=steps),
        units(rng, enrolled, steps=steps),
        probe_subject,
        gallery_subject,
    )


@golden.in_each_mode
def test_closed_set_figures_equal_insightface(mode, whole):
    values = golden.load(whole)
    media = "ijbx_face_tid_mid.txt"
    rows = golden.rows_of_mode(mode, values["features"], golden.detector_score())
    ids, templates = golden.pool_by_loops(rows, golden.column(media, 1), golden.column(media, 2))
    gallery = np.hstack([golden.csv_columns(f"ijbx_1N_gallery_G{k}.csv") for k in (1, 2)])
    probes = golden.csv_columns("ijbx_1N_probe_mixed.csv")
    searches = search(
        templates[np.searchsorted(ids, probes[0])],
        templates[np.searchsorted(ids, gallery[0])],
        mates(probes[1], gallery[1]),
        num_impostors=num_impostors_of_field(probes.shape[1], 0.1),
    )
    np.testing.assert_array_equal(field_rank_rates(searches, (1, 5, 10)), values[f"{mode}.top1_5_10"])
    np.testing.assert_array_equal(rank_rates(searches, (1, 5, 10)), values[f"{mode}.top1_5_10"])  # nothing ties
    found = [(point.far, point.recall, point.threshold) for point in field_recall(searches, (0.01, 0.1))]
    np.testing.assert_allclose(found, values[f"{mode}.far_recall_threshold"], rtol=0, atol=6e-11)  # 10 decimals


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


def field_by_definition(probes, gallery, mate, fars):
    """As ijb_1n.py does it."""
    similarity = probes @ gallery.T
    top = np.argsort(-similarity, kind="stable")
    ranks = [np.mean([mate[row] in top[row, :k] for row in range(len(probes))]) for k in RANKS]
    own = similarity[np.arange(len(probes)), mate]
    similarity[np.arange(len(probes)), mate] = -2
    falling = np.sort(similarity[similarity > -2])[::-1]
    points = []
    for far in fars:
        threshold = falling[math.ceil(len(probes) * far) - 1]
        points.append((far, np.sum(own > threshold) / len(probes), threshold))
    return ranks, points


@pytest.mark.parametrize("steps", [None, 4])
def test_the_fields_figures_by_its_definition(steps):
    probes, gallery, probe_subject, gallery_subject = made(7, steps, enrolled=20)
    mate = mates(probe_subject, gallery_subject)
    searches = search(probes, gallery, mate, num_impostors=num_impostors_of_field(80, 0.3))
    ranks, points = field_by_definition(probes, gallery, mate, (0.01, 0.1, 0.3))
    np.testing.assert_array_equal(field_rank_rates(searches, RANKS), ranks)
    found = [(point.far, point.recall, point.threshold) for point in field_recall(searches, (0.01, 0.1, 0.3))]
    np.testing.assert_allclose(found, points, atol=1e-12)


def fnir_by_definition(searches, target, rank):
    """Try each threshold: the best scores, and a value just above each."""
    mated = searches.mate >= 0
    best = searches.best[~mated]
    candidates = [-np.inf, *np.nextafter(best, np.inf)]
    allowed = [t for t in candidates if np.mean(best >= t) <= target + 1e-12]
    threshold = min(allowed)
    missed = [
        not (r <= rank and s >= threshold)
        for r, s in zip(searches.rank[mated], searches.mate_score[mated], strict=True)
    ]
    return float(np.mean(missed)), threshold, int((best >= threshold).sum())


@pytest.mark.parametrize("steps", [None, 1, 4])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_fnir_at_fpir_by_nists_definition(seed, rank, steps):
    probes, gallery, probe_subject, gallery_subject = made(seed, steps)
    searches = search(probes, gallery, mates(probe_subject, gallery_subject))
    for point in open_set(searches, FPIRS, rank=rank):
        fnir, threshold, false_positives = fnir_by_definition(searches, point.fpir, rank)
        assert point.fnir == pytest.approx(fnir, abs=1e-12)
        assert (point.threshold, point.false_positives) == (threshold, false_positives)
        assert point.num_nonmated == int((searches.mate < 0).sum())


def test_a_literal_open_set():
    gallery = np.eye(3)
    probes = np.array([[0.9, 0, 0], [0.5, 0.6, 0], [0, 0.8, 0], [0.7, 0, 0], [0, 0, 0.4]])
    searches = search(probes, gallery, np.array([0, 0, 1, -1, -1]))
    exact, loose = open_set(searches, (0.0, 0.5))
    assert exact.fnir == pytest.approx(1 / 3)  # above 0.7: the first and the third; the second has rank 2
    assert loose.fnir == pytest.approx(1 / 3)
    assert (exact.false_positives, loose.false_positives) == (0, 1)
    assert 0.7 < exact.threshold < 0.7 + 1e-9
    assert not exact.resolvable
    assert rank_rates(searches, (1, 2)).tolist() == pytest.approx([2 / 3, 1])


def test_undefined_vectors_find_nobody():
    gallery, probes = np.eye(3), np.eye(3)[[0, 1, 2, 0, 1]]
    gallery[1] = np.nan
    probes[2] = probes[3] = np.nan
    searches = search(probes, gallery, np.array([0, 1, 2, -1, -1]), num_impostors=3)
    assert searches.rank.tolist() == [1, 4, 4, 4, 4]
    assert searches.mate_score.tolist() == [1, -np.inf, -np.inf, -np.inf, -np.inf]
    np.testing.assert_array_equal(searches.best, [1, 0, np.nan, np.nan, 0])
    assert searches.top_impostors.tolist() == [0, 0, 0]
    assert rank_rates(searches, (1, 4, 10)).tolist() == pytest.approx([1 / 3] * 3)  # also beyond the gallery's size
    assert field_rank_rates(searches, (1, 4, 10)).tolist() == pytest.approx([1 / 5] * 3)
    (point,) = open_set(searches, (0.5,))  # one of the two non-mated probes is defined, and its best score is 0
    assert (point.fnir, point.false_positives, point.num_nonmated) == (pytest.approx(2 / 3), 0, 1)
    assert 0 < point.threshold < 1e-300
    (point,) = open_set(searches, (1.0,))
    assert point.fnir == pytest.approx(2 / 3)  # even with no threshold at all


@pytest.mark.parametrize("seed", range(4))
def test_undefined_nonmated_probes_are_left_out(seed):
    probes, gallery, probe_subject, gallery_subject = made(seed)
    mate = mates(probe_subject, gallery_subject)
    strangers = np.flatnonzero(mate < 0)
    lost = strangers[: len(strangers) // 2]
    kept = np.setdiff1d(np.arange(len(probes)), lost)
    weights = np.random.default_rng(seed).integers(0, 3, len(probes))
    expected = search(probes[kept], gallery, mate[kept])
    broken = probes.copy()
    broken[lost] = np.nan
    found = search(broken, gallery, mate)
    assert open_set(found, FPIRS) == open_set(expected, FPIRS)
    assert open_set(found, FPIRS, weights=weights) == open_set(expected, FPIRS, weights=weights[kept])
    for one, other in zip(
        bootstrap_searches([found], np.arange(len(probes)), replicates=9)[0],
        bootstrap_searches([search(probes, gallery, mate)], np.arange(len(probes)), replicates=9)[0],
        strict=True,
    ):
        assert one.rank == other.rank


def test_without_a_defined_nonmated_probe_nothing_is_found():
    probes = np.eye(3)[[0, 1, 2, 0, 1]]
    probes[3:] = np.nan
    searches = search(probes, np.eye(3), np.array([0, 1, 2, -1, -1]))
    for point in open_set(searches, (0.0, 0.1, 0.5)):
        assert (point.fnir, point.threshold, point.num_nonmated) == (1, np.inf, 2)
    assert rank_rates(searches, (1,)).tolist() == [1]


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


def test_searches_of_one_kind():
    gallery, probes = np.eye(3), np.eye(3)
    (all_mated,) = open_set(search(probes, gallery, np.arange(3)), (0.1,))
    assert (all_mated.fnir, all_mated.num_nonmated, all_mated.threshold) == (0, 0, -np.inf)
    none_mated = search(probes, gallery, np.full(3, -1))
    assert math.isnan(open_set(none_mated, (0.1,))[0].fnir)
    assert np.isnan(rank_rates(none_mated)).all()


def test_mates():
    assert mates(np.array([5, 9, 5, 1]), np.array([9, 7, 5])).tolist() == [2, 0, 2, -1]
    assert mates(np.array([5, 9]), np.array([], dtype=int)).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="subject 7 is in the gallery more than once"):
        mates(np.array([5]), np.array([7, 5, 7]))


def test_weights_are_repetitions():
    probes, gallery, probe_subject, gallery_subject = made(3, 4)
    mate = mates(probe_subject, gallery_subject)
    weights = np.random.default_rng(0).integers(0, 4, len(probes))
    weighted, repeated = (
        search(probes, gallery, mate),
        search(np.repeat(probes, weights, axis=0), gallery, np.repeat(mate, weights)),
    )
    np.testing.assert_array_equal(rank_rates(weighted, RANKS, weights=weights), rank_rates(repeated, RANKS))
    for one, other in zip(open_set(weighted, FPIRS, weights=weights), open_set(repeated, FPIRS), strict=True):
        assert one == other


def bounds(found):
    return [(interval.low, interval.high) for interval in (*found.rank, *found.fnir)]


def test_intervals_over_subjects_by_repeating_searches():
    probes, gallery, probe_subject, gallery_subject = made(4)
    halves = [slice(0, 6), slice(6, 12)]
    galleries = [search(probes, gallery[half], mates(probe_subject, gallery_subject[half])) for half in halves]
    each, mean = bootstrap_searches(galleries, probe_subject, ranks=(1, 3), targets=(0.1,), replicates=30, seed=9)
    rng = np.random.default_rng(9)
    subjects = np.unique(probe_subject)
    figures = []
    for _ in range(30):
        drawn = subjects[rng.integers(0, len(subjects), len(subjects))]
        rows = np.concatenate([np.flatnonzero(probe_subject == subject) for subject in drawn])
        row = []
        for half in halves:
            repeated = search(probes[rows], gallery[half], mates(probe_subject[rows], gallery_subject[half]))
            row.append([*rank_rates(repeated, (1, 3)), open_set(repeated, (0.1,))[0].fnir])
        figures.append(row)
    low, high = np.percentile(np.array(figures), [2.5, 97.5], axis=0)
    for found, index in zip(each, range(2), strict=True):
        np.testing.assert_allclose(bounds(found), np.stack([low[index], high[index]], axis=1))
    low, high = np.percentile(np.array(figures).mean(axis=1), [2.5, 97.5], axis=0)
    np.testing.assert_allclose(bounds(mean), np.stack([low, high], axis=1))
