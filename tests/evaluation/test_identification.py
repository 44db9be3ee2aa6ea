import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation.people import list_people, unit_rows
from sphereface.evaluation.protocols.identification import identify
from sphereface.metrics import searches as module
from sphereface.metrics.searches import search

from .crops import noise, write_image
from .folders import LFW, cosine, made_up_features, made_up_people, needs_lfw


def loop_identify(features, people, subtract_mean):
    """Ranks of the probes and best scores of probes and impostors, by loops in float64."""
    person = people.person.tolist()
    gallery = {p: person.index(p) for p in set(person) if person.count(p) > 1}
    x = features - np.mean([features[row] for row in gallery.values()], axis=0) if subtract_mean else features
    ranks, tops, impostors = [], [], []
    for row, p in enumerate(person):
        scores = {q: cosine(x[row], x[g]) for q, g in gallery.items()}
        if p not in gallery:
            impostors.append(max(scores.values()))
        elif row != gallery[p]:
            ranks.append(1 + sum(s >= scores[p] for q, s in scores.items() if q != p))
            tops.append(max(scores.values()))
    return np.array(ranks), np.array(tops), np.array(impostors)


@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize("block", [1, 5 * 9, 512 * 9])
def test_as_the_loop(monkeypatch, block, subtract_mean):
    monkeypatch.setattr(module, "_CELLS", block)
    people = made_up_people([1, 4, 2, 1, 6, 3, *[1] * 100, 5, 2, 2, 3, 4])
    features = made_up_features(people, spread=1.2)
    result = identify(features, people, subtract_mean=subtract_mean)
    ranks, tops, impostors = loop_identify(features, people, subtract_mean)
    assert (result.num_gallery, result.num_probes, result.num_impostors) == (9, 22, 102)
    assert (result.rank1, result.rank5) == (np.mean(ranks == 1), np.mean(ranks <= 5))
    assert 0 < result.rank1 < result.rank5 <= 1
    assert result.subtract_mean is subtract_mean
    for point in result.open_set:
        allowed = int(point.far * 102)
        threshold = np.sort(impostors)[::-1][allowed]
        assert point.threshold == pytest.approx(threshold, abs=1e-6)
        assert point.tar == np.mean((ranks == 1) & (tops > threshold + 1e-7))
        assert point.false_accepts == allowed
    assert [point.resolvable for point in result.open_set] == [True, False, False, False]


def test_the_true_person_stands_last_among_ties():
    people = made_up_people([2, 2, 1])
    same = np.ones((5, 3))
    result = identify(same, people, subtract_mean=False)
    assert (result.rank1, result.rank5) == (0.0, 1.0)


@pytest.mark.parametrize("size", [2, 7, 101, 500])
@pytest.mark.parametrize("dims", [512, 511, 2049])
def test_equal_images_of_the_gallery_tie_wherever_they_stand(dims, size):
    """A matrix product rounds equal rows differently by their position."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        row = unit_rows(rng.standard_normal((1, dims)), None)
        probes = unit_rows(row + rng.standard_normal((3, dims)) / dims**0.5, None)
        found = search(probes, np.tile(row, (size, 1)), rng.integers(0, size, 3))
        assert found.rank.tolist() == [size] * 3


def test_a_tie_is_no_wider_than_rounding():
    angles = np.arccos([0.5, 0.5 + 1e-6, 0.5 - 1e-6, 0.5 - 1e-5])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = search(np.array([[1.0, 0.0]], dtype=np.float32), gallery, np.array([0]))
    assert found.rank.tolist() == [3]


@pytest.mark.parametrize("bad", [np.nan, 0.0, np.inf])
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_an_undefined_embedding_costs_its_own_searches(bad, subtract_mean):
    """Undefined: a person of the gallery, a probe and 20 of 60 impostors; six impostors may pass at FAR 0.1."""
    counts = [2, 3, 2, 4, *[1] * 60]
    people = made_up_people(counts)
    features = made_up_features(people, spread=1.2)
    strangers = np.flatnonzero(np.bincount(people.person)[people.person] == 1)
    broken = features.copy()
    broken[[2, 8, *strangers[:20]]] = bad  # the gallery's image of person 1, a probe of person 3
    got = identify(broken, people, subtract_mean=subtract_mean)
    kept = np.setdiff1d(np.arange(len(features)), [2, 3, 4, 8, *strangers[:20]])
    ranks, tops, impostors = loop_identify(
        features[kept], made_up_people([2, 2, 3, *[1] * 40]), subtract_mean
    )  # person 1 is in no list
    assert (got.num_gallery, got.num_probes, got.num_impostors) == (4, 7, 60)
    assert (got.rank1, got.rank5) == (np.sum(ranks == 1) / 7, np.sum(ranks <= 5) / 7)  # three probes are missed
    assert got.rank5 == 4 / 7
    (point, *_) = got.open_set
    threshold = np.sort(impostors)[::-1][4]
    assert (point.num_impostor, point.false_accepts) == (40, 4)
    assert point.threshold == pytest.approx(threshold, abs=1e-6)
    assert point.tar == np.sum((ranks == 1) & (tops > threshold + 1e-7)) / 7


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_an_undefined_person_of_the_gallery_takes_no_rank(bad):
    """Its score would be 0, which is more than a negative cosine."""
    people = made_up_people([2, 2, 2, 1])  # the first images are the gallery
    features = np.array([[bad, bad], [-1, 0], [0.6, 0.8], [-1, 0], [0.8, 0.6], [-1, 0], [-1, 0.0]])
    result = identify(features, people, subtract_mean=False)
    assert result.rank1 == pytest.approx(1 / 3)
    assert result.rank5 == pytest.approx(2 / 3)
    assert result.open_set[0].threshold == pytest.approx(-0.6)


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_undefined_impostors_alone_keep_every_probe_out(bad):
    people = made_up_people([2, 3, 1, 1])
    features = made_up_features(people, spread=0.01)
    features[5:] = bad
    result = identify(features, people, subtract_mean=False)
    assert result.rank1 == 1
    assert [point.tar for point in result.open_set] == [0] * 4
    assert all(point.num_impostor == 2 for point in result.open_set)


def test_a_network_that_has_diverged_finds_nobody():
    people = made_up_people([2, 3, 1, 1])
    for features in (np.zeros((7, 4)), np.ones((7, 4))):  # the second is equal to its mean
        result = identify(features, people)
        assert (result.rank1, result.rank5) == (0, 0)
        assert [point.tar for point in result.open_set] == [0] * 4


@pytest.mark.parametrize("counts", [[1, 1, 1], [2, 3]])
def test_needs_enrolled_people_and_strangers(counts):
    people = made_up_people(counts)
    with pytest.raises(UserError, match="allowed: one or more of each; the first are in the gallery"):
        identify(made_up_features(people), people)


def test_units_have_length_one_or_none():
    rows = unit_rows(np.array([[3.0, 4.0], [1.0, 1.0], [np.nan, 1.0]]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(rows, [[2 / 13**0.5, 3 / 13**0.5], [0, 0], [0, 0]], rtol=1e-6)
    assert rows.dtype == np.float32


def test_people_are_listed_by_name(tmp_path):
    for name in ("B/B_0002.jpg", "B/B_0001.png", "A/x.jpg", "C/notes.txt", ".hidden/a.jpg", "A/.part.jpg"):
        write_image(tmp_path / name, noise(0))
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    people = list_people(tmp_path)
    assert people.names == ("A", "B")
    assert [file.relative_to(tmp_path).as_posix() for file in people.files] == [
        "A/x.jpg",
        "B/B_0001.png",
        "B/B_0002.jpg",
    ]
    assert people.person.tolist() == [0, 1, 1]


def test_a_folder_without_people_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no images · expected DIR/<person>/<image>"):
        list_people(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        list_people(tmp_path / "none")


@needs_lfw
def test_the_parts_of_lfw():
    people = list_people(LFW)
    assert (len(people.names), len(people.files)) == (5749, 13233)
    result = identify(np.random.default_rng(0).standard_normal((13233, 4)), people)
    assert (result.num_gallery, result.num_probes, result.num_impostors) == (1680, 7484, 4069)
    numbers = {people.files[row].stem[-4:] for row in np.unique(people.person, return_index=True)[1]}
    assert numbers == {"0001"}
    assert result.rank1 < 0.01  # by chance 1 in 1,680


def test_images_in_deeper_folders_are_told(tmp_path, caplog):
    """As in a folder of training images: the parts of a set are not people."""
    for name in ("train/a/1.png", "train/b/1.png", "test/c/1.png", "test/2.png"):
        write_image(tmp_path / name, noise(1, 12, 9))
    assert list_people(tmp_path).names == ("test", "train")
    assert "3 images are in subfolders of an identity's folder: the first folder is their identity" in caplog.text
