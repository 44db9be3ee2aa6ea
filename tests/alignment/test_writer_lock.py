"""Two processes that align into one folder, and what a killed one leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sphereface.alignment.align import align_folder
from sphereface.alignment.crop_folder import LOCK_NAME
from sphereface.alignment.landmarks import read_landmarks
from sphereface.errors import UserError
from tests.alignment.faces import write_photographs

HOLD = """
import sys
from pathlib import Path
from sphereface.alignment.crop_folder import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``out`` until its stdin gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def align(tmp_path):
    landmarks = read_landmarks(write_photographs(tmp_path / "in", ["a/1.png", "a/2.png"]))
    return align_folder(tmp_path / "in", tmp_path / "out", landmarks)


def test_the_second_is_refused_and_writes_nothing(tmp_path, holder):
    with pytest.raises(UserError, match=r"out: another align writes into it · wait for it, or give another folder"):
        align(tmp_path)
    assert names(tmp_path / "out") == [LOCK_NAME]
    holder.communicate("\n")
    assert names(tmp_path / "out") == []
    assert align(tmp_path).aligned == 2


def test_a_killed_one_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.communicate()
    assert names(tmp_path / "out") == [LOCK_NAME]
    assert align(tmp_path).aligned == 2
    assert names(tmp_path / "out") == ["a", "align-report.json"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_stranger_s_lock_is_refused(tmp_path, kind):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / LOCK_NAME
    if kind == "link":
        (tmp_path / "precious").write_text("x")
        path.symlink_to(tmp_path / "precious")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(UserError, match=r"\.align\.lock: not a regular file"):
        align(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    landmarks = read_landmarks(write_photographs(tmp_path / "in", ["1.png"]))
    with pytest.raises(UserError, match=r"out/\.align\.lock: cannot be written \(Not a directory\)"):
        align_folder(tmp_path / "in", tmp_path / "file/out", landmarks)
