import json
import logging
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from sphereface.errors import UserError
from sphereface.evaluation.charts import svg_of
from sphereface.evaluation.embeddings import Embeddings
from sphereface.evaluation.lfw import Verification, verify
from sphereface.evaluation.protocols import PairSet, Rule, load_set
from sphereface.evaluation.protocols.groups import GroupSet, read_group_list
from sphereface.evaluation.protocols.groups_result import Groups
from sphereface.evaluation.protocols.groups_scores import ACCURACY, FARS, GroupScores, Spread
from sphereface.evaluation.result import Report
from sphereface.evaluation.table import format_rows, format_table
from sphereface.evaluation.write import write_report
from sphereface.metrics import Interval, OperatingPoint, equal_error_rate, roc
from sphereface.places import Places

from .folders import cosine

pytestmark = pytest.mark.whole_report


def write_list(path, groups=("B", "A"), *, num_people=40, num_each=60, fold=None, separator=" "):
    """Pairs of made-up people; genuine and impostor pairs in turn."""
    rng = np.random.default_rng(0)
    lines = []
    for group in groups:
        for number in range(num_each):
            person, other = rng.choice(num_people, 2, replace=False)
            for same, right in ((1, person), (0, other)):
                left = f"{group}/p{person}/{rng.integers(3)}.jpg"
                fields = [left, f"{group}/p{right}/{3 + rng.integers(3)}.jpg", str(same), group]
                lines.append(separator.join([*fields, *([str(fold(number))] if fold else [])]))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def made_up(found, *, spread=None, seed=0, dims=10):
    """Each person around a point of their own; ``spread`` of a group says how far their images lie from it."""
    rng = np.random.default_rng(seed)
    centres: dict[str, np.ndarray] = {}
    rows = []
    for name in found.images.names:
        group, _, _ = name.partition("/")
        centre = centres.setdefault(name.rpartition("/")[0], rng.standard_normal(dims) + 0.7)
        rows.append(centre + (spread or {}).get(group, 1.0) * rng.standard_normal(dims))
    return np.array(rows)


def lines_of(path):
    return [line.split() for line in path.read_text().splitlines()]


def load(path, *, find_images=False):
    return load_set("g", Places("groups", (path.parent, path)), find_images=find_images)


@pytest.fixture
def outcome(tmp_path):
    path = write_list(tmp_path / "list.txt", num_each=600, num_people=120)
    found = load(path)
    features = made_up(found, spread={"A": 0.8, "B": 1.6})
    return path, found, features, found.evaluate(Embeddings(features), Rule())


def test_figures_are_those_of_plain_loops(outcome):
    path, found, features, result = outcome
    row = {name: features[number] for number, name in enumerate(found.images.names)}
    scores = {"A": ([], []), "B": ([], [])}
    for left, right, same, group in lines_of(path):
        scores[group][int(same)].append(cosine(row[left], row[right]))
    impostors = sorted(scores["A"][0] + scores["B"][0], reverse=True)
    commons = [impostors[12], None]  # 12 of 1,200 may pass; at 1e-3 1.2, which is not resolvable
    assert result.common[0].threshold == pytest.approx(commons[0])
    assert [point.resolvable for point in result.common] == [True, False]
    for number, (group, (impostor, genuine)) in enumerate(scores.items()):
        got = result.figures_of_groups[number]
        assert result.groups[number].name == group
        assert got[1] == pytest.approx(equal_error_rate(roc(result.groups[number].scores, result.groups[number].same)))
        own = sorted(impostor, reverse=True)[6]  # 6 of 600 may pass
        assert got[2] == pytest.approx(np.mean([score > own for score in genuine]))
        assert got[4] == pytest.approx(np.mean([score > result.common[0].threshold for score in genuine]))
        assert got[6] == pytest.approx(np.mean([score > result.common[0].threshold for score in impostor]))
        assert [point.resolvable for point in result.groups[number].points] == [False, False]
    assert result.figures_of_groups[:, 6].mean() == pytest.approx(0.01)


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_accuracy_is_the_lfw_protocol_within_the_group(outcome, subtract_mean):
    _, found, features, _ = outcome
    result = found.evaluate(Embeddings(features), Rule(subtract_mean=subtract_mean))
    for number, group in enumerate(found.groups):
        alone = verify(features[group.rows], group.pairs, subtract_mean=subtract_mean)
        assert result.figures_of_groups[number, 0] == pytest.approx(alone.mean)
        assert group.pairs.num_folds == 10
    assert result.headline()[1] == pytest.approx(result.figures_of_groups[:, 0].mean())
    assert ("NO mean" in result.heading()[2]) is not subtract_mean
    centred = found.evaluate(Embeddings(features), Rule(subtract_mean=not subtract_mean))
    np.testing.assert_array_equal(result.figures_of_groups[:, 1:], centred.figures_of_groups[:, 1:])
    assert (result.figures_of_groups[:, 0] != centred.figures_of_groups[:, 0]).any()


def test_intervals_hold_the_figures(outcome):
    *_, result = outcome
    assert result.unit == "people"
    for values, intervals in zip(result.figures_of_groups, result.intervals, strict=True):
        for value, interval in zip(values, intervals, strict=True):
            assert interval.low <= value <= interval.high
            assert interval.low < interval.high or value == 0
    for spread in result.spreads.values():
        assert 0 <= spread.difference_interval.low <= spread.difference <= spread.difference_interval.high
        assert 0 <= spread.deviation_interval.low <= spread.deviation <= spread.deviation_interval.high
    assert [spread.name for spread in result.spreads.values()] == [
        "accuracy",
        "EER",
        "TAR, common threshold for FAR 1e-2",
        "FAR, common threshold for FAR 1e-2",
    ]


def test_json_has_the_interval_of_each_rate_at_the_own_threshold(monkeypatch):
    result = Groups(Path("list.txt"), (scores_of(30, name="A"), scores_of(10, name="B")), Embeddings(np.ones((4, 2))))
    for group in result.groups:
        points = tuple(OperatingPoint(far, 0.5, 0.5, 40, 50_000) for far in FARS)
        monkeypatch.setitem(group.__dict__, "points", points)
    intervals = tuple(tuple(Interval(k, k + 0.5) for k in range(8 * g, 8 * g + 8)) for g in (1, 2))
    monkeypatch.setitem(result.__dict__, "intervals", intervals)
    monkeypatch.setitem(result.__dict__, "spreads", {})
    for number, plain in enumerate(result.to_dict()["groups"], start=1):
        assert [each["interval"][0] for each in plain["tar_at_far"]] == [8 * number + 2, 8 * number + 3]


def test_a_replicate_counts_people_as_often_as_they_are_drawn(tmp_path):
    """The first replicate of the first group, by loops over pairs that are repeated."""
    found = load(write_list(tmp_path / "list.txt", num_each=40, num_people=10))
    features = made_up(found)
    result = found.evaluate(Embeddings(features), Rule())
    group = result.groups[0]
    left, right = group.people
    num_people = max(left.max(), right.max()) + 1
    drawn = np.random.default_rng(0).integers(0, num_people, num_people).tolist()
    times = np.array([drawn.count(person) for person in range(num_people)])
    repeat = np.where(group.same, times[left], times[left] * times[right])
    scores, same = group.scores.repeat(repeat), group.same.repeat(repeat)
    assert result.replicates[0, 0, 1] == pytest.approx(equal_error_rate(roc(scores, same)))
    threshold = result.common[0].threshold
    assert result.replicates[0, 0, 4] == pytest.approx(np.mean(scores[same] > threshold))
    assert result.replicates[0, 0, 6] == pytest.approx(np.mean(scores[~same] > threshold))
    correct, fold = group.verification.correct.repeat(repeat), group.verification.fold.repeat(repeat)
    expected = np.mean([correct[fold == k].mean() for k in np.unique(fold)])
    assert result.replicates[0, 0, 0] == pytest.approx(expected)


def test_exchanged_labels_of_a_group_are_told(tmp_path):
    path = write_list(tmp_path / "list.txt", num_each=300, num_people=120)
    lines = [line.split() for line in path.read_text().splitlines()]
    flipped = [[*line[:2], str(1 - int(line[2])) if line[3] == "B" else line[2], line[3]] for line in lines]
    for rows, wrong in ((lines, []), (flipped, ["B"])):
        path.write_text("\n".join(" ".join(row) for row in rows), encoding="utf-8")
        found = load(path)
        note = found.evaluate(Embeddings(made_up(found)), Rule()).rows()[0].note
        assert note == (
            "EER is above 50 % in B: the labels may be exchanged. A label of 1 means one person." if wrong else ""
        )
        line = found.evaluate(Embeddings(made_up(found)), Rule()).line()
        assert line.endswith(f" % · {note}" if wrong else " %"), line


def test_groups_are_drawn_on_their_own(tmp_path):
    """Two groups with the same pairs and embeddings have the same figures, but not the same draws."""
    path = write_list(tmp_path / "list.txt", groups=("A",))
    path.write_text(f"{path.read_text()}\n{path.read_text().replace('A/', 'B/').replace(' A', ' B')}", encoding="utf-8")
    found = load(path)
    half = np.random.default_rng(0).standard_normal((len(found.images) // 2, 8))
    result = found.evaluate(Embeddings(np.concatenate([half, half])), Rule())
    assert result.figures_of_groups[0].tolist() == result.figures_of_groups[1].tolist()
    errors = result.replicates[:, :, 1] - result.figures_of_groups[:, 1]
    assert abs(np.corrcoef(errors.T)[0, 1]) < 0.2


def test_a_real_difference_is_beyond_chance_and_an_equal_one_is_not(tmp_path):
    path = write_list(tmp_path / "list.txt", num_each=600, num_people=120)
    found = load(path)
    different = found.evaluate(Embeddings(made_up(found, spread={"A": 0.5, "B": 1.6})), Rule())
    equal = found.evaluate(Embeddings(made_up(found)), Rule())
    assert different.spreads[ACCURACY].beyond_chance
    assert not equal.spreads[ACCURACY].beyond_chance
    assert "of group B correctly" in different.summary()[0]
    assert different.summary()[0].endswith("Chance alone does not explain this difference.")
    assert equal.summary()[0].endswith("Chance alone could explain this difference.")


def test_spread_by_hand():
    values = np.array([0.9, 0.7, 0.8])
    errors = np.array([[0.01, -0.01, 0.0], [0.0, 0.1, 0.2], [np.nan, 5.0, 0.0]])
    spread = Spread.of("accuracy", values, values + errors)
    margin = 0.02 + 0.95 * (0.2 - 0.02)  # the 95 % quantile of the two spreads
    assert spread.difference == pytest.approx(0.2)
    assert spread.deviation == pytest.approx(0.1)  # ddof = 1
    assert spread.difference_interval.low == pytest.approx(0.2 - margin)
    assert spread.difference_interval.high == pytest.approx(0.2 + margin)
    assert spread.deviation_interval.high == pytest.approx(0.1 + 0.01 + 0.95 * (0.1 - 0.01))
    wide = Spread.of("accuracy", values, values + 10 * errors)
    assert wide.difference_interval.low == 0
    assert (spread.beyond_chance, wide.beyond_chance) == (True, False)


def test_who_is_on_the_images_may_be_unknown(tmp_path):
    path = tmp_path / "list.txt"
    rng = np.random.default_rng(0)
    right = [60 * (k % 2) + 30 + rng.integers(30) for k in range(200)]  # no pair has both labels
    lines = [f"{rng.integers(30)}.jpg {right[k]}.jpg {k % 2} {'AB'[k // 2 % 2]}" for k in range(200)]
    path.write_text("\n".join(lines), encoding="utf-8")
    found = load(path)
    result = found.evaluate(Embeddings(rng.standard_normal((len(found.images), 4))), Rule())
    assert result.unit == "pairs"
    assert "bootstrap draws of pairs" in result.rows()[1].note
    weights = result.replicates[:, 0]
    assert np.isfinite(weights).all()


def test_undefined_embeddings_count_as_wrong(outcome):
    path, found, features, result = outcome
    broken = features.copy()
    row = list(found.images.names).index(lines_of(path)[0][0])
    broken[row] = np.nan
    worse = found.evaluate(Embeddings(broken), Rule())
    b = worse.groups[1]
    touched = np.isnan(b.scores)
    assert touched.sum() >= 1
    threshold = worse.common[0].threshold
    with np.errstate(invalid="ignore"):
        accepted = b.scores > threshold  # False for NaN
    impostors = sorted(score for g in worse.groups for score in g.scores[~g.same].tolist() if not np.isnan(score))
    assert (touched & ~b.same).any()
    assert worse.common[0].num_impostor == len(impostors) < sum((~g.same).sum() for g in worse.groups)
    assert threshold == impostors[::-1][int(0.01 * len(impostors))]
    assert worse.figures_of_groups[1, 6] == pytest.approx(accepted[~b.same & ~touched].mean())
    assert worse.figures_of_groups[1, 4] == pytest.approx(accepted[b.same].mean())
    assert f"{touched.sum()} pairs have no score (NaN)" in worse.rows()[1].note
    assert worse.line().endswith(
        f" % · {touched.sum()} pairs have no score (NaN): they count as wrong and are not accepted."
    )
    np.testing.assert_array_equal(worse.groups[0].scores, result.groups[0].scores)


def test_tables_json_and_charts(outcome):
    *_, result = outcome
    tables = [format_rows(rows) for rows in result.rows()]
    assert "not resolvable" in tables[2]  # own thresholds
    assert "impostor pairs accepted" in tables[3]
    assert tables[4].splitlines()[-1].split()[:3] == ["all", "not", "resolvable"]
    accepted = [row[3] for row in result.rows()[3].rows]
    counts = [int((g.scores[~g.same] > result.common[0].threshold).sum()) for g in result.groups]
    assert accepted == [f"{count} of 600" for count in counts]
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [group["name"] for group in plain["groups"]] == ["A", "B"]
    assert plain["groups"][0]["at_common_threshold"][1]["far"] is None
    assert plain["groups"][0]["at_common_threshold"][0]["far"] == pytest.approx(counts[0] / 600)
    assert plain["groups"][0]["tar_at_far"][0]["tar"] is None
    assert plain["spread"][0]["highest_minus_lowest"] == pytest.approx(np.ptp(result.figures_of_groups[:, 0]))
    assert result.scalars()["accuracy_B"] == plain["groups"][1]["accuracy"]
    assert result.scalars()["lowest_accuracy"] == min(group["accuracy"] for group in plain["groups"])
    charts = result.figures()
    assert [chart.name for chart in charts] == ["accuracies", "far-1e-2"]
    for chart in charts:
        axes = Figure().subplots()
        chart.draw(axes)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B"]
        assert "<svg" in svg_of(chart)
    bars = [bar.get_width() for bar in axes.patches]
    assert bars == pytest.approx(result.figures_of_groups[:, 6].tolist())


def scores_of(far_count, *, name, num=1000):
    """Impostors of which so many score 0.9, genuine pairs that all score 0.95."""
    impostor = np.linspace(-0.5, 0, num)
    impostor[:far_count] = 0.9
    scores = np.concatenate([impostor, np.full(num, 0.95)])
    same = np.arange(2 * num) >= num
    fold = np.arange(2 * num) % 2 + 1
    outcome = Verification(np.array([0.92, 0.92]), np.array([1.0, 1.0]), scores, same, fold)
    return GroupScores(name, outcome, scores, None)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((30, 10), "The recogniser confuses two people of group A 3.0 times as often as two of group B at the same"),
        ((40, 0), "At the same threshold, the recogniser confuses 4.00% of the pairs of two people of group A, and "),
    ],
)
def test_the_sentence_about_confusions(counts, sentence, monkeypatch):
    groups = tuple(scores_of(count, name=name) for count, name in zip(counts, "AB", strict=True))
    result = Groups(Path("list.txt"), groups, Embeddings(np.ones((4, 2))))
    monkeypatch.setitem(result.__dict__, "common", tuple(OperatingPoint(far, 1.0, 0.5, 40, 2000) for far in FARS))
    assert result.summary()[1].startswith(sentence)
    assert [*result.spreads.values()][-1].difference == pytest.approx((counts[0] - counts[1]) / 1000)
    assert result.spreads[ACCURACY].difference_interval == Interval(0.0, 0.0)
    assert ("which is too narrow" in result.rows()[3].note) == (0 in counts)


def test_too_few_pairs_are_said_so(tmp_path):
    found = load(write_list(tmp_path / "list.txt", num_each=20))
    result = found.evaluate(Embeddings(made_up(found)), Rule())
    assert result.summary()[1].startswith("There are too few pairs of two people")
    assert [chart.name for chart in result.figures()] == ["accuracies"]
    assert [spread.name for spread in result.spreads.values()] == ["accuracy", "EER"]


# ---------------------------------------------------------------- the list


@pytest.mark.parametrize("separator", [" ", "\t", ","])
def test_a_list(tmp_path, separator):
    path = write_list(tmp_path / "list.txt", separator=separator)
    found = load(path)
    assert [group.name for group in found.groups] == ["A", "B"]
    assert found.images.files is None
    assert list(found.images.names) == sorted(set(found.images.names))
    got = []
    for group in reversed(found.groups):
        names = [found.images.names[row] for row in group.rows]
        assert names == list(group.pairs.names)
        for left, right, same in zip(group.pairs.left, group.pairs.right, group.pairs.same, strict=True):
            got.append([names[left], names[right], str(int(same)), group.name])
    assert got == [line.split(separator) for line in path.read_text().splitlines()]


def test_folds_of_the_list(tmp_path):
    path = write_list(tmp_path / "list.txt", fold=lambda number: 3 * (number % 4))
    for pairs in read_group_list(path).values():
        assert pairs.num_folds == 4
        assert pairs.fold.tolist() == [number // 2 % 4 + 1 for number in range(120)]


def test_without_folds_there_are_ten_consecutive_ones(tmp_path):
    for pairs in read_group_list(write_list(tmp_path / "list.txt")).values():
        assert pairs.fold.tolist() == [number // 12 + 1 for number in range(120)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/1.jpg a/2.jpg 1", r"list.txt, line 3: got 'a/1.jpg a/2.jpg 1' · expected 'image image 0\|1 GROUP"),
        ("a/1.jpg a/2.jpg 1 A 2", "line 3: got .* with a fold in all lines or in none"),
        ("a/1.jpg a/2.jpg 2 A", "line 3: got the label '2' · allowed: 1 for one person"),
        ("a/1.jpg ../2.jpg 1 A", "line 3: got the image '../2.jpg'"),
    ],
)
def test_lines_of_another_form(tmp_path, line, message):
    path = tmp_path / "list.txt"
    path.write_text(f"a/1.jpg a/2.jpg 1 A\na/1.jpg b/2.jpg 0 A\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_group_list(path)


def test_a_fold_that_is_no_number(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a/1.jpg a/2.jpg 1 A one\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1: got the fold 'one' · allowed: whole numbers"):
        read_group_list(path)


def test_a_group_with_one_kind_of_pairs(tmp_path):
    path = write_list(tmp_path / "list.txt")
    more = "".join(f"C/p{k}/1.jpg C/p{k}/2.jpg 1 C\n" for k in range(30))
    path.write_text(path.read_text() + "\n" + more, encoding="utf-8")
    with pytest.raises(UserError, match="group C has 0 pairs of two people, in 0 folds · allowed: pairs of") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_fold_without_a_kind_and_one_fold(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a/1 a/2 1 A 1\na/1 b/1 0 A 1\na/1 a/3 1 A 2\n", encoding="utf-8")
    with pytest.raises(UserError, match="group A has 1 pair of two people, in 1 fold"):
        read_group_list(path)
    path.write_text("a/1 a/2 1 A 1\na/1 b/1 0 A 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"group A has 1 pair of one person, in 1 fold .* every fold \(2\)"):
        read_group_list(path)


def test_one_group_has_no_spread(tmp_path):
    with pytest.raises(UserError, match="got the groups A · allowed: two groups or more"):
        load(write_list(tmp_path / "list.txt", groups=("A",)))


def test_images_of_a_list(tmp_path):
    path = write_list(tmp_path / "list.txt")
    for name in load(path).images.names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = load(path, find_images=True)
    assert [file.relative_to(tmp_path).as_posix() for file in found.images.found()] == list(found.images.names)
    (tmp_path / found.images.names[0]).unlink()
    with pytest.raises(UserError, match=r"1 of the \d+ images in .*list.txt are missing"):
        load(path, find_images=True)


# ---------------------------------------------------------------- RFW


def write_rfw(root, groups=("Asian", "African"), *, images=True):
    """Ten folds of 2 + 2 pairs, in RFW's form: tabs, no header."""
    for group in groups:
        folder = root / "txts" / group
        folder.mkdir(parents=True)
        lines = []
        for fold in range(10):
            lines += [f"m.{fold}{k}\t1\t{k + 2}" for k in range(2)]
            lines += [f"m.{fold}{k}\t2\tm.{(fold + 1) % 10}{k}\t{k + 1}" for k in range(2)]
        (folder / f"{group}_pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / f"{group}_images.txt").write_text("m.00_0001.jpg\t0\n", encoding="utf-8")
        for person in (f"m.{fold}{k}" for fold in range(10) for k in range(2)) if images else ():
            for number in range(1, 4):
                path = root / "data" / group / person / f"{person}_{number:04d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
    return root


@pytest.mark.parametrize("find_images", [True, False])
def test_rfw_is_recognised_and_read(tmp_path, find_images):
    found = load_set("rfw", Places(None, (write_rfw(tmp_path, images=find_images),)), find_images=find_images)
    assert isinstance(found, GroupSet)
    assert [group.name for group in found.groups] == ["African", "Asian"]
    pairs = found.groups[1].pairs
    assert pairs.fold.tolist() == [number // 4 + 1 for number in range(40)]
    assert pairs.same.tolist() == [True, True, False, False] * 10
    sides = [(pairs.names[left], pairs.names[right]) for left, right in zip(pairs.left, pairs.right, strict=True)]
    assert sides[1] == ("data/Asian/m.01/m.01_0001.jpg", "data/Asian/m.01/m.01_0003.jpg")
    assert sides[3] == ("data/Asian/m.01/m.01_0002.jpg", "data/Asian/m.11/m.11_0002.jpg")
    assert len(set(found.images.names)) == len(found.images)
    if find_images:
        assert [f.relative_to(tmp_path).as_posix() for f in found.images.found()] == list(found.images.names)
    result = found.evaluate(Embeddings(made_up(found)), Rule())
    assert result.unit == "people"  # the same name in two groups is two people of the bootstrap


def test_rfw_errors(tmp_path):
    with pytest.raises(UserError, match="has no folder txts with a folder for each group"):
        load_set("rfw", Places("groups", (tmp_path,)))
    root = write_rfw(tmp_path, images=False)
    with pytest.raises(UserError, match=r"images in .*African_pairs.txt are missing"):
        load_set("rfw", Places(None, (root,)))
    (root / "txts" / "Asian" / "Asian_pairs.txt").write_text("m.1\t1\tm.2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"Asian_pairs.txt, line 1: got .* expected RFW's 'name n1 n2'"):
        load_set("rfw", Places(None, (root,)), find_images=False)
    (root / "txts" / "Asian" / "Asian_pairs.txt").unlink()
    with pytest.raises(UserError, match="Asian_pairs.txt: no such file"):
        load_set("rfw", Places(None, (root,)), find_images=False)
    with pytest.raises(UserError, match="rfw: got 3 paths · allowed: groups:DIR"):
        load_set("rfw", Places("groups", (root, root, root)))


def test_a_part_of_rfw_that_is_no_folder_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    root = write_rfw(tmp_path, images=False)
    (root / "txts" / "Indian").write_text("../elsewhere/Indian", encoding="utf-8")  # a link as Windows unpacks it
    assert [group.name for group in load_set("rfw", Places(None, (root,)), find_images=False).groups] == [
        "African",
        "Asian",
    ]
    assert "txts: 1 entry is not among the groups, such as Indian" in caplog.text
    (root / "txts" / "Caucasian").symlink_to("nowhere")
    with pytest.raises(UserError, match="txts/Caucasian: a broken link to nowhere · restore its target"):
        load_set("rfw", Places(None, (root,)), find_images=False)
    (root / "txts" / "Caucasian").unlink()
    (root / "data" / "Caucasian").mkdir(parents=True)
    load_set("rfw", Places(None, (root,)), find_images=False)
    assert "txts: has no list for these groups: Caucasian" in caplog.text


def test_a_pair_with_two_labels_within_a_group(tmp_path):
    path = write_list(tmp_path / "list.txt")
    left, right, _, group = path.read_text(encoding="utf-8").splitlines()[0].split()
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{right} {left} 0 {group}\n")
    with pytest.raises(UserError, match="as one person and as two people, 1 such pair · allowed: one label"):
        load(path)


def test_other_places_are_pairs(tmp_path):
    path = write_list(tmp_path / "list.txt")
    assert not GroupSet.recognises([tmp_path])
    assert not GroupSet.recognises([tmp_path, path])
    assert PairSet.recognises([tmp_path, path])


def test_a_group_with_an_endless_name_is_told_in_one_line(tmp_path):
    (tmp_path / "list.txt").write_text(f"a.png b.png 1 {'x' * 100_000}\n", encoding="utf-8")
    with pytest.raises(UserError, match="group 'xxx") as error:
        read_group_list(tmp_path / "list.txt")
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("undefined", ["A", "AB"])
@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_group_without_an_embedding_is_not_said_to_confuse_people(tmp_path, undefined, value):
    found = load(write_list(tmp_path / "list.txt", num_each=1100, num_people=120))
    features = made_up(found)
    whole = found.evaluate(Embeddings(features), Rule())
    features[[name[0] in undefined for name in found.images.names]] = value
    result = found.evaluate(Embeddings(features), Rule())
    report = Report("g", found.images, (result,), {}, 0)
    write_report(report, tmp_path / "out")
    plain = json.loads((tmp_path / "out" / "groups.json").read_text(encoding="utf-8"))
    first, second = plain["groups"]
    assert (first["accuracy"], first["eer"], first["num_impostor"]) == (0, None, 0)
    assert [point["tar"] for point in first["tar_at_far"]] == [None, None]
    assert [(point["tar"], point["far"]) for point in first["at_common_threshold"]] == [(None, None)] * 2
    assert [spread["figure"] for spread in plain["spread"]] == ["accuracy"]
    assert "No pair of two people of group A" in result.summary()[1]
    text = format_table(report)
    assert "nan" not in text
    assert "times as often" not in text
    if undefined == "A":
        assert second["eer"] == pytest.approx(whole.figures_of_groups[1, 1])
        assert second["num_impostor"] == 1100
        assert second["at_common_threshold"][0]["far"] == pytest.approx(0.01)
    svg_of(result.figures()[0])


def test_pairs_and_images_of_two_groups_are_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    path = write_list(tmp_path / "list.txt")
    load(path)
    assert "two groups" not in caplog.text
    text = path.read_text()
    left, right, label, _ = text.splitlines()[0].split()
    path.write_text(f"{text}\n{right} {left} {label} A")
    load(path)
    a, b = sorted((left, right))
    assert f"list.txt: 1 pair is in two groups, such as {a} with {b} in A and B" in caplog.text
    path.write_text(f"{text}\n{right} {left} {1 - int(label)} A")
    with pytest.raises(UserError, match=f"got {a} with {b} in A and B, as one person and as two people"):
        load(path)
    path.write_text(f"{text}\n{left} A/p0/0.jpg 0 A")
    load(path)
    assert f"list.txt: 1 image is in pairs of two groups, such as {left}" in caplog.text


def test_pairs_that_are_there_already_resolve_no_rate_of_groups(tmp_path):
    path = write_list(tmp_path / "list.txt", num_each=600, num_people=120)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines * 10))
    found = load(path)
    result = found.evaluate(Embeddings(made_up(found)), Rule())
    distinct = [len({frozenset(line.split()[:2]) for line in lines if line.endswith(f"0 {g}")}) for g in "AB"]
    for group, number in zip(result.groups, distinct, strict=True):
        assert group.points[1].num_impostor - group.points[1].num_repeated == number < 1000
        assert not group.points[1].resolvable
    assert result.common[1].num_impostor == 12_000
    assert result.common[1].impostors_used == pytest.approx(sum(distinct) / 1000)


@pytest.mark.parametrize("separator", [",", "\t", " ", ";"])
@pytest.mark.parametrize("heading", ["img1 img2 label group", "left right same group"])
def test_a_list_of_groups_may_name_its_columns(tmp_path, separator, heading):
    path = write_list(tmp_path / "list.txt", separator=separator)
    wanted = read_group_list(path)
    path.write_text(heading.replace(" ", separator) + "\n" + path.read_text())
    found = read_group_list(path)
    assert {name: pairs.names for name, pairs in found.items()} == {n: pairs.names for n, pairs in wanted.items()}
    assert all((found[name].same == wanted[name].same).all() for name in wanted)
    words = path.read_text().replace(f"{separator}1{separator}", f"{separator}True{separator}")
    path.write_text(words.replace(f"{separator}0{separator}", f"{separator}false{separator}"))
    assert all((read_group_list(path)[name].same == wanted[name].same).all() for name in wanted)
    path.write_text(path.read_text().replace("True", "yes").replace("false", "no"))
    assert all((read_group_list(path)[name].same == wanted[name].same).all() for name in wanted)
    path.write_text(path.read_text().replace("yes", "pair").replace("no", "none"))
    with pytest.raises(UserError, match="line 2: got the label '(pair|none)' · allowed: 1 for one person"):
        read_group_list(path)
    path.write_text(words)
    path.write_text(path.read_text().replace("label", "different").replace("same", "unlike"))
    with pytest.raises(UserError, match=r"line 1: got the column '(different|unlike)' · allowed: labels that are 1"):
        read_group_list(path)


@pytest.mark.parametrize(
    "heading", ["img1,img2,same,fold,group", "race,img1,img2,same", "left,right,label,label", "a,b,same,race,age"]
)
def test_columns_of_groups_in_another_order_are_refused(tmp_path, heading):
    """Folds of numbers would be the groups."""
    path = tmp_path / "list.txt"
    extra = ",1,2"[: 2 * (heading.count(",") - 2)]
    path.write_text("\n".join([heading, *(f"a/{k}.jpg,b/{k}.jpg,{k % 2}{extra}" for k in range(20))]))
    with pytest.raises(
        UserError, match=r"line 1: got the column '(fold|race|label|age)' in place [1345] · allowed: ima"
    ):
        read_group_list(path)


def test_a_group_of_control_characters_is_refused(tmp_path):
    path = write_list(tmp_path / "list.txt", separator=",")
    path.write_text(path.read_text().replace(",A\n", ",A\x1b[31m\n"))
    with pytest.raises(UserError, match=r"got the group 'A\\x1b\[31m' · allowed: names without control characters"):
        read_group_list(path)


def test_labels_of_a_group_that_contradict_its_folders_are_counted(tmp_path, caplog):
    path = write_list(tmp_path / "list.txt")
    load(path)
    assert "contradict" not in caplog.text
    lines = path.read_text().splitlines()
    lines[0] = lines[0].replace(" 1 B", " 0 B")
    path.write_text("\n".join(lines))
    load(path)
    assert f"{path}: 1 of 120 labels contradict the folders of their images" in caplog.text
