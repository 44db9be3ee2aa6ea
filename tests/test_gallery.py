"""Galleries in one file: what is read, and what is refused."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from sphereface import gallery as gallery_module
from sphereface.errors import UserError
from sphereface.gallery import Gallery, load_gallery
from sphereface.search import nearest

from .test_search import units


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("row", [[np.inf, 1e300], [1e-320, 0.0], [np.nan, 1.0], [0.0, 0.0]])
def test_a_row_without_a_direction_is_named_without_a_warning_of_numpy(tmp_path, row):
    path = tmp_path / "t.npz"
    about = {"root": "c", "format": 2, "checkpoint_sha256": "ab", "settings": "s"}
    np.savez(path, names=["a", "b"], embeddings=np.array([[1, 0], row]), **about)
    with pytest.raises(UserError, match=r"t\.npz: row 1, c/b: got an embedding of zeros, or numbers that are not"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")


def test_a_row_of_any_length_is_no_nearer_than_its_direction(tmp_path):
    rows = units(6, dim=5)
    image = rows.copy()
    image[4] *= np.float32(1e6)
    path = tmp_path / "t.npz"
    np.savez(
        path, names=[f"{k}.jpg" for k in range(6)], embeddings=image, root="c", format=2, checkpoint_sha256="ab",
        settings="s",
    )  # fmt: skip
    found = load_gallery(path, checkpoint_sha256="ab", settings="s")
    np.testing.assert_allclose(found.embeddings, rows, rtol=1e-6)
    assert nearest(found.embeddings, rows[2:3], 1)[0].tolist() == [[2]]


@pytest.mark.parametrize(
    ("root", "path", "person"),
    [
        ("in", "in/p00/1.jpg", "p00"),
        ("in", "in/1.jpg", None),
        ("in", "in/./p00//deep/1.jpg", "p00"),
        ("in", "in/../in/p00/1.jpg", "p00"),
        ("in", "in/../else/p00/1.jpg", None),
        ("in", "inside/p00/1.jpg", None),
        ("in", "/in/p00/1.jpg", None),  # a path of a list: is it below the list's folder?
        (".", "./p00/1.jpg", "p00"),
        (".", "./../p00/1.jpg", None),
        (".", "/p00/1.jpg", None),
        ("", "p00/1.jpg", "p00"),
        ("..", "../p00/1.jpg", "p00"),
        ("..", "../../else/p00/1.jpg", None),
        ("/w/in", "/w/in/p00/1.jpg", "p00"),
        ("/w/in/", "/w/in/p00/1.jpg", "p00"),
        ("/w/in", "/w/else/p00/1.jpg", None),
        ("/", "/p00/1.jpg", "p00"),
        (None, "in/p00/1.jpg", None),
    ],
)
def test_a_person_depends_on_the_paths_and_not_on_the_current_folder(tmp_path, monkeypatch, root, path, person):
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in", "/"):
        monkeypatch.chdir(folder)
        assert Gallery((path,), units(1), "", "", root).person(0) == person


def test_a_backslash_in_the_name_of_an_image_stays(tmp_path):
    about = {"root": "in", "format": 2, "checkpoint_sha256": "ab", "settings": "s"}
    np.savez(tmp_path / "t.npz", names=["a\\b.jpg", "./c.jpg"], embeddings=units(2), **about)
    found = load_gallery(tmp_path / "t.npz", checkpoint_sha256="ab", settings="s")
    assert [*found.paths] == ["in/a\\b.jpg", "in/c.jpg"]


@pytest.mark.parametrize("content", ["{}", '{"title": "of a web page"}', "[1]", "x"])
def test_a_list_of_another_program_is_not_to_be_deleted(tmp_path, content):
    (tmp_path / "gallery.json").write_text(content)
    with pytest.raises(UserError, match=r"if sphereface embed wrote it, delete it .*; if not, give it another name$"):
        load_gallery(tmp_path, checkpoint_sha256="ab", settings="s")


def test_a_person_is_one_in_both_forms_of_a_letter():
    found = Gallery(("in/Zo\u00eb/1.jpg", "in/Zoe\u0308/2.jpg"), units(2), "", "", "in")
    assert found.person(0) == found.person(1) == "Zo\u00eb"


def test_a_gallery_is_read_by_its_checkpoint_alone(tmp_path):
    path, embeddings = tmp_path / "gallery.npz", units(2)
    stored = {"names": ["a/1.jpg", "ü/2.jpg"], "embeddings": embeddings, "format": 2}
    np.savez(path, **stored, checkpoint_sha256="ab" * 32, settings="aligned crops")
    found = load_gallery(path, checkpoint_sha256="ab" * 32, settings="aligned crops")
    assert (found.paths, found.checkpoint_sha256, found.settings) == (
        ("./a/1.jpg", "./ü/2.jpg"),
        "ab" * 32,
        "aligned crops",
    )
    np.testing.assert_allclose(found.embeddings, embeddings, rtol=1e-6)
    with pytest.raises(UserError, match=r"another checkpoint computed it \(SHA-256 abababababab…"):
        load_gallery(path, checkpoint_sha256="cd" * 32, settings="aligned crops")
    with pytest.raises(UserError, match="its settings differ: aligned crops; the query: mtcnn"):
        load_gallery(path, checkpoint_sha256="ab" * 32, settings="mtcnn")


def test_a_name_of_several_rows_is_told(tmp_path, caplog):
    """Two galleries joined by numpy. The faces of one image have names of their own."""
    path, rows = tmp_path / "t.npz", units(6)
    about = {"root": "in", "format": 2, "checkpoint_sha256": "ab", "settings": "s"}

    def told(names, embeddings):
        caplog.clear()
        np.savez(path, names=names, embeddings=embeddings, **about)
        load_gallery(path, checkpoint_sha256="ab", settings="s")
        return caplog.messages

    names = ["p/a.jpg", "p/a.jpg#1", "p/a.jpg#2", "q/a.jpg", "p/a.JPG", "p/a.png"]
    assert told(names, rows) == []
    assert told(names, rows[[0] * 6]) == []  # equal images with names of their own
    twice, halves = np.concatenate([rows, rows * np.float32(3.001)]), [*names, *names[:3], "x", "y", "z"]
    for embeddings, count in (
        (twice, "3 rows have the name of an earlier row (3 with the same embedding)"),
        (twice[::-1], "3 rows have the name of an earlier row (3 with the same embedding)"),
        (np.concatenate([twice[:7], rows[[3]], twice[8:]]), "3 rows have the name of an earlier row (2 with the same "
         "embedding and 1 with another embedding)"),
    ):  # fmt: skip
        (line,) = told(halves, embeddings)
        assert line == (
            f"{path}: {count}, such as in/p/a.jpg: a search compares and shows each row · to compare each image once, "
            "leave out these rows, or embed the images again"
        )
    (line,) = told([*names, "./p/a.jpg#2"], np.concatenate([rows, rows[:1]]))
    assert "1 row has the name of an earlier row (1 with another embedding), such as in/p/a.jpg#2: " in line


@pytest.mark.parametrize("flip", [True, False])
def test_a_table_is_joined_and_divided_by_its_lengths(tmp_path, monkeypatch, flip):
    monkeypatch.setattr(gallery_module, "_ROWS", 3)
    rng = np.random.default_rng(0)
    image, mirror = (rng.standard_normal((8, 5)).astype(np.float32) * 7 for _ in range(2))
    names = [f"P{k}/ü.jpg" for k in range(8)]
    more = {"mirror": mirror} if flip else {}
    path = tmp_path / "t.npz"
    np.savez(path, names=names, embeddings=image, root="crops", format=2, checkpoint_sha256="ab", settings="s", **more)
    found = load_gallery(path, checkpoint_sha256="ab", settings="s")
    rows = np.hstack([image, mirror]) if flip else image
    wanted = [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in rows.astype(np.float64).tolist()]
    assert found.embeddings.dtype == np.float32
    np.testing.assert_allclose(found.embeddings, wanted, rtol=2e-7)
    assert found.paths == tuple(f"crops/{name}" for name in names)


@pytest.mark.parametrize(
    "arrays",
    [
        None,
        {},
        {"format": 2},
        {"format": 3, "names": ["a"], "embeddings": [[1.0]], "root": ""},
        {"format": 1, "names": ["a"], "embeddings": [[1.0]], "root": ""},
        {"format": 2, "paths": ["a"], "embeddings": [[1.0]], "root": ""},
        {"format": 2, "names": ["a"], "embeddings": [[1.0]], "mirror": [[1.0], [0.0]], "root": ""},
        {"format": 2, "names": ["a"], "embeddings": [["x"]], "root": ""},
        {"format": 2, "names": ["a"], "embeddings": [[1]], "root": ""},
        {"format": 2, "names": ["a"], "embeddings": [[True]], "root": ""},
        {"format": 2, "names": ["a"], "embeddings": [[1j]], "root": ""},
        {"format": 2, "names": "a", "embeddings": [[1.0]], "root": ""},
        {"format": 2, "names": [1], "embeddings": [[1.0]], "root": ""},
        {"format": 2.0, "names": ["a"], "embeddings": [[1.0]], "root": ""},
        {"format": [2, 2], "names": ["a"], "embeddings": [[1.0]], "root": ""},
        {"format": True, "names": ["a"], "embeddings": [[1.0]], "root": ""},
        {"format": 2, "names": ["a"], "embeddings": [[1.0]], "root": 3},
        {"format": 2, "names": ["a"], "embeddings": [[1.0]], "mirror": [[1]], "root": ""},
        {"format": 2, "names": ["a"], "embeddings": [[1e30]], "root": ""},
    ],
)
def test_what_is_no_gallery_is_one_line(tmp_path, arrays):
    path = tmp_path / "gallery.npz"
    if arrays is None:
        path.write_bytes(b"PK no zip")
    else:
        np.savez(path, checkpoint_sha256="ab", settings="s", **arrays)
    with pytest.raises(UserError, match="not a gallery .* · make one: sphereface embed DIR gallery.npz$"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")


@pytest.mark.parametrize(
    ("rows", "dim", "mirror"), [(4_000_000, 1, False), (8_000, 512, False), (8_000, 300, True)], ids=str
)
def test_a_small_file_that_unpacks_to_a_large_gallery_is_refused_before_its_names_are_read(tmp_path, rows, dim, mirror):
    path = tmp_path / "gallery.npz"
    arrays = {"embeddings": np.ones((rows, dim), np.float16)} | ({"mirror": np.ones((rows, dim))} if mirror else {})
    about = {"format": 2, "root": "", "checkpoint_sha256": "ab", "settings": "s"}
    np.savez_compressed(path, names=np.full(rows, "a"), **arrays, **about)
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"not a gallery .*: [\d,]+ bytes, far more than the size of the file"):
            load_gallery(path, checkpoint_sha256="ab", settings="s")
        assert tracemalloc.get_traced_memory()[1] < 80_000_000
    finally:
        tracemalloc.stop()
    random = np.random.default_rng(0).standard_normal((3_000, 512)).astype(np.float16)
    np.savez_compressed(path, names=np.full(3_000, "a"), embeddings=random, **about)
    assert len(load_gallery(path, checkpoint_sha256="ab", settings="s").paths) == 3_000


@pytest.mark.parametrize("about", [{"checkpoint_sha256": "another"}, {"settings": "another"}])
def test_a_gallery_of_another_kind_is_refused_before_it_is_normalised(tmp_path, monkeypatch, about):
    path = tmp_path / "gallery.npz"
    told = {"format": 2, "root": "", "checkpoint_sha256": "ab", "settings": "s"} | about
    np.savez(path, names=["a"], embeddings=units(1), **told)
    monkeypatch.setattr(gallery_module, "make_gallery", lambda *_, **__: pytest.fail("normalised"))
    with pytest.raises(UserError, match="another"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")


def test_a_directory_that_hides_the_mirror_images_is_refused(tmp_path):
    path = tmp_path / "gallery.npz"
    np.savez(
        path, format=2, root="", checkpoint_sha256="a", settings="s", names="ab", embeddings=units(1), mirror=units(1)
    )
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    last = data.rindex(b"PK\x01\x02", 0, end)
    before = data.rindex(b"PK\x01\x02", 0, last)
    data[before + 32 : before + 34] = (end - last).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"not a gallery \(damaged \(its end counts 7 members, its directory lists 6"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")


def test_a_pickle_inside_is_not_loaded(tmp_path):
    path = tmp_path / "gallery.npz"
    np.savez(path, format=2, names=np.array([{"a": 1}], dtype=object), embeddings=units(1))
    with pytest.raises(UserError, match="not a gallery"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")


def test_mirror_rows_of_other_images_are_told(tmp_path, caplog):
    """As in a gallery that numpy sorted without its array of mirror images."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(200, 16)).astype(np.float32)
    mirror = image + rng.normal(size=image.shape).astype(np.float32) / 4
    about = {
        "root": "c",
        "format": 2,
        "checkpoint_sha256": "ab",
        "settings": "s",
        "names": [f"{k}" for k in range(200)],
    }
    for name, rows in (("right", mirror), ("wrong", mirror[rng.permutation(200)])):
        caplog.clear()
        np.savez(tmp_path / f"{name}.npz", embeddings=image, mirror=rows, **about)
        load_gallery(tmp_path / f"{name}.npz", checkpoint_sha256="ab", settings="s")
        assert ("wrong.npz: mirror: the rows are hardly nearer to their own embeddings" in caplog.text) == (
            name == "wrong"
        )
        assert ("or embed the images again" in caplog.text) == (name == "wrong")


def _rows_of_20():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(20, 16)).astype(np.float32) * rng.uniform(0.5, 2, (20, 1)).astype(np.float32)
    mirror = rng.normal(size=(20, 16)).astype(np.float32)  # of an untrained network: unlike their images
    quality = np.array([np.linalg.norm([*a, *b]) for a, b in zip(image, mirror, strict=True)])
    return {"names": np.array([f"{k}" for k in range(20)]), "embeddings": image, "mirror": mirror, "quality": quality}


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda of: {}, 0),
        (lambda of: {key: of[key].astype(np.float16) for key in ("embeddings", "mirror")}, 0),
        (lambda of: {key: of[key][::-1] for key in of}, 0),
        (lambda of: {key: of[key][::-1] for key in of if key != "mirror"}, 20),
        (lambda of: {key: of[key][::-1] for key in ("names", "quality")}, 20),
        (lambda of: {"embeddings": of["embeddings"] / np.linalg.norm(of["embeddings"], axis=1, keepdims=True)}, 20),
        (lambda of: {"mirror": np.roll(of["mirror"], 1, axis=0) * (np.arange(20) < 1)[:, None] + of["mirror"]}, 1),
    ],
)
def test_arrays_that_do_not_belong_together_are_told(tmp_path, caplog, change, number):
    arrays = _rows_of_20()
    about = {"root": "c", "format": 2, "checkpoint_sha256": "ab", "settings": "s"}
    np.savez(tmp_path / "t.npz", **{**arrays, **change(arrays)}, **about)
    load_gallery(tmp_path / "t.npz", checkpoint_sha256="ab", settings="s")
    told = re.search(
        r"t\.npz: in (\d+) of 20 rows the quality is not the length of the embedding, such as", caplog.text
    )
    assert (told is None) == (number == 0)
    assert (caplog.text == "") == (number == 0)
    if told:
        assert number - 2 <= int(told[1]) <= number  # lengths of two rows may be equal to 1 %
