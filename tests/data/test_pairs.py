import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from sphereface.data.images import IMAGE_SUFFIXES
from sphereface.data.pairs import SUFFIXES, Pairs, is_lfw_view2, read_pairs
from sphereface.errors import UserError

GOLDEN = Path(__file__).parent.parent / "golden" / "lfw_protocol.npz"

# Two folds of two pairs of each kind.
VIEW2 = """2\t2
Ann\t1\t2
Bob\t1\t3
Ann\t1\tBob\t2
Cy\t7\tAnn\t2
Cy\t1\t2
Cy\t1\t2
Dee\t1\tCy\t1
Dee\t1\tCy\t12
"""


def written(folder, text, name="pairs.txt", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def as_tuples(pairs):
    """(left name, right name, same, fold) of each pair."""
    rows = zip(pairs.left, pairs.right, pairs.same, pairs.fold, strict=True)
    return [(pairs.names[i], pairs.names[j], bool(same), int(fold)) for i, j, same, fold in rows]


def image(name, number):
    return f"{name}/{name}_{number:04d}.jpg"


def test_view2(tmp_path):
    pairs = read_pairs(written(tmp_path, VIEW2))
    assert as_tuples(pairs) == [
        (image("Ann", 1), image("Ann", 2), True, 1),
        (image("Bob", 1), image("Bob", 3), True, 1),
        (image("Ann", 1), image("Bob", 2), False, 1),
        (image("Cy", 7), image("Ann", 2), False, 1),
        (image("Cy", 1), image("Cy", 2), True, 2),
        (image("Cy", 1), image("Cy", 2), True, 2),  # a repeated pair stays
        (image("Dee", 1), image("Cy", 1), False, 2),
        (image("Dee", 1), image("Cy", 12), False, 2),
    ]
    assert pairs.num_folds == 2
    assert len(pairs) == 8
    assert list(pairs.names) == sorted(set(pairs.names))
    assert (pairs.left.dtype, pairs.right.dtype, pairs.fold.dtype) == (np.int64,) * 3
    assert pairs.same.dtype == bool


def test_lfw_in_full_equals_the_original_parser(tmp_path):
    with np.load(GOLDEN, allow_pickle=False) as golden:
        people = [re.fullmatch(r"(.+)_(\d{4})\.jpg", name).groups() for name in golden["names"].tolist()]
        lines = ["10\t300"]
        for i, j, same in zip(golden["left"], golden["right"], golden["same"], strict=True):
            (left, m), (right, n) = people[i], people[j]
            lines.append(f"{left}\t{int(m)}\t{int(n)}" if same else f"{left}\t{int(m)}\t{right}\t{int(n)}")
        pairs = read_pairs(written(tmp_path, "\n".join(lines)))
        assert [name.split("/")[1] for name in pairs.names] == golden["names"].tolist()
        for key in ("left", "right", "same", "fold"):
            np.testing.assert_array_equal(getattr(pairs, key), golden[key])


def test_view1_has_no_folds(tmp_path):
    pairs = read_pairs(written(tmp_path, "2\nAnn\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n"))
    assert pairs.num_folds == 0
    assert pairs.fold.tolist() == [0, 0, 0, 0]
    assert pairs.same.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("what", "text", "encoding"),
    [
        ("spaces", VIEW2.replace("\t", "  "), "utf-8"),
        ("line ends of Windows", VIEW2.replace("\n", "\r\n"), "utf-8"),
        ("a byte order mark", VIEW2, "utf-8-sig"),
        ("blank lines at the end", VIEW2 + "\n\r\n  \n", "utf-8"),
        ("no line end at the end", VIEW2.rstrip("\n"), "utf-8"),
        ("blanks around fields", VIEW2.replace("\t", " \t ").replace("\n", " \n"), "utf-8"),
    ],
)
def test_other_spellings_mean_the_same(tmp_path, what, text, encoding):
    expected = as_tuples(read_pairs(written(tmp_path, VIEW2)))
    assert as_tuples(read_pairs(written(tmp_path, text, "other.txt", encoding))) == expected


def test_names_with_spaces_and_accents_between_tabs(tmp_path):
    pairs = read_pairs(written(tmp_path, "1\nZoë van Dam\t1\t2\nZoë van Dam\t1\tAl\t3\n"))
    assert pairs.names == (image("Al", 3), image("Zoë van Dam", 1), image("Zoë van Dam", 2))


def test_order_within_a_fold_does_not_matter(tmp_path):
    header, *lines = VIEW2.splitlines()
    shuffled = "\n".join([header, *(lines[k] for k in (3, 0, 2, 1, 7, 6, 5, 4))])
    straight, mixed = (
        read_pairs(written(tmp_path, VIEW2)),
        read_pairs(written(tmp_path, shuffled, "mixed.txt")),
    )
    assert sorted(as_tuples(straight)) == sorted(as_tuples(mixed))


LINES = VIEW2.splitlines()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"pairs.txt: is empty · allowed: a list of pairs"),
        (
            ["people"],
            r"line 1: got 'people' · allowed: LFW's first line \('10 300' in view 2, '500' in view 1\), 'image image",
        ),
        (["10 300 7"], r"line 1: got '10 300 7'"),
        (["1 2", *LINES[1:5]], r"line 1: got '1 2' · allowed: the numbers of folds \(2 or more\)"),
        (["0"], r"line 1: got '0'"),
        (["Ann\t1\tBob\t2"], "has 0 pairs of one person and 1 of two people · allowed: 2 or more of each"),
        (["10 ²"], r"line 1: got '10 ²' · allowed: LFW's first line"),
        (["1" * 5000], r"line 1: got '1{99}…' · allowed: the numbers of folds"),
        ([LINES[0], "Ann\t1\t²"], r"line 2: got 'Ann \| 1 \| ²'"),
        ([LINES[0], "Ann\t1\t" + "9" * 5000], r"line 2: got 'Ann \| 1 \| 9+…'"),
        (
            [LINES[0], "A\0n\t1\t2"],
            r"line 2: contains a NUL byte · allowed: UTF-8 text",
        ),
        ([LINES[0], "é" * 130 + "\t1\t2"], r"line 2: got an image's name of 530 bytes, 'é+…' · allowed: 255 bytes"),
        ([LINES[0], "..\t1\t2"], r"line 2: got the image '\.\./\.\._0001\.jpg' · allowed: names below the folder"),
        ([LINES[0], "/etc/x\t1\t2"], r"line 2: got the image '/etc/x//etc/x_0001\.jpg' · allowed: names below"),
        ([*LINES[:3], "Ann\t1", *LINES[3:]], r"line 4: got 'Ann \| 1' · allowed: 'name n1 n2' or"),
        ([*LINES[:3], "Ann\t0\t1", *LINES[3:]], r"line 4: got 'Ann \| 0 \| 1' · .* numbers from 1"),
        ([*LINES[:3], "Ann van Dam 1 2", *LINES[3:]], r"line 4: got 'Ann \| van \| Dam \| 1 \| 2' · .* tabs"),
        ([*LINES[:3], "Ann\t1\tBob\ttwo", *LINES[3:]], r"line 4: got 'Ann \| 1 \| Bob \| two'"),
        (
            LINES[:1],
            r"line 1: the file ends after 0 pairs, with 0 in fold 1 · .* announces 8 pairs, 4 in fold 1",
        ),
        (
            LINES[:-1],
            r"line 8: the file ends after 7 pairs, with 3 in fold 2 · its first line announces 8 pairs",
        ),
        ([*LINES, LINES[1]], r"line 10: got pair 9 of 9 · its first line announces 8"),
        (
            [*LINES[:5], *LINES[6:], LINES[8]],
            r"lines 6 to 9: fold 2 has 1 pair of one person and 3 of two · allowed: 2 of each",
        ),
        (
            [LINES[0], LINES[1], *LINES[1:]],
            r"lines 2 to 5: fold 1 has 3 pairs of one person and 1 of two · allowed: 2",
        ),
        (
            ["2", *LINES[1:4]],
            r"line 4: the file ends after 3 pairs, with 3 in the list · .* announces 4 pairs",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read_pairs(written(tmp_path, "\n".join(lines)))


def test_blank_lines_keep_the_line_numbers_true(tmp_path):
    with pytest.raises(UserError, match="line 6: got 'Ann'"):
        read_pairs(written(tmp_path, "\n".join([LINES[0], "", "", *LINES[1:3], "Ann"])))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: no such file · allowed: a list of pairs"):
        read_pairs(tmp_path / "none.txt")


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match=r"pairs\.txt: cannot be read as UTF-8 text"):
        read_pairs(tmp_path / "pairs.txt")


# ---------------------------------------------------------------- finding the images


def touch(root, names):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).touch()


def test_images_are_found_whatever_their_suffix(tmp_path):
    pairs = read_pairs(written(tmp_path, "1\nA.B\t1\t2\nA.B\t3\tC\t1\n"))
    files = ["A.B/A.B_0001.jpg", "A.B/A.B_0002.png", "A.B/A.B_0003.JPG", "C/C_0001.pgm"]
    touch(tmp_path, files)
    assert pairs.resolve(tmp_path) == [tmp_path / file for file in files]


def test_jpg_comes_first(tmp_path):
    assert SUFFIXES[0] == ".jpg"
    assert set(SUFFIXES) == IMAGE_SUFFIXES
    pairs = read_pairs(written(tmp_path, "1\nA\t1\t1\nA\t1\tA\t1\n"))
    touch(tmp_path, ["A/A_0001.png", "A/A_0001.jpg"])
    assert pairs.resolve(tmp_path) == [tmp_path / "A/A_0001.jpg"]


def test_missing_images_are_listed(tmp_path):
    pairs = read_pairs(written(tmp_path, VIEW2))
    touch(tmp_path, [name for name in pairs.names if not name.startswith("Bob")])
    with pytest.raises(UserError) as error:
        pairs.resolve(tmp_path)
    missing = [image("Bob", k) for k in (1, 2, 3)]
    first, *listed = str(error.value).splitlines()
    assert first.startswith(f"{tmp_path}: 3 of the {len(pairs.names)} images in {pairs.path} are missing")
    assert listed == [f"  - {name}" for name in missing]


def test_only_ten_of_the_missing_are_listed(tmp_path):
    lines = ["12", *(f"P{k:02d}\t1\t2" for k in range(12)), *(f"P{k:02d}\t1\tP00\t2" for k in range(12))]
    pairs = read_pairs(written(tmp_path, "\n".join(lines)))
    with pytest.raises(UserError) as error:
        pairs.resolve(tmp_path)
    first, *listed, last = str(error.value).splitlines()
    assert "24 of the 24 images" in first
    assert listed == [f"  - {name}" for name in pairs.names[:10]]
    assert last == "  … and 14 more"


def test_a_root_that_is_no_folder(tmp_path):
    pairs = read_pairs(written(tmp_path, VIEW2))
    with pytest.raises(UserError, match=r"crops: no such folder · allowed: .* aligned crops of .*pairs\.txt"):
        pairs.resolve(tmp_path / "crops")


def test_a_flat_folder(tmp_path):
    pairs = read_pairs(written(tmp_path, VIEW2))
    flat = [name.split("/")[1] for name in pairs.names]
    touch(tmp_path / "flat", [*flat[:-1], flat[-1].replace(".jpg", ".png")])
    found = [file.relative_to(tmp_path / "flat").as_posix() for file in pairs.resolve(tmp_path / "flat")]
    assert found == [*flat[:-1], flat[-1].replace(".jpg", ".png")]


def test_the_folders_of_the_list_come_before_a_flat_folder(tmp_path):
    """One image where the list says: the others are missing, and none is taken from elsewhere."""
    pairs = read_pairs(written(tmp_path, VIEW2))
    touch(tmp_path, [*(name.split("/")[1] for name in pairs.names), pairs.names[3]])
    with pytest.raises(UserError, match="9 of the 10 images"):
        pairs.resolve(tmp_path)


def test_a_flat_folder_is_not_taken_for_names_that_end_alike(tmp_path):
    lines = [f"a/{k}.jpg b/{k}.jpg {k % 2}" for k in range(20)]
    pairs = read_pairs(written(tmp_path, "\n".join(lines)))
    touch(tmp_path / "flat", [f"{k}.jpg" for k in range(20)])
    with pytest.raises(UserError, match="40 of the 40 images"):
        pairs.resolve(tmp_path / "flat")


def test_two_names_never_mean_one_file(tmp_path):
    """a.png is missing; that a.jpg is there does not help, since the list means another image by it."""
    names = ("a.jpg", "a.png", "b.png", "b.webp", "frame.0001", "frame.0002")
    rows = np.zeros(1, np.int64)
    pairs = Pairs(tmp_path / "list.txt", names, rows, rows, rows == 0, rows, 0)
    touch(tmp_path, ["a.jpg", "b.jpg", "frame.0001.png", "frame.0002", "frame.jpg"])
    with pytest.raises(UserError) as error:
        pairs.resolve(tmp_path)
    assert str(error.value).splitlines()[1:] == ["  - a.png", "  - b.png", "  - b.webp"]
    kept = dataclasses.replace(pairs, names=("a.jpg", "frame.0001", "frame.0002"))
    assert [file.name for file in kept.resolve(tmp_path)] == ["a.jpg", "frame.0001.png", "frame.0002"]


def test_rows_over_other_names(tmp_path):
    pairs = read_pairs(written(tmp_path, VIEW2))
    names = ["Aa/Aa_0001.jpg", *reversed(pairs.names), "Zz/Zz_0001.jpg"]
    assert as_tuples(pairs.over(names)) == as_tuples(pairs)
    assert pairs.over(names).names == tuple(names)


def golden_pairs(chosen=slice(None)):
    """LFW's view 2, or some of it, from the golden file."""
    with np.load(GOLDEN, allow_pickle=False) as golden:
        names = tuple(f"{name[:-9]}/{name}" for name in golden["names"].tolist())
        left, right, same, fold = (golden[key][chosen] for key in ("left", "right", "same", "fold"))
    return Pairs(Path("mine.txt"), names, left, right, same, fold, num_folds=10)


def test_view2_is_known_whatever_its_layout():
    order = np.random.default_rng(0).permutation(6000)
    assert is_lfw_view2(golden_pairs())
    assert is_lfw_view2(golden_pairs(order))
    assert is_lfw_view2(golden_pairs(slice(600, 6000)))  # nine of its folds
    turned = golden_pairs()
    assert is_lfw_view2(dataclasses.replace(turned, left=turned.right, right=turned.left))


def test_other_pairs_are_not_view2(tmp_path):
    assert not is_lfw_view2(read_pairs(written(tmp_path, VIEW2)))
    pairs = golden_pairs()
    assert not is_lfw_view2(dataclasses.replace(pairs, right=np.roll(pairs.right, 450)))


@pytest.mark.parametrize(
    "line",
    [
        "{folder}/{stem}.jpg",
        "lfw_112x112/{folder}/{stem}.png",
        "{stem}.jpg",
        "lfw\\{folder}\\{stem}.jpg",
    ],
)
@pytest.mark.parametrize("order", ["of LFW", "pairs of one person first"])
def test_view2_as_a_list_of_paths_is_known_and_has_its_own_folds(tmp_path, line, order):
    lfw = golden_pairs()
    names = [line.format(folder=name.split("/")[0], stem=name.split("/")[1][:-4]) for name in lfw.names]
    rows = np.arange(6000) if order == "of LFW" else np.argsort(~lfw.same, kind="stable")
    text = "".join(f"{names[lfw.left[i]]} {names[lfw.right[i]]} {lfw.same[i]:d}\n" for i in rows)
    pairs = read_pairs(written(tmp_path, text))
    assert is_lfw_view2(pairs)
    np.testing.assert_array_equal(pairs.fold, lfw.fold[rows])
    np.testing.assert_array_equal(pairs.same, lfw.same[rows])


def test_half_of_view2_as_in_sllfw_is_known(tmp_path):
    lfw = golden_pairs()
    lines = [name for i in np.flatnonzero(lfw.same) for name in (lfw.names[lfw.left[i]], lfw.names[lfw.right[i]])]
    lines += [f"{name}/{name}_0001.jpg" for k in range(20) for name in (f"Ann{k}", f"Bob{k}")]
    pairs = read_pairs(written(tmp_path, "\n".join(lines)))
    assert is_lfw_view2(pairs)


def test_lfws_form_without_its_first_line(tmp_path):
    """RFW's lists are so."""
    path = tmp_path / "pairs.txt"
    lines = [f"A {k}\t1\t2" for k in range(12)] + [f"A {k}\t1\tB {k}\t3" for k in range(12)]
    path.write_text("\n".join(lines), encoding="utf-8")
    pairs = read_pairs(path)
    assert (pairs.num_folds, pairs.same.tolist()) == (10, [True] * 12 + [False] * 12)
    assert pairs.fold[:12].tolist() == pairs.fold[12:].tolist() == [1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert pairs.names[pairs.left[0]] == "A 0/A 0_0001.jpg"
    assert pairs.names[pairs.right[12]] == "B 0/B 0_0003.jpg"
    path.write_text("a 1 2\nb 1 2\nc 1 2\na 1 b 2\nb 1 c 2\n", encoding="utf-8")
    assert (read_pairs(path).num_folds, read_pairs(path).fold.tolist()) == (2, [1, 1, 2, 1, 2])
    path.write_text("a 1 2\na 1 b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2: got 'a \| 1 \| b'"):
        read_pairs(path)
    path.write_text("a 1 2\na 1 b 2\n", encoding="utf-8")
    with pytest.raises(UserError, match="has 1 pair of one person and 1 of two people · allowed: 2 or more of each"):
        read_pairs(path)
