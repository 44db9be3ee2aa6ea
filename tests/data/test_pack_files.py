"""The files of a pack on their way to the disk; tests/scripts/test_pack_faces.py tests what they contain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sphereface.data import pack_files
from sphereface.data.pack_files import renamed_together


def write(parts: dict[Path, Path], path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    parts[part] = path
    part.write_bytes(content)


def test_every_file_is_on_disk_before_a_rename_and_the_others_names_before_the_last_ones(tmp_path, monkeypatch):
    log: list[object] = []
    replace = Path.replace
    monkeypatch.setattr(pack_files.os, "fsync", lambda descriptor: log.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(pack_files, "flush_folder", lambda folder: log.append(folder))
    monkeypatch.setattr(Path, "replace", lambda part, path: log.append(path.name) or replace(part, path))
    with renamed_together({tmp_path / "text": b"1"}) as parts:
        write(parts, tmp_path / "index", b"22")
        write(parts, tmp_path / "records", b"333")
    assert log == [1, 2, 3, "text", "index", tmp_path, "records", tmp_path]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "text": b"1",
        "index": b"22",
        "records": b"333",
    }


@pytest.mark.parametrize("fails_at", ["block", "second rename"])
def test_nothing_is_left_if_it_fails(tmp_path, monkeypatch, fails_at):
    replace = Path.replace

    def second(part: Path, path: Path) -> Path:
        if path.name == "records":
            raise OSError("full")
        return replace(part, path)

    def pack() -> None:
        with renamed_together({tmp_path / "text": b"1"}) as parts:
            write(parts, tmp_path / "records", b"333")
            if fails_at == "block":
                raise OSError("full")

    monkeypatch.setattr(Path, "replace", second)
    with pytest.raises(OSError, match="full"):
        pack()
    assert list(tmp_path.iterdir()) == []
