"""How rows of a table are found for images, what the arrays may be, and what is refused."""

import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sphereface.errors import UserError
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
        (["A/1.jpg", "lfw/A/1.jpg", "B/1.jpg"], ["B/1.jpg", "A/1.jpg"]),  # goes before the name alone
        (["A/1.png", "A/2.jpg", "B/1.PNG"], ["B/1.jpg", "A/1.jpg"]),  # other suffixes
        (["A/1", "A/2", "B/1"], ["B/1.jpg", "A/1.jpg"]),
        (["lfw/A/1.png", "x", "lfw/B/1"], ["B/1.jpg", "A/1.jpg"]),
        (["./A/1.jpg", "./A/2.jpg", "./B/1.jpg"], ["B/1.jpg", "A/1.jpg"]),
        (["a1.jpg", "1.jpg", "3.jpg"], ["B/3.jpg", "A/a1.png"]),  # one flat folder
        (["frame.0001", "frame.0002", "frame.0003"], ["frame.0003", "frame.0001"]),  # that is no suffix
        (["000000", "000001", "000002"], ["000002", "000000"]),  # of a .bin
    ],
)
def test_rows_are_found_by_name(tmp_path, table, wanted):
    values = rows(3)
    answer = values[[2, 1 if "lfw/A/1.jpg" in table[1:] else 0]]
    result = found(save(tmp_path / "t.npz", table, values), *wanted)
    np.testing.assert_array_equal(result.image, answer)
    assert (result.mirror, result.fusion, result.quality) == (None, "join", None)


def test_rows_are_found_by_the_place_of_the_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = rows(2)
    table = save(tmp_path / "t.npz", ["lfw/A/1.jpg", "lfw/B/1.png"], values, root="data")
    for root in ("data/lfw", str(tmp_path / "data" / "lfw"), "data/../data/lfw"):
        np.testing.assert_array_equal(found(table, "B/1.jpg", "A/1.jpg", root=root, set_name="x").image, values[[1, 0]])
    with pytest.raises(UserError, match="no embedding for 1 of the 1 images of x"):
        found(table, "A/1.jpg", root="data-lfw", set_name="x")
    for paths in (["data/lfw/A/1.jpg"], [str(tmp_path / "data/lfw/A/1.jpg")]):  # a gallery of format 1
        np.savez("old.npz", paths=np.array(paths), embeddings=values[:1], format=1)
        np.testing.assert_array_equal(found(Path("old.npz"), "A/1.jpg", root="data/lfw").image, values[:1])


def test_mirror_images_and_qualities(tmp_path):
    image, mirror, quality = rows(3), rows(3, seed=1), np.float32([3, 1, 2])
    path = save(tmp_path / "t.npz", ["a", "b", "c"], image, mirror=mirror, quality=quality)
    names, at = ("c", "a"), [2, 0]
    for given, fusion, features in (
        (None, "join", np.hstack([image, mirror])),
        ("join", "join", np.hstack([image, mirror])),
        ("add", "add", image + mirror),
        ("none", "join", image),
    ):
        result = found(path, *names, mirror=given)
        np.testing.assert_array_equal(result.features(), features[at])
        assert (result.fusion, result.flip) == (fusion, given != "none")
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
    values[0, 1], values[1, 1], values[2] = np.nan, 1e300, 0
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
        ({"names": ["a", "b"], "embeddings": rows(2)[None]}, "embeddings: got shape (1, 2, 4) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2, 0)}, "embeddings: got shape (2, 0) with 2 names"),
        ({"names": [["a", "b"]], "embeddings": rows(2)}, "names: got shape (1, 2)"),
        ({"names": np.array([], "U"), "embeddings": rows(0)}, "names: got shape (0,)"),
        ({"names": [1, 2], "embeddings": rows(2)}, "names: got int64, not text"),
        ({"names": [b"\xff", b"b"], "embeddings": rows(2)}, "names: bytes that are not UTF-8"),
        ({"names": ["a", "b"], "embeddings": [["1", "2"], ["3", "4"]]}, "embeddings: got <U1, not float16, float32"),
        ({"names": ["a", "b"], "embeddings": [[1, 2], [3, 4]]}, "embeddings: got int64, not float16"),
        ({"names": ["a", "b"], "embeddings": rows(2), "mirror": rows(2, 3)}, "mirror: got shape (2, 3) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2), "quality": rows(2)}, "quality: got shape (2, 4) with 2 names"),
        ({"names": ["a", "b"], "embeddings": rows(2), "quality": ["x", "y"]}, "quality: got <U1, not float16"),
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
