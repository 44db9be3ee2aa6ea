"""Networks of other publishers: ONNX, .caffemodel, .pth, .safetensors, .ckpt, a Hugging Face folder."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch

from sphereface.models import load_model
from sphereface.models.caffemodel import read_caffemodel
from sphereface.models.onnx_backbone import OnnxBackbone
from sphereface.models.published.files import read_contents
from sphereface.models.published.heads import read_names
from sphereface.models.published.importing import import_published, save_published

from ...evaluation.checkpoints import write_checkpoint
from ...models.published import (
    Port,
    arcface_checkpoint,
    behind,
    caffemodel,
    hugging_face_folder,
    lightning_checkpoint,
    sphere_tensors,
    write_python2_pth,
)
from ..registry import register


def make_caffe(folder: Path) -> None:
    (folder / "a.caffemodel").write_bytes(caffemodel(sphere_tensors()))
    (folder / "old.caffemodel").write_bytes(caffemodel(sphere_tensors(), v1=True, old=True))


def parse_caffe(_folder: Path, path: Path) -> None:
    read_caffemodel(path)
    import_published(path)


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Port().state_dict()


def make_port(folder: Path) -> None:
    """The PyTorch port of SphereFace: small enough to import whole."""
    torch.save(_state(), folder / "port.pth")
    write_python2_pth(folder / "old.pth", _state())
    (folder / "names.txt").write_text("\n".join("abcdefg"), encoding="utf-8")


def parse_port(folder: Path, path: Path) -> None:
    if path.name == "names.txt":
        read_names(path, 7)
        return
    import_published(path, names_file=folder / "names.txt")


def make_containers(folder: Path) -> None:
    """The containers of the other publishers, with a network that none of them has: read, then not recognised."""
    state = {"conv1.weight": torch.randn(4, 3, 3, 3), "fc.weight": torch.randn(5, 4), "fc.bias": torch.randn(5)}
    head = torch.randn(7, 5)
    arcface_checkpoint(folder / "arcface.pt", state, head)
    lightning_checkpoint(folder / "lightning.ckpt", state, head.T)
    lightning_checkpoint(folder / "old.ckpt", state, head.T, age="1.4")
    torch.save(behind("module.", state), folder / "module.pth", _use_new_zipfile_serialization=False)
    hugging_face_folder(folder / "hf", state, color_space="RGB")
    (folder / "module.yaml").write_text("input_size: [3, 112, 112]\ncolor_space: RGB\n", encoding="utf-8")


def parse_container(folder: Path, path: Path) -> None:
    place = folder / "hf" if path.parent.name == "hf" else path.with_suffix(".pth") if path.suffix == ".yaml" else path
    read_contents(place)
    import_published(place)


def make_own_export(folder: Path) -> None:
    """The .safetensors of ``sphereface export``, whose metadata state the network."""
    from sphereface.export.formats import write_safetensors

    loaded = load_model(write_checkpoint(folder / "a.pt"))
    about = {"checkpoint_sha256": loaded.sha256, "seen_size": "[[16, 12]]", "template": '{"size": [32, 24]}'}
    model = json.dumps(loaded.meta["config"]["model"])
    write_safetensors(loaded.model, folder / "a.safetensors", {**about, "model": model})
    for name in ("a.pt", "a.json"):
        (folder / name).unlink()


def parse_own_export(folder: Path, path: Path) -> None:
    save_published(import_published(path), folder / "out" / "back.pt", origin="a test")
    load_model(folder / "out" / "back.pt")


def make_onnx(folder: Path) -> None:
    from ...models.onnx_files import write_onnx

    write_onnx(folder / "a.onnx", before=[("Sub", 127.5), ("Mul", 1 / 128)])
    write_onnx(folder / "external.onnx", external="external.data")


def parse_onnx(_folder: Path, path: Path) -> None:
    network = OnnxBackbone(path.with_suffix(".onnx"))
    height, width = network.input_spec.size
    network(torch.zeros(2, 3, height, width))


register("caffemodel", make_caffe, parse_caffe, reads="models.caffemodel")
register(
    "port", make_port, parse_port, reads="models.published.importing models.published.heads models.published.shapes"
)
register(
    "published", make_containers, parse_container,
    reads="models.published.files models.published.plain_pickles file_kinds",
)  # fmt: skip
if importlib.util.find_spec("safetensors") is not None:
    register("own-export", make_own_export, parse_own_export, reads="models.published.own_export")
if importlib.util.find_spec("onnxruntime") is not None:
    register("onnx", make_onnx, parse_onnx, reads="models.onnx_backbone onnx_input")
