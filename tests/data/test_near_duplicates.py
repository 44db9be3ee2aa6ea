"""Near-duplicates by a perceptual hash: what it is blind to, what it sees, and neighbours against a plain loop."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sphereface.data.near_duplicates import BITS, distances, find_links, groups_of, perceptual_hash
from sphereface.data.suspicions import names


def smooth_image(seed):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (14, 12, 3), dtype=np.uint8), (96, 112), interpolation=cv2.INTER_CUBIC)


def bits_apart(a, b):
    return sum((int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True))


def compressed(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    "change",
    [
        compressed,
        lambda image: cv2.resize(image, (48, 56), interpolation=cv2.INTER_AREA),
        lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=10),
    ],
    ids=["compressed again", "half as large", "brighter"],
)
def test_the_hash_hardly_changes_with_the_file(change):
    for seed in range(5):
        image = smooth_image(seed)
        assert bits_apart(perceptual_hash(image), perceptual_hash(change(image))) <= 12


def test_other_images_and_the_mirror_image_are_far_apart():
    image = smooth_image(0)
    assert bits_apart(perceptual_hash(image), perceptual_hash(smooth_image(1))) > 30
    assert bits_apart(perceptual_hash(image), perceptual_hash(image[:, ::-1])) > 30


def test_the_brightness_of_a_blank_image_does_not_matter():
    black, grey = (perceptual_hash(np.full((112, 96, 3), level, np.uint8)) for level in (0, 130))
    assert bits_apart(black, grey) == 0


def test_distances_count_bits():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**64, (2, 50, 2), dtype=np.uint64)
    assert distances(a, b).tolist() == [bits_apart(x, y) for x, y in zip(a, b, strict=True)]


def clusters(num, radius, seed):
    """Hashes with neighbours on both sides of the radius: each is an earlier one with some bits changed."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (num, BITS), dtype=np.uint8)
    for row in range(num // 3 + 1, num):
        bits[row] = bits[rng.integers(0, row)]
        changed = rng.choice(BITS, rng.integers(0, 2 * radius + 2), replace=False)
        bits[row, changed] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


def groups_by_loop(hashes, radius):
    group = list(range(len(hashes)))
    for i in range(len(hashes)):
        for j in range(i):
            if bits_apart(hashes[i], hashes[j]) <= radius and group[i] != group[j]:
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    members = {}
    for row, g in enumerate(group):
        members.setdefault(g, []).append(row)
    return sorted(rows for rows in members.values() if len(rows) > 1)


@pytest.mark.parametrize(("num", "radius"), [(120, 12), (150, 3), (90, 0), (60, 30), (2, 12), (1, 12), (0, 12)])
def test_groups_are_those_of_a_plain_loop(num, radius):
    for seed in range(3):
        hashes = clusters(num, radius, seed)
        links = find_links(hashes, radius)
        found = groups_of(links)
        assert [rows for rows, _ in found] == groups_by_loop(hashes, radius)
        assert links.distance.tolist() == [bits_apart(hashes[i], hashes[j]) for i, j in zip(*links[:2], strict=True)]
        assert all(distance <= radius for _, distance in found)
        assert len(links.left) <= max(num - 1, 0) * 20  # links, and not all pairs


def test_ten_thousand_equal_hashes_are_one_group():
    hashes = np.repeat(clusters(1, 12, 0), 10_000, axis=0)
    links = find_links(hashes, 12)
    assert len(links.left) == 9_999
    assert groups_of(links) == [(list(range(10_000)), 0)]


def test_a_large_group_names_its_first_images_and_their_number():
    class Numbers:
        def name(self, index):
            return f"a/{index}.jpg"

    assert names(Numbers(), [3, 1]) == "a/3.jpg ≈ a/1.jpg"
    assert names(Numbers(), range(5)).endswith("a/3.jpg ≈ a/4.jpg")
    assert names(Numbers(), range(4000)) == "a/0.jpg ≈ a/1.jpg ≈ a/2.jpg ≈ a/3.jpg ≈ a/4.jpg ≈ 3,995 more"
