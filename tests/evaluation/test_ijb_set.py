"""IJB-B and IJB-C as a set: golden values of InsightFace's own functions, and NIST's definitions by plain loops."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation import Embeddings, Rule, format_table, load_set, write_report
from sphereface.evaluation.result import Report
from sphereface.places import Places

pytestmark = pytest.mark.whole_report
GOLDEN = Path(__file__).parents[1] / "golden" / "ijb"
WHOLE = Path(__file__).parents[3] / "shared" / "golden" / "ijb" / "ijb.npz"
MODES = [f"N{n}D{d}F{f}" for n in (1, 0) for d in (1, 0) for f in (2, 1, 0)]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "ijb.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def embeddings(golden):
    features = golden["features"]
    return Embeddings(features[:, :32], features[:, 32:])


def load(*modes, folder=GOLDEN):
    return load_set("ijb", Places(None, (folder, *map(Path, modes))), find_images=False)


@pytest.fixture(scope="module")
def result(embeddings):
    return load().evaluate(embeddings, Rule())


def test_the_folder_is_recognised():
    loaded = load()
    assert (loaded.kind, loaded.files.name, len(loaded.images), len(loaded.pairs.same)) == ("ijb", "ijbx", 1223, 8628)
    assert loaded.images.names[0] == (GOLDEN / "ijbx_face_tid_mid.txt").read_text().split()[0]


def test_the_fields_figures_equal_its_own_code(golden, embeddings):
    modes = [mode for mode in MODES if f"{mode}.tpr_at_nearest_fpr" in golden]
    assert "N1D1F2" in modes
    check_field(golden, embeddings, modes)


@pytest.mark.skipif(not WHOLE.is_file(), reason=f"the values of all test modes are not at {WHOLE}")
def test_the_fields_figures_of_all_twelve_modes(embeddings):
    with np.load(WHOLE, allow_pickle=False) as file:
        check_field(dict(file), embeddings, MODES)


def check_field(golden, embeddings, modes):
    outcome = load(*modes).evaluate(embeddings, Rule())
    assert [each.mode for each in outcome.field] == modes
    for each in outcome.field:
        # the golden targets are 1e-4 … 1e-1, ours 1e-6 … 1e-1
        np.testing.assert_allclose(each.tpr[2:], golden[f"{each.mode}.tpr_at_nearest_fpr"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(each.top, golden[f"{each.mode}.top1_5_10"], rtol=0, atol=1e-12)
        found = [(point.far, point.recall, point.threshold) for point in each.recall]
        # which InsightFace prints with ten decimals
        np.testing.assert_allclose(found, golden[f"{each.mode}.far_recall_threshold"], rtol=0, atol=1e-10)


def csv(name):
    lines = (GOLDEN / name).read_text().splitlines()[1:]
    return {int(a): int(b) for a, b in (line.split(",") for line in lines)}


def pooled_by_hand(features):
    """N1D1F2: image + mirror image, times the detector score; media averaged, added, normalised."""
    media: dict[int, dict[int, list]] = {}
    lines = zip(
        (GOLDEN / "ijbx_face_tid_mid.txt").read_text().splitlines(),
        (GOLDEN / "ijbx_name_5pts_score.txt").read_text().splitlines(),
        features.astype(np.float64),
        strict=True,
    )
    for line, detection, row in lines:
        _, template, medium = line.split()
        rows = media.setdefault(int(template), {}).setdefault(int(medium), [])
        rows.append((row[:32] + row[32:]) * float(detection.split()[-1]))
    sums = {template: sum(np.mean(rows, axis=0) for rows in each.values()) for template, each in media.items()}
    return {template: row / np.linalg.norm(row) for template, row in sums.items()}


def test_honest_figures_by_plain_loops(golden, result):
    """TAR from sorted impostors, rank k and FNIR from every search one by one."""
    templates = pooled_by_hand(golden["features"])
    pairs = [line.split() for line in (GOLDEN / "ijbx_template_pair_label.txt").read_text().splitlines()]
    scores = np.array([templates[int(a)] @ templates[int(b)] for a, b, _ in pairs])
    same = np.array([label == "1" for *_, label in pairs])
    impostors = np.sort(scores[~same])[::-1]
    for point in result.points:
        allowed = int(point.far * len(impostors) + 1e-9)
        assert point.tar == pytest.approx(np.mean(scores[same] > impostors[allowed]), abs=1e-12)
    probes = csv("ijbx_1N_probe_mixed.csv")
    for gallery in result.search.galleries:
        enrolled = csv(f"ijbx_1N_gallery_{gallery.name}.csv")
        ranks, mated, strangers = [], [], []
        for template, subject in probes.items():
            all_scores = {who: templates[template] @ templates[entry] for entry, who in enrolled.items()}
            if subject in all_scores:
                ranks.append(sum(score >= all_scores[subject] for score in all_scores.values()))
                mated.append((ranks[-1], all_scores[subject]))
            else:
                strangers.append(max(all_scores.values()))
        assert (gallery.num_mated, gallery.num_nonmated) == (len(mated), len(strangers))
        for rate, k in zip(gallery.ranks, (1, 5, 10), strict=True):
            assert rate == pytest.approx(np.mean(np.array(ranks) <= k))
        for point in gallery.points:
            allowed = int(point.fpir * len(strangers) + 1e-9)
            threshold = sorted(strangers, reverse=True)[allowed]
            missed = np.mean([not (rank == 1 and score > threshold) for rank, score in mated])
            assert point.fnir == pytest.approx(missed)
    assert result.search.mean_ranks[0] == pytest.approx(np.mean([g.ranks[0] for g in result.search.galleries]))


def test_subjects_come_from_the_lists_of_identification_too(golden, embeddings):
    """Templates that no genuine pair joins are of one subject where the lists say so."""
    loaded = load()
    without = dataclasses.replace(loaded.pairs, same=loaded.pairs.same & (np.arange(len(loaded.pairs.same)) % 7 == 0))
    both = dataclasses.replace(loaded, pairs=without).evaluate(embeddings, Rule())
    neither = dataclasses.replace(loaded, pairs=without, searches=None).evaluate(embeddings, Rule())
    assert both.num_subjects < neither.num_subjects


def test_galleries_that_share_a_subject(tmp_path, embeddings):
    for file in GOLDEN.glob("ijbx*"):
        shutil.copy(file, tmp_path / file.name)
    shutil.copy(GOLDEN / "ijbx_1N_gallery_G1.csv", tmp_path / "ijbx_1N_gallery_G2.csv")
    outcome = load(folder=tmp_path).evaluate(embeddings, Rule())
    assert outcome.field[0].top is None  # the field searches both as one
    assert outcome.left_out[0].startswith("InsightFace's 1:N is not computed: a subject is in both galleries")
    assert len(outcome.search.galleries) == 2


def test_a_mode_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="got N9D1F2, which is neither a folder nor a test mode"):
        load("N9D1F2")


def test_intervals_are_over_subjects_and_hold_the_figure(result):
    assert result.num_subjects == 60
    for point, interval in zip(result.points, result.intervals, strict=True):
        if point.resolvable:
            assert interval.low < point.tar < interval.high


def test_report(result, tmp_path):
    loaded = load()
    table = format_table(Report("ijb", loaded.images, (result,)))
    assert "ijbx, 8,628 pairs of 184 templates (210 genuine), 1,223 images of 60 subjects" in table
    assert "As InsightFace computes it: TPR at the nearest FPR" in table
    assert result.headline()[0] == "TAR at FAR 1e-2"  # the lowest that 8,418 impostor pairs resolve above 1e-4
    plain = result.to_dict()
    assert plain["insightface"][0]["tpr_at_nearest_fpr"]["1e-4"] == result.field[0].tpr[2]
    assert plain["identification"]["galleries"][0]["fnir_at_fpir"][0]["fnir"] is None  # 60 searches: not resolvable
    (chart,) = result.figures()
    assert chart.name == "roc"


def test_without_lists_of_identification_and_detector_scores(tmp_path, embeddings, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    for name in ("ijbx_face_tid_mid.txt", "ijbx_template_pair_label.txt"):
        shutil.copy(GOLDEN / name, tmp_path / name)
    outcome = load(folder=tmp_path).evaluate(embeddings, Rule())
    assert (outcome.mode, outcome.search, outcome.field[0].top) == ("N1D0F2", None, None)
    lines = (
        "detector scores are not used: there is no *_name_5pts_score.txt",
        "1:N search is not computed: there is no *_1N_gallery_[GS]1.csv and no *_1N_gallery_[GS]2.csv and no "
        "*_1N_probe_mixed.csv",
    )
    assert outcome.to_dict()["left_out"] == list(lines)
    assert tuple(outcome.heading()[-2:]) == lines
    assert all(line in caplog.text for line in lines)  # before anything is embedded
    plain = load(folder=tmp_path).evaluate(Embeddings(embeddings.image), Rule())
    assert plain.mode == "N1D0F0"
    with pytest.raises(UserError, match=r"has no \*_name_5pts_score\.txt"):
        load("N1D1F2", folder=tmp_path)


def test_a_gallery_that_is_missing_is_named(tmp_path, embeddings, result):
    for path in GOLDEN.glob("*.*"):
        if not path.name.endswith("_G2.csv"):
            shutil.copy(path, tmp_path)
    outcome = load(folder=tmp_path).evaluate(embeddings, Rule())
    assert outcome.left_out == ("1:N search is not computed: there is no *_1N_gallery_[GS]2.csv",)
    assert (result.left_out, result.to_dict()["left_out"]) == ((), [])


def test_a_mode_that_needs_mirror_images(embeddings):
    with pytest.raises(UserError, match="test mode N0D0F1 needs the embeddings of mirror images.*such as N0D0F0"):
        load("N0D0F1").evaluate(Embeddings(embeddings.image), Rule())


@pytest.mark.parametrize(("inside", "f"), [("add", 2), ("join", 1)])
def test_a_network_that_embeds_the_mirror_image_itself(embeddings, inside, f):
    wanted = load(f"N1D1F{f}").evaluate(embeddings, Rule())
    both = Embeddings(embeddings.features(inside), inside=inside)
    for modes in ((), (f"N1D1F{f}",)):
        outcome = load(*modes).evaluate(both, Rule())
        assert (outcome.mode, outcome.field[0].mode) == (f"N1D1F{f}", f"N1D1F{f}")
        assert outcome.field[0].tpr == wanted.field[0].tpr
        assert outcome.auc == pytest.approx(wanted.auc, abs=1e-7)
    for other in {0, 1, 2} - {f}:
        with pytest.raises(UserError, match=f"N0D0F{other}: got .* itself · allowed: F{f}, such as N0D0F{f}"):
            load(f"N0D0F{other}").evaluate(both, Rule())


def test_an_undefined_embedding_costs_its_template_at_most(embeddings, result):
    broken = embeddings.image.copy()
    broken[7] = np.nan
    outcome = load().evaluate(Embeddings(broken, embeddings.mirror), Rule())
    assert outcome.auc == pytest.approx(result.auc, abs=0.01)
    assert outcome.num_undefined_templates == 0  # its template has other images


def test_crops_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"1223 of the 1223 crops are missing · make them: sphereface align"):
        load_set("ijb", Places(None, (GOLDEN, tmp_path)))
    with pytest.raises(UserError, match="got the folders"):
        load_set("ijb", Places(None, (GOLDEN, tmp_path, tmp_path)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [np.nan, 0.0])
def test_embeddings_that_are_all_undefined_leave_a_whole_report(embeddings, number, tmp_path):
    loaded = load()
    images = np.full_like(embeddings.image, number)
    outcome = loaded.evaluate(Embeddings(images, images), Rule())
    assert np.isnan([outcome.auc, outcome.eer, *(point.recall for point in outcome.field[0].recall)]).all()
    report = Report("ijb", loaded.images, (outcome,))
    table = format_table(report)
    assert "nan" not in table
    assert re.search(r"AUC +not resolvable", table)
    write_report(report, tmp_path)
    written = json.loads((tmp_path / "result.json").read_text())
    assert (written["auc"], written["eer"]) == (None, None)
    assert written["insightface"][0]["recall_at_its_far"][0] == {"far": 0.01, "recall": None, "threshold": None}


@pytest.mark.filterwarnings("error")
def test_detector_scores_of_zero_leave_a_whole_report(embeddings):
    loaded = dataclasses.replace(load(), detector_score=np.zeros(len(load().images)))
    assert np.isnan(loaded.evaluate(embeddings, Rule()).field[0].recall[0].recall)


def changed(folder, name, change):
    for file in GOLDEN.glob("ijbx*"):
        shutil.copy(file, folder / file.name)
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("\n".join(change(lines)) + "\n")
    return folder


def test_subjects_that_contradict_the_pairs_are_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    shift = {}

    def rotate(lines):
        rows = [line.split(",") for line in lines[1:]]
        subjects = sorted({subject for _, subject in rows})
        shift.update(zip(subjects, subjects[1:] + subjects[:1], strict=True))
        return [lines[0], *(f"{template},{shift[subject]}" for template, subject in rows)]

    folder = changed(tmp_path, "ijbx_1N_probe_mixed.csv", rotate)
    known = {}
    for name in ("1N_gallery_G1", "1N_gallery_G2", "1N_probe_mixed"):
        lines = (folder / f"ijbx_{name}.csv").read_text().splitlines()[1:]
        known.update(line.split(",")[:2] for line in lines)
    unlike = alike = 0
    for line in (folder / "ijbx_template_pair_label.txt").read_text().splitlines():
        left, right, label = line.split()
        if left in known and right in known:
            unlike += label == "1" and known[left] != known[right]
            alike += label == "0" and known[left] == known[right]
    assert unlike
    line = f"{unlike:,} pairs of one person are of two subjects, and {alike:,} pairs of two people are of one subject"
    loaded = load(folder=folder)
    assert line in caplog.text
    assert line in loaded.left_out[0]
    caplog.clear()
    assert (load().left_out, caplog.text) == ((), "")


def test_images_that_are_listed_again_are_counted(tmp_path):
    def again(lines):
        name, template, _ = lines[0].split()
        other = next(line.split()[1] for line in reversed(lines) if line.split()[1] != template)
        return [*lines, lines[0], lines[1], f"{name} {other} 9999"]

    for path in tmp_path, GOLDEN:
        if path is tmp_path:
            changed(path, "ijbx_face_tid_mid.txt", again)
            (path / "ijbx_name_5pts_score.txt").unlink()
    doubts = load(folder=tmp_path).left_out[1:]
    assert doubts == (
        "ijbx_face_tid_mid.txt: 2 lines repeat an earlier line, and count again in their templates",
        "ijbx_face_tid_mid.txt: 1 image is in templates of two subjects or more",
    )


def test_a_template_with_two_subjects_in_two_lists(tmp_path):
    def exchanged(lines):
        probe = (GOLDEN / "ijbx_1N_probe_mixed.csv").read_text().splitlines()[1].split(",")
        return [*lines, f"{probe[0]},999999"]

    with pytest.raises(
        UserError, match=r"probe_mixed.csv: template \d+ has subject \d+, but 999999 in another list \(1 su"
    ):
        load(folder=changed(tmp_path, "ijbx_1N_gallery_G1.csv", exchanged))


def test_pairs_that_are_listed_again_resolve_no_rate(tmp_path):
    """The field's figures count them; the others do not."""
    changed(tmp_path, "ijbx_template_pair_label.txt", lambda lines: lines + lines[::-1])
    once, twice = load(), load(folder=tmp_path)
    number = len(once.pairs.same)
    assert f"pair_label.txt: {number:,} of {2 * number:,} pairs repeat an earlier pair; only" in twice.left_out[-1]
    assert once.distinct is once.pairs
    x = np.random.default_rng(0).standard_normal((len(once.images), 8))
    first, second = (found.evaluate(Embeddings(x), Rule()) for found in (once, twice))
    assert first.points == second.points
    assert first.num_impostor == second.num_impostor
    assert first.intervals == second.intervals
    assert first.field[0].tpr == second.field[0].tpr  # all pairs twice: the same curve
    changed(tmp_path, "ijbx_template_pair_label.txt", lambda lines: lines[:number] + [lines[0]] * number)
    third = load(folder=tmp_path).evaluate(Embeddings(x), Rule())
    assert third.points == first.points
    assert third.field[0].tpr != first.field[0].tpr
