"""One order for any number of processes, and for identities that are to be seen more often."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sphereface.augmentation import Affine, Augment, Erase, Grey, Jpeg, LowResolution, Photometric
from sphereface.data.sampler import Augmentation, BatchOrder, Draw, identity_weights
from sphereface.errors import UserError

EVERYTHING = Augmentation(
    True, 2, Augment(Jpeg(0.3), Affine(0.3), LowResolution(0.3), Photometric(0.3), Grey(0.3), Erase(0.3))
)


def order(n: int = 50, batch: int = 12, **options) -> BatchOrder:
    return BatchOrder(n, batch, **{"seed": 3, "augmentation": EVERYTHING, **options})


def take(count: int, stream) -> list[Draw]:
    return list(itertools.islice(stream, count))


def by_place(draws: list[Draw]) -> list[tuple]:
    """All that is drawn for each place of the stream, as plain values."""
    places = []
    for draw in draws:
        for row, (index, mirror, shift) in enumerate(zip(draw.indices, draw.mirror, draw.shift, strict=True)):
            strengths = {
                name: strengths[rows.tolist().index(row)].tolist()
                for name, (rows, strengths) in draw.augment.items()
                if row in rows
            }
            places.append((int(index), bool(mirror), shift.tolist(), strengths))
    return places


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("start", [0, 7, 36, 100])
def test_ranks_together_see_the_batches_of_one(num_ranks, start):
    whole = by_place(take(9, iter(order())))[: 12 * 9]
    begun = by_place(take(16, iter(order())))[start : start + 12 * 6]
    if start == 0:
        assert begun == whole[: 12 * 6]
    ranks = [take(6, iter(order(start=start, rank=r, num_ranks=num_ranks))) for r in range(num_ranks)]
    assert all(len(draw.indices) == 12 // num_ranks for draws in ranks for draw in draws)
    together = [draw for draws in zip(*ranks, strict=True) for draw in draws]
    assert by_place(together) == begun


def test_a_pictures_randomness_is_of_seed_epoch_and_index_alone():
    small, large = by_place(take(25, iter(order(50, 2)))), by_place(take(1, iter(order(50, 50))))
    assert sorted(small, key=lambda place: place[0]) == sorted(large, key=lambda place: place[0])
    next_epoch = by_place([order(50, 50).draw(50)])
    other_seed = by_place([order(50, 50, seed=4).draw(0)])
    for other in (next_epoch, other_seed):
        assert sorted(other, key=lambda place: place[0]) != sorted(large, key=lambda place: place[0])


def test_the_numbers_of_a_picture_stand_at_its_index_in_a_stream_of_their_own():
    def stream(purpose: int) -> np.random.Generator:
        key, counter = np.array([3, 1], np.uint64), np.array([0, 0, 0, purpose], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    draw = order(50, 50).draw(50)  # epoch 1
    assert draw.indices.tolist() == stream(0).permutation(50).tolist()
    assert draw.mirror.tolist() == stream(1).integers(0, 2, 50)[draw.indices].astype(bool).tolist()
    assert draw.shift.tolist() == stream(2).integers(-2, 3, (50, 2))[draw.indices].tolist()
    uniforms = stream(16 + 4).random((50, 1), dtype=np.float32)[:, 0]
    assert sorted(draw.indices[draw.augment["grey"].rows]) == np.flatnonzero(uniforms < 0.3).tolist()


def test_one_augmentation_leaves_the_draws_of_the_others():
    alone = order(50, 50, augmentation=Augmentation(True, 2, Augment(erase=Erase(0.3)))).draw(0)
    together = order(50, 50).draw(0)
    np.testing.assert_array_equal(alone.mirror, together.mirror)
    np.testing.assert_array_equal(alone.shift, together.shift)
    for a, b in zip(alone.augment["erase"], together.augment["erase"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_happens_with_its_probability_and_apart_from_the_others():
    draw = order(20_000, 20_000).draw(0)
    happened = {name: np.isin(np.arange(20_000), rows) for name, (rows, _) in draw.augment.items()}
    assert len(happened) == 6
    for rows in happened.values():
        assert rows.mean() == pytest.approx(0.3, abs=0.015)
    for a, b in itertools.combinations(happened.values(), 2):
        assert (a & b).mean() == pytest.approx(0.09, abs=0.01)
    assert order(augmentation=Augmentation()).draw(0).augment == {}


def test_a_batch_that_cannot_be_shared_out():
    with pytest.raises(UserError, match=r"^train.batch_size: got 50 on 4 processes · allowed: a multiple of 4.*: 48$"):
        order(200, 50, num_ranks=4)


LABELS = np.repeat([0, 1, 2], [1, 9, 90])


def seen(balance: float, epochs: int = 40) -> np.ndarray:
    """How often each picture comes in an epoch, on average."""
    weights = identity_weights(LABELS, balance)
    stream = BatchOrder(100, 100, seed=0, augmentation=Augmentation(), weights=weights)
    return np.bincount(np.concatenate([stream.draw(100 * e).indices for e in range(epochs)]), minlength=100) / epochs


def test_balance_gives_identities_their_share():
    assert identity_weights(LABELS, 0) is None
    assert (seen(0) == 1).all()
    assert np.bincount(LABELS, seen(1)).tolist() == pytest.approx([100 / 3] * 3, rel=0.03)
    roots = np.sqrt([1, 9, 90])  # n pictures of n^−½ each
    assert np.bincount(LABELS, seen(0.5)).tolist() == pytest.approx((100 * roots / roots.sum()).tolist(), rel=0.06)


def test_balanced_pictures_come_as_often_as_they_should_or_once_less_or_more():
    weights = identity_weights(LABELS, 1)
    for epoch in range(5):
        stream = BatchOrder(100, 100, seed=9, augmentation=Augmentation(), weights=weights)
        counts = np.bincount(stream.draw(100 * epoch).indices, minlength=100)
        assert (np.abs(counts - weights) < 1 + 1e-9).all()


def test_over_the_epochs_every_picture_of_an_identity_comes():
    """Of 90 pictures 33 come in an epoch: others in the next."""
    np.testing.assert_allclose(seen(1, epochs=400), identity_weights(LABELS, 1), atol=0.1)


def test_a_picture_that_comes_twice_is_augmented_anew():
    stream = BatchOrder(100, 100, seed=0, augmentation=EVERYTHING, weights=identity_weights(LABELS, 1))
    ways = {str(place[1:]) for place in by_place([stream.draw(0)]) if place[0] == 0}
    assert len(ways) > 20
