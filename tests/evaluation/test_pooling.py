import itertools
import tracemalloc

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation.pooling import PoolMode, pool

from .. import ijb_golden as golden

MEDIA = "ijbx_face_tid_mid.txt"


def made(count=60, templates=7, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.standard_normal((count, dim)).astype(np.float32),
        "mirror": rng.standard_normal((count, dim)).astype(np.float32),
        "template_of_image": rng.permutation(np.arange(count) % templates) * 3 + 100,
        "media_of_image": rng.integers(0, 4, count),
        "detector_score": rng.uniform(0.3, 1, count),
    }


def expected(mode, arrays):
    rows = golden.rows_of_mode(mode, np.hstack([arrays["image"], arrays["mirror"]]), arrays["detector_score"])
    return golden.pool_by_loops(rows, arrays["template_of_image"], arrays["media_of_image"])


@golden.in_each_mode
def test_pooling_equals_insightface(mode, whole):
    values = golden.load(whole)
    image, mirror = np.split(values["features"], 2, axis=1)
    template, media = golden.column(MEDIA, 1), golden.column(MEDIA, 2)
    score = golden.detector_score()
    pooled = pool(image, mirror, template, media, mode=PoolMode.parse(mode), detector_score=score)
    step = 1 if whole else 4
    np.testing.assert_array_equal(pooled.ids, np.unique(template))
    np.testing.assert_allclose(pooled.templates[::step], values[f"{mode}.template"], rtol=0, atol=1e-12)
    assert pooled.num_undefined == 0


@pytest.mark.parametrize(
    "mode", ["".join(p) for p in itertools.product(("N0", "N1"), ("D0", "D1"), ("F0", "F1", "F2"))]
)
@pytest.mark.parametrize("block", [1, 7, 1024])
def test_pooling_equals_the_definition_in_blocks_of_any_size(mode, block, monkeypatch):
    monkeypatch.setattr("sphereface.evaluation.pooling._BLOCK", block)
    arrays = made()
    pooled = pool(**arrays, mode=PoolMode.parse(mode))
    ids, templates = expected(mode, arrays)
    np.testing.assert_array_equal(pooled.ids, ids)
    np.testing.assert_allclose(pooled.templates, templates, rtol=0, atol=1e-13)
    assert pooled.templates.dtype == np.float64


def test_the_default_mode_is_that_of_the_published_figures():
    arrays = made()
    np.testing.assert_array_equal(pool(**arrays).templates, pool(**arrays, mode=PoolMode.parse("N1D1F2")).templates)
    assert PoolMode().name == "N1D1F2"


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("N0D0F0", PoolMode(True, False, "none")),
        ("N1D1F2", PoolMode(False, True, "add")),
        ("n1d0f1", PoolMode(False, False, "join")),
    ],
)
def test_modes_have_the_names_of_insightface(name, mode):
    assert PoolMode.parse(name) == mode
    assert mode.name == name.upper()


@pytest.mark.parametrize("name", ["", "N2D0F0", "N0D0F3", "N0D0", "N0D0F0F0", "D0N0F0"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match=f"test mode: got {name!r} · allowed: N0 or N1"):
        PoolMode.parse(name)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["N0D0F0", "N1D1F2", "N0D1F1"])
def test_an_undefined_image_is_left_out_and_counted(bad, mode):
    arrays = made()
    out = [3, 17]
    arrays["image"][out] = bad
    arrays["mirror"][out] = 0  # so that a zero stays one in each mode
    pooled = pool(**arrays, mode=PoolMode.parse(mode))
    rest = {name: np.delete(array, out, axis=0) for name, array in arrays.items()}
    ids, templates = expected(mode, rest)
    np.testing.assert_array_equal(pooled.ids, ids)
    np.testing.assert_allclose(pooled.templates, templates, rtol=0, atol=1e-13)
    assert pooled.num_undefined == 2


def test_one_number_that_is_not_finite_makes_an_image_undefined():
    arrays = made()
    arrays["mirror"][5, 2] = np.nan
    assert pool(**arrays).num_undefined == 1
    assert pool(**arrays, mode=PoolMode(flip="none")).num_undefined == 0  # the mirror image is not used


def test_a_template_of_undefined_images_only_is_undefined():
    arrays = made()
    arrays["image"][arrays["template_of_image"] == 103] = np.nan
    pooled = pool(**arrays)
    assert np.isnan(pooled.templates).all(axis=1).tolist() == (pooled.ids == 103).tolist()


def test_images_that_cancel_have_no_direction():
    x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    pooled = pool(x, None, np.array([4, 4]), np.array([0, 1]), mode=PoolMode(True, False, "none"))
    assert np.isnan(pooled.templates).all()
    assert pooled.num_undefined == 0


def test_equal_media_numbers_of_two_templates_are_two_media():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    mode = PoolMode(True, False, "none")
    pooled = pool(x, None, np.array([1, 1, 2]), np.array([5, 6, 5]), mode=mode)
    np.testing.assert_allclose(pooled.templates, [[0.5**0.5, 0.5**0.5], [1, 0]])


def test_very_small_and_large_embeddings_are_defined():
    x = np.array([[1e-30, 0], [0, 1e30]], dtype=np.float32)
    pooled = pool(x, None, np.array([0, 0]), np.array([0, 1]), mode=PoolMode(True, False, "none"))
    np.testing.assert_allclose(pooled.templates, [[0.5**0.5, 0.5**0.5]])
    assert pooled.num_undefined == 0


def test_what_the_mode_needs_must_be_there():
    arrays = made()
    with pytest.raises(ValueError, match="mirror: got None · N1D1F2 needs the \\(60, 5\\)"):
        pool(**{**arrays, "mirror": None})
    with pytest.raises(ValueError, match="detector_score: N1D1F2 needs a finite number for each of the 60 images"):
        pool(**{**arrays, "detector_score": None})
    arrays["detector_score"][0] = np.nan
    with pytest.raises(ValueError, match="detector_score"):
        pool(**arrays)
    with pytest.raises(ValueError, match="got 60 embeddings, 59 templates and 60 media"):
        pool(**{**made(), "template_of_image": np.zeros(59, dtype=int)})


def test_images_are_not_changed_or_copied():
    arrays = made(count=20_000, dim=64)
    before = arrays["image"].copy()
    tracemalloc.start()
    pool(**arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(arrays["image"], before)
    assert peak < arrays["image"].nbytes  # a float64 copy would be twice that
