"""Exact search beside float64 loops, the graph of faiss beside exact search, and gallery files that are refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sphereface import search
from sphereface.alignment.similarity import align, template
from sphereface.cli import run_command
from sphereface.commands import search as search_command
from sphereface.errors import UserError
from sphereface.faces import FaceReader
from sphereface.search import Gallery, load_gallery, nearest, nearest_by_index
from tests.alignment.faces import ByColour, encode


def units(count, dim=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_loop(gallery, query, k):
    """Rows and float32 cosines, by Python's own float64 numbers and its sort."""
    scores = [np.float32(sum(a * b for a, b in zip(row, query.tolist(), strict=True))) for row in gallery.tolist()]
    rows = sorted(range(len(gallery)), key=lambda n: (-scores[n], n))[:k]
    return rows, [scores[n] for n in rows]


def assert_as_by_loop(gallery, queries, k):
    rows, cosines = nearest(gallery, queries, k)
    assert (rows.dtype, cosines.dtype) == (np.int64, np.float32)
    assert rows.shape == cosines.shape == (len(queries), min(k, len(gallery)))
    for query, found, scores in zip(queries, rows, cosines, strict=True):
        wanted, wanted_scores = by_loop(gallery, query, k)
        assert found.tolist() == wanted
        assert scores.tolist() == wanted_scores


@pytest.mark.parametrize("block", [1, 7, 50, 64, 32_768])
@pytest.mark.parametrize("num_rows", [100, 101])
@pytest.mark.parametrize("k", [1, 9, 60])
def test_blocks_give_what_a_loop_gives(monkeypatch, block, num_rows, k):
    monkeypatch.setattr(search, "_BLOCK", block)
    monkeypatch.setattr(search, "_QUERIES", 3)
    for num_queries in (1, 3, 4, 8):
        assert_as_by_loop(units(num_rows), units(num_queries, seed=1), k)


@pytest.mark.parametrize("block", [7, 64, 32_768])
@pytest.mark.parametrize("k", [1, 10, 60, 200])
def test_of_equal_embeddings_the_lower_row_comes_first(monkeypatch, block, k):
    """BLAS gives equal rows unequal cosines where they are the last few of a product, with 512 numbers each."""
    monkeypatch.setattr(search, "_BLOCK", block)
    gallery = units(4, 512)[np.random.default_rng(2).integers(0, 4, size=101)]
    for num_queries in (1, 3):
        queries = np.concatenate([gallery[-1:], units(num_queries - 1, 512, seed=1)])
        assert_as_by_loop(gallery, queries, k)
        assert_as_by_loop(np.repeat(gallery[:1], 101, axis=0), queries, k)


@pytest.mark.parametrize("block", [7, 32_768])
def test_embeddings_closer_than_float32_products_can_tell(monkeypatch, block):
    monkeypatch.setattr(search, "_BLOCK", block)
    near = units(1, 512) + 3e-7 * units(200, 512, seed=1)
    for queries in (units(1, 512), units(5, 512, seed=3)):
        assert_as_by_loop(near, queries, 10)


@pytest.mark.parametrize("step", [1, -1])
def test_a_gallery_in_the_order_of_its_cosines(monkeypatch, step):
    monkeypatch.setattr(search, "_BLOCK", 16)
    angles = np.linspace(0, np.pi, 150)[::step]
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert_as_by_loop(gallery, np.eye(2, dtype=np.float32), 10)


def test_of_equal_images_the_first_comes_first_and_k_may_exceed_the_gallery(monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", 2)
    gallery = np.repeat(np.eye(2, dtype=np.float32), [3, 2], axis=0)
    rows, cosines = nearest(gallery, np.eye(2, dtype=np.float32)[:1], 10)
    assert rows.tolist() == [[0, 1, 2, 3, 4]]
    assert cosines.tolist() == [[1, 1, 1, 0, 0]]


def test_nothing_to_search_in_or_for():
    for gallery, queries, k, shape in ((0, 2, 5, (2, 0)), (3, 0, 2, (0, 2)), (3, 2, 0, (2, 0))):
        rows, cosines = nearest(units(gallery), units(queries), k)
        assert rows.shape == cosines.shape == shape


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused(monkeypatch, tmp_path, value):
    monkeypatch.setattr(search, "_BLOCK", 7)
    gallery, queries = units(30), units(3, seed=1)
    damaged, damaged_queries = gallery.copy(), queries.copy()
    damaged[17, 3] = damaged_queries[2, 0] = value
    line = r"row {} holds NaN or infinity · allowed: unit vectors · embed this image again"
    with pytest.raises(UserError, match="gallery: " + line.format(17)):
        nearest(damaged, queries, 5)
    with pytest.raises(UserError, match="queries: " + line.format(2)):
        nearest(gallery, damaged_queries, 5)
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    with pytest.raises(UserError, match="gallery: " + line.format(17)):
        nearest_by_index(Gallery(("a",) * 30, damaged, "", ""), queries, 5, tmp_path)
    with pytest.raises(UserError, match="queries: " + line.format(2)):
        nearest_by_index(Gallery(("a",) * 30, gallery, "", ""), damaged_queries, 5, tmp_path)
    with pytest.raises(UserError, match="gallery: has embeddings of 16 numbers, the query of 8 · "):
        nearest_by_index(Gallery(("a",) * 30, gallery, "", ""), units(3, 8), 5, tmp_path)
    assert not list(tmp_path.iterdir())


def peak_memory(gallery, queries, k):
    tracemalloc.start()
    nearest(gallery, queries, k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("num_queries", [1, 20])
def test_memory_does_not_grow_with_the_gallery(monkeypatch, num_queries):
    monkeypatch.setattr(search, "_BLOCK", 256)
    small, large, queries = units(2_000, 64), units(10_000, 64), units(num_queries, 64, seed=1)
    assert peak_memory(large, queries, 10) < 1.2 * peak_memory(small, queries, 10)
    assert peak_memory(large, queries, 10) < large.nbytes / 4


def test_memory_grows_with_the_results_of_the_queries_alone(monkeypatch):
    monkeypatch.setattr(search, "_QUERIES", 50)
    gallery, queries = units(300), units(2_000, seed=1)
    assert peak_memory(gallery, queries, 1) < 300 * 2_000 * 4 / 4  # a quarter of the scores


def test_the_graph_finds_nearly_all_and_is_built_once(tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    gallery = Gallery(tuple(map(str, range(3000))), units(3000), "ab" * 32, "crops")
    queries = units(50, seed=1)
    exact, wanted = nearest(gallery.embeddings, queries, 5)
    rows, cosines = nearest_by_index(gallery, queries, 5, tmp_path)
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(rows.tolist(), exact.tolist(), strict=True)])
    assert recall > 0.95
    assert (np.diff(cosines) <= 0).all()
    assert cosines[0, 0] == pytest.approx(wanted[0, 0], abs=1e-5)
    (kept,) = tmp_path.glob("*.faiss")
    other = Gallery(tuple(map(str, range(30))), units(30, seed=2), "ab" * 32, "crops")  # has a graph of its own
    np.testing.assert_array_equal(
        nearest_by_index(other, queries, 3, tmp_path)[0], nearest(other.embeddings, queries, 3)[0]
    )
    monkeypatch.setattr(faiss, "serialize_index", None)  # building again would fail
    again, _ = nearest_by_index(gallery, queries, 5, tmp_path)
    np.testing.assert_array_equal(again, rows)
    assert kept.stat().st_size > 3000 * 16 * 4


def fake_faiss(monkeypatch, ids, scores):
    """Let a search by index find these ids, in faiss's form: -1 and the lowest float where there is no more."""
    found = (np.array(scores, dtype=np.float32), np.array(ids))
    index = SimpleNamespace(
        hnsw=SimpleNamespace(), add=lambda rows: None, search=lambda queries, k: found, ntotal=0, d=0
    )

    def read_index(_):
        raise RuntimeError("no index")

    fake = SimpleNamespace(IndexHNSWFlat=lambda *_: index, METRIC_INNER_PRODUCT=0, read_index=read_index)
    fake.serialize_index = lambda _: np.zeros(1, np.uint8)
    monkeypatch.setattr(search, "import_extra", lambda *_, **__: fake)


LOWEST = np.finfo(np.float32).min


def test_places_that_the_graph_leaves_empty_are_dropped(tmp_path, monkeypatch):
    gallery = Gallery(tuple("abcde"), units(5), "", "")
    fake_faiss(monkeypatch, [[4, 2, -1, -1]], [[0.9, 0.5, LOWEST, LOWEST]])
    rows, cosines = nearest_by_index(gallery, units(1), 4, tmp_path)
    assert rows.tolist() == [[4, 2]]
    np.testing.assert_array_equal(cosines, np.float32([[0.9, 0.5]]))
    fake_faiss(monkeypatch, [[4, -1, -1], [1, 0, -1]], [[0.9, LOWEST, LOWEST], [0.8, 0.7, LOWEST]])
    rows, cosines = nearest_by_index(gallery, units(2), 3, tmp_path)
    assert rows.tolist() == [[4, -1], [1, 0]]
    np.testing.assert_array_equal(cosines, np.float32([[0.9, -np.inf], [0.8, 0.7]]))
    fake_faiss(monkeypatch, [[-1]], [[LOWEST]])
    assert nearest_by_index(gallery, units(1), 1, tmp_path)[0].shape == (1, 0)


def test_the_graph_of_a_gallery_with_many_equal_embeddings_gives_no_row_twice_or_below_zero(tmp_path):
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    gallery = Gallery(tuple(map(str, range(1000))), np.repeat(units(10), 100, axis=0), "", "")
    rows, cosines = nearest_by_index(gallery, units(1, seed=9), 1000, tmp_path)
    assert 10 < rows.shape[1] <= 1000  # faiss 1.15 finds 85
    assert rows.min() >= 0
    assert len(np.unique(rows)) == rows.size
    np.testing.assert_allclose(cosines[0], gallery.embeddings[rows[0]] @ units(1, seed=9)[0], atol=1e-6)


def test_the_command_prints_what_the_graph_found_and_says_how_many_are_missing(tmp_path, monkeypatch, capsys):
    """faiss's id -1 was once printed as the last image of the gallery."""
    embedder = SimpleNamespace(
        check_operating_point=lambda *_: None,
        face=lambda _: SimpleNamespace(num_faces=1, crop=np.zeros((112, 96, 3), np.uint8)),
        embed_crops=lambda _: units(1),
        calibration=None,
    )
    monkeypatch.setattr(search_command, "make_embedder", lambda *_: embedder)
    monkeypatch.setattr(search_command, "_gallery", lambda *_: Gallery(tuple("abcde"), units(5), "", ""))
    argv = [str(tmp_path / "gallery.npz"), "query.png", "--ckpt", "best.pt", "--top", "9", "--index"]
    fake_faiss(monkeypatch, [[3, 1, -1, -1, -1]], [[0.9, 0.5, LOWEST, LOWEST, LOWEST]])
    assert run_command("search", [*argv, "faiss"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "  1   0.9000  d\n  2   0.5000  b\n"
    assert captured.err == "note: --index faiss: found 2 of 5 · use --index exact to compare all images\n"
    assert run_command("search", [*argv, "exact"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 5
    assert captured.err == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("row", [[np.inf, 1e300], [1e-320, 0.0], [np.nan, 1.0], [0.0, 0.0]])
def test_a_row_without_a_direction_is_named_without_a_warning_of_numpy(tmp_path, row):
    path = tmp_path / "t.npz"
    about = {"root": "c", "format": 2, "checkpoint_sha256": "ab", "settings": "s"}
    np.savez(path, names=["a", "b"], embeddings=np.array([[1, 0], row]), **about)
    found = load_gallery(path, checkpoint_sha256="ab", settings="s")
    with pytest.raises(UserError, match="gallery: row 1 holds NaN or infinity"):
        nearest(found.embeddings, units(1, 2), 1)


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


@pytest.mark.parametrize("block", [3, 1000])
def test_rows_over_a_threshold_are_counted_in_blocks(monkeypatch, block):
    monkeypatch.setattr(search, "_BLOCK", block)
    gallery, query = units(50, seed=3), units(1, seed=4)[0]
    wanted = sum(sum(a * b for a, b in zip(row, query.tolist(), strict=True)) > 0.1 for row in gallery.tolist())
    assert 0 < wanted < 50
    assert search.count_over(gallery, query, 0.1) == wanted


DAMAGES = {
    "of fewer rows": lambda faiss: (faiss.IndexHNSWFlat(16, 4, 0), units(40)[:3]),
    "of another kind": lambda faiss: (faiss.IndexFlatIP(16), units(40)),
    "of another metric": lambda faiss: (faiss.IndexHNSWFlat(16, 4), units(40)),
    "of other rows": lambda faiss: (faiss.IndexHNSWFlat(16, 4, 0), np.concatenate([units(40)[:39], units(1, seed=8)])),
    "of another order": lambda faiss: (faiss.IndexHNSWFlat(16, 4, 0), units(40)[::-1].copy()),
    "of another width": lambda faiss: (faiss.IndexHNSWFlat(8, 4, 0), units(40, 8)),
}


@pytest.mark.parametrize("damage", ["cut", "closed folder", *DAMAGES])
def test_a_kept_graph_that_does_not_fit_is_built_again(tmp_path, damage, caplog, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    gallery = Gallery(tuple(map(str, range(40))), units(40), "", "")
    query = units(2, seed=5)
    wanted, _ = nearest_by_index(gallery, query, 3, tmp_path)
    (kept,) = tmp_path.glob("*.faiss")
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:50])
    elif damage == "closed folder":
        kept.unlink()
        monkeypatch.setattr(search, "write_whole", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    else:
        other, rows = DAMAGES[damage](faiss)
        other.add(rows)
        faiss.write_index(other, str(kept))
    monkeypatch.setattr(search, "_BLOCK", 13)
    assert nearest_by_index(gallery, query, 3, tmp_path)[0].tolist() == wanted.tolist()
    if damage == "closed folder":
        assert "the index cannot be kept there (No space left)" in caplog.text
    else:
        again = faiss.read_index(str(kept))
        np.testing.assert_array_equal(again.reconstruct_n(0, 40), gallery.embeddings)
        assert again.metric_type == faiss.METRIC_INNER_PRODUCT
        assert ("a damaged index" if damage == "cut" else "not the index of this gallery") in caplog.text


def test_ids_beyond_the_gallery_are_no_rows(tmp_path, monkeypatch):
    fake_faiss(monkeypatch, [[4, 5, 2]], [[0.9, 0.8, 0.5]])
    rows, cosines = nearest_by_index(Gallery(tuple("abcde"), units(5), "", ""), units(1), 3, tmp_path)
    assert rows.tolist() == [[4, 2]]
    np.testing.assert_array_equal(cosines, np.float32([[0.9, 0.5]]))


def test_without_faiss_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(
        UserError, match=r"--index faiss: faiss is not installed · pip install '.\[faiss\]' .*, or --index exact"
    ):
        nearest_by_index(Gallery(("a",), units(1), "", ""), units(1), 1, tmp_path)


def test_the_benchmark_runs_at_a_toy_size(tmp_path):
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    program = Path(__file__).parents[1] / "benchmarks" / "bench_search.py"
    command = [sys.executable, program, "--rows", "5000", "--dim", "32", "--queries", "1", "3", "--rounds", "1"]
    done = subprocess.run([*command, "--json", tmp_path / "rows.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["queries"] for row in rows] == [1, 3]
    assert all(row["ratio"] == pytest.approx(row["nearest"] / row["faiss"]) for row in rows)
    assert all(row["same_cosines"] for row in rows)
    assert done.stdout.count("100.0%") == 2


def test_a_gallery_of_the_first_format_is_read_by_its_checkpoint_alone(tmp_path):
    path, embeddings = tmp_path / "gallery.npz", units(2)
    old = {"paths": ["a/1.jpg", "ü/2.jpg"], "embeddings": embeddings, "format": 1}
    np.savez(path, **old, checkpoint_sha256="ab" * 32, settings="aligned crops")
    found = load_gallery(path, checkpoint_sha256="ab" * 32, settings="aligned crops")
    assert (found.paths, found.checkpoint_sha256, found.settings) == (
        ("a/1.jpg", "ü/2.jpg"),
        "ab" * 32,
        "aligned crops",
    )
    np.testing.assert_array_equal(found.embeddings, embeddings)
    with pytest.raises(UserError, match=r"made by another checkpoint \(SHA-256 abababababab…"):
        load_gallery(path, checkpoint_sha256="cd" * 32, settings="aligned crops")
    with pytest.raises(UserError, match="made of aligned crops, the query of mtcnn"):
        load_gallery(path, checkpoint_sha256="ab" * 32, settings="mtcnn")


@pytest.mark.parametrize("flip", [True, False])
def test_a_table_is_joined_and_divided_by_its_lengths(tmp_path, monkeypatch, flip):
    monkeypatch.setattr(search, "_ROWS", 3)
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
        {"format": 1, "paths": ["a"], "embeddings": [[1.0], [0.0]]},
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
        {"format": 1, "paths": ["a"], "embeddings": [[np.nan]]},
        {"format": 1, "paths": ["a"], "embeddings": [[np.inf]]},
        {"format": 1, "paths": ["a"], "embeddings": [[1.01]]},
        {"format": 1, "paths": ["a"], "embeddings": [[1e30]]},
        {"format": 2, "names": ["a"], "embeddings": [[1e30]], "root": ""},
    ],
)
def test_what_is_no_gallery_is_one_line(tmp_path, arrays):
    path = tmp_path / "gallery.npz"
    if arrays is None:
        path.write_bytes(b"PK no zip")
    else:
        np.savez(path, checkpoint_sha256="ab", settings="s", **arrays)
    with pytest.raises(UserError, match="not a gallery .* · make one: sphereface embed DIR gallery.npz"):
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
        with pytest.raises(UserError, match=r"not a gallery .*: [\d,]+ bytes, far more than the file has"):
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
    monkeypatch.setattr(search, "make_gallery", lambda *_, **__: pytest.fail("normalised"))
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
    np.savez(path, format=1, paths=np.array([{"a": 1}], dtype=object), embeddings=units(1))
    with pytest.raises(UserError, match="not a gallery"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")


def run_search(monkeypatch, gallery, *more, reader=None):
    embedder = SimpleNamespace(
        check_operating_point=lambda *_: None,
        face=lambda _: SimpleNamespace(num_faces=1, crop=np.zeros((112, 96, 3), np.uint8)),
        embed_crops=lambda _: units(1),
        calibration=None,
        reader=reader,
    )
    monkeypatch.setattr(search_command, "make_embedder", lambda *_: embedder)
    monkeypatch.setattr(search_command, "_gallery", lambda *_: gallery)
    return run_command("search", ["gallery.npz", "query.png", "--ckpt", "best.pt", *more])


def test_names_that_a_terminal_would_obey_are_escaped(tmp_path, monkeypatch, capsys):
    gallery = Gallery(("a\x1b[31m\n", "b\r\x9b\u2028", "ü 安\udcff"), np.repeat(units(1), 3, axis=0), "", "")
    plot = ("--save-plot", str(tmp_path / "x.png"))
    assert run_search(monkeypatch, gallery, *plot, reader=FaceReader((112, 96), aligned=True, detector=None)) == 0
    captured = capsys.readouterr()
    names = [line.split("  ")[-1] for line in captured.out.splitlines()[:3]]
    assert names == [r"a\x1b[31m\n", r"b\r\x9b\u2028", r"ü 安\udcff"]
    assert captured.err.startswith(r"note: 3 of 3 images cannot be shown: a\x1b[31m\n: cannot be read (No such file")
    assert captured.err.count("\n") == 1


def test_a_row_is_shown_by_its_face_or_as_an_image_of_its_bin(tmp_path, monkeypatch):
    middles = [(20, 20), (60, 70), (120, 100)]
    (tmp_path / "a.png").write_bytes(encode(ByColour.image((140, 150), middles), ".png"))
    (tmp_path / "a.png#9").write_bytes(encode(ByColour.image((140, 150), middles[:1]), ".png"))
    reader = FaceReader((112, 96), aligned=False, detector=ByColour())
    root = str(tmp_path / "a.png")
    crops = search_command._crops(
        reader, [f"{root}#{k}" for k in (1, 2, 3, 4, 9)] + [root, f"{root}#0", f"{root}#\u00b2"]
    )
    every = [align(ByColour.image((140, 150), middles), around(middle)) for middle in middles]
    wanted = [*every, None, every[0], every[1], None, None]
    for crop, image in zip(crops, wanted, strict=True):
        assert (crop is None) == (image is None)
        assert image is None or np.abs(crop.astype(int) - image).max() <= 1
    assert reader.on_several == "take"


def around(middle):
    return (template() - template().mean(axis=0)) / 4 + middle


def test_an_image_of_a_bin_is_shown(tmp_path, capsys):
    images = [encode(np.full((112, 96, 3), 20 * k, np.uint8), ".png") for k in range(4)]
    (tmp_path / "x.bin").write_bytes(pickle.dumps((images * 5, [True, False] * 5)))
    reader = FaceReader((112, 96), aligned=True, detector=None)
    names = ["000002", "000007", "a\0b"]
    crops = search_command._crops(reader, [str(tmp_path / "x.bin" / name) for name in names] + ["a\0b", "c\0#1"])
    assert crops[0].mean() == 40
    assert crops[1:] == [None] * 4
    assert "4 of 5 images cannot be shown: " in capsys.readouterr().err
