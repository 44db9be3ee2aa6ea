import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.errors import UserError
from sphereface.evaluation import embedder as module
from sphereface.evaluation.embed import embed_files
from sphereface.evaluation.embedder import Embedder

from .checkpoints import write_checkpoint
from .crops import noise, write_image

CPU = torch.device("cpu")


@pytest.fixture
def work(tmp_path):
    write_checkpoint(tmp_path / "best.pt")
    files = [write_image(tmp_path / f"{k}.png", noise(k)) for k in range(5)]
    return tmp_path, files


@pytest.fixture
def embedded(monkeypatch):
    """Names of the images that went through the network, a list for each time."""
    calls = []

    def watched(model, files, **options):
        calls.append([Path(str(file)).name for file in files])
        return embed_files(model, files, **options)

    monkeypatch.setattr(module, "embed_files", watched)
    return calls


def test_what_was_embedded_before_is_not_embedded_again(work, embedded):
    folder, files = work
    first = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    features = first.embed(files[:3])
    expected = embed_files(first.model, files[:3], device="cpu")
    np.testing.assert_array_equal(features, expected)
    again = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    np.testing.assert_array_equal(again.embed(files[2::-1]), expected[::-1])
    assert embedded == [["0.png", "1.png", "2.png"]]
    again.embed(files)
    assert embedded[1:] == [["3.png", "4.png"]]


def test_content_counts_and_not_the_name(work, embedded):
    folder, files = work
    embedder = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    before = embedder.embed(files)
    moved = files[1].rename(folder / "moved.png")
    write_image(files[0], noise(77))
    after = embedder.embed([files[0], moved])
    assert embedded[1:] == [["0.png"]]
    np.testing.assert_array_equal(after[1], before[1])
    assert not np.allclose(after[0], before[0])


def test_each_checkpoint_flip_and_precision_has_its_own(work, embedded):
    folder, files = work
    write_checkpoint(folder / "other.pt", seed=1)
    for name, options in (
        ("best.pt", {}),
        ("other.pt", {}),
        ("best.pt", {"mirror": "none"}),
        ("best.pt", {"precision": "bf16"}),
    ):
        Embedder.of_checkpoint(folder / name, device=CPU, cache=folder / "kept", **options).embed(files[:1])
    assert len(embedded) == len(list((folder / "kept").glob("*.npz"))) == 4


def test_equal_images_are_embedded_once(work, embedded):
    folder, files = work
    twin = write_image(folder / "twin.png", noise(0))
    features = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept").embed([files[0], twin])
    np.testing.assert_array_equal(features[0], features[1])
    assert embedded == [["twin.png"]] or embedded == [["0.png"]]


def test_without_a_folder_nothing_is_kept(work, embedded):
    folder, files = work
    embedder = Embedder.of_checkpoint(folder / "best.pt", device=CPU)
    np.testing.assert_array_equal(embedder.embed(files), embedder.embed(files))
    assert len(embedded) == 2
    assert not list(folder.glob("**/*.npz"))


def test_bad_images_are_listed_and_nothing_is_kept(work):
    folder, files = work
    files[1].write_bytes(b"")
    embedder = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    with pytest.raises(UserError, match="2 of 6 images cannot be used"):
        embedder.embed([*files, folder / "none.png"])
    assert not (folder / "kept").exists()


def test_a_damaged_file_is_said(work):
    folder, files = work
    embedder = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    embedder.embed(files)
    (kept,) = (folder / "kept").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged file of kept embeddings .* delete it, or use --no-cache"):
        embedder.embed(files)


@pytest.mark.parametrize(
    "change",
    [
        {"digests": np.array(5)},
        {"features": np.array(5)},
        {"digests": np.zeros((1, 16), np.uint8)},
        {"digests": lambda kept: kept["digests"][:, :8]},
        {"digests": lambda kept: kept["digests"].astype(np.int64)},
        {"features": lambda kept: kept["features"][:, :-1]},
        {"features": lambda kept: kept["features"][:-1]},
        {"features": lambda kept: kept["features"].astype(np.float64)},
        {"features": lambda kept: np.array(kept["features"], dtype=object)},
    ],
)
def test_kept_embeddings_of_another_form_are_refused(work, change):
    folder, files = work
    embedder = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    embedder.embed(files)
    (path,) = (folder / "kept").glob("*.npz")
    kept = dict(np.load(path))
    np.savez(path, **{**kept, **{key: made(kept) if callable(made) else made for key, made in change.items()}})
    with pytest.raises(UserError, match="damaged file of kept embeddings .* delete it, or use --no-cache"):
        embedder.embed(files)
    np.savez(path, **kept)
    assert len(embedder.embed(files)) == len(files)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -2e6])
def test_kept_embeddings_that_are_out_of_range_are_made_again(work, value, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    folder, files = work
    embedder = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    wanted = embedder.embed(files)
    (path,) = (folder / "kept").glob("*.npz")
    kept = dict(np.load(path))
    kept["features"][0, 0] = value
    np.savez(path, **kept)
    np.testing.assert_allclose(embedder.embed(files), wanted, atol=1e-6)
    assert f"1 of {len(files)} embeddings are out of range and are computed again" in caplog.text
    caplog.clear()
    embedder.embed(files)
    assert caplog.text == ""  # the file is whole again


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(work, caplog):
    folder, files = work
    (folder / "kept").write_text("a file", encoding="utf-8")
    features = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept").embed(files)
    np.testing.assert_array_equal(features, Embedder.of_checkpoint(folder / "best.pt", device=CPU).embed(files))
    assert "embeddings cannot be written there" in caplog.text


def test_a_bad_image_is_counted_among_all_of_them(work):
    folder, files = work
    embedder = Embedder.of_checkpoint(folder / "best.pt", device=CPU, cache=folder / "kept")
    embedder.embed(files)
    bad = files[0].with_name("bad.png")
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=f"1 of {len(files) + 1} images cannot be used"):
        embedder.embed([*files, bad])
