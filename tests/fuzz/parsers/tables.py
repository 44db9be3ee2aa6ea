"""Galleries, tables of embeddings and kept embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from sphereface.alignment.kept_settings import read_settings
from sphereface.alignment.templates import TEMPLATES
from sphereface.data.pairs import read_pairs
from sphereface.evaluation import Images, PairSet, Rule
from sphereface.evaluation.embedder import Embedder
from sphereface.evaluation.embedding_table import EmbeddingTable
from sphereface.evaluation.gallery_folder import GalleryFolder
from sphereface.evaluation.gallery_shard import GalleryKind, ShardContent, texts, write_shard
from sphereface.gallery import load_gallery
from sphereface.search import nearest

from ...evaluation.checkpoints import write_checkpoint
from ...evaluation.crops import noise, write_image
from ..registry import register
from .lists import make_view2

_NAMES = [f"P{person}/P{person}_{number:04d}.jpg" for person in range(4) for number in (1, 2)]
_SHA = "0" * 64


def _rows(dims: int = 6) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((len(_NAMES), dims)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_gallery(folder: Path) -> None:
    common = {"checkpoint_sha256": _SHA, "settings": "aligned crops"}
    np.savez(folder / "one.npz", format=2, names=_NAMES, embeddings=_rows(), **common)
    np.savez(folder / "two.npz", format=2, names=_NAMES, root="a", embeddings=_rows(), mirror=3 * _rows(), **common)
    np.savez_compressed(folder / "packed.npz", format=2, names=_NAMES, root="a", embeddings=_rows(), **common)


def parse_gallery(_folder: Path, path: Path) -> None:
    gallery = load_gallery(path, checkpoint_sha256=_SHA, settings="aligned crops")
    dims = gallery.embeddings.shape[1]
    assert len(gallery.paths) == len(gallery.embeddings)
    query = np.ones((1, dims), np.float32) / np.sqrt(max(dims, 1))
    rows, cosines = nearest(gallery.embeddings, query.astype(np.float32), 3)
    assert (np.abs(cosines) < 1.01).all(), cosines
    assert (rows < len(gallery.paths)).all()


def make_table(folder: Path) -> None:
    np.savez(folder / "t.npz", names=_NAMES, embeddings=_rows(), mirror=_rows(), quality=np.arange(8.0), root="a")
    np.savez_compressed(folder / "u.npz", names=_NAMES, embeddings=_rows().astype(np.float64))
    make_view2(folder)


def parse_table(folder: Path, path: Path) -> None:
    pairs = read_pairs(folder / "pairs.txt")
    table = EmbeddingTable(path)
    table.about()
    own = PairSet("own", Images(folder, pairs.names), pairs)
    result = own.evaluate(table.embeddings(own.images, "own"), Rule())
    result.rows()
    result.to_dict()


def _embed(folder: Path) -> np.ndarray:
    loaded_from = folder / "a.pt"
    embedder = Embedder.of_checkpoint(loaded_from, device=torch.device("cpu"), cache=folder / "cache", batch_size=4)
    return embedder.embed([folder / f"{number}.png" for number in range(3)])


def make_cache(folder: Path) -> None:
    write_checkpoint(folder / "a.pt")
    for number in range(3):
        write_image(folder / f"{number}.png", noise(number))
    np.save(folder / "expected.npy", _embed(folder))


def parse_cache(folder: Path, _path: Path) -> None:
    found = _embed(folder)
    assert found.shape == np.load(folder / "expected.npy").shape
    assert np.isfinite(found).all()


def make_folder(folder: Path) -> None:
    kind = GalleryKind(_SHA, "aligned crops", "", "photographs", 6, True, "float32", "take")
    (folder / "album").mkdir()
    shards = []
    for first in (0, 4):
        rows, names = _rows()[first : first + 4], texts(_NAMES[first : first + 4])
        content = ShardContent(
            names=names, embeddings=rows, mirror=3 * rows, quality=np.ones(4, np.float32), image_of=np.arange(4),
            places=np.ones(4, np.int64), images=names, sizes=np.arange(4), times=np.arange(4),
            faces=np.ones(4, np.int64), unusable=np.empty(0, np.int64), reasons=texts([]),
        )  # fmt: skip
        shards.append(write_shard(folder / "album", content, kind))
    GalleryFolder(folder / "album", kind, tuple(shards)).save()


def parse_folder(folder: Path, _path: Path) -> None:
    gallery = load_gallery(folder / "album", checkpoint_sha256=_SHA, settings="aligned crops")
    width = gallery.embeddings.shape[1]
    query = np.full((1, width), 1 / np.sqrt(width), np.float32)
    rows, cosines = nearest(gallery.embeddings, query, 3)
    assert (np.abs(cosines) < 1.01).all(), cosines
    for row in rows[0].tolist():
        assert gallery.paths[row]
        gallery.person(row)
    table = EmbeddingTable(folder / "album")
    table.about()


def make_settings(folder: Path) -> None:
    settings = {"size": "112x112", "template_origin": 0, "detector": "mtcnn", "pick": "centre"}
    (folder / "a.json").write_text(json.dumps(settings), encoding="utf-8")
    five = " ".join(f"{x:g},{y:g}" for x, y in TEMPLATES[(112, 96)])
    (folder / "b.json").write_text(json.dumps({"size": "112x96", "template": five}), encoding="utf-8")


def parse_settings(_folder: Path, path: Path) -> None:
    found = read_settings(path.read_bytes().decode("utf-8", "surrogateescape"), (112, 96), Path("album"))
    assert np.isfinite(found.template.array).all()


register("kept-settings", make_settings, parse_settings, reads="alignment.kept_settings")
register("gallery", make_gallery, parse_gallery, reads="gallery")
register(
    "gallery-folder",
    make_folder,
    parse_folder,
    files="album/*",
    reads="evaluation.gallery_folder evaluation.gallery_shard",
)
register(
    "table",
    make_table,
    parse_table,
    files="*.npz",
    reads="evaluation.embedding_table evaluation.table_file evaluation.mapped_array",
)
register("embedding-cache", make_cache, parse_cache, files="cache/*.npz", output="cache", reads="evaluation.embedder")
