"""Galleries in folders: what is embedded, what is kept, several processes, kills, and hostile folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface import faces, gallery_part, gallery_update
from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import CropSpec, Finder
from sphereface.alignment.detector import Faces
from sphereface.alignment.similarity import align, template
from sphereface.api import FaceEmbedder
from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.cli import main
from sphereface.commands import search as search_command
from sphereface.data.images import decode
from sphereface.errors import UserError
from sphereface.evaluation import gallery_folder, gallery_merge
from sphereface.evaluation.calibration import Calibration, Threshold, calibration_path, write_calibration
from sphereface.evaluation.embedding_table import EmbeddingTable
from sphereface.evaluation.gallery_folder import read_gallery_folder
from sphereface.evaluation.gallery_shard import GalleryKind, ShardContent, read_shard, text, texts, write_shard
from sphereface.evaluation.images import Images
from sphereface.evaluation.table_file import read_table_with_sha256
from sphereface.files import content_number, sha256_of
from sphereface.gallery import how_crops_were_made, load_gallery
from sphereface.image_list import list_named
from sphereface.search import nearest
from sphereface.training.distributed import World

from .alignment.faces import ByColour, encode
from .evaluation.checkpoints import write_checkpoint
from .evaluation.crops import noise, write_image

ROOT = Path(__file__).parents[1]
SETTINGS = "aligned crops, with mirror images"


@pytest.fixture
def work(tmp_path):
    """A checkpoint, and 150 crops of 15 people: three shards."""
    write_checkpoint(tmp_path / "best.pt")
    for number in range(150):
        write_image(tmp_path / "in" / f"p{number // 10:02d}" / f"{number % 10}.png", noise(number))
    return tmp_path


@pytest.fixture
def counted(monkeypatch):
    """How many crops went through the network."""
    count = [0]
    embed_batch = gallery_update.FaceEmbedder.embed_crops

    def counting(self, crops, **options):
        count[0] += len(crops)
        return embed_batch(self, crops, **options)

    monkeypatch.setattr(gallery_update.FaceEmbedder, "embed_crops", counting)
    return count


def embed(work, *more, out="album", images="in"):
    options = ["--ckpt", str(work / "best.pt"), "--aligned", "--device", "cpu", *more]
    return main(["embed", str(work / images), str(work / out), *options])


def opened(work, out="album"):
    return load_gallery(work / out, checkpoint_sha256=sha256_of(work / "best.pt"), settings=SETTINGS)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_holds_what_the_file_holds(work, capsys):
    assert embed(work) == 0
    assert embed(work, out="album.npz") == 0
    out, table = capsys.readouterr().out.splitlines()
    both = "150 embeddings of 16 numbers, and as many of mirror images"
    assert out == f"{work / 'album'}: {both} · 150 images embedded, 0 unchanged, 0 gone"
    assert table == f"{work / 'album.npz'}: {both}"
    folder, file = opened(work), opened(work, "album.npz")
    assert len(read_gallery_folder(work / "album").shards) == 3
    assert list(folder.paths) == list(file.paths) == [f"{work}/in/p{n // 10:02d}/{n % 10}.png" for n in range(150)]
    np.testing.assert_allclose(folder.embeddings[0:150], file.embeddings, atol=1e-6)
    np.testing.assert_array_equal(folder.embeddings[60:70], folder.embeddings[0:150][60:70])
    np.testing.assert_array_equal(
        folder.embeddings.take(np.array([149, 3, 64])), folder.embeddings[0:150][[149, 3, 64]]
    )
    rows, cosines = nearest(folder.embeddings, file.embeddings[40:41], 5)
    wanted = nearest(file.embeddings, file.embeddings[40:41], 5)
    np.testing.assert_array_equal(rows, wanted[0])
    np.testing.assert_allclose(cosines, wanted[1], atol=1e-6)
    assert (folder.person(40), folder.root) == ("p04", str(work / "in"))
    with np.load(work / "album" / read_gallery_folder(work / "album").shards[0].file) as shard:
        assert shard["names"][:2].tolist() == [b"p00/0.png", b"p00/1.png"]
        lengths = np.linalg.norm(np.hstack([shard["embeddings"], shard["mirror"]]), axis=1)
        np.testing.assert_allclose(shard["quality"], lengths, rtol=1e-6)


def test_names_in_the_order_of_the_rows_open_each_shard_once(work, monkeypatch):
    assert embed(work) == 0
    opened_shards = []
    map_names = gallery_folder.map_names
    monkeypatch.setattr(
        gallery_folder, "map_names", lambda path, shard: opened_shards.append(path) or map_names(path, shard)
    )
    paths = opened(work).paths
    monkeypatch.setattr(gallery_folder, "_MAPPED", 1)
    for kept, times in ((paths, 3), (opened(work).paths, 6)):  # the second keeps one shard
        opened_shards.clear()
        for _ in range(2):
            assert [kept[row] for row in range(150)] == [f"{work}/in/p{n // 10:02d}/{n % 10}.png" for n in range(150)]
        assert len(opened_shards) == times


def test_an_evaluation_reads_the_folder_as_it_reads_the_file(work):
    assert embed(work) == 0
    assert embed(work, out="album.npz") == 0
    images = Images(work / "in", ("p03/1.png", "p14/9.png", "p00/0.png"))
    folder, file = (EmbeddingTable(work / out).embeddings(images, "own") for out in ("album", "album.npz"))
    for key in ("image", "mirror"):
        np.testing.assert_allclose(getattr(folder, key), getattr(file, key), rtol=1e-4, atol=1e-6)
    assert folder.quality is file.quality is None  # the length of both images is no other measure


def test_only_new_and_changed_images_are_embedded(work, counted, capsys):
    assert embed(work) == 0
    assert counted == [150]
    before = files_of(work / "album")
    assert embed(work) == 0
    assert counted == [150]
    assert files_of(work / "album") == before
    write_image(work / "in" / "p99" / "new.png", noise(990))
    write_image(work / "in" / "p03" / "4.png", noise(991))
    os.utime(work / "in" / "p03" / "4.png", ns=(1, 1))
    (work / "in" / "p14" / "0.png").unlink()
    capsys.readouterr()
    assert embed(work) == 0
    assert counted == [152]
    assert capsys.readouterr().out.endswith(" · 2 images embedded (1 changed), 148 unchanged, 1 gone\n")
    assert embed(work, out="again") == 0
    updated, fresh = opened(work), opened(work, "again")
    assert len(updated.paths) == 150
    assert sorted(updated.paths) == sorted(fresh.paths)
    own = dict(zip(updated.paths, updated.embeddings[0:150], strict=True))
    for path, row in zip(fresh.paths, fresh.embeddings[0:150], strict=True):
        np.testing.assert_allclose(own[path], row, atol=1e-5)
    listed = {shard.file for shard in read_gallery_folder(work / "album").shards}
    assert {path.name for path in (work / "album").iterdir()} == listed | {"gallery.json"}


def test_people_who_exchanged_their_folders_are_embedded_again(work, counted):
    """Bitmaps of one size, unpacked with one time."""
    people = [work / "in" / name for name in ("p03", "p04")]
    for person in people:
        for file in person.iterdir():
            cv2.imwrite(str(file.with_suffix(".bmp")), cv2.imread(str(file)))
            file.unlink()
            os.utime(file.with_suffix(".bmp"), ns=(10**18, 10**18))
    assert embed(work) == 0
    before = dict(zip(opened(work).paths, opened(work).embeddings[:], strict=True))
    people[0].rename(work / "aside")
    people[1].rename(people[0])
    (work / "aside").rename(people[1])
    counted[0] = 0
    assert embed(work) == 0
    assert counted == [20]
    after = dict(zip(opened(work).paths, opened(work).embeddings[:], strict=True))
    for path, row in before.items():
        other = path.replace("p03", "p0x").replace("p04", "p03").replace("p0x", "p04")
        np.testing.assert_allclose(after[other], row, atol=1e-5)


def test_an_image_that_cannot_be_used_is_tried_once_and_listed_each_time(work, counted, capsys):
    (work / "in" / "p00" / "broken.png").write_bytes(b"no image")
    for tried in (151, 0):
        assert embed(work) == 0
        out, errors = capsys.readouterr()
        assert out.endswith(f" · {tried} images embedded, {151 - tried} unchanged, 0 gone\n")
        assert "left out 1 of 151 images:\n  - " in errors
        assert "p00/broken.png: not an image" in errors
    assert counted == [150]


def test_an_image_is_tried_again_if_the_fault_may_have_passed(work, counted, monkeypatch, capsys):
    """A HEIC that only lacked its extra, a file that could not be read for a moment, and too little memory."""
    pillow_heif = pytest.importorskip("pillow_heif")
    folder = work / "in" / "p99"
    for name, seed in (("disk", 1), ("memory", 2)):
        write_image(folder / f"{name}.png", noise(seed))
    pixels = noise(3)
    written = pillow_heif.from_bytes("RGB", pixels.shape[1::-1], pixels.tobytes())
    written.save(folder / "phone.jpg", format="HEIF", quality=-1, chroma=444)

    def failing(image):
        if str(image).endswith("disk.png"):
            raise OSError(5, "Input/output error")
        if str(image).endswith("memory.png"):
            raise cv2.error("OpenCV(4) alloc.cpp: error: (-4:Insufficient memory) Failed to allocate 60000000 bytes")
        return before(image)

    before = faces._pixels
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pillow_heif", None)
        patched.setattr(faces, "_pixels", failing)
        for _ in range(2):
            assert embed(work) == 0
            errors = capsys.readouterr().err
            assert "left out 3 of 153 images:\n" in errors
            assert "phone.jpg: HEIC: pillow_heif is not installed · pip install '.[heic]'" in errors
            assert "disk.png: cannot be read (Input/output error)" in errors
            assert "memory.png: OpenCV(4) alloc.cpp: error: (-4:Insufficient memory)" in errors
    assert counted == [150]
    for tried, embedded in ((3, 153), (0, 153)):
        assert embed(work) == 0
        out, errors = capsys.readouterr()
        assert out.endswith(f" · {tried} images embedded, {153 - tried} unchanged, 0 gone\n")
        assert "left out" not in errors
        assert counted == [embedded]
    assert len(opened(work).paths) == 153


class Killed(BaseException):
    """As a kill: nothing of the program handles it."""


def test_a_killed_run_resumes_with_its_shards_and_gives_the_same_gallery(work, counted, monkeypatch):
    assert embed(work, out="whole") == 0
    write_shard, written = gallery_update.write_shard, []

    def killed(*arguments):
        if len(written) == 2:
            raise Killed
        written.append(write_shard(*arguments))
        return written[-1]

    monkeypatch.setattr(gallery_update, "write_shard", killed)
    with pytest.raises(Killed):
        embed(work)
    assert len(list((work / "album").glob("*.npz"))) == 2
    with pytest.raises(UserError, match=r"album: not a gallery \(gallery.json is missing\) · make or finish it: "):
        opened(work)
    monkeypatch.setattr(gallery_update, "write_shard", write_shard)
    counted[0] = 0
    assert embed(work) == 0
    assert counted == [150 - 128]
    assert files_of(work / "album") == files_of(work / "whole")


def test_float16_takes_half_and_moves_cosines_little(work):
    assert embed(work) == 0
    assert embed(work, "--dtype", "float16", out="half") == 0
    assert embed(work, "--dtype", "float16", out="half.npz") == 0
    for half in (opened(work, "half"), opened(work, "half.npz")):
        np.testing.assert_allclose(half.embeddings[0:150], opened(work).embeddings[0:150], atol=1e-3)
    with np.load(work / "half.npz") as table:
        assert table["embeddings"].dtype == np.float16


@pytest.mark.parametrize(("scale", "code"), [(1, 0), (1e-3, 0), (1e-6, 2), (1e-9, 2)])
def test_float16_that_loses_small_embeddings_is_refused(work, monkeypatch, capsys, scale, code):
    embed_crops = FaceEmbedder.embed_crops
    monkeypatch.setattr(
        FaceEmbedder, "embed_crops", lambda *given, **options: embed_crops(*given, **options) * np.float32(scale)
    )
    for out in ("half", "half.npz"):
        assert embed(work, "--dtype", "float16", out=out) == code
        message = "--dtype: got float16, which cannot hold embeddings of this network · allowed: float32"
        assert (message in capsys.readouterr().err) == bool(code)
    assert embed(work, out="whole.npz") == 0


# ---------------------------------------------------------------- several processes


def together(work, out, count=2, ckpt="best.pt", **more):
    """Start processes as torchrun does; return them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), **more,
    }  # fmt: skip
    command = [sys.executable, "-m", "sphereface", "embed", str(work / "in"), str(work / out), "--aligned"]
    command += ["--device", "cpu", "--ckpt"]
    return [
        subprocess.Popen(
            [*command, str(work / ckpt.format(rank=rank))], cwd=ROOT,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip


def test_two_processes_give_the_gallery_of_one_bit_by_bit(work):
    (one,) = together(work, "one", 1)
    assert one.wait(timeout=600) == 0, one.stderr.read()
    first, second = together(work, "two")
    out, errors = first.communicate(timeout=600)
    assert first.returncode == second.wait(timeout=600) == 0, errors
    assert out.endswith("150 images embedded, 0 unchanged, 0 gone\n")
    assert second.stdout.read() == ""
    assert files_of(work / "two") == files_of(work / "one")


def test_the_hashes_are_of_the_bytes_that_were_embedded(work, monkeypatch, capsys):
    """An image may be replaced or deleted while the others are embedded."""
    files = sorted((work / "in").rglob("*.png"))
    data, bad = [file.read_bytes() for file in files], work / "in" / "p00" / "a\tb.png"
    bad.write_text("x")
    embed_batch = FaceEmbedder.embed_crops

    def later(self, crops, **options):
        files[0].write_bytes(data[1])
        files[1].unlink(missing_ok=True)
        files[-1].unlink(missing_ok=True)  # of the third batch, which is not read yet
        return embed_batch(self, crops, **options)

    monkeypatch.setattr(FaceEmbedder, "embed_crops", later)
    assert embed(work, out="a.npz") == 0
    table = read_table_with_sha256(work / "a.npz")[0]
    assert table["names"] == [str(file.relative_to(work / "in")) for file in files[:-1]]
    assert table["image_hash"].tolist() == [content_number(each) for each in data[:-1]]
    errors = capsys.readouterr().err
    assert f"left out 2 of 151 images:\n  - {work}/in/p00/a\\tb.png: not an image, or damaged" in errors
    assert f"  - {files[-1]}: cannot be read (No such file or directory)\n" in errors


def of_two(work, monkeypatch, **other):
    """Run the first of two processes, of which the second has another value of these."""

    class Two(World):
        def broadcast(self, value):
            assert Path(value).exists()
            return value

        def all_gather(self, value):
            if isinstance(value, bool):
                return [value, other.get("finds", True)]
            kind, *images = value
            assert kind.root == ""  # machines may have their copies in different places
            images = [other.get(key, image) for key, image in zip(("count", "digest"), images, strict=True)]
            return [value, (replace(kind, **{key: other[key] for key in other.keys() & vars(kind).keys()}), *images)]

    class OneDone(Exception):
        pass

    def planned(*_):
        raise OneDone

    monkeypatch.setattr(gallery_update, "make_plan", planned)
    embedder, listed = FaceEmbedder(work / "best.pt", align=False, device="cpu"), list_named(work / "in")
    kind = gallery_update.kind_of(embedder, listed.root, alignment="", dtype="float32")
    try:
        gallery_update.update_gallery(work / "album", listed, embedder, kind, Two(size=2))
    except UserError as error:
        assert not (work / "album").exists()
        return str(error)
    except OneDone:
        assert not list((work / "album").glob(".*"))
        return ""
    raise AssertionError


def test_processes_with_other_networks_options_or_images_are_refused(work, monkeypatch):
    own = sha256_of(work / "best.pt")
    assert of_two(work, monkeypatch, checkpoint_sha256="ab" * 32) == (
        f"{work}/album: got checkpoint_sha256 {own} in process 0, {'ab' * 32} in process 1 · allowed: one checkpoint "
        "and the same options for all processes · give all of them the same, and run the command again"
    )
    assert "got settings with mirror images in process 0, x in process 1" in of_two(
        work, monkeypatch, settings="aligned crops, x"
    )
    said = "which are not the same ones · allowed: the same images for all processes"
    assert f"{work}/in: got 150 images in process 0, and 151 in process 1, {said}" in of_two(
        work, monkeypatch, count=151
    )
    assert said in of_two(work, monkeypatch, digest=b"x")
    assert of_two(work, monkeypatch, finds=False) == (
        f"{work}/album: process 1 does not find what process 0 writes there: it runs on another machine, or in another "
        "current folder · allowed: one folder that all processes share · give a path on a disk that all machines "
        "share, or run the command on one machine"
    )
    assert of_two(work, monkeypatch, count=150) == ""


def test_a_file_that_a_network_disk_shows_late_is_waited_for(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(gallery_part.time, "sleep", lambda _: pauses.append(0) or (tmp_path / "late").touch())
    assert gallery_part._appears(tmp_path / "late")
    assert len(pauses) == 1
    monkeypatch.setattr(gallery_part, "_LATEST", -1.0)
    assert not gallery_part._appears(tmp_path / "never")


def test_processes_find_different_checkpoints_under_one_name(work):
    """As copies on two machines, or ``best.pt`` of a run that replaces it."""
    for name in ("0", "1"):
        write_checkpoint(work / name / "best.pt", seed=int(name))
    processes = together(work, "album", ckpt="{rank}/best.pt")
    errors = "".join(each.communicate(timeout=600)[1] for each in processes)
    assert [each.returncode for each in processes] == [2, 2]
    assert errors.count("error: ") == 1, errors
    assert "album: got checkpoint_sha256 " in errors
    assert not (work / "album").exists()


def test_a_process_that_is_killed_is_found_and_the_next_run_resumes(work):
    write_image(work / "in" / "p00" / "0.png", noise(0))
    first, second = together(work, "album")
    deadline = time.monotonic() + 600
    while not (work / "album" / ".embed.lock").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    second.wait(timeout=60)
    _, errors = first.communicate(timeout=600)
    assert first.returncode == 2, errors
    assert "error: another process of this run was lost" in errors
    assert "Traceback" not in errors
    assert not (work / "album" / "gallery.json").exists()
    assert embed(work) == 0
    assert len(opened(work).paths) == 150


def test_two_runs_into_one_gallery_are_refused(work, capsys):
    (work / "album").mkdir()
    code = (
        "import sys, sphereface.files as f; file = f.lock_file(__import__('pathlib').Path(sys.argv[1])); print('held', "
    )
    code += "flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(work / "album" / ".embed.lock")], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    assert embed(work) == 2
    holder.communicate("")
    assert (
        "album: another sphereface embed writes this gallery · wait, or give another folder" in capsys.readouterr().err
    )
    assert embed(work) == 0


def test_several_processes_write_no_single_file(work, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert embed(work, out="a.npz") == 2
    assert "a.npz: got a file with several processes · allowed: the name of a folder" in capsys.readouterr().err


# ---------------------------------------------------------------- what is refused


def missing(folder, shard):
    (folder / shard).unlink()


def cut(folder, shard):
    (folder / shard).write_bytes((folder / shard).read_bytes()[:-100])


def flipped(folder, shard):
    data = bytearray((folder / shard).read_bytes())
    at = data.index(b"embeddings.npy") + 600
    data[at] ^= 255
    (folder / shard).write_bytes(bytes(data))


def rewritten(folder, shard, **arrays):
    with np.load(folder / shard) as file:
        np.savez(folder / shard, **{**file, **arrays})
    values = json.loads((folder / "gallery.json").read_text())
    for entry in values["shards"]:
        if entry["file"] == shard:
            entry["bytes"] = (folder / shard).stat().st_size
    (folder / "gallery.json").write_text(json.dumps(values))


def without_numbers(folder, shard):
    with np.load(folder / shard) as file:
        rows = file["embeddings"].copy()
    rows[7] = np.nan
    rewritten(folder, shard, embeddings=rows)


DAMAGES = {
    "missing": (missing, "cannot be read (No such file or directory)"),
    "cut": (cut, "bytes, gallery.json gives"),
    "a flipped byte": (flipped, "damaged (bad CRC-32 of embeddings.npy)"),
    "not a number": (without_numbers, "row 7 is zero, not finite, or beyond what networks give"),
    "too wide": (
        lambda *at: rewritten(*at, embeddings=np.ones((64, 17), np.float32)),
        "of shape (64, 17), not float32",
    ),
    "another network": (lambda *at: rewritten(*at, checkpoint_sha256="ab"), "checkpoint_sha256 is not that of gallery"),
    "too few": (lambda *at: rewritten(*at, embeddings=np.ones((9, 16), np.float32)), "of shape (9, 16), not float32"),
    "beyond": (lambda *at: rewritten(*at, embeddings=np.full((64, 16), 1e9, np.float32)), "row 0 is zero, not finite"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_one_line_and_the_next_embed_repairs_it(work, counted, capsys, damage, caplog):
    assert embed(work) == 0
    harm, message = DAMAGES[damage]
    shard = read_gallery_folder(work / "album").shards[0].file
    harm(work / "album", shard)
    query = ["search", str(work / "album"), str(work / "in/p00/0.png"), "--ckpt", str(work / "best.pt"), "--aligned"]
    capsys.readouterr()
    assert main(query) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {work / 'album' / shard}: ")
    assert message in line
    advice = "run the sphereface embed command of this gallery again, which repairs it"
    if damage == "missing":  # an update deletes the shards that it has replaced
        advice = f"if the gallery was updated meanwhile, run this command again; if not, {advice}"
    assert line.endswith(f" · {advice}")
    counted[0] = 0
    if damage in (
        "not a number",
        "beyond",
        "another network",
    ):  # whole files that this program would not write
        return
    assert embed(work) == 0
    assert counted == [64]
    assert main(query) == 0


@pytest.mark.parametrize(
    ("text_of_list", "message"),
    [
        ("{", "not the list of a gallery ("),
        ('{"format": 9, "kind": {}, "shards": []}', "format: got 9"),
        (None, "has no rows · embed images first"),
        ("../x.npz", "file: got '../x.npz', allowed: a .npz in the same folder"),
    ],
)
def test_a_damaged_list_is_one_line(work, text_of_list, message):
    assert embed(work) == 0
    path = work / "album" / "gallery.json"
    values = json.loads(path.read_text())
    if text_of_list is None:
        values["shards"] = []
    elif text_of_list.startswith("."):
        values["shards"][0]["file"] = text_of_list
    path.write_text(text_of_list if text_of_list and text_of_list.startswith("{") else json.dumps(values))
    with pytest.raises(UserError) as error:
        opened(work)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gallery_of_another_network_or_other_options_is_refused(work, capsys):
    assert embed(work) == 0
    for more, message in (
        (["--dtype", "float16"], "holds a gallery with dtype float32, got float16 · give the same options or another"),
        (["--no-flip"], "holds a gallery with settings with mirror images, got without mirror images · give the"),
    ):
        assert embed(work, *more) == 2
        assert message in capsys.readouterr().err
    write_checkpoint(work / "best.pt", seed=5)
    assert embed(work) == 2
    assert "holds a gallery with checkpoint_sha256 " in capsys.readouterr().err
    with pytest.raises(UserError, match="album: another checkpoint computed it"):
        opened(work)


def test_a_folder_that_is_no_gallery_is_not_touched(work, capsys):
    for out, message in (("in", "got the folder of the images"), ("other", "holds 'note.txt', which is not part of a")):
        (work / out).mkdir(exist_ok=True)
        (work / out / "note.txt").write_text("mine")
        before = sorted((work / out).rglob("*"))
        assert embed(work, out=out) == 2
        assert message in capsys.readouterr().err
        assert sorted((work / out).rglob("*")) == before


def test_a_gallery_is_not_emptied_by_a_wrong_folder(work, capsys):
    assert embed(work) == 0
    shutil.copytree(work / "in", work / "else" / "deeper")
    before = files_of(work / "album")
    assert embed(work, images="else") == 2
    assert (
        f"error: {work}/album: holds a gallery of {work}/in: none of its 150 images is in {work}/else with the same "
        "path, size, time and content · a copy of that folder keeps its times with cp -a · give another folder for the "
        "gallery, or delete this one\n"
    ) in capsys.readouterr().err
    assert files_of(work / "album") == before


def test_a_gallery_of_another_folder_with_the_same_names_is_refused_or_told(work, counted, capsys, caplog):
    for number in range(150):
        write_image(work / "next" / f"p{number // 10:02d}" / f"{number % 10}.png", noise(1000 + number))
    assert embed(work) == 0
    before = files_of(work / "album")
    assert embed(work, images="next") == 2
    refused = f"{work}/album: holds a gallery of {work}/in: none of its 150 images is in {work}/next with the same"
    assert refused in capsys.readouterr().err
    assert (files_of(work / "album"), counted) == (before, [150])
    shutil.copy2(work / "in/p00/0.png", work / "next/p00/0.png")
    (work / "next/p14/9.png").unlink()
    assert embed(work, images="next") == 0
    told = f"held a gallery of {work}/in: 148 of its images have other content in {work}/next, and 1 are not there"
    assert told in caplog.text
    assert capsys.readouterr().out.endswith(" · 148 images embedded (148 changed), 1 unchanged, 1 gone\n")
    assert len(opened(work).paths) == 149


@pytest.mark.parametrize("form", ["folder", ".", "list", "link"])
def test_another_folder_under_the_same_relative_name_is_refused(work, form, monkeypatch, capsys):
    for year, first in (("2024", 0), ("2025", 500)):
        for number in range(3):
            write_image(work / year / "photos" / f"{number}.png", noise(first + number))
        (work / year / "list.txt").write_text("".join(f"photos/{number}.png\n" for number in range(3)))

    def embed_year(year):
        (work / "now").unlink(missing_ok=True)
        (work / "now").symlink_to(year)
        monkeypatch.chdir(work / year / ("photos" if form == "." else ""))
        place = {"folder": "photos", ".": ".", "list": "list.txt", "link": str(work / "now")}[form]
        options = ["--ckpt", str(work / "best.pt"), "--aligned", "--device", "cpu"]
        return main(["embed", place, str(work / "album"), *options])

    assert embed_year("2024") == 0
    before = files_of(work / "album")
    capsys.readouterr()
    assert embed_year("2025") == 2
    kept = work / "2024" / ("photos" if form in ("folder", ".") else "")
    assert f"album: holds a gallery of {kept}: none of its 3 images is in " in capsys.readouterr().err
    assert files_of(work / "album") == before
    for path in (work / "2024" / "photos").iterdir():
        os.utime(path, ns=(1, 1))
    assert embed_year("2024") == 0
    assert capsys.readouterr().out.endswith(" · 3 images embedded (3 changed), 0 unchanged, 0 gone\n")


def test_a_gallery_of_an_earlier_version_is_updated_and_searched(work, capsys):
    """Its list does not have the absolute root, nor the folder of the people."""
    assert embed(work) == 0
    path = work / "album" / "gallery.json"
    whole = json.loads(path.read_text())
    assert (whole.pop("absolute_root"), whole.pop("people_root")) == (str(work / "in"), "")
    path.write_text(json.dumps(whole))
    gallery = opened(work)
    assert (gallery.person(0), gallery.file(0)) == ("p00", f"{work}/in/p00/0.png")
    capsys.readouterr()
    assert embed(work) == 0
    assert capsys.readouterr().out.endswith(" · 0 images embedded, 150 unchanged, 0 gone\n")
    assert json.loads(path.read_text())["absolute_root"] == str(work / "in")


@pytest.mark.parametrize(("out", "more"), [("album", []), ("album.npz", []), ("half.npz", ["--dtype", "float16"])])
def test_a_plot_omits_images_that_changed_since_they_were_embedded(work, out, more, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(search_command, "search_figure", lambda query, crops, *_: shown.append(crops))
    monkeypatch.setattr(search_command, "save_figure", lambda *_: None)
    assert embed(work, *more, out=out) == 0
    search = ["search", str(work / out), str(work / "in/p07/3.png"), "--ckpt", str(work / "best.pt"), "--aligned"]
    search += ["--device", "cpu", "--top", "4", "--save-plot", str(work / "x.png")]
    capsys.readouterr()
    assert main(search) == 0
    out, errors = capsys.readouterr()
    assert all(crop is not None for crop in shown[-1])
    assert errors == ""
    second = Path(out.splitlines()[1].split("  ")[-1])
    unchanged = second.read_bytes()
    write_image(second, noise(991))
    assert main(search) == 0
    assert [crop is None for crop in shown[-1]] == [False, True, False, False]
    alone = FaceEmbedder(work / "best.pt", align=False, device="cpu")
    cosine = alone.verify(unchanged, second).cosine
    assert capsys.readouterr().err == (
        f"note: 1 of 4 images are not shown: {second} changed since it was embedded (cosine {cosine:.2f} with its row) "
        "· embed them again\n"
    )
    second.write_bytes(unchanged)
    os.utime(second, ns=(1, 1))
    assert main(search) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("out", ["album", "album.npz"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_plot_among_the_images_of_a_gallery_is_told(tmp_path, out, inside, monkeypatch, capsys):
    monkeypatch.setattr(search_command, "search_figure", lambda *_: None)
    monkeypatch.setattr(search_command, "save_figure", lambda _, path: path.write_bytes(b""))
    write_checkpoint(tmp_path / "best.pt")
    for number in range(3):
        write_image(tmp_path / "in" / f"p{number}" / "0.png", noise(number))
    images, place = tmp_path / "in", tmp_path / ("in" if inside else "") / out
    assert embed(tmp_path, out=place) == 0
    search = ["search", str(place), str(images / "p0/0.png"), "--ckpt", str(tmp_path / "best.pt"), "--aligned"]
    for plot, told in (("in/x.png", True), ("in/p1/x.JPG", True), ("in/x.svg", False), ("x.png", False)):
        capsys.readouterr()
        assert main([*search, "--save-plot", str(tmp_path / plot)]) == 0
        text = f"note: --save-plot: {tmp_path / plot} is inside {images}: an embed of this folder would read it as an"
        assert (text in capsys.readouterr().err) == told
        (tmp_path / plot).unlink()


@pytest.mark.parametrize("out", ["album", "album.npz"])
def test_a_plot_beside_a_list_of_images_is_written_without_a_word(tmp_path, out, capsys):
    write_checkpoint(tmp_path / "best.pt")
    for number in range(2):
        write_image(tmp_path / "in" / f"p{number}" / "0.png", noise(number))
    (tmp_path / "some.txt").write_text("in/p0/0.png\nin/p1/0.png\n", encoding="utf-8")
    assert embed(tmp_path, out=out, images="some.txt") == 0
    search = ["search", str(tmp_path / out), str(tmp_path / "in/p0/0.png"), "--ckpt", str(tmp_path / "best.pt")]
    capsys.readouterr()
    assert main([*search, "--aligned", "--save-plot", str(tmp_path / "x.png")]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("out", ["album", "album.npz"])
def test_a_plot_shows_the_embedded_images_from_any_current_folder(work, out, monkeypatch, capsys):
    for year, shade in (("2024", 40), ("2025", 200)):
        write_image(work / year / "photos" / "0.png", np.full_like(noise(0), shade))
    shown = []
    monkeypatch.setattr(search_command, "search_figure", lambda query, crops, *_: shown.append(crops))
    monkeypatch.setattr(search_command, "save_figure", lambda *_: None)
    options = ["--ckpt", str(work / "best.pt"), "--aligned", "--device", "cpu"]
    monkeypatch.chdir(work / "2024")
    assert main(["embed", "photos", str(work / out), *options]) == 0
    search = ["search", str(work / out), str(work / "in/p00/0.png"), *options, "--save-plot", str(work / "x.png")]
    for folder in ("2024", "2025", "."):
        monkeypatch.chdir(work / folder)
        assert main(search) == 0
        assert [crop.mean() for crop in shown[-1]] == [40]
    shutil.rmtree(work / "2024")
    monkeypatch.chdir(work / "2025")
    assert main(search) == 0
    assert shown[-1] == [None]
    assert "note: 1 of 1 images cannot be shown: " in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--no-flip"], ["--dtype", "float16"]])
def test_an_unfinished_gallery_is_not_deleted_by_another_run(work, more, monkeypatch, capsys, caplog):
    assert embed(work) == 0
    (work / "album" / "gallery.json").unlink()
    before = files_of(work / "album")
    for number in range(3):
        write_image(work / "else" / f"{number}.png", noise(900 + number))
    capsys.readouterr()
    assert embed(work, *more, images="in" if more else "else") == 2
    errors = capsys.readouterr().err
    assert f"error: {work}/album: holds an unfinished gallery of {work}/in: none of its images is in " in errors
    assert errors.endswith(
        "or its options differ · finish it with its own command, give another folder, or delete this one\n"
    )
    assert (files_of(work / "album"), caplog.text) == (before, "")
    assert embed(work) == 0
    assert capsys.readouterr().out.endswith(" · 0 images embedded, 150 unchanged, 0 gone\n")


def test_a_damaged_shard_does_not_give_the_gallery_to_another_folder(work, capsys):
    assert embed(work) == 0
    flipped(work / "album", read_gallery_folder(work / "album").shards[0].file)
    before = files_of(work / "album")
    for number in range(3):
        write_image(work / "else" / f"{number}.png", noise(900 + number))
    assert embed(work, images="else") == 2
    assert f"holds a gallery of {work}/in: none of its 150 images is in {work}/else with" in capsys.readouterr().err
    assert files_of(work / "album") == before


def test_all_images_of_one_folder_may_change_and_some_may_go(work, counted, caplog, capsys, monkeypatch):
    """However the folder is written, and also if one image was removed."""
    assert embed(work) == 0
    for number, path in enumerate(sorted((work / "in").rglob("*.png"))):
        os.utime(path, ns=(number, number))
    (work / "in" / "p14" / "9.png").unlink()
    monkeypatch.chdir(work / "in")
    (work / "link").symlink_to("in")
    capsys.readouterr()
    assert embed(work, images="link") == 0
    assert capsys.readouterr().out.endswith(" · 149 images embedded (149 changed), 0 unchanged, 1 gone\n")
    assert "held a gallery" not in caplog.text


def test_a_folder_that_moved_keeps_its_gallery_without_a_word(work, counted, caplog, capsys):
    assert embed(work) == 0
    (work / "in").rename(work / "moved")
    assert embed(work, images="moved") == 0
    assert capsys.readouterr().out.endswith(" · 0 images embedded, 150 unchanged, 0 gone\n")
    assert (counted, caplog.text) == ([150], "")


def test_a_folder_without_usable_images_is_told_with_reasons(work, capsys):
    """A gallery that is there stays as it is."""
    assert embed(work) == 0
    before = files_of(work / "album")
    for path in (work / "in").rglob("*.png"):
        path.write_bytes(b"no image")
    (work / "in" / "phone.avif").write_bytes(b"")
    for out in ("album", "fresh", "fresh.npz"):
        capsys.readouterr()
        assert embed(work, out=out) == 2
        errors = capsys.readouterr().err
        assert f"{work}/in: 1 file was not read: 1 .avif" in errors
        assert f"left out 150 of 150 images:\n  - {work}/in/p00/0.png: not an image, or damaged" in errors
        assert errors.endswith(f"error: {work}/in: none of its 150 images can be used\n")
    assert {name: data for name, data in files_of(work / "album").items() if name in before} == before
    assert not (work / "fresh" / "gallery.json").exists()


# ---------------------------------------------------------------- photographs


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    monkeypatch.setattr("sphereface.faces.Mtcnn", ByColour)
    write_checkpoint(tmp_path / "best.pt", input_size=(112, 96))
    (tmp_path / "in" / "a").mkdir(parents=True)
    for name, middles in {
        "a/one.png": [(60, 70)],
        "three.png": [(20, 20), (60, 70), (120, 100)],
        "none.png": [],
    }.items():
        (tmp_path / "in" / name).write_bytes(encode(ByColour.image((140, 150), middles, seed=len(name)), ".png"))
    return tmp_path


def test_boxes_scores_and_faces_are_kept(photographs, capsys):
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu"]
    for out, more, names in (
        ("one", [], [b"a/one.png", b"three.png"]),
        ("all", ["--all-faces"], [b"a/one.png", b"three.png#1", b"three.png#2", b"three.png#3"]),
    ):
        assert main(["embed", str(photographs / "in"), str(photographs / out), *common, *more]) == 0
        gallery = read_gallery_folder(photographs / out)
        content = read_shard(photographs / out / gallery.shards[0].file, gallery.kind)
        assert content.names.tolist() == names
        assert [text(name) for name in content.images] == ["a/one.png", "none.png", "three.png"]
        assert content.faces.tolist() == [1, 0, 3]
        middles = [(60, 70), (20, 20), (60, 70), (120, 100)] if more else [(60, 70), (60, 70)]
        np.testing.assert_allclose(content.boxes, [[x - 4, y - 4, x + 4, y + 4] for x, y in middles], atol=0.6)
        np.testing.assert_allclose(content.scores, 0.95)
        assert content.places.tolist() == ([1, 1, 2, 3] if more else [1, 2])
        assert content.unusable.tolist() == [1]
    errors = capsys.readouterr().err
    assert (
        "three.png (number 2 of 3 from the left): one face of each was enrolled, nearest the centre; 2 other" in errors
    )


def test_a_photograph_is_searched_in_a_gallery_of_crops_as_they_were_aligned(photographs, capsys):
    """The crops have 112×112 pixels and another template than the network's own."""
    target = template((112, 112), 0) + np.array([7, -6])
    spec = CropSpec(size=(112, 112), target=tuple((float(x), float(y)) for x, y in target))
    finder = Finder(ByColour(), pick="largest")
    align_folder(photographs / "in", photographs / "crops", Landmarks(finder=finder), spec)
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu"]
    photograph = decode((photographs / "in/a/one.png").read_bytes())
    points = ByColour()(photograph).points[0].round(2)
    query = align(photograph, points, size=(112, 96), target=target - [8, 0])
    own = FaceEmbedder(photographs / "best.pt", align=False, device="cpu")
    wanted = own.verify(query, photographs / "crops/a/one.jpg").cosine
    for out in ("album", "album.npz"):
        assert main(["embed", str(photographs / "crops"), str(photographs / out), "--aligned", *common]) == 0
        capsys.readouterr()
        plot = ["--save-plot", str(photographs / "found.png")]
        assert main(["search", str(photographs / out), str(photographs / "in/a/one.png"), *common, *plot]) == 0
        captured = capsys.readouterr()
        place, cosine, path = captured.out.splitlines()[0].split()
        assert (place, path) == ("1", str(photographs / "crops/a/one.jpg"))
        assert float(cosine) == pytest.approx(wanted, abs=6e-5)
        assert "cannot be shown" not in captured.err
        assert "note: the crops" not in captured.err
    assert main(["embed", str(photographs / "crops/a"), str(photographs / "bare.npz"), "--aligned", *common]) == 0
    (photographs / "crops" / "align-report.json").unlink()
    assert main(["embed", str(photographs / "crops"), str(photographs / "bare.npz"), "--aligned", *common]) == 0
    assert main(["search", str(photographs / "bare.npz"), str(photographs / "in/a/one.png"), *common]) == 2
    assert "made of aligned crops, without the settings that aligned them · give a crop" in capsys.readouterr().err


def test_a_crop_with_other_places_of_the_landmarks_than_the_gallery_is_told(photographs, capsys):
    for folder, moved in (("crops", 0.0), ("like", 0.2), ("other", 3.0)):
        spec = CropSpec(size=(112, 96), target=tuple((float(x) + moved, float(y)) for x, y in template()))
        align_folder(photographs / "in", photographs / folder, Landmarks(finder=Finder(ByColour())), spec)
    shutil.copy(photographs / "crops/a/one.jpg", photographs / "bare.jpg")
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu", "--aligned"]
    assert main(["embed", str(photographs / "crops"), str(photographs / "album"), *common]) == 0
    assert main(["embed", str(photographs / "crops"), str(photographs / "album.npz"), *common]) == 0
    for gallery in ("album", "album.npz", "crops"):
        for query, told in (
            ("crops/a/one.jpg", ""),
            ("like/a/one.jpg", ""),
            ("bare.jpg", ""),
            ("other/a/one.jpg", "3.0"),
        ):
            capsys.readouterr()
            assert main(["search", str(photographs / gallery), str(photographs / query), *common]) == 0
            note = f"note: {photographs / query}: sphereface align put its landmarks up to {told} pixels from those of"
            assert capsys.readouterr().err.startswith(note) if told else "landmarks" not in capsys.readouterr().err


def test_crops_aligned_unlike_the_training_crops_are_told(photographs, capsys, monkeypatch):
    state = {
        key: value for key, value in load_checkpoint(photographs / "best.pt").items() if key not in ("format", "id")
    }
    points = [[float(x) + 3, float(y)] for x, y in template()]
    state["meta"] |= {"template": {"size": [112, 96], "points": points}}
    save_checkpoint(photographs / "best.pt", state, {})
    for folder, moved, size in (("crops", 0.0, 96), ("like", 2.2, 96), ("wide", 8.0, 112)):
        target = tuple((float(x) + moved, float(y)) for x, y in template())
        align_folder(
            photographs / "in",
            photographs / folder,
            Landmarks(finder=Finder(ByColour())),
            CropSpec(size=(112, size), target=target),
        )
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu"]
    for folder, told in (("crops", "3.0"), ("like", ""), ("wide", "3.0")):
        crops = photographs / folder
        (crops / "pairs.txt").write_text("a/one.jpg a/one.jpg 1\nthree.jpg a/one.jpg 0\n" * 10)
        one = str(crops / "a/one.jpg")
        for argv, place in (
            (["embed", str(crops), str(photographs / f"{folder}.npz"), "--aligned"], crops),
            (["embed", str(crops), str(photographs / f"{folder}-gallery"), "--aligned"], crops),
            (["verify", one, str(crops / "three.jpg"), "--aligned"], one),
            (["eval", "--lfw", str(crops), "--pairs", str(crops / "pairs.txt")], crops),
        ):
            capsys.readouterr()
            assert main([*argv, *common]) == 0
            notes = [line for line in capsys.readouterr().err.splitlines() if "training crops of" in line]
            note = f"note: {place}: sphereface align put its landmarks up to {told} pixels from those of the training"
            assert [line[: len(note)] for line in notes] == [note] * bool(told)
    monkeypatch.setattr("sphereface.commands.eval.CHECKPOINT", photographs / "best.pt")  # as if it came with us
    crops = photographs / "crops"
    assert main(["eval", "--lfw", str(crops), "--pairs", str(crops / "pairs.txt"), *common]) == 0
    assert "training crops of" not in capsys.readouterr().err


def test_a_gallery_of_more_images_of_one_folder_is_replaced_with_a_word(photographs, capsys):
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu", "--all-faces"]
    shutil.copy(photographs / "in/three.png", photographs / "in/other.png")
    (photographs / "in" / "list.txt").write_text("three.png\n")
    for given, said in (("in", ""), ("in", ""), ("in/list.txt", "a gallery of 3 images, 2 of which are"), ("in", "")):
        assert main(["embed", str(photographs / given), str(photographs / "album.npz"), *common]) == 0
        replaced = [line for line in capsys.readouterr().out.splitlines() if "replaced" in line]
        assert replaced == ([f"replaced: {said} not in the new one"] if said else [])
    (photographs / "in" / "other.png").unlink()
    assert main(["embed", str(photographs / "in"), str(photographs / "album.npz"), *common]) == 0
    assert "replaced: a gallery of 3 images, 1 of which is not in the new one" in capsys.readouterr().out


def test_a_list_and_its_folder_are_one_gallery_however_the_list_names_the_images(work, counted, capsys):
    """As ``find .`` names them, or as absolute paths."""
    names = [str(path.relative_to(work / "in")) for path in sorted((work / "in").rglob("*.png"))]
    (work / "in" / "list.txt").write_text("".join(f"./{name}\n" for name in names))
    assert embed(work, images="in/list.txt") == embed(work) == 0
    assert counted == [150]
    assert capsys.readouterr().out.endswith(" · 0 images embedded, 150 unchanged, 0 gone\n")
    assert embed(work, images="in/list.txt", out="a.npz") == embed(work, out="a.npz") == 0
    (work / "in" / "list.txt").write_text("".join(f"{work}/in/p00/../{name}\n" for name in names[1:]))
    assert "replaced" not in capsys.readouterr().out
    assert embed(work, images="in/list.txt", out="a.npz") == 0
    assert "replaced: a gallery of 150 images, 1 of which is not in the new one" in capsys.readouterr().out


def test_galleries_of_photographs_are_compared_with_the_photographs_alone(photographs, caplog):
    """A set may have crops of the same names."""
    for out in ("album.npz", "album"):
        argv = ["embed", str(photographs / "in"), str(photographs / out), "--ckpt", str(photographs / "best.pt")]
        assert main([*argv, "--device", "cpu", "--on-several", "take"]) == 0
    assert "image_hash" not in read_table_with_sha256(photographs / "album.npz")[0]
    shutil.copytree(photographs / "in", photographs / "crops")
    for name in ("a/one.png", "three.png"):
        write_image(photographs / "crops" / name, noise(1, 112, 96))
    (photographs / "link").symlink_to("in")
    names = ("a/one.png", "three.png")

    def check(folder, table="album"):
        caplog.clear()
        source = EmbeddingTable(photographs / table)
        source.check(Images(photographs / folder, names), "x")
        return len(source.changed(Images(photographs / folder, names), "x"))

    assert [check(folder) for folder in ("in", "link", "crops")] == [0, 0, 0]
    assert check("crops", "album.npz") == 0
    one = photographs / "in" / "a" / "one.png"
    one.write_bytes(one.read_bytes() + b"+")
    assert [check("crops"), check("link"), check("in")] == [0, 1, 1]
    assert "album: 1 of the 2 images compared in " in caplog.text
    (photographs / "in" / "three.png").write_bytes(b"another")
    assert check("crops") == 0
    with pytest.raises(UserError, match="2 of the 2 images compared in .* have other content than those embedded"):
        check("in")


def test_a_gallery_of_a_list_with_dots_is_evaluated_as_the_file_is(work):
    """``find . -name '*.png'`` writes such a list."""
    (work / "in" / "list.txt").write_text("./p00/1.png\n./p01/2.png\n")
    for out in ("album", "album.npz"):
        assert embed(work, out=out, images="in/list.txt") == 0
    names = ("p01/2.png", "p00/1.png")
    folder, file = (
        EmbeddingTable(work / out).embeddings(Images(work / "in", names), "x").image for out in ("album", "album.npz")
    )
    np.testing.assert_array_equal(folder, file)


def test_a_face_of_somebody_else_in_a_person_s_folder_is_told(photographs, capsys):
    shutil.copy(photographs / "in/three.png", photographs / "in/a/three.png")
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu"]
    for out, more in (("one.npz", []), ("all.npz", ["--all-faces"])):
        assert main(["embed", str(photographs / "in"), str(photographs / out), *common, *more]) == 0
        query = photographs / "aside.png"
        query.write_bytes(encode(ByColour.image((140, 150), [(20, 20)], seed=9), ".png"))
        for by in ("image", "person"):
            capsys.readouterr()
            assert main(["search", str(photographs / out), str(query), *common, "--by", by]) == 0
            found, errors = capsys.readouterr()
            persons = [line.split() for line in found.splitlines() if line.split()[-2] == "a"]
            several = by == "person" and "#" in persons[0][-1]
            assert several == (by == "person" and bool(more))
            told = (
                f"for 1 of 1 people the nearest face is one of several of an image, such as {persons[0][-1]}"
                if several
                else ""
            )
            assert (told in errors) if several else ("one of several of an image" not in errors)


def test_a_search_in_a_gallery_of_crops_says_that_it_needs_no_template(photographs, capsys):
    align_folder(photographs / "in", photographs / "crops", Landmarks(finder=Finder(ByColour())))
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu"]
    assert main(["embed", str(photographs / "crops"), str(photographs / "album"), "--aligned", *common]) == 0
    search = ["search", str(photographs / "album"), str(photographs / "in/three.png"), *common]
    assert main([*search, "--template-origin", "1"]) == 2
    errors = capsys.readouterr().err
    assert errors.endswith(
        f"error: --template-origin: got 1, but {photographs}/album is made of crops, so the query is aligned as they "
        "were · omit it\n"
    )
    for folder, finder in (("crops", Finder(ByColour())), ("large", Finder(ByColour(), pick="largest"))):
        align_folder(photographs / "in", photographs / folder, Landmarks(finder=finder))
        assert main(["embed", str(photographs / folder), str(photographs / "album.npz"), "--aligned", *common]) == 0
        search[1] = str(photographs / "album.npz")
        taken, other = ("the largest", "centre") if folder == "large" else ("the one nearest the centre", "largest")
        for more in ([], ["--pick", other]):
            capsys.readouterr()
            assert main([*search, *more]) == 0
            told = f"three.png: 3 faces; {taken} was taken (number 2 from the left) · or: --pick {other}\n"
            assert (told in capsys.readouterr().err) == (not more)


def test_a_list_takes_the_report_of_the_crops_that_it_names(photographs, capsys):
    def crops(folder, down):
        target = tuple((float(x), float(y) + down) for x, y in template())
        align_folder(
            photographs / "in", photographs / folder, Landmarks(finder=Finder(ByColour())), CropSpec(target=target)
        )

    def alignment(*lines, place="lists/some.txt", out="x.npz"):
        (photographs / place).write_text("\n".join(map(str, lines)), encoding="utf-8")
        common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu", "--aligned"]
        assert main(["embed", str(photographs / place), str(photographs / out), *common]) == 0
        found = how_crops_were_made(photographs / out)[1]
        return json.loads(found)["template"] if found else "", "".join(
            f"{line}\n" for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")
        )

    (photographs / "in/deep/er").mkdir(parents=True)
    shutil.copy(photographs / "in/a/one.png", photographs / "in/deep/er/two.png")
    for folder, down in (("one", 1), ("two", 2), ("lists", 3)):
        crops(folder, down)
    templates = {
        folder: json.loads((photographs / folder / "align-report.json").read_text())["settings"]["template"]
        for folder in ("one", "two", "lists")
    }
    assert len(set(templates.values())) == 3
    one, two = "../one/a/one.jpg", photographs / "two/three.jpg"
    assert alignment(one) == (templates["one"], "")
    assert alignment(one, "../one/three.jpg", out="folder") == (templates["one"], "")
    assert alignment(two) == (templates["two"], "")
    assert alignment("a/one.jpg", "deep/er/two.jpg") == (templates["lists"], "")
    assert alignment("../../two/deep/er/two.jpg", place="one/a/some.txt") == (templates["two"], "")
    (photographs / "bare").mkdir()
    shutil.copy(photographs / "one/a/one.jpg", photographs / "bare/one.jpg")
    for line in (two, "../bare/one.jpg"):
        found, errors = alignment(one, line)
        assert found == ""
        assert errors == (
            f"note: {photographs}/lists/some.txt: sphereface align made its crops with different settings, or not all "
            "of them, so the gallery is without settings · a search then takes crops only, with --aligned\n"
        )


def test_folders_of_crops_with_other_settings_inside_are_told(photographs, capsys):
    """As a list of the same crops; with the same settings they are one."""
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu", "--aligned"]
    for origin, told in ((0, False), (1, True)):
        align_folder(photographs / "in", photographs / "crops", Landmarks(finder=Finder(ByColour())))
        inner = CropSpec(origin=origin)
        shutil.rmtree(photographs / "crops/more", ignore_errors=True)
        align_folder(photographs / "in", photographs / "crops/more", Landmarks(finder=Finder(ByColour())), inner)
        capsys.readouterr()
        assert main(["embed", str(photographs / "crops"), str(photographs / f"{origin}.npz"), *common]) == 0
        note = f"note: {photographs}/crops: sphereface align made its crops with different settings, or not all of them"
        assert (note in capsys.readouterr().err) == told
        assert bool(how_crops_were_made(photographs / f"{origin}.npz")[1]) != told


def test_the_report_above_the_current_folder_is_found(photographs, monkeypatch):
    align_folder(photographs / "in", photographs / "crops", Landmarks(finder=Finder(ByColour())))
    common = ["--ckpt", str(photographs / "best.pt"), "--device", "cpu", "--aligned"]
    (photographs / "crops/a/deep").mkdir()
    for folder, place in (("crops/a", "."), ("crops/a/deep", "..")):
        monkeypatch.chdir(photographs / folder)
        assert main(["embed", place, str(photographs / "x.npz"), *common]) == 0
        assert json.loads(how_crops_were_made(photographs / "x.npz")[1])["size"] == "112x96"


def test_a_plot_shows_the_face_that_the_gallery_picked(tmp_path, monkeypatch, capsys):
    """The large face is at the left, the small one in the middle."""

    class Sized(ByColour):
        def __call__(self, image):
            found = super().__call__(image)
            boxes = found.boxes + np.outer(found.points[:, 2, 0] < 50, [-9, -9, 9, 9])
            return Faces(boxes, found.scores, found.points)

    monkeypatch.setattr("sphereface.faces.Mtcnn", Sized)
    write_checkpoint(tmp_path / "best.pt", input_size=(112, 96))
    (tmp_path / "in").mkdir()
    image = ByColour.image((140, 150), [(30, 40), (75, 70)])
    (tmp_path / "in/two.png").write_bytes(encode(image, ".png"))
    shown = []
    monkeypatch.setattr(search_command, "search_figure", lambda query, crops, *_: shown.append(crops[0]))
    monkeypatch.setattr(search_command, "save_figure", lambda *_: None)
    common = ["--ckpt", str(tmp_path / "best.pt"), "--device", "cpu"]
    for made, x, y in (("largest", 30, 40), ("centre", 75, 70)):
        assert main(["embed", str(tmp_path / "in"), str(tmp_path / f"{made}.npz"), "--pick", made, *common]) == 0
        wanted = align(image, (template() - template().mean(axis=0)) / 4 + [x, y])
        for picked in ("largest", "centre"):
            search = ["search", str(tmp_path / f"{made}.npz"), str(tmp_path / "in/two.png"), "--pick", picked, *common]
            assert main([*search, "--save-plot", str(tmp_path / "x.png")]) == 0
            assert np.abs(shown[-1].astype(int) - wanted).max() <= 1


def test_a_search_by_person_lists_each_person_once_with_the_nearest_image(work, capsys):
    assert embed(work) == 0
    gallery = opened(work)
    query = ["search", str(work / "album"), str(work / "in/p07/3.png"), "--ckpt", str(work / "best.pt"), "--aligned"]
    capsys.readouterr()
    assert main([*query, "--by", "person", "--top", "15"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[0].isdigit()]
    cosines = gallery.embeddings[0:150].astype(np.float64) @ gallery.embeddings[73:74][0].astype(np.float64)
    best = cosines.reshape(15, 10).max(axis=1)
    assert [row[2] for row in shown] == [f"p{person:02d}" for person in np.argsort(-best)]
    for _, cosine, person, path in shown:
        row = int(person[1:]) * 10 + int(cosines.reshape(15, 10)[int(person[1:])].argmax())
        assert path == gallery.paths[row]
        assert float(cosine) == pytest.approx(cosines[row], abs=1e-4)


def test_an_image_that_belongs_to_no_person_counts_as_one_person(work, capsys):
    """At the top level of the gallery, or outside the folder of the list."""
    (work / "list").mkdir()
    lines = [f"../in/p00/{n}.png" for n in range(2)] + ["x.png"] + [f"p01/{n}.png" for n in range(3)]
    shutil.copytree(work / "in/p01", work / "list/p01")
    shutil.copy(work / "in/p07/3.png", work / "list/x.png")
    (work / "list/some.txt").write_text("\n".join(lines), encoding="utf-8")
    assert embed(work, images="list/some.txt") == 0
    points = (Threshold(0.1, -1.0, 0.95, 1000), Threshold(0.05, 0.999, 0.95, 1000))
    known = Calibration(sha256_of(work / "best.pt"), True, "pairs.txt", 4.0, -2.0, 0.5, points)
    write_calibration(known, calibration_path(work / "best.pt"))
    options = ["--ckpt", str(work / "best.pt"), "--aligned", "--by", "person", "--device", "cpu"]
    query = ["search", str(work / "album"), str(work / "in/p07/3.png"), *options]
    capsys.readouterr()
    assert main(query) == 0
    out, errors = capsys.readouterr()
    assert out.splitlines()[0] == f"  1   1.0000  {work}/list/x.png"
    assert out.splitlines()[4].startswith("decision  the first    cosine > 0.9990")
    assert out.splitlines()[5].endswith(" 0.3 of these 6 images by chance")
    assert errors.startswith("note: --by person: 3 of 4 results are images in no person's folder, so each counts as ")
    for top, told in (("4", []), ("2", ["          --top 4 shows them all"])):  # p01 counts once
        assert main([*query, "--far", "0.1", "--top", top]) == 0
        lines = capsys.readouterr().out.splitlines()[int(top) :]
        assert lines[0].startswith("decision  the first 4  cosine > -1.0000")
        assert lines[1:-2] == told


@pytest.mark.parametrize("out", ["album", "album.npz"])
@pytest.mark.parametrize(
    ("place", "line", "people"),
    [
        ("list.txt", "in/p{0:02d}/{1}.png", [0, 1, 2]),
        ("list.txt", "{work}/in/p{0:02d}/{1}.png", [0, 1, 2]),
        ("lists/list.txt", "../in/p{0:02d}/{1}.png", [0, 1, 2]),
        ("in/list.txt", "p{0:02d}/{1}.png", [0, 1, 2]),
        ("list.txt", "in/p{0:02d}/{1}.png", [2]),
        ("in/list.txt", "p{0:02d}/{1}.png", [2]),
    ],
)
def test_people_of_a_list_are_those_of_the_folder_of_its_images(work, out, place, line, people, monkeypatch, capsys):
    (work / "lists").mkdir()
    lines = [line.format(person, number, work=work) for person in people for number in (1, 2)]
    (work / place).write_text("\n".join(lines))
    monkeypatch.chdir(work)
    options = ["--ckpt", "best.pt", "--aligned", "--device", "cpu"]
    assert main(["embed", place, out, *options]) == 0
    capsys.readouterr()
    assert main(["search", out, "in/p02/1.png", *options, "--by", "person"]) == 0
    shown, errors = capsys.readouterr()
    assert sorted(row.split()[2] for row in shown.splitlines()) == [f"p{person:02d}" for person in people]
    note = "note: --by person: all 2 images are of one person, p02 · a person is <person>/<image> below the folder"
    assert (note in errors) == (len(people) == 1)
    assert errors.count("note: ") == (len(people) == 1)


@pytest.mark.parametrize("out", ["album", "album.npz"])
def test_people_of_a_list_of_absolute_paths_are_found_from_any_folder(work, capsys, monkeypatch, out):
    shutil.copytree(work / "in/p00", work / "else/p00")
    lines = [*(f"{work}/in/p{p:02d}/1.png" for p in range(4)), "p04/2.png", f"{work}/else/p00/2.png"]
    (work / "in/some.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(work / "in")
    options = ["--ckpt", str(work / "best.pt"), "--aligned", "--device", "cpu"]
    assert main(["embed", "some.txt", str(work / out), *options]) == 0
    for folder in (work, work / "in", "/"):
        monkeypatch.chdir(folder)
        capsys.readouterr()
        search = ["search", str(work / out), str(work / "in/p04/2.png"), *options, "--by", "person", "--top", "6"]
        assert main(search) == 0
        shown = [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines()]
        people = [f"p{p:02d}  {work}/in/p{p:02d}/{1 + p // 4}.png" for p in range(5)]
        assert (shown[0], sorted(shown)) == (people[4], sorted([*people, f"{work}/else/p00/2.png"]))


def test_a_list_that_repeats_images_keeps_a_row_for_each_line(work, counted, capsys):
    """Within a shard, across shards, and where two shards hold the same images."""
    block = [f"in/p{n // 10:02d}/{n % 10}.png" for n in range(64)]
    lines = [*block, *block, *block[:3], block[1], block[1], "in/p14/9.png"]
    (work / "some.txt").write_text("\n".join(lines), encoding="utf-8")
    for embedded in (134, 134, 134):
        assert embed(work, images="some.txt") == 0
        assert counted == [embedded]
        assert list(opened(work).paths) == [f"{work}/{line}" for line in lines]
    assert capsys.readouterr().out.endswith(" · 0 images embedded, 134 unchanged, 0 gone\n")
    assert embed(work, out="album.npz", images="some.txt") == 0
    file, folder = opened(work, "album.npz"), opened(work)
    assert list(file.paths) == list(folder.paths)
    np.testing.assert_allclose(folder.embeddings[0:134], file.embeddings, atol=1e-6)
    (work / "some.txt").write_text("\n".join([*lines[:130], lines[0]]), encoding="utf-8")
    capsys.readouterr()
    assert embed(work, images="some.txt") == 0
    assert capsys.readouterr().out.endswith(" · 1 image embedded, 130 unchanged, 4 gone\n")
    assert sorted(opened(work).paths) == sorted(f"{work}/{line}" for line in [*lines[:130], lines[0]])


def test_a_reason_names_the_image_where_it_is_now(work, capsys):
    (work / "in" / "p00" / "broken.png").write_bytes(b"no image")
    assert embed(work) == 0
    stored = [path.read_bytes() for path in (work / "album").glob("*.npz")]
    assert sum(b"not an image" in shard for shard in stored) == 1
    assert not any(b"broken.png: " in shard for shard in stored)
    (work / "in").rename(work / "moved")
    first = capsys.readouterr().err
    assert embed(work, images="moved") == 0
    errors = capsys.readouterr().err
    assert f"  - {work}/moved/p00/broken.png: not an image" in errors
    assert errors.count("broken.png") == 1
    assert errors.splitlines()[-1] == first.splitlines()[-1].replace(f"{work}/in/", f"{work}/moved/")


def test_many_small_additions_are_merged(work, counted, monkeypatch):
    """Sixteen additions of one image each; the merged gallery has the rows of one that was made at once."""
    monkeypatch.setattr(gallery_merge, "MANY", 10)
    images = [f"in/p{n // 10:02d}/{n % 10}.png" for n in range(150)]
    numbers = []
    for count in [120, *range(121, 137), 136]:
        (work / "list.txt").write_text("".join(f"{image}\n" for image in images[:count]))
        assert embed(work, images="list.txt") == 0
        numbers.append(len(read_gallery_folder(work / "album").shards))
    assert numbers == [2, *range(3, 13), *range(3, 9), 8]  # shards of 64 and 56 images, then up to 10 small ones
    assert counted == [136]
    assert embed(work, images="list.txt", out="at-once") == 0
    grown, whole = opened(work), opened(work, "at-once")
    assert sorted(grown.paths) == sorted(whole.paths)
    place = {path: row for row, path in enumerate(whole.paths)}
    wanted = whole.embeddings.take(np.array([place[path] for path in grown.paths]))
    np.testing.assert_allclose(grown.embeddings[0:136], wanted, atol=1e-6)
    merged = read_gallery_folder(work / "album")
    assert {path.name for path in (work / "album").glob("*.npz")} == {shard.file for shard in merged.shards}


def test_a_kill_while_shards_are_merged_loses_nothing(work, counted, monkeypatch):
    assert embed(work) == 0
    monkeypatch.setattr(gallery_merge, "MANY", 0)
    monkeypatch.setattr(gallery_update, "_FEWEST", 4096)  # now all shards are small
    with monkeypatch.context() as patch:
        patch.setattr(gallery_update.GalleryFolder, "save", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert embed(work) != 0
    assert len(opened(work).paths) == 150
    assert embed(work) == 0
    assert counted == [150]
    assert len(read_gallery_folder(work / "album").shards) == len(list((work / "album").glob("*.npz"))) == 1
    assert list(opened(work).paths) == [f"{work}/in/p{n // 10:02d}/{n % 10}.png" for n in range(150)]


def test_merged_shards_keep_the_numbers_of_images_and_of_unusable_ones(tmp_path):
    kind = GalleryKind("0" * 64, "s", "", "in", 2, False, "float32", "all")
    rng = np.random.default_rng(0)

    def content(first, image_of, unusable):
        images = texts(f"{first + n}.png" for n in range(4))
        rows = len(image_of)
        return ShardContent(
            names=images[image_of], embeddings=rng.random((rows, 2)).astype(np.float32), quality=np.ones(rows),
            image_of=np.array(image_of), places=np.arange(rows), images=images, sizes=np.arange(4), times=np.arange(4),
            faces=np.full(4, first), unusable=np.array(unusable), reasons=texts("no" for _ in unusable),
        )  # fmt: skip

    parts = [content(0, [0, 0, 2], [1, 3]), content(4, [1, 3], [0, 2]), content(8, [0, 1, 2, 3], [])]
    shards = [(4 * n, write_shard(tmp_path, part, kind)) for n, part in enumerate(parts)]
    assert gallery_merge.merge_small(tmp_path, kind, shards, 8) == shards
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery_merge, "MANY", 2)
        (first, merged), last = gallery_merge.merge_small(tmp_path, kind, shards, 8)
    assert (first, last) == (0, shards[2])
    assert (merged.rows, merged.images) == (5, 8)
    found = read_shard(tmp_path / merged.file, kind)
    assert [text(found.images[image]) for image in found.image_of] == [text(name) for name in found.names]
    assert found.unusable.tolist() == [1, 3, 4, 6]
    assert found.faces.tolist() == [0] * 4 + [4] * 4
    np.testing.assert_array_equal(found.embeddings, np.concatenate([part.embeddings for part in parts[:2]]))


def test_a_damaged_shard_is_repaired_although_the_images_of_the_others_are_gone(work, caplog):
    for person in range(1, 15):
        shutil.rmtree(work / "in" / f"p{person:02d}")
    assert embed(work) == 0
    (first,) = work.glob("album/*.npz")
    write_image(work / "in" / "p99" / "0.png", noise(99))
    assert embed(work) == 0
    first.write_bytes(first.read_bytes()[:3000])
    (work / "in" / "p99" / "0.png").unlink()
    assert embed(work) == 0
    assert "its images are embedded again" in caplog.text
    assert len(opened(work).paths) == 10


def test_a_gallery_without_its_first_shard_is_no_folder_of_images(work, capsys):
    (work / "album").mkdir()
    (work / "album" / ".embed.lock").touch()
    query = work / "in" / "p00" / "0.png"
    assert main(["search", str(work / "album"), str(query), "--ckpt", str(work / "best.pt"), "--aligned"]) == 2
    assert "gallery.json" in capsys.readouterr().err
