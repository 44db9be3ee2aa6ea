"""Galleries and searches: exact beside a loop, faiss beside exact, files of other checkpoints refused."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface import search
from sphereface.errors import UserError
from sphereface.search import Gallery, load_gallery, nearest, nearest_by_index


def units(count, dim=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_loop(gallery, query, k):
    scores = [sum(float(a) * float(b) for a, b in zip(row, query, strict=True)) for row in gallery]
    return sorted(range(len(gallery)), key=lambda n: (-scores[n], n))[:k]


@pytest.mark.parametrize("block", [1, 7, 64, 65536])
def test_blocks_give_what_a_loop_gives(monkeypatch, block):
    monkeypatch.setattr(search, "_BLOCK", block)
    gallery, queries = units(100), units(3, seed=1)
    rows, cosines = nearest(gallery, queries, 9)
    for query, found, scores in zip(queries, rows, cosines, strict=True):
        assert found.tolist() == by_loop(gallery, query, 9)
        np.testing.assert_allclose(scores, gallery[found] @ query, rtol=1e-5)


def test_of_equal_pictures_the_first_comes_first_and_k_may_exceed_the_gallery(monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", 2)
    gallery = np.repeat(np.eye(2, dtype=np.float32), [3, 2], axis=0)
    rows, cosines = nearest(gallery, np.eye(2, dtype=np.float32)[:1], 10)
    assert rows.tolist() == [[0, 1, 2, 3, 4]]
    assert cosines.tolist() == [[1, 1, 1, 0, 0]]


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
    monkeypatch.setattr(faiss, "IndexHNSWFlat", None)  # building again would fail
    again, _ = nearest_by_index(gallery, queries, 5, tmp_path)
    np.testing.assert_array_equal(again, rows)
    assert kept.stat().st_size > 3000 * 16 * 4


def test_without_faiss_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match="--index faiss: not installed · pip install"):
        nearest_by_index(Gallery(("a",), units(1), "", ""), units(1), 1, tmp_path)


def test_a_gallery_is_read_as_it_was_written_and_by_its_checkpoint_alone(tmp_path):
    gallery = Gallery(("a/1.jpg", "ü/2.jpg"), units(2), "ab" * 32, "aligned crops")
    path = tmp_path / "gallery.npz"
    gallery.save(path)
    found = load_gallery(path, checkpoint_sha256="ab" * 32, settings="aligned crops")
    assert (found.paths, found.checkpoint_sha256, found.settings) == (gallery.paths, "ab" * 32, "aligned crops")
    np.testing.assert_array_equal(found.embeddings, gallery.embeddings)
    with pytest.raises(UserError, match=r"made by another checkpoint \(SHA-256 abababababab…"):
        load_gallery(path, checkpoint_sha256="cd" * 32, settings="aligned crops")
    with pytest.raises(UserError, match="made of aligned crops, the query of mtcnn"):
        load_gallery(path, checkpoint_sha256="ab" * 32, settings="mtcnn")
    with pytest.raises(UserError, match=r"got suffix '.txt' · allowed: .npz"):
        gallery.save(tmp_path / "gallery.txt")


@pytest.mark.parametrize(
    "arrays", [None, {}, {"format": 2}, {"format": 1, "paths": ["a"], "embeddings": [[1.0], [0.0]]}]
)
def test_what_is_no_gallery_is_one_line(tmp_path, arrays):
    path = tmp_path / "gallery.npz"
    if arrays is None:
        path.write_bytes(b"PK no zip")
    else:
        np.savez(path, checkpoint_sha256="ab", settings="s", **arrays)
    with pytest.raises(UserError, match="not a gallery .* · make one: sphereface embed DIR gallery.npz"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")


def test_a_pickle_inside_is_not_loaded(tmp_path):
    path = tmp_path / "gallery.npz"
    np.savez(path, format=1, paths=np.array([{"a": 1}], dtype=object), embeddings=units(1))
    with pytest.raises(UserError, match="not a gallery"):
        load_gallery(path, checkpoint_sha256="ab", settings="s")
