"""How rows of a table are found for images, what the arrays may be, and what is refused."""

import io
import os
import re
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation import mapped_array, table_file
from sphereface.evaluation.embedding_table import EmbeddingTable, write_table
from sphereface.evaluation.images import Images


def rows(count, dim=4, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(dtype)


def save(path, names, embeddings=None, **more):
    embeddings = rows(len(names)) if embeddings is None else embeddings
    np.savez(path, names=np.array(names, dtype=np.str_), embeddings=embeddings, **more)
    return path


def images(*names, root="crops"):
    return Images(Path(root), names)


def found(path, *names, root="crops", set_name="lfw", **options):
    return EmbeddingTable(path, **options).embeddings(images(*names, root=root), set_name)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        (["A/1.jpg", "A/2.jpg", "B/1.jpg"], ["B/1.jpg", "A/1.jpg"]),
        (["lfw/A/1.jpg", "cfp/B/1.jpg", "lfw/B/1.jpg"], ["B/1.jpg", "A/1.jpg"]),  # a set's name in front
        (["A/1.jpg", "lfw/A/1.jpg", "lfw/B/1.jpg"], ["B/1.jpg", "A/1.jpg"]),  # goes before the name alone
        (["A\\1.jpg", ".\\A\\2.jpg", "B\\1.jpg"], ["B/1.jpg", "A/1.jpg"]),  # written on Windows
        (["A/1.jpg", "A/2.jpg", "B/1.jpg"], ["B\\1.jpg", "A\\1.jpg"]),
        (["lfw\\A\\1.png", "x", "lfw\\B\\1"], ["B/1.jpg", "A/1.jpg"]),
        (["A/1.png", "A/2.jpg", "B/1.PNG"], ["B/1.jpg", "A/1.jpg"]),  # other suffixes
        (["A/1", "A/2", "B/1"], ["B/1.jpg", "A/1.jpg"]),
        (["lfw/A/1.png", "x", "lfw/B/1"], ["B/1.jpg", "A/1.jpg"]),
        (["./A/1.jpg", "./A/2.jpg", "./B/1.jpg"], ["B/1.jpg", "A/1.jpg"]),
        (["a1.jpg", "1.jpg", "3.jpg"], ["B/3.jpg", "A/a1.png"]),  # one flat folder
        (["lfw/a1.jpg", "3.jpg", "lfw/3.jpg"], ["B/3.jpg", "A/a1.png"]),  # flat, with the set's name in front
        (["lfw\\a1.jpg", "3.jpg", "lfw\\3.jpg"], ["B/3.jpg", "A/a1.png"]),
        (["frame.0001", "frame.0002", "frame.0003"], ["frame.0003", "frame.0001"]),  # that is no suffix
        (["000000", "000001", "000002"], ["000002", "000000"]),  # of a .bin
    ],
)
def test_rows_are_found_by_name(tmp_path, table, wanted):
    values = rows(3)
    answer = values[[2, 1 if "lfw/A/1.jpg" in table[1:] else 0]]
    result = found(save(tmp_path / "t.npz", table, values), *wanted)
    np.testing.assert_array_equal(result.image, answer)
    assert (result.mirror, result.mirrored, result.quality) == (None, "none", None)


def test_rows_are_found_by_the_place_of_the_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = rows(2)
    table = save(tmp_path / "t.npz", ["lfw/A/1.jpg", "lfw/B/1.png"], values, root="data")
    for root in ("data/lfw", str(tmp_path / "data" / "lfw"), "data/../data/lfw"):
        np.testing.assert_array_equal(found(table, "B/1.jpg", "A/1.jpg", root=root, set_name="x").image, values[[1, 0]])
    with pytest.raises(UserError, match="no embedding for 1 of the 1 images of x"):
        found(table, "A/1.jpg", root="data-lfw", set_name="x")
    for name in ("data/lfw/A/1.jpg", str(tmp_path / "data/lfw/A/1.jpg")):
        whole = save(tmp_path / "whole.npz", [name], values[:1])
        np.testing.assert_array_equal(found(whole, "A/1.jpg", root="data/lfw").image, values[:1])


@pytest.mark.parametrize(
    ("table", "missing", "shown"),
    [
        (["lfw/A/1.jpg", "B/1.jpg"], "1 of the 2 images of lfw: B/1.jpg", "lfw/A/1.jpg"),
        (["lfw/a1.jpg", "B/1.jpg"], "2 of the 2 images of lfw: A/1.jpg, B/1.jpg", "lfw/a1.jpg"),
        (["lfw/1.jpg", "A/1.jpg", "B/1.jpg"], "2 of the 2 images of lfw: A/1.jpg, B/1.jpg", "lfw/1.jpg"),
        (["lfw\\A\\1.jpg", "B\\1.jpg"], "1 of the 2 images of lfw: B/1.jpg", "lfw/A/1.jpg"),
    ],
)
def test_a_set_with_a_prefix_is_whole_under_it(tmp_path, table, missing, shown):
    """Names without the prefix belong to other sets, even where the root of the table says where they are."""
    for more in ({}, {"root": "crops"}, {"root": str(Path("crops").absolute())}):
        path = save(tmp_path / "t.npz", table, **more)
        with pytest.raises(UserError) as raised:
            found(path, "A/1.jpg", "B/1.jpg")
        assert str(raised.value) == (
            f"{path}: has no embedding for {missing} · names in the table: {shown} · allowed: these names with lfw/ in "
            "front or another suffix"
        )


def test_a_prefix_in_the_place_of_the_image_counts(tmp_path):
    values = rows(2)
    path = save(tmp_path / "t.npz", ["lfw/test/A/1.jpg", "A/1.jpg"], values, root="data")
    np.testing.assert_array_equal(found(path, "A/1.jpg", root="data/lfw/test").image, values[:1])


BIN = [f"{k:06d}" for k in range(4)]


@pytest.mark.parametrize("root", ["lfw.bin", "data/lfw.bin", "C:\\data\\lfw.bin", "LFW.BIN"])
def test_a_table_of_a_bin_serves_no_other(tmp_path, root):
    path = save(tmp_path / "t.npz", BIN, values := rows(4), root=root)
    table = EmbeddingTable(path)
    with pytest.raises(UserError) as raised:
        table.embeddings(images(*BIN[1:3], root="bins/agedb_30.bin"), "agedb_30")
    own = "LFW.BIN" if root == "LFW.BIN" else "lfw.bin"
    assert str(raised.value) == (
        f"{path}: got agedb_30.bin for agedb_30 · allowed: {own}, the root of the table · embed agedb_30.bin, or for a "
        "table of several sets put agedb_30/ before the names, as in agedb_30/000000"
    )
    for _ in range(2):
        result = table.embeddings(images(*BIN[1:3], root="bins/lfw.bin"), "anything")
        np.testing.assert_array_equal(result.image, values[1:3])
    prefixed = save(tmp_path / "p.npz", [*BIN, *(f"agedb_30/{name}" for name in BIN)], both := rows(8), root=root)
    result = found(prefixed, *BIN, root="agedb_30.bin", set_name="agedb_30")
    np.testing.assert_array_equal(result.image, both[4:])


@pytest.mark.parametrize("more", [{}, {"root": "crops"}])
def test_names_without_a_prefix_serve_one_bin(tmp_path, more):
    path = save(tmp_path / "t.npz", [*BIN, *(f"cfp/{name}" for name in BIN)], values := rows(8), **more)
    table = EmbeddingTable(path)
    for root in ("lfw.bin", "lfw.bin", "./lfw.bin"):
        np.testing.assert_array_equal(table.embeddings(images(*BIN, root=root), "lfw").image, values[:4])
    np.testing.assert_array_equal(table.embeddings(images(*BIN, root="cfp.bin"), "cfp").image, values[4:])
    for root, name in (("agedb_30.bin", "agedb_30"), ("other/lfw.bin", "lfw")):
        with pytest.raises(UserError) as raised:
            table.embeddings(images(*BIN, root=root), name)
        assert str(raised.value) == (
            f"{path}: got {root} for {name} after {Path('lfw.bin').resolve()} · allowed: one .bin for names without a "
            f"prefix, since each names its images 000000, … · put {name}/ before the names, as in {name}/000000"
        )


def test_the_place_in_a_bin_tells_several_apart(tmp_path):
    path = save(tmp_path / "t.npz", [f"bins/{b}.bin/{name}" for b in ("a", "b") for name in BIN], values := rows(8))
    table = EmbeddingTable(path)
    for k, name in enumerate("ab"):
        result = table.embeddings(images(*BIN, root=f"bins/{name}.bin"), name)
        np.testing.assert_array_equal(result.image, values[4 * k : 4 * k + 4])


@pytest.mark.parametrize("files", [["002.png"], ["002.png", "002.jpg"], []])
def test_a_name_that_is_no_file_is_no_second_image(tmp_path, files):
    """An LFW list writes .jpg for images that a walk of the folder finds as .png."""
    for name in files:
        (tmp_path / name).touch()
    path = save(tmp_path / "t.npz", ["002.png"])
    if len(files) == 1:
        assert len(found(path, "002.jpg", "002.png", root=tmp_path).image) == 2
    else:
        with pytest.raises(UserError, match="one row, 002.png, for two images of lfw, 002.jpg and 002.png"):
            found(path, "002.jpg", "002.png", root=tmp_path)


def test_names_that_differ_only_in_the_slash_are_one(tmp_path):
    with pytest.raises(UserError, match="1 names occur again with another embedding: A/1.jpg"):
        found(save(tmp_path / "t.npz", ["A/1.jpg", "A\\1.jpg"]), "A/1.jpg")


@pytest.mark.parametrize("hashes", [["a1", "b2"], np.ones((2, 8), np.uint8), np.ones((2, 1), np.uint64), np.int64(1)])
def test_hashes_of_another_program_are_not_read(tmp_path, hashes):
    assert "image_hash" not in table_file.read_table(save(tmp_path / "t.npz", ["a", "b"], image_hash=hashes))
    own = np.array([1, 2**64 - 1], np.uint64)
    assert (
        table_file.read_table(save(tmp_path / "u.npz", ["a", "b"], image_hash=own))["image_hash"].tolist()
        == own.tolist()
    )


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_a_quality_that_is_the_length_of_both_images_is_no_other_measure(tmp_path, dtype):
    image, mirror = rows(3).astype(dtype), rows(3, seed=1).astype(dtype)
    both = np.linalg.norm(np.hstack([rows(3), rows(3, seed=1)]), axis=1)  # as `sphereface embed` writes it
    for quality, wanted in ((both, None), (np.linalg.norm(rows(3), axis=1), "kept"), (1.1 * both, "kept")):
        path = save(tmp_path / "t.npz", ["a", "b", "c"], image, mirror=mirror, quality=quality)
        for use in (None, "add", "none"):
            result = found(path, "a", "b", "c", mirror=use).quality
            np.testing.assert_array_equal(result, None if wanted is None else quality)


def test_mirror_images_and_qualities(tmp_path):
    image, mirror, quality = rows(3), rows(3, seed=1), np.float32([3, 1, 2])
    path = save(tmp_path / "t.npz", ["a", "b", "c"], image, mirror=mirror, quality=quality)
    names, at = ("c", "a"), [2, 0]
    for given, fusion, features in (
        (None, "join", np.hstack([image, mirror])),
        ("join", "join", np.hstack([image, mirror])),
        ("add", "add", image + mirror),
        ("none", "none", image),
    ):
        result = found(path, *names, mirror=given)
        np.testing.assert_array_equal(result.features(), features[at])
        assert (result.mirrored, result.flip) == (fusion, given != "none")
        np.testing.assert_array_equal(result.quality, quality[at].astype(np.float64))
    with pytest.raises(UserError, match=r"t2.npz: --mirror: got add · the table has no array 'mirror' · omit it"):
        EmbeddingTable(save(tmp_path / "t2.npz", ["a"]), mirror="add")
    assert found(tmp_path / "t2.npz", "a", mirror="none").mirror is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_every_float_becomes_float32(tmp_path, dtype):
    values = rows(3, dtype=dtype)
    result = found(save(tmp_path / "t.npz", ["a", "b", "c"], values), "b")
    assert result.image.dtype == np.float32
    np.testing.assert_array_equal(result.image, values[[1]].astype(np.float32))


def test_numbers_that_are_not_finite_are_left_to_the_evaluation(tmp_path):
    values = rows(4, dtype=np.float64)
    values[0, 1], values[1, 1], values[2] = np.nan, np.inf, 0
    result = found(save(tmp_path / "t.npz", ["a", "b", "c", "d"], values), "a", "b", "c", "d")
    assert result.undefined().tolist() == [True, True, True, False]


def test_a_name_twice(tmp_path):
    values = rows(3)
    values[2] = values[0]
    values[0, 0] = values[2, 0] = np.nan
    same = save(tmp_path / "same.npz", ["a", "b", "a"], values)
    np.testing.assert_array_equal(found(same, "a").image, values[:1])
    values[2, 1] += 1
    other = save(tmp_path / "other.npz", ["a", "b", "a"], values)
    with pytest.raises(UserError, match="other.npz: 1 names occur again with another embedding: a · allowed: one emb"):
        found(other, "b")
    with pytest.raises(UserError, match="1 names occur again"):
        found(save(tmp_path / "m.npz", ["a", "a"], values[[1, 1]], mirror=rows(2)), "a")


def test_two_suffixes_of_one_name(tmp_path):
    values = rows(3)
    path = save(tmp_path / "t.npz", ["a.png", "a.bmp", "b.png"], values)
    np.testing.assert_array_equal(found(path, "a.bmp", "b.jpg").image, values[[1, 2]])
    with pytest.raises(
        UserError, match="a.jpg: the table has several rows whose names differ only in the suffix · name"
    ):
        found(path, "a.jpg", "b.jpg")
    values[1] = values[0]
    np.testing.assert_array_equal(found(save(path, ["a.png", "a.bmp", "b.png"], values), "a.jpg").image, values[:1])


def test_missing_rows_are_one_line_with_examples(tmp_path):
    path = save(tmp_path / "t.npz", [f"x{k}.png" for k in range(9)])
    with pytest.raises(UserError) as raised:
        found(path, "x1.jpg", *(f"A/{k}.jpg" for k in range(1200)))
    assert str(raised.value) == (
        f"{path}: has no embedding for 1,200 of the 1,201 images of lfw: A/0.jpg, A/1.jpg, A/2.jpg, … · names in the "
        "table: x0.png, x1.png, x2.png, … · allowed: these names, also with lfw/ in front or another suffix"
    )


class Danger:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embeddings": rows(2)}, "has no array names"),
        ({"names": ["a", "b"]}, "has no array embeddings"),
        ({"names": ["a", "b"], "embeddings": rows(3)}, "embeddings: got shape (3, 4) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2)[0]}, "embeddings: got shape (4,) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2)[:, 0]}, "embeddings: got shape (2,) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2)[None]}, "embeddings: got shape (1, 2, 4) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2, 0)}, "embeddings: got shape (2, 0) with 2 names"),
        ({"names": ["a", "b"], "embeddings": np.float32(1)}, "embeddings: got shape () with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2), "mirror": np.float32(1)}, "mirror: got shape () with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2), "quality": np.float32(1)}, "quality: got shape () with 2 names"),
        ({"names": "a", "embeddings": rows(2)}, "names: got shape ()"),
        ({"names": ["a", "b"], "embeddings": rows(2), "root": ["x", "y"]}, "root: got shape (2,), not one text"),
        ({"names": ["a", "b"], "embeddings": rows(2), "root": 3}, "root: got int64, not text"),
        ({"names": ["a", "b"], "embeddings": rows(2).astype("g")}, f"embeddings: got {np.dtype('g')}, not float16"),
        ({"names": np.array([0x110000, 98], "<u4").view("<U1"), "embeddings": rows(2)}, "damaged (names: "),
        ({"names": [["a", "b"]], "embeddings": rows(2)}, "names: got shape (1, 2)"),
        ({"names": np.array([], "U"), "embeddings": rows(0)}, "names: got shape (0,)"),
        ({"names": [1, 2], "embeddings": rows(2)}, "names: got int64, not text"),
        ({"names": [b"\xff", b"b"], "embeddings": rows(2)}, "names: bytes that are not UTF-8"),
        ({"names": ["a", "b"], "embeddings": [["1", "2"], ["3", "4"]]}, "embeddings: got <U1, not float16, float32"),
        ({"names": ["a", "b"], "embeddings": [[1, 2], [3, 4]]}, "embeddings: got int64, not float16"),
        ({"names": ["a", "b"], "embeddings": rows(2), "mirror": rows(2, 3)}, "mirror: got shape (2, 3) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2), "quality": rows(2)}, "quality: got shape (2, 4) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2), "quality": ["x", "y"]}, "quality: got <U1, not float16"),
        *(
            ({"names": ["a", "b"], "embeddings": rows(2), "quality": [1, value]}, f"quality: row 1 holds {shown}, exp")
            for value, shown in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"))
        ),
        *(
            ({"names": ["a", "b"], "embeddings": rows(2, 2), key: [[1, -value], [0, 1]]}, f"{key}: row 0 holds {shown}")
            for key in ("embeddings", "mirror")
            for value, shown in ((1e30, "1e+30"), (1.01e6, "1.01e+06"), (1e300, "1e+300"))
        ),
        (
            {"names": np.array(["a", "b"], dtype=object), "embeddings": rows(2)},
            "holds an array of Python objects, which",
        ),
        ({"names": np.array([Danger(), 1], dtype=object), "embeddings": rows(2)}, "holds an array of Python objects"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, monkeypatch, arrays, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "t.npz"
    np.savez(path, **arrays)
    with pytest.raises(
        UserError, match=rf"t.npz: {re.escape(message)}.* · allowed: names \(N,\) text, embeddings"
    ) as e:
        EmbeddingTable(path)
    assert len(str(e.value).splitlines()) == 1
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04 no zip", "npy", "cut", "flipped"])
def test_what_is_no_npz_is_one_line(tmp_path, content):
    path = tmp_path / "t.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, rows(2))
    elif content in ("cut", "flipped"):
        np.savez_compressed(path, names=np.array(["a", "b"]), embeddings=rows(2))
        data = bytearray(path.read_bytes())
        start = data.index(b"embeddings") + 60
        data[start : start + 20] = bytes(20)
        path.write_bytes(data if content == "flipped" else data[:300])
    elif content is not None:
        path.write_bytes(content)
    message = (
        "cannot be read (No such file"
        if content is None
        else "not a .npz file"
        if content != "flipped"
        else "damaged ("
    )
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        EmbeddingTable(path)
    assert len(str(raised.value).splitlines()) == 1


def zipped(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array):
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


def with_header(array, change):
    """The bytes of an array with the text of its header changed."""
    content = npy(array)
    length = int.from_bytes(content[8:10], "little")
    header = change(content[10 : 10 + length].rstrip() + b"\n")
    return content[:8] + len(header).to_bytes(2, "little") + header + content[10 + length :]


HEADERS = {
    "bracket": lambda text: text.replace(b"}", b""),
    "indent": lambda text: b"  1\n 2\n" + text,
    "quote": lambda text: text.replace(b"'descr'", b"'descr"),
    "huge": lambda text: text.replace(b"(2,", b"(99999999999999999999999,"),
    "negative": lambda text: text.replace(b"(2,", b"(-2,"),
    "dtype": lambda text: text.replace(b"<", b"@"),
    "long": lambda text: text + b" " * 20_000 + b"\n",
    "nested": lambda text: b"(" * 3000 + text,
    "bytes": lambda text: text.replace(b"'shape'", b"'\xff\x00shape'"),
    "escape": lambda text: text.replace(b"'shape'", b"'sh\\dape'"),  # Python warns of it
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("key", ["names", "embeddings", "mirror", "quality", "root"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_is_one_line(tmp_path, recwarn, key, compression, change):
    arrays = {"names": np.array(["aa", "bb"]), "embeddings": rows(2), "mirror": rows(2), "quality": rows(2)[:, 0]}
    arrays = {**arrays, "root": np.array("x")}
    members = {name: npy(array) for name, array in arrays.items()}
    members[key] = with_header(arrays[key], change)
    path = zipped(tmp_path / "t.npz", compression, **members)
    if members[key] == with_header(arrays[key], lambda text: text):  # no such place in this header
        assert EmbeddingTable(path).embeddings(images("aa"), "lfw").image.shape == (1, 4)
        return
    with pytest.raises(UserError, match=r"t.npz: (damaged|needs more|\w+: got)") as raised:
        EmbeddingTable(path)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 500
    assert not recwarn.list


def test_an_encrypted_file_is_one_line(tmp_path):
    members = {"names": npy(np.array(["a", "b"])), "embeddings": npy(rows(2))}
    for name in members:
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            data = bytearray(zipped(tmp_path / "t.npz", compression, **members).read_bytes())
            at = data.rindex(f"{name}.npy".encode()) - 46  # in the central directory
            data[at + 8] |= 1
            data[data.index(f"{name}.npy".encode()) - 30 + 6] |= 1
            (tmp_path / "t.npz").write_bytes(data)
            with pytest.raises(UserError, match=rf"t.npz: damaged \(.*{name}.npy.* is encrypted.*\) · allowed: names"):
                EmbeddingTable(tmp_path / "t.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("key", ["names", "embeddings"])
def test_a_damaged_compressed_member_is_one_line(tmp_path, compression, key):
    members = {"names": npy(np.array([f"{k}" for k in range(99)])), "embeddings": npy(rows(99))}
    whole = zipped(tmp_path / "t.npz", compression, **members).read_bytes()
    start = whole.index(f"{key}.npy".encode()) + len(f"{key}.npy")
    for at in (8, 9, 10, 11, 12, 20, 40, 80):
        data = bytearray(whole)
        data[start + at : start + at + 4] = bytes(byte ^ 0xFF for byte in whole[start + at : start + at + 4])
        (tmp_path / "t.npz").write_bytes(data)
        with pytest.raises(UserError, match=r"t.npz: (damaged \(|needs more memory)") as raised:
            EmbeddingTable(tmp_path / "t.npz")
        assert len(str(raised.value).splitlines()) == 1


def test_a_member_that_is_no_array_is_one_line(tmp_path):
    for key in ("names", "embeddings", "quality", "root"):
        members = {"names": npy(np.array(["a", "b"])), "embeddings": npy(rows(2)), key: b"text, and no array"}
        with pytest.raises(UserError, match=r"t.npz: damaged \(the magic string is not correct"):
            EmbeddingTable(zipped(tmp_path / "t.npz", **members))


def mutated(data, rng):
    """Bytes with some flipped, cut off, or written over with lengths and other numbers."""
    data, kind = bytearray(data), rng.integers(5)
    if kind == 0:
        return data[: rng.integers(len(data))]
    for at in rng.integers(len(data), size=rng.integers(1, 6)):
        if kind == 1:
            data[at] ^= 1 << rng.integers(8)
        elif kind == 2:
            data[at : at + 4] = int(rng.choice([0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1])).to_bytes(4, "little")
        elif kind == 3:
            data[at] = rng.choice(list(b"0129(){}[],'<>|OUSVfcmM:-+eLj \\\n\0"))
        else:
            del data[at : at + rng.integers(1, 9)]
            data = data or bytearray(1)
    return data


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_tables_are_read_or_refused_in_one_line(tmp_path, recwarn, count):
    """Members are damaged before they are zipped, so that the checksum holds, or the whole file is."""
    rng, path, refused, lines = np.random.default_rng(0), tmp_path / "t.npz", 0, set()
    arrays = {"names": np.array(["A/1.jpg", "B/1.jpg", "C/1.jpg"]), "embeddings": rows(3), "mirror": rows(3)}
    arrays |= {"quality": rows(3)[:, 0], "root": np.array("crops"), "checkpoint_sha256": np.array("ab" * 32)}
    kinds = [zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]
    for number in range(count):
        members = {key: npy(array) for key, array in arrays.items()}
        if number % 2:
            key = rng.choice(list(members))
            members[key] = bytes(mutated(members[key][: 10 + 130 * (number % 4 == 1)], rng)) + members[key][140:]
        zipped(path, kinds[rng.integers(len(kinds))], **members)
        if not number % 2:
            path.write_bytes(mutated(path.read_bytes(), rng))
        start = time.process_time()
        try:
            table = EmbeddingTable(path)
            table.about()
            table.embeddings(images("A/1.jpg", "C/1.jpg"), "lfw")
        except UserError as error:
            refused += 1
            lines |= {len(str(error).splitlines())}
        assert time.process_time() - start < 2
    assert lines == {1}
    assert count / 4 < refused < count
    assert [str(w.message) for w in recwarn.list] == []


def test_what_it_says_of_itself(tmp_path):
    path = save(tmp_path / "t.npz", ["a", "b"], rows(2, dtype=np.float16), checkpoint_sha256="ab" * 32)
    table = EmbeddingTable(path)
    assert not table.reads_images
    assert table.about() == {
        "embeddings": str(path),
        "embeddings_sha256": table.sha256,
        "table": "2 embeddings of 4 numbers, float16",
        "embedded_by_checkpoint": "ab" * 32,
    }


def test_a_table_is_read_once_in_its_own_type(tmp_path):
    values = rows(20_000, 128, dtype=np.float16)
    path = save(tmp_path / "t.npz", [f"{k:05d}" for k in range(20_000)], values, mirror=values)
    tracemalloc.start()
    table = EmbeddingTable(path, mirror="none")
    table.embeddings(images("00007"), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * values.nbytes  # the array, the names, and no float32 of all


def test_what_is_written_is_read(tmp_path):
    path, image, mirror = tmp_path / "t.npz", rows(2), rows(2, seed=1)
    write_table(path, ("ü/1.png", "b"), image, mirror, root="crops", format=2)
    result = found(path, "b", "ü/1.png")
    np.testing.assert_array_equal(result.image, image[::-1])
    np.testing.assert_array_equal(result.mirror, mirror[::-1])
    assert [file.name for file in tmp_path.iterdir()] == ["t.npz"]
    with pytest.raises(UserError, match=r"t.txt: got suffix '.txt' · allowed: .npz"):
        write_table(tmp_path / "t.txt", ("a",), image[:1])
    with pytest.raises(UserError, match="cannot be written"):
        write_table(path / "x.npz", ("a",), image[:1])


def test_a_table_that_is_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, read = save(tmp_path / "t.npz", ["a", "b"]), mapped_array.map_array

    def replaced(where, key):
        found = read(where, key)
        if key == "names":
            save(tmp_path / "new.npz", ["b", "a"]).replace(path)
        return found

    monkeypatch.setattr(mapped_array, "map_array", replaced)
    with pytest.raises(UserError, match="t.npz: changed while it was read · run the command again"):
        table_file.read_table(path)


def test_a_table_that_is_replaced_before_it_is_hashed_is_refused(tmp_path, monkeypatch):
    path, hashed = save(tmp_path / "t.npz", ["a", "b"]), table_file.sha256_of

    def replaced(where):
        save(tmp_path / "new.npz", ["b", "a"]).replace(path)
        return hashed(where)

    monkeypatch.setattr(table_file, "sha256_of", replaced)
    with pytest.raises(UserError, match="t.npz: changed while it was read · run the command again"):
        EmbeddingTable(path)


def test_quality_may_be_whole_numbers(tmp_path):
    path = tmp_path / "q.npz"
    np.savez(path, names=np.array(["a.jpg", "b.jpg"]), embeddings=np.eye(2), quality=np.array([3, -1]))
    found = EmbeddingTable(path).embeddings(Images(tmp_path, ("b.jpg", "a.jpg")), "s")
    assert found.quality.tolist() == [-1.0, 3.0]
    np.savez(path, names=np.array(["a.jpg", "b.jpg"]), embeddings=np.eye(2), quality=np.array([True, False]))
    with pytest.raises(UserError, match="quality: got bool"):
        EmbeddingTable(path)
    np.savez(path, names=np.array(["a.jpg", "b.jpg"]), embeddings=np.eye(2, dtype=int))
    with pytest.raises(UserError, match="embeddings: got int64"):
        EmbeddingTable(path)


@pytest.mark.parametrize("key", ["names", "root"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_that_are_no_characters_are_refused(tmp_path, key, order):
    path, arrays = (
        tmp_path / "t.npz",
        {"names": np.array(["a.jpg"]), "embeddings": np.eye(1), "root": np.array("crops")},
    )
    arrays |= {name: arrays[name].astype(arrays[name].dtype.newbyteorder(order)) for name in ("names", "root")}
    np.savez(path, **arrays)
    assert EmbeddingTable(path).embeddings(images("a.jpg"), "s").image.tolist() == [[1]]
    letters = np.array([0xFFFF0063, 97], dtype=f"{order}u4")
    np.savez(path, **{**arrays, key: letters.view(f"{order}U2").reshape(arrays[key].shape)})
    with pytest.raises(UserError, match=rf"damaged \({key}: numbers that are not characters of Unicode\)"):
        EmbeddingTable(path)
