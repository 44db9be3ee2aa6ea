"""What ``eval`` says beside its figures: people of the training set, replaced results, a moved calibration."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from eval_lfw import main
from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.evaluation import calibration
from sphereface.evaluation.replaced import replaced_results, replaced_suite
from sphereface.evaluation.shared_people import identities_of, shared_people

from .checkpoints import write_checkpoint
from .crops import write_set


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """A set of P0 … P7."""
    return write_set(tmp_path_factory.mktemp("set") / "crops")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A set with as many pairs as a calibration needs."""
    return write_set(tmp_path_factory.mktemp("many") / "crops", people=36)


def trained_on(path, *names, **meta):
    """A checkpoint that names the identities of its training set."""
    write_checkpoint(path)
    state = {key: value for key, value in load_checkpoint(path).items() if key not in ("format", "id")}
    state["meta"] |= {"class_names": list(names), **meta}
    save_checkpoint(path, state, {})
    return path


def write_table(path, crops, seed=0):
    names = sorted(file.relative_to(crops).as_posix() for file in crops.rglob("*.jpg"))
    rng = np.random.default_rng(seed)
    np.savez(path, names=names, embeddings=rng.standard_normal((32, 4)), mirror=rng.standard_normal((32, 4)))
    return path


def run(capsys, *argv):
    assert main([str(part) for part in argv]) == 0
    return capsys.readouterr()


def warnings(said):
    return [line for line in said.err.splitlines() if line.startswith("warning")]


def replaced(said):
    return [line for line in said.out.splitlines() if line.startswith("replaced")]


def test_people_of_the_training_set_are_a_warning(many, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "_SURE", -10)  # a network that was not trained knows nothing
    known, other = trained_on(tmp_path / "known.pt", "Q", "P3", "P5"), trained_on(tmp_path / "other.pt", "Q")
    place = ["--sets", f"mine={many}", "--device", "cpu"]
    line = (
        "warning: mine: 2 people have the names of identities in the training set of known.pt, such as 'P3': if they "
        "are the same people, its figures will be too good · evaluate other people"
    )
    assert warnings(run(capsys, "--ckpt", known, *place)) == [line]
    assert warnings(run(capsys, "--ckpt", other, *place)) == []
    numbered = trained_on(tmp_path / "numbered.pt", "P3", numbered=[""])  # only numbers of identities
    assert warnings(run(capsys, "--ckpt", numbered, *place)) == []
    assert warnings(run(capsys, "--compare", other, known, *place)) == [line]
    first, second = warnings(run(capsys, "--ckpt", known, *place, "--calibrate"))
    assert first == line
    assert second == (
        "warning: --calibrate: if so, its thresholds are too low for all others, and verify accepts more strangers "
        "than --far allows · calibrate with people who are not in the training set"
    )
    assert warnings(run(capsys, "--ckpt", other, *place, "--calibrate")) == []


def test_people_of_a_further_protocol_count_too(crops, tmp_path, capsys):
    few = [(p, 1, p, 2, 1) for p in range(2)] + [(0, k, 1, k, 0) for k in (1, 2)]
    lines = [f"P{p}/P{p}_000{i}.jpg P{q}/P{q}_000{j}.jpg {same}\n" for p, i, q, j, same in few]
    (tmp_path / "few.txt").write_text("".join(lines))
    place = ["--sets", f"mine={crops},{tmp_path / 'few.txt'}", "--device", "cpu"]
    known = trained_on(tmp_path / "known.pt", "P5")
    assert warnings(run(capsys, "--ckpt", known, *place)) == []
    assert "1 person has the name of an identity" in warnings(run(capsys, "--ckpt", known, *place, "--all-pairs"))[0]


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ({"class_names": ["0", "7", "Bo"], "numbered": []}, "2 people"),
        ({"class_names": ["0", "7"], "numbered": [""]}, ""),  # a .rec without names
        ({"class_names": ["0", "7"]}, ""),  # of an earlier version: perhaps such a .rec
        ({"class_names": ["0", "7", "Ann"]}, "1 person"),
        ({"class_names": ["web/0", "own/Ann", "own/7"]}, "2 people"),
        ({"class_names": ["web/0", "own/Ann"], "numbered": ["web"]}, "1 person"),
        ({"class_names": ["web/0", "own/Ann"], "numbered": []}, "2 people"),
        ({}, ""),
    ],
)
def test_numbers_of_two_sets_have_nothing_to_do_with_each_other(meta, found):
    text = shared_people(identities_of(meta), ["0/a.jpg", "7/b.jpg", "Ann/c.jpg"], "x")
    assert text.startswith(found)
    assert bool(text) == bool(found)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (["x/Ann/frontal/1.jpg"], "1 person"),
        (["x/y/Ann/a/b/1.jpg", "x/y/Bo/a/b/1.jpg"], "2 people"),
        (["x/Cy/frontal/Ann.jpg"], ""),  # a file is no folder
    ],
)
def test_any_folder_of_an_image_may_name_its_person(images, found):
    text = shared_people(identities_of({"class_names": ["Ann", "Bo"], "numbered": []}), images, "x")
    assert text.startswith(found)
    assert bool(text) == bool(found)


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ({"more_people": ["Ann"]}, "1 person"),  # joined of other people
        ({"class_names": ["7", "Bo"], "numbered": [], "more_people": ["Ann"]}, "2 people"),
        ({"class_names": ["7", "8"], "numbered": [""], "more_people": ["Ann"]}, "1 person"),
        ({"class_names": ["web/0", "own/7"], "numbered": ["web"], "more_people": ["Ann"]}, "2 people"),
        ({"class_names": ["Ann"], "numbered": [], "more_people": ["Bo"]}, "1 person"),
    ],
)
def test_people_of_an_earlier_or_another_network_count_too(meta, found):
    text = shared_people(identities_of(meta), ["0/a.jpg", "7/b.jpg", "Ann/c.jpg"], "x")
    assert text.startswith(found)


def test_a_network_that_was_trained_before_names_both_training_sets(crops, tmp_path, capsys):
    known = trained_on(tmp_path / "known.pt", "Q", more_people=["P3"])
    (line,) = warnings(run(capsys, "--ckpt", known, "--sets", f"mine={crops}", "--device", "cpu"))
    assert "1 person has the name of an identity in the training sets of known.pt, such as 'P3': " in line


def test_results_of_another_set_or_rule_that_are_replaced_are_named(crops, tmp_path, capsys):
    table, out = write_table(tmp_path / "t.npz", crops), tmp_path / "out"
    lines = (crops / "pairs.txt").read_text().splitlines()
    (tmp_path / "other").mkdir()
    one, other = crops / "pairs.txt", tmp_path / "other" / "pairs.txt"
    other.write_text("\n".join([lines[0], *lines[1:13][::-1], *lines[13:]]) + "\n")  # as many pairs of each kind

    def said(pairs, *more):
        return replaced(run(capsys, "--embeddings", table, "--lfw", crops, "--pairs", pairs, "--output", out, *more))

    assert (said(one), said(one)) == ([], [])
    assert said(other) == [f"replaced: results of other pairs or images, {str(one)!r} · --output DIR keeps both"]
    other.write_bytes(one.read_bytes())
    assert said(one) == [f"replaced: results of other pairs or images, {str(other)!r} · --output DIR keeps both"]
    assert said(other) == []  # the same list elsewhere
    assert said(one, "--no-mean") == ["replaced: results with subtract_mean True, now False · --output DIR keeps both"]
    assert said(one, "--no-mean", "--mirror", "none") == [
        "replaced: results with mirror 'join', now 'none' · --output DIR keeps both"
    ]
    place = ["--embeddings", table, "--output", tmp_path / "sets", "--sets"]
    assert replaced(run(capsys, *place, f"mine={crops}")) == []
    assert replaced(run(capsys, *place, f"mine={crops},{crops / 'pairsDevTest.txt'}")) == [
        f"replaced: results of other pairs or images, {str(one)!r} · --output DIR keeps both"
    ]


def test_a_comparison_says_of_what_it_is_and_names_a_replaced_one(crops, tmp_path, capsys):
    tables = [write_table(tmp_path / f"{name}.npz", crops, seed) for seed, name in enumerate("abc")]
    place = ["--lfw", crops, "--pairs", crops / "pairs.txt", "--output", tmp_path / "out"]

    def said(one, other, *more):
        return replaced(run(capsys, "--compare", tables[one], tables[other], *place, *more))

    assert (said(0, 1), said(0, 1)) == ([], [])
    written = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    for side, table in zip("ab", tables, strict=False):
        facts = written[side]
        assert facts["embeddings_sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
        assert (facts["embeddings"], facts["pairs"]) == (str(table), str(crops / "pairs.txt"))
        assert (facts["subtract_mean"], facts["mirror"], facts["images"]) == (True, "join", str(crops))
    assert said(0, 2) == [f"replaced: a comparison, B of another file, {str(tables[1])!r} · --output DIR keeps both"]
    assert said(0, 2, "--no-mean") == [
        "replaced: a comparison, A with subtract_mean True, now False · --output DIR keeps both"
    ]
    (tmp_path / "out" / "compare.json").write_text('{"verdict": "noise"}')  # of an earlier version
    assert said(0, 1) == []


def test_changed_images_of_a_set_are_other_images(crops, tmp_path, capsys):
    own, checkpoint = write_set(tmp_path / "own"), write_checkpoint(tmp_path / "best.pt")
    command = ["--ckpt", checkpoint, "--sets", f"mine={own}", "--device", "cpu"]
    assert (replaced(run(capsys, *command)), replaced(run(capsys, *command))) == ([], [])
    (own / "P0" / "P0_0001.jpg").write_bytes((own / "P1" / "P1_0001.jpg").read_bytes())
    (line,) = replaced(run(capsys, *command))
    assert line.startswith("replaced: results of other pairs or images, ")


def test_reports_of_earlier_versions_and_other_protocols():
    def said(before, after):
        return replaced_results({"verification.json": before}, {"verification.json": after})

    counts = {"num_images": 3, "num_genuine": 2, "num_impostor": 2}
    assert said({**counts, "pairs": "a/p.txt"}, {**counts, "pairs": "/x/a/p.txt", "set_digest": "ab"}) == ""
    assert "of other pairs or images, 'p.txt'" in said({**counts, "num_images": 4, "pairs": "p.txt"}, counts)
    assert "with precision 'fp32', now 'bf16'" in said({"precision": "fp32"}, {"precision": "bf16"})
    assert "of another protocol, tinyface.json" in replaced_results({"tinyface.json": {}}, {"verification.json": {}})


def test_a_replaced_suite_of_other_sets_is_named(crops, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).symlink_to(crops)
    table = write_table(tmp_path / "t.npz", crops)

    def said(name):
        return replaced(run(capsys, "--embeddings", table, "--suite", tmp_path / name, "--output", tmp_path / "out"))

    assert (said("one"), said("one")) == ([], [])
    assert said("two") == ["replaced: the table of other sets: one · --output DIR keeps both"]
    assert replaced_suite({"suite.json": {"sets": 5}}, {"suite.json": {"sets": {}}}) == ""


def test_the_calibration_of_the_network_that_ships_names_its_option(many, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "_SURE", -10)
    shipped = write_checkpoint(tmp_path / "weights" / "sphere10-small.pt")
    monkeypatch.setattr("sphereface.weights.CHECKPOINT", shipped)
    monkeypatch.chdir(tmp_path)
    place = ["--sets", f"mine={many}", "--device", "cpu", "--calibrate"]
    path = "runs/sphere10-small/sphere10-small.calibration.json"
    said = run(capsys, "--ckpt", shipped, *place).out
    assert f"written: {path} · to use it: sphereface verify a.jpg b.jpg --calibration {path}\n" in said
    own = write_checkpoint(tmp_path / "best.pt")
    assert f"written: {tmp_path / 'best.calibration.json'}\n" in run(capsys, "--ckpt", own, *place).out
