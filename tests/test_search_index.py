"""The index of faiss beside exact search: what it finds, what is kept, and what is built again."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from sphereface import search_index
from sphereface.cli import run_command
from sphereface.commands import find as find_module
from sphereface.errors import UserError
from sphereface.evaluation.calibration import Threshold
from sphereface.gallery import Gallery
from sphereface.search import nearest
from sphereface.search_index import FaceIndex, IndexFacts, open_index

from .test_search import units, use


class FakeIndex:
    """An index of faiss that finds these ids: -1 where there is no more."""

    nlist, nprobe = 8, 1

    def __init__(self, *ids):
        self.ids = ids

    def search(self, queries, k):
        found = np.full((len(queries), k), -1)
        for query, ids in enumerate(self.ids):
            found[query, : len(ids)] = ids[:k]
        return np.zeros(found.shape, np.float32), found


GOOD = IndexFacts(0.96, 64, 5)


def test_ids_that_are_no_rows_are_dropped_and_cosines_are_of_the_rows():
    rows, queries = units(5), units(2, seed=1)
    wanted = (rows @ queries.T).T
    for ids in ([4, 2, -1, -1], [4, 5, 2]):
        found, cosines = FaceIndex(rows, FakeIndex(ids), GOOD).search(queries[:1], 4)
        assert found.tolist() == [sorted([4, 2], key=lambda row: -wanted[0, row])]
        np.testing.assert_allclose(cosines[0], wanted[0, found[0]], atol=1e-6)
    found, cosines = FaceIndex(rows, FakeIndex([4], [1, 0]), GOOD).search(queries, 3)
    assert found[0].tolist() == [4, -1]
    assert sorted(found[1].tolist()) == [0, 1]
    assert cosines[0, 1] == -np.inf
    assert FaceIndex(rows, FakeIndex([]), GOOD).search(queries[:1], 1)[0].shape == (1, 0)


def test_a_search_visits_the_lists_of_the_facts():
    index = FakeIndex([1])
    FaceIndex(units(5), index, GOOD)
    assert index.nprobe == 5


def use_index(monkeypatch, gallery, index=None, facts=GOOD, calibration=None):
    """Let the command search this gallery, by an index if one is given."""
    use(monkeypatch, gallery, calibration=calibration)
    if index is not None:
        monkeypatch.setattr(find_module, "LARGEST_EXACT", 0)
        monkeypatch.setattr(find_module, "open_index", lambda *_: FaceIndex(gallery.embeddings, index, facts))


def by_command(capsys, *more, index="faiss"):
    """Return the lines that the command prints on stdout and on stderr."""
    assert run_command("search", ["g.npz", "q.png", "--ckpt", "best.pt", "--index", index, *more]) == 0
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def ordered(count):
    """A gallery whose rows are in the order of their cosines with the query of the command."""
    rows = units(count, seed=3)
    return rows[np.argsort(-(rows @ units(1)[0]))]


def test_all_images_of_a_small_gallery_are_compared_without_faiss(monkeypatch, capsys):
    """A graph returned no row but near-copies of one image, and "no match" for a person who is there."""
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    use_index(monkeypatch, Gallery(tuple("abcde"), ordered(5), "", ""))
    wanted, _ = by_command(capsys, "--top", "3", index="exact")
    out, err = by_command(capsys, "--top", "3")
    assert out == wanted
    assert [line[-1] for line in out] == ["a", "b", "c"]
    assert err == [
        "note: --index faiss: the gallery has 5 images, so this search compares all of them; an index is for more "
        "than 1,000,000"
    ]


@pytest.mark.parametrize("more", [[], ["--by", "person"]])
def test_results_that_the_index_does_not_find_are_found_by_comparing_all_images(monkeypatch, capsys, more):
    """An index once printed one of 51 people, and said nothing."""
    paths = tuple(f"r/{name}/{k}.jpg" for k, name in enumerate("abcde"))
    use_index(monkeypatch, Gallery(paths, ordered(5), "", "", "r"), FakeIndex([3, 1, -1, -1, -1]))
    wanted, _ = by_command(capsys, "--top", "4", *more, index="exact")
    out, err = by_command(capsys, "--top", "4", *more)
    assert out == wanted
    assert len(out) == 4
    assert err[0].startswith("note: --index faiss: IVF-PQ, recall 0.960: it finds 96.0% of the 10 nearest rows of an ")
    what = "people" if more else "images"
    assert err[1:] == [f"note: --index faiss: found 2 of 4 {what}, so it compares all images"]
    out, err = by_command(capsys, "--top", "2", *more)  # the index finds enough
    assert [line.split("/")[-1] for line in out] == ["1.jpg", "3.jpg"]
    assert len(err) == 1


@pytest.mark.parametrize("facts", [IndexFacts(0.949, 64, 5), IndexFacts(1.0, 63, 5)])
def test_an_index_of_low_or_unknown_recall_is_not_used(monkeypatch, capsys, facts):
    use_index(monkeypatch, Gallery(tuple("abcde"), ordered(5), "", ""), FakeIndex([4, 3, 2]), facts)
    out, err = by_command(capsys, "--top", "2")
    assert [line[-1] for line in out] == ["a", "b"]
    assert err[1] == (
        "note: --index faiss: an index needs a recall of 0.95 and 64 different rows to measure it, so this search "
        "compares all images"
    )


def test_an_index_does_not_decide_that_there_is_no_match(monkeypatch, capsys):
    calibration = SimpleNamespace(at=lambda _: Threshold(0.01, 0.999, 0.9, 1.0), source="pairs.txt")
    use_index(monkeypatch, Gallery(tuple("abcde"), ordered(5), "", ""), FakeIndex([4, 3, 2]), calibration=calibration)
    out, _ = by_command(capsys, "--top", "2")
    assert out[2].startswith("decision  none found   cosine ≤ 0.9990, ")
    assert out[3] == "          the index may have missed a match · --index exact compares all images"
    for more, index in (("--top", "2"), "exact"), (("--top", "4"), "faiss"):
        out, _ = by_command(capsys, *more, index=index)
        assert "no match     cosine ≤ 0.9990" in "\n".join(out)
        assert "missed" not in "\n".join(out)
    calibration.at = lambda _: Threshold(0.01, -1.0, 0.9, 1000)
    out, _ = by_command(capsys, "--top", "2")
    assert out[2].startswith("decision  the first 5  cosine > -1.0000")
    assert "missed" not in "\n".join(out)


def test_without_faiss_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(
        UserError, match=r"--index faiss: faiss is not installed · pip install '.\[faiss\]' .*, or --index exact"
    ):
        open_index(Gallery(("a",), units(1), "", ""), tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_or_of_another_width_is_refused(tmp_path, value, small_ivf, monkeypatch):
    damaged, damaged_query = units(600), units(3)
    damaged[17, 3] = damaged_query[2, 0] = value
    line = r"{}: row {} holds NaN or infinity · allowed: unit vectors · embed this image again"
    with pytest.raises(UserError, match=line.format("gallery", 17)):
        open_index(gallery_of(damaged), tmp_path)
    damaged[17, 3], damaged[300, 0] = 0, value  # not in the sample that trains the index
    monkeypatch.setattr(search_index, "_RUN", 1)
    monkeypatch.setattr(search_index, "_TRAINING_ROWS", 16)
    with pytest.raises(UserError, match=line.format("gallery", 300)):
        open_index(gallery_of(damaged), tmp_path)
    assert not list(tmp_path.iterdir())
    index = open_index(gallery_of(units(600)), tmp_path)
    with pytest.raises(UserError, match=line.format("queries", 2)):
        index.search(damaged_query, 5)
    with pytest.raises(UserError, match="gallery: has embeddings of 16 numbers, the query has 8 · "):
        index.search(units(3, 8), 5)


def recall_by_loop(gallery, picked, found_by, top=10):
    """Share of the ten nearest other rows, in float64; rows as near as the tenth count, too."""
    shares = []
    for row in picked.tolist():
        cosines = [float(each @ gallery[row].astype(np.float64)) for each in gallery.astype(np.float64)]
        wanted = sorted((cosines[other] for other in range(len(gallery)) if other != row), reverse=True)[:top]
        got = [cosines[other] for other in found_by(gallery[row : row + 1], top + 1)[0][0].tolist() if other != row]
        shares.append(sum(cosine >= wanted[-1] - 1e-7 for cosine in got[:top]) / len(wanted))
    return float(np.mean(shares))


@pytest.fixture
def small_ivf(monkeypatch):
    """Let a small gallery get codes that are quick to learn, or skip the test."""
    pytest.importorskip("faiss", reason="pip install '.[faiss]'")
    monkeypatch.setattr(search_index, "_MOST_BYTES", 2)


def people(count, images, noise=0.15, seed=7):
    rows = np.repeat(units(count, seed=seed), images, axis=0)
    rows = rows + noise * np.random.default_rng(1).standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gallery_of(rows):
    return Gallery(tuple(map(str, range(len(rows)))), rows, "", "")


def test_an_index_has_exact_cosines_and_a_measured_recall(tmp_path, monkeypatch, small_ivf):
    monkeypatch.setattr(search_index, "_LIST_SHARE", 8)
    monkeypatch.setattr(search_index, "LEAST_RECALL", 0.2)  # the first eighth of the lists is enough
    rows = people(120, 10)
    index = open_index(gallery_of(rows), tmp_path)
    picked = search_index._pick_queries(index._index, rows)
    assert index.facts.queries == len(picked)
    assert index.facts.recall == pytest.approx(recall_by_loop(rows, picked, index.search), abs=1e-9)
    assert 0.5 < index.facts.recall < 1
    assert index.facts.lists == index._index.nlist // 8
    found, cosines = index.search(units(3, seed=9), 7)
    for query, ids, scores in zip(units(3, seed=9), found, cosines, strict=True):
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, rows[ids].astype(np.float64) @ query.astype(np.float64), atol=1e-7)
    monkeypatch.setattr(search_index, "_build", None)  # building again would fail
    again = open_index(gallery_of(rows), tmp_path)
    assert again.facts == index.facts
    np.testing.assert_array_equal(again.search(units(3, seed=9), 7)[0], found)
    told = f"recall {index.facts.recall:.3f}: it finds {index.facts.recall:.1%} of the 10 nearest"
    assert told in again.facts.describe()


def test_a_search_visits_more_lists_until_the_recall_is_high_enough(tmp_path, small_ivf, monkeypatch):
    visited = []
    monkeypatch.setattr(
        search_index, "_search", lambda index, rows, queries, k: visited.append(index.nprobe) or (queries, queries)
    )
    recalls = iter([0.5, 0.94, 0.951, 0.3, 0.3, 0.3])
    monkeypatch.setattr(search_index, "_recall", lambda *_: next(recalls))
    assert open_index(gallery_of(people(120, 10)), tmp_path).facts.lists == 32  # of 32
    assert visited == [8, 16, 32]
    facts = open_index(gallery_of(people(130, 10)), tmp_path).facts
    assert (facts.lists, facts.recall, facts.is_good) == (32, 0.3, False)
    assert visited == [8, 16, 32] * 2


def test_of_near_copies_one_is_a_query_and_any_is_a_right_result(tmp_path, small_ivf):
    """Nine tenths of the gallery show one image; the others are people with ten images each."""
    copies = np.repeat(units(1, seed=5), 2700, axis=0)
    rows = np.concatenate([copies, people(30, 10, noise=0.05)])
    index = open_index(gallery_of(rows), tmp_path)
    picked = search_index._pick_queries(index._index, rows)
    close = rows[picked] @ rows[picked].T - np.eye(len(picked))
    assert close.max() < 0.9
    assert (picked < 2700).sum() <= 1
    assert len(picked) > 5
    assert not index.facts.is_good  # too few different rows
    assert index.facts.recall == pytest.approx(recall_by_loop(rows, picked, index.search), abs=1e-9)
    exact = nearest(copies[:40], copies[:1], 11)
    other = np.arange(20, 31)[None], exact[1]
    assert search_index._recall(np.array([0]), exact, other) == 1.0  # other copies are as good
    worse = other[0], np.where(np.arange(11) < 4, exact[1], np.float32(0.5))
    assert search_index._recall(np.array([0]), exact, worse) == 0.4


@pytest.mark.parametrize("copies", [150, 1000])
@pytest.mark.parametrize("noise", [0, 0.02])
def test_a_group_of_near_copies_hides_nobody(tmp_path, small_ivf, copies, noise):
    """By a graph, every result was a copy."""
    crowd = np.repeat(units(1, seed=5), copies, axis=0) + noise * units(copies, seed=6)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    others = people(60, 10)
    for parts in itertools.permutations([crowd.astype(np.float32), others]):
        rows = np.concatenate(parts)
        index = open_index(gallery_of(rows), tmp_path)
        for query in others[::10]:
            assert index.search(query[None], 3)[1][0, 0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "damage",
    ["cut", "facts", "closed folder", "a graph", "of fewer rows", "of another width", "of another metric"],
)
def test_a_kept_ivf_pq_index_that_does_not_fit_is_built_again(tmp_path, small_ivf, damage, caplog, monkeypatch):
    import faiss

    gallery = gallery_of(units(1100))
    wanted = open_index(gallery, tmp_path)
    (kept,) = tmp_path.glob("*.faiss")
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-100])
    elif damage == "facts":
        kept.with_suffix(".faiss.json").write_text('{"kind": "HNSW"}')
    elif damage == "closed folder":
        kept.unlink()
        monkeypatch.setattr(search_index, "temporary_name", lambda path: path.parent / "none" / "x")
    else:
        width, metric = 8 if damage == "of another width" else 16, 1 if damage == "of another metric" else 0
        other = (
            faiss.IndexHNSWFlat(16, 4, 0) if damage == "a graph" else faiss.index_factory(width, "IVF4,PQ2np", metric)
        )
        other.train(units(1100, width))
        other.add(units(1100, width)[: 1050 if damage == "of fewer rows" else 1100])
        faiss.write_index(other, str(kept))
    again = open_index(gallery, tmp_path)
    assert again.facts == wanted.facts
    np.testing.assert_array_equal(again.search(units(2, seed=4), 3)[0], wanted.search(units(2, seed=4), 3)[0])
    expected = {
        "facts": "",
        "cut": "the index is damaged (",
        "closed folder": "the index cannot be written there (",
    }
    assert expected.get(damage, "the index belongs to another gallery and is built again") in caplog.text
    if damage != "closed folder":
        assert isinstance(faiss.read_index(str(kept)), faiss.IndexIVFPQ)
