"""The same run from every form of the same images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
import webdataset
import yaml

from scripts import pack_faces
from sphereface.config import load_config
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.training.trainer import Trainer

from ..data.recs import insightface_records, write_rec
from ..data.shards import face_lmdb, table_of, write_arrow, write_parquet, write_tar
from ..images import make_training_set
from .runs import TINY, metrics_of, train

SETTINGS = {
    "name": "same",
    "model": {"depth": 10, "widths": [4, 8, 8, 8], "embedding_dim": 8, "input_size": [32, 32], "norm": "batch"},
    "loss": {"name": "a-softmax", "m": 4, "lambda_gamma": 10},
    "train": {"batch_size": 8, "steps": 50, "lr": 0.01},
    "data": {"workers": 0, "crop_shift": 2},
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> dict[str, dict[str, object]]:
    """The section ``data`` for each form of 5 × 7 images."""
    root = tmp_path_factory.mktemp("forms")
    folder = make_training_set(root / "folder", 5, 7, size=(32, 32))
    images = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [f"{name} {int(name[2:4])}" for name in reversed(images)]
    (root / "list.txt").write_text("\n".join(lines))
    with zipfile.ZipFile(root / "faces.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in reversed(images):
            file.write(folder / name, f"faces/{name}")
    with zipfile.ZipFile(root / "listed.zip", "w") as file:
        for number, name in enumerate(images):  # whose names say nothing
            file.write(folder / name, f"{number:02d}.png")
        file.writestr("list.txt", "".join(f"{n:02d}.png {name[2:4]}\n" for n, name in enumerate(images)))
    people = [[path.read_bytes() for path in sorted(person.iterdir())] for person in sorted(folder.iterdir())]
    write_rec(root / "hand" / "train.rec", insightface_records(people, arrays=True))
    assert pack_faces.main([str(folder), str(root / "packed" / "train.rec")]) == 0
    more = shards_and_tables(root, [(name, (folder / name).read_bytes()) for name in images])
    assert pack_faces.main([str(folder), str(root / "shards" / "f.tar"), "--shard-mb", "1"]) == 0
    parts = [root / "some", root / "others"]
    for part, names in zip(parts, (["id03", "id00", "id01"], ["id02", "id04", "id00"]), strict=True):
        part.mkdir()
        for name in names:
            (part / name).mkdir()
    for name in images:  # of id00, one half here and one there
        here = parts[0] if name[2:4] in ("01", "03") or name in images[:3] else parts[1]
        (here / name).symlink_to(folder / name)
    return {
        "folder": {"train": str(folder)},
        "list": {"train": str(root / "list.txt"), "root": str(folder)},
        "zip": {"train": str(root / "faces.zip")},
        "zip with list": {"train": str(root / "listed.zip")},
        "rec by hand": {"train": str(root / "hand")},
        "rec packed": {"train": str(root / "packed" / "train.rec"), "workers": 2},
        "merged": {"train": [str(part) for part in parts], "merge": True},
        "tar packed": {"train": str(root / "shards"), "workers": 2},
        **more,
    }


def shards_and_tables(root: Path, images: list[tuple[str, bytes]]) -> dict[str, dict[str, object]]:
    """Tar, Parquet, Arrow and LMDB of images ``id<number>/<name>``, written by others than this package."""
    labels = [int(name[2:4]) for name, _ in images]
    half = len(images) // 2
    write_tar(root / "tar" / "f-000.tar", [(f"faces/{name}", data) for name, data in images[half:]])
    write_tar(root / "tar" / "f-001.tar", [(f"faces/{name}", data) for name, data in images[:half]])
    samples = [(f"{n:04d}", data, label) for n, ((_, data), label) in enumerate(zip(images, labels, strict=True))]
    with webdataset.TarWriter(str(root / "wds.tar")) as writer:
        for key, data, label in samples:
            writer.write({"__key__": key, "png": data, "cls": label})
    table = table_of([(name[5:], data) for name, data in images], labels, sorted({name[:4] for name, _ in images}))
    write_parquet(root / "snappy.parquet", table)
    write_parquet(root / "parquet" / "train-00000-of-00002.parquet", table.slice(0, half), compression="none")
    write_parquet(root / "parquet" / "train-00001-of-00002.parquet", table.slice(half), compression="none")
    write_arrow(root / "arrow" / "data-00000-of-00001.arrow", table)
    face_lmdb(root / "f.lmdb", [(data, label) for _, data, label in samples])
    places = {
        "tar": root / "tar" / "f-{000..001}.tar",
        "webdataset": root / "wds.tar",
        "parquet": root / "parquet",
        "snappy": root / "snappy.parquet",
        "arrow": root / "arrow",
        "lmdb": root / "f.lmdb",
    }
    found: dict[str, dict[str, object]] = {name: {"train": str(path)} for name, path in places.items()}
    found["parquet in workers"] = {"train": str(root / "parquet"), "workers": 2, "keep_mb": 0}
    return found


def losses(data: dict[str, object], steps: int, folder: Path) -> list[float]:
    values = {**SETTINGS, "data": {**SETTINGS["data"], **data}}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    trainer = Trainer(load_config(str(path), losses=MARGINS, backbones=BACKBONES), torch.device("cpu"))
    feed = trainer.feed()
    return [float(trainer.train_step(next(feed)).output.loss) for _ in range(steps)]


@pytest.mark.parametrize("steps", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_every_form_of_the_same_images_gives_the_same_losses(forms, tmp_path, steps):
    expected = losses(forms["folder"], steps, tmp_path)
    assert len(set(expected)) == steps
    for name, data in forms.items():
        assert losses(data, steps, tmp_path) == expected, name
    changed = {"train": forms["folder"]["train"], "exclude": ["id04"]}
    assert losses(changed, steps, tmp_path) != expected


@pytest.mark.parametrize("name", ["tar", "tar packed", "webdataset", "parquet", "snappy", "arrow", "lmdb"])
def test_a_killed_run_resumes_to_the_image_from_every_new_form(forms, tmp_path, name):
    data = {"crop_shift": 2, "workers": 0, **forms[name]}
    path = tmp_path / "config.yaml"
    path.write_text(TINY.replace("data: {workers: 0, crop_shift: 2}", yaml.safe_dump({"data": data})), encoding="utf-8")
    options = ["train.steps=8", "eval.sets={}"]
    whole = train(path, *options, f"runs_dir={tmp_path / 'whole'}")
    killed = train(path, *options, f"runs_dir={tmp_path / 'killed'}", stop_at=6)
    resumed = train(path, *options, f"runs_dir={tmp_path / 'killed'}", resume=str(killed))
    expected = metrics_of(whole, "train/loss")
    assert len(expected) == 8
    assert metrics_of(resumed, "train/loss") == expected
