"""A mapped file: what it refuses, and that it notices another file in its place."""

from __future__ import annotations

import os
import pickle

import pytest

from sphereface.data.mapped import MappedFile
from sphereface.errors import UserError


def test_what_is_no_file_with_something_in_it(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    kinds = (("none", "nothing there"), ("empty", "0 bytes"), ("fifo", "not a regular file"), (".", "a folder"))
    for name, got in kinds:
        with pytest.raises(UserError, match=f"got {got} · allowed: a file that contains images"):
            MappedFile(tmp_path / name)


@pytest.mark.parametrize("content", [b"ab", b"abcdef"])
def test_a_file_that_was_replaced_before_it_is_read_is_not_believed(tmp_path, content):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    kept = MappedFile(path)
    assert pickle.loads(pickle.dumps(kept)).view()[:] == b"abc"
    path.write_bytes(content)
    with pytest.raises(OSError, match="f has changed since it was opened"):
        kept.view()
