from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sphereface.data.pairs import read_pairs
from sphereface.errors import UserError
from sphereface.evaluation import Embeddings, load_set, parse_sets, register_protocol
from sphereface.evaluation.people import people_of, people_of_names
from sphereface.evaluation.protocols import PROTOCOLS
from sphereface.evaluation.variants import plain_variants
from sphereface.places import Places, check_set_name, check_set_names, parse_places, places_text

from .crops import random_pairs, write_set


def test_a_folder_alone_and_with_its_list(tmp_path):
    root = write_set(tmp_path / "crops")
    own, other = parse_sets([f"own={root}", f"other={root},{root}/pairsDevTest.txt"])
    assert (own.name, own.images.root, own.pairs.num_folds) == ("own", root, 2)
    assert (other.pairs.num_folds, other.dev_train is not None) == (0, True)


@pytest.mark.parametrize("text", ["lfw", "=crops", "lfw=", "lfw=a,", "lfw=a,,b", "a/b=crops", ".x=crops"])
def test_another_form_is_an_error(text):
    with pytest.raises(UserError, match="(?s)--sets: got '.*': .* · allowed .*NAME=pairs:DIR"):
        parse_sets([text])


def test_a_name_given_twice(tmp_path):
    root = write_set(tmp_path / "crops")
    with pytest.raises(UserError, match="--sets: got 'a' twice"):
        parse_sets([f"a={root}", f"a={root}"])


def test_the_grammar_of_places():
    assert parse_places("tinyface:/data/tiny") == Places("tinyface", (Path("/data/tiny"),))
    assert parse_places("a/b,c:d") == Places(None, (Path("a/b"), Path("c:d")))
    assert parse_places("https://x") == Places(None, (Path("https://x"),))
    assert parse_places("C:/crops") == Places(None, (Path("C:/crops"),))
    assert parse_places("x:y\\,z,p\\,.txt") == Places(None, (Path("x:y,z"), Path("p,.txt")))


@pytest.mark.parametrize("kind", [None, "pairs"])
@pytest.mark.parametrize("paths", [("a,b", "p.txt"), (",",), ("tiny:x", "c d"), ("a,,b,", ",c")])
def test_the_text_of_places_is_read_back(kind, paths):
    places = Places(kind, tuple(map(Path, paths)))
    assert parse_places(places_text(places)) == places


ODD_NAMES = ["a\nb", " a", "a ", "a\x1b[1m", "\u2028", "a" * 101, "\udce9", None, True, ("a",), "..", "a/b"]


@pytest.mark.parametrize("name", ["a\\b", "a\0b", "", 3, *ODD_NAMES])
def test_a_name_that_is_no_folder(name):
    with pytest.raises(UserError, match="allowed: a text without slashes"):
        check_set_name(name)


def test_names_whose_results_would_take_one_place():
    check_set_names(["lfw", "cfp-fp", "cfp_fp.112", "Zoë 2", "a" * 100])
    for two in (["LFW", "lfw"], ["a b", "a_b"], ["a:b", "a?b"], ["x", "É", "é"]):
        with pytest.raises(UserError, match=r"got the names '.*' and '.*' · allowed: names that differ in more than"):
            check_set_names(two)
    with pytest.raises(UserError, match="got the name 3"):
        check_set_names(["a", 3])


def test_two_sets_of_one_place_on_the_command_line(tmp_path):
    root = write_set(tmp_path / "crops")
    with pytest.raises(UserError, match="--sets: got 'A=.*: got the names 'a' and 'A'"):
        parse_sets([f"a={root}", f"A={root}"])


@pytest.mark.parametrize("place", ["n" * 300, "a\0b"])
@pytest.mark.parametrize("kind", ["", "groups:", "tinyface:", "ijb:", "all-pairs:"])
def test_a_place_that_nobody_can_look_at(place, kind):
    with pytest.raises(UserError, match=r"^x: .*: cannot be read \((File name too long|embedded null byte)\)$"):
        load_set("x", parse_places(f"{kind}{place}"))


@pytest.mark.parametrize("kind", ["Faces9", "x", "9faces", "pairs", "my_faces"])
def test_a_kind_that_no_text_can_name(kind):
    with pytest.raises(UserError, match="register_protocol: got"):
        register_protocol(kind)
    assert kind == "pairs" or kind not in PROTOCOLS


def test_an_unknown_kind(tmp_path):
    with pytest.raises(UserError, match="x: got the kind 'tinyfce' · did you mean 'tinyface'"):
        load_set("x", parse_places(f"tinyfce:{tmp_path}"))


def test_who_is_on_each_side(tmp_path):
    pairs = read_pairs(write_set(tmp_path / "crops") / "pairs.txt")
    left, right = people_of(pairs)
    assert (left == right).tolist() == pairs.same.tolist()
    for rows, person in ((pairs.left, left), (pairs.right, right)):
        assert [f"P{p}" for p in person] == [pairs.names[row].split("/")[0] for row in rows]


def test_names_that_do_not_say_who():
    assert people_of_names(["000001", "000002"]) is None
    assert people_of_names(["B/B_0001.jpg", "A/x/1.jpg", "B/2.jpg"]).tolist() == [1, 0, 1]
    assert people_of(random_pairs(0)) is None  # one folder for all, but pairs of two people


@pytest.mark.parametrize("genuine_first", [False, True])
def test_variants_by_hand(genuine_first):
    """Two folds, in the list's order or not; features of image and mirror image joined."""
    pairs = random_pairs(1, num_folds=2, num_each=10)
    if genuine_first:
        order = np.argsort(~pairs.same, kind="stable")
        columns = {name: getattr(pairs, name)[order] for name in ("left", "right", "same", "fold")}
        pairs = replace(pairs, **columns)
    features = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    insightface, uncentred, best = plain_variants(Embeddings(features[:, :4], features[:, 4:]), pairs)
    x = features[:, :4].astype(float) + features[:, 4:]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    distances = ((x[pairs.left] - x[pairs.right]) ** 2).sum(axis=1)
    accuracies = []
    for fold in (1, 2):
        test = pairs.fold == fold
        grid = np.arange(0, 4, 0.01)
        right = [np.mean((distances < t)[~test] == pairs.same[~test]) for t in grid]
        accuracies.append(np.mean((distances < grid[int(np.argmax(right))])[test] == pairs.same[test]))
    assert (insightface.accuracy, insightface.spread) == pytest.approx((np.mean(accuracies), np.std(accuracies)))
    assert [variant.name for variant in (insightface, uncentred, best)] == [
        "insightface",
        "uncentred",
        "best-threshold",
    ]
    assert "optimistic" in best.rule
    assert best.accuracy >= uncentred.accuracy
    plain, *_ = plain_variants(Embeddings(features), pairs)
    assert plain.rule.startswith("InsightFace: image,")
    for inside, said in (("add", "image + mirror image"), ("join", "image and mirror image joined")):
        row, *_ = plain_variants(Embeddings(features, inside=inside), pairs)
        assert (row.rule.split(",")[0], row.accuracy) == (f"InsightFace: {said}", plain.accuracy)


def test_without_folds_only_the_optimistic_one():
    pairs = random_pairs(1, num_folds=0)
    (only,) = plain_variants(Embeddings(np.random.default_rng(0).standard_normal((12, 8))), pairs)
    assert (only.name, only.spread) == ("best-threshold", None)
