"""One order for any number of processes, and for identities that are to be seen more often."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from sphereface.augmentation import Affine, Augment, Erase, Grey, Jpeg, LowResolution, Photometric
from sphereface.data.sampler import Augmentation, Balance, BatchOrder, Draw
from sphereface.errors import UserError

from . import order_oracle as oracle

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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("start", [0, 7, 36, 100])
def test_ranks_together_see_the_batches_of_one(num_ranks, start, version):
    whole = by_place(take(9, iter(order(version=version))))[: 12 * 9]
    begun = by_place(take(16, iter(order(version=version))))[start : start + 12 * 6]
    if start == 0:
        assert begun == whole[: 12 * 6]
    ranks = [take(6, iter(order(start=start, rank=r, num_ranks=num_ranks, version=version))) for r in range(num_ranks)]
    assert all(len(draw.indices) == 12 // num_ranks for draws in ranks for draw in draws)
    together = [draw for draws in zip(*ranks, strict=True) for draw in draws]
    assert by_place(together) == begun


@pytest.mark.parametrize("version", [1, 2])
def test_batches_are_the_same_in_whatever_order_they_are_asked_for(version):
    stream = order(version=version)
    for start in (60, 0, 130, 48, 0):  # epochs 1, 0, 2, 0 and 1, 0
        assert by_place([stream.draw(start)]) == by_place([order(version=version).draw(start)])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_draws_made_together_are_those_made_one_by_one(version, num_ranks):
    stream = order(500, version=version, rank=num_ranks - 1, num_ranks=num_ranks, start=7)
    drawn = take(100, iter(stream))  # 1,200 places: more than two epochs
    assert by_place(drawn) == by_place([stream.draw(7 + 12 * number) for number in range(100)])


def test_an_images_randomness_is_of_seed_epoch_and_index_alone():
    small, large = by_place(take(25, iter(order(50, 2)))), by_place(take(1, iter(order(50, 50))))
    assert sorted(small, key=lambda place: place[0]) == sorted(large, key=lambda place: place[0])
    next_epoch = by_place([order(50, 50).draw(50)])
    other_seed = by_place([order(50, 50, seed=4).draw(0)])
    for other in (next_epoch, other_seed):
        assert sorted(other, key=lambda place: place[0]) != sorted(large, key=lambda place: place[0])


def test_all_that_is_drawn_is_what_the_oracle_draws():
    draw, slots = order(50, 50).draw(50), [oracle.slot(3, 1, place, 50) for place in range(50)]  # epoch 1
    assert draw.indices.tolist() == slots
    assert draw.mirror.tolist() == [oracle.word(3, 1, 1, slot) >= 2**63 for slot in slots]
    shifts = [[oracle.word(3, 1, 2, slot, column, 2) // 2**32 * 5 // 2**32 - 2 for column in (0, 1)] for slot in slots]
    assert draw.shift.tolist() == shifts
    for name, purpose, columns in (("grey", 20, 1), ("erase", 21, 5)):
        drawn = [
            [oracle.word(3, 1, purpose, slot, c, columns) // 2**40 / 2**24 for c in range(columns)] for slot in slots
        ]
        rows = [row for row, numbers in enumerate(drawn) if numbers[0] < np.float32(0.3)]
        assert draw.augment[name].rows.tolist() == rows
        expected = getattr(EVERYTHING.augment, name).strengths(np.array(drawn, np.float32)[rows, 1:])
        np.testing.assert_array_equal(draw.augment[name].strengths, expected)


def test_the_order_of_earlier_builds_is_kept_number_for_number():
    def stream(purpose: int) -> np.random.Generator:
        key, counter = np.array([3, 1], np.uint64), np.array([0, 0, 0, purpose], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    draw = order(50, 50, version=1).draw(50)  # epoch 1
    assert draw.indices.tolist() == stream(0).permutation(50).tolist()
    assert draw.mirror.tolist() == stream(1).integers(0, 2, 50)[draw.indices].astype(bool).tolist()
    assert draw.shift.tolist() == stream(2).integers(-2, 3, (50, 2))[draw.indices].tolist()
    uniforms = stream(16 + 4).random((50, 1), dtype=np.float32)[:, 0]
    assert sorted(draw.indices[draw.augment["grey"].rows]) == np.flatnonzero(uniforms < 0.3).tolist()


def test_the_balance_of_earlier_builds_is_kept_number_for_number():
    def philox(purpose: int) -> np.random.Generator:
        key, counter = np.array([3, 1], np.uint64), np.array([0, 0, 0, purpose], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    weights = np.bincount(LABELS)[LABELS] ** -0.7
    ends = np.cumsum(weights / weights.mean())
    strokes = (np.arange(100) + philox(3).random()) * (ends[-1] / 100)
    expected = np.searchsorted(ends, strokes, side="right")[philox(0).permutation(100)]
    draw = BatchOrder(100, 100, seed=3, augmentation=Augmentation(), balance=balance(0.7), version=1).draw(100)
    assert draw.indices.tolist() == expected.tolist()


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


COUNTS = [1, 9, 90]
LABELS = np.repeat([0, 1, 2], COUNTS)
VERSIONS = pytest.mark.parametrize("version", [1, 2])


def balance(strength: float) -> Balance | None:
    return Balance(np.array([0, 1, 10, 100]), strength) if strength else None


def weights(strength: float) -> np.ndarray:
    """Of each image, relative to the mean."""
    each = np.array([count**-strength for count in COUNTS for _ in range(count)])
    return each / each.mean()


def seen(strength: float, version: int, epochs: int = 40) -> np.ndarray:
    """How often each image comes in an epoch, on average."""
    stream = BatchOrder(100, 100, seed=0, augmentation=Augmentation(), balance=balance(strength), version=version)
    return np.bincount(np.concatenate([stream.draw(100 * e).indices for e in range(epochs)]), minlength=100) / epochs


@VERSIONS
def test_balance_gives_identities_their_share(version):
    assert (seen(0, version) == 1).all()
    assert np.bincount(LABELS, seen(1, version)).tolist() == pytest.approx([100 / 3] * 3, rel=0.03)
    roots = np.sqrt([1, 9, 90])  # n images of n^−½ each
    found = np.bincount(LABELS, seen(0.5, version)).tolist()
    assert found == pytest.approx((100 * roots / roots.sum()).tolist(), rel=0.06)


@VERSIONS
@pytest.mark.parametrize("strength", [0.3, 1])
def test_balanced_images_come_as_often_as_they_should_or_once_less_or_more(version, strength):
    for epoch in range(20):
        stream = BatchOrder(100, 100, seed=9, augmentation=Augmentation(), balance=balance(strength), version=version)
        counts = np.bincount(stream.draw(100 * epoch).indices, minlength=100)
        assert (np.abs(counts - weights(strength)) < 1 + 1e-9).all()


def test_balanced_images_are_those_of_the_oracle():
    stream = BatchOrder(100, 100, seed=3, augmentation=Augmentation(), balance=balance(0.7))
    offset = (oracle.key_words(3, 1, 3, 1)[0] >> 11) / 2**53
    expected = [oracle.balanced(COUNTS, 0.7, oracle.slot(3, 1, place, 100), offset) for place in range(100)]
    assert stream.draw(100).indices.tolist() == expected


def test_balance_of_equal_identities_is_every_image_once():
    equal = Balance(np.arange(0, 1001, 10), 1.0)
    draw = BatchOrder(1000, 1000, seed=1, augmentation=Augmentation(), balance=equal).draw(0)
    assert np.sort(draw.indices).tolist() == list(range(1000))


@VERSIONS
def test_over_the_epochs_every_image_of_an_identity_comes(version):
    """Of 90 images 33 come in an epoch: others in the next."""
    np.testing.assert_allclose(seen(1, version, epochs=400), weights(1), atol=0.1)


@VERSIONS
def test_an_image_that_comes_twice_is_augmented_anew(version):
    stream = BatchOrder(100, 100, seed=0, augmentation=EVERYTHING, balance=balance(1), version=version)
    ways = {str(place[1:]) for place in by_place([stream.draw(0)]) if place[0] == 0}
    assert len(ways) > 20


def cells(one: np.ndarray, other: np.ndarray) -> float:
    """How far from evenly two numbers in [0, 10,000) fill 10 × 10 cells, in standard deviations of χ²."""
    counts = np.zeros((10, 10))
    np.add.at(counts, (one // 1000, other // 1000), 1)
    return (((counts - 100) ** 2 / 100).sum() - 81) / np.sqrt(2 * 81)  # the sums of rows and columns are given


def test_orders_of_epochs_and_seeds_have_nothing_to_do_with_each_other():
    stream = BatchOrder(10_000, 10_000, seed=0, augmentation=Augmentation())
    epochs = [stream.draw(10_000 * epoch).indices for epoch in range(6)]
    seeds = [BatchOrder(10_000, 10_000, seed=s, augmentation=Augmentation()).draw(0).indices for s in range(1, 6)]
    for one, other in itertools.combinations([*epochs, *seeds], 2):
        assert abs(cells(one, other)) < 4
        assert np.abs((one == other).sum() - 1) < 6  # equal at one place in 10,000


def test_batches_have_nothing_to_do_with_the_order_of_identities():
    """The place in the stream against the image, and how many pairs of one identity a batch has."""
    stream = BatchOrder(10_000, 100, seed=0, augmentation=Augmentation())
    epoch = np.concatenate([stream.draw(start).indices for start in range(0, 10_000, 100)])
    assert abs(cells(np.arange(10_000), epoch)) < 4
    identities = epoch.reshape(100, 100) // 50  # 200 of 50 images
    pairs = np.array([sum(n * (n - 1) // 2 for n in np.bincount(batch)) for batch in identities])
    mean = 4950 * 49 / 9999  # pairs in a batch × the chance that the second is of the first's identity
    assert abs(pairs.mean() - mean) < 4 * np.sqrt(mean / 100)


def test_mirrors_are_even_and_have_nothing_to_do_with_the_shift_or_the_epoch():
    stream = BatchOrder(10_000, 10_000, seed=0, augmentation=EVERYTHING)
    one, other = (stream.draw(start) for start in (0, 10_000))
    by_image = [draw.mirror[np.argsort(draw.indices)] for draw in (one, other)]
    for mirror in by_image:
        assert abs(mirror.mean() - 0.5) < 0.02
    assert abs((by_image[0] == by_image[1]).mean() - 0.5) < 0.02
    counts = np.zeros((2, 5, 5))
    np.add.at(counts, (one.mirror.astype(int), one.shift[:, 0] + 2, one.shift[:, 1] + 2), 1)
    assert abs(((counts - 200) ** 2 / 200).sum() - 49) < 4 * np.sqrt(2 * 49)


def test_a_new_epoch_costs_what_any_batch_costs_whatever_the_number_of_images():
    """Nothing of the length of 42.5 million is made: the first batch of an epoch fits into 1 MB."""
    tracemalloc.start()
    stream = BatchOrder(42_500_000, 512, seed=0, augmentation=EVERYTHING)
    stream.draw(42_500_000 - 256)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20
