"""The contact sheet of ``--dry-run``: which rows, and what they show."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface.augmentation import Augment, Erase, Grey, Jpeg
from sphereface.data.crops import CropBatches
from sphereface.data.sampler import Augmentation, BatchOrder
from sphereface.data.sources import open_source
from sphereface.training.augmentation_sheet import augmentation_sheet, rows_of

from ..images import image, make_training_set

SHOWN = Augmentation(True, 0, Augment(jpeg=Jpeg(0.01, quality=5), grey=Grey(0.5), erase=Erase(0.001)))


@pytest.fixture
def crops(tmp_path) -> CropBatches:
    return CropBatches(open_source(make_training_set(tmp_path, 4, 3, (40, 30))), (40, 30))


def test_a_row_for_each_augmentation_that_is_on():
    assert list(rows_of(SHOWN)) == ["original", "mirror", "jpeg", "grey", "erase", "as trained"]
    assert list(rows_of(Augmentation(False, 3))) == ["original", "crop_shift", "as trained"]
    assert list(rows_of(Augmentation(mirror=False))) == ["original", "as trained"]


def test_rows_show_the_same_images_and_what_happens_to_them(crops):
    sheet = augmentation_sheet(crops, SHOWN, seed=5)
    assert (sheet.shape, sheet.dtype) == ((6 * 44, 120 + 8 * 34, 3), np.uint8)
    cells = sheet[:, 120:].reshape(6, 44, 8, 34, 3).swapaxes(1, 2)[:, :, :40, :30].astype(int)
    original, mirror, jpeg, grey, erase, _ = cells
    order = BatchOrder(12, 8, seed=5, augmentation=Augmentation())
    for column, index in enumerate(order.draw(0).indices.tolist()):
        np.testing.assert_array_equal(original[column], image(index // 3, index % 3, (40, 30)))
        flipped = original[column][:, ::-1] if order.draw(0).mirror[column] else original[column]
        np.testing.assert_array_equal(mirror[column], flipped)
        assert np.ptp(grey[column], axis=-1).max() == 0
        assert np.ptp(original[column], axis=-1).max() > 0
        assert (erase[column] == 128).all(-1).sum() >= 0.02 * 1200 - 12
        assert 0.5 < np.abs(jpeg[column] - original[column]).mean() < 30
    assert (sheet[:40, :120] < 128).any()  # a label
