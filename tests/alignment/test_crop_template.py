"""The template of crops: from a report, in a checkpoint, and refused where it is none."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from sphereface.alignment import near_reports
from sphereface.alignment.align import align_folder
from sphereface.alignment.crop import CropSpec
from sphereface.alignment.crop_template import (
    CropTemplate,
    folders_of,
    published_template,
    template_of_meta,
    template_of_settings,
    training_template,
)
from sphereface.alignment.landmarks import read_landmarks
from sphereface.alignment.similarity import template
from sphereface.errors import UserError
from tests.alignment.faces import write_photographs

SIZE = (112, 96)
MOVED = tuple((float(x), float(y)) for x, y in (template() - [2, 3]).round(2))


def text(points):
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def write_report(folder, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    report = {"settings": {"size": "112x96", "template_origin": 0, "quality": 95, **settings}}
    (folder / "align-report.json").write_text(json.dumps(report))
    return str(folder)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (CropSpec(), template()),
        (CropSpec(origin=1), template() - 1),
        (CropSpec(target=MOVED), np.array(MOVED)),
        (CropSpec(size=(112, 112)), template()),  # training cuts the middle out
    ],
)
def test_what_align_writes_is_what_training_reads(tmp_path, spec, expected):
    landmarks = read_landmarks(write_photographs(tmp_path / "in", ["a/1.png"]))
    align_folder(tmp_path / "in", tmp_path / "crops", landmarks, spec)
    found = training_template(str(tmp_path / "crops"), None, SIZE)
    assert found.size == SIZE
    np.testing.assert_allclose(found.array, expected, atol=1e-4)


def test_the_report_is_found_for_folders_parts_of_them_and_lists(tmp_path):
    write_report(tmp_path / "crops", template=text(MOVED))
    (tmp_path / "crops/train").mkdir()
    (tmp_path / "crops/train.txt").write_text("")
    (tmp_path / "list.txt").write_text("")
    for train, root in (("crops", None), ("crops/train", None), ("crops/train.txt", None), ("list.txt", "crops")):
        found = training_template((str(tmp_path / train),), root and tmp_path / root, SIZE)
        np.testing.assert_allclose(found.array, MOVED, atol=1e-9)
    assert training_template(str(tmp_path / "other/deep"), None, SIZE) is None


@pytest.mark.parametrize("size", [(56, 48), (224, 192), (112, 112), (100, 90), (120, 90)])
def test_a_report_of_crops_of_another_size_is_not_cut(tmp_path, caplog, size):
    write_report(tmp_path / "crops", template=text(MOVED))
    assert training_template(str(tmp_path / "crops"), None, SIZE) is not None
    assert training_template(str(tmp_path / "crops"), None, size) is None
    assert f"crops of {SIZE[0]}×{SIZE[1]}, but the network reads {size[0]}×{size[1]}" in caplog.text


def test_a_list_of_crops_elsewhere_has_the_report_of_their_folder(tmp_path, caplog):
    write_report(tmp_path / "crops", template=text(MOVED))
    write_report(tmp_path / "more", template=text(template()))
    listed = "crops/anna/1.jpg 0\ncrops/bob/1.jpg 1\n"
    (tmp_path / "clean.txt").write_text(listed)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/clean.txt").write_text(listed)
    for path, root in (("clean.txt", None), ("lists/clean.txt", tmp_path)):
        np.testing.assert_allclose(training_template(str(tmp_path / path), root, SIZE).array, MOVED)
    (tmp_path / "clean.txt").write_text(f"{listed}more/carl/1.jpg 2\n")
    assert training_template(str(tmp_path / "clean.txt"), None, SIZE) is None
    assert "have different templates" in caplog.text
    (tmp_path / "clean.txt").write_text("no list")
    assert training_template(str(tmp_path / "clean.txt"), None, SIZE) is None


@pytest.mark.parametrize(
    ("name", "above"),
    [("clean.txt", "crops"), ("crops/clean.txt", ""), ("crops/anna/l.txt", ".."), ("l/l.txt", "../crops")],
)
def test_crops_in_deeper_folders_have_the_report_of_the_whole_folder(tmp_path, name, above):
    """As the folder itself has it; a report above the folder of a list is another run's."""
    tmp_path = tmp_path / "disk"
    write_report(tmp_path / "crops", template=text(MOVED))
    write_report(tmp_path, template=text(template()))
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    people = [
        f"{above}/{person}/{day}/1.jpg".lstrip("/") for person in ("anna", "bob") for day in ("2020/05", "2021/06")
    ]
    path.write_text("".join(f"{image} {row // 2}\n" for row, image in enumerate(people)))
    for image in people:
        (path.parent / image).parent.mkdir(parents=True, exist_ok=True)
    assert folders_of(path, None) == [tmp_path / "crops"]
    np.testing.assert_allclose(training_template(str(path), None, SIZE).array, MOVED)
    path.write_text("".join(f"{image.replace('crops', 'photos')} 0\n" for image in people))
    (tmp_path / "crops/align-report.json").rename(tmp_path / "crops/old.json")
    (tmp_path / "align-report.json").unlink()
    write_report(tmp_path.parent, template=text(MOVED))
    assert training_template(str(path), None, SIZE) is None


def test_several_sources_must_agree(tmp_path, caplog):
    a, b, c = (write_report(tmp_path / name, template=text(MOVED)) for name in "abc")
    write_report(tmp_path / "c", template=text(template()))
    (tmp_path / "d").mkdir()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(training_template((a, b), None, SIZE).array, MOVED)
        assert not caplog.records
        assert training_template((a, c), None, SIZE) is None
        assert "have different templates" in caplog.text
        caplog.clear()
        assert training_template((a, str(tmp_path / "d")), None, SIZE) is None
        assert "no align-report.json" in caplog.text


PEOPLE = [f"p{k}" for k in range(7)]


def with_reports(folder, people, **settings):
    """Write crops of seven people, and the reports of one ``align`` for each of some of them."""
    for person in PEOPLE:
        (folder / person).mkdir(parents=True)
        (folder / person / "1.jpg").write_bytes(b"")
    for person in people:
        write_report(folder / person, **settings)
    (folder.parent / "list.txt").write_text("".join(f"{folder.name}/p{k}/1.jpg {k}\n" for k in range(7)))


@pytest.mark.parametrize("train", ["crops", "list.txt"])
def test_reports_of_one_align_for_each_person_count_as_one_if_they_agree(tmp_path, caplog, train):
    with_reports(tmp_path / "crops", PEOPLE, template=text(MOVED))
    for name in (".cache", "@eaDir"):  # of the system
        (tmp_path / "crops" / name).mkdir()
    train = str(tmp_path / train)
    np.testing.assert_allclose(training_template(train, None, SIZE).array, MOVED)
    assert not caplog.records
    write_report(tmp_path / "crops/p6", template_origin=1)
    assert training_template(train, None, SIZE) is None
    other = f"{tmp_path / 'crops/p0'}: template {text(MOVED)}; {tmp_path / 'crops/p6'}: template origin 1)"
    assert f"the crops have different templates ({other}" in caplog.text
    (tmp_path / "crops/p6/align-report.json").unlink()
    assert training_template(train, None, SIZE) is None
    assert f"; {tmp_path / 'crops/p6'}: no align-report.json)" in caplog.text
    caplog.clear()
    write_report(tmp_path / "crops", template_origin=1)  # the nearest one for the whole folder decides
    np.testing.assert_allclose(training_template(train, None, SIZE).array, template() - 1)
    assert not caplog.records


@pytest.mark.parametrize("train", ["crops", "list.txt"])
@pytest.mark.parametrize(("people", "told"), [([], False), (["p0"], True), (["p3"], True), (["p5"], False)])
def test_reports_of_people_are_searched_in_evenly_spaced_folders(tmp_path, caplog, monkeypatch, train, people, told):
    """Of 100,000 folders only a thousand are asked, here three of seven: p0, p3, p6."""
    with_reports(tmp_path / "crops", people)
    monkeypatch.setattr(near_reports, "_SAMPLED", 3)
    assert training_template(str(tmp_path / train), None, SIZE) is None
    assert ("have different templates" in caplog.text) == told
    assert (len(folders_of(tmp_path / train, None)) == len(PEOPLE)) == told


@pytest.mark.parametrize(
    "settings",
    [
        {"size": "112"}, {"size": "99999x96"}, {"size": "0x0"}, {"size": "²x96"}, {"template_origin": 2},
        {"size": "64x64"}, {"template": "1,2 3,4"}, {"template": text(MOVED) + " 3,4"}, {"template": "nan,nan " * 5},
        {"template": "inf,1 " * 5}, {"template": "1,2,3 " * 5}, {"template": "x,y " * 5}, {"template": "0,0 " * 5},
        {"template": text(np.array(MOVED) * 1e6)}, {"template": text(np.array(MOVED)[[1, 0, 2, 4, 3]])},
        {"template": ""},
    ],
)  # fmt: skip
def test_a_report_with_an_impossible_template_is_a_warning_in_training_and_refused_elsewhere(
    tmp_path, caplog, settings
):
    folder = write_report(tmp_path / "crops", **settings)
    assert training_template(folder, None, SIZE) is None
    assert "the template of the crops is unknown" in caplog.text
    with pytest.raises(ValueError, match=r"settings|size|points"):
        template_of_settings({"size": "112x96", "template_origin": 0, **settings})


def test_a_report_of_a_stranger_does_not_stop_training(tmp_path, caplog):
    (tmp_path / "align-report.json").write_text("{")
    assert training_template(str(tmp_path), None, SIZE) is None
    assert "not a report of this program" in caplog.text


def test_a_checkpoint_keeps_it(tmp_path):
    kept = CropTemplate(SIZE, MOVED)
    meta = {"template": json.loads(json.dumps(kept.to_meta()))}
    assert template_of_meta(meta, SIZE, tmp_path) == kept
    assert template_of_meta({}, SIZE, tmp_path) is None


@pytest.mark.parametrize(
    "value",
    [
        5, "x", {}, {"size": [112, 96]}, {"size": [112, 112], "points": MOVED}, {"size": 3, "points": MOVED},
        {"size": [112, 96, 3], "points": MOVED}, {"size": [float("nan"), 96], "points": MOVED},
        {"size": [float("inf"), 96], "points": MOVED}, {"size": [112, 96], "points": MOVED[:4]},
        {"size": [112, 96], "points": [[float("nan"), 1]] * 5}, {"size": [112, 96], "points": [[1, 2, 3]] * 5},
        {"size": [112, 96], "points": [["x", "y"]] * 5}, {"size": [112, 96], "points": [[1e300, 1]] * 5},
        {"size": [112, 96], "points": [[10**400, 1]] * 5}, {"size": [112, 96], "points": MOVED[::-1]},
    ],
)  # fmt: skip
def test_a_checkpoint_with_another_template_is_one_line(tmp_path, value):
    with pytest.raises(UserError, match=r"x\.pt: meta\.template: .* allowed: size and points") as raised:
        template_of_meta({"template": value}, SIZE, tmp_path / "x.pt")
    assert "\n" not in str(raised.value)


def test_how_it_is_told():
    assert published_template(SIZE, 1).describe() == "template origin 1"
    assert published_template(SIZE, 0).describe() == "template origin 0"
    assert CropTemplate(SIZE, MOVED).describe() == f"template {text(MOVED)}"
    assert "2.0 pixels left of the template, 3.0 above, 1.000" in CropTemplate(SIZE, MOVED).compare()


@pytest.mark.parametrize(("first", "second"), [((112, 112), (112, 96)), ((112, 96), (112, 112))])
def test_templates_of_two_sizes_are_compared_where_their_crops_are_cut(first, second):
    points = template((112, 96))
    middles = [np.array([(size[1] - 96) / 2, 0]) for size in (first, second)]
    one, two = (
        CropTemplate(size, tuple(map(tuple, points + middle)))
        for size, middle in zip((first, second), middles, strict=True)
    )
    assert one.apart(two) == pytest.approx(0, abs=1e-9)
    assert one.apart(CropTemplate(second, tuple((x + 3, y - 4) for x, y in two.points))) == pytest.approx(5)
    other = CropTemplate((96, 112), two.points)
    assert other.apart(published_template((112, 96), 0)) == 0  # crops of these sizes are never cut to each other
