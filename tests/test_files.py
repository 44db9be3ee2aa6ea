"""Files are whole or not there, also where several writers meet and where writers were killed."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib

import pytest

from sphereface import files
from sphereface.files import content_stamp, in_words, lock_file, write_whole

WRITER = """
import sys
from pathlib import Path
from sphereface.files import write_whole
for _ in range(150):
    parts = [sys.argv[2].encode() * 1000] * 20
    write_whole(Path(sys.argv[1]), lambda file: [file.write(part) for part in parts], durable=False)
"""


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def aged(path, seconds):
    path.write_bytes(b"half")
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (40_000, "39.1 KiB"), (2**20 - 1, "1024.0 KiB"),
        (2**20, "1.0 MiB"), (3 * 2**30, "3,072.0 MiB"),
    ],
)  # fmt: skip
def test_a_number_of_bytes_in_words(number, words):
    assert in_words(number) == words


def test_bytes_texts_and_functions_are_written(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for data in (b"\xc3\xbc", "ü", lambda file: file.write("ü".encode())):
        write_whole(path, data)
        assert path.read_text(encoding="utf-8") == "ü"
    assert listed(path.parent) == ["a.txt"]


def test_a_failed_write_leaves_the_earlier_file_alone(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"old")

    def full(file):
        file.write(b"half")
        (name,) = (name for name in listed(tmp_path) if name != "a")
        assert name.startswith(".a.")
        assert name.endswith(".part")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, full)
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write_whole(tmp_path / "a", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_writer_that_overtakes_another_damages_nothing(tmp_path):
    """The first writer is half through when the second one writes and renames all of its file."""
    path = tmp_path / "a"

    def overtaken(file):
        file.write(b"first ")
        file.flush()
        write_whole(path, b"second")
        file.write(b"writer")
        file.flush()
        assert path.read_bytes() == b"second"

    write_whole(path, overtaken)
    assert path.read_bytes() == b"first writer"
    assert listed(tmp_path) == ["a"]


def test_threads_that_write_one_file(tmp_path):
    path, problems = tmp_path / "a", []
    wanted = {bytes([letter]) * 20_000 for letter in b"abcd"}
    write_whole(path, b"a" * 20_000)

    def write(content):
        try:
            for _ in range(100):
                write_whole(path, lambda file: [file.write(content[:1000]) for _ in range(20)], durable=False)
                if path.read_bytes() not in wanted:
                    problems.append("a mixed file")
        except OSError as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=write, args=(content,)) for content in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert listed(tmp_path) == ["a"]


def test_processes_that_write_one_file(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"a" * 20_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter], stderr=subprocess.PIPE) for letter in "ab"
    ]
    while any(writer.poll() is None for writer in writers):
        assert path.read_bytes() in (b"a" * 20_000, b"b" * 20_000)
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert listed(tmp_path) == ["a"]


def test_what_killed_writers_left_is_removed_after_an_hour(tmp_path):
    old = [".a.0123456789ab.part", ".b.c.ba9876543210.part", ".a.part"]
    kept = [
        ".b.part",  # of an older version, and of another file: nobody knows whether it is still written
        ".a.names.txt.part",  # not a name of this module: pack_faces writes one for hours
        ".a.0123456789ab.part.txt",
        "a.0123456789ab.part",
    ]
    for name in (*old, *kept):
        aged(tmp_path / name, 3700)
    aged(tmp_path / ".a.aaaaaaaaaaaa.part", 3500)  # of a writer that may be at work
    write_whole(tmp_path / "a", b"x")
    assert listed(tmp_path) == sorted(["a", ".a.aaaaaaaaaaaa.part", *kept])


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    calls, scandir = [], os.scandir
    monkeypatch.setattr(files.os, "scandir", lambda folder: calls.append(folder) or scandir(folder))
    for name in "abcabc":
        write_whole(tmp_path / name, b"x")
    assert calls == [str(tmp_path)]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"old")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom sphereface.files import write_whole\n"
        "def half(file):\n    file.write(b'half')\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_whole(Path(sys.argv[1]), half)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (part,) = (name for name in listed(tmp_path) if name != "a")
    aged(tmp_path / part, 4000)
    files._cleaned.discard(str(tmp_path))
    write_whole(path, b"new")
    assert listed(tmp_path) == ["a"]


@pytest.mark.parametrize("letter", ["x", "ü", "王"])
def test_a_name_as_long_as_a_file_system_allows(tmp_path, letter):
    name = letter * (255 // len(letter.encode()))
    write_whole(tmp_path / name, b"x")
    assert listed(tmp_path) == [name]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a device"])
def test_what_is_no_file_is_not_replaced(tmp_path, kind):
    path = tmp_path / "there"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    before = path.lstat()
    with pytest.raises(OSError, match="a folder, a device or a pipe has this name"):
        write_whole(path, b"new")
    assert path.lstat() == before
    assert listed(tmp_path) == ["there"]


def test_a_link_that_leads_nowhere_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").read_bytes() == b"new"


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_lock_that_its_holder_has_just_let_go_is_taken_anew(tmp_path, monkeypatch, how):
    """Otherwise two processes would each hold a lock of one name."""
    fcntl = pytest.importorskip("fcntl")
    path, taken = tmp_path / ".lock", []
    lockf = fcntl.lockf

    def late(file, flags):
        taken.append(file)
        if len(taken) == 1:  # between the opening of the file and its lock
            path.unlink() if how == "removed" else path.rename(tmp_path / "moved")
        lockf(file, flags)

    monkeypatch.setattr(fcntl, "lockf", late)
    with lock_file(path) as lock:
        assert os.path.samestat(os.fstat(lock.fileno()), path.stat())
        assert len(taken) == 2
        assert taken[0].closed


def test_the_stamp_of_earlier_versions_still_holds(tmp_path):
    """Crops and galleries keep it; the bytes of the middle decide, unless they are of one colour."""
    data = bytes(k * k % 251 for k in range(5000))
    (tmp_path / "a").write_bytes(data)
    os.utime(tmp_path / "a", (1e9, 1e9))
    assert content_stamp(tmp_path / "a") == (5000, 10**18 ^ zlib.crc32(data[2500:2756]) << 29)


@pytest.mark.parametrize("colour", [b"\xff", b"\x10\x20\x30", b"\x10\x20\x30\xff"])
@pytest.mark.parametrize("at", [0, 30_000, 90_000, 170_000])
def test_the_stamp_tells_images_apart_whose_middle_is_plain(tmp_path, colour, at):
    plain = bytearray((colour * 200_000)[:200_000])
    stamps = set()
    for value in range(3):  # another face somewhere, of equal size and time
        plain[at : at + 3000] = bytes([value]) * 3000
        (tmp_path / "a").write_bytes(plain)
        os.utime(tmp_path / "a", (1e9, 1e9))
        stamps.add(content_stamp(tmp_path / "a"))
    assert len(stamps) == 3
