import json
import logging
import pickle
import shutil

import cv2
import numpy as np
import pytest

from eval_lfw import main
from sphereface.errors import UserError
from sphereface.evaluation import Embeddings, Report, Rule
from sphereface.evaluation.suite import FIVE, suite_of, suite_sets, write_suite

from .crops import write_set


def write_bin(path, seed, num_pairs=40):
    rng = np.random.default_rng(seed)
    images = [cv2.imencode(".png", rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))[1].tobytes() for _ in range(80)]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(pickle.dumps((images, [k % 2 == 0 for k in range(num_pairs)]), 4))


def reports_of(sets, *, centre=True, mirror=None, about=None):
    rng = np.random.default_rng(0)
    reports = []
    for each in sets:
        rows = rng.standard_normal((2, len(each.images), 6))
        embeddings = Embeddings(rows[0], rows[1] if mirror else None, mirror or "join")
        reports.append(Report(each.name, each.images, (each.evaluate(embeddings, Rule(centre)),), about or {}))
    return reports


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("agedb_30", "cfp_ff", "cplfw", "lfw", "calfw", "cfp_fp")):
        write_bin(tmp_path / "suite" / f"{name}.bin", seed)
    (tmp_path / "suite" / "notes.txt").write_text("x", encoding="utf-8")
    return tmp_path / "suite"


def test_what_is_no_set_is_counted_and_names_of_one_place_refused(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "old").mkdir()
    assert len(suite_sets(folder)) == 6
    assert "suite: 2 entries are not among the sets, such as notes.txt" in caplog.text
    for name in ("my set.bin", "my_set.bin"):
        write_bin(folder / name, 9)
    with pytest.raises(UserError, match="suite: got the names 'my set' and 'my_set' · allowed"):
        suite_sets(folder)
    (folder / "my set.bin").rename(folder / "my\nset.bin")
    with pytest.raises(UserError, match=r"suite: got the name 'my\\nset' · allowed: a text without slashes"):
        suite_sets(folder)


def test_a_set_that_is_there_twice_is_named_and_a_renamed_one_is_not(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    suite_sets(folder)
    assert "equal images" not in caplog.text  # their lists are equal, and their images are not
    shutil.copy(folder / "lfw.bin", folder / "cplfw.bin")
    suite_sets(folder, find_images=False)
    assert "equal images" not in caplog.text
    suite_sets(folder)
    (line,) = {text for text in caplog.messages if "equal images" in text}
    assert line == f"{folder}: lfw and cplfw have equal images and pairs, so a mean counts them twice · leave one out"


def test_a_link_that_leads_nowhere_is_a_set_that_is_missing(folder):
    (folder / "lfw.bin").rename(folder.parent / "elsewhere.bin")
    (folder / "lfw.bin").symlink_to(folder.parent / "elsewhere.bin")
    assert "lfw" in [each.name for each in suite_sets(folder)]
    (folder.parent / "elsewhere.bin").unlink()
    with pytest.raises(UserError, match=r"suite/lfw\.bin: a broken link to .*elsewhere\.bin · restore"):
        suite_sets(folder)


def test_the_five_come_first_and_have_a_mean_of_their_own(folder):
    sets = suite_sets(folder)
    assert [each.name for each in sets] == [*FIVE, "cfp_ff"]
    suite = suite_of(reports_of(sets))
    accuracy = {name: result.verification.mean for name, result in suite.results.items()}
    rows = suite.rows().rows
    assert [row[0] for row in rows] == [*FIVE, "cfp_ff", "mean of the five", "mean of all 6"]
    assert rows[-2][2] == f"{100 * sum(accuracy[name] for name in FIVE) / 5:.2f}%"
    assert rows[-1][2] == f"{100 * sum(accuracy.values()) / 6:.2f}%"
    assert suite.to_dict()["means"]["mean of the five"]["accuracy"] == pytest.approx(
        np.mean([accuracy[name] for name in FIVE])
    )


def test_without_one_of_them_there_is_no_mean_of_the_five(folder):
    (folder / "calfw.bin").unlink()
    suite = suite_of(reports_of(suite_sets(folder)))
    assert list(suite.means()) == ["mean of all 5"]


def test_folders_with_a_list_are_sets_too(tmp_path):
    write_set(tmp_path / "suite" / "AgeDB-30")
    write_bin(tmp_path / "suite" / "lfw.bin", 0)
    sets = suite_sets(tmp_path / "suite")
    assert [each.name for each in sets] == ["lfw", "AgeDB-30"]
    assert sets[1].pairs.path.name == "pairs.txt"


def test_names_are_told_apart_without_case_and_dashes(folder):
    write_bin(folder / "AgeDB-30.bin", 9)
    with pytest.raises(UserError, match="allowed: one of each name"):
        suite_sets(folder)
    (folder / "agedb_30.bin").unlink()
    suite = suite_of(reports_of(suite_sets(folder)))
    assert suite.means()["mean of the five"][2] == "AgeDB-30"
    (folder / "cfp_ff.bin").unlink()
    (folder / "._lfw.bin").write_bytes(b"what macOS leaves")
    suite = suite_of(reports_of(suite_sets(folder)))
    assert list(suite.means()) == ["mean of the five"]


def test_a_figure_that_a_set_does_not_have_is_blank(tmp_path):
    crops = write_set(tmp_path / "suite" / "own")
    (crops / "pairs.txt").write_text((crops / "pairsDevTest.txt").read_text(), encoding="utf-8")
    write_bin(tmp_path / "suite" / "lfw.bin", 0)
    rows = suite_of(reports_of(suite_sets(tmp_path / "suite"))).rows().rows
    assert [row[3] for row in rows if row[0] in ("own", "mean of all 2")] == ["", ""]  # view 1 has no folds
    assert rows[0][3].endswith("%")


def test_files_of_a_suite(folder, tmp_path):
    suite = suite_of(reports_of(suite_sets(folder)))
    write_suite(suite, tmp_path / "out")
    assert "mean of the five" in (tmp_path / "out" / "suite.txt").read_text(encoding="utf-8")
    assert set(json.loads((tmp_path / "out" / "suite.json").read_text(encoding="utf-8"))["sets"]) == {*FIVE, "cfp_ff"}


@pytest.mark.parametrize(
    ("mirror", "centre", "note"),
    [
        ("join", True, "SphereFace's protocol, mean and threshold {}; embeddings of image and mirror image, joined."),
        ("add", True, "mean and threshold {}; embeddings of image and mirror image, added."),
        (None, False, "threshold {}; NO mean subtracted; embeddings of the image only, NO mirror image."),
    ],
)
def test_the_rule_and_the_network_are_stated(folder, tmp_path, mirror, centre, note):
    about = {"checkpoint": "best.pt", "checkpoint_sha256": "ab", "config": {"model": {}}}
    suite = suite_of(reports_of(suite_sets(folder)[:2], centre=centre, mirror=mirror, about=about))
    note = note.format("of each fold from the other folds")
    assert suite.rows().note.startswith(f"accuracy: {note} InsightFace's rule: not centred")
    write_suite(suite, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "suite.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in written if key not in ("sets", "means")} == {
        "checkpoint": "best.pt", "checkpoint_sha256": "ab", "mirror": mirror or "none", "subtract_mean": centre,
    }  # fmt: skip


def test_a_folder_without_sets(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.bin file and no folder with a pairs\.txt"):
        suite_sets(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        suite_sets(tmp_path / "none")


def test_a_table_that_serves_one_bin_alone_is_refused_before_anything_is_written(tmp_path, capsys):
    for seed, name in enumerate(("lfw", "x")):
        write_bin(tmp_path / "suite" / f"{name}.bin", seed)
    names = np.array([f"{k:06d}" for k in range(200)])
    np.savez(tmp_path / "t.npz", names=names, embeddings=np.random.default_rng(0).standard_normal((200, 4)))
    command = ["--embeddings", str(tmp_path / "t.npz"), "--suite", str(tmp_path / "suite")]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert "allowed: one .bin for names without a prefix" in printed.err
    assert "accuracy" not in printed.out
    assert not (tmp_path / "out").exists()
