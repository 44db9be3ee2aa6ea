import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from sphereface.errors import UserError
from sphereface.evaluation.embed import embed_files, map_ahead
from sphereface.input_spec import InputSpec

from .crops import Pixels, Projection, noise, write_image

SIZE = (32, 24)


def as_input(image):
    """What the network should be given, by the recipe: BGR, CHW, (pixel − 127.5) / 128."""
    return (image.astype(np.float64).transpose(2, 0, 1) - 127.5) / 128


def images(folder, count):
    return [write_image(folder / f"{k}.png", noise(k, *SIZE)) for k in range(count)]


def embed(model, files, **options):
    model.input_spec = InputSpec(*SIZE)
    return embed_files(model, files, **{"device": "cpu", **options})


def test_image_and_mirror_image_are_joined_in_the_order_of_the_files(tmp_path):
    features = embed(Pixels(), images(tmp_path, 7), batch_size=3)
    assert features.dtype == np.float32
    assert features.shape == (7, 2 * 3 * 32 * 24)
    for k, row in enumerate(features):
        x = as_input(noise(k, *SIZE))
        expected = np.concatenate([x.ravel(), x[:, :, ::-1].ravel()])
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_without_flip_only_the_image(tmp_path):
    files = images(tmp_path, 3)
    both, plain = embed(Pixels(), files), embed(Pixels(), files, flip=False)
    assert plain.shape == (3, 3 * 32 * 24)
    np.testing.assert_array_equal(plain, both[:, : plain.shape[1]])


def test_the_mirror_half_is_the_embedding_of_the_mirrored_file(tmp_path):
    model = Projection(3 * 32 * 24)
    image = noise(5, *SIZE)
    files = [write_image(tmp_path / "a.png", image), write_image(tmp_path / "b.png", image[:, ::-1])]
    a, b = embed(model, files)
    np.testing.assert_allclose(a, np.concatenate([b[8:], b[:8]]), atol=1e-6)
    assert not np.allclose(a[:8], a[8:])


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (2, 3), (5, 2), (64, None)])
def test_batches_and_threads_change_nothing(tmp_path, batch_size, workers):
    model, files = Projection(3 * 32 * 24), images(tmp_path, 9)
    expected = embed(model, files, batch_size=9, workers=1)
    np.testing.assert_allclose(embed(model, files, batch_size=batch_size, workers=workers), expected, atol=1e-6)


def test_bf16_is_close_and_comes_back_as_float32(tmp_path):
    model, files = Projection(3 * 32 * 24), images(tmp_path, 4)
    full, half = embed(model, files), embed(model, files, precision="bf16")
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, atol=0.05)


def test_each_module_is_left_in_the_mode_it_was_in(tmp_path):
    model = nn.Sequential(Pixels(), nn.BatchNorm1d(3 * 32 * 24), nn.Dropout(0.5))
    model.train()
    model[1].eval()  # frozen statistics, say
    first = embed(model, images(tmp_path, 2))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    np.testing.assert_array_equal(first, embed(model, images(tmp_path, 2)))


def test_a_network_that_fails_leaves_the_mode_too(tmp_path):
    model = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="shapes"):
        embed(model, images(tmp_path, 2))
    assert model.training


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (32, 32, slice(0, 32), slice(4, 28)),  # as 112×112 to 112×96: as much from the left as from the right
        (32, 25, slice(0, 32), slice(0, 24)),
        (36, 24, slice(2, 34), slice(0, 24)),
    ],
)
def test_a_crop_too_long_one_way_is_cut_to_its_centre(tmp_path, height, width, rows, columns):
    image = noise(1, height, width)
    (row,) = embed(Pixels(), [write_image(tmp_path / "a.png", image)], flip=False)
    np.testing.assert_allclose(row, as_input(image[rows, columns]).ravel(), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(31, 24), (32, 23), (33, 25), (24, 32), (250, 250)])
def test_any_other_size_is_an_error_that_names_the_file(tmp_path, height, width):
    files = [*images(tmp_path, 1), write_image(tmp_path / "other.png", noise(1, height, width))]
    expected = rf"1 of 2 .*\n  - .*other\.png: {height}×{width} pixels .*, allowed: 32×24"
    with pytest.raises(UserError, match=expected):
        embed(Pixels(), files)


# ---------------------------------------------------------------- unreadable files


def test_unreadable_files_are_listed_with_their_reasons(tmp_path):
    files = images(tmp_path, 5)
    files[1].write_bytes(b"")
    files[3].write_bytes(b"no image")
    files.append(tmp_path / "absent.png")
    with pytest.raises(UserError) as error:
        embed(Pixels(), files, batch_size=2)
    first, empty, text, absent = str(error.value).splitlines()
    assert first == "3 of 6 images cannot be used:"
    assert empty.startswith(f"  - {files[1]}: ")
    assert "empty" in empty
    assert text.startswith(f"  - {files[3]}: ")
    assert text.endswith("not an image, or damaged · allowed: JPEG, PNG, BMP, WebP, PGM, PPM, HEIC")
    assert absent.startswith(f"  - {files[5]}: ")
    assert "No such file" in absent


def test_only_ten_of_them_are_listed(tmp_path):
    with pytest.raises(UserError) as error:
        embed(Pixels(), [tmp_path / f"{k:02d}.png" for k in range(13)], batch_size=4)
    lines = str(error.value).splitlines()
    assert lines[0] == "13 of 13 images cannot be used:"
    assert [f"{k:02d}.png" in line for k, line in enumerate(lines[1:11])] == [True] * 10
    assert lines[11:] == ["  … and 3 more"]


def test_a_jpeg_that_ends_early_is_not_filled_with_grey(tmp_path):
    data = cv2.imencode(".jpg", noise(1, *SIZE))[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="truncated JPEG"):
        embed(Pixels(), [tmp_path / "cut.jpg"])


# ---------------------------------------------------------------- reading ahead


def test_reading_ahead_is_bounded():
    given = []

    def items():
        for item in range(100):
            given.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda item: -item, items(), ahead=3)
        assert next(results) == 0
        assert given == [0, 1, 2, 3]
        assert [next(results), next(results)] == [-1, -2]
        assert given == [0, 1, 2, 3, 4, 5]
        assert list(results) == [-item for item in range(3, 100)]


def test_gradients_are_off(tmp_path):
    seen = []

    class Watching(Pixels):
        def forward(self, x):
            seen.append(torch.is_inference_mode_enabled())
            return super().forward(x)

    embed(Watching(), images(tmp_path, 2))
    assert seen == [True]


def test_a_fifo_among_the_images_is_listed_and_not_waited_for(tmp_path):
    files = images(tmp_path, 2)
    os.mkfifo(tmp_path / "waits.png")
    with pytest.raises(UserError, match=r"1 of 3 images cannot be used:\n  - .*waits.png: .*not a regular file"):
        embed(Pixels(), [*files, tmp_path / "waits.png"])
