"""Exact search beside float64 loops, and what the command shows of it."""

from __future__ import annotations

import importlib
import itertools
import json
import pickle
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sphereface import search
from sphereface.alignment.similarity import align, template
from sphereface.cli import run_command
from sphereface.commands import found_crops
from sphereface.commands import search as search_command
from sphereface.commands.found_crops import read_crops
from sphereface.data.bins import read_bin
from sphereface.errors import UserError
from sphereface.faces import FaceReader
from sphereface.gallery import Gallery
from sphereface.search import nearest
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
def test_a_vector_that_is_not_finite_is_refused(monkeypatch, value):
    monkeypatch.setattr(search, "_BLOCK", 7)
    gallery, queries = units(30), units(3, seed=1)
    damaged, damaged_queries = gallery.copy(), queries.copy()
    damaged[17, 3] = damaged_queries[2, 0] = value
    line = r"row {} holds NaN or infinity · allowed: unit vectors · embed this image again"
    with pytest.raises(UserError, match="gallery: " + line.format(17)):
        nearest(damaged, queries, 5)
    with pytest.raises(UserError, match="queries: " + line.format(2)):
        nearest(gallery, damaged_queries, 5)


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


@pytest.mark.parametrize("block", [3, 1000])
def test_rows_over_a_threshold_are_found_in_blocks(monkeypatch, block):
    monkeypatch.setattr(search, "_BLOCK", block)
    gallery, query = units(50, seed=3), units(1, seed=4)[0]
    cosines = [sum(a * b for a, b in zip(row, query.tolist(), strict=True)) for row in gallery.tolist()]
    wanted = [row for row, cosine in enumerate(cosines) if cosine > 0.1]
    assert 0 < len(wanted) < 50
    assert search.rows_over(gallery, query, 0.1).tolist() == wanted
    assert search.rows_over(gallery, query, 2).tolist() == search.rows_over(gallery[:0], query, 0).tolist() == []


def test_the_benchmark_runs_at_a_toy_size(tmp_path, monkeypatch, capsys):
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    program = importlib.import_module("bench_search")
    sizes = ["--rows", "5000", "--dim", "32", "--queries", "1", "3", "--rounds", "1"]
    assert program.main([*sizes, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["queries"] for row in rows] == [1, 3]
    assert all(row["ratio"] == pytest.approx(row["nearest"] / row["faiss"]) for row in rows)
    assert all(row["same_cosines"] for row in rows)
    assert capsys.readouterr().out.count("100.0%") == 2


def use(monkeypatch, gallery, reader=None, calibration=None):
    """Let the command search this gallery, with one query."""
    embedder = SimpleNamespace(
        check_operating_point=lambda *_: None,
        face=lambda _: SimpleNamespace(num_faces=1, place=1, crop=np.zeros((112, 96, 3), np.uint8)),
        embed_crops=lambda _: units(1),
        calibration=calibration,
        why_uncalibrated="",
        reader=reader,
    )
    monkeypatch.setattr(search_command, "make_embedder", lambda *_: embedder)
    monkeypatch.setattr(search_command, "_gallery", lambda *_: gallery)
    monkeypatch.setattr(search_command, "check_exists", lambda _: None)


def run_search(monkeypatch, gallery, *more, reader=None):
    use(monkeypatch, gallery, reader)
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
    crops = read_crops(reader, [f"{root}#{k}" for k in (1, 2, 3, 4, 9)] + [root, f"{root}#0", f"{root}#\u00b2"])
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
    crops = read_crops(reader, [str(tmp_path / "x.bin" / name) for name in names] + ["a\0b", "c\0#1"])
    assert crops[0].mean() == 40
    assert crops[1:] == [None] * 4
    assert "4 of 5 images cannot be shown: " in capsys.readouterr().err


def test_a_bin_is_opened_once_for_all_its_images(tmp_path, monkeypatch):
    images = [encode(np.full((112, 96, 3), 20 * k, np.uint8), ".png") for k in range(4)]
    (tmp_path / "x.bin").write_bytes(pickle.dumps((images * 5, [True, False] * 5)))
    opened = []
    monkeypatch.setattr(found_crops, "read_bin", lambda file: opened.append(file) or read_bin(file))
    reader = FaceReader((112, 96), aligned=True, detector=None)
    crops = read_crops(reader, [str(tmp_path / "x.bin" / f"{k:06d}") for k in (3, 0, 2, 3)])
    assert [crop.mean() for crop in crops] == [60, 0, 40, 60]
    assert opened == [str(tmp_path / "x.bin")]


def test_people_are_found_behind_the_many_images_of_others():
    """Each time with eight times as many rows, until there are enough people."""
    persons = ["Ann"] * 200 + ["Ben"] * 30 + ["x.png"] * 10 + ["Cem"]
    asked = []

    def search_rows(count):
        asked.append(count)
        return np.arange(count)[None], (1 - np.arange(count) / 1000).astype(np.float32)[None]

    found = search.nearest_people(search_rows, lambda row: persons[row], 2, 241)
    assert [(each.person, each.row, each.cosine) for each in found] == [
        ("Ann", 0, 1.0),
        ("Ben", 200, pytest.approx(0.8)),
    ]
    assert asked == [16, 128, 241]
    assert [each.person for each in search.nearest_people(search_rows, lambda row: persons[row], 5, 241)] == [
        "Ann",
        "Ben",
        "x.png",
        "Cem",
    ]
    assert search.nearest_people(search_rows, lambda row: persons[row], 1, 0) == []


def test_people_are_those_of_a_loop_and_names_are_read_in_the_order_of_the_rows():
    """A gallery in a folder opens a shard for names that are far apart."""
    rng = np.random.default_rng(3)
    persons = [f"p{person}" for person in rng.integers(0, 9, 300)]
    order, cosines = rng.permutation(300), np.sort(rng.uniform(-1, 1, 300).astype(np.float32))[::-1]
    read = []

    def name_of(row):
        read.append(row)
        return persons[row]

    for k in (1, 4, 9, 30):
        read.clear()
        found = search.nearest_people(lambda count: (order[None, :count], cosines[None, :count]), name_of, k, 300)
        wanted = {}
        for row, cosine in zip(order.tolist(), cosines.tolist(), strict=True):
            wanted.setdefault(persons[row], (row, cosine))
        assert [(each.person, (each.row, each.cosine)) for each in found] == list(wanted.items())[:k]
        assert sum(a > b for a, b in itertools.pairwise(read)) <= 2  # once for each repeated search
