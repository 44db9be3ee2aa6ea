"""The index of faiss beside exact search: what it finds, what is kept, and what is built again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sphereface import search_index
from sphereface.cli import run_command
from sphereface.commands import search as search_command
from sphereface.errors import UserError
from sphereface.gallery import Gallery
from sphereface.search import nearest
from sphereface.search_index import IndexFacts, open_index

from .test_search import units


def nearest_by_index(gallery, queries, k, folder):
    return open_index(gallery, folder).search(queries, k)


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
    monkeypatch.setattr(faiss, "write_index", None)  # building again would fail
    again, _ = nearest_by_index(gallery, queries, 5, tmp_path)
    np.testing.assert_array_equal(again, rows)
    assert kept.stat().st_size > 3000 * 16 * 4


def fake_faiss(monkeypatch, ids, scores):
    """Let a search by index find these ids, in faiss's form: -1 and the lowest float where there is no more."""
    found = (np.array(scores, dtype=np.float32), np.array(ids))
    index = SimpleNamespace(
        hnsw=SimpleNamespace(), add=lambda rows: None, search=lambda queries, k: found, ntotal=0, d=0
    )

    def read_index(*_):
        raise RuntimeError("no index")

    fake = SimpleNamespace(IndexHNSWFlat=lambda *_: index, METRIC_INNER_PRODUCT=0, read_index=read_index)
    fake.write_index = lambda _, path: Path(path).write_bytes(b"0")
    monkeypatch.setattr(search_index, "_measure", lambda *_: IndexFacts("HNSW", 0.5, 5))
    monkeypatch.setattr(search_index, "import_extra", lambda *_, **__: fake)


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
        face=lambda _: SimpleNamespace(num_faces=1, place=1, crop=np.zeros((112, 96, 3), np.uint8)),
        embed_crops=lambda _: units(1),
        calibration=None,
        why_uncalibrated="",
    )
    monkeypatch.setattr(search_command, "make_embedder", lambda *_: embedder)
    monkeypatch.setattr(search_command, "_gallery", lambda *_: Gallery(tuple("abcde"), units(5), "", ""))
    argv = [str(tmp_path / "gallery.npz"), "query.png", "--ckpt", "best.pt", "--top", "9", "--index"]
    fake_faiss(monkeypatch, [[3, 1, -1, -1, -1]], [[0.9, 0.5, LOWEST, LOWEST, LOWEST]])
    assert run_command("search", [*argv, "faiss"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "  1   0.9000  d\n  2   0.5000  b\n"
    told, missing = captured.err.splitlines()
    assert told.startswith(
        "note: --index faiss: HNSW, recall 0.500: it finds 50.0% of the 10 nearest rows of an exact "
    )
    assert missing == "note: --index faiss: found 2 of 5 · use --index exact to compare all images"
    assert run_command("search", [*argv, "exact"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 5
    assert captured.err == ""


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
        monkeypatch.setattr(search_index, "temporary_name", lambda path: path.parent / "none" / "x")
    else:
        other, rows = DAMAGES[damage](faiss)
        other.add(rows)
        faiss.write_index(other, str(kept))
    monkeypatch.setattr(search_index, "_BLOCK", 13)
    assert nearest_by_index(gallery, query, 3, tmp_path)[0].tolist() == wanted.tolist()
    if damage == "closed folder":
        assert "the index cannot be written there (" in caplog.text
    else:
        again = faiss.read_index(str(kept))
        np.testing.assert_array_equal(again.reconstruct_n(0, 40), gallery.embeddings)
        assert again.metric_type == faiss.METRIC_INNER_PRODUCT
        assert ("the index is damaged" if damage == "cut" else "the index belongs to another gallery") in caplog.text


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_or_of_another_width_is_refused(tmp_path, value):
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    damaged, damaged_query = units(30), units(3)
    damaged[17, 3] = damaged_query[2, 0] = value
    line = r"{}: row {} holds NaN or infinity · allowed: unit vectors · embed this image again"
    with pytest.raises(UserError, match=line.format("gallery", 17)):
        open_index(Gallery(("a",) * 30, damaged, "", ""), tmp_path)
    assert not list(tmp_path.iterdir())
    index = open_index(Gallery(("a",) * 30, units(30), "", ""), tmp_path)
    with pytest.raises(UserError, match=line.format("queries", 2)):
        index.search(damaged_query, 5)
    with pytest.raises(UserError, match="gallery: has embeddings of 16 numbers, the query has 8 · "):
        index.search(units(3, 8), 5)


def recall_by_loop(gallery, found_by, count=64, top=10):
    """Share of the ten nearest other rows, in float64, of rows that are spread evenly."""
    shares = []
    for row in sorted({int(place) for place in np.linspace(0, len(gallery) - 1, count)}):
        cosines = gallery.astype(np.float64) @ gallery[row].astype(np.float64)
        wanted = {int(n) for n in np.argsort(-cosines, kind="stable")[: top + 1]} - {row}
        got = set(found_by(gallery[row : row + 1], top + 1)[0][0].tolist())
        shares.append(len(wanted & got) / len(wanted))
    return float(np.mean(shares))


def small_ivf(monkeypatch):
    """Let a small gallery get IVF-PQ, with codes that are quick to learn."""
    monkeypatch.setattr(search_index, "LARGEST_GRAPH", 1000)
    monkeypatch.setattr(search_index, "_MOST_BYTES", 2)


def test_a_large_gallery_gets_ivf_pq_with_exact_cosines_and_a_measured_recall(tmp_path, monkeypatch, caplog):
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    small_ivf(monkeypatch)
    monkeypatch.setattr(search_index, "_LIST_SHARE", 8)
    rows = np.repeat(units(120, seed=7), 10, axis=0) + 0.15 * np.random.default_rng(1).standard_normal((1200, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    gallery = Gallery(tuple(map(str, range(1200))), rows, "", "")
    index = open_index(gallery, tmp_path)
    assert (index.facts.kind, index.facts.queries) == ("IVF-PQ", 64)
    assert index.facts.recall == pytest.approx(recall_by_loop(rows, index.search), abs=1e-9)
    assert 0.5 < index.facts.recall < 1
    found, cosines = index.search(units(3, seed=9), 7)
    for query, ids, scores in zip(units(3, seed=9), found, cosines, strict=True):
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, rows[ids].astype(np.float64) @ query.astype(np.float64), atol=1e-7)
    monkeypatch.setattr(search_index, "_build", None)  # building again would fail
    again = open_index(gallery, tmp_path)
    assert again.facts == index.facts
    np.testing.assert_array_equal(again.search(units(3, seed=9), 7)[0], found)
    assert (
        f"recall {index.facts.recall:.3f}: it finds {index.facts.recall:.1%} of the 10 nearest"
        in again.facts.describe()
    )


@pytest.mark.parametrize("damage", ["cut", "a graph", "of fewer rows", "facts"])
def test_a_kept_ivf_pq_index_that_does_not_fit_is_built_again(tmp_path, monkeypatch, damage, caplog):
    faiss = pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    small_ivf(monkeypatch)
    gallery = Gallery(tuple(map(str, range(1100))), units(1100), "", "")
    wanted = open_index(gallery, tmp_path)
    (kept,) = tmp_path.glob("*.faiss")
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-100])
    elif damage == "facts":
        kept.with_suffix(".faiss.json").write_text('{"kind": "HNSW"}')
    else:
        other = faiss.IndexHNSWFlat(16, 4, 0) if damage == "a graph" else faiss.index_factory(16, "IVF4,PQ2np", 0)
        other.train(units(1100))
        other.add(units(1100)[:1050])
        faiss.write_index(other, str(kept))
    again = open_index(gallery, tmp_path)
    assert again.facts == wanted.facts
    np.testing.assert_array_equal(again.search(units(2, seed=4), 3)[0], wanted.search(units(2, seed=4), 3)[0])
    if damage != "facts":
        assert "built again" in caplog.text
