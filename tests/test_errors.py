"""How programs end: one line and an exit code for what users and machines cause, and values shortened in messages."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sphereface.errors import (
    ConfigError,
    Stopped,
    UserError,
    first_line,
    listed,
    printable_lines,
    refusing,
    reports_user_errors,
    shown,
    shown_key,
)

ROOT = Path(__file__).parents[1]


def test_an_error_of_the_system_is_one_line_of_the_user(tmp_path):
    with pytest.raises(UserError) as caught, refusing("a.npz: cannot be read"):
        (tmp_path / "none").read_bytes()
    assert str(caught.value) == "a.npz: cannot be read (No such file or directory)"
    with pytest.raises(UserError) as caught, refusing("x: cannot be written", "give another name"):
        tmp_path.write_bytes(b"")
    assert str(caught.value) == "x: cannot be written (Is a directory) · give another name"
    with pytest.raises(ValueError, match="another kind"), refusing("x"):
        raise ValueError("another kind")
    with refusing("x: cannot be read"):
        assert not list(tmp_path.iterdir())


def ends(error, capsys):
    @reports_user_errors
    def main(argv=None):
        raise error

    code = main()
    return code, capsys.readouterr().err


def test_a_long_or_nested_value_is_shortened():
    endless: list[object] = []
    endless.append(endless)
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"a": deep}
    wide = [["x" * 1000] * 1000] * 1000
    for value in (endless, deep, wide, "x" * 10**6, 10**4000, 10**5000, {"a" * 1000: "b" * 1000}, np.zeros((500, 500))):
        assert len(shown(value)) <= 201
        assert "\n" not in shown(value)
    assert shown([1, "a", {"b": 0.5}]) == "[1, 'a', {'b': 0.5}]"


def test_a_key_is_quoted_where_it_would_break_the_line():
    assert shown_key("train.lr") == "train.lr"
    assert shown_key("a\nb") == r"'a\nb'"
    assert shown_key("") == "''"
    assert shown_key(3) == "3"
    assert len(shown_key("a" * 1000)) <= 201


def test_lists_name_ten_and_count_the_rest():
    assert listed(range(10)).count("\n") == 10
    assert listed(range(12)).endswith("\n  - 9\n  … and 2 more")
    assert str(ConfigError("a.yaml", ["p"] * 12)).endswith("\n  … and 2 more")


def cv_error():
    with pytest.raises(cv2.error) as raised:
        cv2.resize(np.zeros((1, 1), np.uint8), (2**30, 2**30))
    return raised.value


def torch_error(*sizes):
    with pytest.raises(RuntimeError) as raised:
        torch.empty(*sizes)
    return raised.value


def numpy_error():
    with pytest.raises(MemoryError) as raised:
        np.empty((10**6, 10**6, 10**3))
    return raised.value


@pytest.mark.parametrize(
    "make",
    [numpy_error, MemoryError, lambda: torch_error(10**15), lambda: torch_error(10**12, 10**12), cv_error,
     lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
     lambda: RuntimeError("can't start new thread"),  # as threading says it
     lambda: OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))],  # of a process that is not started
)  # fmt: skip
def test_out_of_memory_is_one_line(make, capsys):
    code, err = ends(make(), capsys)
    assert code == 2
    assert err.startswith("error: out of memory (")
    assert err.endswith("a machine with more memory\n")
    assert err.count("\n") == 1


def of_a_lost_worker():
    with pytest.raises(RuntimeError) as raised:
        list(torch.utils.data.DataLoader(range(9), num_workers=1, worker_init_fn=lambda _: os.kill(os.getpid(), 9)))
    return raised.value


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
def test_a_killed_worker_is_one_line_with_what_to_do(capsys):
    """As the system kills it where memory runs out, in training and in check."""
    code, err = ends(of_a_lost_worker(), capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: a worker process was killed, perhaps because memory ran out (DataLoader worker (pid")
    assert "fewer workers (data.workers, --workers) or more memory, for training with --resume auto" in err


def test_what_was_half_made_when_memory_ran_out_says_nothing(capsys, monkeypatch):
    """As torch's iterator over workers does in its __del__, where a worker could not be started."""

    class Loader:
        def __init__(self):
            raise MemoryError

        def __del__(self):
            self.never_set.close()

    @reports_user_errors
    def main(argv=None):
        Loader()

    hook = sys.__unraisablehook__  # pytest has one of its own
    monkeypatch.setattr(sys, "unraisablehook", hook)
    assert main() == 2
    assert sys.unraisablehook is hook
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EIO])
def test_a_file_that_the_system_refuses_is_one_line_with_its_path(number, capsys):
    code, err = ends(OSError(number, os.strerror(number), "runs/a\nb"), capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(rf"error: 'runs/a\nb': {os.strerror(number)} · ")
    assert ends(OSError(number, os.strerror(number)), capsys)[1].startswith(f"error: {os.strerror(number)} · ")


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("x"), OSError("of a library"), RecursionError()])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    @reports_user_errors
    def main(argv=None):
        raise error

    with pytest.raises(type(error)):
        main()


PROGRAM = """
import sys
from sphereface.errors import reports_user_errors
@reports_user_errors
def main(argv=None):
    for number in range(20000):
        print(number)
    return 0
sys.exit(main())
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_ends_it_quietly(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=600) == 141


def test_a_reader_that_leaves_before_the_last_line_ends_it_quietly():
    """What waits in Python's buffer is written at the exit, where an error would be a traceback and exit code 120."""
    program = PROGRAM.replace("range(20000)", "[sys.stdin.readline()]")
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert process.communicate(b"go\n")[1] == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_the_output_is_one_line(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, env=environment,
            check=False, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_a_pipe_that_broke_elsewhere_is_said(capsys):
    code, err = ends(BrokenPipeError(errno.EPIPE, "Broken pipe"), capsys)
    assert code == 2
    assert err.startswith("error: Broken pipe")


def test_a_user_error_is_printed(capsys):
    assert ends(UserError("train.lr: got 0"), capsys) == (2, "error: train.lr: got 0\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("code", [0, 2])
def test_a_closed_stream_is_no_error_and_gets_into_no_file(tmp_path, closed, code):
    program = f"""
import os, sys
from pathlib import Path
from sphereface.errors import UserError, reports_user_errors

@reports_user_errors
def main(argv=None):
    with Path(sys.argv[1]).open("wb") as file:
        print("figures")
        sys.stderr.write("note")
        for number in (1, 2):  # as libraries in C write
            os.write(number, b"from a library")
        file.write(b"whole")
    if {code}:
        raise UserError("x: got y")
    return 0

sys.exit(main())
"""
    file = tmp_path / "file"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program, str(file)], check=False
    )
    assert done.returncode == code
    assert file.read_bytes() == b"whole"


def test_the_first_line_of_an_error_can_be_printed():
    assert first_line(ValueError("a\x1b[2Jb\nsecond")) == "a\\x1b[2Jb"
    assert first_line(ValueError("\udcff" + "x" * 500)) == "\\udcff" + "x" * 154
    assert first_line(KeyError()) == "KeyError"


def test_what_a_terminal_would_obey_is_escaped(capsys):
    name = "a\x1b[31m\x9b2J\x07\udcff"
    safe = r"a\x1b[31m\x9b2J\x07\udcff"

    @reports_user_errors
    def fails(argv=None):
        raise UserError(f"{name}: x\n  - {name}")

    @reports_user_errors
    def stops(argv=None):
        raise Stopped(f"{name}: saved", 3)

    assert (fails(), stops()) == (2, 3)
    assert capsys.readouterr().err == f"error: {safe}: x\n  - {safe}\n{safe}: saved\n"
    assert listed([f"{name}\n: x"]) == f"\n  - {safe}\\n: x"
    assert printable_lines(f"ü 安 😀\n{name}") == f"ü 安 😀\n{safe}"
