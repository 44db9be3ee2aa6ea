"""From uniform numbers to strengths: ranges, ends, and what is off."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface.augmentation import Affine, Augment, Erase, Grey, Jpeg, LowResolution, Photometric

ENDS = (0.0, 0.5, 1 - 2**-24)  # the smallest, the middle and the largest number that is drawn


def strengths(kind, u: float) -> list[float]:
    return kind.strengths(np.full((1, kind.columns), u, dtype=np.float32))[0].tolist()


@pytest.mark.parametrize(
    ("kind", "low", "middle", "high"),
    [
        (Jpeg(1, quality=30), [30], [63], [95]),
        (Affine(1, degrees=30, scale=0.25), [-np.pi / 6, 0.8], [0, 1], [np.pi / 6, 1.25]),
        (LowResolution(1, scale=0.2), [0.2], [0.6], [1]),
        (Photometric(1, 1, 3, 0.25, 0), [0.5, 0.25, 0.8, 1], [1] * 4, [2, 4, 1.25, 1]),
    ],
)
def test_strengths_at_the_ends_and_in_the_middle(kind, low, middle, high):
    for u, expected in zip(ENDS, (low, middle, high), strict=True):
        assert strengths(kind, u) == pytest.approx(expected, abs=1e-5)


def test_no_strength_changes_nothing():
    for u in ENDS:
        assert strengths(Affine(1, degrees=0, scale=0), u) == [0, 1]
        assert strengths(LowResolution(1, scale=1), u) == [1]
        assert strengths(Photometric(1, brightness=0, contrast=0, saturation=0, gamma=0), u) == [1, 1, 1, 1]
        assert strengths(Jpeg(1, quality=95), u) == [95]
        assert strengths(Grey(1), u) == []


def test_a_box_lies_in_the_image_and_has_its_area():
    u = np.random.default_rng(0).random((5000, 4), dtype=np.float32)
    top, left, bottom, right = Erase(1, area=0.5).strengths(u).T
    assert min(top.min(), left.min()) >= 0
    assert max(bottom.max(), right.max()) <= 1 + 1e-6
    area, ratio = (bottom - top) * (right - left), (bottom - top) / (right - left)
    np.testing.assert_allclose(area, 0.02 + 0.48 * u[:, 0], rtol=1e-4)
    assert pytest.approx((area.min(), area.max()), abs=2e-3) == (0.02, 0.5)
    assert pytest.approx((ratio.min(), ratio.max()), abs=0.01) == (0.5, 2)


def test_nothing_is_on_by_default_and_one_alone_happens_to_all():
    assert Augment().enabled() == {}
    augment = Augment(grey=Grey(0.2), erase=Erase(0.1, area=0.3))
    assert list(augment.enabled()) == ["grey", "erase"]
    assert augment.only("erase") == Augment(erase=Erase(1.0, area=0.3))
