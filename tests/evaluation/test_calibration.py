import contextlib
import json
import math
import os
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from eval_lfw import main
from sphereface.api import FaceEmbedder
from sphereface.checkpoint import sha256_of
from sphereface.errors import UserError
from sphereface.evaluation import Embedder
from sphereface.evaluation.calibration import (
    Calibration,
    Threshold,
    calibration_path,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from sphereface.evaluation.platt import platt

from .checkpoints import write_checkpoint
from .crops import noise, write_set

SHA = "ab" * 32


def made_up(genuine=300, impostor=600, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0.5, 0.15, genuine), rng.normal(0.1, 0.15, impostor)])
    return scores, np.arange(genuine + impostor) < genuine


def fit(scores, same):
    return fit_calibration(scores, same, checkpoint_sha256=SHA, mirror="join", source="pairs.txt")


def known(**changes):
    values = {"slope": 8.0, "offset": -3.0, "prior": 0.5, "thresholds": (Threshold(0.1, 0.4, 0.9, 600),)}
    return Calibration(SHA, True, "pairs.txt", **{**values, **changes})


def test_platt_is_weighted_logistic_regression():
    scores, same = made_up()
    n, m = same.sum(), (~same).sum()
    target = np.where(same, (n + 1) / (n + 2), 1 / (m + 2))
    # a soft target is the pair twice, once of either kind, weighted
    x, y = np.concatenate([scores, scores])[:, None], np.repeat([1, 0], len(scores))
    oracle = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000)
    oracle.fit(x, y, sample_weight=np.concatenate([target, 1 - target]))
    slope, offset = platt(scores, same)
    assert slope == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    assert offset == pytest.approx(oracle.intercept_[0], rel=1e-4)


def test_platt_stays_finite_where_the_kinds_do_not_overlap():
    slope, offset = platt(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert 0 < slope < 100
    assert math.isfinite(offset)


def test_probabilities_are_frequencies():
    scores, same = made_up(20_000, 60_000, seed=1)
    calibration = fit(scores, same)
    assert calibration.prior == 0.25
    p = np.array([calibration.probability(s) for s in scores])
    for low in (0.1, 0.3, 0.5, 0.7):
        within = (p >= low) & (p < low + 0.2)
        assert same[within].mean() == pytest.approx(p[within].mean(), abs=0.03)


def test_the_prior_moves_the_odds_and_nothing_else():
    calibration = known(prior=0.25)
    odds = [p / (1 - p) for p in (calibration.probability(0.3), calibration.probability(0.3, 0.01))]
    assert odds[0] == pytest.approx(math.exp(8 * 0.3 - 3))
    assert odds[1] / odds[0] == pytest.approx((0.01 / 0.99) / (0.25 / 0.75))
    assert calibration.probability(0.3, 0.25) == pytest.approx(calibration.probability(0.3))
    with pytest.raises(UserError, match="prior: got 1 · allowed: a number between 0 and 1"):
        calibration.probability(0.3, 1)


def test_thresholds_let_as_many_impostors_pass_as_they_say():
    scores, same = made_up()
    calibration = fit(scores, same)
    assert [point.far for point in calibration.thresholds] == [0.1, 0.05, 0.02]  # of 600: 60, 30, 12; then 6
    for point in calibration.thresholds:
        assert (scores[~same] > point.threshold).sum() == round(600 * point.far)
        assert (scores[same] > point.threshold).mean() == pytest.approx(point.tar)
    assert calibration.at(0.05) == calibration.thresholds[1]
    for far in (0.001, 0.03, 0.2):  # none for another
        with pytest.raises(UserError, match=rf"FAR: got {far} · allowed: 0.1, 0.05, 0.02, which pairs.txt resolves"):
            calibration.at(far)


@pytest.mark.parametrize(
    ("tars", "far", "weak"),
    [
        ([0.99, 0.95, 0.91, 0.9], 0.01, False),  # the lowest that accepts nine in ten
        ([0.99, 0.95, 0.91, 0.8999], 0.02, False),
        ([0.9, 0.5, 0.4, 0.16], 0.1, False),
        ([0.89, 0.5, 0.4, 0.16], 0.1, True),  # none does
    ],
)
def test_a_decision_at_no_stated_rate_accepts_nine_in_ten_genuine_pairs(tars, far, weak):
    rates = (0.1, 0.05, 0.02, 0.01)
    points = tuple(Threshold(rate, 0.4, tar, 1000) for rate, tar in zip(rates, tars, strict=True))
    point = known(thresholds=points).at()
    assert (point.far, point.weak) == (far, weak)


def test_a_rate_rests_on_ten_impostor_pairs(tmp_path):
    path = tmp_path / "best.calibration.json"
    for far, num, fits in ((0.1, 100, True), (0.1, 99, False), (1e-5, 1_000_000, True), (1e-5, 100, False)):
        path.write_text(json.dumps(stored(thresholds=[point(far=far, num_impostor=num)])))
        if fits:
            assert read_calibration(path, checkpoint_sha256=SHA, mirror="join").thresholds[0].far == far
        else:
            with pytest.raises(UserError, match="far × num_impostor is below 10, too few impostor pairs"):
                read_calibration(path, checkpoint_sha256=SHA, mirror="join")


@pytest.mark.parametrize("change", [{"far": 0.1}, {"far": 0.2}, {"tar": 0.95}, {"threshold": 0.39}])
def test_a_lower_rate_has_no_lower_threshold_and_no_higher_tar(tmp_path, change):
    path = tmp_path / "best.calibration.json"
    second = {"far": 0.05, "threshold": 0.4, "tar": 0.9}
    path.write_text(json.dumps(stored(thresholds=[point(), point(**second)])))
    assert len(read_calibration(path, checkpoint_sha256=SHA, mirror="join").thresholds) == 2
    path.write_text(json.dumps(stored(thresholds=[point(), point(**{**second, **change})])))
    with pytest.raises(UserError, match=r"thresholds: far .* after 0.1 · allowed: far decreases from each to the next"):
        read_calibration(path, checkpoint_sha256=SHA, mirror="join")


def test_what_cannot_be_calibrated_is_refused():
    scores, same = made_up()
    with pytest.raises(UserError, match="got 99 impostor pairs · allowed: 100 or more, for a threshold at FAR 0.1"):
        fit(scores[: 300 + 99], same[: 300 + 99])
    with pytest.raises(UserError, match="genuine pairs do not score higher"):
        fit(-scores, same)


def test_a_pair_without_a_score_is_no_evidence():
    scores, same = made_up()
    more, kinds = np.append(scores, np.nan), np.append(same, True)
    assert fit(more, kinds).slope == pytest.approx(fit(scores, same).slope, rel=1e-9)


def test_a_file_belongs_to_one_checkpoint(tmp_path):
    path = tmp_path / "best.calibration.json"
    write_calibration(known(), path)
    assert read_calibration(path, checkpoint_sha256=SHA, mirror="join") == known()
    with pytest.raises(UserError, match=r"made for another checkpoint \(SHA-256 abababababab…, this one has cdcd"):
        read_calibration(path, checkpoint_sha256="cd" * 32, mirror="join")


WORDS = {
    "join": "with mirror images joined",
    "add": "with mirror images added",
    "none": "without mirror images",
}


@pytest.mark.parametrize("made", WORDS)
@pytest.mark.parametrize("wanted", WORDS)
def test_a_file_belongs_to_one_use_of_mirror_images(tmp_path, made, wanted):
    path = tmp_path / "best.calibration.json"
    scores, same = made_up()
    calibration = fit_calibration(scores, same, checkpoint_sha256=SHA, mirror=made, source="pairs.txt")
    assert (calibration.mirror, calibration.flip) == (made, made != "none")
    write_calibration(calibration, path)
    if made == wanted:
        assert read_calibration(path, checkpoint_sha256=SHA, mirror=wanted) == calibration
    else:
        with pytest.raises(UserError) as raised:
            read_calibration(path, checkpoint_sha256=SHA, mirror=wanted)
        assert str(raised.value) == (
            f"{path}: made {WORDS[made]}, but these embeddings are {WORDS[wanted]} · make one: "
            f"sphereface eval --ckpt … --mirror {wanted} --calibrate"
            f"{', or omit --no-flip (flip=True)' if (made, wanted) == ('join', 'none') else ''}"
        )


def stored(**changes):
    return {"format": 1, **asdict(known()), "thresholds": [asdict(known().thresholds[0])], **changes}


def test_files_of_older_versions_joined(tmp_path):
    path = tmp_path / "best.calibration.json"
    for flip, mirror in ((True, "join"), (False, "none")):
        old = stored(flip=flip)
        del old["mirror"]
        path.write_text(json.dumps(old))
        assert read_calibration(path, checkpoint_sha256=SHA, mirror=mirror).mirror == mirror
        with pytest.raises(UserError, match="made with"):
            read_calibration(path, checkpoint_sha256=SHA, mirror="add")


def point(**changes):
    return {"far": 0.1, "threshold": 0.4, "tar": 0.9, "num_impostor": 600, **changes}


NOT_NUMBERS = [math.nan, math.inf, -math.inf, "0.4", None, True, [0.4], 10**400]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("slope", [*NOT_NUMBERS, 0, -1.0]),
        ("offset", [*NOT_NUMBERS, 1e9, -49.0]),  # beyond slope + 40 every pair has one probability
        ("prior", [*NOT_NUMBERS, 0, 1, -0.1, 1.1]),
        ("checkpoint_sha256", [None, 3, ["a"]]),
        ("source", [None, 3]),
        ("flip", [None, 1, "true"]),
        ("mirror", [None, "", "both", "none", True, ["join"]]),
        ("thresholds", [None, [], {}, "x", [3], [point(), point()], [point(far=0.1), point(far=0.2)]]),
        ("far", [*NOT_NUMBERS, -0.1, 1.1]),
        ("threshold", [*NOT_NUMBERS, -1.01, 1.01]),
        ("tar", [*NOT_NUMBERS, -0.1, 1.1]),
        ("num_impostor", [*NOT_NUMBERS[:-1], 0, -1, 1.5]),
        ("other", [1]),
    ],
)
def test_values_that_cannot_be_are_one_line(tmp_path, key, values):
    path = tmp_path / "best.calibration.json"
    path.write_text(json.dumps(stored()))
    assert read_calibration(path, checkpoint_sha256=SHA, mirror="join") == known()
    for value in values:
        changed = stored(thresholds=[point(**{key: value})]) if key in point() else stored(**{key: value})
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=r"not a calibration \(.* · make one: sphereface eval") as raised:
            read_calibration(path, checkpoint_sha256=SHA, mirror="join")
        assert len(str(raised.value).splitlines()) == 1
    if key != "mirror" and key != "other":
        changed = stored(thresholds=[{k: v for k, v in point().items() if k != key}])
        if key not in point():
            changed = {k: v for k, v in stored().items() if k != key}
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=rf"not a calibration \((thresholds\[0\]\.)?{key}: missing · allowed: "):
            read_calibration(path, checkpoint_sha256=SHA, mirror="join")


@pytest.mark.parametrize("prior", [0, 1, 1.5])
def test_the_bounds_of_the_prior_are_told_as_they_are(tmp_path, prior):
    (tmp_path / "x.json").write_text(json.dumps(stored(prior=prior)))
    line = f"prior: got {prior}, allowed: a number above 0 and below 1"
    with pytest.raises(UserError, match=line.replace(", allowed", "(,| ·) allowed")):
        read_calibration(tmp_path / "x.json", checkpoint_sha256=SHA, mirror="join")


@pytest.mark.parametrize(
    "changes",
    [
        {"slope": math.nan},
        {"offset": math.inf},
        {"thresholds": (Threshold(0.1, math.inf, 0.0, 600),)},
        {"thresholds": (Threshold(0.1, 0.4, math.nan, 600),)},
    ],
)
def test_what_is_not_finite_is_never_written(tmp_path, changes):
    path = tmp_path / "best.calibration.json"
    with pytest.raises(UserError, match=r"not written: [\w\[\].]+: got (nan|inf) · allowed: a number "):
        write_calibration(known(**changes), path)
    assert not path.exists()


def test_a_threshold_that_is_not_finite_is_left_out():
    scores, same = made_up()
    scores[-20:] = np.inf
    assert [each.far for each in fit(scores, same).thresholds] == [0.1, 0.05]  # of 600, 0.02 lets 12 pass
    scores[-70:] = np.inf
    with pytest.raises(UserError, match="530 impostor pairs · allowed: 100 or more"):
        fit(scores, same)


@pytest.mark.parametrize(("lost", "message"), [(True, "got 0 genuine and 600"), (False, "got 300 genuine and 0")])
def test_one_kind_without_any_score(lost, message):
    scores, same = made_up()
    scores[same == lost] = np.nan
    with pytest.raises(UserError, match=f"{message} impostor pairs with a score · allowed: one or more of each"):
        fit(scores, same)


def test_the_file_of_an_onnx_file_or_a_table_has_its_whole_name():
    assert calibration_path(Path("a/best.pt")) == Path("a/best.calibration.json")
    assert calibration_path(Path("a/best.npz"), is_checkpoint=False) == Path("a/best.npz.calibration.json")
    assert calibration_path(Path("a/best.onnx"), is_checkpoint=False) == Path("a/best.onnx.calibration.json")


def test_a_calibration_of_added_embeddings_is_not_for_verify(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "run" / "best.pt", input_size=(112, 96))
    write_set(tmp_path / "crops", people=20, images=6, height=112, width=96)
    files = ["--ckpt", checkpoint, "--lfw", tmp_path / "crops", "--pairs", tmp_path / "crops/pairs.txt"]
    arguments = [str(part) for part in (*files, "--device", "cpu", "--calibrate", "--mirror")]
    crop = noise(0, 112, 96)
    for mirror, flip in (("add", None), ("join", True), ("none", False)):
        assert main([*arguments, mirror]) == 0, capsys.readouterr().err
        for each in (True, False):
            embedder = FaceEmbedder(checkpoint, align=False, flip=each, device="cpu")
            if each == flip:
                assert embedder.verify(crop, crop).probability > 0
            else:
                assert embedder.verify(crop, crop).probability is None
                assert f"made {WORDS[mirror]}, but these embeddings are" in embedder.why_uncalibrated
                with pytest.raises(UserError, match=f"made {WORDS[mirror]}, but these embeddings are"):
                    embedder.verify(crop, crop, prior=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "slope": "steep", "offset": 0, "prior": 0.5}',
        "[" * 100_000,
        '{"a": ' * 100_000,
        '{"format": 1, "format": 1}',
        '{"format": true}',
        '{"format": 1, "slope": 1' + "0" * 5000 + "}",
        "3",
        "null",
        " " * (1 << 24) + "{}",
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, text):
    path = tmp_path / "best.calibration.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="not a calibration .* · make one: sphereface eval") as raised:
        read_calibration(path, checkpoint_sha256=SHA, mirror="join")
    assert len(str(raised.value)) < 600
    os.mkfifo(tmp_path / "fifo.json")  # opening it would wait for a writer
    with pytest.raises(UserError, match="cannot be read"):
        read_calibration(tmp_path / "fifo.json", checkpoint_sha256=SHA, mirror="join")
    with pytest.raises(UserError, match="cannot be read"):
        read_calibration(tmp_path / "none.json", checkpoint_sha256=SHA, mirror="join")


def test_eval_writes_it_beside_the_checkpoint(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "run" / "best.pt")
    before = sha256_of(checkpoint)
    write_set(tmp_path / "crops", people=20, images=6)
    files = ["--ckpt", checkpoint, "--lfw", tmp_path / "crops", "--pairs", tmp_path / "crops/pairs.txt"]
    arguments = [str(part) for part in (*files, "--device", "cpu", "--calibrate", "--no-flip")]
    assert main(arguments) == 0, capsys.readouterr().err
    path = calibration_path(checkpoint)
    assert path == tmp_path / "run" / "best.calibration.json"
    assert str(path) in capsys.readouterr().out
    calibration = read_calibration(path, checkpoint_sha256=before, mirror="none")
    assert calibration.prior == 0.5
    assert sha256_of(checkpoint) == before
    written = json.loads((tmp_path / "run/eval-pairs/verification.json").read_text(encoding="utf-8"))
    assert written["checkpoint_sha256"] == before
    sets = [f"a={tmp_path / 'crops'}", f"b={tmp_path / 'crops'}"]
    assert main(["--ckpt", str(checkpoint), "--sets", *sets, "--device", "cpu", "--calibrate"]) == 2
    assert "--calibrate: got a, b · allowed: one set, of pairs of images" in capsys.readouterr().err
    assert main(["--compare", str(checkpoint), str(checkpoint), "--calibrate"]) == 2
    assert re.search(r"^error: --compare: compares accuracies · .*--calibrate", capsys.readouterr().err)


def test_cosines_that_tell_nothing_are_refused():
    rng = np.random.default_rng(0)
    same = np.arange(3000) % 2 == 0
    refused = 0
    for _ in range(20):
        with contextlib.suppress(UserError):
            fit(rng.normal(0.3, 0.1, 3000), same)
            continue
        refused += 1
    assert refused >= 17  # by chance 1 in 44 is not
    even = np.repeat(rng.normal(0.3, 0.1, 1500), 2) + np.tile([1e-9, 0], 1500)  # AUC a little above 0.5
    with pytest.raises(UserError, match=r"pairs.txt: got AUC 0.500\d · allowed: above 0.5211, which chance"):
        fit(even, same)
    with pytest.raises(UserError, match="genuine pairs do not score higher"):
        fit(np.full(400, 0.5), np.arange(400) % 2 == 0)
    with pytest.raises(UserError, match="0 genuine and 0 impostor pairs with a score"):
        fit(np.full(400, np.nan), np.arange(400) % 2 == 0)
    assert fit(rng.normal(0.3, 0.1, 3000) + 0.02 * same, same).slope > 0  # little, and beyond chance


def test_a_pair_that_is_there_already_makes_no_threshold():
    scores, same = made_up(300, 100)
    scores, same = np.tile(scores, 2), np.tile(same, 2)
    options = {"checkpoint_sha256": SHA, "mirror": "join", "source": "pairs.txt"}
    assert [point.far for point in fit_calibration(scores, same, **options).thresholds] == [0.1, 0.05]
    (point,) = fit_calibration(scores, same, num_repeated=100, **options).thresholds
    assert (point.far, point.num_impostor) == (0.1, 100)


def test_a_file_of_somebody_else_is_no_place_for_a_calibration(tmp_path, capsys, monkeypatch):
    write_checkpoint(tmp_path / "best.pt")
    write_set(tmp_path / "crops")
    (tmp_path / "best.calibration.json").write_text('{"slope": 3, "mine": 1}', encoding="utf-8")
    monkeypatch.setattr(Embedder, "embed", None)  # refused before anything is embedded
    argv = ["--ckpt", str(tmp_path / "best.pt"), "--sets", f"own={tmp_path / 'crops'}", "--device", "cpu"]
    assert main([*argv, "--calibrate"]) == 2
    assert "--calibrate: got" in capsys.readouterr().err
    assert (tmp_path / "best.calibration.json").read_text(encoding="utf-8") == '{"slope": 3, "mine": 1}'
