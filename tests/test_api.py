"""``FaceEmbedder``: the same numbers from a path, bytes and pixels, equal to the evaluation's, and clear refusals."""

from __future__ import annotations

import itertools
import shutil
import time
import weakref

import cv2
import numpy as np
import pytest
import torch

import sphereface
from sphereface.alignment.similarity import align, template
from sphereface.api import FaceEmbedder, UnusableImage
from sphereface.checkpoint import sha256_of
from sphereface.errors import UserError
from sphereface.evaluation import Embedder, embed_files
from sphereface.evaluation.calibration import Calibration, Threshold, calibration_path, write_calibration
from sphereface.models import load_model

from .alignment.faces import ByColour, encode
from .evaluation.checkpoints import write_checkpoint
from .evaluation.crops import noise, write_image


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.pt", input_size=(112, 96))


@pytest.fixture(scope="module")
def crops():
    return np.stack([noise(k, 112, 96) for k in range(5)])


@pytest.fixture
def aligned(checkpoint):
    return FaceEmbedder(checkpoint, align=False, device="cpu", batch_size=2)


def test_embeddings_are_those_of_the_evaluation_as_unit_vectors(checkpoint, crops, aligned, tmp_path):
    files = [write_image(tmp_path / f"{k}.png", crop) for k, crop in enumerate(crops)]
    model = load_model(checkpoint).model
    for flip in (True, False):
        e = FaceEmbedder(checkpoint, align=False, flip=flip, device="cpu", batch_size=2)
        wanted = embed_files(model, files, device="cpu", flip=flip).astype(np.float64)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        found = e.embed(files)
        assert found.dtype == np.float32
        assert found.shape == (5, e.dim) == (5, 32 if flip else 16)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    by_hand = model(torch.from_numpy((crops[:1].transpose(0, 3, 1, 2) - np.float32(127.5)) / np.float32(128)))
    by_hand = by_hand[0].detach().numpy() / by_hand.norm().item()
    np.testing.assert_allclose(found[0], by_hand, atol=1e-6)


def test_what_the_caller_set_for_torch_changes_nothing(checkpoint, crops, aligned):
    wanted = aligned.embed_crops(crops)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(aligned.embed_crops(crops), wanted)
    try:
        for dtype in (torch.float64, torch.bfloat16):
            torch.set_default_dtype(dtype)
            own = FaceEmbedder(checkpoint, align=False, device="cpu")
            np.testing.assert_array_equal(own.embed_crops(crops), wanted)
    finally:
        torch.set_default_dtype(torch.float32)


def test_paths_bytes_and_pixels_are_one_image(crops, aligned, tmp_path):
    path = write_image(tmp_path / "a.png", crops[0])
    found = aligned.embed(
        [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), crops[0], np.asfortranarray(crops[0])]
    )
    assert (np.abs(found - found[0]) < 1e-6).all()
    np.testing.assert_array_equal(aligned.embed(crops), aligned.embed(list(crops)))


def test_a_wider_crop_is_cut_to_its_middle(crops, aligned):
    wide = cv2.copyMakeBorder(crops[0], 0, 0, 8, 8, cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(aligned.embed([wide]), aligned.embed([crops[0]]), atol=1e-6)


def test_nothing_in_gives_nothing_out(aligned):
    assert aligned.embed([]).shape == (0, 32)


def test_photographs_are_searched_and_aligned(checkpoint):
    e = FaceEmbedder(checkpoint, detector=ByColour(), device="cpu")
    photograph = ByColour.image((200, 160), [(80, 100), (20, 30)])
    face = e.face(photograph)
    assert face.num_faces == 2
    points = np.array([80, 100]) + (template() - template().mean(axis=0)) / 4
    np.testing.assert_array_equal(face.crop, align(photograph, np.round(points, 2)))
    aligned = FaceEmbedder(checkpoint, align=False, device="cpu")
    np.testing.assert_allclose(e.embed([encode(photograph, ".png")]), aligned.embed([face.crop]), atol=1e-6)
    shifted = FaceEmbedder(checkpoint, detector=ByColour(), device="cpu", template_origin=1).face(photograph).crop
    assert (shifted != face.crop).any()
    assert "template origin 0, with mirror images" in e.settings
    assert e.settings != aligned.settings


def test_the_chosen_face_is_the_one_asked_for(checkpoint):
    class Two(ByColour):
        def __call__(self, image):
            faces = super().__call__(image)
            faces.boxes[faces.boxes[:, 0] < 40] += [-9, -9, 9, 9]  # the one aside is larger
            return faces

    photograph = ByColour.image((200, 160), [(80, 100), (30, 40)])
    crops = {
        pick: FaceEmbedder(checkpoint, detector=Two(), pick=pick).face(photograph).crop
        for pick in ("centre", "largest")
    }
    only = {"centre": (80, 100), "largest": (30, 40)}
    for pick, middle in only.items():
        points = np.array(middle) + (template() - template().mean(axis=0)) / 4
        np.testing.assert_array_equal(crops[pick], align(photograph, np.round(points, 2)))


def test_what_cannot_be_used_is_named_with_its_reason(checkpoint, tmp_path):
    e = FaceEmbedder(checkpoint, detector=ByColour(), device="cpu", batch_size=2)
    good = ByColour.image((120, 100), [(50, 60)])
    empty = ByColour.image((120, 100), [])
    (tmp_path / "text.jpg").write_text("no image")
    result = e.try_embed([good, empty, tmp_path / "text.jpg", tmp_path / "none.jpg", good, b""])
    assert result.rows.tolist() == [0, 4]
    assert e.try_embed([empty, good]).rows.tolist() == [1]
    np.testing.assert_allclose(result.embeddings[0], result.embeddings[1], atol=1e-6)
    assert result.problems == {
        1: "image 1: no face found in 100x120 pixels, with or without a border",
        2: f"{tmp_path / 'text.jpg'}: not an image, or damaged · allowed: JPEG, PNG, BMP, WebP, PGM, PPM, HEIC",
        3: f"{tmp_path / 'none.jpg'}: cannot be read (No such file or directory)",
        5: "image 5: the file is empty (0 bytes)",
    }
    with pytest.raises(UnusableImage, match="^2 of 3 images cannot be used:\n  - image 1: no face .*\n  - image 2: "):
        e.embed([good, empty, b""])
    with pytest.raises(UnusableImage, match="^image 0: no face found"):
        e.embed([empty])
    with pytest.raises(UnusableImage, match="^image: no face found"):
        e.face(empty)


def test_wrong_arguments_are_one_line(checkpoint, crops, aligned):
    for single in ("a.jpg", b"", bytearray(b"x"), crops[0]):
        with pytest.raises(UserError, match="images: got a single image · allowed: a list"):
            aligned.embed(single)
    for strange in (None, 3, 1.5, {"a": 1}, ["a.png"]):
        with pytest.raises(
            UnusableImage, match=r"^image 0: got .* · allowed: the path of a file, its bytes, or its pixels"
        ):
            aligned.embed([strange])
    for strange in (3, np.array(3)):
        with pytest.raises(UserError, match=r"images: got .*3.* · allowed: a list of images"):
            aligned.embed(strange)
    with pytest.raises(UserError, match="images: got .* · allowed: a list of images, as in embed.list.images.values"):
        aligned.embed({"a": crops[0]})
    for unordered in ({"a.png", "b.png"}, frozenset({"a.png"})):
        with pytest.raises(UserError, match="images: got a set, which has no order · allowed: a list of images, as in"):
            aligned.embed(unordered)
    with (
        checkpoint.open("rb") as file,
        pytest.raises(UserError, match="images: got .*, an open file · allowed: a list"),
    ):
        aligned.embed(file)
    for wrong in (crops[0].astype(np.float32), crops[0, :, :, 0], crops[0, :0]):
        with pytest.raises(UnusableImage, match=r"got an array .* · allowed: \(H, W, 3\) uint8, BGR"):
            aligned.embed([wrong])
    with pytest.raises(UnusableImage, match=r"50×50 pixels .*, allowed: 112×96 · a photograph\? omit --aligned"):
        aligned.embed([noise(0, 50, 50)])
    for options, message in (
        ({"pick": "smallest"}, "pick: got 'smallest' · allowed: centre, largest"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 2.5}, "batch_size: got 2.5 · allowed: a whole number"),
        ({"batch_size": True}, "batch_size: got True"),
        ({"batch_size": "8"}, "batch_size: got '8'"),
        ({"template_origin": 2}, "template_origin: got 2"),
        ({"device": "tpu"}, "got 'tpu'"),
        ({"calibration": "none.json"}, "none.json: cannot be read"),
        ({"calibration": 5}, "calibration: got 5 · allowed: the path of a file"),
        ({"device": None}, "device: got None · allowed: "),
        ({"detector": "mtcnn"}, "detector: got 'mtcnn' · allowed: "),
        ({"flip": "false"}, "flip: got 'false' · allowed: True, False"),
        ({"align": "no"}, "align: got 'no' · allowed: True, False"),
        ({"flip": None}, "flip: got None · allowed: "),
    ):
        with pytest.raises(UserError, match=message):
            FaceEmbedder(checkpoint, **{"align": False, **options}).verify(crops[0], crops[1])


@pytest.mark.parametrize("wrong", [None, 3, ["best.pt"], b"best.pt"])
def test_a_checkpoint_that_is_no_path_is_one_line(wrong):
    with pytest.raises(UserError, match="^checkpoint: got .* · allowed: the path of a file$"):
        FaceEmbedder(wrong, align=False)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("wrong", ["0.01", True, [0.1], np.array(0.1)])
def test_a_rate_that_is_no_number_is_one_line(checkpoint, tmp_path, calibrated, wrong):
    known = tmp_path / "known.json"
    points = (Threshold(0.1, 0.0, 0.9, 600),)
    write_calibration(Calibration(sha256_of(checkpoint), True, "pairs.txt", 2.0, -1.0, 0.5, points), known)
    e = FaceEmbedder(checkpoint, align=False, device="cpu", calibration=known if calibrated else None)
    for key in ("far", "prior"):
        with pytest.raises(UserError, match=f"^{key}: got .* · allowed: a number between 0 and 1, or None$"):
            e.match(unit(1), unit(1), **{key: wrong})
    if calibrated:
        assert e.match(unit(1), unit(1), far=np.float32(0.1), prior=np.float64(0.1)).same is True


@pytest.mark.parametrize(
    "change",
    [
        lambda crops: crops.astype(np.float32),
        lambda crops: crops.astype(np.int64),
        lambda crops: crops[0],
        lambda crops: list(crops),
        lambda crops: crops[:, 1:],
        lambda crops: crops[..., :1],
        lambda crops: crops.transpose(0, 3, 1, 2),
        lambda crops: torch.from_numpy(crops),
        lambda crops: None,
    ],
)
def test_other_arrays_than_crops_are_one_line(aligned, crops, change):
    with pytest.raises(UserError, match=r"^crops: got .* · allowed: an array \(B, 112, 96, 3\) uint8, BGR$"):
        aligned.embed_crops(change(crops[:2]))


def test_crops_may_be_views_and_may_be_none(aligned, crops):
    turned = crops[:2, :, ::-1]
    np.testing.assert_array_equal(aligned.embed_crops(turned), aligned.embed_crops(turned.copy()))
    assert aligned.embed_crops(crops[:0]).shape == (0, 32)


def test_the_first_image_of_a_labelled_list_is_its_first_value(aligned, crops):
    class Labelled:
        """As a pandas Series with the labels 5 and 6."""

        def __len__(self):
            return 2

        def keys(self):
            return [5, 6]

        def __getitem__(self, label):
            return {5: crops[0], 6: crops[1]}[label]

        def __iter__(self):
            return iter(crops[:2])

    np.testing.assert_array_equal(aligned.embed(Labelled()), aligned.embed(crops[:2]))


def test_a_calibration_for_another_use_of_mirror_images_leaves_the_cosine(tmp_path, crops):
    checkpoint = write_checkpoint(tmp_path / "best.pt", input_size=(112, 96))
    path = calibration_path(checkpoint)
    mine = Calibration(sha256_of(checkpoint), True, "pairs.txt", 2.0, -1.0, 0.5, (Threshold(0.1, 0.0, 0.9, 600),))
    write_calibration(mine, path)
    e = FaceEmbedder(checkpoint, align=False, flip=False, device="cpu")
    match = e.verify(crops[0], crops[0])
    assert (match.cosine, match.probability, match.same) == (pytest.approx(1), None, None)
    assert e.calibration is None
    assert "made with mirror images joined, but these embeddings are without" in e.why_uncalibrated
    for given in ({"far": 0.1}, {"prior": 0.1}):
        with pytest.raises(UserError, match="made with mirror images joined"):
            e.verify(crops[0], crops[0], **given)
    with pytest.raises(UserError, match="made with mirror images joined"):
        FaceEmbedder(checkpoint, align=False, flip=False, calibration=path).verify(crops[0], crops[0])
    assert FaceEmbedder(checkpoint, align=False).why_uncalibrated == ""


def test_a_size_without_a_template_takes_crops_alone(tmp_path):
    small = write_checkpoint(tmp_path / "small.pt", input_size=(32, 24))
    with pytest.raises(UserError, match="reads 32×24 crops .* no template · give it crops .* align=False"):
        FaceEmbedder(small, detector=ByColour())
    assert FaceEmbedder(small, align=False).embed([noise(0)]).shape == (1, 32)


def test_verify_says_what_the_calibration_knows(checkpoint, crops, tmp_path):
    alone = FaceEmbedder(checkpoint, align=False, device="cpu")
    a, b = alone.embed(crops[:2]).astype(np.float64)
    match = alone.verify(crops[0], crops[1])
    assert match.cosine == pytest.approx(a @ b, abs=1e-6)
    assert (match.probability, match.same, match.far) == (None, None, None)
    with pytest.raises(UserError, match="far, prior: need .*best.calibration.json, which does not exist"):
        alone.verify(crops[0], crops[1], far=0.1)

    points = (
        Threshold(0.1, match.cosine - 0.001, 0.95, 600),
        Threshold(0.05, match.cosine, 0.9, 600),
        Threshold(0.02, match.cosine + 0.001, 0.8, 600),
    )
    path = tmp_path / "known.json"
    write_calibration(Calibration(sha256_of(checkpoint), True, "pairs.txt", 2.0, -1.0, 0.5, points), path)
    e = FaceEmbedder(checkpoint, align=False, device="cpu", calibration=path)
    first, last = e.verify(crops[0], crops[1], far=0.1), e.verify(crops[0], crops[1])
    assert (first.same, first.far) == (True, 0.1)
    assert (last.same, last.far, last.tar) == (False, 0.05, 0.9)  # a cosine on the threshold is not above it
    assert e.verify(crops[0], crops[1], far=0.02).same is False
    assert last.probability == pytest.approx(1 / (1 + np.exp(1 - 2 * match.cosine)))
    assert e.verify(crops[0], crops[1], prior=0.01).probability < last.probability
    assert e.verify(crops[0], crops[0]).cosine == pytest.approx(1, abs=1e-6)


def test_where_each_threshold_refuses_many_genuine_pairs_nothing_is_decided(checkpoint, crops, tmp_path):
    points = (Threshold(0.1, -0.9, 0.89, 600), Threshold(0.05, -0.8, 0.16, 600))
    path = tmp_path / "weak.json"
    write_calibration(Calibration(sha256_of(checkpoint), True, "pairs.txt", 2.0, -1.0, 0.5, points), path)
    e = FaceEmbedder(checkpoint, align=False, device="cpu", calibration=path)
    weak, told = e.verify(crops[0], crops[0]), e.verify(crops[0], crops[0], far=0.05)
    assert (weak.same, weak.far, weak.tar, weak.threshold) == (None, 0.1, 0.89, -0.9)
    assert weak.probability is not None
    assert (told.same, told.far, told.tar) == (True, 0.05, 0.16)


def unit(*numbers: float) -> np.ndarray:
    """A vector (32,) that begins with these numbers."""
    return np.array([*numbers, *[0] * (32 - len(numbers))], dtype=np.float32)


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (unit(1.01), "a vector of length 1.01"),
        (unit(np.nan), "a vector of length nan"),
        (unit(1e30), "a vector of length 1e[+]30"),
        (unit(), "a vector of length 0"),
        (unit(1)[:16], r"shape \(16,\)"),
        (unit(1)[None], r"shape \(1, 32\)"),
        (1.0, r"shape \(\)"),
        (None, "shape|None"),
        ("a.jpg", "'a.jpg'"),
        ([[1], [1, 2]], ".*"),
    ],
)
def test_what_is_no_unit_vector_of_this_network_is_not_compared(aligned, b, said):
    with pytest.raises(UserError, match=rf"^b: got {said}.* · allowed: a unit vector of 32 numbers, a row of what"):
        aligned.match(unit(1), b)
    with pytest.raises(UserError, match="^a: got "):
        aligned.match(b, unit(1))


def test_a_cosine_is_never_beyond_one(aligned):
    a = unit(1.000001)  # as rounding may leave a unit vector
    assert (aligned.match(a, a).cosine, aligned.match(a, -a).cosine) == (1.0, -1.0)


def test_lists_and_generators(crops, aligned):
    wanted = aligned.embed(crops)
    np.testing.assert_array_equal(aligned.embed(crop for crop in crops), wanted)
    np.testing.assert_array_equal(aligned.try_embed(iter(list(crops))).embeddings, wanted)
    assert aligned.match(wanted[0].tolist(), wanted[1].tolist()) == aligned.match(wanted[0], wanted[1])


def test_a_generator_is_read_in_batches(crops, checkpoint):
    """Two batches are in memory at most, and a problem names the position in the whole list."""
    alive, most, made = set(), [0], [0]

    def many():
        for number in range(1000):
            image = crops[number % 5].copy() if number != 5 else np.zeros((3, 3, 3), np.uint8)
            alive.add(number)
            weakref.finalize(image, alive.discard, number)
            most[0], made[0] = max(most[0], len(alive)), number + 1
            yield image
            del image

    class Enough(Exception):
        pass

    counts = []

    def stop(count):
        counts.append(count)
        if len(counts) == 6:
            raise Enough

    e = FaceEmbedder(checkpoint, align=False, device="cpu", batch_size=2)
    with pytest.raises(Enough):
        e.try_embed(many(), on_batch=stop)
    assert counts == [2] * 6
    assert most[0] <= 4
    assert made[0] <= 14
    result = e.try_embed(itertools.islice(many(), 7))
    assert result.rows.tolist() == [0, 1, 2, 3, 4, 6]
    assert result.problems[5].startswith("image 5: ")
    with pytest.raises(UnusableImage, match=r"1 of 7 images cannot be used:\n  - image 5: "):
        e.embed(itertools.islice(many(), 7))


class OneAtATime(ByColour):
    """A detector with intermediate results in its memory, as those of OpenCV have."""

    def __call__(self, image):
        self.image_now = image
        time.sleep(0.002)  # another thread calls it now, if there is one
        return super().__call__(self.image_now)


def test_a_generator_may_use_the_embedder_itself(checkpoint):
    """As docs/api.md offers ``e.face``: the result is that of a list."""
    photographs = [
        ByColour.image((200, 160), [(70 + k, 90 + k)] + [(20, 30)] * (k % 3 == 0), seed=k) for k in range(24)
    ]
    e = FaceEmbedder(checkpoint, detector=OneAtATime(), device="cpu", batch_size=4)
    wanted = e.try_embed([image for image in photographs if e.face(image).num_faces == 1])
    assert len(wanted.rows) == 16
    found = e.try_embed(image for image in photographs if e.face(image).num_faces == 1)
    assert (found.problems, found.rows.tolist(), found.num_faces) == ({}, list(range(16)), {})
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_array_equal(found.embeddings, wanted.embeddings)


def test_a_generator_may_also_embed(checkpoint, crops):
    e = FaceEmbedder(checkpoint, align=False, device="cpu", batch_size=2)
    wanted = e.embed([crop for crop in crops if e.embed([crop])[0, 0] > 0])
    np.testing.assert_array_equal(e.embed(crop for crop in crops if e.embed([crop])[0, 0] > 0), wanted)


@pytest.mark.parametrize("form", ["pixels", "bytearray", "memoryview"])
def test_a_generator_may_fill_one_buffer_with_each_image(crops, aligned, form):
    """As ``cap.read(frame)`` and ``file.readinto(buffer)`` do."""

    def images():
        frame, buffer = np.empty_like(crops[0]), bytearray()
        for crop in crops:
            frame[:] = crop
            buffer[:] = encode(crop, ".bmp")  # each is equally long
            yield frame if form == "pixels" else memoryview(buffer) if form == "memoryview" else buffer

    np.testing.assert_array_equal(aligned.embed(images()), aligned.embed(crops))


def test_a_generator_may_write_each_image_into_one_file(crops, aligned, tmp_path):
    """As ``urlretrieve(url, "tmp.jpg"); yield "tmp.jpg"`` does, also when one download fails or is no image."""
    path = tmp_path / "tmp.bmp"

    def images():
        for number, crop in enumerate(crops):
            path.write_bytes(b"no image" if number == 2 else encode(crop, ".bmp"))
            if number == 1:
                path.unlink()
            yield str(path) if number % 2 else path
        yield "\0"

    result = aligned.try_embed(images())
    assert result.rows.tolist() == [0, 3, 4]
    np.testing.assert_allclose(result.embeddings, aligned.embed(crops)[[0, 3, 4]], rtol=0, atol=1e-5)  # other batches
    assert result.problems == {
        1: f"{path}: cannot be read (No such file or directory)",
        2: f"{path}: not an image, or damaged · allowed: JPEG, PNG, BMP, WebP, PGM, PPM, HEIC",
        5: "\\x00: holds a NUL character · allowed: the path of a file",
    }


def test_a_crop_keeps_nothing_of_the_callers_array(crops, aligned):
    """As an object with ``len()`` and ``[i]`` that reads each image into one buffer."""

    class Frames:
        frame = np.empty((112, 112, 3), np.uint8)

        def __len__(self):
            return len(crops)

        def __getitem__(self, number):
            self.frame[:, 8:-8] = crops[number]
            return self.frame

    np.testing.assert_array_equal(aligned.embed(Frames()), aligned.embed(crops))
    found = [aligned.face(Frames()[number]).crop for number in range(len(crops))]
    np.testing.assert_array_equal(found, crops)


@pytest.mark.parametrize("indexed", [False, True])
def test_images_whose_iterator_starts_again_are_read_once(crops, checkpoint, indexed):
    """As loaders of videos and folders do, whose __iter__ goes back to the first image."""

    class Loader:
        def __len__(self):
            return len(crops)

        def __iter__(self):
            self.count = 0
            return self

        def __next__(self):
            if self.count == len(crops):
                raise StopIteration
            self.count += 1
            return crops[self.count - 1]

    if indexed:
        Loader.__getitem__ = lambda self, number: crops[number]
    e = FaceEmbedder(checkpoint, align=False, device="cpu", batch_size=2)
    np.testing.assert_array_equal(e.embed(Loader()), e.embed(crops))
    assert e.try_embed(Loader()).rows.tolist() == list(range(len(crops)))


def test_the_hash_is_that_of_the_weights_that_were_read(checkpoint, crops, tmp_path):
    """A training run replaces last.pt while it is in use."""
    path = tmp_path / "last.pt"
    for name in (checkpoint, checkpoint.with_suffix(".json")):
        shutil.copy(name, path.with_suffix(name.suffix))
    e = FaceEmbedder(path, align=False, device="cpu")
    write_checkpoint(path, seed=5, input_size=(112, 96))
    assert e.sha256 == sha256_of(checkpoint) != sha256_of(path)
    np.testing.assert_array_equal(e.embed(crops), FaceEmbedder(checkpoint, align=False, device="cpu").embed(crops))
    source = Embedder.of_checkpoint(checkpoint, device=torch.device("cpu"))
    assert source.sha256 == e.sha256


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_network_that_diverged_is_named(aligned, crops, monkeypatch, value):
    monkeypatch.setattr("sphereface.api.embed_batch", lambda *_: np.full((2, 32), value, dtype=np.float32))
    with pytest.raises(UserError, match="best.pt: its embeddings are zero or not finite"):
        aligned.embed(crops[:2])


def test_a_calibration_beside_the_checkpoint_is_found_and_a_foreign_one_refused(tmp_path, crops):
    checkpoint = write_checkpoint(tmp_path / "best.pt", input_size=(112, 96))
    mine = Calibration(sha256_of(checkpoint), True, "pairs.txt", 2.0, -1.0, 0.5, (Threshold(0.1, 0.0, 0.9, 600),))
    write_calibration(mine, calibration_path(checkpoint))
    assert FaceEmbedder(checkpoint, align=False).verify(crops[0], crops[1]).far == 0.1
    write_checkpoint(checkpoint, seed=1, input_size=(112, 96))
    with pytest.raises(UserError, match="made for another checkpoint"):
        FaceEmbedder(checkpoint, align=False).verify(crops[0], crops[1])


def test_the_package_gives_it_by_name():
    assert sphereface.FaceEmbedder is FaceEmbedder
    with pytest.raises(AttributeError, match="no attribute 'FaceDetector'"):
        sphereface.__getattr__("FaceDetector")
