import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from eval_lfw import main
from sphereface.checkpoint import sha256_of
from sphereface.errors import UserError
from sphereface.evaluation.calibration import (
    Calibration,
    Threshold,
    calibration_path,
    fit_calibration,
    platt,
    read_calibration,
    write_calibration,
)

from .checkpoints import write_checkpoint
from .crops import write_set

SHA = "ab" * 32


def made_up(genuine=300, impostor=600, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0.5, 0.15, genuine), rng.normal(0.1, 0.15, impostor)])
    return scores, np.arange(genuine + impostor) < genuine


def fit(scores, same):
    return fit_calibration(scores, same, checkpoint_sha256=SHA, flip=True, source="pairs.txt")


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
    assert calibration.at() == calibration.thresholds[-1]
    assert calibration.at(0.05) == calibration.thresholds[1]
    for far in (0.001, 0.03, 0.2):  # none for another
        with pytest.raises(
            UserError, match=rf"FAR: got {far} · allowed: 0.1, 0.05, 0.02 \(what pairs.txt can resolve\)"
        ):
            calibration.at(far)


def test_what_cannot_be_calibrated_is_refused():
    scores, same = made_up()
    with pytest.raises(UserError, match="99 impostor pairs · a threshold at FAR 0.1"):
        fit(scores[: 300 + 99], same[: 300 + 99])
    with pytest.raises(UserError, match="genuine pairs score no higher"):
        fit(-scores, same)


def test_a_pair_without_a_score_is_no_evidence():
    scores, same = made_up()
    more, kinds = np.append(scores, np.nan), np.append(same, True)
    assert fit(more, kinds).slope == pytest.approx(fit(scores, same).slope, rel=1e-9)


def test_a_file_belongs_to_one_checkpoint(tmp_path):
    path = tmp_path / "best.calibration.json"
    write_calibration(known(), path)
    assert read_calibration(path, checkpoint_sha256=SHA, flip=True) == known()
    with pytest.raises(UserError, match=r"made for another checkpoint \(SHA-256 abababababab…, this one has cdcd"):
        read_calibration(path, checkpoint_sha256="cd" * 32, flip=True)
    with pytest.raises(UserError, match="made with mirror images, embeddings here are without"):
        read_calibration(path, checkpoint_sha256=SHA, flip=False)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"format": 2}', '{"format": 1, "slope": "steep", "offset": 0, "prior": 0.5}']
)
def test_a_damaged_file_is_one_line(tmp_path, text):
    path = tmp_path / "best.calibration.json"
    path.write_text(text)
    with pytest.raises(UserError, match="not a calibration .* · make one: sphereface eval"):
        read_calibration(path, checkpoint_sha256=SHA, flip=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_calibration(tmp_path / "none.json", checkpoint_sha256=SHA, flip=True)


def test_eval_writes_it_beside_the_checkpoint(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "run" / "best.pt")
    before = sha256_of(checkpoint)
    write_set(tmp_path / "crops", people=20, pictures=6)
    files = ["--ckpt", checkpoint, "--lfw", tmp_path / "crops", "--pairs", tmp_path / "crops/pairs.txt"]
    arguments = [str(part) for part in (*files, "--device", "cpu", "--calibrate", "--no-flip")]
    assert main(arguments) == 0, capsys.readouterr().err
    path = calibration_path(checkpoint)
    assert path == tmp_path / "run" / "best.calibration.json"
    assert str(path) in capsys.readouterr().out
    calibration = read_calibration(path, checkpoint_sha256=before, flip=False)
    assert calibration.prior == 0.5
    assert sha256_of(checkpoint) == before
    written = json.loads((tmp_path / "run/eval-pairs/verification.json").read_text(encoding="utf-8"))
    assert written["checkpoint_sha256"] == before
    sets = [f"a={tmp_path / 'crops'}", f"b={tmp_path / 'crops'}"]
    assert main(["--ckpt", str(checkpoint), "--sets", *sets, "--device", "cpu", "--calibrate"]) == 2
    assert "--calibrate: got a, b · allowed: one set, of pairs of images" in capsys.readouterr().err
    assert main(["--compare", str(checkpoint), str(checkpoint), "--calibrate"]) == 2
    assert "leave --identification, --all-pairs, --html and --calibrate out" in capsys.readouterr().err
