"""Each augmentation of the device against loops over pixels, or against OpenCV."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
import torch

from sphereface.data.augment import ON_DEVICE, affine, augment, erase, grey, low_resolution, photometric
from sphereface.data.transforms import to_input
from sphereface.input_spec import InputSpec

from ..images import image as made_image


def crops(count: int = 3, size: tuple[int, int] = (14, 12)) -> torch.Tensor:
    """(k, 3, H, W) float32 in [0, 255], BGR."""
    images = np.stack([made_image(i, 0, size) for i in range(count)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def of(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_grey_is_the_luma_in_every_channel():
    images = crops()
    out = grey(images, torch.empty(3, 0))
    for n, y, x in itertools.product(range(3), range(14), range(12)):
        blue, green, red = images[n, :, y, x].tolist()
        assert out[n, :, y, x].tolist() == pytest.approx([0.299 * red + 0.587 * green + 0.114 * blue] * 3, abs=1e-3)


def test_photometric_pixel_by_pixel():
    images = crops()
    factors = [[1.3, 0.8, 0.5, 1.0], [0.7, 1.5, 1.4, 1.3], [1.9, 1.2, 1.0, 0.6]]
    out = photometric(images, of(*factors))
    cut = 0
    for n, (brightness, contrast, saturation, gamma) in enumerate(factors):
        plane = images[n].double().numpy()
        luma = 0.114 * plane[0] + 0.587 * plane[1] + 0.299 * plane[2]
        for c, y, x in itertools.product(range(3), range(14), range(12)):
            value = luma[y, x] + saturation * (plane[c, y, x] - luma[y, x])
            value = brightness * (luma.mean() + contrast * (value - luma.mean()))
            cut += not 0 <= value <= 255
            expected = 255 * (min(max(value, 0), 255) / 255) ** gamma
            assert out[n, c, y, x].item() == pytest.approx(expected, abs=0.02)
    assert cut > 20  # both ends of the range were met


@pytest.mark.parametrize("share", [0.25, 0.5, 0.61, 1.0])
def test_low_resolution_is_opencv_s_shrinking_and_enlarging(share):
    images = crops(2, (112, 96))
    out = low_resolution(images, of([share], [share]))
    height, width = round(112 * share), round(96 * share)
    for n in range(2):
        image = np.ascontiguousarray(images[n].permute(1, 2, 0).numpy())
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        expected = cv2.resize(small, (96, 112), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(out[n].permute(1, 2, 0).numpy(), expected, atol=0.02)


def test_each_image_has_its_own_resolution():
    images = crops(2)
    both = low_resolution(images, of([0.3], [0.8]))
    for n, share in enumerate([0.3, 0.8]):
        torch.testing.assert_close(both[n], low_resolution(images[n : n + 1], of([share]))[0])


@pytest.mark.parametrize(("degrees", "zoom"), [(20.0, 1.0), (0.0, 1.4), (-35.0, 0.7), (90.0, 1.0)])
def test_affine_pixel_by_pixel(degrees, zoom):
    images = crops(1)
    height, width = 14, 12
    angle = math.radians(degrees)
    out = affine(images, of([angle, zoom]))[0].double()
    for y, x in itertools.product(range(height), range(width)):
        right, up = x - (width - 1) / 2, (height - 1) / 2 - y
        # the place before: turned back, clockwise, and zoomed back
        before_right = (math.cos(angle) * right + math.sin(angle) * up) / zoom
        before_up = (-math.sin(angle) * right + math.cos(angle) * up) / zoom
        from_x = min(max(before_right + (width - 1) / 2, 0), width - 1)
        from_y = min(max((height - 1) / 2 - before_up, 0), height - 1)
        x0, y0 = min(int(from_x), width - 2), min(int(from_y), height - 2)
        dx, dy = from_x - x0, from_y - y0
        for c in range(3):
            corner = images[0, c].double()
            above = (1 - dx) * corner[y0, x0] + dx * corner[y0, x0 + 1]
            below = (1 - dx) * corner[y0 + 1, x0] + dx * corner[y0 + 1, x0 + 1]
            assert out[c, y, x].item() == pytest.approx(float((1 - dy) * above + dy * below), abs=0.01)


def test_erase_pixel_by_pixel():
    images = crops()
    boxes = [[0.0, 0.0, 0.5, 0.25], [0.31, 0.4, 0.76, 0.97], [0.5, 0.5, 1.0, 1.0]]
    out = erase(images, of(*boxes))
    for n, (top, left, bottom, right) in enumerate(boxes):
        for y, x in itertools.product(range(14), range(12)):
            inside = round(top * 14) <= y < round(bottom * 14) and round(left * 12) <= x < round(right * 12)
            expected = [127.5] * 3 if inside else images[n, :, y, x].tolist()
            assert out[n, :, y, x].tolist() == expected
    assert (out[0] == 127.5).all(0).sum() == 7 * 3


NEUTRAL = {
    "affine": ([0.0, 1.0], 1e-3),
    "low_resolution": ([1.0], 1e-3),
    "photometric": ([1.0, 1.0, 1.0, 1.0], 1e-3),
    "erase": ([0.3, 0.3, 0.3, 0.3], 0.0),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_strength_zero_leaves_the_image(name):
    images, (strengths, tolerance) = crops(), NEUTRAL[name]
    out = ON_DEVICE[name](images, of(*[strengths] * 3))
    assert (out - images).abs().max() <= tolerance


STRONG = {
    "affine": [2.0, 0.5],
    "low_resolution": [0.05],
    "photometric": [5.0, 5.0, 5.0, 0.2],
    "grey": [],
    "erase": [0.1, 0.1, 0.9, 0.9],
}


@pytest.mark.parametrize("name", ON_DEVICE)
def test_values_stay_those_of_bytes_and_what_comes_in_stays_as_it_is(name):
    noise = torch.from_numpy(np.random.default_rng(0).choice([0, 255], (4, 3, 112, 96))).float()
    noise = noise.contiguous(memory_format=torch.channels_last)
    before = noise.clone()
    out = ON_DEVICE[name](noise, of(*[STRONG[name]] * 4))
    assert (out.shape, out.dtype) == (noise.shape, torch.float32)
    assert out.min() >= 0
    assert out.max() <= 255.0001
    assert torch.equal(noise, before)


def test_only_the_selected_rows_change_and_in_the_order_of_the_recipe():
    images = crops(4)
    selected = {  # given in another order than they happen
        "erase": (torch.tensor([2]), of([0.0, 0.0, 0.5, 0.5])),
        "grey": (torch.tensor([1, 2]), torch.empty(2, 0)),
        "photometric": (torch.tensor([], dtype=torch.int64), torch.empty(0, 4)),
    }
    out = augment(images.clone(), selected)
    assert torch.equal(out[[0, 3]], images[[0, 3]])
    assert torch.equal(out[1], grey(images, None)[1])
    assert torch.equal(out[2], erase(grey(images, None), of(*[[0.0, 0.0, 0.5, 0.5]] * 4))[2])


def test_input_is_mirrored_then_augmented_then_normalised():
    images = torch.from_numpy(np.stack([made_image(i, 0, (14, 12)) for i in range(2)]))
    before = images.clone()
    selected = {"erase": (torch.tensor([1]), of([0.0, 0.0, 1.0, 0.25]))}
    out = to_input(images, InputSpec(), torch.tensor([False, True]), selected)
    assert torch.equal(images, before)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out[0], to_input(images, InputSpec())[0])
    assert (out[1, :, :, :3] == 0).all()  # middle grey, on the left after the mirror
    assert torch.equal(out[1, :, :, 3:], to_input(images, InputSpec())[1].flip(2)[:, :, 3:])
