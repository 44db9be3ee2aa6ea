import dataclasses
import itertools
import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface.data.pairs import Pairs
from sphereface.errors import UserError
from sphereface.evaluation import evaluate as evaluate_result
from sphereface.evaluation import load_pair_set
from sphereface.evaluation.embed import embed_files
from sphereface.evaluation.lfw import Verification, fold_means, pair_cosines, verify, verify_view1

from .crops import Pixels, Projection, random_pairs, write_set

GOLDEN = Path(__file__).parent.parent / "golden" / "lfw_protocol.npz"
GRID = [k / 10000 for k in range(-10000, 10001)]


def evaluate(*args, **options):
    """The verification of a set of pairs."""
    return evaluate_result(*args, **options).verification


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden_pairs(golden):
    rows = (golden[key] for key in ("left", "right", "same", "fold"))
    return Pairs(Path("pairs.txt"), tuple(golden["names"].tolist()), *rows, num_folds=10)


def random_features(seed, num_names=12, dims=5):
    """With a common part, so that the mean matters."""
    rng = np.random.default_rng(1000 + seed)
    return (rng.standard_normal((num_names, dims)) + 1.5).astype(np.float32)


# ---------------------------------------------------------------- the original's own results


def test_view2_equals_the_original(golden, golden_pairs):
    result = verify(golden["embeddings"], golden_pairs)
    np.testing.assert_allclose(result.thresholds, golden["threshold"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.accuracies, golden["accuracy"], rtol=0, atol=1e-12)
    assert result.mean == pytest.approx(float(golden["mean_accuracy"]), abs=1e-12)
    for k in (1, 10):  # each pair's score is the one with its own fold's mean
        own = golden["fold"] == k
        np.testing.assert_allclose(result.scores[own], golden[f"scores_fold{k}"][own], rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 10])
def test_scores_of_all_pairs_equal_the_original(golden, golden_pairs, k):
    features = golden["embeddings"].astype(np.float64)
    scores = pair_cosines(features - fold_means(features, golden_pairs)[k - 1], golden_pairs)
    np.testing.assert_allclose(scores, golden[f"scores_fold{k}"], rtol=0, atol=1e-12)


def test_the_order_of_pairs_and_names_does_not_matter(golden, golden_pairs):
    rng = np.random.default_rng(0)
    pairs, names = rng.permutation(6000), rng.permutation(7701)
    new_row = np.argsort(names)
    shuffled = dataclasses.replace(
        golden_pairs,
        names=tuple(golden_pairs.names[k] for k in names),
        left=new_row[golden_pairs.right[pairs]],  # and the two sides exchanged
        right=new_row[golden_pairs.left[pairs]],
        same=golden_pairs.same[pairs],
        fold=golden_pairs.fold[pairs],
    )
    result = verify(golden["embeddings"][names], shuffled)
    np.testing.assert_allclose(result.thresholds, golden["threshold"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.accuracies, golden["accuracy"], rtol=0, atol=1e-12)


# ---------------------------------------------------------------- the recipe once more, as slow loops


def loop_mean(features, pairs, chosen):
    sides = [row for p in chosen for row in (pairs.left[p], pairs.right[p])]
    return [math.fsum(features[row][d] for row in sides) / len(sides) for d in range(features.shape[1])]


def loop_score(features, pairs, p, mean):
    a = [x - m for x, m in zip(features[pairs.left[p]].tolist(), mean, strict=True)]
    b = [x - m for x, m in zip(features[pairs.right[p]].tolist(), mean, strict=True)]
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a)) / math.sqrt(math.fsum(x * x for x in b))


def loop_accuracy(scores, same, threshold):
    right = [s > threshold if genuine else s < threshold for s, genuine in zip(scores, same, strict=True)]
    return sum(right) / len(right)


def loop_threshold(scores, same):
    accuracies = [loop_accuracy(scores, same, t) for t in GRID]
    highest = max(accuracies)
    best = [t for t, accuracy in zip(GRID, accuracies, strict=True) if accuracy == highest]
    return math.fsum(best) / len(best)


def loop_fold(features, pairs, train, test, subtract_mean=True):
    """Threshold from the pairs ``train``, accuracy and scores of the pairs ``test``."""
    features = features.astype(np.float64)
    mean = loop_mean(features, pairs, train) if subtract_mean else [0.0] * features.shape[1]
    scores = [loop_score(features, pairs, p, mean) for p in range(len(pairs))]
    same = pairs.same.tolist()
    threshold = loop_threshold([scores[p] for p in train], [same[p] for p in train])
    tested = [scores[p] for p in test]
    return threshold, loop_accuracy(tested, [same[p] for p in test], threshold), tested


@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_view2_equals_slow_loops(seed, subtract_mean):
    pairs, features = random_pairs(seed, num_folds=3), random_features(seed)
    result = verify(features, pairs, subtract_mean=subtract_mean)
    for k in (1, 2, 3):
        train = [p for p in range(len(pairs)) if pairs.fold[p] != k]
        test = [p for p in range(len(pairs)) if pairs.fold[p] == k]
        threshold, accuracy, scores = loop_fold(features, pairs, train, test, subtract_mean)
        assert result.thresholds[k - 1] == pytest.approx(threshold, abs=1e-12)
        assert result.accuracies[k - 1] == pytest.approx(accuracy, abs=1e-12)
        np.testing.assert_allclose(result.scores[test], scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_view1_takes_mean_and_threshold_from_dev_train(subtract_mean):
    features = random_features(3)
    both = random_pairs(3, num_folds=2)
    train, test = np.flatnonzero(both.fold == 1), np.flatnonzero(both.fold == 2)
    threshold, accuracy, scores = loop_fold(features, both, train, test, subtract_mean)
    dev_train, dev_test = (
        dataclasses.replace(
            both,
            left=both.left[rows],
            right=both.right[rows],
            same=both.same[rows],
            fold=np.zeros(len(rows), dtype=np.int64),
            num_folds=0,
        )
        for rows in (train, test)
    )
    result = verify_view1(features, dev_train, dev_test, subtract_mean=subtract_mean)
    assert result.thresholds.tolist() == pytest.approx([threshold], abs=1e-12)
    assert result.accuracies.tolist() == pytest.approx([accuracy], abs=1e-12)
    np.testing.assert_allclose(result.scores, scores, rtol=0, atol=1e-12)
    assert math.isnan(result.standard_error)


def test_a_repeated_pair_counts_each_time():
    """Its sides weigh twice in the mean, as if its images had been listed once more under other names."""
    pairs, features = random_pairs(0), random_features(0)
    left, right = pairs.left.copy(), pairs.right.copy()
    left[1], right[1] = left[0], right[0]  # a repetition, among the same pairs of fold 1
    repeated = dataclasses.replace(pairs, left=left, right=right)
    num = len(pairs.names)
    renamed = dataclasses.replace(
        repeated,
        names=(*pairs.names, "Q/Q_0001.jpg", "Q/Q_0002.jpg"),
        left=np.where(np.arange(len(left)) == 1, num, left),
        right=np.where(np.arange(len(left)) == 1, num + 1, right),
    )
    more = np.concatenate([features, features[left[:1]], features[right[:1]]])
    once, twice = verify(more, renamed), verify(features, repeated)
    np.testing.assert_allclose(once.scores, twice.scores, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(once.accuracies, twice.accuracies)


# ---------------------------------------------------------------- figures and edges


def test_mean_and_standard_error_by_hand():
    empty = np.empty(0)
    result = Verification(empty, np.array([0.9, 0.8, 0.7, 0.8]), empty, empty.astype(bool), empty.astype(int))
    assert result.mean == pytest.approx(0.8)
    # squared deviations 0.01 + 0 + 0.01 + 0, over 3, root, over √4
    assert result.standard_error == pytest.approx(math.sqrt(0.02 / 3) / 2)


def test_a_feature_without_direction_gives_wrong_pairs_not_a_crash():
    pairs, features = random_pairs(0), random_features(0)
    features[0] = 0.0
    result = verify(features, pairs, subtract_mean=False)
    touched = (pairs.left == 0) | (pairs.right == 0)
    assert touched.any()
    np.testing.assert_array_equal(np.isnan(result.scores), touched)
    assert result.num_undefined == touched.sum()
    wrong = np.isin(np.arange(1, 5), pairs.fold[touched])
    assert (result.accuracies[wrong] < 1).all()


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_one_undefined_embedding_costs_its_own_pairs_only(value, subtract_mean):
    """The others are decided as if the pairs of that image were not in the list."""
    pairs, features = random_pairs(0), random_features(0).astype(np.float64)
    features[0] = value
    touched = (pairs.left == 0) | (pairs.right == 0)
    result = verify(features, pairs, subtract_mean=subtract_mean)
    np.testing.assert_array_equal(np.isnan(result.scores), touched)
    assert not result.correct[touched].any()
    for fold in range(1, pairs.num_folds + 1):
        sides = np.concatenate([pairs.left[pairs.fold != fold], pairs.right[pairs.fold != fold]])
        mean = features[sides[sides != 0]].mean(axis=0) if subtract_mean else 0
        own = np.flatnonzero((pairs.fold == fold) & ~touched)
        for pair in own:
            a, b = features[pairs.left[pair]] - mean, features[pairs.right[pair]] - mean
            assert result.scores[pair] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-12)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_one_undefined_embedding_in_view1(value):
    train, test = random_pairs(0, num_folds=0), random_pairs(1, num_folds=0)
    features = random_features(0).astype(np.float64)
    features[3] = value
    result = verify_view1(features, train, test)
    touched = (test.left == 3) | (test.right == 3)
    np.testing.assert_array_equal(np.isnan(result.scores), touched)
    sides = np.concatenate([train.left, train.right])
    mean = features[sides[sides != 3]].mean(axis=0)
    pair = int(np.flatnonzero(~touched)[0])
    a, b = features[test.left[pair]] - mean, features[test.right[pair]] - mean
    assert result.scores[pair] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-12)


def test_a_network_that_diverged_scores_zero():
    pairs = random_pairs(0)
    result = verify(np.full((12, 5), np.nan, dtype=np.float32), pairs)
    assert result.mean == 0.0
    assert result.num_undefined == len(pairs)


def test_features_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"got \(11, 5\), expected \(12 names, F\)"):
        verify(random_features(0, num_names=11), random_pairs(0))


# ---------------------------------------------------------------- sets of images


def pixel_features(pair_set):
    """What :class:`Pixels` makes of the files, read on their own, and of their mirror images."""
    images = np.stack([cv2.imread(str(file)) for file in pair_set.images.files]).astype(np.float32)
    x = ((images - 127.5) / 128).transpose(0, 3, 1, 2)
    return np.concatenate([x.reshape(len(x), -1), x[:, :, :, ::-1].reshape(len(x), -1)], axis=1)


def test_a_set_of_view2_from_folder_to_accuracy(tmp_path):
    root = write_set(tmp_path)
    pair_set = load_pair_set("faces", root, root / "pairs.txt")
    result = evaluate(Pixels(), pair_set, device="cpu", batch_size=5)
    expected = verify(pixel_features(pair_set), pair_set.pairs)
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(result.accuracies, [1.0, 1.0])  # people of noise are easy to tell apart


def test_flip_and_mean_reach_the_protocol(tmp_path):
    root = write_set(tmp_path)
    pair_set = load_pair_set("faces", root, root / "pairs.txt")
    model = Projection(3 * 32 * 24)
    options = {"device": "cpu"}
    seen = set()
    for flip, subtract_mean in itertools.product([True, False], repeat=2):
        result = evaluate(model, pair_set, flip=flip, subtract_mean=subtract_mean, **options)
        features = embed_files(model, pair_set.images.files, flip=flip, **options)
        expected = verify(features, pair_set.pairs, subtract_mean=subtract_mean)
        np.testing.assert_allclose(result.scores, expected.scores, atol=1e-6)
        seen.add(float(np.round(result.scores[0], 4)))
    assert len(seen) == 4  # pixels would not do here: their mirror images change no cosine


@pytest.mark.parametrize("named", [True, False])
def test_a_set_of_view1_embeds_both_lists(tmp_path, named):
    root = write_set(tmp_path / "crops")
    dev_train = None
    if named:
        dev_train = tmp_path / "train.txt"
        (root / "pairsDevTrain.txt").rename(dev_train)
    pair_set = load_pair_set("view 1", root, root / "pairsDevTest.txt", dev_train=dev_train)
    assert len(pair_set.images.files) == 32  # 16 images of each list
    assert pair_set.images.names == pair_set.pairs.names == pair_set.dev_train.names
    result = evaluate(Pixels(), pair_set, device="cpu")
    expected = verify_view1(pixel_features(pair_set), pair_set.dev_train, pair_set.pairs)
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-6)
    assert result.accuracies.tolist() == [1.0]


def test_view1_without_dev_train_is_an_error(tmp_path):
    root = write_set(tmp_path)
    (root / "pairsDevTrain.txt").unlink()
    with pytest.raises(UserError, match=r"pairsDevTest\.txt: has no folds \(view 1\).*pairsDevTrain\.txt does not"):
        load_pair_set("x", root, root / "pairsDevTest.txt")


def test_a_threshold_is_not_chosen_on_the_pairs_it_is_tested_on(tmp_path):
    root = write_set(tmp_path)
    with pytest.raises(UserError, match=r"pairsDevTrain\.txt: is also the list that chooses the threshold"):
        load_pair_set("x", root, root / "pairsDevTrain.txt")


def test_lists_of_the_other_view_are_refused(tmp_path):
    root = write_set(tmp_path)
    with pytest.raises(UserError, match=r"pairs\.txt: has folds \(view 2\) · expected pairsDevTrain"):
        load_pair_set("x", root, root / "pairsDevTest.txt", dev_train=root / "pairs.txt")
    with pytest.raises(UserError, match=r"is for view 1, but .*pairs\.txt has folds · omit it"):
        load_pair_set("x", root, root / "pairs.txt", dev_train=root / "pairsDevTrain.txt")


def test_missing_images_of_dev_train_are_told_from_the_start(tmp_path):
    root = write_set(tmp_path)
    (root / "P0" / "P0_0001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of the 16 images in .*pairsDevTrain\.txt are missing.*\n  - P0/P0_0001"):
        load_pair_set("x", root, root / "pairsDevTest.txt")


# ---------------------------------------------------------------- InsightFace's .bin


def write_bin(path, num_pairs=23, height=32, width=24):
    """Pairs of noise, its first image in two pairs; the images in the order of the file."""
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2 * num_pairs)]
    images[5] = images[0]
    encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    path.write_bytes(pickle.dumps((encoded, [k % 3 == 0 for k in range(num_pairs)]), 4))
    return images


def test_a_bin_is_a_pair_set_like_any_other(tmp_path):
    images = write_bin(tmp_path / "own.bin")
    pair_set = load_pair_set("own", "anywhere", tmp_path / "own.bin")
    assert (pair_set.name, pair_set.images.root, len(pair_set.images.files)) == ("own", tmp_path / "own.bin", 45)
    result = evaluate(Pixels(), pair_set, device="cpu", batch_size=7)
    plain = np.stack([np.concatenate([x.ravel(), x[:, ::-1].ravel()]) for x in images]).astype(np.float64)
    features = (plain - 127.5) / 128  # the order of H, W and C changes no cosine
    rows = np.arange(46)
    pairs = dataclasses.replace(pair_set.pairs, names=tuple(map(str, rows)), left=rows[0::2], right=rows[1::2])
    expected = verify(features, pairs)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(result.accuracies, expected.accuracies)
    assert np.bincount(result.fold).tolist() == [0, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2]


def test_a_wider_bin_is_cut_to_its_centre(tmp_path):
    images = write_bin(tmp_path / "own.bin", width=32)
    pair_set = load_pair_set("own", tmp_path, tmp_path / "own.bin")
    features = embed_files(Pixels(), pair_set.images.files, device="cpu", flip=False)
    expected = (images[3][:, 4:28].transpose(2, 0, 1).ravel() - 127.5) / 128
    np.testing.assert_allclose(features[3], expected, rtol=0, atol=1e-6)


def test_a_bad_image_in_a_bin_is_named(tmp_path):
    images = [cv2.imencode(".png", np.full((32, 24, 3), k, np.uint8))[1].tobytes() for k in range(20)]
    images[13] = b"no image"
    (tmp_path / "a.bin").write_bytes(pickle.dumps((images, [True, False] * 5)))
    pair_set = load_pair_set("a", tmp_path, tmp_path / "a.bin")
    with pytest.raises(UserError, match=r"1 of 20 images .*\n.*a\.bin, image 13: not an image"):
        evaluate(Pixels(), pair_set, device="cpu")


def test_a_bin_has_folds_and_needs_no_dev_train(tmp_path):
    write_bin(tmp_path / "own.bin")
    with pytest.raises(UserError, match="is for view 1, but .* has folds"):
        load_pair_set("own", tmp_path, tmp_path / "own.bin", dev_train=tmp_path / "pairsDevTrain.txt")
