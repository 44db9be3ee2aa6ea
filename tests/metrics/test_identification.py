import math

import numpy as np
import pytest

from sphereface.metrics.identification import (
    bootstrap_searches,
    field_rank_rates,
    field_recall,
    num_impostors_of_field,
    open_set,
    rank_rates,
)
from sphereface.metrics.searches import mates, search

from .. import ijb_golden as golden
from .made_searches import made

RANKS, FPIRS = (1, 2, 5), (0.0, 0.1, 0.3, 1.0)


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


def test_searches_of_one_kind():
    gallery, probes = np.eye(3), np.eye(3)
    (all_mated,) = open_set(search(probes, gallery, np.arange(3)), (0.1,))
    assert (all_mated.fnir, all_mated.num_nonmated, all_mated.threshold) == (0, 0, -np.inf)
    none_mated = search(probes, gallery, np.full(3, -1))
    assert math.isnan(open_set(none_mated, (0.1,))[0].fnir)
    assert np.isnan(rank_rates(none_mated)).all()


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
