"""Checkpoints whose words do not fit their weights: refused before anything is built."""

from __future__ import annotations

import pytest

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.errors import UserError
from sphereface.models import load_model

from ..evaluation.checkpoints import write_checkpoint


def altered(path, change):
    state = {key: value for key, value in load_checkpoint(path).items() if key not in ("format", "id")}
    change(state)
    save_checkpoint(path, state, {})
    return path


@pytest.mark.parametrize(
    "claim", [{"embedding_dim": 10**12}, {"input_size": [10**7, 10**7]}, {"widths": [1, 1, 1, 10**9]}]
)
def test_a_claimed_size_is_compared_and_not_allocated(tmp_path, claim):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s["meta"]["config"]["model"].update(claim))
    with pytest.raises(UserError, match="another architecture"):
        load_model(path)


@pytest.mark.parametrize("size", [[float("inf"), 3], [-3, 0], [10**6, 10**6], [33, 24], 7, ["a", "b"]])
def test_a_seen_size_that_cannot_be_is_refused(tmp_path, size):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s.update(seen_size=size))
    with pytest.raises(UserError, match="a.pt: seen_size: got"):
        load_model(path)


@pytest.mark.parametrize("name", [["spherenet"], {"a": 1}, None, "nothing"])
def test_a_name_that_is_none_is_one_line(tmp_path, name):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s["meta"]["config"]["model"].update(name=name))
    with pytest.raises(UserError, match="model.name: got"):
        load_model(path)
