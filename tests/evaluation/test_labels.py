"""Labels of pairs that contradict each other, found by plain loops too."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation import labels
from sphereface.evaluation.labels import check_folders, check_labels, shared_pairs
from sphereface.evaluation.protocols import load_pair_set, load_set
from sphereface.places import Places

from .crops import noise, write_image

NAMES = [f"{k}.jpg" for k in range(40)]


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    return caplog


@pytest.mark.parametrize("rows", [7, 2**20])
@pytest.mark.parametrize("seed", range(5))
def test_contradictions_as_a_loop_finds_them(monkeypatch, rows, seed):
    monkeypatch.setattr(labels, "_ROWS", rows)
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 20, 60), rng.integers(20, 40, 60)
    swap = rng.random(60) < 0.5
    left[swap], right[swap] = right[swap], left[swap]
    same = rng.random(60) < 0.3
    genuine = {frozenset(pair) for pair, one in zip(zip(left, right, strict=True), same, strict=True) if one}
    wrong = [k for k, pair in enumerate(zip(left, right, strict=True)) if not same[k] and frozenset(pair) in genuine]
    if not wrong:
        return check_labels(Path("l"), left, right, same, NAMES)
    a, b = NAMES[left[wrong[0]]], NAMES[right[wrong[0]]]
    with pytest.raises(UserError, match=f"l: got {a} with {b} as one person and as two people, {len(wrong)} such pai"):
        check_labels(Path("l"), left, right, same, NAMES)
    return None


def test_an_image_with_itself(said):
    left, right, same = np.array([3, 3, 5]), np.array([3, 4, 6]), np.array([True, True, False])
    check_labels(Path("l"), left, right, same, NAMES)
    assert "l: 1 pair compares an image with itself, such as 3.jpg" in said.text
    with pytest.raises(UserError, match=r"l: got 3\.jpg with itself as two people, 1 such pair · allowed: one label"):
        check_labels(Path("l"), left, right, ~same & (np.arange(3) == 9), NAMES)


def test_pairs_that_two_lists_share():
    a, b = (np.array([1, 2, 3]), np.array([4, 5, 6])), (np.array([5, 3, 1]), np.array([2, 7, 6]))
    assert shared_pairs(a, b, 10) == 1
    assert shared_pairs(b, a, 10) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a/1.jpg a/2.jpg 1", "a/2.jpg a/1.jpg 0"], r"got a/2\.jpg with a/1\.jpg as one person and as two people"),
        (["a/1.jpg a/2.jpg 1", "b/1.jpg b/1.jpg 0"], r"got b/1\.jpg with itself as two people"),
    ],
)
def test_a_list_of_images(tmp_path, lines, message):
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join([*lines, "a/1.jpg a/3.jpg 1", "a/1.jpg b/2.jpg 0"]), encoding="utf-8")
    with pytest.raises(UserError, match=f"pairs.txt: {message}, 1 such pair"):
        load_set("s", Places(None, (tmp_path, path)), find_images=False)


def test_view_1_is_not_chosen_on_its_own_pairs(tmp_path):
    def written(name, *pairs):
        (tmp_path / name).write_text("\n".join(["2", *pairs]), encoding="utf-8")
        return tmp_path / name

    test = written("pairsDevTest.txt", "A 1 2", "B 1 2", "A 1 B 1", "A 2 B 1")
    written("pairsDevTrain.txt", "C 1 2", "D 1 2", "C 1 D 1", "A 1 C 1")
    assert len(load_pair_set("v", tmp_path, test, find_images=False).dev_train) == 4
    written("pairsDevTrain.txt", "A 2 1", "D 1 2", "C 1 D 1", "B 1 A 2")
    with pytest.raises(
        UserError, match=r"pairsDevTrain.txt: has 2 of the 4 pairs of .*pairsDevTest.txt · allowed: other"
    ):
        load_pair_set("v", tmp_path, test, find_images=False)
    written("pairsDevTrain.txt", "C 1 2", "D 1 2", "C 1 D 1", "C 2 C 1")
    with pytest.raises(UserError, match=r"pairsDevTrain.txt: got .* as one person and as two people, 1 such pair"):
        load_pair_set("v", tmp_path, test, find_images=False)
    written("pairsDevTrain.txt", "C 1 2", "D 1 2", "C 1 D 1", "C 1 D 1")
    load_pair_set("v", tmp_path, test, find_images=False)  # a pair twice is no contradiction


def test_a_published_bin_is_warned_of_and_read(tmp_path, said):
    images = [write_image(tmp_path / f"{k}.png", noise(k)).read_bytes() for k in range(40)]
    images[2:4] = images[:2][::-1]
    same = [k % 2 == 0 for k in range(20)]
    (tmp_path / "x.bin").write_bytes(pickle.dumps((images, same)))
    assert len(load_pair_set("x", tmp_path, tmp_path / "x.bin").pairs) == 20
    assert "x.bin: got 000001 with 000000 as one person and as two people, 1 such pair" in said.text
    assert "allowed: one label for a pair · images of equal bytes are one image" in said.text


def test_pairs_that_occur_again_are_counted_with_those_in_another_fold(said):
    left, right, fold = np.array([1, 2, 5, 1, 7]), np.array([2, 1, 6, 2, 8]), np.array([1, 1, 1, 2, 2])
    check_labels(Path("l"), left, right, np.ones(5, dtype=bool), NAMES, fold=fold)
    assert "l: 2 of 5 pairs repeat an earlier pair, 1 of them in a fold that chooses their threshold" in said.text
    said.clear()
    check_labels(Path("l"), left[1:3], right[1:3], np.ones(2, dtype=bool), NAMES, fold=fold[1:3])
    assert not said.text


@pytest.mark.parametrize("form", ["pairs", "groups"])
def test_a_list_with_the_same_pairs_in_every_fold_is_warned_of(tmp_path, said, form):
    group = " g{}" if form == "groups" else ""
    lines = [
        f"{a} {b} {label}{group.format(k)} {fold}"
        for k in range(2)
        for fold in (1, 2)
        for a, b, label in (("a/1.jpg", "a/2.jpg", 1), ("a/1.jpg", "b/1.jpg", 0))
        if group or not k
    ]
    (tmp_path / "l.txt").write_text("\n".join(lines), encoding="utf-8")
    load_set("s", Places(form, (tmp_path, tmp_path / "l.txt")), find_images=False)
    assert "l.txt: 2 of 4 pairs repeat an earlier pair, 2 of them in a fold that chooses" in said.text


def said_of_folders(said, names, same, wrong=()):
    """What is said of all pairs of the names, with these labels inverted."""
    left, right = np.triu_indices(len(names), k=1)
    labels = np.array([same(names[a], names[b]) for a, b in zip(left, right, strict=True)])
    labels[list(wrong)] ^= True
    said.clear()
    check_folders(Path("l"), left, right, labels, names)
    return said.messages


def test_labels_that_contradict_the_folders_are_counted(said):
    names = [f"p{k}/{i}.jpg" for k in range(4) for i in range(4)]  # 24 genuine pairs, 96 of two people
    same = lambda a, b: a[:2] == b[:2]  # noqa: E731
    line = (
        "l: {} of 120 labels contradict the folders of their images, the first that of p0/{}.jpg with {}.jpg as {} "
        "· if each folder is one person, correct the list"
    )
    assert said_of_folders(said, names, same) == []
    assert said_of_folders(said, names, same, [3]) == [line.format(1, 0, "p1/0", "one person")]
    assert said_of_folders(said, names, same, [0, 3, 9]) == [line.format(3, 0, "p0/1", "two people")]
    assert said_of_folders(said, names, lambda a, b: a[3] == b[3]) == []  # folders are cameras
    assert said_of_folders(said, names, lambda a, b: not same(a, b)) == []
    flat = [name.replace("/", "_") for name in names]
    assert said_of_folders(said, flat, same) == []
    of_names = line.replace("folders", "names").replace("each folder is one", "the name before the number is the")
    assert said_of_folders(said, flat, same, [3]) == [
        of_names.replace("person, correct", "person's, correct")
        .format(1, 0, "p1_0", "one person")
        .replace("p0/", "p0_")
    ]
    assert said_of_folders(said, flat, lambda a, b: a[3] == b[3]) == []
    assert said_of_folders(said, [*flat[:-1], "other.jpg"], same, [3]) == []
    assert said_of_folders(said, [*flat[:-1], "p3/3.jpg"], same, [3]) == []
    above = [f"x/{name.replace('/', '/frontal/' if k % 2 else '/profile/')}" for k, name in enumerate(names)]
    person = lambda a, b: a[2:4] == b[2:4]  # noqa: E731
    assert said_of_folders(said, above, person) == []
    assert len(said_of_folders(said, above, person, [3])) == 1
    sessions = [f"{name[:2]}-{k % 2}/{name[3:]}" for k, name in enumerate(names)]  # two folders a person
    assert said_of_folders(said, sessions, same) == []
    within = [f"s{k % 4 // 3}/{name}" for k, name in enumerate(names)]  # people within sessions, of which one is small
    assert said_of_folders(said, within, lambda a, b: a[3:5] == b[3:5]) == []


def test_a_list_whose_labels_slipped_is_named(tmp_path, said):
    rows = [(f"p{k}/1.jpg", f"p{k + d}/2.jpg", 1 - d) for d in (0, 1) for k in range(20)]
    labels = [same for *_, same in rows]
    for slip, number in ((0, 0), (3, 1)):
        slipped = labels[slip:] + labels[:slip]
        text = "".join(f"{a},{b},{same}\n" for (a, b, _), same in zip(rows, slipped, strict=True))
        (tmp_path / "pairs.csv").write_text(text)
        load_pair_set("x", tmp_path, tmp_path / "pairs.csv", find_images=False)
        assert sum("6 of 40 labels contradict" in line for line in said.messages) == number
