"""Order, augmentation, batches and bad images of the training feed."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from sphereface.augmentation import Augment, Erase, Jpeg
from sphereface.data import loader
from sphereface.data.crops import CropBatches, check_sample, shifted
from sphereface.data.images import image_memory
from sphereface.data.loader import BadImages, batches
from sphereface.data.sampler import Augmentation, BatchOrder
from sphereface.data.sources import FolderSource
from sphereface.data.transforms import mirrored_without_waiting, to_input, to_pixels
from sphereface.errors import UserError
from sphereface.input_spec import InputSpec

from ..images import image, make_training_set, write


def order(n: int = 10, batch: int = 4, *, seed: int = 0, start: int = 0, shift: int = 2) -> BatchOrder:
    return BatchOrder(n, batch, seed=seed, augmentation=Augmentation(True, shift), start=start)


def take(count: int, stream) -> list:
    return list(itertools.islice(stream, count))


def test_every_epoch_holds_every_image_once():
    indices = np.concatenate([draw.indices for draw in take(15, iter(order()))])  # 60 positions: 6 epochs
    for epoch in indices.reshape(6, 10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert len({tuple(epoch) for epoch in indices.reshape(6, 10).tolist()}) == 6


def test_a_batch_spans_epochs_and_is_never_short():
    draws = take(6, iter(order()))
    assert all(len(d.indices) == len(d.mirror) == len(d.shift) == 4 for d in draws)


def test_starting_later_gives_the_same_batches():
    whole, tail = take(9, iter(order())), take(4, iter(order(start=5 * 4)))
    for a, b in zip(whole[5:], tail, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.mirror, b.mirror)
        np.testing.assert_array_equal(a.shift, b.shift)


def test_another_seed_is_another_order():
    a, b = next(iter(order(100, 50, seed=0))), next(iter(order(100, 50, seed=1)))
    assert a.indices.tolist() != b.indices.tolist()
    assert a.mirror.tolist() != b.mirror.tolist()


def test_an_images_randomness_is_its_own_whatever_the_batch_size():
    def by_image(batch: int) -> dict[int, tuple]:
        found = {}
        for draw in take(100 // batch, iter(order(100, batch))):
            for i, m, s in zip(draw.indices, draw.mirror, draw.shift, strict=True):
                found[int(i)] = (bool(m), *s.tolist())
        return found

    assert by_image(4) == by_image(50)


def test_half_are_mirrored_and_shifts_fill_their_range():
    draw = next(iter(order(4000, 4000, shift=3)))
    assert 0.45 < draw.mirror.mean() < 0.55
    assert set(np.unique(draw.shift)) == set(range(-3, 4))
    still = next(iter(BatchOrder(50, 50, seed=0, augmentation=Augmentation(False, 0))))
    assert not still.mirror.any()
    assert not still.shift.any()


def test_shift_moves_the_image_and_replicates_its_border():
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    moved = shifted(image, 2, -1)
    for y, x in itertools.product(range(5), range(4)):
        assert moved[y, x].tolist() == image[max(y - 2, 0), min(x + 1, 3)].tolist()
    np.testing.assert_array_equal(shifted(image, 0, 0), image)


def test_where_waiting_costs_time_the_number_of_mirrored_images_is_not_asked_for():
    images, mirror = torch.zeros(2, 5, 4, 3, dtype=torch.uint8), torch.tensor([False, True])
    assert to_input(images.to("meta"), InputSpec(), mirror.to("meta")).shape == (
        2,
        3,
        5,
        4,
    )  # which has no numbers to tell


def test_input_is_normalised_bgr_and_mirrored_where_asked():
    images = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    out = to_input(images, InputSpec(), torch.tensor([False, True]))
    assert out.shape == (2, 3, 5, 4)
    for b, c, y, x in itertools.product(range(2), range(3), range(5), range(4)):
        column = 3 - x if b == 1 else x
        assert out[b, c, y, x].item() == pytest.approx((int(images[b, y, column, c]) - 127.5) / 128)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_pixels(to_input(images, InputSpec()), InputSpec()), images.permute(0, 3, 1, 2).flip(1))


def test_shrunk_before_it_is_augmented():
    """Half the sides: means of four pixels, of the mirrored image; an erased box has the small image's pixels."""
    images = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    box = (torch.tensor([1]), torch.tensor([[0.0, 0.0, 0.5, 1.0]]))  # the upper half
    out = to_input(images, InputSpec(), torch.tensor([False, True]), {"erase": box}, (2, 3))
    assert out.shape == (2, 3, 2, 3)
    mean = images[0, 2:4, 4:6].double().mean((0, 1))
    torch.testing.assert_close(out[0, :, 1, 2].double(), (mean - 127.5) / 128, rtol=0, atol=1e-6)
    mean = images[1, 2:4, 0:2].double().mean((0, 1))  # mirrored: on the right
    torch.testing.assert_close(out[1, :, 1, 2].double(), (mean - 127.5) / 128, rtol=0, atol=1e-6)
    assert (out[1, :, 0] == 0).all()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 8])
def test_batches_do_not_depend_on_the_workers(tmp_path, workers, start):
    crops = CropBatches(FolderSource(make_training_set(tmp_path, 3, 4)), (112, 96))
    stream = batches(crops, order(12, 5, start=start), workers=workers, pin_memory=False)
    for batch, draw in zip(stream, take(9, iter(order(12, 5, start=start))), strict=False):  # more than there are slots
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == (draw.indices // 4).tolist()
        assert batch.mirror.tolist() == draw.mirror.tolist()
        for row, index in enumerate(draw.indices):
            expected = shifted(image(index // 4, index % 4), *draw.shift[row])
            np.testing.assert_array_equal(batch.images[row].numpy(), expected)
        assert batch.bad == []
        assert dict(batch.augment) == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_compression_is_done_before_the_shift_and_the_rest_is_left_to_the_device(tmp_path, workers):
    crops = CropBatches(FolderSource(make_training_set(tmp_path, 3, 4)), (112, 96))
    augmentation = Augmentation(True, 2, Augment(jpeg=Jpeg(0.5, quality=10), erase=Erase(0.5)))

    def stream_order() -> BatchOrder:
        return BatchOrder(12, 6, seed=1, augmentation=augmentation)

    stream = batches(crops, stream_order(), workers=workers, pin_memory=False)
    changed = 0
    for batch, draw in zip(stream, take(4, iter(stream_order())), strict=False):
        rows, qualities = draw.augment["jpeg"]
        for row, index in enumerate(draw.indices):
            expected, tolerance = image(index // 4, index % 4), 0.0
            if row in rows:
                quality = int(qualities[rows.tolist().index(row), 0])
                data = cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
                # OpenCV's encoder rounds otherwise: by 0.6 to 0.9 on average; five steps of quality make 3 to 11
                expected, tolerance = cv2.imdecode(data, cv2.IMREAD_COLOR), 1.2
                changed += 1
            expected = shifted(expected, *draw.shift[row].tolist())
            assert np.abs(batch.images[row].numpy().astype(int) - expected).mean() <= tolerance
        assert list(batch.augment) == ["erase"]
        for given, drawn in zip(batch.augment["erase"], draw.augment["erase"], strict=True):
            np.testing.assert_array_equal(given.numpy(), drawn)
    assert changed > 5


def test_the_batch_before_is_still_there(tmp_path):
    crops = CropBatches(FolderSource(make_training_set(tmp_path, 3, 4)), (112, 96))
    stream = batches(crops, order(12, 5), workers=1, pin_memory=False)
    before = next(stream)
    for _ in range(12):
        images = before.images.clone()
        batch = next(stream)
        time.sleep(0.02)  # the worker decodes as far ahead as it may
        assert torch.equal(before.images, images)
        before = batch


@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_lie_in_locked_memory_as_long_as_the_stream_is_open(tmp_path, monkeypatch, workers):
    locked = []

    @contextmanager
    def lock(memory):
        locked.append(range(memory.data_ptr(), memory.data_ptr() + memory.nbytes))
        try:
            yield
        finally:
            locked.clear()

    monkeypatch.setattr(loader, "pinned", lock)  # which needs CUDA
    crops = CropBatches(FolderSource(make_training_set(tmp_path, 3, 4)), (112, 96))
    plain = batches(crops, order(12, 5), workers=0, pin_memory=False)
    stream = batches(crops, order(12, 5), workers=workers, pin_memory=True)
    for other, batch in itertools.islice(zip(plain, stream, strict=False), 6):
        assert torch.equal(batch.images, other.images)
        assert batch.images.data_ptr() in locked[0]
    stream.close()
    assert not locked


def test_too_little_shared_memory_is_said_before_a_worker_dies_of_it(tmp_path, monkeypatch):
    crops = CropBatches(FolderSource(make_training_set(tmp_path, 2, 2)), (112, 96))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=500_000))
    stream = batches(crops, order(4, 4), workers=2, pin_memory=False)  # 6 batches of 4 × 32,256 bytes
    with pytest.raises(UserError, match=r"^data.workers: 6 batches .* take 1 MiB .*/dev/shm has 0 · .*--shm-size=1g"):
        next(stream)


def test_a_bad_image_is_named_and_replaced_by_the_next_whole_one(tmp_path):
    make_training_set(tmp_path, 2, 3)
    (tmp_path / "id00" / "001.png").write_bytes(b"")
    write(tmp_path / "id00" / "002.png", image(0, 2, (50, 40)))
    crops = CropBatches(FolderSource(tmp_path), (112, 96))
    order_of_six = BatchOrder(6, 6, seed=0, augmentation=Augmentation(False, 0))
    draw = order_of_six.draw(0)
    batch = next(batches(crops, order_of_six, workers=0, pin_memory=False))
    row = draw.indices.tolist().index(1)
    assert batch.labels[row].item() == 1  # the next whole image is of the next identity
    np.testing.assert_array_equal(batch.images[row].numpy(), image(1, 0))
    reasons = dict(batch.bad)
    assert "empty" in reasons[str(tmp_path / "id00" / "001.png")]
    assert "50×40 pixels (height × width), allowed: 112×96" in reasons[str(tmp_path / "id00" / "002.png")]


def test_an_image_that_vanished_is_replaced_too(tmp_path):
    make_training_set(tmp_path, 2, 2)
    crops = CropBatches(FolderSource(tmp_path), (112, 96))
    (tmp_path / "id01" / "000.png").unlink()
    batch = next(batches(crops, order(4, 4), workers=0, pin_memory=False))
    assert batch.bad[0][1] == "No such file or directory"


@pytest.mark.parametrize("workers", [0, 1])
def test_all_bad_ends_with_an_error_and_not_in_a_loop(tmp_path, workers):
    make_training_set(tmp_path, 2, 2)
    source = FolderSource(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    stream = batches(CropBatches(source, (112, 96)), order(4, 4), workers=workers, pin_memory=False)
    with pytest.raises(UserError, match=r"^data.train: 4 images in a row are unusable, the last: .*empty \(0 bytes\)$"):
        next(stream)


def test_the_sample_at_the_start_notices_another_size(tmp_path):
    crops = CropBatches(FolderSource(make_training_set(tmp_path, 2, 3, size=(120, 112))), (112, 96))
    with pytest.raises(UserError, match=r"6 of 6 sampled .*120×112 pixels .* allowed: 112×96.*input_size"):
        check_sample(crops)


def test_too_large_a_share_of_bad_images_stops_the_run():
    bad = BadImages(num_images=10_000, max_share=0.01)
    assert bad.add([("a", "empty"), ("b", "empty")], 500) == [
        "unusable image a: empty (another one takes its place)",
        "unusable image b: empty (another one takes its place)",
    ]
    assert bad.add([("a", "empty")], 900) == []  # known already
    bad.add([(f"c{i}", "empty") for i in range(8)], 1000)  # 10 of 1000: not above 1 %
    with pytest.raises(UserError, match=r"data.max_bad_share: 11 of 1000 .* more than 1.00%, the first: a: empty"):
        bad.add([("d", "empty")], 1000)


@pytest.mark.parametrize(("free", "slots"), [(400_000, 5 * 8 + 1), (300_000, 6)])
def test_batches_are_decoded_in_larger_tasks_where_shared_memory_has_room(tmp_path, monkeypatch, free, slots):
    """A batch of 4 images of 32×24 takes 9,216 bytes; 8 are a task, and five tasks and a batch in memory."""
    source = FolderSource(make_training_set(tmp_path, 2, 3, size=(32, 24)))
    alone = next(batches(CropBatches(source, (32, 24)), order(6, 4), workers=0, pin_memory=False))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    made = []
    real = loader._slots
    monkeypatch.setattr(loader, "_slots", lambda shape, *, shared: made.append(shape) or real(shape, shared=shared))
    first = next(batches(CropBatches(source, (32, 24)), order(6, 4), workers=2, pin_memory=False))
    assert made == [(slots, 4, 32, 24, 3)]
    assert torch.equal(first.images, alone.images)


@pytest.mark.parametrize(
    ("workers", "batch", "together"), [(1, 4, 8), (2, 100, 6), (2, 256, 2), (2, 512, 1), (2, 600, 1), (0, 100, 6)]
)
def test_a_task_is_the_batches_that_hold_512_images_at_most_8_and_at_least_one(monkeypatch, workers, batch, together):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**12 if workers else 0))
    assert loader._batches_a_task(workers, (batch, 32, 24, 3)) == together


@pytest.mark.parametrize("workers", [0, 1])
def test_whole_batches_of_a_task_come_before_the_one_that_failed(tmp_path, workers):
    source = FolderSource(make_training_set(tmp_path, 2, 2, (32, 24)))
    stream = batches(CropBatches(source, (32, 24)), order(4, 4), workers=workers, pin_memory=False)
    real, read = source.read, []

    def read_until_the_disk_goes(index: int) -> bytes:
        read.append(index)
        if len(read) > 8:
            raise OSError("gone")
        return real(index)

    source.read = read_until_the_disk_goes  # type: ignore[method-assign]
    assert [next(stream).bad, next(stream).bad] == [[], []]
    with pytest.raises(UserError, match=r"^data.train: 4 images in a row are unusable, the last: .*: gone$"):
        next(stream)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("size", [(112, 96), (112, 112)])
def test_no_row_is_aligned_to_32_bytes_where_the_decoder_would_write_past_the_cache(tmp_path, workers, size):
    source = FolderSource(make_training_set(tmp_path, 2, 3, size=size))
    stream = batches(CropBatches(source, size), order(6, 4), workers=workers, pin_memory=False)
    for batch in take(5, stream):
        assert {row.data_ptr() % 16 for image in batch.images for row in image} == {8}


def test_memory_for_images_is_zero_and_off_an_alignment_too():
    for shape in ((2, 112, 112, 3), (1, 1, 3), (0, 112, 96, 3)):
        memory = image_memory(shape)
        assert memory.shape == shape
        assert memory.dtype == np.uint8
        assert memory.flags.c_contiguous
        assert not memory.any()
        assert memory.ctypes.data % 32 == 8 or not memory.size


def test_devices_other_than_a_cpu_mirror_the_same_images():
    images = torch.randint(0, 256, (5, 8, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mirror, spec = torch.tensor([True, False, False, True, True]), InputSpec(8, 6)
    wanted = to_input(images, spec, mirror)
    there = mirrored_without_waiting(images.permute(0, 3, 1, 2), mirror)
    assert there.dtype == torch.uint8
    assert torch.equal((there - 127.5) / 128.0, wanted)
