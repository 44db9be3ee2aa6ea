"""The digest of a set: what it covers, and what it leaves out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sphereface.evaluation import load_set
from sphereface.evaluation.set_digest import digest_of
from sphereface.places import parse_places

from ..images import make_pairs


@pytest.fixture
def folder(tmp_path) -> Path:
    make_pairs(tmp_path / "pairs", size=(32, 32))
    return tmp_path / "pairs"


def digest(text: str) -> str:
    return digest_of(load_set("x", parse_places(text)))


def test_copies_of_a_set_have_one_digest(folder, tmp_path):
    first = digest(str(folder))
    assert len(first) == 32
    shutil.copytree(folder, tmp_path / "copy")
    assert digest(str(tmp_path / "copy")) == first == digest(str(folder))


def test_sets_of_plugins_may_hold_anything(folder):
    """The bytes of an array of objects are addresses, which differ in each process."""
    one, other = (load_set("x", parse_places(str(folder))) for _ in range(2))
    more = {"names": np.array(["a", None, "b" * 3], dtype=object), "open": {1, 2}, "nested": {"k": [1.5, ("x",)]}}
    before = digest_of(one)
    for each, text in ((one, "abc"), (other, "".join(["a", "bc"]))):
        vars(each).update(more, names=np.array([text, None], dtype=object))
    assert digest_of(one) == digest_of(other) != before


def test_every_change_of_a_set_changes_its_digest(folder):
    seen = {digest(str(folder)), digest(f"quality:{folder}")}
    assert len(seen) == 2
    text = (folder / "pairs.txt").read_text()
    lines = text.splitlines(keepends=True)
    (folder / "pairs.txt").write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))  # only the order
    seen.add(digest(str(folder)))
    (folder / "pairs.txt").write_text(text)
    one, other = sorted(folder.rglob("*.png"))[:2]
    one.write_bytes(other.read_bytes())
    seen.add(digest(str(folder)))
    one.write_bytes(b"")
    seen.add(digest(str(folder)))
    assert len(seen) == 5
