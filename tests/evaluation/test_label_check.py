"""What embeddings say about labels, against plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface.data.identities import Labels
from sphereface.evaluation import label_check
from sphereface.evaluation.label_check import HALVES, People


def people_of(num_people=12, images=6, noise=0.35, seed=0, dim=16):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_people, dim))
    labels = np.repeat(np.arange(num_people), images)
    return (centres[labels] + noise * rng.normal(size=(len(labels), dim)) + 2).astype(np.float32), labels


def unit(row):
    length = np.linalg.norm(row)
    return row / length if length else row


def centred(embeddings):
    rows = embeddings.astype(np.float64)
    return np.array([unit(row - rows.mean(axis=0)) for row in rows])


def test_wrong_labels_are_the_most_unlike_and_their_own_people_are_named():
    embeddings, labels = people_of(num_people=40, dim=32)
    embeddings[[3, 40]] = embeddings[[40, 3]]  # an image of person 0 among those of person 6, and the other way round
    people = People(embeddings, Labels.of(labels))
    rows, cosine, threshold = people.unlike()
    assert set(rows[:2].tolist()) == {3, 40}
    nearest, likeness = people.nearest(rows[:2])
    assert dict(zip(rows[:2].tolist(), nearest.tolist(), strict=True)) == {3: 6, 40: 0}
    assert (likeness > cosine[:2]).all()
    units = centred(embeddings)
    for row, value in zip(rows, cosine, strict=True):
        others = [i for i in range(len(units)) if labels[i] == labels[row] and i != row]
        assert value == pytest.approx(float(units[row] @ unit(units[others].sum(axis=0))), abs=1e-5)
        assert value < threshold


def test_an_image_alone_in_its_identity_is_no_suspect():
    embeddings, labels = people_of()
    embeddings, labels = np.vstack([embeddings, -embeddings[:1]]), np.append(labels, 12)
    assert 72 not in People(embeddings, Labels.of(labels)).unlike()[0]


def level(mean, others):
    """The tenth highest cosine with other identities, or the lowest of fewer; at least 0."""
    cosines = sorted((float(unit(mean) @ unit(other)) for other in others), reverse=True)
    return max(cosines[:10][-1], 0)


def level_of(means, row):
    return level(means[row], [mean for number, mean in enumerate(means) if number != row])


def similarity(one, other, levels):
    return float(unit(one) @ unit(other)) - sum(levels) / 2


def pairs_by_loop(means, threshold):
    return {
        (i, j)
        for i in range(len(means))
        for j in range(i + 1, len(means))
        if similarity(means[i], means[j], [level_of(means, i), level_of(means, j)]) >= threshold
    }


@pytest.mark.parametrize("block", [2048, 5])
def test_one_person_under_two_identities(monkeypatch, block):
    monkeypatch.setattr(label_check, "_BLOCK", block)
    embeddings, labels = people_of()
    embeddings[66:] = embeddings[:6] + 0.1  # person 11 is person 0 again
    people = People(embeddings, Labels.of(labels))
    alike = people.alike(people.same_person())
    assert (alike.left[0], alike.right[0]) == (0, 11)
    units = centred(embeddings)
    means = [units[labels == person].sum(axis=0) for person in range(12)]
    for threshold in (people.same_person(), 0.2, -0.1):
        found = people.alike(threshold)
        assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == pairs_by_loop(means, threshold)
        assert (np.diff(found.similarity) <= 0).all()


@pytest.mark.parametrize("block", [2048, 5])
def test_a_kind_of_people_that_the_network_finds_alike_is_no_suspicion(monkeypatch, block):
    """Twelve people in one corner of the space have higher cosines than one person under two names."""
    monkeypatch.setattr(label_check, "_BLOCK", block)
    embeddings, labels = people_of(num_people=60, noise=0.6, dim=32)
    embeddings[: 12 * 6] += 25 * np.eye(32, dtype=np.float32)[0]
    again = people_of(num_people=60, noise=0.6, dim=32)[0][58 * 6 : 59 * 6]
    embeddings[59 * 6 :] = again + np.random.default_rng(1).normal(size=again.shape).astype(np.float32) * 2
    people = People(embeddings, Labels.of(labels))
    cosines = people.means @ people.means.T
    assert cosines[:12, :12][np.triu_indices(12, 1)].max() > cosines[58, 59]
    alike = people.alike(people.same_person())
    assert (alike.left[0], alike.right[0]) == (58, 59)
    assert alike.right.min() >= 12


def test_the_threshold_is_what_halves_of_one_identity_reach():
    embeddings, labels = people_of()
    units = centred(embeddings)
    means = [units[labels == person].sum(axis=0) for person in range(12)]
    found = []
    for person in range(12):
        rows = np.flatnonzero(labels == person)
        halves = [units[[r for r in rows if r % 2 == odd]].sum(axis=0) for odd in (0, 1)]
        others = [mean for number, mean in enumerate(means) if number != person]
        found.append(similarity(*halves, [level(half, others) for half in halves]))
    assert People(embeddings, Labels.of(labels)).same_person() == pytest.approx(np.quantile(found, HALVES), abs=1e-5)
    few = People(embeddings[::3], Labels.of(labels[::3]))  # two images of each
    assert not len(few.alike(few.same_person()).left)


def test_a_set_of_two_identities_has_no_level():
    embeddings, labels = people_of(num_people=2)
    people = People(embeddings, Labels.of(labels))
    found = people.also_in(embeddings[:6], np.zeros(6, np.int64), 0.95)
    assert (found.left.tolist(), found.right.tolist()) == ([0], [0])
    assert found.similarity[0] == pytest.approx(1)


def test_people_of_another_set():
    embeddings, labels = people_of()
    others, person = people_of(num_people=4, images=3, seed=1)
    others[3:6] = embeddings[12:15]  # its person 1 is person 2 of the training set
    people = People(embeddings, Labels.of(labels))
    found = people.also_in(others, person, people.same_person())
    assert (found.left[0], found.right[0]) == (2, 1)
    centre = embeddings.astype(np.float64).mean(axis=0)
    units = centred(embeddings)
    means = [unit(units[labels == who].sum(axis=0)) for who in range(12)]
    other = [unit(sum(unit(row - centre) for row in others[person == who])) for who in range(4)]
    levels = [level(row, means) for row in other]
    expected = {
        (i, j)
        for i in range(12)
        for j in range(4)
        if similarity(means[i], other[j], [level_of(means, i), levels[j]]) >= 0.1
    }
    assert len(expected) > 3
    found = people.also_in(others, person, 0.1)
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == expected


def test_undefined_embeddings_suspect_nobody():
    embeddings, labels = people_of()
    embeddings[6:12] = np.nan
    people = People(embeddings, Labels.of(labels))
    found = people.alike(0.01)
    assert len(found.left) > 5
    assert 1 not in [*found.left.tolist(), *found.right.tolist()]
