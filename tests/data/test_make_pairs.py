from __future__ import annotations

import csv
import errno
import itertools
import os
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from scripts.make_pairs import main
from sphereface.alignment.kept_settings import settings_near
from sphereface.config_files import set_value
from sphereface.data.make_pairs import pairs_text
from sphereface.data.packing import pack
from sphereface.data.pair_split import _different, _two_of, split
from sphereface.data.pairs import read_pairs
from sphereface.data.sources import open_path, open_source, shared_image
from sphereface.data.sources.listing import BY_LABEL
from sphereface.errors import UserError
from sphereface.evaluation import load_pair_set
from sphereface.places import parse_places

from ..images import make_training_set, write

COUNTS = [1, 9, 4, 2, 7, 3, 3, 12, 2, 5, 40, 6, 2, 2, 8, 3, 1, 5, 4, 6] * 5  # 100 people, 90 with two or more


def sides(chosen, fold):
    return [[(chosen.folds[fold][p], k) for p, k in pair] for pair in chosen.same[fold] + chosen.different[fold]]


@pytest.mark.parametrize("seed", range(5))
def test_folds_share_nobody_and_pairs_are_what_they_say(seed):
    chosen = split(COUNTS, folds=5, people=40, pairs=12, seed=seed)
    assert sorted(itertools.chain(*chosen.folds)) == chosen.people == sorted(set(chosen.people))
    assert len(chosen.people) == 40
    assert {len(group) for group in chosen.folds} == {8}
    for fold in range(5):
        same, different = chosen.same[fold], chosen.different[fold]
        assert len(same) == len(different) == 12
        assert all(a[0] == b[0] and a[1] != b[1] for a, b in same)
        assert all(a[0] != b[0] for a, b in different)
        assert len({frozenset(pair) for pair in same + different}) == 24  # none twice, either way round
        assert all(0 <= k < COUNTS[label] for pair in sides(chosen, fold) for label, k in pair)


def test_the_seed_decides():
    assert split(COUNTS, folds=3, seed=1) == split(COUNTS, folds=3, seed=1)
    assert split(COUNTS, folds=3, seed=1) != split(COUNTS, folds=3, seed=2)


def test_nobody_outweighs_the_rest():
    """Six pairs of four people: everybody has one before anybody has two."""
    chosen = split([100, 100, 100, 100, 100, 100, 100, 100, 5, 5], folds=2, people=8, pairs=6, seed=3)
    for same in chosen.same:
        times = np.bincount([a[0] for a, _ in same], minlength=4)
        assert sorted(times.tolist()) == [1, 1, 2, 2]


def test_as_many_pairs_as_the_poorest_fold_has():
    chosen = split([3, 3, 2, 2, 9, 9], folds=2, people=4, seed=0)
    drawn = [[(3, 3, 2, 2, 9, 9)[label] for label in group] for group in chosen.folds]
    same = min(sum(n * (n - 1) // 2 for n in group) for group in drawn)
    different = min(a * b for a, b in drawn)
    assert len(chosen.same[0]) == len(chosen.different[1]) == min(same, different)


def test_no_more_than_lfw_has_unless_asked():
    assert len(split([30] * 60, folds=2, people=20).same[0]) == 300
    assert len(split([30] * 60, folds=2, people=20, pairs=500).same[0]) == 500


def test_a_tenth_is_held_out_but_two_a_fold_or_more():
    assert len(split([4] * 400).people) == 40
    assert len(split([4] * 30).people) == 20


def test_all_pairs_of_two_people_can_be_taken():
    chosen = split([2, 2, 2, 2, 1, 1], folds=2, people=4, pairs=2)
    assert sorted(chosen.same[0]) == [((0, 0), (0, 1)), ((1, 0), (1, 1))]
    assert len(set(chosen.different[0])) == 2


@pytest.mark.timeout(120)  # drawing until every one has come up would take minutes
def test_all_pairs_of_uneven_people_can_be_taken():
    size = [60, 60] + [2] * 38
    every = (sum(size) ** 2 - sum(n * n for n in size)) // 2
    assert len(set(_different(size, every, random.Random(0)))) == every


def test_folds_are_alike():
    """Each fold gets one of the two with most images, one of the next two, and so on."""
    counts = [50, 49, 20, 19, 8, 7, 5, 4, 3, 2]
    for seed in range(5):
        chosen = split(counts, folds=2, people=8, seed=seed)
        ranks = sorted(chosen.people, key=lambda label: -counts[label])
        for group in chosen.folds:
            assert sorted(ranks.index(label) // 2 for label in group) == [0, 1, 2, 3]


def test_pairs_by_number():
    assert [_two_of(k) for k in range(6)] == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert {_two_of(k) for k in range(4950)} == set(itertools.combinations(range(100), 2))


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([4] * 21, {}, r"has 21 people, 21 of them .* allowed: 20 .* and 2 others .* --folds 9$"),
        ([4] * 19 + [1] * 50, {}, r"has 69 people, 19 of them .* allowed: 20 .* add people, .* --folds 9$"),
        (
            [4] * 5,
            {},
            r"allowed: 20 or more of those to hold out \(two or more per fold\), and 2 others .* · add people$",
        ),
        ([4] * 12, {"people": 11, "folds": 2}, r"allowed: 11 or more .* · add people, or hold out fewer: --people 10$"),
        ([4] * 90, {"people": 19}, "--people: got 19 · allowed: 20 or more, two in each of 10 folds"),
        ([4] * 90, {"folds": 1}, "--folds: got 1 · allowed: 2 or more"),
        ([2] * 90, {"pairs": 3}, r"--pairs: got 3 .* these 20 people: at most 2 · use about 30 people"),
    ],
)
def test_too_few_people(counts, options, message):
    with pytest.raises(UserError, match=message):
        split(counts, **options)


def test_text_reads_back(tmp_path):
    chosen = split(COUNTS, folds=5, people=40, pairs=12, seed=0)
    path = tmp_path / "pairs.txt"
    path.write_text(pairs_text(chosen, {label: f"Anne Marie {label}" for label in chosen.people}), encoding="utf-8")
    pairs = read_pairs(path)
    assert (pairs.num_folds, len(pairs)) == (5, 120)
    expected = [
        [f"Anne Marie {label}/Anne Marie {label}_{k + 1:04d}.jpg" for label, k in pair]
        for fold in range(5)
        for pair in sides(chosen, fold)
    ]
    assert [[pairs.names[a], pairs.names[b]] for a, b in zip(pairs.left, pairs.right, strict=True)] == expected
    assert pairs.same.tolist() == ([True] * 12 + [False] * 12) * 5


@pytest.fixture
def faces(tmp_path):
    return make_training_set(tmp_path / "faces", identities=9, each=3, size=(16, 12))


def test_training_and_verification_share_nobody(faces, tmp_path, capsys):
    (faces / "id03").rename(faces / "Zoë Ångström, 李")
    write(faces / "id01" / "a.jpg", np.full((16, 12, 3), 9, np.uint8))
    own = tmp_path / "own"
    assert main([str(faces), str(own), "--folds", "3", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert "6 people, 3 folds of " in out
    assert f"--set data.exclude_file={own / 'people.txt'}" in out
    pair_set = load_pair_set("own", own, own / "pairs.txt")
    held_out = set((own / "people.txt").read_text(encoding="utf-8").split("\n")) - {""}
    assert {name.split("/")[0] for name in pair_set.pairs.names} <= held_out
    left = open_source(faces, exclude_file=own / "people.txt")
    assert set(left.class_names) | held_out == {folder.name for folder in faces.iterdir()}
    assert not set(left.class_names) & held_out
    pixels = {path.read_bytes() for path in faces.rglob("*.*g")}
    assert all(image.read_bytes() in pixels for image in pair_set.images.files)
    for name in held_out:
        kept = sorted(path.read_bytes() for path in (faces / name).iterdir())
        assert sorted(path.read_bytes() for path in (own / name).iterdir()) == kept


@pytest.mark.skipif(os.name != "posix", reason="the quotes of a shell of Unix")
@pytest.mark.parametrize(
    ("name", "excluded", "verified"),
    [
        ("own", "data.exclude_file=own/people.txt", "eval.sets.own=own"),
        ("my own", "'data.exclude_file=my own/people.txt'", "'eval.sets.own=my own'"),
        ("own,v2", "data.exclude_file=own,v2/people.txt", "'eval.sets.own=own\\,v2'"),
        ("it's", "'data.exclude_file=it'\"'\"'s/people.txt'", "'eval.sets.own=it'\"'\"'s'"),
        ("a #b", "'data.exclude_file=\"a #b/people.txt\"'", "'eval.sets.own=\"a #b\"'"),
        ("[x], y", "'data.exclude_file=\"[x], y/people.txt\"'", "'eval.sets.own=\"[x]\\\\, y\"'"),
        ("12", "data.exclude_file=12/people.txt", "'eval.sets.own=\"12\"'"),
        ("tiny:x", "data.exclude_file=tiny:x/people.txt", "eval.sets.own=./tiny:x"),
    ],
)
def test_the_printed_options_can_be_copied(faces, tmp_path, monkeypatch, capsys, name, excluded, verified):
    monkeypatch.chdir(tmp_path)
    assert main(["faces", name, "--folds", "3"]) == 0
    _, train, verify = capsys.readouterr().out.splitlines()
    assert train == f"train without them:  --set {excluded}"
    assert verify == f"verify on them:      --set {verified} --set eval.select=own"
    values: dict[str, Any] = {}
    for line in (train, verify):
        for option in shlex.split(line.partition(":")[2])[1::2]:
            set_value(values, option)
    assert open_source(faces, exclude_file=values["data"]["exclude_file"]).class_names
    assert parse_places(values["eval"]["sets"]["own"]).paths == (Path(name),)


def test_the_report_of_align_goes_with_the_copies(faces, tmp_path, caplog):
    report = b'{"settings": {"size": "112x96", "template_origin": 1}}'
    (faces / "align-report.json").write_bytes(report)
    assert main([str(faces), str(tmp_path / "own"), "--folds", "3"]) == 0
    assert (tmp_path / "own/align-report.json").read_bytes() == report
    assert settings_near(tmp_path / "own") == settings_near(faces) is not None
    pack(open_path(faces), tmp_path / "packed/train.rec")
    assert main([str(tmp_path / "packed"), str(tmp_path / "none"), "--folds", "3"]) == 0
    assert not (tmp_path / "none/align-report.json").exists()
    other = make_training_set(tmp_path / "more/other", identities=3, each=3, size=(16, 12))
    (other / "align-report.json").write_bytes(report)
    folders = [*sorted(faces.glob("id*")), *sorted(other.glob("id*"))]
    lines = [f"{path.relative_to(tmp_path)} {k}" for k, folder in enumerate(folders) for path in folder.iterdir()]
    (tmp_path / "both.txt").write_text("\n".join(lines))
    assert main([str(tmp_path / "both.txt"), str(tmp_path / "both"), "--folds", "3"]) == 0
    assert not (tmp_path / "both/align-report.json").exists()
    assert "both.txt: the crops come from several runs of sphereface align: no align-report.json" in caplog.text


def test_of_a_source_that_is_no_folder(faces, tmp_path):
    listing = tmp_path / "faces" / "list.txt"
    rows = [f"{path.relative_to(faces)} {10 + i // 3}\n" for i, path in enumerate(sorted(faces.rglob("*.png")))]
    listing.write_text("".join(rows), encoding="utf-8")
    assert main([str(listing), str(tmp_path / "own"), "--folds", "2", "--people", "5"]) == 0
    assert len(load_pair_set("own", tmp_path / "own", tmp_path / "own/pairs.txt").images) > 5


def test_a_person_in_two_spellings_is_not_held_out_in_one(faces, tmp_path, capsys):
    shutil.copytree(faces / "id00", faces / "ID00")
    codes = set()
    for seed in range(4):
        code = main([str(faces), str(tmp_path / f"own{seed}"), "--folds", "2", "--people", "4", "--seed", str(seed)])
        text = capsys.readouterr()
        codes.add(code)
        if code == 0:
            open_source(faces, exclude_file=tmp_path / f"own{seed}" / "people.txt")
        else:
            assert "'id00'" in text.err
            assert "'ID00'" in text.err
            assert "allowed: one spelling of a person's name" in text.err
    assert codes == {0, 2}


def test_a_person_in_two_spellings_is_not_held_out_as_two_people(tmp_path, capsys):
    """There would be pairs of "two people" that show one."""
    faces = make_training_set(tmp_path / "faces", identities=10, each=3, size=(16, 12))
    for number, name in enumerate(("Tom Cruise", "Tom_Cruise")):
        (faces / f"id{number:02d}").rename(faces / name)
    errors = []
    for seed in range(6):
        own = tmp_path / f"own{seed}"
        if main([str(faces), str(own), "--folds", "2", "--people", "8", "--seed", str(seed)]):
            errors.append(capsys.readouterr().err)
            assert not own.exists()
        else:
            people = (own / "people.txt").read_text().splitlines()
            assert not {"Tom Cruise", "Tom_Cruise"} & set(people)
    both = "error: SRC: got 'Tom Cruise' and 'Tom_Cruise', who would be held out as two people · allowed: one spelling"
    assert any(error.startswith(both) for error in errors)
    assert any("of whom only the first is held out · allowed: one spelling" in error for error in errors)


def test_a_set_inside_the_training_folder_is_refused(faces, tmp_path, capsys):
    (tmp_path / "link").symlink_to(faces, target_is_directory=True)
    for place in (faces / "verify", tmp_path / "link/deep/er"):
        assert main([str(faces), str(place), "--folds", "2"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: DST: got {place}, inside {faces} · ")
    for name, start in (("clean.txt", "faces/"), ("faces/clean.txt", ""), ("faces/id00/l.txt", "../")):
        rows = [f"{start}{path.relative_to(faces)} {path.parent.name[2:]}\n" for path in sorted(faces.rglob("*.png"))]
        (tmp_path / name).write_text("".join(rows))
        assert main([str(tmp_path / name), str(faces / "verify"), "--folds", "2"]) == 2
        assert f"error: DST: got {faces / 'verify'}, inside {faces} · " in capsys.readouterr().err
        (tmp_path / name).unlink()
    assert len(list(faces.iterdir())) == 9


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "SRC: has 9 people, 9 of them with two or more different images · allowed: 20 or more of those"),
        (["--folds", "2", "--pairs", "0"], "--pairs: got 0 · allowed: 1 or more"),
        (["--folds", "2", "--people", "-3"], "--people: got -3 · allowed: 1 or more"),
    ],
)
def test_errors_are_one_line_and_write_nothing(faces, tmp_path, capsys, more, message):
    assert main([str(faces), str(tmp_path / "own"), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "own").exists()


def test_a_folder_with_something_in_it_is_left_alone(faces, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine").write_text("x")
    assert main([str(faces), str(tmp_path / "own"), "--folds", "2"]) == 2
    assert "exists already · allowed: a new or empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["mine"]


def test_a_bad_image_ends_before_pairs_are_written(faces, tmp_path, capsys):
    for folder in faces.iterdir():
        (folder / "zzz.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((16, 12, 3), np.uint8))[1].tobytes()[:-3])
    assert main([str(faces), str(tmp_path / "own"), "--folds", "2"]) == 2
    assert "truncated JPEG" in (text := capsys.readouterr().err)
    assert "sphereface check SRC --write-list" in text
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]


def test_which_image_became_which_file_is_written_down(faces, tmp_path):
    (faces / "id03/002.png").rename(faces / 'id03/a "b"\n.png')
    own = tmp_path / "own"
    assert main([str(faces), str(own), "--folds", "2", "--people", "7"]) == 0
    with (own / "names.tsv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    assert header == ["file", "source"]
    assert {file for file, _ in rows} == {path.relative_to(own).as_posix() for path in own.glob("*/*.png")}
    for file, source in rows:
        assert (own / file).read_bytes() == Path(source.replace("\\n", "\n")).read_bytes()
    assert not any(path.name.startswith(".") for path in [*own.iterdir(), *tmp_path.iterdir()])
    assert len(load_pair_set("own", own, own / "pairs.txt").images) > 5


def test_names_with_blanks_at_their_ends_do_not_leak_into_training(faces, tmp_path):
    """Held out as 'id03 ', such people stayed in training where the list was read without its blanks."""
    for number, folder in enumerate(sorted(faces.iterdir())):
        folder.rename(faces / (f"id{number:02d} " if number % 2 else f" id{number:02d}"))
    own = tmp_path / "own"
    assert main([str(faces), str(own), "--folds", "2", "--people", "6"]) == 0
    held_out = (own / "people.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(held_out) == 6
    left = open_source(faces, exclude_file=own / "people.txt")
    assert set(left.class_names) == {folder.name for folder in faces.iterdir()} - set(held_out)
    assert len(left.class_names) == 3
    assert load_pair_set("own", own, own / "pairs.txt").pairs.num_folds == 2


@pytest.mark.skipif(os.name != "posix", reason="names that other systems forbid")
def test_names_that_only_some_file_systems_know(faces, tmp_path):
    odd = [
        "Thumbs.db",
        "n" * 251,
        ".x"[1:] + "\x7f\x85",
        "a:b?",
        os.fsdecode(b"caf\xe9"),
        "\u2028y",
        "-",
        "王" * 80,
        "é" * 120,
    ]
    for folder, name in zip(sorted(faces.iterdir()), odd, strict=True):
        if name != "Thumbs.db":  # which nobody reads
            folder.rename(faces / name)
    own = tmp_path / "own"
    assert main([str(faces), str(own), "--folds", "2", "--people", "7"]) == 0
    pair_set = load_pair_set("own", own, own / "pairs.txt")  # all files are found
    assert pair_set.pairs.num_folds == 2
    left = open_source(faces, exclude_file=own / "people.txt")
    assert len(left.class_names) == 2
    assert len(list(own.glob("*/*.png"))) == 7 * 3


@pytest.mark.skipif(os.name != "posix", reason="names that other systems forbid")
@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\rb", " ", "\ufeffa"])
def test_a_name_that_no_line_can_hold_is_refused_before_anything_is_written(faces, tmp_path, capsys, name):
    for number, folder in enumerate(sorted(faces.iterdir())):
        folder.rename(faces / f"{name}{number}") if name != " " else number or folder.rename(faces / name)
    assert main([str(faces), str(tmp_path / "own"), "--folds", "2", "--people", "7", "--seed", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "people.txt: cannot list the identity " in line
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]


def test_a_full_disk_and_a_kill_leave_no_half_set(faces, tmp_path, capsys, monkeypatch):
    from sphereface.data import make_pairs

    arguments = [str(faces), str(tmp_path / "own"), "--folds", "2"]
    write, written = make_pairs.write_whole, []

    def full(path, data, **options):
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write(path, data, **options)

    monkeypatch.setattr(make_pairs, "write_whole", full)
    assert main(arguments) == 2
    assert "No space left on device · nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]
    monkeypatch.undo()
    part = tmp_path / ".own.part"  # as a killed process leaves it
    (part / "id77").mkdir(parents=True)
    (part / "id77/id77_0001.png").write_bytes(b"x")
    (part / "pairs.txt").write_text("x", encoding="utf-8")
    (tmp_path / "own").mkdir()
    assert main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "own"]
    assert not (tmp_path / "own/id77").exists()
    assert main([str(faces), str(tmp_path / "other"), "--folds", "2"]) == 0
    for path in (tmp_path / "other").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "own" / path.relative_to(tmp_path / "other")).read_bytes()


def test_of_two_at_once_one_is_told(faces, tmp_path, capsys):
    lock = tmp_path / ".own.lock"
    program = (
        "import sys, pathlib; from sphereface.files import lock_file; "
        f"lock = lock_file(pathlib.Path({str(lock)!r})); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        assert main([str(faces), str(tmp_path / "own"), "--folds", "2"]) == 2
        assert "another process is writing this set · wait for it" in capsys.readouterr().err
        assert not (tmp_path / "own").exists()
        other.stdin.close()
    assert main([str(faces), str(tmp_path / "own"), "--folds", "2"]) == 0


def test_the_set_is_locked_until_it_has_its_name(faces, tmp_path, monkeypatch):
    """Or another process would clear it, between its last file and the rename."""
    replace, other = Path.replace, []
    program = "import sys; from pathlib import Path; from sphereface.files import lock_file; "
    program += "print(lock_file(Path(sys.argv[1])) is not None)"

    def seen(path, target):
        if path.name == ".own.part":
            other.append(
                subprocess.check_output([sys.executable, "-c", program, str(tmp_path / ".own.lock")], text=True)
            )
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", seen)
    assert main([str(faces), str(tmp_path / "own"), "--folds", "2"]) == 0
    assert other == ["False\n"]
    assert [path.name for path in tmp_path.glob(".own*")] == []


def test_names_that_are_no_file_names(faces, tmp_path):
    listing = faces / "list.txt"  # identities without folders of their own are called by their label
    rows = [f"{path.relative_to(faces)} {i % 6}\n" for i, path in enumerate(sorted(faces.rglob("*.png")))]
    listing.write_text("".join(rows), encoding="utf-8")
    assert main([str(listing), str(tmp_path / "own"), "--folds", "2"]) == 0
    assert load_pair_set("own", tmp_path / "own", tmp_path / "own/pairs.txt").pairs.num_folds == 2
    people = (tmp_path / "own/people.txt").read_text(encoding="utf-8").split()
    assert len(open_source(listing, exclude_file=tmp_path / "own/people.txt").class_names) == 6 - len(people) == 2


def test_training_with_the_held_out_people_of_a_numbered_list_is_noticed(faces, tmp_path):
    """The numbers of two sets are unrelated, but equal images are not."""
    paths = [path.relative_to(faces).as_posix() for path in sorted(faces.rglob("*.png"))]
    listing = faces / "list.txt"
    listing.write_text("".join(f"{path} {i % 6}\n" for i, path in enumerate(paths)), encoding="utf-8")
    own = tmp_path / "own"
    assert main([str(listing), str(own), "--folds", "2"]) == 0
    people = (own / "people.txt").read_text(encoding="utf-8").split()
    loaded = load_pair_set("own", own, own / "pairs.txt")
    named = make_training_set(tmp_path / "named", 2, 2, size=(32, 32))

    def shared(train, **options):
        return shared_image(open_source(train, **options), loaded.images.names, loaded.images.found())

    assert shared(listing) in people
    for joined in ([listing, named], [named, listing]):
        assert shared(joined) in people
    assert shared(listing, exclude_file=own / "people.txt") == ""
    assert shared(named) == ""
    listing.write_text("".join(f"{path} {5 - i % 6}\n" for i, path in enumerate(paths)), encoding="utf-8")
    assert shared(listing) != ""  # the same people with other numbers
    listing.write_text("".join(f"{path} {i % 6}\n" for i, path in enumerate(paths[:6])), encoding="utf-8")
    shared(listing)  # fewer images of each
    other = [path for path in paths if path not in (own / "names.tsv").read_text(encoding="utf-8")]
    listing.write_text("".join(f"{path} {i % 6}\n" for i, path in enumerate(other)), encoding="utf-8")
    assert shared(listing) == ""  # the same numbers for other people


@pytest.mark.parametrize("reverse", [False, True])
def test_numbers_of_another_form_of_the_set_do_not_hide_held_out_people(tmp_path, reverse):
    """Folders 1 … 12, sorted as texts, have the labels 0 … 11 in a list: 10 is label 1, 2 is 4."""
    folder = make_training_set(tmp_path / "faces", 12, 3, size=(16, 12))
    for number, path in enumerate(sorted(folder.iterdir()), start=1):
        path.rename(folder / str(number))
    people = sorted(path.name for path in folder.iterdir())
    listing, own = tmp_path / "list.txt", tmp_path / "own"
    # images in another order within each person, as other programs list them
    paths = [(path, people.index(path.parent.name)) for path in sorted(folder.rglob("*.png"), reverse=True)]
    flat = tmp_path / "flat"
    flat.mkdir()
    for path, label in paths:
        shutil.copy(path, flat / f"{label}_{path.name}")
    listing.write_text("".join(f"flat/{label}_{path.name} {label}\n" for path, label in paths), encoding="utf-8")
    made_of, trained_on = (listing, folder) if reverse else (folder, listing)
    assert main([str(made_of), str(own), "--folds", "2", "--people", "4"]) == 0
    loaded = load_pair_set("own", own, own / "pairs.txt")
    digests = {path.read_bytes() for path in own.glob("*/*.png")}
    for train in (trained_on, made_of):
        source = open_source(train, exclude_file=own / "people.txt")
        leaks = {source.class_names[source.labels[row]] for row in range(len(source)) if source.read(row) in digests}
        found = shared_image(source, loaded.images.names, loaded.images.found())
        assert (found in leaks) if train == trained_on else (leaks, found) == (set(), "")


@pytest.mark.parametrize("reverse", [False, True])
def test_held_out_people_with_names_are_found_where_training_has_only_numbers(tmp_path, reverse):
    """Also the other way round. Names cannot tell, and the refused list of people must not lead into it."""
    folder = make_training_set(tmp_path / "faces", 12, 3, size=(16, 12))
    listing, own = folder / "list.txt", tmp_path / "own"
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    rows = [f"{path} {11 - int(path[2:4])}\n" for path in paths]
    listing.write_text(f"{BY_LABEL}\n{''.join(rows)}", encoding="utf-8")
    pack(open_path(listing), tmp_path / "train.rec")
    made_of, trained_on = (tmp_path / "train.rec", folder) if reverse else (folder, tmp_path / "train.rec")
    assert main([str(made_of), str(own), "--folds", "2", "--people", "4"]) == 0
    loaded = load_pair_set("own", own, own / "pairs.txt")
    with pytest.raises(UserError, match=r"contains none of these · make pairs of data.train \(sphereface make-pairs\)"):
        open_source(trained_on, exclude_file=own / "people.txt")
    source = open_source(trained_on)
    assert source.named == reverse
    digests = {path.read_bytes() for path in own.glob("*/*.png")}
    leaks = {source.class_names[source.labels[row]] for row in range(len(source)) if source.read(row) in digests}
    assert shared_image(source, loaded.images.names, loaded.images.found()) in leaks
    assert len(leaks) == 4
    assert shared_image(open_source(trained_on, exclude=leaks), loaded.images.names, loaded.images.found()) == ""
    if not reverse:  # LFW has such names too, and no images of its are read
        (own / "names.tsv").unlink()
        assert shared_image(source, loaded.images.names, loaded.images.found()) == ""


@pytest.mark.parametrize("form", ["renumbered", "with_surname", "split", "split_behind_new_images"])
def test_held_out_people_under_another_folder_name_are_found(tmp_path, form):
    folder, own = make_training_set(tmp_path / "faces", 12, 8, size=(16, 12)), tmp_path / "own"
    assert main([str(folder), str(own), "--folds", "2", "--people", "4"]) == 0
    people = (own / "people.txt").read_text(encoding="utf-8").split()
    loaded = load_pair_set("own", own, own / "pairs.txt")

    def shared(**options):
        return shared_image(open_source(folder, **options), loaded.images.names, loaded.images.found())

    assert shared(exclude_file=own / "people.txt") == ""
    assert shared() == ""  # of these, names tell
    (folder / people[0]).rename(folder / people[0].upper())
    assert shared(exclude=people[1:]) == ""  # names tell of another spelling, too
    (folder / people[0].upper()).rename(folder / people[0])
    if form in ("renumbered", "with_surname"):
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / (f"s{number:02d}" if form == "renumbered" else f"Smith_{path.name}"))
        with pytest.raises(UserError, match=r"contains none of these · .*have other names there, make pairs of data"):
            open_source(folder, exclude_file=own / "people.txt")
        digests, source = {path.read_bytes() for path in own.glob("*/*.png")}, open_source(folder)
        leaks = {source.class_names[source.labels[row]] for row in range(len(source)) if source.read(row) in digests}
        assert len(leaks) == 4
        assert shared() in leaks
        assert shared(exclude=leaks) == ""
    else:
        (moved := folder / f"{people[0]}_2024").mkdir()
        for path in sorted((folder / people[0]).iterdir())[4:]:
            path.rename(moved / path.name)
        if form == "split_behind_new_images":
            shutil.copy(folder / people[0] / "000.png", moved / "000.png")
            with (moved / "000.png").open("ab") as file:
                file.write(b"new")
        assert shared(exclude_file=own / "people.txt") == moved.name
    (own / "names.tsv").unlink()  # as of LFW, whose images are not read
    assert shared() == ""


def test_no_more_images_than_the_bound_are_compared(tmp_path, monkeypatch):
    """Of few identities, several images are read; of many, the first one of some that are evenly spread."""
    folder, own = make_training_set(tmp_path / "faces", 12, 8, size=(16, 12)), tmp_path / "own"
    assert main([str(folder), str(own), "--folds", "2", "--people", "4"]) == 0
    loaded, source = load_pair_set("own", own, own / "pairs.txt"), open_source(folder, exclude_file=own / "people.txt")
    read: list[int] = []
    monkeypatch.setattr(type(source), "read", lambda _, row: read.append(row) or b"")
    for most, rows in ((4096, range(64)), (16, range(0, 64, 4)), (15, range(0, 64, 8)), (3, (0, 24, 48))):
        monkeypatch.setattr("sphereface.data.sources.selection.COMPARED", most)
        assert shared_image(source, loaded.images.names, loaded.images.found()) == ""
        assert read == list(rows), most
        read.clear()


def test_no_pair_is_one_and_the_same_picture(tmp_path, caplog):
    """Browsers name a copy '000 (1).png'. id09 has only copies, so another person is held out."""
    faces = make_training_set(tmp_path / "faces", 10, 3, size=(16, 12))
    for person in faces.iterdir():
        first = min(person.iterdir())
        shutil.copy(first, first.with_name(f"{first.stem} (1){first.suffix}"))
    for path in sorted((faces / "id09").iterdir())[1:]:
        shutil.copy(min((faces / "id09").iterdir()), path)
    own = tmp_path / "own"
    assert main([str(faces), str(own), "--folds", "2", "--people", "8"]) == 0
    assert "SRC: 8 images are copies of another image of the same person, such as " in caplog.text
    assert "has an image of another person" not in caplog.text
    assert "id09" not in (own / "people.txt").read_text(encoding="utf-8").splitlines()
    images = [path.read_bytes() for path in own.glob("*/*.png")]
    assert len(images) == len(set(images)) == 24
    loaded = load_pair_set("own", own, own / "pairs.txt")  # every image that pairs.txt names is there
    assert len(loaded.images.found()) == 24
    assert len((own / "names.tsv").read_text(encoding="utf-8").splitlines()) == 25


def test_people_who_have_copies_only_do_not_count_as_people_with_several_images(tmp_path, capsys):
    faces = make_training_set(tmp_path / "faces", 30, 1, size=(16, 12))
    for path in list(faces.rglob("*.png")):
        shutil.copy(path, path.with_name("copy.png"))
    assert main([str(faces), str(tmp_path / "own")]) == 2
    assert "has 30 people, 0 of them with two or more different images" in capsys.readouterr().err


@pytest.mark.parametrize("held_out", [8, 6])
def test_a_copied_person_is_named(tmp_path, caplog, held_out):
    """Each of ten people has a twin in a copied folder: in the set, or left to train on."""
    faces = make_training_set(tmp_path / "faces", 5, 3, size=(16, 12))
    for person in list(faces.iterdir()):
        shutil.copytree(person, faces / f"{person.name} - Copy")
    assert main([str(faces), str(tmp_path / "own"), "--folds", "2", "--people", str(held_out)]) == 0
    (line,) = [line for line in caplog.messages if "SRC: " in line]
    assert " has an image of another person, who is held out: they may be one person · sphereface check" in line
    caplog.clear()
    for copy in faces.glob("* - Copy"):  # the first of each has a twin in training
        shutil.rmtree(copy)
    for person in list(faces.iterdir()):
        shutil.copytree(person, faces / f"{person.name}b")
        for path in (faces / f"{person.name}b").iterdir():
            path.write_bytes(cv2.imencode(".png", cv2.imread(str(path)) // 2)[1].tobytes())
    assert main([str(faces), str(tmp_path / "b"), "--folds", "2", "--people", str(held_out)]) == 0
    assert "SRC: " not in caplog.text


def test_a_copy_of_a_held_out_person_who_stays_in_training_is_named(tmp_path, caplog):
    faces = make_training_set(tmp_path / "faces", 8, 3, size=(16, 12))
    for person in sorted(faces.iterdir())[:4]:
        for path in sorted(person.iterdir())[1:]:
            path.unlink()  # with one image, it cannot be held out
        shutil.copy(min(person.iterdir()), min((faces / f"id{int(person.name[2:]) + 4:02d}").iterdir()))
    assert main([str(faces), str(tmp_path / "own"), "--folds", "2", "--people", "4"]) == 0
    assert "SRC: 'id00' has an image of another person, who is held out" in caplog.text
