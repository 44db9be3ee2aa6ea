"""Heads: orientation, parts in several files, names of identities; and what does not fit."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.errors import UserError
from sphereface.models.published import import_published, save_published
from sphereface.models.published.files import Contents
from sphereface.models.published.heads import find_head, read_names

from .golden import golden
from .published import arcface_checkpoint, behind

WEIGHT = torch.arange(15.0).reshape(5, 3)  # 5 identities, 3 numbers
PATH = Path("x.pth")


@pytest.fixture(autouse=True)
def no_files_are_left(tmp_path):
    """Some of these files have 50 MB, and pytest keeps those of three runs."""
    yield
    shutil.rmtree(tmp_path)


def found(weight: torch.Tensor, layout: str, dim: int = 3, **more: torch.Tensor) -> tuple[dict, str]:
    return find_head([Contents({"fc.weight": weight, **more}, "torch")], {"fc.weight": layout}, dim, PATH)


@pytest.mark.parametrize(
    ("weight", "layout"), [(WEIGHT, "CD"), (WEIGHT.T, "DC"), (WEIGHT, "either"), (WEIGHT.T, "either")]
)
def test_orientation(weight, layout):
    head, about = found(weight, layout)
    assert torch.equal(head["weight"], WEIGHT)
    assert head["weight"].is_contiguous()
    assert about == "head: 5 identities"


@pytest.mark.parametrize(
    ("weight", "layout", "why"),
    [
        (WEIGHT, "DC", "(5, 3) is no head for embeddings of 3 numbers"),
        (WEIGHT.T, "CD", "(3, 5) is no head for embeddings of 3 numbers"),
        (torch.ones(5, 4), "either", "(5, 4) is no head for embeddings of 3 numbers"),
        (torch.ones(3, 3), "either", "is (3, 3), and either axis could be the identities"),
        (torch.ones(3), "CD", "(3,) is no head for embeddings of 3 numbers"),
        (torch.ones(0, 3), "CD", "(0, 3) is no head for embeddings of 3 numbers"),
        (torch.full((5, 3), float("nan")), "CD", "has values that are not finite real numbers"),
        (torch.ones(5, 3, dtype=torch.int32), "CD", "has values that are not finite real numbers"),
    ],
)
def test_what_is_no_head_is_left_out_with_a_note(weight, layout, why):
    head, about = found(weight, layout)
    assert head == {}
    assert about == f"head left out: fc.weight {why}"


def test_a_bias_that_is_not_finite():
    _, about = found(WEIGHT, "CD", **{"fc.bias": torch.full((5,), float("inf"))})
    assert about == "head left out: its bias has values that are not finite real numbers"


def test_names_with_a_byte_order_mark(tmp_path):
    (tmp_path / "names.txt").write_text("Ada\nGrace\n", encoding="utf-8-sig")
    assert read_names(tmp_path / "names.txt", 2) == ("Ada", "Grace")


def test_biases():
    head, _ = found(WEIGHT, "CD", **{"fc.bias": torch.arange(5.0)})
    assert head["bias"].tolist() == [0, 1, 2, 3, 4]
    head, about = found(WEIGHT, "CD", **{"fc.bias": torch.ones(4)})
    assert (head, about) == ({}, "head left out: its bias is (4,), for 5 identities")


def test_a_square_head_where_the_layout_is_known():
    weight = torch.arange(9.0).reshape(3, 3)
    assert torch.equal(found(weight, "DC")[0]["weight"], weight.T)
    assert torch.equal(found(weight, "CD")[0]["weight"], weight)


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def arcface() -> dict:
    return golden("arcface_r18").state


def test_a_head_in_parts(tmp_path, arcface):
    parts = [torch.full((rows, 512), float(rank)) for rank, rows in enumerate((4, 3, 3))]
    paths = [arcface_checkpoint(tmp_path / f"checkpoint_gpu_{i}.pt", arcface, p) for i, p in enumerate(parts)]
    published = import_published(paths[0], head_files=paths[1:])
    assert torch.equal(published.head["weight"], torch.cat(parts))
    assert published.notes[-1] == "head: 10 identities from 3 files, without their names"


def parts_named(folder: Path, arcface: dict, names: list[str]) -> list[Path]:
    return [arcface_checkpoint(folder / name, arcface, torch.full((1, 512), k + 1.0)) for k, name in enumerate(names)]


def test_parts_are_sorted_by_the_number_in_their_names(tmp_path, arcface):
    """As a shell's ``checkpoint_gpu_[1-9]*.pt`` gives them: 10 before 2."""
    paths = parts_named(tmp_path, arcface, [f"checkpoint_gpu_{rank}.pt" for rank in range(12)])
    globbed = sorted(paths[1:])
    assert globbed[1].name == "checkpoint_gpu_10.pt"
    published = import_published(paths[0], head_files=globbed)
    assert published.head["weight"][:, 0].tolist() == list(range(1, 13))
    assert "head: 12 identities from 12 files, sorted by the number in their names, without" in published.notes[-1]
    globbed.remove(paths[7])
    published = import_published(paths[0], head_files=globbed)
    assert published.head["weight"][:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]
    assert "; none has the number 7, so check that no part is missing" in published.notes[-1]
    last = import_published(paths[11], head_files=paths[10:11])  # ranks begin at 0
    assert last.head["weight"][:, 0].tolist() == [11, 12]
    assert "; none has the number 0, 1, 2, 3, 4, …, so" in last.notes[-1]


@pytest.mark.parametrize("names", [["b.pt", "a.pt"], ["a2_x2.pt", "a1_x1.pt"], ["a2.pt", "b1.pt"]])
def test_parts_whose_names_differ_otherwise_are_taken_as_given(tmp_path, arcface, names):
    first, second = parts_named(tmp_path, arcface, names)
    published = import_published(first, head_files=[second])
    assert published.head["weight"][:, 0].tolist() == [1, 2]
    assert "head: 2 identities from 2 files, without their names" in published.notes[-1]


def test_a_head_in_its_own_file(tmp_path):
    state = golden("opensphere_sfnet20").state
    torch.save(behind("module.", state), tmp_path / "backbone_1.pth")
    weight = torch.arange(7 * 512.0).reshape(512, 7)
    torch.save({"module.w": weight, "module.b": torch.zeros(1)}, tmp_path / "head_1.pth")
    published = import_published(
        tmp_path / "backbone_1.pth", publisher="opensphere", head_files=[tmp_path / "head_1.pth"]
    )
    assert torch.equal(published.head["weight"], weight.T)
    assert published.notes[-1] == "head: 7 identities, without their names"


def test_head_files_that_do_not_fit(tmp_path, arcface):
    torch.save(arcface, tmp_path / "x.pt")
    for content, message in (
        ({"other": torch.ones(2)}, r"x.pt: --head: a file without a head · allowed keys: state_dict_softmax_fc/weight"),
        (
            {"state_dict_softmax_fc": {"weight": torch.ones(3, 511)}},
            r"--head: state_dict_softmax_fc/weight \(3, 511\) is no head for .* · allowed: finite rows of 512 numbers",
        ),
    ):
        torch.save(content, tmp_path / "head.pt")
        with pytest.raises(BadCheckpoint, match=message):
            import_published(tmp_path / "x.pt", head_files=[tmp_path / "head.pt"])


def test_quotes_around_all_names_are_removed(tmp_path):
    """R and spreadsheets write them; around one name of several they belong to it."""
    path = tmp_path / "names.txt"
    path.write_text('"Ada"\n"Émilie ""the"" Marquise"\n"Grace"\n', encoding="utf-8")
    assert read_names(path, 3) == ("Ada", 'Émilie "the" Marquise', "Grace")
    path.write_text('"Ada"\nGrace\n', encoding="utf-8")
    assert read_names(path, 2) == ('"Ada"', "Grace")
    path.write_text('"\nx\n', encoding="utf-8")
    assert read_names(path, 2) == ('"', "x")
    path.write_text('"Ada"\n""\n', encoding="utf-8")
    with pytest.raises(UserError, match="got an empty or repeated name"):
        read_names(path, 2)


def test_names_of_identities(tmp_path, arcface):
    path = arcface_checkpoint(tmp_path / "x.pt", arcface, torch.ones(3, 512))
    (tmp_path / "names.txt").write_text("Ada\nÉmilie du Châtelet\nGrace\n", encoding="utf-8")
    published = import_published(path, names_file=tmp_path / "names.txt")
    assert published.notes[-1] == "head: 3 identities of one process (--head takes the files of the others)"
    save_published(published, tmp_path / "out.pt", origin="a test")
    meta = load_checkpoint(tmp_path / "out.pt")["meta"]
    assert meta["class_names"] == ["Ada", "Émilie du Châtelet", "Grace"]
    save_published(import_published(path), tmp_path / "none.pt", origin="a test")
    assert "class_names" not in load_checkpoint(tmp_path / "none.pt")["meta"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\n", "got 2 lines · allowed: 3, one for each identity"),
        (b"a\nb\nb\n", "got an empty or repeated name"),
        (b"a\n\nb\n", "got an empty or repeated name"),
        (b"\xff\xfe\n\n\n", "cannot be read as UTF-8 text"),
        (None, "cannot be read as UTF-8 text"),
    ],
)
def test_names_that_do_not_fit(tmp_path, arcface, data, message):
    path = arcface_checkpoint(tmp_path / "x.pt", arcface, torch.ones(3, 512))
    if data is not None:
        (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(UserError, match=re.escape(f"--names {tmp_path}/names.txt: {message}")):
        import_published(path, names_file=tmp_path / "names.txt")


def test_names_without_a_head(tmp_path, arcface):
    torch.save(arcface, tmp_path / "x.pt")
    (tmp_path / "names.txt").write_text("a\n")
    with pytest.raises(UserError, match="there is no head to name"):
        import_published(tmp_path / "x.pt", names_file=tmp_path / "names.txt")


def test_a_part_that_occurs_again(tmp_path, arcface):
    one = arcface_checkpoint(tmp_path / "a.pt", arcface, torch.full((4, 512), 1.0))
    other = arcface_checkpoint(tmp_path / "b.pt", arcface, torch.full((4, 512), 2.0))
    copy = tmp_path / "c.pt"
    torch.save({**torch.load(other), "epoch": 3}, copy)  # of the same head, but not the same bytes
    for heads, names in (
        ([other, other], "file 2 of --head holds the same 4 identities as file 1 of --head"),
        ([other, copy], "file 2 of --head holds the same 4 identities as file 1 of --head"),
        ([one], "file 1 of --head holds the same 4 identities as FILE"),
    ):
        with pytest.raises(BadCheckpoint, match=f"--head: {names} · allowed: the part of each process once"):
            import_published(one, head_files=heads)
    assert len(import_published(one, head_files=[other]).head["weight"]) == 8


def test_a_head_under_two_names_of_one_file_counts_once():
    sources = [Contents({"a": WEIGHT, "b": WEIGHT.clone()}, "torch")]
    head, about = find_head(sources, {"a": "CD", "b": "CD"}, 3, PATH)
    assert (head["weight"].tolist(), about) == (WEIGHT.tolist(), "head: 5 identities")
