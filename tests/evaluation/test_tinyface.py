import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sphereface.errors import UserError
from sphereface.evaluation.embeddings import Embeddings
from sphereface.evaluation.images import Images
from sphereface.evaluation.protocols import Rule, load_set
from sphereface.evaluation.protocols import tinyface_result as result_module
from sphereface.evaluation.protocols import tinyface_search as module
from sphereface.evaluation.protocols.tinyface import TinyFaceSet
from sphereface.evaluation.protocols.tinyface_result import OFFICIAL, Rates
from sphereface.evaluation.protocols.tinyface_search import Roles, search
from sphereface.evaluation.table import format_rows
from sphereface.places import Places

from .folders import cosine

NAMES = {
    "Probe": ["12_1.jpg", "12_2.jpg", "7_4.png", "100_1.jpg"],
    "Gallery_Match": ["12_3.jpg", "7_1.jpg", "7_2.jpg", "100_9.jpg"],
    "Gallery_Distractor": ["a/b_1.jpg", "12_99.jpg", "x.jpg"],
}


def write_folder(root, names=NAMES):
    for folder, files in names.items():
        for file in files:
            path = root / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return root


def made_up(seed=0, *, num_subjects=9, num_probes=30, num_match=25, num_distractors=200, dims=6):
    rng = np.random.default_rng(seed)
    match = np.concatenate([np.arange(num_subjects), rng.integers(0, num_subjects, num_match - num_subjects)])
    roles = Roles(rng.integers(0, num_subjects, num_probes), rng.permutation(match), num_distractors)
    centres = rng.standard_normal((num_subjects, dims)) + 0.5
    people = np.concatenate([centres[roles.probe_subject], centres[roles.match_subject]])
    others = rng.standard_normal((num_distractors, dims)) + 0.5
    features = np.concatenate([people + 0.6 * rng.standard_normal(people.shape), others])
    return features.astype(np.float32), roles


def loop_search(features, roles, subtract_mean):
    """Sort the whole gallery for each probe, in float64; the script's loop is that of compute_AP.m."""
    features = features.astype(np.float64)
    gallery = features[roles.num_probes :]
    mean = gallery.mean(axis=0) if subtract_mean else 0
    label = [*roles.match_subject.tolist(), *[-100] * roles.num_distractors]
    ranks, scripts, precisions = [], [], []
    for probe, subject in zip(features[: roles.num_probes], roles.probe_subject.tolist(), strict=True):
        scores = [cosine(probe - mean, entry - mean) for entry in gallery]
        order = sorted(range(len(scores)), key=lambda k: -scores[k])
        good = [label[k] == subject for k in order]
        ranks.append(1 + good.index(True))
        old_recall, old_precision, ap, hits = 0.0, 1.0, 0.0, 0
        for place, is_good in enumerate(good, start=1):
            hits += is_good
            recall, precision = hits / sum(good), hits / place
            ap += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        scripts.append(ap)
        precisions.append(average_precision_score([k == subject for k in label], scores))
    return np.array(ranks), np.array(precisions), np.array(scripts)


@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize("cells", [1, 700, 2**24])
def test_as_the_loop(monkeypatch, cells, subtract_mean):
    monkeypatch.setattr(module, "_CELLS", cells)
    features, roles = made_up()
    got = search(features, roles, subtract_mean=subtract_mean)
    ranks, precisions, scripts = loop_search(features, roles, subtract_mean)
    assert 1 == ranks.min() < np.median(ranks) < 15 < ranks.max()
    np.testing.assert_array_equal(got.rank, ranks)
    np.testing.assert_allclose(got.precision, precisions, rtol=1e-12)
    np.testing.assert_allclose(got.script_precision, scripts, rtol=1e-12)
    assert np.abs(scripts - precisions).max() > 0.01


def test_literal_figures():
    """Scores of the only probe fall along the gallery; the right images stand at ranks 2 and 4."""
    angles = np.radians([0, 10, 20, 30, 40, 50])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = np.concatenate([[[1.0, 0.0]], gallery[[1, 3]], gallery[[0, 2, 4, 5]]])
    got = search(features, Roles(np.array([3]), np.array([3, 3]), 4), subtract_mean=False)
    assert got.rank.tolist() == [2]
    assert got.precision.tolist() == pytest.approx([(1 / 2 + 2 / 4) / 2])
    assert got.script_precision.tolist() == pytest.approx([((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2])


def test_a_right_image_first_is_worth_all():
    features = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    got = search(features, Roles(np.array([3]), np.array([3]), 1), subtract_mean=False)
    assert (got.rank.tolist(), got.precision.tolist(), got.script_precision.tolist()) == ([1], [1.0], [1.0])


def test_ties_count_against_the_right_person():
    features = np.tile([1.0, 0.0], (7, 1))
    got = search(features, Roles(np.array([3]), np.array([3, 3, 8]), 3), subtract_mean=False)
    assert got.rank.tolist() == [5]  # after 8 and three distractors
    assert got.precision.tolist() == pytest.approx([(1 / 5 + 2 / 6) / 2])


@pytest.mark.parametrize("dims", [512, 511, 2049])
@pytest.mark.parametrize("num_distractors", [1, 100, 998])
def test_equal_images_of_the_gallery_tie_wherever_they_stand(dims, num_distractors):
    """A matrix product rounds equal rows differently by their position."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        row, probes = rng.standard_normal(dims), rng.standard_normal((3, dims))
        features = np.concatenate([probes + row, np.tile(row, (3 + num_distractors, 1))]).astype(np.float32)
        roles = Roles(np.array([5, 6, 6]), rng.permutation([5, 6, 6]), num_distractors)
        got = search(features, roles, subtract_mean=False)
        size = num_distractors + 3
        assert got.rank.tolist() == [size, size - 1, size - 1]  # 5 is last, 6 has the two last places
        assert got.precision.tolist() == pytest.approx([1 / size, *[(1 / (size - 1) + 2 / size) / 2] * 2])


def test_a_tie_is_no_wider_than_rounding():
    angles = np.arccos([0.5, 0.5 + 1e-6, 0.5 - 1e-6, 0.5 - 1e-5])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = np.concatenate([[[1.0, 0.0]], gallery])
    assert search(features, Roles(np.array([3]), np.array([3]), 3), subtract_mean=False).rank.tolist() == [3]


@pytest.mark.parametrize("bad", [np.nan, 0.0, np.inf])
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_an_undefined_embedding_costs_its_own_searches(bad, subtract_mean):
    """Undefined rows: a probe, the only image of a person, one of several images of a person, a distractor."""
    features, roles = made_up(num_probes=12, num_match=20, num_distractors=30, num_subjects=6)
    several = int(np.flatnonzero(np.bincount(roles.match_subject)[roles.match_subject] > 1)[0])
    rows = {"probe": 0, "match": 12 + several, "distractor": 12 + 20 + 5}
    kept = np.ones(len(features), dtype=bool)
    kept[list(rows.values())] = False
    without = Roles(roles.probe_subject[1:], np.delete(roles.match_subject, several), 29)
    expected = search(features[kept], without, subtract_mean=subtract_mean)
    broken = features.copy()
    broken[list(rows.values())] = bad
    got = search(broken, roles, subtract_mean=subtract_mean)
    assert (got.rank[0], got.precision[0], got.script_precision[0]) == (51, 0, 0)
    np.testing.assert_array_equal(got.rank[1:], expected.rank)
    share = np.ones(11)  # its precision is a sum of 0 and the others'
    count = np.bincount(roles.match_subject)
    own = roles.probe_subject[1:] == roles.match_subject[several]
    share[own] = 1 - 1 / count[roles.match_subject[several]]
    assert own.any()
    np.testing.assert_allclose(got.precision[1:], expected.precision * share, rtol=1e-9)
    np.testing.assert_allclose(got.script_precision[1:], expected.script_precision * share, rtol=1e-9)


def test_a_person_whose_only_image_is_undefined_is_not_found():
    features = np.array([[1.0, 0.0], [np.nan, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    got = search(features, Roles(np.array([3]), np.array([3]), 2), subtract_mean=False)
    assert (got.rank.tolist(), got.precision.tolist(), got.script_precision.tolist()) == ([4], [0.0], [0.0])


def made_up_set(tmp_path, roles):
    names = tuple(f"{k}.jpg" for k in range(sum(roles.counts)))
    return TinyFaceSet("tf", Images(tmp_path, names, None), roles)


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_the_result(tmp_path, subtract_mean):
    features, roles = made_up(1)
    result = made_up_set(tmp_path, roles).evaluate(Embeddings(features), Rule(subtract_mean=subtract_mean))
    ranks, precisions, _ = loop_search(features, roles, subtract_mean)
    field_ranks, _, field_scripts = loop_search(features, roles, False)
    assert result.rates.found == tuple(int((ranks <= k).sum()) for k in (1, 5, 20))
    assert result.headline() == ("rank 1", pytest.approx(np.mean(ranks <= 1)))
    assert result.rates.mean_precision == pytest.approx(precisions.mean())
    assert result.field_rates.found == tuple(int((field_ranks <= k).sum()) for k in (1, 5, 20))
    assert result.field_rates.mean_precision == pytest.approx(field_scripts.mean())
    for rates in (result.rates, result.field_rates):
        pairs = [*zip(rates.rank_intervals, rates.ranks, strict=True)]
        for interval, figure in (*pairs, (rates.mean_precision_interval, rates.mean_precision)):
            assert interval.low < figure < interval.high
    own, field = result.rows()
    assert own.rows[0][2].endswith(f"{result.rates.found[0]} of 30 probes")
    assert "are not comparable with published" in own.note
    assert field.title == "As published code computes it"
    assert format_rows(own)
    assert format_rows(field)
    assert ("NO mean" in result.heading()[2]) is not subtract_mean
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["ranks"][2] == {
        "rank": 20,
        "found": result.rates.found[2],
        "rate": result.rates.ranks[2],
        "interval": [result.rates.rank_intervals[2].low, result.rates.rank_intervals[2].high],
    }
    assert plain["as_the_field"]["map"] == pytest.approx(field_scripts.mean())
    assert result.scalars()["map"] == pytest.approx(precisions.mean())
    assert result.summary()[0] == (
        f"For {result.rates.found[0]} of 30 probes the right person is first, and for {result.rates.found[2]} among "
        "the first 20 images."
    )


def test_probes_without_a_mate_count_nowhere(tmp_path):
    features, roles = made_up(1)
    more = Roles(np.append(77, roles.probe_subject), roles.match_subject, roles.num_distractors)
    with_stranger = np.concatenate([np.ones((1, 6), dtype=np.float32), features])
    result = made_up_set(tmp_path, more).evaluate(Embeddings(with_stranger), Rule())
    assert result.rates.to_dict() == made_up_set(tmp_path, roles).evaluate(Embeddings(features), Rule()).rates.to_dict()
    assert "1 probe has no image in Gallery_Match" in result.rows()[0].note
    assert result.to_dict()["num_without_mate"] == 1


def test_the_real_counts_carry_no_warning(tmp_path, monkeypatch):
    features, roles = made_up(1)
    result = made_up_set(tmp_path, roles).evaluate(Embeddings(features), Rule())
    assert (OFFICIAL[0], OFFICIAL[1] + OFFICIAL[2]) == (3728, 157871)
    assert "published" in result.rows()[0].note
    monkeypatch.setattr(result_module, "OFFICIAL", roles.counts)
    assert "published" not in result.rows()[0].note


@pytest.mark.parametrize("inside", ["", "Testing_Set"])
def test_the_folder_is_recognised_and_read(tmp_path, inside):
    write_folder(tmp_path / inside)
    (tmp_path / inside / "Probe" / ".12_5.jpg").write_bytes(b"")
    (tmp_path / inside / "Probe" / "list.mat").write_bytes(b"")
    for find_images in (True, False):
        found = load_set("tf", Places(None, (tmp_path,)), find_images=find_images)
        assert isinstance(found, TinyFaceSet)
        before = f"{inside}/" if inside else ""
        assert found.images.names == tuple(
            f"{before}{name}"
            for name in (
                *(f"Probe/{file}" for file in sorted(NAMES["Probe"])),
                *(f"Gallery_Match/{file}" for file in sorted(NAMES["Gallery_Match"])),
                *(f"Gallery_Distractor/{file}" for file in sorted(NAMES["Gallery_Distractor"])),
            )
        )
        assert [file.relative_to(tmp_path).as_posix() for file in found.images.found()] == list(found.images.names)
        assert found.roles.probe_subject.tolist() == [100, 12, 12, 7]
        assert found.roles.match_subject.tolist() == [100, 12, 7, 7]
        assert found.roles.num_distractors == 3  # 12_99.jpg among them is nobody's right image


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Gallery_Distractor": []}, "has no Gallery_Distractor · allowed: a folder with Probe, Gallery_Match"),
        ({"Probe": ["readme.txt"]}, "Probe: holds no images"),
        ({"Probe": ["ann_1.jpg", "12.jpg", "5_1.jpg"]}, r"got 2 names without a person's number .*17_1.jpg"),
        ({"Gallery_Match": ["5_1.jpg"]}, "no probe has an image of the same person"),
    ],
)
def test_errors(tmp_path, change, message):
    write_folder(tmp_path, {**NAMES, **change})
    with pytest.raises(UserError, match=message):
        load_set("tf", Places("tinyface", (tmp_path,)))


def test_other_places_are_not_recognised(tmp_path):
    assert not TinyFaceSet.recognises([tmp_path])
    write_folder(tmp_path)
    assert not TinyFaceSet.recognises([tmp_path, tmp_path])
    with pytest.raises(UserError, match="tf: got 2 paths · allowed: tinyface:DIR"):
        load_set("tf", Places("tinyface", (tmp_path, tmp_path)))


def test_a_probe_that_finds_nothing_is_not_found_in_a_small_gallery():
    """Its rank is one more than the gallery has images, which may be less than 5."""
    rates = Rates.of(np.array([1, 4]), np.array([1.0, 0.0]), np.array([0, 1]))
    assert rates.ranks == (0.5, 0.5, 0.5)
