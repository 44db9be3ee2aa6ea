"""Names of a pack beside the ``.rec`` of another: only those of this one may be believed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sphereface.data import packing, record_names
from sphereface.data.sources import RecordSource, open_path
from sphereface.errors import UserError
from tests.data.recs import insightface_records, write_rec
from tests.images import image, write

CHECK, NAMES = "train.identities.check.json", "train.identities.txt"
OF_MXNET = ("train.rec", "train.idx", "property")


def packed(folder: Path, people: str, shade: int = 0, suffix: str = ".bmp") -> Path:
    """A pack of people with one image each; as BMP files, equal numbers of people give equal sizes."""
    for number, name in enumerate(people):
        write(folder / "faces" / name / f"0{suffix}", image(number + shade, 0))
    packing.pack(open_path(folder / "faces"), folder / "pack" / "train.rec")
    return folder / "pack"


def names_of(folder: Path) -> list[str]:
    return list(RecordSource(folder).class_names)


def copy(source: Path, target: Path, *names: str) -> None:
    for name in names:
        shutil.copy(source / name, target / name)


def test_the_rec_of_another_pack_is_refused_with_the_names_of_this(tmp_path):
    one, other = packed(tmp_path / "1", "abc"), packed(tmp_path / "2", "def", shade=5)
    assert (names_of(one), names_of(other)) == (list("abc"), list("def"))
    assert (one / "train.rec").stat().st_size == (other / "train.rec").stat().st_size
    copy(other, one, *OF_MXNET)
    with pytest.raises(
        UserError,
        match=r"train\.identities\.txt: got names that were packed with another train\.rec than the one beside it · "
        r"allowed: both of one pack · copy both again, or move the names away to use numbers; if they are right, "
        r"delete train\.identities\.check\.json$",
    ):
        RecordSource(one)
    (one / CHECK).unlink()  # as the message says
    assert names_of(one) == list("abc")
    (one / NAMES).unlink()
    assert names_of(one) == ["0", "1", "2"]


@pytest.mark.parametrize("place", [0, -1])
def test_a_long_rec_is_compared_at_both_ends(tmp_path, monkeypatch, place):
    monkeypatch.setattr(record_names, "_ENDS", 64)
    folder = packed(tmp_path, "abc")
    data = bytearray((folder / "train.rec").read_bytes())
    data[place] ^= 1
    (tmp_path / "train.rec").write_bytes(data)
    copy(folder, tmp_path, CHECK)
    with pytest.raises(UserError, match="were packed with another"):
        record_names._check_tie(tmp_path / "train.rec", list("abc"))
    record_names._check_tie(folder / "train.rec", list("abc"))


def test_a_whole_pack_over_another_has_its_own_names(tmp_path):
    one, other = packed(tmp_path / "1", "abc"), packed(tmp_path / "2", "def", shade=5)
    copy(other, one, *OF_MXNET, NAMES)  # a pack of an earlier version, without the check
    assert names_of(one) == list("def")
    copy(other, one, CHECK)
    assert names_of(one) == list("def")


@pytest.mark.parametrize("change", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\xef\xbb\xbf" + text])
def test_names_in_another_form_of_text_are_the_same_names(tmp_path, change):
    one, other = packed(tmp_path / "1", "abc"), packed(tmp_path / "2", "def", shade=5)
    (one / NAMES).write_bytes(change((one / NAMES).read_bytes()))
    assert names_of(one) == list("abc")
    copy(other, one, *OF_MXNET)
    with pytest.raises(UserError, match="were packed with another"):
        RecordSource(one)


def test_own_names_renamed_files_and_packs_of_packs(tmp_path):
    folder = packed(tmp_path, "abc")
    packing.pack(open_path(folder / "train.rec"), tmp_path / "again" / "x.rec")
    packing.pack(open_path(folder / "train.rec"), tmp_path / "new" / "x.rec", packing.Encoding())
    for name in ("again", "new"):
        assert names_of(tmp_path / name / "x.rec") == list("abc")
        assert (tmp_path / name / "x.identities.check.json").exists()
    (folder / NAMES).write_text("Ann\nBo\nCy\n")
    assert names_of(folder) == ["Ann", "Bo", "Cy"]


def test_names_without_a_check_are_believed(tmp_path):
    rec = write_rec(tmp_path / "train.rec", insightface_records([[b"0"], [b"1"]]))
    (tmp_path / NAMES).write_text("Ann\nBo\n")
    assert names_of(rec) == ["Ann", "Bo"]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b"[" * 99_999, b'{"sha256 of the names": 1}'])
def test_a_damaged_check_is_told(tmp_path, caplog, text):
    folder = packed(tmp_path, "abc")
    (folder / CHECK).write_bytes(text)
    assert names_of(folder) == list("abc")
    assert f"{CHECK}: is damaged, so the names are not compared with the .rec" in caplog.text


def test_the_check_of_a_deleted_rec_is_replaced_if_the_names_are_the_same(tmp_path):
    folder = packed(tmp_path, "abc")
    for name in ("train.rec", "train.idx"):
        (folder / name).unlink()
    write(tmp_path / "faces" / "a" / "1.bmp", image(9, 0))
    packing.pack(open_path(tmp_path / "faces"), folder / "train.rec")
    assert len(RecordSource(folder)) == 4
    for name in ("train.rec", "train.idx", "property", NAMES):
        (folder / name).unlink()
    write(tmp_path / "faces" / "d" / "0.bmp", image(8, 0))
    with pytest.raises(UserError, match=rf"{CHECK}: exists already and belongs to other images · move it away"):
        packing.pack(open_path(tmp_path / "faces"), folder / "train.rec")
