"""Lists of pairs in other forms than LFW's: small ones, written down with what they mean."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sphereface.data.pair_lines import read_lines
from sphereface.data.pair_lists import read_list
from sphereface.data.pairs import read_pairs
from sphereface.errors import UserError


def read(folder, text, encoding="utf-8"):
    path = folder / "list.txt"
    path.write_bytes(text.encode(encoding))
    return read_pairs(path)


def as_tuples(pairs):
    """(left name, right name, same, fold) of each pair."""
    rows = zip(pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist(), pairs.fold.tolist(), strict=True)
    return [(pairs.names[i], pairs.names[j], same, fold) for i, j, same, fold in rows]


LABELLED = [
    ("a/1.jpg", "a/2.jpg", True, 1),
    ("a/1.jpg", "b/1.png", False, 1),
    ("b/1.png", "c d/1.jpg", False, 2),
    ("b/1.png", "b/2.jpg", True, 3),
    ("c d/1.jpg", "c d/1.jpg", True, 2),
    ("c d/1.jpg", "a/2.jpg", False, 3),
]


def labelled(separator="\t", first=0, label_first=False, columns=""):
    """The list above, its fields between separators and its folds counted from ``first``."""
    lines = [columns] if columns else []
    for left, right, same, fold in LABELLED:
        images = (str(int(same)), left, right) if label_first else (left, right, str(int(same)))
        lines.append(separator.join([*images, str(fold - 1 + first)]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("what", "text", "encoding"),
    [
        ("tabs, folds from 1", labelled(first=1), "utf-8"),
        ("tabs, folds from 0", labelled(first=0), "utf-8"),
        ("commas", labelled(","), "utf-8"),
        ("commas and spaces", labelled(" , "), "utf-8"),
        ("semicolons", labelled(";"), "utf-8"),
        ("quotes", "\n".join(f'"{line}"' for line in labelled('","').splitlines()), "utf-8"),
        ("spaces", labelled("  ").replace("c d", "c_d"), "utf-8"),
        ("the label first", labelled(label_first=True), "utf-8"),
        ("columns", labelled(",", columns="img1,img2,label,fold"), "utf-8"),
        ("columns, the label first", labelled(label_first=True, columns="same\tleft\tright\tfold"), "utf-8"),
        ("line ends of Windows", labelled().replace("\n", "\r\n"), "utf-8"),
        ("a byte order mark", labelled(), "utf-8-sig"),
        ("blank lines", "\n\n" + labelled().replace("\n", "\n \n"), "utf-8"),
        ("backslashes", labelled().replace("/", "\\"), "utf-8"),
        ("a folder that is this one", labelled().replace("a/", "./a//"), "utf-8"),
    ],
)
def test_a_label_and_a_fold_in_every_line(tmp_path, what, text, encoding):
    pairs = read(tmp_path, text, encoding)
    expected = (
        LABELLED if what != "spaces" else [tuple(str(x).replace("c d", "c_d") for x in p[:2]) + p[2:] for p in LABELLED]
    )
    assert as_tuples(pairs) == expected
    assert pairs.num_folds == 3
    assert list(pairs.names) == sorted({name for pair in expected for name in pair[:2]})
    assert (pairs.left.dtype, pairs.right.dtype, pairs.fold.dtype) == (np.int64,) * 3
    assert pairs.same.dtype == bool


@pytest.mark.parametrize("words", [("no", "yes"), ("No", "YES"), ("false", "True")])
@pytest.mark.parametrize("end", ["", ",", ",,", " , "])
@pytest.mark.parametrize("columns", [None, "img1,img2,same"])
def test_labels_in_words_and_an_empty_last_column(tmp_path, words, end, columns):
    rows = [f"a/{k}.jpg,b/{k}.jpg,{k % 2}" for k in range(20)]
    told = [f"{row[:-1]}{words[int(row[-1])]}" for row in rows]
    lines = [] if columns is None else [columns]
    for form in (rows, told):
        found = read(tmp_path, "\n".join(f"{line}{end}" for line in [*lines, *form]))
        assert as_tuples(found) == as_tuples(read(tmp_path, "\n".join(rows).replace(",", " ")))


def test_ten_folds_without_a_column(tmp_path):
    """Twelve pairs of one person and eleven of two, of each kind a tenth in every fold, the longer runs first."""
    genuine = [f"g{k}.jpg h{k}.jpg 1" for k in range(12)]
    impostor = [f"i{k}.jpg j{k}.jpg 0" for k in range(11)]
    in_order = read(tmp_path, "\n".join(genuine + impostor))
    assert in_order.num_folds == 10
    assert in_order.same.tolist() == [True] * 12 + [False] * 11
    assert in_order.fold.tolist() == [1, 1, 2, 2, *range(3, 11), 1, *range(1, 11)]
    mixed = read(tmp_path, "\n".join(line for k in range(12) for line in [*impostor[k : k + 1], genuine[k]]))
    assert sorted(as_tuples(mixed)) == sorted(as_tuples(in_order))


def test_pairs_in_the_order_of_lfw_get_the_folds_of_lfw(tmp_path):
    lines = [f"{f}/{kind}{k}.jpg {f}/{k}.jpg {kind}" for f in range(10) for kind in (1, 0) for k in range(3)]
    assert read(tmp_path, "\n".join(lines)).fold.tolist() == np.repeat(np.arange(1, 11), 6).tolist()


def flagged(flags, first="{}_{}_1.jpg", second="{}_{}_2.jpg", end="\n"):
    """Two lines a pair: pair k, of one person or two, has the flag ``flags[k]``."""
    lines = []
    for k, flag in enumerate(flags):
        other = k if flag else f"{k}b"
        lines += [f"{first.format('Ann', k)} {flag}", f"{second.format('Ann', other)} {flag}"]
    return end.join(lines) + end


def test_the_form_of_cplfw(tmp_path):
    """Two lines a pair, spaces, line ends of Windows, a line of column names in one copy; one person first."""
    text = "Ingrid_B_1.jpg 1\r\nIngrid_B_2.jpg 1\r\n" + flagged([1] * 9 + [0] * 10, end="\r\n")
    plain = read(tmp_path, text)
    assert as_tuples(plain)[:2] == [
        ("Ingrid_B_1.jpg", "Ingrid_B_2.jpg", True, 1),
        ("Ann_0_1.jpg", "Ann_0_2.jpg", True, 2),
    ]
    assert as_tuples(plain)[-1] == ("Ann_18_1.jpg", "Ann_18b_2.jpg", False, 10)
    assert plain.same.tolist() == [True] * 10 + [False] * 10
    assert plain.fold.tolist() == [*range(1, 11)] * 2
    assert plain.num_folds == 10
    assert as_tuples(read(tmp_path, "name same_person\r\n" + text)) == as_tuples(plain)


def test_the_form_of_calfw_whose_flags_are_folds(tmp_path):
    """Flags 1 to K are the folds of the pairs of one person; those of two people, all 0, are divided in order."""
    pairs = read(tmp_path, flagged([1, 1, 2, 3, 3, 3, 0, 0, 0, 0, 0]))
    assert pairs.num_folds == 3
    assert pairs.same.tolist() == [True] * 6 + [False] * 5
    assert pairs.fold.tolist() == [1, 1, 2, 3, 3, 3, 1, 1, 2, 2, 3]


def test_calfw_in_full(tmp_path):
    """3,000 pairs of one person with flags 1 to 10, 300 each, then 3,000 of two people."""
    pairs = read(tmp_path, flagged([fold for fold in range(1, 11) for _ in range(300)] + [0] * 3000))
    expected = np.tile(np.repeat(np.arange(1, 11), 300), 2)
    np.testing.assert_array_equal(pairs.fold, expected)
    assert int(pairs.same.sum()) == 3000


def test_a_training_list_is_no_list_of_pairs(tmp_path):
    """``path label``, with an even number of images for each identity."""
    lines = [f"p{person}/{k}.jpg {person}" for person in range(3) for k in range(2 + 2 * person)]
    for few in (lines, lines[:6]):
        with pytest.raises(
            UserError, match=r"flags that follow the folders: .* such as 'p0' · .* sphereface make-pairs"
        ):
            read(tmp_path, "\n".join(few) + "\n")


@pytest.mark.parametrize(
    "pairs",
    [
        [("Ann/1.jpg", "Ann/2.jpg", 1), ("Bo/1.jpg", "Cy/1.jpg", 0)],  # a folder for each person
        [("all/1.jpg", "all/2.jpg", 1), ("all/1.jpg", "all/3.jpg", 0)],  # one folder
        [(f"fold{k}/1.jpg", f"fold{k}/{2 + flag}.jpg", flag) for k in range(2) for flag in (1, 0)],
        [("1.jpg", "2.jpg", 1), ("3.jpg", "4.jpg", 0)],
    ],
)
def test_pairs_with_flags_in_folders_are_read(tmp_path, pairs):
    text = "".join(f"{left} {flag}\n{right} {flag}\n" for left, right, flag in [*pairs, *pairs])
    assert read(tmp_path, text).same.tolist() == [flag == 1 for _, _, flag in [*pairs, *pairs]]


def test_the_form_of_sllfw(tmp_path):
    """Two lines a pair, no flag: who is on an image, its folder says. Per fold, one person first."""
    lines = []
    for fold in range(10):
        lines += [f"A{fold}/A{fold}_0001.jpg", f"A{fold}/A{fold}_0002.jpg"] * 2
        lines += [f"A{fold}/A{fold}_0001.jpg", f"B{fold}/B{fold}_0001.jpg"] * 2
    pairs = read(tmp_path, "\n".join(lines))
    assert as_tuples(pairs)[:4] == [
        ("A0/A0_0001.jpg", "A0/A0_0002.jpg", True, 1),
        ("A0/A0_0001.jpg", "A0/A0_0002.jpg", True, 1),
        ("A0/A0_0001.jpg", "B0/B0_0001.jpg", False, 1),
        ("A0/A0_0001.jpg", "B0/B0_0001.jpg", False, 1),
    ]
    assert pairs.fold.tolist() == np.repeat(np.arange(1, 11), 4).tolist()


def test_the_form_of_xqlfw_is_that_of_lfw(tmp_path):
    pairs = read(tmp_path, "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\nCy\t7\t9\nCy\t7\tDee\t10\n")
    assert as_tuples(pairs) == [
        ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", True, 1),
        ("Ann/Ann_0001.jpg", "Bob/Bob_0002.jpg", False, 1),
        ("Cy/Cy_0007.jpg", "Cy/Cy_0009.jpg", True, 2),
        ("Cy/Cy_0007.jpg", "Dee/Dee_0010.jpg", False, 2),
    ]


# ---------------------------------------------------------------- what is refused

TEN = [f"a{k}.jpg b{k}.jpg 1" for k in range(10)] + [f"a{k}.jpg c{k}.jpg 0" for k in range(10)]
FOLDS = [f"{line} {k % 2 + 1}" for k, line in enumerate(TEN)]
FLAGS = flagged([1] * 10 + [0] * 10).splitlines()
FOLDERS = [f"{name}/{k}.jpg" for k in range(10) for name in "aabc"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [*TEN[:3], "a b.jpg 2", *TEN[3:]],
            r"line 4: got the label '2' · allowed: 1 \(or true, yes\) for one person, 0 \(or",
        ),
        ([*TEN[:3], "a b.jpg -1", *TEN[3:]], "line 4: got the label '-1'"),
        ([*TEN[:3], "a b.jpg ²", *TEN[3:]], "line 4: got the label '²'"),
        ([*TEN[:3], "a b.jpg " + "1" * 5000], "line 4: got the label '1+…'"),
        (
            [*TEN[:3], "a.jpg b.jpg", *TEN[3:]],
            r"line 4: got 'a\.jpg b\.jpg', 2 fields · allowed: 3 \('image image 0\|1",
        ),
        ([*TEN[:3], "a.jpg b c.jpg 1"], "line 4: got .*, 4 fields · allowed: 3 .* as in line 1"),
        ([*TEN[:3], "a.jpg b.jpg 1 4"], "line 4: got .*, 4 fields · allowed: 3"),
        (["x.jpg y.jpg 2", *TEN], "line 1: got the label '2'"),
        (["x.jpg y.jpg maybe", *TEN], r"line 1: got 'x\.jpg y\.jpg maybe' · allowed: LFW's first line"),
        (
            ["a/x.jpg,a/y.jpg,same", "b/x.jpg,c/y.jpg,other"] * 10,
            r"line 1: got 'a/x\.jpg,a/y\.jpg,same' · allowed: LFW",
        ),
        (['"a/x.PNG";b/y.png;1;x', "b/x.jpg;c/y.jpg;0;y"] * 10, "line 1: got '\"a/x.PNG\";b/y.png;1;x' · allowed: LFW"),
        ([f"{line.replace(' ', ',')}{',' * (k != 3)}" for k, line in enumerate(TEN)], "line 1: got 'a0.jpg,b0.jpg,1,'"),
        (["no,left,right,label", "1,x.jpg,y.jpg,1", "2,x.jpg,z.jpg,0"], "got the column 'label' in place 4"),
        (["1 2 3 4", *TEN], "line 1: got '1 2 3 4' · allowed: the numbers of folds"),
        (["12 13.jpg 14 15", *TEN], "line 1: got '12 13.jpg 14 15' · allowed: LFW's first line"),
        (["img1 img2 label", *(f"a{k} b{k} 1" for k in range(10))], "line 1: got 'img1 img2 label' · allowed: LFW's"),
        (["img1 img2 label"], "line 1: got 'img1 img2 label' · allowed: LFW's"),
        ([*FOLDS[:5], TEN[5], *FOLDS[6:]], r"line 6: got 'a5\.jpg b5\.jpg 1', 3 fields · allowed: 4"),
        ([*FOLDS, "x.jpg y.jpg 1 ²"], "line 21: got the fold '²' · allowed: whole numbers, from 1"),
        ([*FOLDS, "x.jpg y.jpg 1 1.5"], r"line 21: got the fold '1\.5'"),
        ([*FOLDS, "x.jpg y.jpg 1 -1"], "line 21: got the fold '-1'"),
        ([*FOLDS, "x.jpg y.jpg 1 " + "3" * 5000], "line 21: got the fold '3+…'"),
        (
            [*FOLDS, "x.jpg y.jpg 1 4", "x.jpg z.jpg 0 4"],
            "line 21: got fold 4, but no pair is in fold 3 · allowed: every",
        ),
        ([line[:-1] + "7" for line in FOLDS], "line 1: got fold 7, but no pair is in fold 1"),
        ([line[:-1] + "1" for line in FOLDS], "line 1: got fold 1 for every pair · allowed: two folds or more"),
        ([*FOLDS, "x.jpg y.jpg 1 3"], "line 21: got fold 3, which has no pair of two people · allowed: pairs of both"),
        ([*FOLDS, "x.jpg y.jpg 0 0"], "line 21: got fold 0, which has no pair of one person"),
        (FOLDS[:10], "line 1: got fold 1, which has no pair of two people"),
        (TEN[:10], "has 10 pairs of one person and 0 of two people · allowed: 2 or more of each for 2 folds"),
        (TEN[10:], "has 0 pairs of one person and 10 of two people"),
        (
            [*TEN, "a\0.jpg b.jpg 1"],
            r"line 21: contains a NUL byte · allowed: UTF-8 text",
        ),
        ([*TEN, "a\x1b[2J.jpg b.jpg 1"], r"line 21: got the image 'a\\x1b"),
        ([*TEN, "/etc/passwd b.jpg 1"], "line 21: got the image '/etc/passwd' · allowed: names below the folder"),
        ([*TEN, "a.jpg ../b.jpg 1"], r"line 21: got the image '\.\./b\.jpg' · .* no absolute path and no '\.\.'"),
        ([*TEN, "a.jpg c/../../b.jpg 1"], "line 21: got the image"),
        ([*TEN, r"a.jpg ..\b.jpg 1"], "line 21: got the image"),
        ([*TEN, r"a.jpg C:\b.jpg 1"], "line 21: got the image"),
        ([*TEN, r"a.jpg \\host\b.jpg 1"], "line 21: got the image"),
        ([*TEN, "a.jpg . 1"], r"line 21: got the image '\.'"),
        ([*TEN, f"a.jpg {'b' * 252}.jpg 1"], "line 21: got an image's name of 256 bytes, 'b+…' · allowed: 255 bytes"),
        ([*TEN, f"a.jpg {'é' * 126}.jpg 1"], "line 21: got an image's name of 256 bytes"),
        ([*TEN, f"a.jpg {'b/' * 2000}b.jpg 1"], "line 21: got an image's name of 4005 bytes"),
        (FLAGS[:-1], "line 39: the list ends with the first image of a pair, after 39 images · allowed: two lines"),
        (
            [*FLAGS[:4], *FLAGS[5:], "x.jpg 0"],
            "line 20: got the flag 0 for the second image of a pair, whose first image",
        ),
        (
            [*FLAGS, "x.jpg two", "y.jpg two"],
            "line 41: got the flag 'two' · allowed: 0 for two people; 1, or the number",
        ),
        ([*FLAGS, "x.jpg -1", "y.jpg -1"], "line 41: got the flag '-1'"),
        ([*FLAGS, "x.jpg ²", "y.jpg ²"], "line 41: got the flag '²'"),
        ([*FLAGS, "x.jpg " + "1" * 5000, "y.jpg 1"], "line 41: got the flag '1+…'"),
        ([*FLAGS, "x.jpg 3", "y.jpg 3"], "line 41: got fold 3, but no pair is in fold 2"),
        ([*FLAGS, "x.jpg y.jpg 1"], "line 41: got .*, 3 fields · allowed: 2 .'image flag'., as in line 1"),
        (FLAGS[:20], "has 10 pairs of one person and 0 of two people"),
        (
            flagged([1, 2, 3, 0, 0]).splitlines(),
            "has 3 pairs of one person and 2 of two people · allowed: 3 or more of",
        ),
        (flagged([2, 2, 0, 0]).splitlines(), "line 1: got fold 2, but no pair is in fold 1"),
        (FOLDERS[:-1], "line 39: the list ends with the first image of a pair"),
        ([*FOLDERS, "a/1.jpg", "b.jpg"], r"line 42: got the image 'b\.jpg' without a folder"),
        ([*FOLDERS, "a/1.jpg", "../b.jpg"], "line 42: got the image"),
        (FOLDERS[:4], "has 1 pair of one person and 1 of two people · allowed: 2 or more of each for 2 folds"),
        (
            [f"{name}/{k}.jpg" for name in "fbdcaeghij" for k in range(5)],
            r"got each image once, and all images of a folder together, such as those of 'a' · allowed: two lines",
        ),
        (["a.jpg"], "line 1: got 'a.jpg' · allowed: LFW's first line"),
        (["x" * 3000], "line 1: got 'x{99}…' · allowed: LFW's first line"),
    ],
)
def test_a_fault_is_said_in_one_line_with_its_place(tmp_path, lines, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, "\n".join(lines))
    assert str(error.value).startswith(f"{tmp_path / 'list.txt'}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(tmp_path)) + 500


@pytest.mark.parametrize(
    "lines",
    [
        [f"{p}/{k}.jpg" for p in range(8) for k in (1, 2)] + [f"{p}/1.jpg" for p in range(8, 16)],  # each in one pair
        [f"{p}/{k}.jpg" for p in range(8) for k in (1, 2)] + [f"{p}/3.jpg" for p in range(8)],
        [f"{p}/{k}.jpg" for p in range(8) for k in (1, 2)] + [f"{p}/1.jpg" for p in range(8)],
        [
            "0/1",
            "0/2",
            "1/1",
            "1/2",
            "2/1",
            "2/2",
            "2/1",
            "3/1",
            "3/1",
            "3/2",
            "3/1",
            "4/1",
            "4/1",
            "4/2",
            "5/1",
            "5/2",
            "6/1",
            "6/2",
            "7/1",
            "7/2",
            "7/2",
            "8/1",
            "9/1",
            "10/1",
        ],
    ],
)
def test_a_list_of_pairs_by_folder_is_no_list_of_images(tmp_path, lines):
    assert sorted(read(tmp_path, "\n".join(lines)).same.tolist()) == [False] * 4 + [True] * 8


def test_the_longest_names_are_found(tmp_path):
    names = [f"{k}{'é' * 125}.jpg" for k in range(10)]  # 255 bytes
    lines = [f"{name} {name} {label}" for label in (0, 1) for name in names]
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in read(tmp_path, "\n".join(lines)).resolve(tmp_path)] == names


def test_blank_lines_and_names_of_columns_keep_the_line_numbers_true(tmp_path):
    with pytest.raises(UserError, match="line 7: got the label '3'"):
        read(tmp_path, "\nimg1,img2,label\n\na.jpg,b.jpg,1\n\n\na.jpg,c.jpg,3\n")


@pytest.mark.parametrize(
    ("yes", "no"), [("True", "False"), ("true", "false"), ("TRUE", "FALSE"), ("True", "0"), ("1.0", "0.0")]
)
@pytest.mark.parametrize("columns", ["", "left,right,same,fold"])
def test_labels_as_pandas_writes_them(tmp_path, yes, no, columns):
    """A CSV of booleans was refused, and the message named the line of column names."""
    words = {"1": yes, "0": no}

    def worded(text, at):
        rows = [line.split(",") for line in text.splitlines()]
        return "\n".join(",".join([*row[:at], words.get(row[at], row[at]), *row[at + 1 :]]) for row in rows)

    assert as_tuples(read(tmp_path, worded(labelled(",", columns=columns), 2))) == LABELLED
    first = labelled(",", label_first=True, columns=columns and "same,left,right,fold")
    assert as_tuples(read(tmp_path, worded(first, 0))) == LABELLED
    flags = flagged([1] * 10 + [0] * 10)
    spoken = "\n".join(f"{line[:-1]}{words[line[-1]]}" for line in flags.splitlines())
    assert as_tuples(read(tmp_path, spoken)) == as_tuples(read(tmp_path, flags))


@pytest.mark.parametrize(
    ("heading", "row", "message"),
    [
        ("left,right,same", "a/1.jpg,b/1.jpg,pair", "'pair' in the column 'same'"),
        ("same,left,right", "genuine,a/1.jpg,b/1.jpg", "'genuine' in the column 'same'"),
        ("file flag", "a/1.jpg same", "'same' in the column 'flag'"),
        ("left,right,same", "a/1.jpg,b/1.jpg", "'a/1.jpg,b/1.jpg', 2 fields below 3 names of columns"),
        ("left,right,same", "a/1.jpg,b/1.jpg,1.5", "'a/1.jpg,b/1.jpg,1.5'"),
        ("left,right,same", "a/1.jpg,b/1.jpg,", "'' in the column 'same'"),
    ],
)
def test_a_bad_row_below_column_names_is_named(tmp_path, heading, row, message):
    with pytest.raises(UserError, match=rf"line 3: got {re.escape(message)} · allowed: LFW's first line"):
        read(tmp_path, f"{heading}\n\n{row}\na/1.jpg,b/1.jpg,1\n")


# ---------------------------------------------------------------- any list at all

STEMS = st.text(st.characters(codec="utf-8", exclude_characters="\t,;/\\:", exclude_categories=("Z", "C")), min_size=1)
IMAGES = STEMS.filter(lambda stem: stem.encode() < b"x" * 200).map(lambda stem: f"d/{stem[:50]}.jpg")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(IMAGES, IMAGES, st.booleans()), min_size=0, max_size=30),
    st.integers(2, 5),
    st.sampled_from(["\t", ",", ";", " "]),
    st.booleans(),
)
def test_whatever_is_written_reads_back(tmp_path, given_pairs, num_folds, separator, label_first):
    base = [(f"x{k}.jpg", f"y{k}.jpg", same) for k in range(num_folds) for same in (True, False)]
    expected = [(*pair, k // 2 % num_folds + 1) for k, pair in enumerate(base + given_pairs)]
    lines = [
        separator.join((str(int(same)), left, right) if label_first else (left, right, str(int(same))))
        + f"{separator}{fold}"
        for left, right, same, fold in expected
    ]
    assert as_tuples(read(tmp_path, "\n".join(lines))) == expected


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.sampled_from(["a/b.jpg", "0", "1", "2", "²", "..", "/x", "\0", "1" * 5000, "é" * 300]), max_size=5
        ).map(" ".join),
        max_size=8,
    )
)
def test_no_list_ends_in_a_traceback(tmp_path, lines):
    said = None
    try:
        pairs = read(tmp_path, "\n".join(lines))
    except UserError as error:
        said = str(error)
    if said is None:
        assert len(pairs) == len(pairs.fold) == len(pairs.left) == len(pairs.right) > 0
    else:
        assert re.match(rf"{re.escape(str(tmp_path / 'list.txt'))}[:,] ", said)


@pytest.mark.parametrize(("lines", "num_folds"), [(TEN, 10), (TEN[1:], 9), (TEN[:-1], 9), (TEN[8:12], 2)])
def test_few_pairs_have_fewer_folds(tmp_path, lines, num_folds):
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    pairs = read_pairs(tmp_path / "list.txt")
    assert pairs.num_folds == num_folds
    for fold in range(1, num_folds + 1):
        assert set(pairs.same[pairs.fold == fold].tolist()) == {True, False}


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        ("file1,file2,different", True),
        ("file1,file2,is_diff", True),
        ("file1,file2,Impostor", True),
        ("file1,file2,not_same", True),
        ("file1,file2,mismatch", True),
        ("file1,file2,same", False),
        ("file1,file2,label", False),
        ("different,file2,label", False),
        ("file1,file2,issame", False),
    ],
)
def test_a_column_of_labels_that_means_the_opposite(tmp_path, names, refused):
    text = "\n".join([names, *(f"a/{k}.jpg,b/{k}.jpg,{k % 2}" for k in range(8))])
    if not refused:
        assert len(read(tmp_path, text)) == 8
        return
    with pytest.raises(
        UserError, match="line 1: got the column '.*' · allowed: labels that are 1 for one person and 0"
    ):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("names", "row", "wrong"),
    [
        ("img1,img2,fold,same", "a/{k}.jpg,b/{k}.jpg,{fold},{same}", "'fold' in place 3"),
        ("fold,img1,img2,is_same", "{fold},a/{k}.jpg,b/{k}.jpg,{same}", "'fold' in place 1"),
        ("label,fold_id,img1", "{same},a/{k}.jpg,b/{k}.jpg", "'fold_id' in place 2"),
        ("left,right,same,pose", "a/{k}.jpg,b/{k}.jpg,{same},{fold}", "'pose' in place 4"),
        ("left,right,same,group", "a/{k}.jpg,b/{k}.jpg,{same},{fold}", "'group' in place 4"),
    ],
)
def test_columns_in_another_order_are_refused(tmp_path, names, row, wrong):
    """With two folds, each column could pass for the other: every figure was wrong, in silence."""
    lines = [row.format(k=k, fold=k // 2 % 2, same=k % 2) for k in range(8)]
    with pytest.raises(UserError, match=f"line 1: got the column {wrong} · allowed: .*, in this order · "):
        read(tmp_path, "\n".join([names, *lines]))


@pytest.mark.parametrize("separator", [",", ";"])
def test_the_row_numbers_of_pandas_are_left_out(tmp_path, separator):
    path = tmp_path / "list.csv"
    rows = [f"{k},a/{k}.jpg,b/{k}.jpg,{k % 2}" for k in range(20)]
    path.write_text("\n".join([",left,right,same", *rows]).replace(",", separator), encoding="utf-8")
    found = read_list(path, read_lines(path))
    assert found.sides[3] == ("a/3.jpg", "b/3.jpg")
    assert found.same.tolist() == [k % 2 == 1 for k in range(20)]
    path.write_text("\n".join([",left,right,same", *rows[2:]]).replace(",", separator), encoding="utf-8")
    with pytest.raises(UserError):  # no row numbers
        read_list(path, read_lines(path))


ROW_NAMES = {
    "write.csv": ('"","left","right","same"', '"{k}","a/{k}.jpg","b/{k}.jpg",{same}'),
    "write.csv, no quotes": (",left,right,same", "{k},a/{k}.jpg,b/{k}.jpg,{same}"),
    "write.table": ('"left" "right" "same"', '"{k}" "a/{k}.jpg" "b/{k}.jpg" {same}'),
    "write.table, tabs, no quotes": ("left\tright\tsame", "{k}\ta/{k}.jpg\tb/{k}.jpg\t{same}"),
    "write.table, label first": ('"same" "left" "right"', '"{k}" {same} "a/{k}.jpg" "b/{k}.jpg"'),
    "pandas, tabs, floats": ("\tleft\tright\tsame", "{k}\ta/{k}.jpg\tb/{k}.jpg\t{same}.0"),
}


@pytest.mark.parametrize("heading", ROW_NAMES)
def test_the_row_names_of_r_are_left_out(tmp_path, heading):
    columns, row = ROW_NAMES[heading]
    rows = [row.format(k=k, same=k % 2) for k in range(1, 41)]
    path = tmp_path / "list.csv"
    path.write_text("\n".join([columns, *rows]), encoding="utf-8")
    found = read_list(path, read_lines(path))
    assert found.sides == [(f"a/{k}.jpg", f"b/{k}.jpg") for k in range(1, 41)]
    assert found.same.tolist() == [k % 2 == 1 for k in range(1, 41)]


def test_row_names_without_column_names_are_refused_by_name(tmp_path):
    rows = [f'"{k}" "a/{k}.jpg" "b/{k}.jpg" {k % 2}' for k in range(1, 41)]
    with pytest.raises(UserError, match=r"line 2: got the label '2' · .* · if it is a row number, write the list with"):
        read(tmp_path, "\n".join(rows))


def test_people_who_are_numbered_are_no_row_numbers(tmp_path):
    """LFW's form, with people named 1 to 20 in their order."""
    rows = [f"{k}\t1\t2" for k in range(1, 11)] + [f"{k}\t1\t{k + 1}\t1" for k in range(11, 21)]
    (tmp_path / "pairs.txt").write_text("\n".join(["10", *rows]), encoding="utf-8")
    assert [line.text for line in read_lines(tmp_path / "pairs.txt")] == ["10", *rows]
